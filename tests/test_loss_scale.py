"""Loss scale managers and their update cells: golden sequences, the rule's details, the checks.

The sequences in ``golden/schedules.json`` come from MindSpore 2.10.0 on CPU.
"""

import json
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from optimcore.loss_scale import (
    DynamicLossScaleManager,
    DynamicLossScaleUpdateCell,
    FixedLossScaleManager,
    FixedLossScaleUpdateCell,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "schedules.json").read_text())
SEQUENCES = pytest.mark.parametrize("case", GOLDEN["dynamic_loss_scale"], ids=lambda c: str(c["args"]))


# --- fixed -------------------------------------------------------------------------------------


def test_fixed_defaults():
    manager = FixedLossScaleManager()
    assert manager.get_loss_scale() == 128.0
    assert manager.get_drop_overflow_update() is True


@pytest.mark.parametrize("loss_scale", [1, 1.0, 1024, np.float32(8), np.int64(8)], ids=repr)
def test_fixed_keeps_what_it_was_given(loss_scale):
    manager = FixedLossScaleManager(loss_scale, drop_overflow_update=False)
    for overflow in [True, False]:
        assert manager.update_loss_scale(overflow) is None
    assert manager.get_loss_scale() is loss_scale
    assert manager.get_drop_overflow_update() is False


def test_fixed_cell_returns_overflow_unchanged():
    cell = FixedLossScaleManager(8.0).get_update_cell()
    assert isinstance(cell, FixedLossScaleUpdateCell)
    assert cell.get_loss_scale() == 8.0
    loss_scale, overflow = np.array(8.0), np.array(True)
    assert cell(loss_scale, overflow) is overflow
    assert loss_scale == 8.0


def test_fixed_without_dropping_has_no_cell():
    assert FixedLossScaleManager(8.0, drop_overflow_update=False).get_update_cell() is None


# --- dynamic -----------------------------------------------------------------------------------


def test_dynamic_defaults():
    manager = DynamicLossScaleManager()
    assert vars(manager) == {
        "loss_scale": 2.0**24,
        "increase_ratio": 2.0,
        "decrease_ratio": 0.5,
        "scale_window": 2000,
        "cur_iter": 1,
        "last_overflow_iter": 0,
        "bad_step": 0,
        "bad_step_max": 1000,
    }
    assert manager.get_drop_overflow_update() is True


@SEQUENCES
def test_manager_matches_golden_sequence(case):
    manager = DynamicLossScaleManager(*case["args"])
    scales = []
    for overflow in case["overflow"]:
        manager.update_loss_scale(bool(overflow))
        scales.append(manager.get_loss_scale())
    assert scales == case["values"]
    assert all(type(scale) is float for scale in scales)


@SEQUENCES
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cell_matches_golden_sequence(case, shape, dtype):
    cell = DynamicLossScaleManager(*case["args"]).get_update_cell()
    loss_scale = np.full(shape, cell.get_loss_scale(), dtype)
    scales = []
    for overflow in case["overflow"]:
        assert cell(loss_scale, bool(overflow)) is bool(overflow)
        scales.append(loss_scale.item())
    assert scales == case["values"]


@pytest.mark.parametrize("overflow", [True, 1, np.True_, np.array(True), np.array([True])], ids=repr)
def test_overflow_may_be_any_kind_of_true(overflow):
    manager = DynamicLossScaleManager(16)
    manager.update_loss_scale(overflow)
    assert manager.get_loss_scale() == 8.0


def test_dynamic_scale_stays_at_least_one():
    manager = DynamicLossScaleManager(1.5, scale_factor=2.5)
    manager.update_loss_scale(True)
    assert manager.get_loss_scale() == 1.0


def test_growth_has_no_upper_bound():
    manager = DynamicLossScaleManager(2.0**1000, scale_window=1)
    for _ in range(23):
        manager.update_loss_scale(False)
    assert manager.get_loss_scale() == 2.0**1023


def test_overflow_number_1001_in_a_row_is_an_error():
    manager = DynamicLossScaleManager(2**24)
    for _ in range(1000):
        manager.update_loss_scale(True)
    assert (manager.bad_step, manager.cur_iter) == (1000, 1001)
    with pytest.raises(RuntimeError, match="more than 1000 steps in a row, got 1001"):
        manager.update_loss_scale(True)
    assert (manager.bad_step, manager.cur_iter, manager.last_overflow_iter) == (1001, 1001, 1001)


def test_a_good_step_forgives_all_bad_ones():
    manager = DynamicLossScaleManager(2**24)
    for overflow in ([True] * 1000 + [False]) * 2:
        manager.update_loss_scale(overflow)
    assert manager.bad_step == 0


def test_cell_has_no_limit_and_its_own_count():
    manager = DynamicLossScaleManager(16.0, scale_window=2)
    manager.update_loss_scale(True)
    cell = manager.get_update_cell()
    assert isinstance(cell, DynamicLossScaleUpdateCell)
    assert cell.get_loss_scale() == 8.0
    loss_scale = np.array(8.0)
    for _ in range(1001):
        cell(loss_scale, True)
    assert loss_scale == 1.0
    assert (cell.cur_iter, manager.cur_iter) == (1002, 2)


@pytest.mark.parametrize(
    "loss_scale, error",
    [
        (8.0, TypeError),
        (np.float32(8.0), TypeError),
        ([8.0], TypeError),
        (None, TypeError),
        (np.ones(2), ValueError),
        (np.ones(0), ValueError),
        (np.broadcast_to(8.0, ()), ValueError),
    ],
    ids=repr,
)
def test_cell_refuses_a_scale_that_it_cannot_write(loss_scale, error):
    cell = DynamicLossScaleUpdateCell(8.0, 2, 1)
    with pytest.raises(error):
        cell(loss_scale, True)
    assert (cell.cur_iter, cell.last_overflow_iter) == (1, 0)


# --- checks ------------------------------------------------------------------------------------

VALID = {
    FixedLossScaleManager: {"loss_scale": 8.0, "drop_overflow_update": True},
    FixedLossScaleUpdateCell: {"loss_scale_value": 8.0},
    DynamicLossScaleManager: {"init_loss_scale": 8.0, "scale_factor": 2, "scale_window": 3},
    DynamicLossScaleUpdateCell: {"loss_scale_value": 8.0, "scale_factor": 2, "scale_window": 3},
}
POSITIVE = {(DynamicLossScaleUpdateCell, "loss_scale_value")}


def bad_arguments(cls):
    """Yield (argument, value, error, rule) for every way in which `cls` refuses an argument."""
    for argument in VALID[cls]:
        if argument == "drop_overflow_update":
            for value in [1, 0, None, "True", np.True_]:
                yield argument, value, TypeError, "be a bool"
        elif argument == "scale_window":
            for value in [3.0, np.float64(3), "3", None, True]:
                yield argument, value, TypeError, "be an int"
            for value in [0, -1]:
                yield argument, value, ValueError, "be >= 1"
        else:
            for value in ["8", None, True, 8j, np.array(8.0)]:
                yield argument, value, TypeError, "be a number"
            for value in [math.nan, math.inf]:
                yield argument, value, ValueError, "be finite"
            positive = argument == "scale_factor" or (cls, argument) in POSITIVE
            for value in [0, -1.0] if positive else [0, 0.999, -1.0]:
                yield argument, value, ValueError, "be > 0" if positive else "be >= 1"


@pytest.mark.parametrize(
    "cls, argument, value, error, rule",
    [(cls, *case) for cls in VALID for case in bad_arguments(cls)],
)
def test_bad_argument_is_refused(cls, argument, value, error, rule):
    with pytest.raises(error, match=f"^{argument} must {rule}, got "):
        cls(**{**VALID[cls], argument: value})


@pytest.mark.parametrize("scale_factor", [0.5, 1, 2.5, np.float32(2)], ids=repr)
def test_any_positive_factor_is_accepted(scale_factor):
    manager = DynamicLossScaleManager(1, scale_factor, scale_window=1)
    manager.update_loss_scale(False)
    assert manager.get_loss_scale() == float(scale_factor)
    assert manager.get_update_cell().get_loss_scale() == float(scale_factor)


# ---- bounds


def good_steps(manager, count):
    for _ in range(count):
        manager.update_loss_scale(False)
    return manager.get_loss_scale()


def test_scale_stays_finite_and_comes_back():
    manager = DynamicLossScaleManager(2.0**24, scale_factor=2, scale_window=1)
    assert good_steps(manager, 1100) == 2.0**1023
    manager.update_loss_scale(True)
    assert manager.get_loss_scale() == 2.0**1022


@pytest.mark.parametrize("loaded", [math.inf, math.nan])
def test_scale_that_was_loaded_as_infinite_comes_back(loaded):
    manager = DynamicLossScaleManager(scale_window=3)
    manager.loss_scale = loaded
    manager.update_loss_scale(True)
    assert manager.get_loss_scale() == 2.0**1022
    manager.loss_scale = loaded
    manager.update_loss_scale(False)
    assert manager.get_loss_scale() == 2.0**1023


def test_factor_below_one_is_bounded_too():
    manager = DynamicLossScaleManager(2.0**1000, scale_factor=2.0**-10, scale_window=10)
    for _ in range(5):
        manager.update_loss_scale(True)
    assert manager.get_loss_scale() == 2.0**1023


@pytest.mark.parametrize(
    ("dtype", "top"),
    [
        (np.float16, 2.0**15),
        (ml_dtypes.bfloat16, 2.0**127),
        (np.float32, 2.0**127),
        (np.float64, 2.0**1023),
        (np.int32, 2.0**30),
    ],
)
def test_scale_in_an_array_stays_finite_in_its_type(dtype, top):
    cell = DynamicLossScaleManager(2.0**8, scale_factor=4, scale_window=1).get_update_cell()
    scale = np.array(2.0**8, dtype)
    for _ in range(600):
        cell(scale, False)
    assert scale == top
    cell(scale, True)
    assert float(scale) == top / 4
    if dtype is not np.int32:
        scale[...] = np.inf
        cell(scale, True)
        assert float(scale) == top / 4


def test_masked_scale_is_refused():
    cell = DynamicLossScaleManager().get_update_cell()
    with pytest.raises(TypeError, match="loss_scale must not be a masked array"):
        cell(np.ma.array(2.0), False)
