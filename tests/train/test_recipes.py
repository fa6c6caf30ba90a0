import numpy as np
import pytest

import optimcore
from optimcore.train.recipes import OPTIMIZERS, WarmUpCosineLR, build_optimizer


def new_groups(dtype=np.float32):
    return [{"params": [optimcore.Parameter(np.ones((2, 2), dtype), "dense.weight")], "weight_decay": 0.1}]


def test_rate_rises_in_a_line_and_falls_along_a_cosine():
    schedule = WarmUpCosineLR(0.1, warmup_steps=4, decay_steps=10)
    rates = [schedule(step) for step in range(20)]
    np.testing.assert_allclose(rates[:4], [0.025, 0.05, 0.075, 0.1])
    assert rates[4] == pytest.approx(0.1)
    assert rates[9] == pytest.approx((0.1 + 0.001) / 2)
    np.testing.assert_allclose(rates[14:], 0.001)
    assert all(np.diff(rates[4:15]) < 0)


def test_every_optimizer_of_the_package_has_a_recipe():
    names = optimcore.optim.__all__
    assert sorted(OPTIMIZERS) == sorted(name.lower() for name in names if name != "Optimizer")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_of_its_class(name):
    opt = build_optimizer(name, new_groups(), epochs=2, steps=5, batch_size=32)
    assert type(opt).__name__.lower() == name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_smaller_batches_get_smaller_rates(name):
    rates = [build_optimizer(name, new_groups(), 2, 5, size).get_lr() for size in (8, 32, 64)]
    assert rates[0] == pytest.approx(rates[1] / 4)
    assert rates[1] == rates[2]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_16_bit_weights_are_rounded_stochastically(name):
    opt = build_optimizer(name, new_groups(np.float16), epochs=2, steps=5, batch_size=32)
    assert getattr(opt, "optimizer", opt).stochastic_rounding
