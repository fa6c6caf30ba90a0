"""optimcore: the optimizer step as a library.

NumPy arrays in, one fused pass over memory without the GIL, done. The API is that of ``mindspore.nn.Optimizer``.
"""

from optimcore._version import __version__
from optimcore.gradients import all_finite, clip_by_global_norm, global_norm
from optimcore.loss_scale import DynamicLossScaleManager, FixedLossScaleManager
from optimcore.optim import (
    ASGD,
    FTRL,
    LARS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdaMax,
    AdamOffload,
    AdamWeightDecay,
    Lamb,
    LazyAdam,
    Momentum,
    Optimizer,
    ProximalAdagrad,
    RMSProp,
    Rprop,
)
from optimcore.parameter import Parameter, ParameterTuple
from optimcore.runtime import get_num_threads, set_num_threads, show_config
from optimcore.schedules import (
    CosineDecayLR,
    ExponentialDecayLR,
    InverseDecayLR,
    LearningRateSchedule,
    NaturalExpDecayLR,
    PolynomialDecayLR,
    WarmUpLR,
    cosine_decay_lr,
    exponential_decay_lr,
    inverse_decay_lr,
    natural_exp_decay_lr,
    piecewise_constant_lr,
    polynomial_decay_lr,
    warmup_lr,
)
from optimcore.sparse import RowTensor, merge_rows, unique

__all__ = [
    "ASGD",
    "FTRL",
    "LARS",
    "SGD",
    "AdaMax",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamOffload",
    "AdamWeightDecay",
    "CosineDecayLR",
    "DynamicLossScaleManager",
    "ExponentialDecayLR",
    "FixedLossScaleManager",
    "InverseDecayLR",
    "Lamb",
    "LazyAdam",
    "LearningRateSchedule",
    "Momentum",
    "NaturalExpDecayLR",
    "Optimizer",
    "Parameter",
    "ParameterTuple",
    "PolynomialDecayLR",
    "ProximalAdagrad",
    "RMSProp",
    "RowTensor",
    "Rprop",
    "WarmUpLR",
    "__version__",
    "all_finite",
    "clip_by_global_norm",
    "cosine_decay_lr",
    "exponential_decay_lr",
    "get_num_threads",
    "global_norm",
    "inverse_decay_lr",
    "merge_rows",
    "natural_exp_decay_lr",
    "piecewise_constant_lr",
    "polynomial_decay_lr",
    "set_num_threads",
    "show_config",
    "unique",
    "warmup_lr",
]
