"""The base class of all optimizers."""

from itertools import pairwise

import numpy as np

from .. import gradients as gradient_functions
from ..checks import check_count, check_flag, check_positive
from ..kernels import driver
from ..kernels.driver import norm_of
from ..kernels.stepper import Stepper
from ..kernels.tensors import address
from ..parameter import Parameter, ParameterTuple, requires_grad_changes
from .groups import collect, plain_entries, read_groups
from .rates import check_decay, check_lengths, is_dynamic, make_rate, read_decay, reader
from .settings import FIXED, arithmetic_of, check_arithmetic, check_keywords, is_closed, refusal, state_names

__all__ = ["Optimizer"]

LAST_STEP = 1 << 62


class Optimizer(Stepper):
    """Base class of all optimizers: parameters, groups, rates, weight decay and loss scale.

    One step is ``opt(gradients)``: it decays, centralizes and unscales the gradients, asks for the rate of this
    step, updates the parameters in place and advances `global_step`. A step that raises an error has changed
    nothing.

    Parameters
    ----------
    learning_rate : number, array, iterable of numbers or LearningRateSchedule
        A number >= 0 or a 0-d array is a fixed rate. A 1-D array or an iterable holds the rate of every step:
        step n, counted from 0, uses element n. A schedule is called with the step.
    parameters : iterable of Parameter, or of dict
        What to update. Dicts are groups, with these keys:

        - ``params``: iterable of Parameter, required;
        - ``lr``: rate of the group in any of the forms above, default `learning_rate`;
        - ``weight_decay``: decay of the group, default `weight_decay`;
        - ``grad_centralization``: bool, default False: subtract the mean over all axes but the first from the
          gradients of convolution kernels, i.e. of parameters with three axes or more;
        - ``order_params``: alone in a dict of its own, all grouped parameters in the wanted order. Other keys
          beside it are ignored with a UserWarning.

        Gradients are passed in the order of `Optimizer.parameters`: the order given here, group after group,
        or that of ``order_params``.
    weight_decay : number or callable, default 0.0
        L2 penalty, >= 0: ``weight_decay * w`` is added to the gradient of `w`. Without groups, parameters with
        'beta' or 'gamma' in their name are left out; with groups, all parameters of a group are decayed.
        An extension: a callable is called with the step and returns the number.
    loss_scale : number, default 1.0
        Factor > 0 that the loss, and so the gradients, were multiplied by; they are divided by it.

    Attributes
    ----------
    global_step : int
        Number of steps done, i.e. the number of the next step counted from 0. Set it to resume elsewhere.
    parameters : ParameterTuple
        The parameters in their final order. Unnamed ones have been named ``parameter_<index>``.
    learning_rate : Parameter, LearningRateSchedule or tuple of them
        The rate, or one entry per parameter when a group has a rate of its own. Rates are kept in float64.
    weight_decay : float, callable or tuple of them
        As given; one entry per parameter when grouped.
    loss_scale, reciprocal_scale : float
        The loss scale and one over it.
    unique, use_lazy, decay_absent_rows, target, max_grad_norm, stochastic_rounding, wait
        See these properties.
    is_group, is_group_lr, is_group_params_ordered : bool
        Whether there are groups, rates of their own in them, an ``order_params``.
    dynamic_lr : bool
        Whether any rate is a list or a schedule.
    need_scale, exec_weight_decay : bool
        Whether gradients are unscaled, and any of them decayed.
    decay_flags, grad_centralization_flags, optim_filter : tuple of bool
        Per parameter: whether decay applies to it, whether its group asks for centralization, whether this
        process updates it (always True).
    group_params, group_lr, group_weight_decay, group_grad_centralization : tuple
        Only with groups: the values of the groups, one entry per parameter.
    param_length : int
        Number of parameters.
    use_parallel : bool
        Whether several processes share the parameters: False.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind. A bool is never a number.
    ValueError
        If a number is out of its range, a collection empty or nested, or two parameters have one name.
    KeyError
        If a group has an unknown key, or no ``params``.
    RuntimeError
        If a parameter is in the groups twice.

    Notes
    -----
    Between steps, properties that say so can be set, and so can the numbers of a rule, such as `SGD.momentum`: they are
    checked as in the constructor and count from the next step on. Slots and other numbers that steps advance can be
    changed in their arrays. All other attributes are there to be read; assigning one is an AttributeError. A subclass
    of the user's own may add attributes.

    A step is whole: what interrupts it, such as Ctrl-C, leaves the state of before the step or that of after it.
    Finite parameters, slots and gradients never make a NaN: slots are held within the finite numbers.

    Examples
    --------
    A new optimizer is a subclass with `construct`:

    >>> import optimcore as nn
    >>> class SignMomentum(nn.Optimizer):
    ...     '''Move by the sign of the accumulated gradient.'''
    ...
    ...     def __init__(self, params, learning_rate=0.01, momentum=0.9, weight_decay=0.0):
    ...         super().__init__(learning_rate, params, weight_decay)
    ...         self.momentum = momentum
    ...         self.accum = self.parameters.clone("accum", "zeros")
    ...
    ...     def construct(self, gradients):
    ...         gradients = self.decay_weight(gradients)
    ...         gradients = self.gradients_centralization(gradients)
    ...         gradients = self.scale_grad(gradients)
    ...         for w, g, a, rate in zip(self.parameters, gradients, self.accum, self.rates()):
    ...             a *= self.momentum
    ...             a += g
    ...             w -= rate * np.sign(a)
    ...         return True
    >>> w = nn.Parameter(np.ones(2, np.float32), name="w")
    >>> opt = SignMomentum([w], learning_rate=0.25)
    >>> opt((np.array([3.0, -3.0], np.float32),))
    True
    >>> w.asnumpy()
    array([0.75, 1.25], dtype=float32)
    >>> opt.global_step
    1
    """

    _settings = {}  # check(name, value) of every attribute that can be assigned, by name
    _starts = {}  # initial values of slots, by the argument's name
    _epsilons = ()  # which of them keep a division by 0 away

    _lazy = None  # what `use_lazy` must be: True where a gradient of 0 changes nothing, None where it is free
    _use_lazy = False
    _decay_absent_rows = False
    _slot_count = 0
    _rounding_seed = 0
    _unscales = True  # whether the loss scale counts
    _sealed = False
    _fixed = frozenset()

    def __new__(cls, *args, **kwargs):
        check_keywords(cls, kwargs)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, learning_rate, parameters, weight_decay=0.0, loss_scale=1.0):
        elements, self.is_group = collect(parameters)
        self._loss_scale = check_positive("loss_scale", loss_scale)
        rate = make_rate("learning_rate", learning_rate, "learning_rate")
        if self.is_group:
            entries, self.is_group_lr, self.is_group_params_ordered = read_groups(elements, rate)
        else:
            entries = plain_entries(elements, rate)
            self.is_group_lr = self.is_group_params_ordered = False
        # The optimizer's own rate counts even when every group has another one, as in MindSpore.
        rates = [rate, *(entry.rate for entry in entries)]
        check_lengths(rates)
        self.check_rates(rates)
        decay = self.check_decay("weight_decay", weight_decay)
        self._arithmetic = arithmetic_of([entry.parameter for entry in entries])
        self.check_settings({name: getattr(self, name) for name in self._settings})
        for name, value in self._starts.items():
            check_arithmetic(name, value, self._arithmetic)
        # All checks are behind us: from here on parameters may be named.
        self._parameters = ParameterTuple(entry.parameter for entry in entries)
        self.param_length = len(entries)
        self._moving = any(p._is_foreign for p in self._parameters)
        self._freezing = requires_grad_changes
        self._freezing_seen = -1
        self._install_rates(rate, rates[1:])
        self._own_decay = self._decay_of_groups(entries)
        self._install_decay(decay)
        self._set_centralization([entry.grad_centralization for entry in entries])
        self._install_loss_scale(self._loss_scale)
        self.unique = not any(p.unique for p in self._parameters)
        self.use_parallel = False
        self.optim_filter = (True,) * self.param_length
        self._fixed = FIXED

    # ---- settings

    def __setattr__(self, name, value):
        member = getattr(type(self), name, None)
        if member is None:
            check = self._settings.get(name)
            if check is not None:
                value = check(name, value)
                if self._fixed:
                    self._change({name: value})
                    return
            elif name in self._fixed or (self._sealed and is_closed(self, name)):
                raise AttributeError(refusal(self, name))
        elif isinstance(member, property):  # which knows what to do, if it can be set at all
            if member.fset is None:
                raise AttributeError(refusal(self, name))
        elif self._sealed and is_closed(self, name):
            raise AttributeError(refusal(self, name))
        super().__setattr__(name, value)

    def _change(self, new):
        """Go on with other settings, all of them or none."""
        with self._turn:
            values = {name: getattr(self, name) for name in self._settings} | new
            self.check_settings(values)
            rule, forced = self.kernel_rule(values), self.forced_lazy(values)
            self._bring_up_to_date()  # rows have missed steps with the settings of before
            self._store(new, rule=rule, use_lazy=self._use_lazy if forced is None else forced)

    def check_settings(self, values):
        """Raise ValueError if settings do not go together, or not with the arithmetic; a subclass extends it.

        Parameters
        ----------
        values : dict
            All `_settings` by name, each of them checked.
        """
        for name, value in values.items():
            check_arithmetic(name, value, self._arithmetic, name in self._epsilons)

    def kernel_rule(self, values):
        """Return the kernel's rule for these settings, None if it is always the same; a subclass overrides it."""
        return None

    def forced_lazy(self, values):
        """Return what `use_lazy` must be with these settings, None where it is free; a subclass overrides it."""
        return self._lazy

    @property
    def rule(self):
        """str : name of the kernel's rule; AttributeError if no kernel does the steps."""
        if self._plan is None:
            raise AttributeError(f"rule of {type(self).__name__} must come from build_plan, which was not called")
        return self._plan.rule_name

    @property
    def wait(self):
        """bool : whether a thread waits for its turn while another one is inside a step; it can be set.

        True at first: threads that share an optimizer take their steps one after the other, and a waiting thread can be
        interrupted. False: a RuntimeError refuses the second thread.
        """
        return self._turn.wait

    @wait.setter
    def wait(self, value):
        self._turn.wait = check_flag("wait", value)

    # ---- rates

    def _install_rates(self, default, rates):
        """Keep one reader per different rate, and for each parameter the row of its rate."""
        distinct = list({id(rate): rate for rate in rates}.values())
        row_of = {id(rate): row for row, rate in enumerate(distinct)}
        rows = [row_of[id(rate)] for rate in rates]
        values = {
            "_default_rate": default,
            "_rates": rates,
            "_rows": rows,
            "_learning_rate": tuple(rates) if self.is_group_lr else rates[0],
            "_rate_of": {id(p): rate for p, rate in zip(self._parameters, rates, strict=True)},
            "dynamic_lr": any(is_dynamic(r) for r in [default, *rates]),
        }
        if self.is_group:
            values |= {"group_params": tuple(self._parameters), "group_lr": tuple(rates)}
        self._store_rates(self._make_readers(distinct), self._plan_rows(rows), values)

    def _make_readers(self, rates):
        return [reader(rate) for rate in rates]

    def _plan_rows(self, rows):
        """Return which of the tuples of `hypers` each parameter takes, from the row of its rate."""
        return rows

    def check_rates(self, rates):
        """Raise an error if this optimizer cannot go on with these rates; a subclass may."""

    # ---- decay and loss scale

    def check_decay(self, name, value):
        """Return a weight decay as it is kept, or raise an error; a subclass may be stricter."""
        return check_decay(name, value)

    def _decay_of_groups(self, entries):
        """Return per parameter the decay of its group, None for that of the optimizer."""
        return [entry.weight_decay for entry in entries]

    def _install_decay(self, default):
        """Decide which parameters are decayed: by name, but by group where there are groups."""
        values = {"_default_decay": default}
        if self.is_group:
            decay = tuple(default if d is None else d for d in self._own_decay)
            values |= {"_weight_decay": decay, "group_weight_decay": decay}
            flags = tuple(callable(d) or d > 0 for d in decay)
            decays = any(flags)
        else:
            decay = (default,) * self.param_length
            values["_weight_decay"] = default
            flags = tuple(self.decay_filter(p.name) for p in self._parameters)
            decays = callable(default) or default > 0
        own = [d if flag else 0.0 for d, flag in zip(decay, flags, strict=True)]
        values |= {
            "decay_flags": flags,
            "exec_weight_decay": decays and not self._is_wrapped,
            "_decay": own,
        }
        dynamic = any(callable(d) for d in own) and not self._is_wrapped
        self._store(values, dynamic_decay=dynamic, decay=None if dynamic else self._plan_decay(own, self._loss_scale))

    def _install_loss_scale(self, loss_scale):
        reciprocal = 1.0 / loss_scale
        check_arithmetic("loss_scale", loss_scale, self._arithmetic)
        check_arithmetic("1 / loss_scale", reciprocal, self._arithmetic, True)
        values = {
            "_loss_scale": loss_scale,
            "reciprocal_scale": reciprocal,
            "need_scale": loss_scale != 1.0 and not self._is_wrapped,
        }
        decay = None if self._dynamic_decay else self._plan_decay(self._decay, loss_scale)
        self._store(values, decay=decay, scale=self._plan_scale(reciprocal))

    def _plan_scale(self, reciprocal_scale):
        return reciprocal_scale if self._unscales and not self._is_wrapped else 1.0

    def _set_centralization(self, flags):
        self.grad_centralization_flags = tuple(flags)
        # The seed: "only works on the convolution layer". A convolution kernel has three axes or more.
        self._centralize = [f and p.ndim >= 3 for f, p in zip(flags, self._parameters, strict=True)]
        if self.is_group:
            self.group_grad_centralization = self.grad_centralization_flags

    def decay_filter(self, name):
        """Tell whether weight decay applies to the parameter of this name when there are no groups."""
        return "beta" not in name and "gamma" not in name

    # ---- the step

    def clipped(self, gradients):
        """Return gradients within `max_grad_norm`, for a subclass without a kernel."""
        counted = self._without_frozen(gradients)
        clipped = gradient_functions.clipped(counted, self._max_grad_norm, self.reciprocal_scale)
        return clipped if counted is gradients else self._with_frozen(clipped, gradients)

    def clip_opened(self, plan):
        """Return what brings the gradients that a plan has opened within `max_grad_norm`: see `Plan.clip`."""

        def norm(exponent):
            return norm_of(plan.measure_opened("gradient_norm", exponent=exponent))

        return gradient_functions.clip_parts(norm, self._max_grad_norm, self.reciprocal_scale)

    def prepare(self):
        """Tell the plan, which has opened the gradients, what else this step takes.

        That is a decay that changes, a limit of the norm, random bits.
        """
        plan = self._plan
        if self._dynamic_decay:
            plan.decay[:] = self._plan_decay(self._decay, self._loss_scale)
        if self._clips and self._max_grad_norm is not None:
            plan.clip = self.clip_opened(plan)
        if self._stochastic_rounding:
            plan.round_stochastically(self.rounding_seed, self.global_step)

    def build_plan(self, rule, *slots, centralize=True, takes_rows=True, row_means=None, flags=None):
        """Let a kernel do the steps; a subclass calls it last in its constructor.

        Parameters
        ----------
        rule : str
            Name of the kernel's rule.
        *slots : ParameterTuple
            The slots that the rule uses, in its order.
        centralize : bool, default True
            False if this optimizer never centralizes gradients.
        takes_rows : bool, default True
            False if the rule has no step on rows, because it looks at whole parameters.
        row_means : sequence of Parameter or None, optional
            For rules over matrices, the mean squares of rows: see `Plan`.
        flags : ndarray of float32, optional
            For rules whose first step of a parameter takes other numbers: see `Plan`.
        """
        self._check_memory()
        plan = driver.Plan(
            rule,
            [p.name for p in self._parameters],
            [p.data for p in self._parameters],
            [[s.data for s in slot] for slot in slots],
            [centralize and c for c in self._centralize],
            self._plan_rows(self._rows),
            row_means and [None if means is None else means.data for means in row_means],
            flags,
            [_array_behind(p) for p in self._parameters],
            self._turn,
        )
        plan.takes_rows, plan.merge, plan.lazy = takes_rows, self.unique, bool(self.use_lazy)
        self._plan = plan
        plan.scale[:] = self._plan_scale(self.reciprocal_scale)
        if not self._dynamic_decay:
            plan.decay[:] = self._plan_decay(self._decay, self._loss_scale)
        self._fixed = FIXED | state_names(vars(self))
        self._sealed = True

    def _check_memory(self):
        """Raise ValueError when two parameters overlap: threads would update the same elements at once."""
        spans = sorted((address(p.data), p.data.nbytes, p.name) for p in self._parameters if p.size)
        for (start, nbytes, name), (next_start, _, next_name) in pairwise(spans):
            if start + nbytes > next_start:
                raise ValueError(f"parameters must not share memory, got {name!r} and {next_name!r}")

    def _follow(self):
        """Go where the memory of parameters has moved to, or raise an error that says what cannot be followed."""
        for i in self._find_moved():
            self._plan.replace(i, self._parameters[i]._data)

    def _find_moved(self):
        """Return which parameters are elsewhere than the plan takes them to be; raise an error if one is lost."""
        for p in self._parameters:
            if p._is_foreign:
                p._look()
        if self._plan is None:
            return []
        moved = [i for i, p in enumerate(self._parameters) if p._data is not self._plan.parameters[i]]
        if moved:
            self._check_memory()
        return moved

    def _refuse_moved(self):
        """Raise RuntimeError if parameters have moved since the step has begun: Python code ran that belongs to it."""
        moved = self._find_moved()
        if moved:
            raise RuntimeError(f"parameter {self._parameters[moved[0]].name!r} must not move within a step")

    def _bring_up_to_date(self):
        """Give rows the steps that they have missed; the turn is the caller's."""
        if self._moving:
            self._follow()
        if self._plan is not None:
            self._plan.flush()

    def _freeze(self):
        """Tell the plan which parameters are frozen."""
        seen = self._freezing[0]
        if self._plan is not None:
            self._plan.frozen[:] = [not p.requires_grad for p in self._parameters]
        self._freezing_seen = seen

    def _without_frozen(self, gradients):
        """Return the gradients with None in the places of frozen parameters; anything but a tuple or list as it is."""
        if not isinstance(gradients, (tuple, list)) or len(gradients) != self.param_length:
            return gradients
        return tuple(g if p.requires_grad else None for p, g in zip(self._parameters, gradients, strict=True))

    def _with_frozen(self, results, gradients):
        """Return results, and gradients of frozen parameters as they came."""
        return tuple(r if p.requires_grad else g for p, g, r in zip(self._parameters, gradients, results, strict=True))

    def _give_to_wrapper(self):
        """Leave weight decay, clipping and loss scale to a wrapper, for good."""
        with self._turn:
            self._bring_up_to_date()  # LARS measures whole parameters
            self._is_wrapped = True
            self._clips = False
            if self._plan is not None:
                self._plan.clip = 1.0
            self._install_decay(self._default_decay)
            self._install_loss_scale(self._loss_scale)

    def make_slot(self, prefix, init="zeros"):
        """Return a slot: one array of the compute dtype per parameter, named ``prefix.name``."""
        self._slot_count += 1
        return self._parameters.clone(prefix, init, dtype="compute", number=self._slot_count)

    @property
    def parameters(self):
        """ParameterTuple : the parameters in their final order, which is that of the gradients."""
        return self._parameters

    @property
    def learning_rate(self):
        """Parameter, LearningRateSchedule or tuple : the rate, or one entry per parameter; it can be set.

        Setting it takes every form that the constructor takes. Groups with a rate of their own keep it:
        ``opt.learning_rate[i].set_data(0.01)`` changes theirs. A fixed rate can be changed in place as well,
        ``opt.learning_rate.set_data(0.01)``.
        """
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        rate = make_rate("learning_rate", value, "learning_rate")
        with self._turn:
            old = self._default_rate
            rates = [rate if r is old else r for r in self._rates]
            if not any(r is rate for r in rates):
                raise ValueError(
                    "learning_rate must be that of a group, as all groups have one of their own: use "
                    f"opt.learning_rate[i].set_data(value), got {value!r}"
                )
            check_lengths([rate, *rates])
            self.check_rates([rate, *rates])
            self._bring_up_to_date()
            self._install_rates(rate, rates)

    def rates(self):
        """Return the rate of the next step for each parameter; it changes nothing.

        Returns
        -------
        tuple of float
            One rate per parameter, with groups and without.

        Raises
        ------
        IndexError, ValueError
            As `get_lr`.
        """
        rates = self._current_rates()
        return tuple([rates[row] for row in self._rows])

    def get_lr(self):
        """Return the rate of the next step; it changes nothing.

        Returns
        -------
        float or tuple of float
            A tuple with one rate per parameter if a group has a rate of its own (`is_group_lr`).

        Raises
        ------
        IndexError
            If a list of rates has no entry for `global_step`.
        ValueError
            If a rate is negative or not finite.
        """
        return self.rates() if self.is_group_lr else self._current_rates()[0]

    def get_lr_parameter(self, param):
        """Return the objects that keep the rates of parameters.

        Parameters
        ----------
        param : Parameter or list of Parameter
            Parameters of this optimizer.

        Returns
        -------
        Parameter, LearningRateSchedule or list of them
            For a list, one entry per parameter. A fixed rate is a 0-d Parameter, a list of rates a 1-D one.

        Raises
        ------
        TypeError
            If `param` is neither a Parameter nor a list of them.
        ValueError
            If a parameter is not in this optimizer.

        Examples
        --------
        >>> import optimcore as nn
        >>> net = Net()
        >>> conv_params = list(filter(lambda x: 'conv' in x.name, net.trainable_params()))
        >>> no_conv_params = list(filter(lambda x: 'conv' not in x.name, net.trainable_params()))
        >>> group_params = [{'params': conv_params, 'lr': 0.05},
        ...                 {'params': no_conv_params, 'lr': 0.01}]
        >>> optim = nn.Momentum(group_params, learning_rate=0.1, momentum=0.9, weight_decay=0.0)
        >>> conv_lr = optim.get_lr_parameter(conv_params)
        >>> print(conv_lr[0].asnumpy())
        0.05
        """
        if isinstance(param, list):
            return [self._find_rate(f"param[{i}]", p) for i, p in enumerate(param)]
        return self._find_rate("param", param)

    def _find_rate(self, argument, parameter):
        if not isinstance(parameter, Parameter):
            raise TypeError(f"{argument} must be a Parameter or a list of them, got {type(parameter).__name__}")
        if id(parameter) not in self._rate_of:
            raise ValueError(f"{argument} must be in this optimizer, got {parameter.name!r}")
        return self._rate_of[id(parameter)]

    @property
    def weight_decay(self):
        """float, callable or tuple : the weight decay as given, or one entry per parameter; it can be set.

        Setting it takes a number or a callable of the step. Groups with a decay of their own keep it.
        """
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, value):
        decay = self.check_decay("weight_decay", value)
        with self._turn:
            if all(d is not None for d in self._own_decay):
                raise ValueError(
                    f"weight_decay must be that of a group, but all groups have one of their own, got {value!r}: make "
                    "a new optimizer"
                )
            self._check_catch_up(self.use_lazy, self._decay_absent_rows, callable(decay) or decay > 0)
            self._install_decay(decay)

    @property
    def loss_scale(self):
        """float : the factor that gradients carry; it can be set."""
        return self._loss_scale

    @loss_scale.setter
    def loss_scale(self, value):
        loss_scale = check_positive("loss_scale", value)
        if not self._unscales and loss_scale != self._loss_scale:
            raise ValueError(
                f"loss_scale must stay as it is, for it has no effect in {type(self).__name__}, got {value}"
            )
        with self._turn:
            self._install_loss_scale(loss_scale)

    def get_weight_decay(self):
        """Return the weight decay of the next step times the loss scale, as gradients need it.

        Returns
        -------
        float or tuple of float
            A tuple with one number per parameter when grouped.
        """
        if self.is_group:
            return tuple(self._current_decay(self._loss_scale))
        return read_decay(self._weight_decay, self.global_step) * self._loss_scale

    def _current_decay(self, scale, decay=None):
        """Return the decay of each parameter in the next step, times a scale."""
        decay = self._decay if decay is None else decay
        value = {id(d): read_decay(d, self.global_step) * scale for d in decay}
        return [value[id(d)] for d in decay]

    def _plan_decay(self, decay, loss_scale):
        """Return the decay of each parameter as the plan takes it.

        Where decay goes through the gradient, it is added before gradients are unscaled: it carries the loss scale as
        they do.
        """
        if self._plan is None or self._is_wrapped:
            return [0.0] * self.param_length
        return self._current_decay(1.0 if self._plan.decoupled else loss_scale, decay)

    def decay_weight(self, gradients, out=None):
        """Add ``weight_decay * loss_scale * w`` to the gradients of all parameters that are decayed.

        Parameters
        ----------
        gradients : tuple or list of array
            One gradient per parameter, in the order of `parameters`; None stays None.
        out : tuple or list of ndarray, optional
            Where to write; may be `gradients` themselves.

        Returns
        -------
        tuple of ndarray
            New arrays, or `out`; the tuple `gradients` itself when no weight decay is set.
        """
        if not self.exec_weight_decay:
            return self._unchanged(gradients, out)
        return self._transform(gradients, out, decay=self._current_decay(self._loss_scale))

    def gradients_centralization(self, gradients, out=None):
        """Subtract the mean over all axes but the first, from convolution kernels in groups that ask for it.

        Parameters
        ----------
        gradients : tuple or list of array
            One gradient per parameter, in the order of `parameters`; None stays None.
        out : tuple or list of ndarray, optional
            Where to write; may be `gradients` themselves.

        Returns
        -------
        tuple of ndarray
            New arrays, or `out`; the tuple `gradients` itself when nothing is to be centralized.
        """
        if not any(self._centralize):
            return self._unchanged(gradients, out)
        return self._transform(gradients, out, centralize=self._centralize)

    def scale_grad(self, gradients, out=None):
        """Multiply the gradients by the reciprocal of the loss scale.

        Parameters
        ----------
        gradients : tuple or list of array
            One gradient per parameter, in the order of `parameters`; None stays None.
        out : tuple or list of ndarray, optional
            Where to write; may be `gradients` themselves.

        Returns
        -------
        tuple of ndarray
            New arrays, or `out`; the tuple `gradients` itself when the loss scale is 1.
        """
        if not self.need_scale:
            return self._unchanged(gradients, out)
        return self._transform(gradients, out, scale=self.reciprocal_scale)

    def _transform(self, gradients, out, decay=None, centralize=None, scale=1.0):
        results = gradient_functions.prepare(
            [p.name for p in self._parameters],
            [p.data for p in self._parameters],
            self._without_frozen(gradients),
            decay=decay,
            centralize=centralize,
            scale=scale,
            out=out,
        )
        if out is not None:
            return results
        return self._with_frozen(results, gradients)

    def _unchanged(self, gradients, out):
        if not isinstance(gradients, (tuple, list)):
            raise TypeError(f"gradients must be a tuple or list, got {type(gradients).__name__}")
        if len(gradients) != self.param_length:
            raise ValueError(
                f"gradients must have one entry for each of the {self.param_length} parameters, got {len(gradients)}"
            )
        if out is None or out is gradients:
            return tuple(gradients)  # of a tuple, the tuple itself
        return self._transform(gradients, out)

    @property
    def unique(self):
        """bool : whether repeated indices of a sparse gradient are merged; it can be set.

        True at first, unless a parameter has ``unique=True``. False is the caller's promise that no index repeats.
        """
        return self._unique

    @unique.setter
    def unique(self, value):
        check_flag("unique", value)
        with self._turn:
            self._unique = value
            if self._plan is not None:
                self._plan.merge = value

    @property
    def use_lazy(self):
        """bool or 'catch_up' : what happens to rows without a gradient when a gradient is a `RowTensor`; it can be set.

        False: they take the step of the rule with a gradient of 0, to which no weight decay is added unless
        `decay_absent_rows` says so. It costs a pass over the whole table. True: cost follows the rows of the gradient.
        SGD without momentum, `Adagrad`, `FTRL`, `ProximalAdagrad` and `LazyAdam` are always lazy, as in MindSpore where
        it has them; `Rprop` never is, because the first step of a row would be no different from its others. For `Adam`
        this is MindSpore's meaning; for others it is an extension.

        'catch_up', an extension for `SGD` with momentum, `Momentum`, `Adam` and `AdamOffload` with all their variants:
        the result of False, and still the cost follows the rows of the gradient. Rows without one stay as they are, but
        a row that comes back first receives, at once, all that the steps it has missed would have done to it, each with
        the rate that it had. Until then the row and its slots are behind: call `flush` before reading, evaluating or
        saving them.

        Momentum of every kind and `Adam` with amsgrad take the sum of a geometric series for each run of equal rates,
        which is exact but for rounding. In `Adam`, whose every step has another root beside eps, a few points stand for
        the steps (Gauss quadrature), and steps that move less than 1e-9 of the first are left out. After 1,000 random
        steps, parameters of magnitude 1 differ from those of the dense rule by 1e-9 in float64 with the default betas,
        by 5e-7 at most with other betas up to 0.999; in float32 by 3e-6 with the usual betas, as much as the dense
        rule itself differs from the exact result. 16-bit parameters are rounded once for many steps, and so come closer
        to the exact result than with False.

        It costs 4 bytes of marks for each row of a table, in memory that is not touched for rows that never come up,
        and 12 bytes for each change of the rate since the last `flush`. The bias correction of `Adam` changes its rate
        in each of the first 40 / (1 - beta2) steps or so.
        """
        return self._use_lazy if self._lazy is None else self._lazy

    @use_lazy.setter
    def use_lazy(self, value):
        if not isinstance(value, (bool, str)):
            raise TypeError(f"use_lazy must be a bool or 'catch_up', got {value!r}")
        if self._lazy is not None and value is not self._lazy:
            raise ValueError(f"use_lazy must be {self._lazy} for {type(self).__name__}, got {value!r}")
        catch_up = isinstance(value, str)
        can_catch_up = self._plan is not None and driver.can_catch_up(self.rule)
        if catch_up and not (value == "catch_up" and can_catch_up):
            choices = "a bool or 'catch_up'" if can_catch_up else "a bool"
            raise ValueError(f"use_lazy must be {choices} for {type(self).__name__}, got {value!r}")
        with self._turn:
            if value and self._plan is not None and not self._plan.takes_rows:
                raise ValueError(
                    f"use_lazy must be False for {type(self).__name__}, which takes no rows, got {value!r}"
                )
            self._check_catch_up(value, self._decay_absent_rows, self.exec_weight_decay)
            self._bring_up_to_date()
            self._store({"_use_lazy": value}, use_lazy=value)

    @property
    def decay_absent_rows(self):
        """bool : whether rows without a gradient are decayed where they take the step of the dense rule; it can be set.

        False at first, as in MindSpore: without `use_lazy`, rows that are absent from a `RowTensor` take the step of
        the rule with a gradient of 0, to which no weight decay is added. True: they are decayed, and centralized, like
        all others, so that the result is that of the dense gradient, to the bit; to rounding with
        ``use_lazy='catch_up'``. With ``use_lazy=True`` absent rows stay as they are all the same; optimizers that are
        always lazy refuse True.

        With 'catch_up', only rules with momentum can do this: a decayed step of `Adam` without a gradient has no closed
        form, nor has one that is centralized. Weight decay is then a ValueError.
        """
        return self._decay_absent_rows

    @decay_absent_rows.setter
    def decay_absent_rows(self, value):
        check_flag("decay_absent_rows", value)
        if value and self._lazy:
            raise ValueError(f"decay_absent_rows must be False for {type(self).__name__}, which is lazy, got True")
        if value and self._plan is not None and not self._plan.takes_rows:
            raise ValueError(
                f"decay_absent_rows must be False for {type(self).__name__}, which takes no rows, got True"
            )
        with self._turn:
            self._check_catch_up(self.use_lazy, value, self.exec_weight_decay)
            self._bring_up_to_date()
            if self._plan is not None:
                self._plan.decay_absent = value
            self._decay_absent_rows = value

    def _check_catch_up(self, use_lazy, decay_absent_rows, decays):
        """Raise ValueError if rows cannot catch up with steps in which they would be decayed."""
        if use_lazy == "catch_up" and decay_absent_rows and decays and not driver.can_catch_up_decay(self.rule):
            raise ValueError(
                "decay_absent_rows must be False with use_lazy='catch_up' and weight decay, because decayed steps of "
                f"{type(self).__name__} without a gradient have no closed form, got True"
            )

    def flush(self):
        """Bring all rows of all parameters up to date, if ``use_lazy == 'catch_up'``; else there is nothing to do.

        It costs a pass over the tables of which rows have missed steps, as does a dense gradient for one of them. Call
        it before you read, evaluate or save parameters or slots. Steps that rows have missed are not part of the state:
        without it they are lost to whoever resumes from parameters, slots and `global_step`. The mode is the same
        afterwards; the numbers differ by rounding from those without the call. Setting `use_lazy` flushes as well.

        Raises
        ------
        RuntimeError
            If this thread is inside a step of this optimizer; or another one is, and `wait` is False.
        """
        with self._turn:
            self._bring_up_to_date()

    @property
    def max_grad_norm(self):
        """float or None : largest global norm of the gradients; it can be set, None (default) for no limit.

        An extension. If the norm of all gradients of a step, without the loss scale, exceeds it, they are scaled down
        to it before anything else happens to them, as by `clip_by_global_norm`, but inside the step.
        """
        return self._max_grad_norm

    @max_grad_norm.setter
    def max_grad_norm(self, value):
        limit = None if value is None else check_positive("max_grad_norm", value)
        with self._turn:
            if self._plan is not None:
                self._plan.clip = 1.0
            self._max_grad_norm = limit

    @property
    def global_step(self):
        """int : number of steps done, which is the number of the next one counted from 0; it can be set to resume."""
        return self._global_step

    @global_step.setter
    def global_step(self, value):
        step = check_count("global_step", value, least=0)
        if step >= LAST_STEP:
            raise ValueError(f"global_step must be < 2**62, got {value}")
        with self._turn:
            self._global_step = step

    @property
    def rounding_seed(self):
        """int : seed of stochastic rounding, >= 0, 0 at first; it can be set."""
        return self._rounding_seed

    @rounding_seed.setter
    def rounding_seed(self, value):
        seed = check_count("rounding_seed", value, least=0)
        with self._turn:
            self._rounding_seed = seed

    @property
    def stochastic_rounding(self):
        """bool : whether 16-bit parameters are rounded up or down by chance, so that the mean is exact; it can be set.

        An extension, False at first: then to nearest even. The random bits depend on `rounding_seed` (an int, 0 at
        first), the step, the name of the parameter and the element alone: not on threads, nor on a resume.
        """
        return self._stochastic_rounding

    @stochastic_rounding.setter
    def stochastic_rounding(self, value):
        check_flag("stochastic_rounding", value)
        with self._turn:
            if self._plan is not None:
                self._plan.round_stochastically(None, 0)
            self._stochastic_rounding = value

    @property
    def target(self):
        """str : where the optimizer runs, 'CPU'. Setting it accepts that and explains everything else."""
        return "CPU"

    @target.setter
    def target(self, value):
        if not isinstance(value, str):
            raise TypeError(f"target must be a str, got {value!r}")
        if value in ("GPU", "Ascend"):
            raise ValueError(f"target must be 'CPU' on a host without that device, got {value!r}")
        if value != "CPU":
            raise ValueError(f"target must be 'CPU', got {value!r}")

    def broadcast_params(self, optim_result):
        """Make the parameters of all processes equal after a step; with one process there is nothing to do.

        Parameters
        ----------
        optim_result : bool
            Result of the step.

        Returns
        -------
        bool
            `optim_result` as a bool.
        """
        return bool(optim_result)


def _array_behind(parameter):
    """Return the array whose shape, address and flags tell what somebody has done to a parameter's memory."""
    source = parameter._source
    # foreign memory is looked at by the Parameter, which counts who refers to its source
    return source if isinstance(source, np.ndarray) and not parameter._is_foreign else parameter.data
