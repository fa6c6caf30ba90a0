"""Optimizers of other packages, and NumPy expressions of the rules.

They take lists of tensors: `many` has them too. Where no other package has a rule in this form, NumPy is alone: FTRL
with a free power, Adam with Nesterov's momentum (elsewhere NAdam, which has a schedule for beta1), ProximalAdagrad.
LAMB and LARS are in `pipeline`. 16-bit parameters have no peer: the moments of the others have 16 bits then.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np
from workloads import Run

from .peer import Peer

__all__ = ["PEERS"]


# ---- NumPy: what one writes down without thinking of speed beyond working in place


def sgd(h, s, w, g):
    w -= h.learning_rate * g


def momentum(h, s, w, g):
    s.m *= h.momentum
    s.m += g
    w -= h.learning_rate * s.m


def nesterov(h, s, w, g):
    s.m *= h.momentum
    s.m += g
    w -= h.learning_rate * (g + h.momentum * s.m)


def move_moments(s, g):
    s.m += (g - s.m) * 0.1
    s.v += (g * g - s.v) * 0.001


def adam_rate(h, s):
    return h.learning_rate * (1 - 0.999**s.t) ** 0.5 / (1 - 0.9**s.t)


def adam(h, s, w, g):
    move_moments(s, g)
    w -= adam_rate(h, s) * s.m / (np.sqrt(s.v) + 1e-8)


def adam_nesterov(h, s, w, g):
    move_moments(s, g)
    w -= adam_rate(h, s) * (0.9 * s.m + 0.1 * g) / (np.sqrt(s.v) + 1e-8)


def adam_amsgrad(h, s, w, g):
    move_moments(s, g)
    np.maximum(s.h, s.v, out=s.h)
    w -= adam_rate(h, s) * s.m / (np.sqrt(s.h) + 1e-8)


def adam_weight_decay(h, s, w, g):
    move_moments(s, g)
    w -= h.learning_rate * (s.m / (np.sqrt(s.v) + 1e-6) + h.weight_decay * w)


def adamax(h, s, w, g):
    s.m += (g - s.m) * 0.1
    s.v *= 0.999
    np.maximum(s.v, np.abs(g), out=s.v)
    w -= h.learning_rate / (1 - 0.9**s.t) * s.m / (s.v + 1e-8)


def adagrad(h, s, w, g):
    s.a += g * g
    w -= h.learning_rate * g / np.sqrt(s.a)


def adagrad_frozen(h, s, w, g):
    w -= h.learning_rate * g / np.sqrt(s.a)


def adadelta(h, s, w, g):
    s.a *= 0.9
    s.a += 0.1 * g * g
    delta = np.sqrt(s.u + 1e-6) * g / np.sqrt(s.a + 1e-6)
    s.u *= 0.9
    s.u += 0.1 * delta * delta
    w -= h.learning_rate * delta


def asgd(h, s, w, g):
    eta = h.learning_rate / (1 + 1e-4 * h.learning_rate * (s.t - 1)) ** 0.75
    w *= 1 - 1e-4 * eta
    w -= eta * g
    s.a[...] = w


def rprop(h, s, w, g):
    if s.t == 1:
        s.s[...] = h.learning_rate
    agree = np.sign(g) * np.sign(s.p)
    s.s *= np.where(agree > 0, np.float32(1.2), np.where(agree < 0, np.float32(0.5), np.float32(1)))
    np.clip(s.s, 1e-6, 50, out=s.s)
    s.p[...] = np.where(agree < 0, np.float32(0), g)
    w -= np.sign(s.p) * s.s


def ftrl(h, s, w, g, power=-0.5):
    old = s.a**-power
    s.a += g * g
    new = s.a**-power
    s.l += g - (new - old) / h.learning_rate * w
    solution = (np.clip(s.l, -h.l1, h.l1) - s.l) / (new / h.learning_rate + 2 * h.l2)
    w[...] = np.where(np.abs(s.l) > h.l1, solution, np.float32(0))


def proximal_adagrad(h, s, w, g):
    s.a += g * g
    rate = h.learning_rate / np.sqrt(s.a)
    w -= rate * g
    w[...] = np.sign(w) * np.maximum(np.abs(w) - rate * h.l1, 0) / (1 + rate * h.l2)


def rmsprop(h, s, w, g):
    s.s += (g * g - s.s) * 0.1
    s.m *= h.momentum
    s.m += h.learning_rate * g / np.sqrt(s.s + 1e-10)
    w -= s.m


def rmsprop_centered(h, s, w, g):
    s.s += (g * g - s.s) * 0.1
    s.a += (g - s.a) * 0.1
    s.m *= h.momentum
    s.m += h.learning_rate * g / np.sqrt(s.s - s.a * s.a + 1e-10)
    w -= s.m


def lamb(h, s, w, g):
    move_moments(s, g)
    m, v = s.m / (1 - 0.9**s.t), s.v / (1 - 0.999**s.t)
    direction = m / (np.sqrt(v) + 1e-6) + h.weight_decay * w
    w -= h.learning_rate * np.linalg.norm(w) / np.linalg.norm(direction) * direction


def lars(h, s, w, g):
    norm = np.linalg.norm(w)
    ratio = 1e-3 * norm / (np.linalg.norm(g) + h.weight_decay * norm + 1e-5)
    momentum(h, s, w, ratio * (g + h.weight_decay * w))


def adafactor(h, s, w, g):
    w -= adafactor_step(h, s, w, g)


def adafactor_momentum(h, s, w, g):
    s.m *= 0.9
    s.m += 0.1 * adafactor_step(h, s, w, g)
    w -= s.m


def adafactor_step(h, s, w, g):
    beta2 = 1 - s.t**-0.8
    squares = g * g + 1e-30
    s.row = beta2 * s.row + (1 - beta2) * squares.mean(axis=1, keepdims=True)
    s.column = beta2 * s.column + (1 - beta2) * squares.mean(axis=0)
    direction = g / np.sqrt(s.row * s.column / s.row.mean())
    direction /= max(1, np.sqrt(np.mean(direction * direction)))
    return h.learning_rate * max(1e-3, np.sqrt(np.mean(w * w))) * direction


# the expression and the slots, by the value that they begin with
NUMPY = {
    "sgd": (sgd, {}),
    "sgd_momentum": (momentum, dict(m=0)),
    "sgd_nesterov": (nesterov, dict(m=0)),
    "momentum": (momentum, dict(m=0)),
    "momentum_nesterov": (nesterov, dict(m=0)),
    "adam": (adam, dict(m=0, v=0)),
    "adam_nesterov": (adam_nesterov, dict(m=0, v=0)),
    "adam_amsgrad": (adam_amsgrad, dict(m=0, v=0, h=0)),
    "adam_weight_decay": (adam_weight_decay, dict(m=0, v=0)),
    "adamax": (adamax, dict(m=0, v=0)),
    "adagrad": (adagrad, dict(a=0.1)),
    "adagrad_frozen": (adagrad_frozen, dict(a=0.1)),
    "adadelta": (adadelta, dict(a=0, u=0)),
    "asgd": (asgd, dict(a=0)),
    "rprop": (rprop, dict(p=0, s=0)),
    "ftrl": (ftrl, dict(a=0.1, l=0)),
    "ftrl_power": (partial(ftrl, power=-0.4), dict(a=0.1, l=0)),
    "proximal_adagrad": (proximal_adagrad, dict(a=0.1)),
    "rmsprop": (rmsprop, dict(s=1, m=0)),
    "rmsprop_centered": (rmsprop_centered, dict(s=1, m=0, a=0)),
    "lamb": (lamb, dict(m=0, v=0)),
    "lars": (lars, dict(m=0)),
    "adafactor": (adafactor, {}),
    "adafactor_momentum": (adafactor_momentum, dict(m=0)),
}


def by_numpy(run, threads):
    """Return the Run of the NumPy expression of a rule."""
    rule = run.rule
    expression, values = NUMPY[rule.name]
    hyper = SimpleNamespace(**{"momentum": 0.0, **rule.arguments})
    parameters = run.parameters
    slots = [
        SimpleNamespace(t=0, row=0, column=0, **{k: np.full_like(w, v) for k, v in values.items()}) for w in parameters
    ]

    def step():
        for s, w, g in zip(slots, parameters, run.gradients, strict=True):
            s.t += 1
            expression(hyper, s, w, g)

    return Run(step, lambda: parameters)


# ---- torch

ADAM = dict(betas=(0.9, 0.999))
# class, its arguments beside the rate, what its slots begin with, and whether it has a fused form
TORCH = {
    "sgd": ("SGD", {}, {}, True),
    "sgd_momentum": ("SGD", dict(momentum=0.9), {}, True),
    "sgd_nesterov": ("SGD", dict(momentum=0.9, nesterov=True), {}, True),
    "momentum": ("SGD", dict(momentum=0.9), {}, True),
    "momentum_nesterov": ("SGD", dict(momentum=0.9, nesterov=True), {}, True),
    "adam": ("Adam", ADAM, {}, True),
    "adam_amsgrad": ("Adam", dict(ADAM, amsgrad=True), {}, True),
    # beyond a million steps the bias of the moments, which BERT's form does not correct, is none
    "adam_weight_decay": ("AdamW", dict(ADAM, eps=1e-6, weight_decay=0.01), dict(step=10**6), True),
    "adamax": ("Adamax", ADAM, {}, False),
    "adagrad": ("Adagrad", dict(initial_accumulator_value=0.1), {}, True),
    "adadelta": ("Adadelta", dict(rho=0.9, eps=1e-6), {}, False),
    "asgd": ("ASGD", {}, {}, False),
    "rprop": ("Rprop", {}, {}, False),
    "rmsprop": ("RMSprop", dict(alpha=0.9, momentum=0.9, eps=1e-10), dict(square_avg=1), False),
    "rmsprop_centered": (
        "RMSprop",
        dict(alpha=0.9, momentum=0.9, eps=1e-10, centered=True),
        dict(square_avg=1),
        False,
    ),
    "adafactor": ("Adafactor", {}, {}, False),
}


def by_torch(run, threads, **mode):
    """Return the Run of torch's optimizer in a mode."""
    import torch

    torch.set_num_threads(threads)
    rule = run.rule
    cls, arguments, slots, _ = TORCH[rule.name]
    if "momentum" in arguments:
        arguments = dict(arguments, momentum=rule.arguments.get("momentum", 0.0))
    tensors = torch_tensors(run)
    optimizer = getattr(torch.optim, cls)(tensors, lr=rule.arguments["learning_rate"], **arguments, **mode)
    if slots:
        set_torch_slots(optimizer, tensors, slots)
    return Run(optimizer.step, lambda: [w.detach().numpy() for w in tensors], tensors=tensors)


def torch_tensors(run):
    """Return copies of the parameters that hold copies of the gradients."""
    import torch

    tensors = [torch.tensor(w, requires_grad=True) for w in run.parameters]
    for w, g in zip(tensors, run.gradients, strict=True):
        w.grad = torch.tensor(g)
    return tensors


def set_torch_slots(optimizer, tensors, slots):
    """Have torch make its slots by a step without a gradient and a rate, and fill some of them."""
    import torch

    with torch.no_grad():
        gradients = [w.grad.clone() for w in tensors]
        group = optimizer.param_groups[0]
        rate, group["lr"] = group["lr"], 0.0
        for w in tensors:
            w.grad.zero_()
        optimizer.step()
        group["lr"] = rate
        for w, g in zip(tensors, gradients, strict=True):
            w.grad.copy_(g)
            for name, value in slots.items():
                optimizer.state[w][name].fill_(value)


def torch_peers():
    """Return torch in its modes."""
    fused = [name for name, (*_, fused) in TORCH.items() if fused]
    # its foreach form of Nesterov's momentum is left out because it overwrites the gradients
    foreach = [name for name in TORCH if "nesterov" not in name]
    return [
        Peer("torch", "torch", partial(by_torch, foreach=False), TORCH),
        Peer("torch foreach", "torch", partial(by_torch, foreach=True), foreach),
        Peer("torch fused", "torch", partial(by_torch, fused=True), fused),
    ]


# ---- optax

OPTAX = {
    "sgd": lambda optax, lr, u: optax.sgd(lr),
    "sgd_momentum": lambda optax, lr, u: optax.sgd(lr, u),
    "momentum": lambda optax, lr, u: optax.sgd(lr, u),
    "sgd_nesterov": lambda optax, lr, u: optax.sgd(lr, u, nesterov=True),
    "momentum_nesterov": lambda optax, lr, u: optax.sgd(lr, u, nesterov=True),
    "adam": lambda optax, lr, u: optax.adam(lr),
    "adamax": lambda optax, lr, u: optax.adamax(lr),
    "adagrad": lambda optax, lr, u: optax.adagrad(lr, 0.1, eps=1e-10),
    "adadelta": lambda optax, lr, u: optax.adadelta(lr, 0.9, 1e-6),
    "rmsprop": lambda optax, lr, u: optax.rmsprop(lr, 0.9, 1e-10, initial_scale=1.0, momentum=u),
    "rmsprop_centered": lambda optax, lr, u: optax.rmsprop(lr, 0.9, 1e-10, 1.0, centered=True, momentum=u),
    "lamb": lambda optax, lr, u: optax.lamb(lr, eps=1e-6, weight_decay=0.01),
}


def by_optax(run, threads):
    """Return the Run of a compiled function that gives its arguments away."""
    import jax
    import optax

    optimizer = OPTAX[run.rule.name](
        optax, run.rule.arguments["learning_rate"], run.rule.arguments.get("momentum", 0.0)
    )
    gradients = [jax.numpy.array(g) for g in run.gradients]

    def update(parameters, state, gradients):
        updates, state = optimizer.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state

    update = jax.jit(update, donate_argnums=(0, 1))
    parameters = [jax.numpy.array(w) for w in run.parameters]
    held = [parameters, optimizer.init(parameters)]

    def step():
        held[:] = update(*held, gradients)
        jax.block_until_ready(held[0])

    return Run(step, lambda: [np.asarray(w) for w in held[0]])


# ---- TensorFlow

KERAS = {
    "sgd": lambda keras, lr: keras.SGD(lr),
    "sgd_momentum": lambda keras, lr: keras.SGD(lr, momentum=0.9),
    "momentum": lambda keras, lr: keras.SGD(lr, momentum=0.9),
    "sgd_nesterov": lambda keras, lr: keras.SGD(lr, momentum=0.9, nesterov=True),
    "momentum_nesterov": lambda keras, lr: keras.SGD(lr, momentum=0.9, nesterov=True),
    "adam": lambda keras, lr: keras.Adam(lr, epsilon=1e-8),
    "adam_amsgrad": lambda keras, lr: keras.Adam(lr, epsilon=1e-8, amsgrad=True),
    "adamax": lambda keras, lr: keras.Adamax(lr, epsilon=1e-8),
    "adagrad": lambda keras, lr: keras.Adagrad(lr, initial_accumulator_value=0.1, epsilon=1e-10),
    "adadelta": lambda keras, lr: keras.Adadelta(lr, rho=0.9, epsilon=1e-6),
    "ftrl": lambda keras, lr: keras.Ftrl(lr, l1_regularization_strength=1e-3, l2_regularization_strength=1e-3),
}


def by_keras(run, threads, **mode):
    """Return the Run of a Keras optimizer on variables, as a graph."""
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    variables = [tf.Variable(w) for w in run.parameters]
    gradients = [tf.constant(g) for g in run.gradients]
    optimizer = KERAS[run.rule.name](tf.keras.optimizers, run.rule.arguments["learning_rate"])
    optimizer.build(variables)
    step = tf.function(lambda: optimizer.apply(gradients, variables), **mode)
    return Run(step, lambda: [w.numpy() for w in variables])


# ---- MindSpore

# The rules that it has on CPU. momentum_nesterov is left out because its result is wrong: it is plain momentum.
MINDSPORE = (
    "sgd",
    "sgd_momentum",
    "momentum",
    "adam",
    "adam_weight_decay",
    "adagrad",
    "adadelta",
    "ftrl",
    "proximal_adagrad",
    "rmsprop",
    "rmsprop_centered",
)


def by_mindspore(run, threads):
    """Return the Run of MindSpore's optimizer of the same name, as a graph."""
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    rule = run.rule
    parameters = [ms.Parameter(ms.Tensor(w), name=f"w{i}") for i, w in enumerate(run.parameters)]
    gradients = tuple(ms.Tensor(g) for g in run.gradients)
    optimizer = getattr(ms.nn, rule.cls)(parameters, **rule.arguments)

    def step():
        optimizer(gradients)
        ms.runtime.synchronize()

    return Run(step, lambda: [w.asnumpy() for w in parameters])


PEERS = [
    Peer("numpy", "numpy", by_numpy, NUMPY, threads=(1,)),
    *torch_peers(),
    Peer("optax", "optax", by_optax, OPTAX, threads=(2,)),
    Peer("keras", "tensorflow", by_keras, KERAS, threads=(2,)),
    Peer("keras xla", "tensorflow", partial(by_keras, jit_compile=True), KERAS, threads=(2,)),
    Peer("mindspore", "mindspore", by_mindspore, MINDSPORE, threads=(2,)),
]
