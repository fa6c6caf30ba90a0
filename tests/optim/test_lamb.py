import numpy as np
import pytest

from optimcore import Lamb, Parameter


def make(**arguments):
    return Lamb([Parameter([3.0, 4.0], "w")], **{"learning_rate": 0.1, **arguments})


@pytest.mark.parametrize("name", ["beta1", "beta2"])
@pytest.mark.parametrize(
    ("value", "error"), [(0.0, ValueError), (1.0, ValueError), ("x", TypeError), (True, TypeError)]
)
def test_betas(name, value, error):
    with pytest.raises(error, match=f"{name} must be .*, got {value!r}"):
        make(**{name: value})


@pytest.mark.parametrize(("value", "error"), [(0.0, ValueError), (-1.0, ValueError), (None, TypeError)])
def test_eps(value, error):
    with pytest.raises(error, match=f"eps must be .*, got {value!r}"):
        make(eps=value)


def test_rate_is_required_and_there_is_no_loss_scale():
    with pytest.raises(TypeError, match="learning_rate"):
        Lamb([Parameter([1.0], "w")])
    with pytest.raises(TypeError, match="loss_scale"):
        make(loss_scale=2.0)


def test_names_of_slots():
    opt = make()
    assert [s.name for s in (*opt.moments1, *opt.moments2)] == ["lamb_m.w", "lamb_v.w"]


def test_trust_is_ten_at_most_and_one_where_a_norm_is_zero():
    for start, ratio in ((np.full(4, 1e6), 10.0), (np.zeros(4), 1.0)):
        opt = Lamb([Parameter(start.copy(), "w")], learning_rate=0.5, eps=1e-12)
        opt((np.ones(4),))
        np.testing.assert_allclose(opt.parameters[0], start - 0.5 * ratio, rtol=1e-9)
