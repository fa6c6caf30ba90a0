"""The oracle itself: golden vectors, numbers worked by hand, and the driver around the rules."""

import doctest
from math import sqrt

import golden_data
import numpy as np
import pytest
import reference
from reference import Lars, Reference, Rows


def test_example():
    assert doctest.testmod(reference).failed == 0


# ---------------------------------------------------------------- golden vectors


def test_every_golden_configuration_is_there():
    assert len(golden_data.dense()) == 60
    assert len(golden_data.sparse()) == 9


@pytest.mark.parametrize("config", golden_data.dense() + golden_data.sparse(), ids=str)
def test_golden(config):
    oracle = golden_data.oracle(config)
    assert tuple(oracle.names) == config.order
    for step in range(config.steps):
        oracle.step(config.gradients(step))
        for name, expected in zip(config.order, config.expected(step), strict=True):
            np.testing.assert_allclose(
                oracle.w[name], expected, **golden_data.TOLERANCE, err_msg=f"{name}, step {step}"
            )
    expected_slots = config.expected_slots()
    assert set(expected_slots) == set(config.slot_names)
    for slot, by_name in expected_slots.items():
        for name, expected in by_name.items():
            expected = np.squeeze(expected)
            actual = np.broadcast_to(np.squeeze(oracle.slots()[slot][name]), expected.shape)
            np.testing.assert_allclose(actual, expected, **golden_data.TOLERANCE, err_msg=f"{slot} of {name}")


# ------------------------------------------------------- numbers worked by hand

# Each line: class, arguments, the parameter (one element), gradients, the parameter after each
# step. Where two formulas could be confused the numbers are chosen to tell them apart.
BETAS = {"learning_rate": 0.1, "beta1": 0.5, "beta2": 0.75, "eps": 1.0}
# rate of Adam in step 2: 0.1 * sqrt(1 - 0.75**2) / (1 - 0.5**2)
ADAM_2 = 0.1 * sqrt(0.4375) / 0.75

BY_HAND = [
    ("SGD", {"learning_rate": 0.1, "weight_decay": 0.5}, 1.0, [2.0], [0.75]),
    # dampening starts with the second step: 0.5 * 2 + 0.5 * 4 = 3
    ("SGD", {"momentum": 0.5, "dampening": 0.5}, 1.0, [2.0, 4.0], [0.8, 0.5]),
    ("SGD", {"momentum": 0.5, "nesterov": True}, 1.0, [2.0, 4.0], [0.7, 0.05]),
    ("Momentum", {"learning_rate": 0.1, "momentum": 0.5}, 1.0, [2.0, 4.0], [0.8, 0.3]),
    (
        "Momentum",
        {"learning_rate": 0.1, "momentum": 0.5, "use_nesterov": True},
        1.0,
        [2.0, 4.0],
        [0.7, 0.05],
    ),
    # m = 1, v = 1, rate 0.1 * 0.5 / 0.5; then m = 0.5, v = 0.75
    ("Adam", BETAS, 1.0, [2.0, 0.0], [0.95, 0.95 - ADAM_2 * 0.5 / (sqrt(0.75) + 1)]),
    ("Adam", {**BETAS, "use_nesterov": True}, 1.0, [2.0], [1 - 0.1 * 1.5 / 2]),
    # vhat stays 1, and Nesterov is ignored beside it
    (
        "Adam",
        {**BETAS, "use_amsgrad": True, "use_nesterov": True},
        1.0,
        [2.0, 0.0],
        [0.95, 0.95 - ADAM_2 * 0.5 / 2],
    ),
    ("AdamWeightDecay", {**BETAS, "weight_decay": 0.5}, 1.0, [2.0], [0.9]),
    # v is 2, then 1: the largest decayed magnitude
    (
        "AdaMax",
        {"learning_rate": 0.1, "beta1": 0.5, "beta2": 0.5, "eps": 2.0},
        1.0,
        [2.0, 0.0],
        [0.95, 0.95 - 0.2 / 9],
    ),
    ("Adagrad", {"learning_rate": 0.1, "accum": 12.0}, 1.0, [2.0, 3.0], [0.95, 0.89]),
    (
        "Adagrad",
        {"learning_rate": 0.1, "accum": 4.0, "update_slots": False},
        1.0,
        [2.0, 2.0],
        [0.9, 0.8],
    ),
    # the first 0/0 of the paper's formula
    ("Adagrad", {"learning_rate": 0.1, "accum": 0.0}, 1.0, [0.0], [1.0]),
    # d = sqrt(2), then sqrt(3) * 2 / sqrt(5)
    (
        "Adadelta",
        {"learning_rate": 0.1, "rho": 0.5, "epsilon": 2.0},
        1.0,
        [2.0, 2.0],
        [1 - 0.1 * sqrt(2), 1 - 0.1 * sqrt(2) - 0.2 * sqrt(0.6)],
    ),
    (
        "ASGD",
        {"learning_rate": 0.1, "lambd": 0.5, "alpha": 1.0, "t0": 0.0},
        1.0,
        [2.0, 0.0, 0.0],
        [3 / 4, 5 / 7, 15 / 22],
    ),
    # grow, then rest and shrink after a change of sign, then go on with the shrunk step
    ("Rprop", {}, 1.0, [2.0, 3.0, -1.0, -1.0], [0.9, 0.78, 0.78, 0.84]),
    ("Rprop", {"step_sizes": (0.2, 0.3)}, 1.0, [2.0], [0.8]),
    # linear = -2: (-0.5 + 2) / (2 / 0.5 + 2 * 0.25)
    (
        "FTRL",
        {"learning_rate": 0.5, "initial_accum": 0.0, "l1": 0.5, "l2": 0.25},
        1.0,
        [2.0, 0.0],
        [1 / 3, 1 / 3],
    ),
    # linear = +2: the other sign of l1
    ("FTRL", {"learning_rate": 1.0, "initial_accum": 9.0, "l1": 1.0}, 1.0, [4.0], [-0.2]),
    ("FTRL", {"learning_rate": 1.0, "initial_accum": 9.0, "l1": 2.0}, 1.0, [4.0], [0.0]),
    # power 1: linear = 2 - (8 - 4) = -2, divided by 8
    (
        "FTRL",
        {"learning_rate": 1.0, "initial_accum": 4.0, "lr_power": -1.0},
        1.0,
        [2.0],
        [0.25],
    ),
    # adaptive rate 0.1 also in front of l1 and l2
    (
        "ProximalAdagrad",
        {"learning_rate": 0.4, "accum": 12.0, "l1": 2.0, "l2": 5.0},
        1.0,
        [2.0],
        [0.4],
    ),
    ("ProximalAdagrad", {"learning_rate": 0.4, "accum": 12.0, "l1": 9.0}, 1.0, [2.0], [0.0]),
    (
        "RMSProp",
        {"learning_rate": 0.1, "decay": 0.5, "momentum": 0.5, "epsilon": 3.0},
        1.0,
        [1.0, 1.0],
        [0.95, 0.875],
    ),
    (
        "RMSProp",
        {"learning_rate": 0.1, "decay": 0.5, "epsilon": 0.25, "centered": True},
        1.0,
        [1.0],
        [0.9],
    ),
    # a decay above 1 is legal and makes the variance negative: the element rests
    ("RMSProp", {"decay": 2.0, "centered": True}, 1.0, [2.0], [1.0]),
    # mh = 2, vh = 4, eps = 12: ratio 3 / (2 / sqrt(16) + 1.5), update 2 / (2 + 12) + 1.5
    (
        "Lamb",
        {**BETAS, "eps": 12.0, "weight_decay": 0.5},
        3.0,
        [2.0],
        [3 - 0.1 * 1.5 * (1 / 7 + 1.5)],
    ),
    ("Lamb", {**BETAS, "eps": 12.0}, 0.0, [2.0], [-0.1 / 7]),
    # ratio 60 cut to 10
    ("Lamb", {**BETAS, "eps": 12.0}, 30.0, [2.0], [30 - 1 / 7]),
]


@pytest.mark.parametrize(
    ("cls", "kwargs", "start", "gradients", "expected"),
    BY_HAND,
    ids=[f"{line[0]}-{i}" for i, line in enumerate(BY_HAND)],
)
def test_by_hand(cls, kwargs, start, gradients, expected):
    oracle = Reference(cls, {"w": [start]}, kwargs)
    path = []
    for gradient in gradients:
        oracle.step([[gradient]])
        path.append(oracle.w["w"][0])
    np.testing.assert_allclose(path, expected, rtol=1e-8, atol=1e-12)


def test_asgd_average_by_hand():
    oracle = Reference("ASGD", {"w": [1.0]}, {"learning_rate": 0.1, "lambd": 0.5, "alpha": 1.0, "t0": 0.0})
    for gradient in (2.0, 0.0, 0.0):
        oracle.step([[gradient]])
    slots = {slot: by_name["w"] for slot, by_name in oracle.slots().items() if "w" in by_name}
    np.testing.assert_allclose(slots["ax"], [(5 / 7 + 15 / 22) / 2])
    np.testing.assert_allclose(slots["mu"], 1 / 3)
    np.testing.assert_allclose(slots["eta"], 0.1 / 1.15)


@pytest.mark.parametrize(
    ("name", "kwargs", "loss_scale", "expected"),
    [
        # ratio 0.5 * 5 / (1 + 0.5 * 5 + 1.5) = 0.5 before (g + 0.5 * w)
        ("w", {}, 1.0, [2.895, 3.86]),
        ("w", {}, 8.0, [2.895, 3.86]),
        # 0.5 / 0.1 cut to 1
        ("w", {"use_clip": True}, 1.0, [2.79, 3.72]),
        # neither ratio nor decay
        ("bias", {}, 8.0, [2.94, 3.92]),
        # ratio 0.5 * 5 / (1 + 1.5) = 1 without decay
        ("gamma", {}, 1.0, [2.94, 3.92]),
    ],
)
def test_lars_by_hand(name, kwargs, loss_scale, expected):
    inner = Reference(
        "SGD",
        {name: [3.0, 4.0]},
        {"learning_rate": 0.1, "weight_decay": 0.5, "loss_scale": loss_scale},
    )
    oracle = Lars(inner, epsilon=1.5, coefficient=0.5, **kwargs)
    oracle.step([np.array([0.6, 0.8]) * loss_scale])
    np.testing.assert_allclose(oracle.w[name], expected)


PLAIN = {
    "learning_rate": 0.1,
    "relative_step": False,
    "scale_parameter": False,
    "beta1": 0.0,
    "clip_threshold": 2.0,
}


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        # in step 1 the mean square is the square: the update is the sign, its rms 1
        (PLAIN, [2.9, 4.1]),
        ({**PLAIN, "clip_threshold": 0.5}, [2.95, 4.05]),
        ({**PLAIN, "weight_decay": 0.5}, [2.85 - 0.1, 3.8 + 0.1]),
        ({**PLAIN, "beta1": 0.5}, [2.95, 4.05]),
        ({**PLAIN, "scale_parameter": True}, [3 - 0.1 * sqrt(12.5), 4 + 0.1 * sqrt(12.5)]),
        # rate 1e-2 in step 1, then times the rms of the parameter and 1 - beta1
        ({}, [3 - 1e-3 * sqrt(12.5), 4 + 1e-3 * sqrt(12.5)]),
        ({"warmup_init": True}, [3 - 1e-7 * sqrt(12.5), 4 + 1e-7 * sqrt(12.5)]),
    ],
)
def test_adafactor_by_hand(kwargs, expected):
    oracle = Reference("AdaFactor", {"w": [3.0, 4.0]}, kwargs)
    oracle.step([[5.0, -0.25]])
    np.testing.assert_allclose(oracle.w["w"], expected, rtol=1e-12)


def test_adafactor_second_step_by_hand():
    oracle = Reference("AdaFactor", {"w": [1.0]}, PLAIN)
    oracle.step([[1.0]])
    oracle.step([[2.0]])
    np.testing.assert_allclose(oracle.w["w"], [0.9 - 0.2 / sqrt(1 + 3 * 2**-0.8)])


def test_adafactor_matrix_by_hand():
    oracle = Reference("AdaFactor", {"w": np.ones((2, 2))}, PLAIN)
    oracle.step([[[1.0, 1.0], [1.0, 2.0]]])
    # row and column means of the square are (1, 2.5), their mean 1.75
    update = np.sqrt([[1.75, 0.7], [0.7, 1.12]])
    np.testing.assert_allclose(oracle.w["w"], 1 - 0.1 * update)


# ---------------------------------------------------------------- driver


def test_decay_then_centralize_then_unscale():
    w = np.arange(12.0).reshape(2, 2, 3)
    g = np.cos(w)
    oracle = Reference(
        "SGD",
        {"w": w},
        {"learning_rate": 1.0, "weight_decay": 0.5, "loss_scale": 4.0},
        [{"params": ["w"], "grad_centralization": True}],
    )
    oracle.step([4 * g])
    decayed = g + 0.5 * w
    means = np.array([decayed[0].mean(), decayed[1].mean()])
    np.testing.assert_allclose(oracle.w["w"], w - (decayed - means[:, None, None]))


@pytest.mark.parametrize("shape", [(), (3,), (3, 16)])
def test_only_convolution_kernels_are_centralized(shape):
    groups = [{"params": ["w"], "grad_centralization": True}]
    oracle = Reference("SGD", {"w": np.zeros(shape)}, {"learning_rate": 1.0}, groups)
    oracle.step([np.ones(shape)])
    np.testing.assert_array_equal(oracle.w["w"], -np.ones(shape))


def test_name_filter_holds_only_without_groups():
    parameters = {name: [1.0] for name in ("w", "xbeta1", "bn.gamma")}
    kwargs = {"learning_rate": 1.0, "weight_decay": 0.5}
    alone = Reference("SGD", parameters, kwargs)
    grouped = Reference("SGD", parameters, kwargs, [{"params": list(parameters)}])
    for oracle in (alone, grouped):
        oracle.step([[0.0]] * 3)
    assert [w[0] for w in alone.w.values()] == [0.5, 1.0, 1.0]
    assert [w[0] for w in grouped.w.values()] == [0.5, 0.5, 0.5]


def test_groups_inherit_and_override():
    groups = [
        {"params": ["a", "b"], "lr": [0.5, 0.25]},
        {"order_params": ["c", "b", "a"], "lr": 9.0},
        {"params": ["c"], "weight_decay": 1.0},
    ]
    parameters = {name: [1.0] for name in "abc"}
    oracle = Reference("SGD", parameters, {"learning_rate": lambda step: 0.1 + step}, groups)
    assert oracle.names == ["c", "b", "a"]
    assert oracle.rates() == {"c": 0.1, "b": 0.5, "a": 0.5}
    oracle.step([[0.0], [1.0], [2.0]])
    assert {name: w[0] for name, w in oracle.w.items()} == {"c": 0.9, "b": 0.5, "a": 0.0}
    assert oracle.rates() == {"c": 1.1, "b": 0.25, "a": 0.25}


def test_weight_decay_may_depend_on_the_step():
    oracle = Reference("SGD", {"w": [1.0]}, {"weight_decay": float, "learning_rate": 0.5})
    oracle.step([[0.0]])
    assert oracle.w["w"] == [1.0]
    oracle.step([[0.0]])
    assert oracle.w["w"] == [0.5]


def test_none_skips_a_parameter_and_its_slots():
    oracle = Reference("Adam", {"a": [1.0], "b": [1.0]}, {"weight_decay": 0.1})
    oracle.step([[1.0], None])
    assert oracle.w["a"] != [1.0]
    assert oracle.w["b"] == [1.0]
    assert oracle.slots()["moment2"]["b"] == [0.0]
    assert oracle.slots()["global_step"][""] == 1


def test_start_values_are_copied():
    w = np.ones(3)
    Reference("SGD", {"w": w}).step([np.ones(3)])
    np.testing.assert_array_equal(w, np.ones(3))


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_number_of_gradients_is_an_error(count):
    with pytest.raises(ValueError, match="zip"):
        Reference("SGD", {"a": [1.0], "b": [1.0]}).step([[1.0]] * count)


def test_an_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match="beta3"):
        Reference("Adam", {"w": [1.0]}, {"beta3": 0.5})


# ---------------------------------------------------------------- rows

REPEATED = Rows([3, 1, 3], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
DENSE = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [6.0, 8.0], [0.0, 0.0]])


def test_merge_sums_in_order_of_first_appearance():
    indices, values = reference.merge(REPEATED)
    np.testing.assert_array_equal(indices, [3, 1])
    np.testing.assert_array_equal(values, [[6.0, 8.0], [3.0, 4.0]])
    assert reference.merge(Rows([], np.empty((0, 2)))).values.shape == (0, 2)


def after_two_steps(cls, kwargs, gradient):
    oracle = Reference(cls, {"w": np.ones((5, 2))}, kwargs)
    oracle.step([np.ones((5, 2))])  # so that absent rows have moments to decay
    before = oracle.w["w"]
    oracle.step([gradient])
    return before, oracle.w["w"]


ADAM = {"learning_rate": 0.1}


@pytest.mark.parametrize(("cls", "kwargs"), [("Adam", ADAM), ("Momentum", {**ADAM, "momentum": 0.9})])
def test_exact_rows_are_the_dense_step_with_zeros(cls, kwargs):
    _, rows = after_two_steps(cls, kwargs, REPEATED)
    before, dense = after_two_steps(cls, kwargs, DENSE)
    np.testing.assert_array_equal(rows, dense)
    assert np.all(rows != before)


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        ("LazyAdam", ADAM),
        ("Adam", {**ADAM, "use_lazy": True}),
        ("Adagrad", ADAM),
        ("FTRL", {**ADAM, "l1": 0.01}),
        ("ProximalAdagrad", {**ADAM, "l1": 0.01}),
    ],
)
def test_lazy_rows_leave_the_others_alone(cls, kwargs):
    before, rows = after_two_steps(cls, kwargs, REPEATED)
    _, dense = after_two_steps(cls, kwargs, DENSE)
    np.testing.assert_array_equal(rows[[1, 3]], dense[[1, 3]])
    np.testing.assert_array_equal(rows[[0, 2, 4]], before[[0, 2, 4]])


def test_a_touched_row_decays_once():
    oracle = Reference("SGD", {"w": np.ones((5, 2))}, {"learning_rate": 1.0, "weight_decay": 0.5})
    oracle.step([Rows([3, 3], np.zeros((2, 2)))])
    np.testing.assert_array_equal(oracle.w["w"][:, 0], [1, 1, 1, 0.5, 1])


# ---------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("cls", "kwargs", "expected"),
    [
        ("ExponentialDecayLR", {}, [0.1, 0.09740037, 0.09486832, 0.09240211, 0.09, 0.08766034]),
        ("ExponentialDecayLR", {"is_stair": True}, [0.1, 0.1, 0.1, 0.1, 0.09, 0.09]),
        (
            "NaturalExpDecayLR",
            {},
            [0.1, 0.04065697, 0.01652989, 0.006720554, 0.002732373, 0.0011109],
        ),
        ("NaturalExpDecayLR", {"is_stair": True}, [0.1] * 4 + [0.002732373] * 2),
        ("InverseDecayLR", {}, [0.1, 0.08163265, 0.06896552, 0.0597015, 0.05263158, 0.04705882]),
        ("InverseDecayLR", {"is_stair": True}, [0.1] * 4 + [0.05263158] * 2),
        ("CosineDecayLR", {}, [0.1, 0.08681981, 0.055, 0.02318019, 0.01, 0.01]),
        ("PolynomialDecayLR", {}, [0.1, 0.08794229, 0.07363961, 0.055, 0.01, 0.01]),
        (
            "PolynomialDecayLR",
            {"update_decay_steps": True},
            [0.1, 0.08794229, 0.07363961, 0.055, 0.01, 0.06511352],
        ),
        ("WarmUpLR", {}, [0.0, 0.025, 0.05, 0.075, 0.1, 0.1]),
    ],
)
def test_schedules(cls, kwargs, expected):
    decay = {"learning_rate": 0.1, "decay_rate": 0.9, "decay_steps": 4}
    common = {
        "CosineDecayLR": {"min_lr": 0.01, "max_lr": 0.1, "decay_steps": 4},
        "PolynomialDecayLR": {
            "learning_rate": 0.1,
            "end_learning_rate": 0.01,
            "decay_steps": 4,
            "power": 0.5,
        },
        "WarmUpLR": {"learning_rate": 0.1, "warmup_steps": 4},
    }.get(cls, decay)
    rate = reference.schedule(cls, **common, **kwargs)
    # the values come from float32 arithmetic, printed with seven digits
    np.testing.assert_allclose([rate(step) for step in range(6)], expected, rtol=2e-6, atol=1e-9)
