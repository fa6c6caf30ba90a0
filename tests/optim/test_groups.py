"""Tests of the argument `parameters`: collections, groups, order."""

import numpy as np
import pytest

from optimcore import SGD, Adam, ExponentialDecayLR, LazyAdam, Optimizer, Parameter, ParameterTuple


def make(*names, shape=(2,)):
    """Return a list of new parameters of these names."""
    return [Parameter(np.ones(shape, np.float32), name=name) for name in names]


def names(optimizer):
    """Return the names of an optimizer's parameters in their order."""
    return [p.name for p in optimizer.parameters]


# ---- collections


@pytest.mark.parametrize("collection", [list, tuple, iter, ParameterTuple])
def test_iterables_of_parameters_are_taken(collection):
    a, b = make("a", "b")
    opt = Optimizer(0.1, collection([a, b]))
    assert isinstance(opt.parameters, ParameterTuple)
    assert opt.parameters[0] is a
    assert opt.parameters[1] is b


def test_iterators_of_groups_are_taken():
    a, b = make("a", "b")
    opt = Optimizer(0.1, ({"params": (p for p in [q])} for q in (a, b)))
    assert names(opt) == ["a", "b"]


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        (None, ValueError, "parameters must be a list of Parameters or dicts, got None"),
        (5, TypeError, "parameters must be a list of Parameters, got int"),
        ([], ValueError, r"parameters must not be empty, got \[\]"),
        (iter([]), ValueError, "parameters must not be empty"),
        ("abc", TypeError, "parameters must be a list of Parameters, got str"),
        (Parameter([1.0], "a"), TypeError, "parameters must be a list of Parameters, got Parameter"),
        ({"params": make("a")}, TypeError, "parameters must be a list of Parameters, got dict"),
        (np.ones(2), TypeError, "parameters must be a list of Parameters, got ndarray"),
        ([np.ones(2)], TypeError, r"parameters\[0\] must be a Parameter, got ndarray .*optimcore\.Parameter\("),
        ([*make("a"), None], TypeError, r"parameters\[1\] must be a Parameter, got NoneType"),
        ([*make("a"), {"params": make("b")}], TypeError, r"parameters must be all .*got dict at parameters\[1\]"),
        ([{"params": make("b")}, *make("a")], TypeError, r"all Parameters or all dicts, got Parameter at param"),
    ],
)
def test_collections_are_checked(parameters, error, message):
    with pytest.raises(error, match=message):
        Optimizer(0.1, parameters)


def test_two_parameters_of_one_name_are_refused():
    for pair in (make("a", "a"), make("a") * 2):
        with pytest.raises(ValueError, match="names of parameters must differ, got 'a' twice"):
            Optimizer(0.1, pair)


def test_parameter_without_gradient_is_taken():
    assert names(Optimizer(0.1, [Parameter([1.0], "a", requires_grad=False)])) == ["a"]


def test_unnamed_parameters_are_named():
    parameters = make(None, "w", None)
    assert names(Optimizer(0.1, parameters)) == ["parameter_0", "w", "parameter_2"]
    assert parameters[2].name == "parameter_2"


@pytest.mark.parametrize(
    "arguments",
    [
        {"learning_rate": -1.0},
        {"weight_decay": -1.0},
        {"loss_scale": 0.0},
        {"parameters": [{"params": make(None), "lr": "1"}]},
    ],
)
def test_failing_constructor_names_nothing(arguments):
    unnamed = Parameter([1.0])
    arguments = {"learning_rate": 0.1, "parameters": [unnamed], **arguments}
    with pytest.raises((TypeError, ValueError)):
        Optimizer(**arguments)
    assert unnamed.name is None


# ---- errors of groups


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        ({"params": make("b"), "Lr": 1.0}, KeyError, r"keys of parameters\[1\] must be among params, lr,.* got 'Lr'"),
        ({"params": make("b"), 3: 1.0}, KeyError, "got 3"),
        ({"lr": 0.1}, KeyError, r"parameters\[1\] must have the key 'params', got \['lr'\]"),
        ({"params": None}, ValueError, r"parameters\[1\]\['params'\] must be a list of Parameters, got None"),
        ({"params": []}, ValueError, r"parameters\[1\]\['params'\] must not be empty, got \[\]"),
        ({"params": iter([])}, ValueError, r"parameters\[1\]\['params'\] must not be empty"),
        ({"params": 1}, TypeError, r"parameters\[1\]\['params'\] must be a list of Parameters, got int"),
        ({"params": make("b")[0]}, TypeError, r"parameters\[1\]\['params'\] must be a list of .*got Parameter"),
        ({"params": [1]}, TypeError, r"parameters\[1\]\['params'\]\[0\] must be a Parameter, got int"),
        ({"params": make("b"), "lr": None}, TypeError, r"parameters\[1\]\['lr'\] must be a number, .*got None"),
        ({"params": make("b"), "lr": -0.5}, ValueError, r"parameters\[1\]\['lr'\] must be >= 0, got -0\.5"),
        ({"params": make("b"), "lr": [[0.1]]}, ValueError, r"parameters\[1\]\['lr'\] must not be nested"),
        ({"params": make("b"), "lr": np.ones((1, 1))}, ValueError, r"\['lr'\] must have 0 or 1 dimensions, got 2"),
        ({"params": make("b"), "weight_decay": None}, TypeError, r"\['weight_decay'\] must be a number or a call"),
        ({"params": make("b"), "weight_decay": True}, TypeError, r"\['weight_decay'\] must be .*got True"),
        ({"params": make("b"), "weight_decay": -1}, ValueError, r"\['weight_decay'\] must be >= 0, got -1"),
        (
            {"params": make("b"), "grad_centralization": 1},
            TypeError,
            r"\['grad_centralization'\] must be a bool, got 1",
        ),
        ({"params": make("b"), "grad_centralization": None}, TypeError, "must be a bool, got None"),
        ({"params": make("b", "b")}, ValueError, "names of parameters must differ, got 'b' twice"),
        ({"params": make("a")}, ValueError, "names of parameters must differ, got 'a' twice"),
        ({"params": make("b") * 2}, RuntimeError, "a parameter must be in groups only once, got 'b' twice"),
    ],
)
def test_groups_are_checked(group, error, message):
    with pytest.raises(error, match=message):
        Optimizer(0.1, [{"params": make("a")}, group])


def test_parameter_in_two_groups_is_refused():
    a = make("a")
    with pytest.raises(RuntimeError, match="a parameter must be in groups only once, got 'a' twice"):
        Optimizer(0.1, [{"params": a}, {"params": a}])


def test_default_values_are_checked_even_when_all_groups_override_them():
    groups = [{"params": make("a"), "lr": 0.1, "weight_decay": 0.1}]
    with pytest.raises(ValueError, match="learning_rate must be >= 0, got -1"):
        Optimizer(-1, groups)
    with pytest.raises(ValueError, match="weight_decay must be >= 0, got -1"):
        Optimizer(0.1, groups, weight_decay=-1)


def test_checks_come_in_the_order_of_the_seed():
    """Several errors at once: the first in the order of the arguments' checks is reported."""
    bad = {"learning_rate": -1.0, "parameters": [{"lr": -2.0}], "weight_decay": -3.0, "loss_scale": -4.0}
    steps = [
        ("loss_scale", 1.0, ValueError, "loss_scale"),
        ("learning_rate", 0.1, ValueError, "learning_rate must"),
        ("parameters", [{"lr": -2.0, "x": 1}], KeyError, "params"),
        ("parameters", [{"lr": -2.0, "params": make("a")}, {"order_params": make("b")}], KeyError, "got 'x'"),
        ("parameters", [{"lr": -2.0, "params": make("a") * 2}], ValueError, "order_params"),
        ("parameters", [{"params": make("a") * 2}], ValueError, "lr"),
        ("parameters", [{"params": make("a")}], RuntimeError, "only once"),
        ("weight_decay", 0.0, ValueError, "weight_decay"),
    ]
    for argument, better, error, message in steps:
        with pytest.raises(error, match=message):
            Optimizer(**bad)
        bad[argument] = better
    Optimizer(**bad)


# ---- values of groups


def test_values_are_expanded_to_one_entry_per_parameter():
    a, b, c = make("a", "b", "c")
    groups = [
        {"params": [a, b], "lr": 0.05, "weight_decay": 0.2, "grad_centralization": True},
        {"params": [c]},
    ]
    opt = Optimizer(0.1, groups, weight_decay=0.01)
    assert opt.is_group and opt.is_group_lr and not opt.is_group_params_ordered and not opt.dynamic_lr
    assert opt.get_lr() == (0.05, 0.05, 0.1)
    assert opt.weight_decay == opt.group_weight_decay == (0.2, 0.2, 0.01)
    assert opt.grad_centralization_flags == opt.group_grad_centralization == (True, True, False)
    assert opt.group_params == (a, b, c) == opt.parameters
    assert opt.group_lr == opt.learning_rate
    assert opt.learning_rate[0] is opt.learning_rate[1]
    assert [r.name for r in opt.learning_rate] == ["learning_rate_group_0"] * 2 + ["learning_rate"]


def test_groups_are_not_modified():
    a, b = make("a", "b")
    groups = [{"params": [a]}, {"params": [b], "lr": 0.1}, {"order_params": [b, a]}]
    before = [dict(group) for group in groups]
    Optimizer(0.1, groups)
    assert [list(group) for group in groups] == [list(group) for group in before]


def test_iterator_as_params_is_not_lost(net):
    opt = Optimizer(0.1, [{"params": filter(lambda p: "conv" in p.name, net.trainable_params())}])
    assert names(opt) == ["conv.weight"]


def test_iterator_as_lr_is_not_lost():
    opt = Optimizer(0.1, [{"params": make("a"), "lr": (rate for rate in (0.5, 0.25))}])
    assert opt.get_lr() == (0.5,)
    opt.global_step = 1
    assert opt.get_lr() == (0.25,)


def test_rate_without_lr_in_groups_is_shared():
    opt = Optimizer(0.1, [{"params": make("a")}, {"params": make("b"), "weight_decay": 0.1}])
    assert not opt.is_group_lr
    assert opt.get_lr() == 0.1
    assert isinstance(opt.learning_rate, Parameter)


def test_default_schedule_is_shared_by_groups():
    schedule = ExponentialDecayLR(0.1, 0.9, 4)
    opt = Optimizer(schedule, [{"params": make("a")}, {"params": make("b"), "lr": 0.5}])
    assert opt.learning_rate[0] is schedule
    assert opt.dynamic_lr


@pytest.mark.parametrize("default", [0.1, [0.1, 0.2]])
@pytest.mark.parametrize("own", [0.3, [0.3, 0.4], ExponentialDecayLR(0.1, 0.9, 4)])
def test_dynamic_lr_is_one_flag_for_all(default, own):
    opt = Optimizer(default, [{"params": make("a"), "lr": own}])
    assert opt.dynamic_lr == (not isinstance(default, float) or not isinstance(own, float))


def test_lengths_of_listed_rates_must_agree():
    groups = [{"params": make("a"), "lr": [0.1, 0.2]}, {"params": make("b"), "lr": [0.1, 0.2, 0.3]}]
    with pytest.raises(ValueError, match=r"learning_rate must have the same length in all groups, .*\[2, 3\]"):
        Optimizer(0.1, groups)
    with pytest.raises(ValueError, match="same length"):
        Optimizer([0.1], groups[:1])  # counts although no group uses it
    Optimizer(ExponentialDecayLR(0.1, 0.9, 4), [*groups[:1], {"params": make("b"), "lr": 0.3}])


def test_names_do_not_matter_for_decay_in_groups():
    groups = [{"params": make("bn.gamma", "bn.beta")}, {"params": make("w"), "weight_decay": 0.0}]
    opt = Optimizer(0.1, groups, weight_decay=0.1)
    assert opt.decay_flags == (True, True, False)
    assert opt.exec_weight_decay
    assert not Optimizer(0.1, groups).exec_weight_decay


# ---- order


def test_order_params_permutes_everything_together():
    a, b, c = make("a", "b", "c")
    groups = [
        {"order_params": (c, a, b)},
        {"params": [a, b], "lr": 0.05, "weight_decay": 0.2},
        {"params": [c], "grad_centralization": True},
    ]
    opt = Optimizer(0.1, groups)
    assert names(opt) == ["c", "a", "b"]
    assert opt.get_lr() == (0.1, 0.05, 0.05)
    assert opt.weight_decay == (0.0, 0.2, 0.2)
    assert opt.grad_centralization_flags == (True, False, False)
    assert opt.is_group_params_ordered
    assert opt.learning_rate[1].name == "learning_rate_group_1"


def test_order_params_matches_names_and_keeps_the_objects_of_params():
    a, b = make("a", "b")
    opt = Optimizer(0.1, [{"params": [a, b]}, {"order_params": make("b", "a")}])
    assert opt.parameters[0] is b
    assert opt.parameters[1] is a


def test_order_params_matches_unnamed_parameters_by_identity():
    a, b = make(None, None)
    opt = Optimizer(0.1, [{"params": [a, b]}, {"order_params": [b, a]}])
    assert opt.parameters[0] is b


def test_last_order_params_wins_and_an_empty_one_is_ignored():
    a, b = make("a", "b")
    orders = [{"order_params": [a, b]}, {"order_params": [b, a]}, {"order_params": []}]
    opt = Optimizer(0.1, [{"params": [a, b]}, *orders])
    assert names(opt) == ["b", "a"]
    opt = Optimizer(0.1, [{"params": [a, b]}, {"order_params": []}])
    assert names(opt) == ["a", "b"]
    assert not opt.is_group_params_ordered


def test_order_params_may_be_an_iterator():
    a, b = make("a", "b")
    assert names(Optimizer(0.1, [{"params": [a, b]}, {"order_params": reversed([a, b])}])) == ["b", "a"]


def test_other_keys_beside_order_params_are_ignored_with_a_warning():
    a, b = make("a", "b")
    groups = [{"params": [a, b]}, {"order_params": [b, a], "lr": -5, "weight_decay": "x"}]
    with pytest.warns(UserWarning, match=r"parameters\[1\] has \['lr', 'weight_decay'\]") as caught:
        opt = Optimizer(0.1, groups)
    assert names(opt) == ["b", "a"]
    assert not opt.is_group_lr
    assert len(caught) == 1


@pytest.mark.parametrize("cls", [SGD, Adam, LazyAdam])
def test_warning_points_to_the_line_of_the_user(cls):
    a = make("a")
    with pytest.warns(UserWarning, match="order_params") as caught:
        cls([{"params": a}, {"order_params": a, "lr": 0.1}])
    assert caught[0].filename == __file__


def test_unknown_key_beside_order_params_is_still_unknown():
    with pytest.raises(KeyError, match="got 'rate'"):
        Optimizer(0.1, [{"params": make("a")}, {"order_params": make("a"), "rate": 1}])


def test_order_alone_is_refused():
    with pytest.raises(ValueError, match="parameters must have a group with 'params'"):
        Optimizer(0.1, [{"order_params": make("a")}])


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        (5, TypeError, r"parameters\[1\]\['order_params'\] must be a list of Parameters, got int"),
        (None, TypeError, r"\['order_params'\] must be a list of Parameters, got NoneType"),
        (["a", "b"], TypeError, r"\['order_params'\]\[0\] must be a Parameter, got str"),
        (make("a"), ValueError, "must hold each of the 2 grouped parameters once, got 1"),
        (make("a", "b", "c"), ValueError, "must hold each of the 2 grouped parameters once, got 3"),
        (make("a", "c"), ValueError, "must hold each grouped parameter once, got none named 'b'"),
        (make("a", "a"), ValueError, "must hold each grouped parameter once, got none named 'b'"),
    ],
)
def test_order_params_is_checked(order, error, message):
    with pytest.raises(error, match=message):
        Optimizer(0.1, [{"params": make("a", "b")}, {"order_params": order}])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("learning_rate", "lr"),
        ("weight_deacy", "weight_decay"),
        ("param", "params"),
        ("parameters", "params"),
        ("grad_centralisation", "grad_centralization"),
        ("order_param", "order_params"),
    ],
)
def test_unknown_key_suggests_the_near_one(key, meant):
    group = {"params": [Parameter([1.0], "w")], key: 0.1}
    with pytest.raises(KeyError, match=f"got '{key}'; did you mean '{meant}'?"):
        Optimizer(0.1, [group])


@pytest.mark.parametrize("key", ["betas", 3])
def test_unknown_key_far_from_all_suggests_nothing(key):
    with pytest.raises(KeyError) as raised:
        Optimizer(0.1, [{"params": [Parameter([1.0], "w")], key: 0.1}])
    assert "did you mean" not in str(raised.value)


def test_weights_of_torch_are_to_be_wrapped(torch):
    """Their class has the same name as ours."""
    weight = torch.nn.Parameter(torch.ones(2))
    for parameters in ([weight], [{"params": [weight]}], torch.nn.Linear(2, 1).parameters()):
        with pytest.raises(
            TypeError, match=r"must be a Parameter, got torch.Tensor \(an array .*optimcore.Parameter\("
        ):
            Optimizer(0.1, parameters)
    for parameters in (weight, [{"params": weight}]):
        with pytest.raises(TypeError, match="must be a list of Parameters, got torch.Tensor"):
            Optimizer(0.1, parameters)
