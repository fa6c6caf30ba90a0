"""The statistics of the gate: known values, false alarms, and what is found."""

import math

import numpy as np
import pytest
from paired import compare, interval, rank_sums, suspects


def test_rank_sums_by_hand():
    """Three ranks: 0, 1, 2, 1+2 or 3, 1+3, 2+3, 1+2+3."""
    assert rank_sums(3) == [1 / 8, 1 / 8, 1 / 8, 2 / 8, 1 / 8, 1 / 8, 1 / 8]
    assert sum(rank_sums(20)) == pytest.approx(1)


def test_interval_by_hand():
    """Of five values all signs agree with chance 1/32: then the ends are the extremes."""
    assert interval([1.0, 2.0, 3.0, 4.0, 10.0], 1 / 32) == (1.0, 10.0)
    assert interval([1.0, 2.0, 3.0, 4.0, 10.0], 2 / 32) == (1.5, 7.0)


def test_too_few_pairs_decide_nothing():
    """Four values cannot give 99 %, however far they are from 0."""
    found = compare({"adam": [1.0, 1.1, 1.2, 1.3]})["adam"]
    assert (found.low, found.high, found.verdict) == (0, math.inf, "same")


def simulate(rng, names, pairs, change=0.0):
    """Return log ratios as on a small virtual machine: placement per process, bursts, and a change of "0"."""
    shape = (2, len(names), pairs)
    placement = rng.choice([0, 0.04], shape)  # bimodal, for each process anew
    bursts = (rng.random(shape) < 0.03) * rng.exponential(0.3, shape)
    times = 1 + placement + bursts + rng.normal(0, 0.005, shape)
    times[1] *= np.array([1 + change * (name == "0") for name in names]).reshape(-1, 1)
    return dict(zip(names, np.log(times[1] / times[0]).tolist(), strict=True))


def gate(rng, change, workloads=60):
    """Screen, then measure the suspects anew, as the gate does; return what is not "same"."""
    suspicious = suspects(simulate(rng, [f"{i}" for i in range(workloads)], 8, change))
    found = compare(simulate(rng, suspicious, 30, change))
    return {name: c.verdict for name, c in found.items() if c.verdict != "same"}


def test_equal_revisions_raise_no_alarm():
    """A hundred runs with 60 workloads."""
    rng = np.random.default_rng(0)
    assert [gate(rng, 0) for _ in range(100)] == [{}] * 100


@pytest.mark.parametrize(("change", "expected"), [(0.1, {"0": "slower"}), (-0.1, {"0": "faster"}), (0.02, {})])
def test_change_is_found_where_it_is(change, expected):
    """10 % is found in either direction, in its workload alone; 2 % is too little to count."""
    rng = np.random.default_rng(1)
    assert [gate(rng, change) for _ in range(30)] == [expected] * 30


@pytest.mark.parametrize("effect", [-1.0, math.nan])
def test_effect_that_says_nothing(effect):
    for judge in (lambda: suspects({"w": [0.4] * 30}, effect), lambda: compare({"w": [0.4] * 30}, effect=effect)):
        with pytest.raises(ValueError, match=f"effect must be >= 0, got {effect}"):
            judge()


@pytest.mark.parametrize("confidence", [-1.0, 0.0, 1.0, 2.0, math.nan])
def test_confidence_that_nothing_reaches(confidence):
    with pytest.raises(ValueError, match=f"confidence must be in .0, 1., got {confidence}"):
        compare({"w": [0.4] * 30}, confidence)


def test_interval_holds_the_truth():
    """In 99 of 100 cases or more, with 20 workloads under one confidence."""
    rng = np.random.default_rng(2)
    found = [compare(simulate(rng, [f"{i}" for i in range(20)], 24)) for _ in range(20)]
    assert sum(c.low < 1 < c.high for row in found for c in row.values()) >= 399
