"""The table of instructions: what is read from callgrind, and what the comparison accepts."""

import instructions
import pytest

TABLE = {"avx2 dense/adam/1e3": 20000, "avx2 dense/sgd/1e3": 10000}


def test_counts_are_differences_of_two_stretches(tmp_path):
    """20 and 40 calls with 500 instructions around them; dumps without a name do not count."""
    for number, total in enumerate([500 + 20 * 7, 500 + 40 * 7], 1):
        text = f"version: 1\ndesc: Trigger: Client Request: 20 dense/adam/200 x 1e3\ntotals: {total}\n"
        (tmp_path / f"avx2.77.{number}").write_text(text)
    (tmp_path / "avx2.77").write_text("desc: Trigger: Program termination\ntotals: 3\n")
    assert instructions.read_dumps(tmp_path.iterdir()) == {"dense/adam/200 x 1e3": 7}


@pytest.mark.parametrize(
    ("adam", "exact", "good"),
    [
        (20400, True, True),  # 2 %: within the band
        (20401, True, False),
        (19600, True, True),
        (19599, True, False),  # less: to be recorded
        (19599, False, True),  # less than the base: nothing to record where the table was made with others
        (20401, False, False),
    ],
)
def test_band(adam, exact, good):
    """2 % in both directions against the table, upwards against the base."""
    lines, accepted = instructions.compare(TABLE, TABLE | {"avx2 dense/adam/1e3": adam}, exact)
    assert accepted is good
    assert ("--update" in lines[-1]) is (exact and not good)


@pytest.mark.parametrize("exact", [True, False])
def test_what_only_one_side_has(exact):
    """The table must have every workload and no other; a base may lack new ones."""
    new = {"avx2 dense/adam/1e3": 20000, "avx2 dense/lion/1e3": 15000}
    lines, accepted = instructions.compare(TABLE, new, exact)
    assert accepted is not exact
    assert [line.split()[-1] for line in lines if line.startswith("avx2")] == ["+0.0%", "gone", "new"]


def test_update_of_some_keeps_the_others():
    """New ones come last; what the table was made with stays."""
    made = {"compiler": "gcc 12.2.0"}
    new = {"avx2 dense/sgd/1e3": 9000, "avx2 dense/lion/1e3": 15000}
    found = instructions.updated({"made with": made, "counts": TABLE}, {"made with": made, "counts": new})
    assert found == {"made with": made, "counts": TABLE | new}


def test_update_of_some_does_not_mix_compilers():
    """Half a table from one compiler and half from another would fit neither."""
    tables = [{"made with": {"compiler": name}, "counts": TABLE} for name in ("gcc 12.2.0", "gcc 14.1")]
    with pytest.raises(SystemExit, match=r"gcc 12\.2\.0, here gcc 14\.1"):
        instructions.updated(*tables)


def test_other_compiler_is_named():
    """Points that differ are said with both values; equal ones are not."""
    table = {"compiler": "gcc 12.2.0", "numpy": "2.4.6"}
    assert instructions.differing(table, table) == ""
    assert instructions.differing(table, table | {"compiler": "gcc 14.1"}) == "compiler gcc 12.2.0, here gcc 14.1"
