"""The report's arithmetic on small made-up results: nothing is timed."""

import json

import goals
import growth
import pytest
import report
import results
import tables

MACHINE = dict(cpu="a CPU", cpus="2", isa="avx2", compiler="gcc", version="0.1.0", numpy="2.0")


def entry(workload, seconds, who="optimcore", threads=1, limit=None, traffic=0, own=None):
    """Return a benchmark as the JSON has it, with quartiles at 90 and 120 %."""
    info = {"id": workload, "who": who, "threads": threads, "elements": 1000}
    if limit:
        info |= {"limit seconds": limit, "bytes": traffic}
    if own:
        info["optimcore seconds"] = own
    stats = dict(median=seconds, q1=0.9 * seconds, q3=1.2 * seconds, rounds=5)
    return dict(extra_info=info, stats=stats)


def write(path, *entries, **machine):
    """Write a JSON file; return its path."""
    info = dict(optimcore=MACHINE | machine, limits={"read, 1 thread(s)": 1e10}, command=f"pytest {path.stem}")
    content = dict(machine_info=info, commit_info=dict(id="0123456789abcdef"), datetime="2026-01-01T00:00:00")
    path.write_text(json.dumps(content | dict(benchmarks=entries)))
    return path


ADAM = "dense/adam/1e5"


@pytest.fixture
def found(tmp_path):
    """Results in two files, of which the later one measured optimcore anew."""
    first = write(tmp_path / "a.json", entry(ADAM, 9e-6), entry(ADAM, 30e-6, "torch", limit=None))
    peers = [entry(ADAM, 25e-6, "torch fused"), entry(ADAM, 40e-6, "torch fused", 2), entry(ADAM, 1e-6, "optax", 2)]
    own = [
        entry(ADAM, 10e-6, limit=8e-6, traffic=2 * 10**6),
        entry(ADAM, 8e-6, threads=2, limit=4e-6, traffic=2 * 10**6),
    ]
    return results.load([first, write(tmp_path / "b.json", *own, *peers, measured="anew")])


def test_later_file_counts(found):
    assert found.own(ADAM, 1).median == 10e-6
    assert found.own(ADAM, 1).fraction == pytest.approx(0.8)
    assert found.own(ADAM, 1).spread == pytest.approx(0.3)
    assert found.commands == ["pytest a", "pytest b"]


def test_peer_is_what_it_would_have_been_when_optimcore_was_measured(tmp_path):
    """The memory was half as fast when the peer had its turn."""
    entries = entry(ADAM, 10e-6), entry(ADAM, 30e-6, "torch", own=20e-6), entry(ADAM, 30e-6, "optax", 2, own=20e-6)
    found = results.load([write(tmp_path / "a.json", *entries)])
    (torch,) = found.peers(ADAM, 1)
    assert (torch.median, torch.q1, torch.q3) == pytest.approx((15e-6, 13.5e-6, 18e-6))
    assert found.by_key[ADAM, 2, "optax"].median == 30e-6  # nothing to compare with


def test_files_of_two_machines_are_refused(tmp_path):
    paths = [write(tmp_path / "a.json"), write(tmp_path / "b.json", isa="avx512")]
    with pytest.raises(ValueError, match="one machine"):
        results.load(paths)


def test_peer_has_no_more_threads_and_its_fastest_mode(found):
    """Two threads may be slower than one; and one thread is not compared with two."""
    assert [(m.who, m.threads) for m in found.peers(ADAM, 1)] == [("torch fused", 1), ("torch", 1)]
    assert [(m.who, m.threads) for m in found.peers(ADAM, 2)] == [("optax", 2), ("torch fused", 1), ("torch", 1)]


def faster(least, threads=(1, 2)):
    (goal,) = goals.faster("adam", (ADAM,), ("torch", ("torch",), least, threads))
    return goal


def test_goal_of_a_ratio(found):
    one, two = goals.check(faster(3), found)
    assert (one.value, two.value) == pytest.approx((2.5, 25 / 8))
    assert (one.low, one.high) == pytest.approx((25 * 0.9 / 12, 25 * 1.2 / 9))
    assert (one.verdict, two.verdict, goals.verdict([one, two])) == ("missed", "met", "missed")


def test_goal_that_nobody_measured(found):
    (goal,) = goals.faster("sgd", ("dense/sgd/1e5",), ("torch", ("torch",), 1))
    assert {one.verdict for one in goals.check(goal, found)} == {"not measured"}
    assert goals.verdict(goals.check(goal, found)) == "not measured"
    assert goals.verdict([]) == "not measured"


def test_goal_of_scaling_applies_where_the_limit_scales(found):
    goal = goals.scaling_goal(found)
    assert goal.workloads == (ADAM,)
    (one,) = goals.check(goal, found)
    assert (one.value, one.verdict) == (pytest.approx(1.25), "missed")


def test_goals_name_workloads_that_exist():
    from workloads import WORKLOADS

    named = {name for goal in goals.GOALS for name in goal.workloads} | set(growth.SERIES.values()) | set(tables.SHOWN)
    assert named <= set(WORKLOADS)


def test_limit_that_says_nothing_is_not_printed(tmp_path):
    """The second thread of the limit had no CPU: 7,960 us beside a step of 43 us."""
    busy = entry("dense/adam/1e5", 43e-6, threads=2, limit=7960e-6, traffic=2 * 10**6)
    told = entry("dense/sgd/1e5", 43e-6, threads=2, traffic=2 * 10**6)
    told["extra_info"]["limit"] = results.BUSY
    found = results.load([write(tmp_path / "a.json", busy, told, entry("dense/lamb/1e5", 43e-6, limit=80e-6))])
    for workload in ("dense/adam/1e5", "dense/sgd/1e5"):
        assert tables.fraction_text(found.own(workload, 2)) == "machine too busy"
        assert found.own(workload, 2).limit is None
    assert tables.fraction_text(found.own("dense/lamb/1e5", 1)) == "1.86"
    assert "7.96 ms" not in report.page(found)


def test_growth_tells_a_pass_over_the_table_from_caches(tmp_path):
    """Caches slow down the limit as well; a byte per row takes 0.1 ns here, and a pass of 1 ns is found."""
    for extra, verdict in ((0, "met"), (1e-9, "missed")):
        series = [
            entry(name, 1e-4 + 1e-5 * i + extra * rows, limit=5e-5 + 1e-5 * i)
            for i, (rows, name) in enumerate(growth.SERIES.items())
        ]
        line = growth.growth(results.load([write(tmp_path / "a.json", *series)]), 1)
        assert line.rest.slope == pytest.approx(extra, abs=1e-15)
        assert line.verdict == verdict


def test_readme_is_rewritten_between_markers_only():
    text = f"before\n{report.BEGIN}old\n{report.END}after\n"
    assert report.put_between(text, "new\n") == f"before\n{report.BEGIN}new\n{report.END}after\n"
    with pytest.raises(ValueError, match="must contain"):
        report.put_between("nothing", "new")


def test_every_section_and_the_page(found):
    for name, make in tables.SECTIONS.items():
        section = make(found)
        assert (section if isinstance(section, str) else section.markdown()) or name == "sparse"
    page = report.page(found)
    assert ADAM in page and "<img" in page
    assert not any(link in page for link in ('src="http', 'href="http', "<script"))


def test_cells_are_escaped():
    table = tables.Table("", ("a|b",), [["<b>|"]])
    assert "a\\|b" in table.markdown()
    assert "&lt;b&gt;|" in table.html()
