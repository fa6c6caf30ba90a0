"""How each optimizer is used to train the digits: its rate and its options."""

from collections.abc import Callable
from typing import NamedTuple

import optimcore

__all__ = ["OPTIMIZERS", "Recipe", "WarmUpCosineLR", "build_optimizer"]

WARM_UP_EPOCHS = 2


class Recipe(NamedTuple):
    """What suits an optimizer."""

    kind: type[optimcore.Optimizer]
    rate: float  # the highest one, at batches of 32 or more
    options: dict = {}
    scheduled: bool = True  # False where only a fixed rate makes sense
    wrap: Callable | None = None  # called with the optimizer, returns the one to use


def _adapt_layers(opt):
    return optimcore.LARS(opt, coefficient=0.05)


OPTIMIZERS = {
    "sgd": Recipe(optimcore.SGD, 0.3),
    "momentum": Recipe(optimcore.Momentum, 0.05, {"momentum": 0.9}),
    "adam": Recipe(optimcore.Adam, 0.005),
    "lazyadam": Recipe(optimcore.LazyAdam, 0.005),
    "adamoffload": Recipe(optimcore.AdamOffload, 0.005),
    "adamweightdecay": Recipe(optimcore.AdamWeightDecay, 0.005),
    "adamax": Recipe(optimcore.AdaMax, 0.01),
    "adagrad": Recipe(optimcore.Adagrad, 0.05, {"accum": 0.001}),
    "adadelta": Recipe(optimcore.Adadelta, 1.0),
    "asgd": Recipe(optimcore.ASGD, 0.3),
    # It is made for the gradients of all images at once and ignores every rate but the first. The signs of batches
    # are noisy: the usual factors, 0.5 and 1.2, would shrink its step sizes to nothing.
    "rprop": Recipe(optimcore.Rprop, 0.001, {"etas": (0.9, 1.12), "step_sizes": (1e-6, 0.01)}, scheduled=False),
    # It takes no schedule. Its first step forgets the initial weights unless the accumulator starts at 0.
    "ftrl": Recipe(optimcore.FTRL, 0.03, {"initial_accum": 0.0}, scheduled=False),
    "proximaladagrad": Recipe(optimcore.ProximalAdagrad, 0.05, {"accum": 0.001}),
    "rmsprop": Recipe(optimcore.RMSProp, 0.01),
    "lamb": Recipe(optimcore.Lamb, 0.01),
    "lars": Recipe(optimcore.Momentum, 0.2, {"momentum": 0.9}, wrap=_adapt_layers),
    "adafactor": Recipe(optimcore.AdaFactor, 0.05, {"relative_step": False}),
}


class WarmUpCosineLR(optimcore.LearningRateSchedule):
    """Raise the rate in a straight line to its peak, then lower it along half a cosine.

    Parameters
    ----------
    peak_lr : float
        Highest rate, that of step ``warmup_steps - 1`` (the first step is 0).
    warmup_steps : int, >= 1
        Number of steps up to the peak.
    decay_steps : int, >= 1
        Number of steps down to a hundredth of the peak, where the rate stays.
    """

    def __init__(self, peak_lr, warmup_steps, decay_steps):
        super().__init__()
        self.warmup_steps = warmup_steps
        self.warm_up = optimcore.WarmUpLR(peak_lr, warmup_steps)
        self.decay = optimcore.CosineDecayLR(peak_lr / 100, peak_lr, decay_steps)

    def construct(self, global_step):
        if global_step < self.warmup_steps:
            # WarmUpLR is 0 at step 0; one further on, the first step learns as well
            return self.warm_up(global_step + 1)
        return self.decay(global_step - self.warmup_steps)


def build_optimizer(name, groups, epochs, steps, batch_size):
    """Return an optimizer with the rate and the options that suit it.

    Parameters
    ----------
    name : str
        A key of `OPTIMIZERS`.
    groups : list of dict
        Parameter groups. Those of 16 bits are rounded stochastically.
    epochs, steps, batch_size : int
        Number of epochs, of steps in an epoch, of images in a step.

    Returns
    -------
    Optimizer
    """
    recipe = OPTIMIZERS[name]
    # smaller batches make more steps with noisier gradients, so each step is shorter
    rate = recipe.rate * min(1.0, batch_size / 32)
    if recipe.scheduled:
        total_steps = epochs * steps
        warmup_steps = max(1, min(WARM_UP_EPOCHS * steps, total_steps // 5))
        rate = WarmUpCosineLR(rate, warmup_steps, max(1, total_steps - warmup_steps))
    opt = recipe.kind(groups, learning_rate=rate, **recipe.options)
    # Rounding to nearest loses every change below half a unit in the last place. Weights of 32 bits ignore this.
    opt.stochastic_rounding = True
    return opt if recipe.wrap is None else recipe.wrap(opt)
