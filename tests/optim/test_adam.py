"""Tests of what is particular to Adam, AdamOffload and AdamWeightDecay: their arguments, slots and powers."""

import inspect

import numpy as np
import pytest

from optimcore import Adam, AdamOffload, AdamWeightDecay, Parameter


def make(*args, **kwargs):
    """Return an Adam with one parameter."""
    return Adam([Parameter(np.ones(2, np.float32), "w")], *args, **kwargs)


def steps(optimizer, count=3):
    """Do some steps and return the parameter as a list."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        optimizer([rng.standard_normal(2).astype(np.float32)])
    return optimizer.parameters[0].asnumpy().tolist()


def test_signature():
    assert str(inspect.signature(Adam)) == (
        "(params, learning_rate=0.001, beta1=0.9, beta2=0.999, eps=1e-08, use_locking=False, use_nesterov=False, "
        "weight_decay=0.0, loss_scale=1.0, use_amsgrad=False, **kwargs)"
    )


@pytest.mark.parametrize("name", ["beta1", "beta2"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("0.9", TypeError, "must be a number, got '0.9'"),
        (True, TypeError, "must be a number, got True"),
        (0, ValueError, r"must be in \(0, 1\), got 0"),
        (1.0, ValueError, r"must be in \(0, 1\), got 1\.0"),
        (-0.5, ValueError, r"must be in \(0, 1\), got -0\.5"),
        (float("nan"), ValueError, "must be finite, got nan"),
    ],
)
def test_betas_are_checked(name, value, error, message):
    with pytest.raises(error, match=f"{name} {message}"):
        make(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"eps": 0}, ValueError, "eps must be > 0, got 0"),
        ({"eps": None}, TypeError, "eps must be a number, got None"),
        ({"eps": float("inf")}, ValueError, "eps must be finite, got inf"),
        ({"use_locking": 0}, TypeError, "use_locking must be a bool, got 0"),
        ({"use_nesterov": 0}, TypeError, "use_nesterov must be a bool, got 0"),
        ({"use_amsgrad": 0}, TypeError, "use_amsgrad must be a bool, got 0"),
        ({"use_lazy": 0}, TypeError, "use_lazy must be a bool, got 0"),
        ({"use_offload": "no"}, TypeError, "use_offload must be a bool, got 'no'"),
        ({"lazy": True}, KeyError, "keywords must be among use_lazy, use_offload, got 'lazy'"),
        ({"use_lazy": True, "use_offload": True}, ValueError, "use_lazy must be False with use_offload"),
        ({"use_amsgrad": True, "use_lazy": True}, ValueError, "use_amsgrad must be False with use_lazy"),
        ({"use_amsgrad": True, "use_offload": True}, ValueError, "use_amsgrad must be False with"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


@pytest.mark.parametrize("use_amsgrad", [False, True])
def test_slots(use_amsgrad):
    opt = make(use_amsgrad=use_amsgrad)
    slots = [*opt.moment1, *opt.moment2, *(opt.vhat if use_amsgrad else ())]
    assert [p.name for p in slots] == ["moment1.w", "moment2.w", "vhat.w"][: len(slots)]
    for slot in slots:
        assert (slot.shape, slot.dtype) == ((2,), np.float32)
        np.testing.assert_array_equal(slot, 0)
    assert hasattr(opt, "vhat") == use_amsgrad


def test_powers_advance_with_successful_steps_only():
    opt = make(beta1=0.5, beta2=0.25)
    powers = (opt.beta1_power, opt.beta2_power)
    assert [(p.name, p.shape, float(p)) for p in powers] == [("beta1_power", (), 1.0), ("beta2_power", (), 1.0)]
    steps(opt, 2)
    with pytest.raises(ValueError):
        opt([np.ones(3, np.float32)])
    opt.learning_rate.set_data(-1.0)
    with pytest.raises(ValueError):
        opt([np.ones(2, np.float32)])
    assert [float(p) for p in powers] == [0.25, 0.0625]


def test_powers_can_be_set():
    """A resumed optimizer continues with the bias correction where it was."""
    whole, resumed = make(0.1), make(0.1)
    gradient = [np.ones(2, np.float32)]
    whole(gradient)
    for name in ("parameters", "moment1", "moment2"):
        for target, source in zip(getattr(resumed, name), getattr(whole, name), strict=True):
            target.set_data(source)
    resumed.beta1_power.set_data(whole.beta1_power)
    resumed.beta2_power.set_data(whole.beta2_power)
    whole(gradient)
    resumed(gradient)
    np.testing.assert_array_equal(whole.parameters[0], resumed.parameters[0])


def test_first_step_moves_by_the_rate():
    opt = make(0.25)
    opt([np.array([3.0, -0.5], np.float32)])
    np.testing.assert_allclose(opt.parameters[0], [0.75, 1.25], rtol=1e-6)


def test_variants_differ():
    plain = steps(make(0.1))
    assert steps(make(0.1, use_nesterov=True)) != plain
    assert steps(make(0.1, use_amsgrad=True), 8) != steps(make(0.1), 8)


def test_nesterov_is_ignored_with_amsgrad():
    both = make(0.1, use_amsgrad=True, use_nesterov=True)
    assert steps(both) == steps(make(0.1, use_amsgrad=True))


@pytest.mark.parametrize("name", ["use_locking", "use_lazy", "use_offload"])
def test_modes_do_not_change_dense_steps(name):
    opt = make(0.1, **{name: True})
    assert getattr(opt, name) is True
    assert steps(opt) == steps(make(0.1))


def test_offload_never_centralizes():
    rng = np.random.default_rng(0)
    gradient = rng.standard_normal((2, 3, 3)).astype(np.float32)
    results = {}
    for centralize in (False, True):
        for use_offload in (False, True):
            w = Parameter(np.ones((2, 3, 3), np.float32), "w")
            groups = [{"params": [w], "grad_centralization": centralize}]
            Adam(groups, 0.1, eps=1.0, use_offload=use_offload)([gradient])
            results[centralize, use_offload] = w.asnumpy().tolist()
    assert results[True, True] == results[False, True] == results[False, False]
    assert results[True, False] != results[False, False]


# ---- AdamOffload


def test_signature_of_offload():
    assert str(inspect.signature(AdamOffload)) == (
        "(params, learning_rate=0.001, beta1=0.9, beta2=0.999, eps=1e-08, use_locking=False, use_nesterov=False, "
        "weight_decay=0.0, loss_scale=1.0)"
    )


def test_offload_is_adam_with_use_offload():
    arguments = {"learning_rate": 0.1, "beta1": 0.5, "beta2": 0.6, "eps": 0.5, "weight_decay": 0.1, "loss_scale": 2.0}
    arguments |= {"use_locking": True, "use_nesterov": True}
    opt = AdamOffload([Parameter(np.ones(2, np.float32), "w")], **arguments)
    assert (opt.use_offload, opt.use_lazy, opt.use_amsgrad, opt.use_locking) == (True, False, False, True)
    assert steps(opt) == steps(make(**arguments))
    with pytest.raises(ValueError, match="eps must be > 0, got 0"):
        AdamOffload(opt.parameters, eps=0)


# ---- AdamWeightDecay


def make_decoupled(*args, **kwargs):
    """Return an AdamWeightDecay with a parameter that is decayed and one that is not."""
    parameters = [Parameter(np.ones(2, np.float32), name) for name in ("w", "gamma")]
    return AdamWeightDecay(parameters, *args, **kwargs)


def test_signature_of_weight_decay():
    assert str(inspect.signature(AdamWeightDecay)) == (
        "(params, learning_rate=0.001, beta1=0.9, beta2=0.999, eps=1e-06, weight_decay=0.0)"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"beta1": 0}, ValueError, r"beta1 must be in \(0, 1\), got 0"),
        ({"beta2": True}, TypeError, "beta2 must be a number, got True"),
        ({"eps": 0}, ValueError, "eps must be > 0, got 0"),
        ({"weight_decay": -0.1}, ValueError, r"weight_decay must be >= 0, got -0\.1"),
        ({"loss_scale": 2.0}, TypeError, "loss_scale"),
    ],
)
def test_arguments_of_weight_decay_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        make_decoupled(**arguments)


def test_slots_of_weight_decay():
    opt = make_decoupled()
    assert [p.name for p in (*opt.moments1, *opt.moments2)] == ["adam_m.w", "adam_m.gamma", "adam_v.w", "adam_v.gamma"]
    for slot in (*opt.moments1, *opt.moments2):
        assert (slot.shape, slot.dtype) == ((2,), np.float32)
        np.testing.assert_array_equal(slot, 0)


def test_decay_stays_out_of_the_moments():
    opt = make_decoupled(0.5, weight_decay=0.25)
    opt((np.zeros(2, np.float32),) * 2)
    np.testing.assert_array_equal(opt.parameters[0], 1 - 0.5 * 0.25)
    np.testing.assert_array_equal(opt.parameters[1], 1)  # by its name
    for slot in (*opt.moments1, *opt.moments2):
        np.testing.assert_array_equal(slot, 0)


def test_decoupled_decay_by_group_and_by_step():
    w, gamma = (Parameter(np.ones(2, np.float32), name) for name in ("w", "gamma"))
    groups = [{"params": [w], "weight_decay": lambda step: 0.5 * step}, {"params": [gamma]}]
    opt = AdamWeightDecay(groups, 0.5, weight_decay=0.25)
    for expected in [(1, 0.875), (0.75, 0.875**2)]:
        opt((np.zeros(2, np.float32),) * 2)
        assert (w[0], gamma[0]) == expected


def test_weight_decay_never_centralizes():
    rng = np.random.default_rng(0)
    gradient = rng.standard_normal((2, 3, 3)).astype(np.float32)
    results = []
    for centralize in (False, True):
        w = Parameter(np.ones((2, 3, 3), np.float32), "w")
        AdamWeightDecay([{"params": [w], "grad_centralization": centralize}], 0.1, eps=1.0)([gradient])
        results.append(w.asnumpy().tolist())
    assert results[0] == results[1]
