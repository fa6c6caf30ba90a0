"""Float64 oracle of every optimizer, written from the equations.

It shares no code with the library and never imports it. One dataclass per rule: the fields are the
constructor arguments with MindSpore's names and defaults, ``init(w)`` makes the slots, and
``step(w, g, s, lr, t, wd)`` replaces the slots in ``s`` and returns the new parameter.
`Reference` does around a rule what the optimizer base class does around a kernel.

Letters: ``w`` parameter, ``g`` gradient after decay, centralization and unscaling, ``s`` slots by
name, ``lr`` rate of this step, ``t`` step counted from 1, ``wd`` weight decay for the rules which
keep it apart from the gradient (0 otherwise). Beta powers are running products, shared by all
parameters.

    >>> ref = Reference("SGD", {"w": [1.0, 2.0]}, {"learning_rate": 0.5})
    >>> ref.step([[1.0, -1.0]])
    >>> ref.w["w"]
    array([0.5, 2.5])
"""

import math
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np


def rms(x):
    return np.sqrt(np.mean(x * x)) if x.size else 0.0


def norm(x):
    return np.sqrt(np.sum(x * x))


# ---------------------------------------------------------------- rules


class Rule:
    """What the driver has to know about a rule, with the most common answers."""

    learning_rate = None  # the default, where the class has one
    couples_decay = True  # weight decay joins the gradient; otherwise `step` receives it as wd
    centralizes = True  # honours grad_centralization of a group
    unscales = True  # divides by the loss scale
    takes_any_rate = True  # rates may change from step to step, and groups have rates of their own
    takes_rate = True  # otherwise the rate follows from the step, and giving one is an error
    filters_names = True  # no decay for 'beta' and 'gamma' when not grouped
    lazy = False  # of a row gradient, only the rows present are updated
    shared = ()  # names of scalars that belong to the optimizer, not to a parameter

    def init(self, w):
        return {}

    def advance(self):
        """Change the shared scalars, once per step and before any parameter."""

    def step(self, w, g, s, lr, t, wd):
        raise NotImplementedError


@dataclass
class SGD(Rule):
    learning_rate = 0.1
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def init(self, w):
        return {"accum": np.zeros_like(w), "stat": 1.0}

    def step(self, w, g, s, lr, t, wd):
        if self.momentum == 0:
            return w - lr * g
        # stat marks a first step, which takes the gradient whole: no dampening
        later = self.momentum * s["accum"] + (1 - self.dampening) * g
        s["accum"] = g if s["stat"] > 0 else later
        s["stat"] = 0.0
        if self.nesterov:
            return w - lr * (g + self.momentum * s["accum"])
        return w - lr * s["accum"]


@dataclass
class Momentum(Rule):
    momentum: float
    use_nesterov: bool = False

    def init(self, w):
        return {"moments": np.zeros_like(w)}

    def step(self, w, g, s, lr, t, wd):
        s["moments"] = self.momentum * s["moments"] + g
        if self.use_nesterov:
            return w - lr * (g + self.momentum * s["moments"])
        return w - lr * s["moments"]


@dataclass
class Adam(Rule):
    """Kingma and Ba 2015, the efficient form of section 2: eps beside the uncorrected root."""

    learning_rate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    use_nesterov: bool = False
    use_amsgrad: bool = False
    use_offload: bool = False
    shared = ("beta1_power", "beta2_power")

    def __post_init__(self):
        self.beta1_power = self.beta2_power = 1.0
        if self.use_offload:
            self.centralizes = False

    def init(self, w):
        names = ("moment1", "moment2", "vhat") if self.use_amsgrad else ("moment1", "moment2")
        return {name: np.zeros_like(w) for name in names}

    def advance(self):
        self.beta1_power *= self.beta1
        self.beta2_power *= self.beta2

    def step(self, w, g, s, lr, t, wd):
        corrected = lr * math.sqrt(1 - self.beta2_power) / (1 - self.beta1_power)
        m = s["moment1"] = self.beta1 * s["moment1"] + (1 - self.beta1) * g
        v = s["moment2"] = self.beta2 * s["moment2"] + (1 - self.beta2) * g * g
        if self.use_amsgrad:  # use_nesterov is without effect here
            s["vhat"] = np.maximum(s["vhat"], v)
            return w - corrected * m / (np.sqrt(s["vhat"]) + self.eps)
        if self.use_nesterov:
            m = self.beta1 * m + (1 - self.beta1) * g
        return w - corrected * m / (np.sqrt(v) + self.eps)


class LazyAdam(Adam):
    lazy = True


class AdamOffload(Adam):
    centralizes = False


@dataclass
class AdamWeightDecay(Rule):
    """No bias correction, decay apart from the gradient, and the gradient taken raw."""

    learning_rate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    couples_decay = centralizes = unscales = False

    def init(self, w):
        return {"moments1": np.zeros_like(w), "moments2": np.zeros_like(w)}

    def step(self, w, g, s, lr, t, wd):
        m = s["moments1"] = self.beta1 * s["moments1"] + (1 - self.beta1) * g
        v = s["moments2"] = self.beta2 * s["moments2"] + (1 - self.beta2) * g * g
        return w - lr * (m / (np.sqrt(v) + self.eps) + wd * w)


@dataclass
class AdaMax(Rule):
    """Kingma and Ba 2015, algorithm 2, with eps in the denominator."""

    learning_rate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    shared = ("beta1_power",)

    def __post_init__(self):
        self.beta1_power = 1.0

    def init(self, w):
        return {"moment1": np.zeros_like(w), "moment2": np.zeros_like(w)}

    def advance(self):
        self.beta1_power *= self.beta1

    def step(self, w, g, s, lr, t, wd):
        m = s["moment1"] = self.beta1 * s["moment1"] + (1 - self.beta1) * g
        v = s["moment2"] = np.maximum(self.beta2 * s["moment2"], np.abs(g))
        return w - lr / (1 - self.beta1_power) * m / (v + self.eps)


@dataclass
class Adagrad(Rule):
    learning_rate = 1e-3
    accum: float = 0.1
    update_slots: bool = True
    lazy = True

    def init(self, w):
        return {"accum": np.full_like(w, self.accum)}

    def step(self, w, g, s, lr, t, wd):
        if self.update_slots:
            s["accum"] = s["accum"] + g * g
        # 1e-8 is undocumented in MindSpore; it keeps accum = 0 with g = 0 from 0/0
        return w - lr * g / np.sqrt(s["accum"] + 1e-8)


@dataclass
class Adadelta(Rule):
    learning_rate = 1.0
    rho: float = 0.9
    epsilon: float = 1e-6

    def init(self, w):
        return {"accum": np.zeros_like(w), "accum_update": np.zeros_like(w)}

    def step(self, w, g, s, lr, t, wd):
        a = s["accum"] = self.rho * s["accum"] + (1 - self.rho) * g * g
        u = s["accum_update"]
        d = np.sqrt(u + self.epsilon) * g / np.sqrt(a + self.epsilon)
        s["accum_update"] = self.rho * u + (1 - self.rho) * d * d
        return w - lr * d


@dataclass
class ASGD(Rule):
    """Averaged SGD; eta is set for the next step, so a dynamic rate acts one step late.

    t counts the steps of the parameter, not of the optimizer."""

    learning_rate = 0.1
    lambd: float = 1e-4
    alpha: float = 0.75
    t0: float = 1e6
    unscales = False

    def init(self, w):
        return {"ax": np.zeros_like(w), "mu": np.float64(1.0), "eta": np.float64(0.0), "steps": 0}

    def step(self, w, g, s, lr, t, wd):
        t = s["steps"] = s["steps"] + 1
        eta = lr if t == 1 else s["eta"]
        w = w * (1 - self.lambd * eta) - eta * g
        s["ax"] = w if s["mu"] == 1 else s["ax"] + (w - s["ax"]) * s["mu"]
        s["eta"] = np.float64(lr / (1 + self.lambd * lr * t) ** self.alpha)
        s["mu"] = np.float64(1 / max(1.0, t - self.t0))
        return w


@dataclass
class Rprop(Rule):
    """Only the rate of the parameter's own step 1 counts: it is the first step size."""

    learning_rate = 0.1
    etas: tuple = (0.5, 1.2)
    step_sizes: tuple = (1e-6, 50.0)
    unscales = False

    def init(self, w):
        return {"prev": np.zeros_like(w), "step_size": np.zeros_like(w), "first": True}

    def step(self, w, g, s, lr, t, wd):
        if s["first"]:
            s["step_size"], s["first"] = np.full_like(w, lr), False
        minus, plus = self.etas
        agree = np.sign(g * s["prev"])
        factor = np.where(agree > 0, plus, np.where(agree < 0, minus, 1.0))
        s["step_size"] = np.clip(s["step_size"] * factor, *self.step_sizes)
        s["prev"] = np.where(agree < 0, 0.0, g)
        return w - np.sign(s["prev"]) * s["step_size"]


@dataclass
class FTRL(Rule):
    """McMahan et al. 2013 with a free power; u is "linear", n is "moments"."""

    learning_rate = 1e-3
    initial_accum: float = 0.1
    lr_power: float = -0.5
    l1: float = 0.0
    l2: float = 0.0
    takes_any_rate = False
    filters_names = False
    lazy = True

    def init(self, w):
        return {"moments": np.full_like(w, self.initial_accum), "linear": np.zeros_like(w)}

    def step(self, w, g, s, lr, t, wd):
        n = s["moments"] + g * g
        old, new = s["moments"] ** -self.lr_power, n**-self.lr_power
        u = s["linear"] = s["linear"] + g - (new - old) / lr * w
        s["moments"] = n
        solution = (np.sign(u) * self.l1 - u) / (new / lr + 2 * self.l2)
        return np.where(np.abs(u) > self.l1, solution, 0.0)


@dataclass
class ProximalAdagrad(Rule):
    """The adaptive rate, not lr, multiplies l1 and l2."""

    learning_rate = 1e-3
    accum: float = 0.1
    l1: float = 0.0
    l2: float = 0.0
    lazy = True

    def init(self, w):
        return {"accum": np.full_like(w, self.accum)}

    def step(self, w, g, s, lr, t, wd):
        s["accum"] = s["accum"] + g * g
        e = np.where(s["accum"] > 0, lr / np.sqrt(s["accum"]), 0.0)
        x = w - e * g
        if self.l1 > 0:
            x = np.sign(x) * np.maximum(np.abs(x) - e * self.l1, 0.0)
        return x / (1 + self.l2 * e)


@dataclass
class RMSProp(Rule):
    """Mean square from 1; epsilon inside the root."""

    learning_rate = 0.1
    decay: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-10
    centered: bool = False

    def init(self, w):
        s = {"ms": np.ones_like(w), "moment": np.zeros_like(w)}
        return {**s, "mg": np.zeros_like(w)} if self.centered else s

    def step(self, w, g, s, lr, t, wd):
        s["ms"] = self.decay * s["ms"] + (1 - self.decay) * g * g
        variance = s["ms"]
        if self.centered:
            s["mg"] = self.decay * s["mg"] + (1 - self.decay) * g
            variance = variance - s["mg"] ** 2
        square = variance + self.epsilon
        moment = self.momentum * s["moment"] + lr * g / np.sqrt(square)
        if not self.centered:
            s["moment"] = moment
            return w - moment
        # the difference may round below 0: such an element rests for this step
        s["moment"] = np.where(square > 0, moment, s["moment"])
        return np.where(square > 0, w - moment, w)


@dataclass
class Lamb(Rule):
    """You et al. 2020. In the trust ratio eps is inside the root, in the update outside."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    couples_decay = unscales = False

    def init(self, w):
        return {"moments1": np.zeros_like(w), "moments2": np.zeros_like(w)}

    def step(self, w, g, s, lr, t, wd):
        m = s["moments1"] = self.beta1 * s["moments1"] + (1 - self.beta1) * g
        v = s["moments2"] = self.beta2 * s["moments2"] + (1 - self.beta2) * g * g
        m = m / (1 - self.beta1**t)
        v = v / (1 - self.beta2**t)
        w_norm = norm(w)
        update_norm = norm(m / np.sqrt(v + self.eps) + wd * w)
        ratio = w_norm / update_norm if w_norm > 0 and update_norm > 0 else 1.0
        ratio = 0.0 if np.isnan(ratio) else min(ratio, 10.0)
        return w - ratio * lr * (m / (np.sqrt(v) + self.eps) + wd * w)


@dataclass
class AdaFactor(Rule):
    """Shazeer and Stern 2018. Uses its own weight_decay for every parameter, whatever the groups
    and names say; `compression` concerns storage only."""

    eps: tuple = (1e-30, 1e-3)
    clip_threshold: float = 1.0
    decay_rate: float = 0.8
    beta1: float = 0.9
    weight_decay: float = 0.0
    scale_parameter: bool = True
    relative_step: bool = True
    warmup_init: bool = False
    compression: bool = False
    couples_decay = centralizes = unscales = False
    shared = ("afactor_step",)

    def __post_init__(self):
        self.afactor_step = 0
        self.takes_rate = not self.relative_step
        self.beta1 = self.beta1 or 0.0  # None: no first moment

    def init(self, w):
        if w.ndim > 1:
            column_shape = w.shape[:-2] + w.shape[-1:]
            s = {"exp_avg_sq_row": np.zeros(w.shape[:-1]), "exp_avg_sq_col": np.zeros(column_shape)}
        else:
            s = {"exp_avg_sq": np.zeros_like(w)}
        return {"exp_avg": np.zeros_like(w), **s} if self.beta1 > 0 else s

    def advance(self):
        self.afactor_step += 1

    def step(self, w, g, s, lr, t, wd):
        t = self.afactor_step
        if self.relative_step:
            lr = min(1e-6 * t if self.warmup_init else 1e-2, 1 / math.sqrt(t))
        if self.scale_parameter:
            lr = lr * max(self.eps[1], rms(w))
        x = g / np.sqrt(self.mean_square(g * g + self.eps[0], s, 1 - t**-self.decay_rate))
        x = lr * x / max(1.0, rms(x) / self.clip_threshold)
        if self.beta1 > 0:
            x = s["exp_avg"] = self.beta1 * s["exp_avg"] + (1 - self.beta1) * x
        return w - self.weight_decay * lr * w - x

    def mean_square(self, square, s, beta2):
        """Update the running mean of `square` and return it, from rows and columns if factored."""
        if "exp_avg_sq" in s:
            s["exp_avg_sq"] = beta2 * s["exp_avg_sq"] + (1 - beta2) * square
            return s["exp_avg_sq"]
        row = s["exp_avg_sq_row"] = beta2 * s["exp_avg_sq_row"] + (1 - beta2) * square.mean(-1)
        col = s["exp_avg_sq_col"] = beta2 * s["exp_avg_sq_col"] + (1 - beta2) * square.mean(-2)
        return (row / row.mean(-1, keepdims=True))[..., :, None] * col[..., None, :]


RULES = {
    rule.__name__: rule
    for rule in (
        SGD,
        Momentum,
        Adam,
        LazyAdam,
        AdamOffload,
        AdamWeightDecay,
        AdaMax,
        Adagrad,
        Adadelta,
        ASGD,
        Rprop,
        FTRL,
        ProximalAdagrad,
        RMSProp,
        Lamb,
        AdaFactor,
    )
}


# ------------------------------------------- gradients on their way to a rule


class Rows(NamedTuple):
    """A row gradient: values[j] belongs to row indices[j]; repeated indices add up."""

    indices: np.ndarray
    values: np.ndarray


def merge(rows):
    """Sum the values of equal indices; rows come out in order of first appearance."""
    sums = {}
    for index, value in zip(rows.indices, np.asarray(rows.values, np.float64), strict=True):
        sums[int(index)] = sums.get(int(index), 0.0) + value
    values = np.array(list(sums.values())).reshape(len(sums), *np.shape(rows.values)[1:])
    return Rows(np.array(list(sums), dtype=np.int64), values)


def with_rows(table, index, values):
    """Copy of `table` with its rows `index` replaced."""
    table = table.copy()
    table[index] = values
    return table


def decay_weight(w, g, decay):
    """Add the decay; the gradient still carries the loss scale, so `decay` has to as well."""
    return g + w * decay


def centralize(g):
    """Subtract the mean of each output channel; only convolution kernels have one to subtract."""
    return g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True) if g.ndim >= 3 else g


def unscale(g, loss_scale):
    return g / loss_scale


# ---------------------------------------------------------------- the driver


def value_at(setting, step):
    """Value at a 0-based step of a number, a 1-D sequence or a callable of the step."""
    if callable(setting):
        return float(setting(step))
    return float(setting[step]) if np.ndim(setting) == 1 else setting


class Reference:
    """One optimizer: a rule, its groups, rates and slots.

    Parameters
    ----------
    cls : str
        Class name, a key of `RULES` (`Lars` wraps a Reference).
    parameters : dict of str to array_like
        Initial values by name, in network order; copied into float64.
    kwargs : dict
        Constructor arguments as for the library. A rate is a number, a 1-D sequence or a callable
        of the 0-based step; a weight decay is a number or such a callable.
    groups : list of dict, optional
        As for the library, with names in place of parameters.

    Attributes
    ----------
    names : list of str
        Order of `step`'s gradients: network, group or `order_params` order.
    w : dict of str to ndarray
        Parameters after the last step.
    global_step : int
        Steps done.
    """

    # not for the rule; use_locking has no influence on any number
    _OWN = {"learning_rate", "weight_decay", "loss_scale", "use_lazy", "use_locking"}

    def __init__(self, cls, parameters, kwargs=None, groups=None):
        kwargs = dict(kwargs or {})
        rule = RULES[cls]
        hyper = {field.name for field in fields(rule)}
        self.rule = rule(**{k: v for k, v in kwargs.items() if k in hyper or k not in self._OWN})
        self.loss_scale = kwargs.get("loss_scale", 1.0) if self.rule.unscales else 1.0
        self.lazy = kwargs.get("use_lazy", False) or self.rule.lazy
        default_rate = kwargs.get("learning_rate", rule.learning_rate)
        self._settle(list(parameters), default_rate, kwargs.get("weight_decay", 0.0), groups)
        self.w = {name: np.array(parameters[name], np.float64) for name in self.names}
        self.s = {name: self.rule.init(self.w[name]) for name in self.names}
        self.global_step = 0

    def _settle(self, names, rate, decay, groups):
        """Fix order, rate, decay and centralization of every parameter."""
        if groups is None:
            spared = ("beta", "gamma") if self.rule.filters_names else ()
            self.names = names
            self.rate = dict.fromkeys(names, rate)
            self.decay = {n: 0.0 if any(part in n for part in spared) else decay for n in names}
            self.centralized = dict.fromkeys(names, False)
            return
        self.rate, self.decay, self.centralized = {}, {}, {}
        order = None
        for group in groups:
            if "order_params" in group:
                order = list(group["order_params"]) or order
                continue
            for name in group["params"]:
                self.rate[name] = group.get("lr", rate)
                self.decay[name] = group.get("weight_decay", decay)
                self.centralized[name] = group.get("grad_centralization", False)
        self.names = order or list(self.rate)

    def step(self, gradients):
        """Apply one gradient per parameter, in the order of `names`; None skips a parameter."""
        # infinities and 0/0 are answers here as in the kernels, not accidents to warn about
        with np.errstate(all="ignore"):
            self.rule.advance()
            for name, gradient in zip(self.names, gradients, strict=True):
                if gradient is not None:
                    self._update(name, gradient)
        self.global_step += 1

    def rates(self):
        """Rate of the coming step for each parameter."""
        return {name: value_at(self.rate[name], self.global_step) for name in self.names}

    def slots(self):
        """All state as {slot: {parameter name: value}}; shared scalars have the name ''."""
        state = {slot: {"": getattr(self.rule, slot)} for slot in self.rule.shared}
        state["global_step"] = {"": self.global_step}
        for name in self.names:
            for slot, value in self.s[name].items():
                state.setdefault(slot, {})[name] = value
        return state

    def _update(self, name, gradient):
        w, s = self.w[name], self.s[name]
        if not isinstance(gradient, Rows):
            g = self._prepare(name, w, np.asarray(gradient, np.float64))
            self.w[name] = self._apply(name, w, g, s)
            return
        index, values = merge(gradient)
        g = self._prepare(name, w[index], values)  # so a touched row decays once
        if self.lazy:
            # scalars belong to the parameter, not to its rows
            part = {slot: value[index] if np.ndim(value) else value for slot, value in s.items()}
            self.w[name] = with_rows(w, index, self._apply(name, w[index], g, part))
            self.s[name] = {
                slot: with_rows(s[slot], index, value) if np.ndim(value) else value for slot, value in part.items()
            }
        else:
            self.w[name] = self._apply(name, w, with_rows(np.zeros_like(w), index, g), s)

    def _prepare(self, name, w, g):
        decay = value_at(self.decay[name], self.global_step)
        if self.rule.couples_decay and decay:
            g = decay_weight(w, g, decay * self.loss_scale)
        if self.rule.centralizes and self.centralized[name]:
            g = centralize(g)
        return unscale(g, self.loss_scale)

    def _apply(self, name, w, g, s):
        wd = 0.0 if self.rule.couples_decay else value_at(self.decay[name], self.global_step)
        lr = value_at(self.rate[name], self.global_step)
        return self.rule.step(w, g, s, lr, self.global_step + 1, wd)


class Lars:
    """Layer-wise trust ratio before the step of another optimizer (You et al. 2017).

    Takes decay and loss scale away from the `Reference` it wraps, then does both itself; a
    parameter that fails the filter is only unscaled. Shares the parameters and slots of `inner`.
    """

    def __init__(self, inner, epsilon=1e-5, coefficient=1e-3, use_clip=False, lars_filter=None):
        self.inner = inner
        self.epsilon, self.coefficient, self.use_clip = epsilon, coefficient, use_clip
        self.lars_filter = lars_filter or self.default_filter
        self.decay, inner.decay = inner.decay, dict.fromkeys(inner.names, 0.0)
        self.loss_scale, inner.loss_scale = inner.loss_scale, 1.0

    @staticmethod
    def default_filter(parameter):
        return "LayerNorm" not in parameter.name and "bias" not in parameter.name

    names = property(lambda self: self.inner.names)
    w = property(lambda self: self.inner.w)

    def slots(self):
        return self.inner.slots()

    def step(self, gradients):
        with np.errstate(all="ignore"):
            gradients = [
                None if g is None else self._trust(name, np.asarray(g, np.float64))
                for name, g in zip(self.names, gradients, strict=True)
            ]
        self.inner.step(gradients)

    def _trust(self, name, g):
        g = unscale(g, self.loss_scale)
        if not self.lars_filter(SimpleNamespace(name=name)):
            return g
        w, step = self.w[name], self.inner.global_step
        wd = value_at(self.decay[name], step)
        ratio = self.coefficient * norm(w) / (norm(g) + wd * norm(w) + self.epsilon)
        if self.use_clip:
            ratio = max(min(ratio / value_at(self.inner.rate[name], step), 1.0), 0.0)
        return ratio * (g + wd * w)


# ---------------------------------------------------------------- schedules


def exponential_decay(step, learning_rate, decay_rate, decay_steps, is_stair=False):
    p = step / decay_steps
    return learning_rate * decay_rate ** (math.floor(p) if is_stair else p)


def natural_exp_decay(step, learning_rate, decay_rate, decay_steps, is_stair=False):
    # without stairs the exponent is the step itself; MindSpore's documentation divides it
    p = math.floor(step / decay_steps) * decay_steps if is_stair else step
    return learning_rate * math.exp(-decay_rate * p)


def inverse_decay(step, learning_rate, decay_rate, decay_steps, is_stair=False):
    p = step / decay_steps
    return learning_rate / (1 + decay_rate * (math.floor(p) if is_stair else p))


def cosine_decay(step, min_lr, max_lr, decay_steps):
    q = min(step, decay_steps) / decay_steps
    return min_lr + (max_lr - min_lr) / 2 * (1 + math.cos(math.pi * q))


def polynomial_decay(step, learning_rate, end_learning_rate, decay_steps, power, update_decay_steps=False):
    if update_decay_steps:
        decay_steps = decay_steps * max(math.ceil(step / decay_steps), 1)
    p = min(step, decay_steps) / decay_steps
    return (learning_rate - end_learning_rate) * (1 - p) ** power + end_learning_rate


def warm_up(step, learning_rate, warmup_steps):
    return learning_rate * min(step, warmup_steps) / warmup_steps


SCHEDULES = {
    "ExponentialDecayLR": exponential_decay,
    "NaturalExpDecayLR": natural_exp_decay,
    "InverseDecayLR": inverse_decay,
    "CosineDecayLR": cosine_decay,
    "PolynomialDecayLR": polynomial_decay,
    "WarmUpLR": warm_up,
}


def schedule(cls, **kwargs):
    """A rate for `Reference`: the schedule of that class name as a function of the 0-based step."""
    return lambda step: SCHEDULES[cls](step, **kwargs)
