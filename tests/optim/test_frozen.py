"""Frozen parameters: requires_grad is False."""

import numpy as np
import pytest
from cases import CASES, conv_arrays, gradients_of, state_of

import optimcore
from optimcore import Parameter, RowTensor

GARBAGE = [None, "text", np.ones(3, int), np.full((7, 11), np.nan, np.float32), object(), [[1.0], [2.0, 3.0]]]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_frozen_parameter_stays_as_it_is_whatever_its_gradient(case):
    arrays, twin = conv_arrays(), conv_arrays()
    frozen, skipped = case.build(arrays, weight_decay=0.1), case.build(twin, weight_decay=0.1)
    for one in (frozen, skipped):
        one.max_grad_norm = 1.0
    for i, gradient in enumerate([gradients_of(arrays)[1], *GARBAGE]):
        conv, _, bias = gradients_of(arrays, seed=i)
        frozen.parameters[1].requires_grad = False
        frozen((conv, gradient, bias))
        skipped((conv, None, bias))
        assert state_of(frozen) == state_of(skipped)
        frozen.parameters[1].requires_grad = True  # between steps
        for one in (frozen, skipped):
            one(gradients_of(arrays, seed=10 + i))
        assert state_of(frozen) == state_of(skipped)


def test_frozen_from_the_start():
    w = np.ones(2, np.float32)
    opt = optimcore.SGD([Parameter(w, "w", requires_grad=False)], learning_rate=0.1, weight_decay=0.5)
    opt((np.zeros(2, np.float32),))
    assert w.tolist() == [1, 1] and opt.global_step == 1


@pytest.mark.parametrize("lazy", [True, False, "catch_up"])
def test_frozen_table(lazy):
    tables = [np.ones((4, 2)), np.ones((4, 2))]
    frozen, skipped = (optimcore.Momentum([Parameter(t, "t")], 0.1, 0.9, weight_decay=0.1) for t in tables)
    for i, is_frozen in enumerate([False, True, True, False]):
        gradient = RowTensor([i], np.ones((1, 2)), (4, 2))
        frozen.parameters[0].requires_grad = not is_frozen
        for one in (frozen, skipped):
            one.use_lazy = lazy
        frozen((gradient,))
        skipped((None if is_frozen else gradient,))
    for one in (frozen, skipped):
        one.flush()
    np.testing.assert_array_equal(*tables)


def test_user_defined_optimizer_clips_without_frozen_gradients():
    class Plain(optimcore.Optimizer):
        def construct(self, gradients):
            self.seen = gradients
            for w, g, rate in zip(self.parameters, gradients, self.rates(), strict=True):
                if w.requires_grad:
                    w -= rate * g

    parameters = [Parameter(np.zeros(2), "a"), Parameter(np.zeros(2), "b", requires_grad=False)]
    opt = Plain(1.0, parameters)
    opt.max_grad_norm = 5.0
    opt((np.array([6.0, 8.0]), np.array([np.nan, 1e300])))
    np.testing.assert_allclose(parameters[0], [-3, -4])
    assert parameters[1].data.tolist() == [0, 0]


@pytest.mark.parametrize("method", ["decay_weight", "gradients_centralization", "scale_grad"])
def test_methods_pass_the_gradient_of_a_frozen_parameter_on(method):
    kernels = [Parameter(np.ones((2, 3, 2)), "a"), Parameter(np.ones((2, 3, 2)), "b", requires_grad=False)]
    groups = [{"params": kernels, "grad_centralization": True, "weight_decay": 0.5}]
    opt = optimcore.Optimizer(0.1, groups, loss_scale=2.0)
    gradients = (np.arange(12.0).reshape(2, 3, 2), "anything")
    result = getattr(opt, method)(gradients)
    assert result[1] == "anything" and not np.array_equal(result[0], gradients[0])
