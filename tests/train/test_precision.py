import sys

import ml_dtypes
import numpy as np
import pytest

from optimcore.train import UsageError
from optimcore.train.precision import PRECISIONS, SCALE_WINDOW, LossScaling, format_scales, storage_dtype

FLOAT16 = np.dtype(np.float16)


def test_storage_dtypes():
    assert [storage_dtype(p) for p in PRECISIONS] == [np.float32, np.float16, ml_dtypes.bfloat16]


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert storage_dtype("float16") == np.float16
    with pytest.raises(UsageError, match=r"pip install 'optimcore\[bf16\]'"):
        storage_dtype("bfloat16")


def test_float32_passes_through():
    scaling = LossScaling(np.dtype(np.float32))
    gradients = [np.array([1.0, np.inf], np.float32)]
    assert scaling.scale == 1
    assert scaling.unscale(gradients) is gradients
    assert (scaling.steps, scaling.dropped, scaling.scales) == (1, 0, [(0, 1.0)])


def test_scale_saves_gradients_that_16_bits_alone_would_lose():
    scaling = LossScaling(FLOAT16)
    tiny = np.float32(2.0**-30)
    assert tiny.astype(FLOAT16) == 0
    [gradient] = scaling.unscale([np.array([tiny * scaling.scale])])
    assert gradient.dtype == np.float32
    assert gradient == [tiny]


def test_gradients_go_through_16_bits():
    scaling = LossScaling(FLOAT16)
    scaling.manager.loss_scale = 4.0
    [gradient] = scaling.unscale([np.array([1 / 3], np.float32)])
    assert gradient == np.float16(1 / 3).astype(np.float32) / 4


def test_overflow_drops_the_step_and_halves_the_scale():
    scaling = LossScaling(FLOAT16)
    fits, too_large = [np.array([6e4], np.float32)], [np.array([1.0, 7e4], np.float32)]
    with np.errstate(over="ignore"):
        assert scaling.unscale(too_large) is None
        assert scaling.unscale(fits) is not None
        assert scaling.unscale(too_large) is None
    assert (scaling.steps, scaling.dropped) == (3, 2)
    assert scaling.scales == [(0, 2.0**24), (1, 2.0**23), (3, 2.0**22)]


def test_scale_grows_after_a_window_without_overflow():
    scaling = LossScaling(FLOAT16)
    for _ in range(SCALE_WINDOW):
        scaling.unscale([np.ones(1, np.float32)])
    assert scaling.scales == [(0, 2.0**24), (SCALE_WINDOW, 2.0**25)]


def test_history_is_wrapped_under_its_label():
    assert format_scales("scale", [(0, 2.0**24), (1, 2.0**23)]) == "scale  0: 2^24, 1: 2^23"
    lines = format_scales("scale", [(step, 1.0) for step in range(40)]).splitlines()
    assert len(lines) > 1
    assert all(line.startswith(" " * 7) and len(line) <= 100 for line in lines[1:])
