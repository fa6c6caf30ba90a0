"""The optimizers, a row each: every law of `optim/test_laws.py` runs over every row."""

from typing import NamedTuple

import golden_data
import ml_dtypes
import numpy as np
import reference

import optimcore


class Case(NamedTuple):
    """An optimizer with arguments; the oracle takes the same."""

    cls: str
    kwargs: dict
    lars: dict | None = None  # arguments of a LARS around it

    def __str__(self):
        arguments = ",".join(f"{k}={v}" for k, v in self.kwargs.items() if k != "learning_rate")
        return f"{self.cls}({arguments})" if self.lars is None else f"LARS({self.cls}({arguments}),{self.lars})"

    def build(self, arrays, groups=None, **extra):
        """Return the library's optimizer over Parameters that share memory with `arrays` (a dict by name)."""
        parameters = {name: optimcore.Parameter(a, name=name) for name, a in arrays.items()}
        if groups is not None:
            groups = [{**g, "params": [parameters[name] for name in g["params"]]} for g in groups]
        kwargs = {**self.kwargs, **extra}
        if not self.rule.unscales:
            kwargs.pop("loss_scale", None)
        optimizer = getattr(optimcore, self.cls)(groups or list(parameters.values()), **kwargs)
        return optimizer if self.lars is None else optimcore.LARS(optimizer, **self.lars)

    def oracle(self, arrays, groups=None, **extra):
        """Return the float64 reference of the same optimizer."""
        oracle = reference.Reference(self.cls, arrays, {**self.kwargs, **extra}, groups)
        return oracle if self.lars is None else reference.Lars(oracle, **self.lars)

    @property
    def rule(self):
        """The oracle's rule, which says what the class does with gradients and rates."""
        return reference.Reference(self.cls, {}, self.kwargs).rule

    @property
    def conv_groups(self):
        """Groups for `conv_arrays`, with a rate of its own in one of them where the class takes it."""
        return [{k: g[k] for k in g if k != "lr" or self.rule.takes_any_rate} for g in CONV_GROUPS]


CASES = [
    Case("SGD", dict(learning_rate=0.1)),
    Case("SGD", dict(learning_rate=0.1, momentum=0.9)),
    Case("SGD", dict(learning_rate=0.1, momentum=0.9, dampening=0.3)),
    Case("SGD", dict(learning_rate=0.1, momentum=0.9, nesterov=True)),
    Case("Momentum", dict(learning_rate=0.05, momentum=0.9)),
    Case("Momentum", dict(learning_rate=0.05, momentum=0.9, use_nesterov=True)),
    Case("Adam", dict(learning_rate=0.01)),
    Case("Adam", dict(learning_rate=0.01, beta1=0.8, beta2=0.95, eps=1e-3)),
    Case("Adam", dict(learning_rate=0.01, use_nesterov=True)),
    Case("Adam", dict(learning_rate=0.01, use_amsgrad=True)),
    Case("Adam", dict(learning_rate=0.01, use_offload=True)),
    Case("LazyAdam", dict(learning_rate=0.01, beta1=0.8, eps=1e-3)),
    Case("LazyAdam", dict(learning_rate=0.01, use_nesterov=True)),
    Case("AdamOffload", dict(learning_rate=0.01, beta1=0.8, eps=1e-3)),
    Case("AdamOffload", dict(learning_rate=0.01, use_nesterov=True)),
    Case("AdamWeightDecay", dict(learning_rate=0.01)),
    Case("AdamWeightDecay", dict(learning_rate=0.01, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.1)),
    Case("AdaMax", dict(learning_rate=0.01)),
    Case("AdaMax", dict(learning_rate=0.01, beta1=0.8, beta2=0.5, eps=1e-3)),
    Case("Adagrad", dict(learning_rate=0.1)),
    Case("Adagrad", dict(learning_rate=0.1, accum=0.0)),
    Case("Adagrad", dict(learning_rate=0.1, accum=0.5, update_slots=False)),
    Case("Adadelta", dict(learning_rate=1.0)),
    Case("Adadelta", dict(learning_rate=1.0, rho=0.5, epsilon=1e-2)),
    Case("ASGD", dict(learning_rate=0.1)),
    Case("ASGD", dict(learning_rate=0.1, lambd=0.1, alpha=0.5, t0=1.0)),
    Case("Rprop", dict(learning_rate=0.1)),
    Case("Rprop", dict(learning_rate=0.1, etas=(0.4, 1.3), step_sizes=(0.08, 0.15))),
    Case("FTRL", dict(learning_rate=0.1)),
    Case("FTRL", dict(learning_rate=0.1, initial_accum=0.0, l1=0.5, l2=0.1)),
    Case("FTRL", dict(learning_rate=0.1, lr_power=-0.3, l1=0.5, l2=0.1)),
    Case("FTRL", dict(learning_rate=0.1, lr_power=0.0)),
    Case("ProximalAdagrad", dict(learning_rate=0.1)),
    Case("ProximalAdagrad", dict(learning_rate=0.1, accum=0.0, l1=0.5, l2=0.1)),
    Case("RMSProp", dict(learning_rate=0.01)),
    Case("RMSProp", dict(learning_rate=0.01, decay=0.8, momentum=0.9, epsilon=1e-3)),
    Case("RMSProp", dict(learning_rate=0.01, centered=True)),
    Case("RMSProp", dict(learning_rate=0.01, decay=0.8, momentum=0.9, epsilon=1e-3, centered=True)),
    Case("Lamb", dict(learning_rate=0.01)),
    Case("Lamb", dict(learning_rate=0.01, beta1=0.8, beta2=0.95, eps=1e-3)),
    Case("Momentum", dict(learning_rate=1.0, momentum=0.9), lars=dict(coefficient=0.02)),
    Case("SGD", dict(learning_rate=0.05), lars=dict(coefficient=0.02, use_clip=True)),
    Case("AdamWeightDecay", dict(learning_rate=0.01), lars=dict(coefficient=0.02)),
    Case("AdaFactor", dict()),
    Case("AdaFactor", dict(beta1=None, warmup_init=True)),
    Case("AdaFactor", dict(learning_rate=0.1, relative_step=False, weight_decay=0.1)),
    Case(
        "AdaFactor",
        dict(
            learning_rate=0.01,
            relative_step=False,
            scale_parameter=False,
            eps=(1e-3, 1e-2),
            clip_threshold=0.5,
            decay_rate=0.5,
            beta1=0.0,
        ),
    ),
]

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
# Relative to the largest magnitude of a parameter after up to five steps: some roundings of the compute type for each
# step, and one rounding of the storage type, half of 2^-10 or 2^-7.
TOLERANCE = {"float16": 5 * 2**-11, "bfloat16": 5 * 2**-8, "float32": 2e-6, "float64": 5e-15}

CONV_GROUPS = [
    dict(params=["conv"], grad_centralization=True, weight_decay=0.05),
    dict(params=["dense", "bias"], lr=0.02),
]


def conv_arrays(dtype=np.float32, seed=0):
    """Return a small network's parameters by name, with one convolution kernel."""
    rng = np.random.default_rng(seed)
    shapes = {"conv": (5, 3, 3, 3), "dense": (7, 11), "bias": (13,)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def gradients_of(arrays, seed=1, scale=1.0):
    """Return one gradient per array, nowhere zero."""
    rng = np.random.default_rng(seed)
    gradients = []
    for a in arrays.values():
        g = rng.standard_normal(a.shape) * scale
        gradients.append((g + np.copysign(0.01 * scale, g)).astype(a.dtype))
    return tuple(gradients)


def state_of(optimizer):
    """Return everything that a step may change, as bytes by name."""
    state = {p.name: p.data.tobytes() for p in optimizer.parameters}
    for name, value in vars(getattr(optimizer, "optimizer", optimizer)).items():  # of LARS, what it wraps
        if value is optimizer.parameters:
            continue
        if isinstance(value, optimcore.ParameterTuple):
            state |= {f"{name}/{p.name}": p.data.tobytes() for p in value}
        elif isinstance(value, optimcore.Parameter):
            state[name] = value.data.tobytes()
        elif isinstance(value, np.ndarray) and not name.startswith("_"):
            state[name] = value.tobytes()
    state["global_step"] = optimizer.global_step
    return state


def golden_configs():
    """Return the golden configurations of the classes that exist."""
    return [config for config in golden_data.dense() if hasattr(optimcore, config.cls)]
