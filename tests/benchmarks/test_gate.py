"""How the gate takes its pairs, with processes that are only played."""

import io
import math
from argparse import Namespace

import gate
import pytest


class Played:
    """A side that answers as a process would; some workloads cannot be made."""

    def __init__(self, seconds, unable=()):
        self.time, self.unable, self.asked = seconds, unable, []

    def seconds(self, request, side):
        """Return the same time always."""
        self.asked.append(request)
        if request.removeprefix("make ") in self.unable:
            raise gate.WorkloadError(side, "AttributeError: Lion")
        return self.time


def test_ratio_is_new_over_base():
    """Whoever comes first, and however many times the data is made."""
    values = gate.measure_pair([Played(1e-3), Played(1.1e-3)], ["dense/adam/1e3"], 3, {})
    assert values == {"dense/adam/1e3": pytest.approx(math.log(1.1))}


def test_both_sides_do_the_same_number_of_calls():
    """It follows from the faster one: a block is BLOCK seconds."""
    sides = Played(gate.BLOCK / 4), Played(gate.BLOCK / 2)
    gate.neighbours(sides, "dense/adam/1e3")
    assert [side.asked for side in sides] == [["make dense/adam/1e3"] + ["run 4"] * 4] * 2


@pytest.mark.parametrize("side", [0, 1])
def test_workload_that_cannot_be_made_is_named(side):
    """The others are measured all the same."""
    sides, failures = [Played(1e-3), Played(1e-3)], {}
    sides[side].unable = ("dense/lion/1e3",)
    values = gate.measure_pair(sides, ["dense/lion/1e3", "dense/adam/1e3"], 2, failures)
    assert values == {"dense/adam/1e3": 0}
    assert failures == {"dense/lion/1e3": (side, "AttributeError: Lion")}


OPTIONS = Namespace(effect=0.03, base=None)


def test_summary_says_how_many_and_what_to_do():
    verdicts = {"dense/adam/1e3": "slower", "dense/sgd/1e3": "faster", "dense/lamb/1e3": "same"}
    failures = {"dense/new/1e3": (0, "AttributeError"), "dense/bad/1e3": (1, "TypeError")}
    lines, good = gate.summary(verdicts, failures, OPTIONS)
    assert lines[0] == "5 workloads: 1 slower, 1 faster, 1 same, 1 new, 1 failed"
    assert "--only 'dense/adam/1e3'" in lines[1]
    assert lines[-1] == "FAIL" and not good


def test_summary_of_a_good_run():
    """What the base cannot run is no failure."""
    lines, good = gate.summary({"dense/sgd/1e3": "faster"}, {"dense/new/1e3": (0, "AttributeError")}, OPTIONS)
    assert lines == ["2 workloads: 0 slower, 1 faster, 0 same, 1 new, 0 failed", "PASS"] and good


def test_workload_that_fails_fails_the_gate():
    assert gate.summary({}, {"dense/bad/1e3": (1, "TypeError")}, OPTIONS) == (
        [
            "1 workloads: 0 slower, 0 faster, 0 same, 0 new, 1 failed",
            "A workload that fails does so in the working tree: see its message above.",
            "FAIL",
        ],
        False,
    )


def test_nothing_to_measure_is_an_error():
    assert gate.chosen(["dense/sgd/1e3", "rows/sgd"], "rows/") == ["rows/sgd"]
    with pytest.raises(
        SystemExit, match="--only must be a part of a workload's id, got 'row/'; there are:\n  dense/sgd"
    ):
        gate.chosen(["dense/sgd/1e3", "rows/sgd"], "row/")


@pytest.mark.parametrize("value", ["0", "1", "2.0", "-1", "nan", "x"])
@pytest.mark.parametrize("option", ["--confidence", "--effect"])
def test_options_that_would_let_everything_pass(option, value, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gate.py", option, value])
    with pytest.raises(SystemExit):
        gate.main()
    assert option in capsys.readouterr().err


def test_progress_in_a_file_is_a_line_now_and_then():
    now, stream = 0, io.StringIO()
    progress = gate.Progress(stream, lambda: now)
    for now in (0, 1, gate.QUIET - 1, gate.QUIET, gate.QUIET + 1, 3 * gate.QUIET):
        progress(f"at {now}")
    progress("")
    assert stream.getvalue().splitlines() == ["at 0", f"at {gate.QUIET}", f"at {3 * gate.QUIET}"]
