"""LazyAdam."""

from .adam import Adam

__all__ = ["LazyAdam"]


class LazyAdam(Adam):
    """Adam that leaves rows alone which are absent from a sparse gradient.

    This is ``Adam(..., use_lazy=True)`` under a name of its own: for dense gradients the numbers are those of `Adam`.

    Parameters
    ----------
    params, learning_rate, beta1, beta2, eps, use_locking, use_nesterov, weight_decay, loss_scale
        See `Adam`, which also describes the slots.

    Raises
    ------
    TypeError, ValueError
        As `Adam`.

    Examples
    --------
    >>> import optimcore as nn
    >>> w = nn.Parameter([1.0, 2.0], name="w")
    >>> opt = nn.LazyAdam([w], learning_rate=0.5)
    >>> opt([np.array([3.0, -4.0], np.float32)])
    True
    >>> w.asnumpy().round(4)
    array([0.5, 2.5], dtype=float32)
    """

    _lazy = _use_lazy = True

    def __init__(
        self,
        params,
        learning_rate=1e-3,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        use_locking=False,
        use_nesterov=False,
        weight_decay=0.0,
        loss_scale=1.0,
    ):
        super().__init__(
            params,
            learning_rate,
            beta1,
            beta2,
            eps,
            use_locking,
            use_nesterov,
            weight_decay,
            loss_scale,
            use_lazy=True,
        )
