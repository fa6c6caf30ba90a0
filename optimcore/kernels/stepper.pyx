# cython: language_level=3
"""What every optimizer does in each step, compiled: a small step costs no more than a few calls of functions."""


cdef class Stepper:
    """The order of events in a step; `optimcore.optim.Optimizer` says what they are.

    Attributes
    ----------
    _plan : Plan or None
        None for a class of the user's own without a kernel.
    _readers : list of callable
        ``read(step)`` of every different rate.
    _max_grad_norm : float or None
    _clips, _prepares : bool
        Whether this optimizer itself clips; whether a step has anything to prepare.
    _global_step : int
    """
    cdef public object _plan
    cdef public list _readers
    cdef public object _max_grad_norm
    cdef public bint _clips
    cdef public bint _prepares
    cdef public long long _global_step

    def __cinit__(self, *args, **kwargs):
        self._clips = True

    def __call__(self, gradients):
        """Do one step.

        Parameters
        ----------
        gradients : tuple or list of array
            One gradient per parameter, in the order of `parameters`; None leaves a parameter as it is.
            Gradients are not modified.

        Returns
        -------
        object
            What `construct` returns: True for the optimizers of this package.
        """
        if self._max_grad_norm is not None and self._clips and self._plan is None:
            gradients = self.clipped(gradients)
        result = self.construct(gradients)
        self._global_step += 1
        return result

    def construct(self, gradients):
        """Update the parameters; a subclass with a rule of its own overrides it.

        It is called by ``opt(gradients)``, which advances `global_step` afterwards.

        Raises
        ------
        NotImplementedError
            If the class neither overrides it nor has called `build_plan`.
        """
        plan = self._plan
        if plan is None:
            raise NotImplementedError(f"{type(self).__name__} must define construct(self, gradients)")
        hypers = self.hypers()
        if not self._prepares:
            plan.step(gradients, hypers)
        elif self._max_grad_norm is None:
            self.prepare(gradients)
            plan.step(gradients, hypers)
        else:
            with plan.hold(gradients):
                self.prepare(gradients)
                plan.step(gradients, hypers)
        self.advance(gradients)
        return True

    def advance(self, gradients):
        """Note what a later step has to know of this one, which has succeeded; a subclass overrides it."""

    def hypers(self):
        """Return the numbers of this step for the kernel: one tuple per different rate."""
        return [self.hyper(read(self._global_step)) for read in self._readers]

    def hyper(self, lr):
        """Return the numbers of the rule for one rate, in the kernel's order; a subclass overrides it."""
        return (lr,)

    def _current_rates(self):
        return [read(self._global_step) for read in self._readers]
