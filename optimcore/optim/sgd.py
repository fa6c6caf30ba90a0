"""Stochastic gradient descent."""

from functools import partial

import numpy as np

from ..checks import check_at_least, check_flag
from ..parameter import Parameter, ParameterTuple
from .first_step import FirstStepOptimizer

__all__ = ["SGD"]


class SGD(FirstStepOptimizer):
    r"""Stochastic gradient descent with momentum, dampening and the variant of Nesterov.

    .. math::
        a_1 = g_1, \quad a_t = u a_{t-1} + (1 - d) g_t, \quad w_t = w_{t-1} - \eta a_t

    with momentum `u`, dampening `d`, rate :math:`\eta`; with `nesterov`,
    :math:`w_t = w_{t-1} - \eta (g_t + u a_t)`; without momentum, :math:`w_t = w_{t-1} - \eta g_t`. Dampening is left
    out of the first step of a parameter, as in MindSpore and torch.

    Parameters
    ----------
    params, learning_rate, weight_decay, loss_scale
        See `Optimizer`. The rate is 0.1 by default.
    momentum : number, default 0.0
        u >= 0. It can be changed between steps, from and to 0 as well: accum stands still while it is 0, and the first
        step of a parameter with momentum begins it.
    dampening : number, default 0.0
        d >= 0, used only with momentum.
    nesterov : bool, default False
        Whether to look ahead. Requires ``momentum > 0`` and ``dampening == 0``.

    Attributes
    ----------
    accum : ParameterTuple
        a, 0 at first. Unused without momentum.
    stat : ParameterTuple
        1 before the first step of a parameter, 0 afterwards. Read-only views of one number each: `flags`.
    flags : ndarray, shape (n,)
        The numbers behind `stat`, one per parameter.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of its range; see also `Optimizer`.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.SGD([w], learning_rate=0.5)
    >>> opt([np.ones(2, np.float32)])
    True
    >>> w.asnumpy()
    array([0.5, 1.5], dtype=float32)
    """

    _settings = {
        "momentum": partial(check_at_least, least=0),
        "dampening": partial(check_at_least, least=0),
        "nesterov": check_flag,
    }

    def __init__(
        self,
        params,
        learning_rate=0.1,
        momentum=0.0,
        dampening=0.0,
        weight_decay=0.0,
        nesterov=False,
        loss_scale=1.0,
    ):
        self.momentum, self.dampening, self.nesterov = momentum, dampening, nesterov
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        self.accum = self.make_slot("accum")
        self.stat = self._views_of_flags()
        self.build_plan_with_first_step("sgd_momentum", self.accum)
        self._plan.use_rule(self.kernel_rule({"momentum": self.momentum, "nesterov": nesterov}))

    def check_settings(self, values):
        """Check that settings go together; see `Optimizer.check_settings`."""
        super().check_settings(values)
        momentum, dampening = values["momentum"], values["dampening"]
        if values["nesterov"] and not (momentum > 0 and dampening == 0):
            raise ValueError(
                "nesterov must come with momentum > 0 and dampening == 0, "
                f"got momentum={momentum} and dampening={dampening}"
            )

    def kernel_rule(self, values):
        """Return the rule; see `Optimizer.kernel_rule`."""
        if values["momentum"] == 0:
            return "sgd"
        return "sgd_nesterov" if values["nesterov"] else "sgd_momentum"

    def forced_lazy(self, values):
        """Return what `use_lazy` must be; see `Optimizer.forced_lazy`."""
        return True if values["momentum"] == 0 else None

    @property
    def _lazy(self):
        return True if self.momentum == 0 else None

    def _views_of_flags(self):
        """Show each flag in the shape of its parameter without spending the memory."""
        return ParameterTuple(
            Parameter._read_only(np.broadcast_to(self.flags[i, ...], p.shape), f"stat.{p.name}")
            for i, p in enumerate(self.parameters)
        )

    def hypers(self):
        """Return two tuples per rate: for all steps of a parameter but the first, and for the first."""
        rates = self._current_rates()
        if self.momentum == 0:
            return [(lr,) for lr in rates]
        u = self.momentum
        steady, first = (u, u, 1.0 - self.dampening), (u, 0.0, 1.0)
        return [(lr, *row) for lr in rates for row in (steady, first)]
