# cython: language_level=3
"""What every optimizer does in each step, compiled: a small step costs no more than a few calls of functions.

A step is whole: between the kernels' first write and the end of the booking no Python code runs, so no signal handler
does. What a class of the user's own does in `construct` is its own business.
"""
from .driver cimport Plan
from .turn cimport Turn

NOTHING = object()      # stands for gradients that were not passed


cdef class Stepper:
    """The order of events in a step; `optimcore.optim.Optimizer` says what they are.

    Attributes
    ----------
    _plan : Plan or None
        None for a class of the user's own without a kernel.
    _turn : Turn
        One thread at a time is inside a step; whatever else reads or writes state between steps takes it, too.
    _readers : list of callable
        ``read(step)`` of every different rate.
    _max_grad_norm : float or None
    _clips, _dynamic_decay, _stochastic_rounding : bool
        Whether this optimizer itself clips; whether its decay changes from step to step.
    _moving : bool
        Whether a parameter's memory may move without NumPy's knowledge.
    _freezing : list of one int
        Counts how often any parameter has been frozen or thawed.
    _wrapper : object or None
        During a step that is taken for a wrapper, the wrapper.
    _is_wrapped : bool
        Whether a wrapper decays, clips and unscales.
    _global_step : int
    """
    cdef public Plan _plan
    cdef readonly Turn _turn
    cdef public list _readers
    cdef public object _max_grad_norm
    cdef public bint _clips
    cdef public bint _dynamic_decay
    cdef public bint _stochastic_rounding
    cdef bint is_own                # `construct` is overridden
    cdef bint counts                # the step that is under way is to be counted
    cdef public bint _moving
    cdef public list _freezing
    cdef public long _freezing_seen
    cdef public object _wrapper
    cdef public bint _is_wrapped
    cdef public long long _global_step

    def __cinit__(self, *args, **kwargs):
        self._turn = Turn()
        self._clips = True
        self.is_own = type(self).construct is not Stepper.construct

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

        Raises
        ------
        TypeError, ValueError, IndexError
            If a gradient does not fit, or a rate or decay of this step is not a number in its range. Nothing has
            changed then.
        RuntimeError
            If this thread is inside a step of this optimizer already. Another thread waits for its turn, or is
            refused if `wait` is False.
        """
        return self.take_step(gradients, None)

    cdef object take_step(self, gradients, wrapper):
        self._turn.enter()
        self._turn.is_lent = True       # code of the user's own may change settings, until gradients are open
        try:
            if self.is_own or wrapper is not None or self._plan is None:
                self.look_around()      # what follows reads parameters before the plan does
            if wrapper is not None:
                gradients = wrapper.before_step(gradients)
                self._wrapper = wrapper
            elif self._plan is None and self._clips and self._max_grad_norm is not None:
                gradients = self.clipped(gradients)
            self.counts = True
            result = self.construct(gradients)
            self._global_step += self.counts
        finally:
            self._wrapper, self.counts = None, False
            self._turn.leave()
        return result

    def _step_for(self, wrapper, gradients):
        """Do one step for a wrapper.

        ``wrapper.before_step(gradients)`` returns the gradients to go on with; where the kernels of this optimizer's
        plan do the step, ``wrapper.prepare(plan)`` fills in what they need, while the gradients are open.
        """
        return self.take_step(gradients, wrapper)

    def construct(self, gradients=NOTHING):
        """Update the parameters; a subclass with a rule of its own overrides it.

        It is called by ``opt(gradients)``, which advances `global_step` afterwards.

        Raises
        ------
        NotImplementedError
            If the class neither overrides it nor has called `build_plan`.
        """
        cdef Plan plan = self._plan
        if plan is None:
            raise NotImplementedError(f"{type(self).__name__} must define construct(self, gradients)")
        if gradients is NOTHING:
            raise TypeError("gradients must be a tuple or list with one entry per parameter, got nothing")
        if self._turn.is_mine():
            return self.step_by_plan(plan, gradients)
        self._turn.enter()
        try:
            return self.step_by_plan(plan, gradients)
        finally:
            self._turn.leave()

    cdef object step_by_plan(self, Plan plan, gradients):
        cdef bint was_lent = self._turn.is_lent
        cdef list hypers
        self._turn.is_lent = False
        cdef bint prepares = (
            self._dynamic_decay or self._stochastic_rounding or self._clips and self._max_grad_norm is not None)
        try:
            hypers = list(self.hypers())
            self.look_around()          # after schedules, which are Python code
            plan.open(gradients, self._max_grad_norm is None)
            try:
                if self._is_wrapped:
                    plan.end_lars()
                    if self._wrapper is not None:
                        self._wrapper.prepare(plan)
                if prepares:
                    self.prepare()
                if prepares or self._wrapper is not None or plan.has_run_python():
                    plan.check_homes()
                    if self._moving:
                        self._refuse_moved()
                plan.update(hypers)
                if not self.is_own:     # before gradients are let go, which may run Python code
                    self._global_step += self.counts
                    self.counts = False
            finally:
                plan.close()
        finally:
            self._turn.is_lent = was_lent
        return True

    cdef int look_around(self) except -1:
        """Notice what has happened to parameters since the last step: moved, frozen or thawed."""
        if self._moving:
            self._follow()
        if self._freezing is not None and <long>self._freezing[0] != self._freezing_seen:
            self._freeze()
        return 0

    def hypers(self):
        """Return the numbers of this step for the kernel: one tuple per different rate."""
        cdef list result = []       # no comprehension: see driver.pyx
        for read in self._readers:
            result.append(self.hyper(read(self._global_step)))
        return result

    def hyper(self, lr):
        """Return the numbers of the rule for one rate, in the kernel's order; a subclass overrides it."""
        return (lr,)

    def _current_rates(self):
        cdef list result = []
        for read in self._readers:
            result.append(read(self._global_step))
        return result

    def _store(self, dict values, *, rule=None, use_lazy=None, dynamic_decay=None, list decay=None, scale=None):
        """Assign attributes, and tell the plan what follows from them: no Python code of a signal handler runs between.

        Rows are up to date. None leaves a thing of the plan as it is.
        """
        cdef dict attributes = self.__dict__
        cdef Plan plan = self._plan
        if plan is not None:
            if rule is not None and rule != plan.rule_name:
                plan.use_rule(rule)
            if use_lazy is not None:
                plan.use_lazily(use_lazy)
            plan.fill_decay_and_scale(decay, scale)
        if dynamic_decay is not None:
            self._dynamic_decay = dynamic_decay
        attributes.update(values)

    def _store_rates(self, list readers, list rows, dict values):
        """Go on with other rates, all of them at once."""
        cdef dict attributes = self.__dict__
        if self._plan is not None:
            self._plan.use_rows(rows)
        self._readers = readers
        attributes.update(values)
