import threading

import numpy as np
import pytest

from optimcore import LARS, SGD, Adam, AdamWeightDecay, Momentum, Optimizer, Parameter, RowTensor, WarmUpLR


def make_parameter(values=(3.0, 4.0), name="w"):
    return Parameter(np.array(values), name)


@pytest.mark.parametrize("name", ["epsilon", "coefficient"])
@pytest.mark.parametrize(("value", "error"), [("x", TypeError), (True, TypeError), (np.nan, ValueError)])
def test_numbers(name, value, error):
    with pytest.raises(error, match=f"{name} must be .*, got {value!r}"):
        LARS(SGD([make_parameter()]), **{name: value})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(use_clip=1), TypeError, "use_clip must be a bool, got 1"),
        (dict(lars_filter=5), TypeError, "lars_filter must be callable, got 5"),
    ],
)
def test_other_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LARS(SGD([make_parameter()]), **arguments)


@pytest.mark.parametrize("wrapped", [5, LARS(SGD([make_parameter()]))], ids=["5", "LARS"])
def test_what_cannot_be_wrapped(wrapped):
    with pytest.raises(TypeError, match="optimizer must be an Optimizer other than LARS"):
        LARS(wrapped)


def test_use_clip_with_dynamic_rates_of_groups():
    groups = [dict(params=[make_parameter()], lr=[0.1, 0.2])]
    with pytest.raises(ValueError, match="use_clip must be False"):
        LARS(SGD(groups), use_clip=True)


def test_default_filter_leaves_biases_alone():
    parameters = [make_parameter(name=name) for name in ("w", "fc.bias", "LayerNorm.gamma")]
    assert LARS(SGD(parameters)).lars_flag == (True, False, False)


def test_rate_of_zero_moves_nothing():
    w = np.zeros(3)
    opt = LARS(SGD([Parameter(w, "w")], WarmUpLR(0.1, 10)), use_clip=True)
    opt((np.ones(3),))
    assert w.tolist() == [0, 0, 0]


def test_what_can_be_set_reaches_the_wrapped_optimizer():
    inner = Adam([make_parameter()])
    opt = LARS(inner)
    opt.unique, opt.use_lazy, opt.stochastic_rounding, opt.rounding_seed, opt.global_step = False, True, True, 3, 7
    opt.max_grad_norm = 2.0
    assert (inner.unique, inner.use_lazy, inner.stochastic_rounding) == (False, True, True)
    assert (inner.rounding_seed, inner.global_step, inner.max_grad_norm) == (3, 7, 2.0)
    assert opt.parameters is inner.parameters and opt.moment1 is inner.moment1
    assert opt.get_lr() == inner.get_lr()


@pytest.mark.parametrize("side", ["inner", "outer"])
def test_gradients_are_clipped_before_the_ratio_whichever_of_the_two_is_asked(side):
    w = np.array([3.0, 4.0])
    inner = SGD([Parameter(w, "w")], learning_rate=1.0)
    opt = LARS(inner, epsilon=0.0, coefficient=0.1)
    (opt if side == "outer" else inner).max_grad_norm = 1.0
    opt((np.array([0.0, 20.0]),))
    np.testing.assert_allclose(w, [3.0, 3.5])  # c = 0.1 * 5 / 1, g = 1


class Plain(Optimizer):
    def construct(self, gradients):
        for w, g in zip(self.parameters, self.scale_grad(self.decay_weight(gradients)), strict=True):
            w -= self.get_lr() * g


@pytest.mark.parametrize("cls", [Plain, SGD])
def test_around_a_user_defined_optimizer(cls):
    w = np.array([3.0, 4.0])
    arguments = dict(learning_rate=1.0, weight_decay=0.5, loss_scale=4.0)
    if cls is Plain:
        inner = Plain(arguments.pop("learning_rate"), [Parameter(w, "w")], **arguments)
    else:
        inner = SGD([Parameter(w, "w")], **arguments)
    LARS(inner, epsilon=0.0, coefficient=0.1)((np.array([0.0, 8.0]),))
    g = np.array([0.0, 2.0]) + 0.5 * np.array([3.0, 4.0])
    np.testing.assert_allclose(w, [3.0, 4.0] - 0.1 * 5 / (2 + 0.5 * 5) * g)


def test_around_a_rule_with_its_own_decay():
    w, twin = np.array([3.0, 4.0]), np.array([3.0, 4.0])
    LARS(AdamWeightDecay([Parameter(w, "w")], weight_decay=0.5), epsilon=0.0, coefficient=0.1)((np.ones(2),))
    g = 0.1 * 5 / (np.sqrt(2) + 0.5 * 5) * (1 + 0.5 * twin)
    AdamWeightDecay([Parameter(twin, "w")])((g,))
    np.testing.assert_allclose(w, twin, rtol=1e-12)


def test_failed_call_changes_nothing():
    w = np.array([3.0, 4.0])
    opt = LARS(Momentum([Parameter(w, "w")], learning_rate=[0.1], momentum=0.9, weight_decay=0.1))
    with pytest.raises(ValueError, match="must have shape"):
        opt((np.ones(3),))
    opt.global_step = 1
    with pytest.raises(IndexError):
        opt((np.ones(2),))
    assert w.tolist() == [3.0, 4.0] and not opt.moments[0].data.any()
    opt.global_step = 0
    opt((np.ones(2),))
    assert (w != [3.0, 4.0]).all()


class Halving(Momentum):
    """Changes gradients before the step of its base class."""

    def construct(self, gradients):
        return super().construct(tuple(0.5 * g for g in gradients))


def test_around_a_class_that_changes_gradients():
    w, twin = np.array([3.0, 4.0]), np.array([3.0, 4.0])
    arguments = dict(learning_rate=1.0, momentum=0.9, weight_decay=0.5, loss_scale=4.0)
    LARS(Halving([Parameter(w, "w")], **arguments), epsilon=0.0, coefficient=0.2)((np.array([0.0, 8.0]),))
    LARS(Momentum([Parameter(twin, "w")], **arguments), epsilon=0.0, coefficient=0.1)((np.array([0.0, 8.0]),))
    np.testing.assert_allclose(w, twin, rtol=1e-12)


@pytest.mark.parametrize("cls", [Momentum, AdamWeightDecay], ids=["Momentum", "AdamWeightDecay"])
def test_another_thread_is_refused_while_one_is_inside(cls):
    errors = []

    def read(step):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        return 0.01

    def enter():
        try:
            opt((np.ones(2),))
        except RuntimeError as error:
            errors.append(str(error))

    momentum = dict(momentum=0.9) if cls is Momentum else {}
    opt = LARS(cls([make_parameter()], learning_rate=0.1, weight_decay=read, **momentum))
    opt.wait = False
    opt((np.ones(2),))
    assert errors and all("another thread is inside" in error for error in errors)


def test_flush_reaches_the_wrapped_optimizer():
    """Rows that the wrapped optimizer owes from before are brought up to date."""
    table, twin = np.ones((4, 2)), np.ones((4, 2))
    inner, plain = (Momentum([Parameter(t, "t")], learning_rate=0.1, momentum=0.9) for t in (table, twin))
    inner.use_lazy = "catch_up"
    rows = [RowTensor([i], np.ones((1, 2)), (4, 2)) for i in (0, 1, 2)]
    for gradient in rows:
        inner((gradient,))
        plain((gradient,))
    assert not np.allclose(table, twin)
    LARS(inner).flush()
    np.testing.assert_allclose(table, twin)


def test_settings_of_the_wrapped_optimizer_can_be_set_from_outside():
    w = np.array([3.0, 4.0])
    opt = LARS(Momentum([Parameter(w, "w")], learning_rate=0.1, momentum=0.9), epsilon=0.0, coefficient=0.1)
    opt.momentum, opt.learning_rate, opt.weight_decay, opt.loss_scale, opt.use_clip = 0.5, 1.0, 0.5, 4.0, False
    inner = opt.optimizer
    assert (inner.momentum, inner.get_lr(), inner.weight_decay, inner.loss_scale) == (0.5, 1.0, 0.5, 4.0)
    opt((np.array([0.0, 8.0]),))
    g = np.array([0.0, 2.0]) + 0.5 * np.array([3.0, 4.0])
    np.testing.assert_allclose(w, [3.0, 4.0] - 0.1 * 5 / (2 + 0.5 * 5) * g)
    with pytest.raises(ValueError, match="momentum must be >= 0, got -1"):
        opt.momentum = -1
    with pytest.raises(AttributeError, match="LARS has no attribute 'momentun': did you mean 'momentum'"):
        opt.momentun = 0.5
    with pytest.raises(AttributeError, match="lars_flag of LARS cannot be assigned"):
        opt.lars_flag = (True,)


def test_wrapped_optimizer_steps_by_itself_without_what_it_gave_away():
    w = np.array([3.0, 4.0])
    inner = SGD([Parameter(w, "w")], learning_rate=1.0, weight_decay=0.5, loss_scale=4.0)
    opt = LARS(inner, epsilon=0.0, coefficient=0.1)
    opt((np.array([0.0, 8.0]),))
    moved = w.copy()
    inner((np.ones(2),))
    np.testing.assert_array_equal(w, moved - 1)
