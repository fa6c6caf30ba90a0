"""How the gate takes its pairs, with processes that are only played."""

import math

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
