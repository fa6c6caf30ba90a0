# cython: language_level=3, cdivision=True
"""Driver: from Python arrays to the kernels of the active ISA build, one crossing per step.

A `Plan` is built once per optimizer and holds what does not change from step to step: pointers, sizes, flags. A step
opens gradients, which may run Python code and may fail; gets all the memory that it takes; then updates the parameters
without the GIL and books the numbers that a step advances. From the first write to the end of the booking no Python
code runs and nothing fails, so that a step happens wholly or not at all.

There are no list comprehensions here: where an append has no memory, Cython 3.3 releases the element twice.
"""
from itertools import chain
from operator import attrgetter, itemgetter
from zlib import crc32

import numpy as np

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.float cimport DBL_MAX, FLT_MAX
from libc.math cimport frexp, ldexp, sqrt
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset
from numpy cimport (
    NPY_ARRAY_ALIGNED, NPY_ARRAY_C_CONTIGUOUS, NPY_ARRAY_WRITEABLE, PyArray_CheckExact, PyArray_DATA, PyArray_DIMS,
    PyArray_NBYTES, PyArray_NDIM, ndarray, npy_intp
)

from .backlog cimport (
    COAST_ADAM, COAST_AMSGRAD, COAST_DECAYED_MOMENTUM, COAST_MOMENTUM, add_map, add_step, clear_backlog, decayed_step,
    free_backlog, new_backlog, reserve_step
)
from .crew cimport allowed_threads, run_blocks, threads_for
from .isa cimport active_table, find_measure, find_rule
from .rules cimport clamp
from .storage cimport BFLOAT16, BFLOAT16_MIXED, FLOAT16, FLOAT16_MIXED, FLOAT32, FLOAT64
from .table cimport MAX_HYPERS, MeasureKernels, RuleKernels
from .row_gradient cimport Door, RowGradient, same_axes, take_array
from .turn cimport Turn, count_forks
from .work cimport (
    ADAPTED_BY_ADAFACTOR, ADAPTED_BY_LAMB, ADAPTED_BY_LARS, CHUNK, MAX_NUMBERS, NOT_ADAPTED, SUMS, Matrices,
    Segment, Task, adapt, arrange, combine_parts, end_of_portion, find_norms, gradient_size, mixed, run_block
)

from optimcore.kernels.arrays import as_bits, as_floats, as_rows, compute_dtype, converted, is_rows, pair_hint

cdef extern from "numpy/arrayobject.h":
    # of an array that is borrowed: counting references takes as long as all of these
    void* data_of "PyArray_DATA"(void* array) noexcept
    int flags_of "PyArray_FLAGS"(void* array) noexcept
    int ndim_of "PyArray_NDIM"(void* array) noexcept
    const npy_intp* dims_of "PyArray_DIMS"(void* array) noexcept
    void* dtype_of "PyArray_DESCR"(void* array) noexcept

cdef enum:
    PART_ROWS = 64          # at least, of a matrix that is cut: its sums of columns take little memory beside it
    # what an array must be for a kernel to update it
    IN_PLACE = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED | NPY_ARRAY_WRITEABLE


ADAPTATION_NUMBERS = MAX_NUMBERS    # columns of `Plan.adaptation_numbers`

# dtype name -> layout with a gradient of the same dtype, and with one of the compute dtype
_LAYOUTS = {
    "float32": (FLOAT32, FLOAT32),
    "float64": (FLOAT64, FLOAT64),
    "float16": (FLOAT16, FLOAT16_MIXED),
    "bfloat16": (BFLOAT16, BFLOAT16_MIXED),
}

# rule -> what its steps without a gradient amount to, how they are summed up, and whether they look ahead
_ABSENT_RULES = {
    "sgd_momentum": ("momentum_absent", COAST_MOMENTUM, False),
    "sgd_nesterov": ("momentum_absent", COAST_MOMENTUM, True),
    "momentum": ("momentum_absent", COAST_MOMENTUM, False),
    "momentum_nesterov": ("momentum_absent", COAST_MOMENTUM, True),
    "adam": ("adam_absent", COAST_ADAM, False),
    "adam_nesterov": ("adam_absent", COAST_ADAM, True),
    "adam_amsgrad": ("adam_amsgrad_absent", COAST_AMSGRAD, False),
}

# adaptation -> the measure that it takes, and whether of the gradients as they came
_ADAPTATIONS = {
    "lamb": (ADAPTED_BY_LAMB, "lamb", False),
    "lars": (ADAPTED_BY_LARS, "norm", True),
    "adafactor": (ADAPTED_BY_ADAFACTOR, "adafactor", False),
}


# rules that take other numbers in the first step of a parameter
_FIRST_STEP_RULES = ("sgd_momentum", "sgd_nesterov", "rprop")


def key_of(name):
    """Return the number that stands for a parameter's name in random numbers."""
    return crc32(name.encode())


def can_catch_up(rule):
    """Tell whether `Plan.catch_up` may be set for this rule."""
    return rule in _ABSENT_RULES


def can_catch_up_decay(rule):
    """Tell whether rows may catch up while `Plan.decay_absent` is set and decay is not 0, if they are not centralized.

    With momentum, decayed steps without a gradient are a linear map; those of Adam have no closed form.
    """
    return can_catch_up(rule) and _ABSENT_RULES[rule][1] == COAST_MOMENTUM


cdef class Plan:
    """The parameters of one optimizer, ready to be updated by one rule.

    `step` and `measure` take their turn: one thread at a time is inside.

    Parameters
    ----------
    rule : str or None
        Name of the rule in the kernel table; a plan without one can only measure.
    names : sequence of str
        Names of the parameters, for messages.
    parameters : sequence of ndarray
        Float arrays, C-contiguous, aligned, writable unless the rule only reads them; updated in place, kept alive.
    slots : sequence of sequences of ndarray
        One sequence for each slot of the rule, in its order, each with one array per parameter: of the parameter's
        shape and compute dtype, C-contiguous, writable.
    centralize : sequence of bool
        Whether the mean over all axes but the first is subtracted from a parameter's gradient.
    rows : sequence of int, optional
        Which of the `hypers` (see `step`) each parameter takes; by default all take the first.
    row_means : sequence of ndarray or None, optional
        For rules over matrices: an array for each parameter that is taken as matrices over its last two axes, with the
        mean square of each row; of shape ``shape[:-1]``, otherwise like a slot. The first slot of such a parameter is
        that of its columns, of shape ``shape[:-2] + shape[-1:]``. Only a step with the adaptation "adafactor" moves
        these means.
    flags : ndarray of float32, shape (n,), optional
        For rules whose first step of a parameter takes other numbers: not 0 before that step. `hypers` then has two
        tuples for each row: for all steps but the first, and for the first. A step by such a rule sets the flags of
        parameters that have a gradient to 0.
    sources : sequence of ndarray, optional
        The arrays that were given where `parameters` are views of them: what somebody does to their shape, dtype,
        address or flags is noticed before a step. By default the parameters themselves.
    turn : Turn, optional
        That of the optimizer; by default one of its own.

    Attributes
    ----------
    decay : ndarray of float64, shape (n,)
        Weight decay of each parameter, 0 for none; times the loss scale unless the rule is `decoupled`. May be written
        between steps.
    scale : ndarray of float64, shape (n,)
        Reciprocal of the loss scale for each parameter, 1 at first. May be written between steps.
    adaptation_numbers : ndarray of float64, shape (n, 8)
        What the adaptation needs to know of each parameter, in the order of its struct. May be written between steps.
    rows : ndarray of intc, shape (n,)
        May be written between steps.
    frozen : ndarray of bool, shape (n,)
        Parameters that have no gradient, whatever is passed: it is not even looked at. All False at first. May be
        written between steps.
    clip : float
        Factor of all gradients before anything else, 1 at first. May be set between steps, also to a tuple: a factor,
        and the exponent of a power of two that it is multiplied by.
    catch_up : bool
        With lazy: whether a row that comes back first receives the steps with a gradient of 0 that it has missed,
        computed with this step's hypers but each with its own rate. False at first. Setting it brings all rows up to
        date. Only for rules for which `can_catch_up` is true.
    decay_absent : bool
        Without lazy, or with catch_up: whether rows without a gradient are decayed and centralized like all others. A
        row gradient then has the result of the dense one that it stands for. False at first. Setting it brings all rows
        up to date.
    takes_rows, lazy, merge : bool
        Whether row gradients are taken (False at first); whether rows without a gradient stay as they are, or take a
        step with a gradient of 0; whether rows that share an index are summed first (without lazy they always are).
        May be set between steps.
    parameters : tuple of ndarray
        Where the parameters are now.
    turn : Turn
    """

    def __cinit__(
        self, rule, names, parameters, slots, centralize, rows=None, row_means=None, flags=None, sources=None, turn=None
    ):
        cdef Py_ssize_t i
        self.turn = Turn() if turn is None else turn
        self.table = active_table()
        self.rule = NULL if rule is None else find_rule(self.table, rule)
        self.writes = rule not in (None, "gradient")
        self.count = len(parameters)
        self.names, self.parameters = tuple(names), tuple(parameters)
        self.sources = self.parameters if sources is None else tuple(sources)
        self.dtypes = list(map(attrgetter("dtype"), self.sources))
        self.row_means, self.pinned, self.converted, self.booked = [], [], [], []
        self.homes = [None] * self.count
        if len(slots) != (self.rule.slots if rule is not None else 0):
            raise ValueError(f"slots must be {self.rule.slots} for {rule}, got {len(slots)}")
        self.decay, self.scale = np.zeros(self.count), np.ones(self.count)
        self.adaptation_numbers = np.zeros((self.count, MAX_NUMBERS))
        self.rows = np.zeros(self.count, np.intc) if rows is None else np.array(rows, np.intc)
        self.frozen = np.zeros(self.count, np.bool_)
        self.decay_view, self.scale_view, self.numbers_view = self.decay, self.scale, self.adaptation_numbers
        self.rows_view, self.frozen_view = self.rows, self.frozen.view(np.uint8)
        self.keys = np.array(list(map(key_of, self.names)), np.uint64)
        self.hyper_rows = np.zeros(self.count, np.intc)
        self.n_rates = max(self.rows.tolist(), default=0) + 1

        self.doors = <Door*>allocate(self.count, sizeof(Door))
        self.work.tasks = <Task*>allocate(self.count, sizeof(Task))
        self.work.segments = <Segment*>allocate(self.count, sizeof(Segment))
        self.work.n_tasks, self.work.scratch_length = self.count, CHUNK
        self.row_gradients = [None] * self.count
        self.merge = self.lazy = True
        self.work.hypers = <double*>allocate(4 * self.n_rates * MAX_HYPERS, sizeof(double))
        if self.count:
            self.work.decay, self.work.scale = &self.decay_view[0], &self.scale_view[0]
            self.work.numbers, self.work.hyper_rows = &self.numbers_view[0, 0], &self.hyper_rows[0]
            self.work.keys = &self.keys[0]
        self.work.rule, self.work.total, self.work.clip = self.rule, self.table.total, 1
        self.work.gradient = find_rule(self.table, "gradient").update
        self.work.square_sums = self.table.square_sums
        self.work.factors32, self.work.factors64 = self.table.factors32, self.table.factors64
        self.work.settle32, self.work.settle64 = self.table.settle32, self.table.settle64
        self.slots = list(map(list, slots))
        for i in range(self.count):
            self.add_task(i, centralize[i], None if row_means is None else row_means[i])
        for slot in self.slots:
            self.pinned.append(list(map(memoryview, slot)))
        if flags is not None:
            self.book(flags, own=True)[:] = 0
            self.flags, self.has_flags = flags, True
        self.settle_rule()
        self.find_spans()

    def __dealloc__(self):
        if self.work.tasks != NULL:     # else the constructor has failed
            self.drop_backlogs()
        PyMem_Free(self.doors)
        PyMem_Free(self.spans)
        PyMem_Free(self.entries)
        PyMem_Free(self.work.tasks)
        PyMem_Free(self.work.hypers)
        PyMem_Free(self.work.segments)
        PyMem_Free(self.work.squares)
        PyMem_Free(self.work.scratch)

    # ---- what is settled between steps

    @property
    def decoupled(self):
        """Whether the rule decays the parameter itself instead of through its gradient."""
        return self.rule != NULL and bool(self.rule.decoupled)

    @property
    def rule_name(self):
        """Name of the rule; None for a plan that only measures."""
        return None if self.rule == NULL else self.rule.name.decode()

    @property
    def clip(self):
        return self.work.clip

    @clip.setter
    def clip(self, value):
        if isinstance(value, tuple):
            self.work.clip, self.work.clip_exponent = value
        else:
            self.work.clip, self.work.clip_exponent = value, 0

    @property
    def catch_up(self):
        return self.catching_up

    @catch_up.setter
    def catch_up(self, bint value):
        self.flush_rows()
        if value:
            self.choose_absent_rule()
        else:
            self.drop_backlogs()
        self.catching_up = value

    @property
    def decay_absent(self):
        return bool(self.work.decay_absent)

    @decay_absent.setter
    def decay_absent(self, bint value):
        self.flush_rows()
        self.work.decay_absent = value
        if self.catching_up:
            self.choose_absent_rule()

    cdef int choose_absent_rule(self) except -1:
        rule, coast, nesterov = _ABSENT_RULES[self.rule_name]
        if self.work.decay_absent and coast == COAST_MOMENTUM:
            rule, coast = "decayed_momentum_absent", COAST_DECAYED_MOMENTUM
        self.work.absent, self.work.coast, self.work.nesterov = find_rule(self.table, rule), coast, nesterov
        return 0

    def use_rule(self, name):
        """Go on with another rule on the same slots, of which it may use fewer; rows are brought up to date first.

        Raises
        ------
        ValueError
            If there is no such rule, or it takes more slots than there are.
        """
        cdef RuleKernels* rule = find_rule(self.table, name)
        if rule.slots > len(self.slots):
            raise ValueError(f"rule must take at most {len(self.slots)} slots here, got {name!r} with {rule.slots}")
        if self.catching_up and not can_catch_up(name):
            self.catch_up = False
        self.flush_rows()
        self.rule = rule
        self.work.rule = rule
        self.settle_rule()
        if self.catching_up:
            self.catch_up = True

    def use_rows(self, rows):
        """Let each parameter take another of the tuples of `hypers`; see the constructor."""
        self.flush_rows()
        cdef Py_ssize_t n_rates = max(rows, default=0) + 1
        cdef double* hypers = <double*>allocate(4 * n_rates * MAX_HYPERS, sizeof(double))
        cdef int[::1] new
        try:
            new = np.array(rows, np.intc)
        except BaseException:
            PyMem_Free(hypers)
            raise
        PyMem_Free(self.work.hypers)
        self.work.hypers, self.n_rates = hypers, n_rates
        self.rows_view[:] = new

    def replace(self, Py_ssize_t i, array):
        """Go on with parameter i in other memory: an array of the same shape and dtype."""
        old = self.parameters[i]
        if array.shape != old.shape or array.dtype != old.dtype:
            raise ValueError(
                f"parameter {self.names[i]!r} must keep its shape {old.shape} and dtype {old.dtype}, "
                f"got {array.shape} and {array.dtype}")
        self.check_memory(i, array)
        parameters, sources = list(self.parameters), list(self.sources)
        parameters[i] = sources[i] = array
        self.settle_parameter(i, array)
        self.parameters, self.sources, self.dtypes[i] = tuple(parameters), tuple(sources), array.dtype
        self.doors[i].source, self.doors[i].dtype = <void*>self.sources[i], <void*>self.dtypes[i]
        self.find_spans()

    def book(self, live, own=False):
        """Let steps advance numbers: at the end of each, what the array that is returned then holds goes to `live`.

        Parameters
        ----------
        live : ndarray
            C-contiguous and writable.
        own : bool, default False
            Whether it holds one number for each parameter, so that only those of parameters with a gradient advance.

        Returns
        -------
        ndarray
            A copy of `live`.
        """
        cdef Entry* entries
        cdef Entry* entry
        cdef Py_ssize_t k
        if not (live.flags.c_contiguous and live.flags.writeable) or (own and live.shape != (self.count,)):
            raise ValueError(f"live must be C-contiguous and writable, one number per parameter if own, got {live!r}")
        coming = live.copy()
        self.booked += [live, coming]
        entries = <Entry*>allocate(self.n_entries + 1, sizeof(Entry))
        for k in range(self.n_entries):
            entries[k] = self.entries[k]
        entry = &entries[self.n_entries]
        entry.live, entry.next = <char*>PyArray_DATA(<ndarray?>live), <const char*>PyArray_DATA(<ndarray?>coming)
        entry.size, entry.count, entry.own = live.itemsize, live.size, own
        PyMem_Free(self.entries)
        self.entries = entries
        self.n_entries += 1
        return coming

    def adapt(self, how):
        """Let steps first measure each parameter as a whole, and make of it factors of its decay, scale and rate.

        A step does so with a few parameters at a time, and updates them while the cache has them. Gradients must be
        dense then.

        Parameters
        ----------
        how : {'lamb', 'lars', 'adafactor'} or None
            None: no longer. What each needs to know is in `adaptation_numbers`.
        """
        self.neutralize_adaptation()
        if how is not None:
            adaptation, measure, raw = _ADAPTATIONS[how]
            self.adaptation_measure, self.adaptation_is_raw = find_measure(self.table, measure), raw
            self.work.adaptation = adaptation

    cdef void neutralize_adaptation(self) noexcept:
        cdef Py_ssize_t t
        self.work.adaptation = NOT_ADAPTED
        for t in range(self.count):
            self.work.tasks[t].decay = self.work.tasks[t].scale = self.work.tasks[t].trust = 1

    cdef void end_lars(self) noexcept:
        cdef Py_ssize_t t
        if self.work.adaptation == ADAPTED_BY_LARS:
            self.neutralize_adaptation()
            self.work.clip, self.work.clip_exponent = 1, 0
            for t in range(self.count):
                self.decay_view[t], self.scale_view[t] = 0, 1

    def round_stochastically(self, seed, step):
        """Write 16-bit parameters with stochastic rounding in the next step, or to nearest if `seed` is None.

        Parameters
        ----------
        seed, step : int
            With the parameter's name and the number of the element, they are all that the random bits depend on.
        """
        self.work.stochastic = seed is not None
        if seed is not None:
            self.work.key = mixed(mixed(<uint64_t>(seed & 0xffffffffffffffff)) ^ <uint64_t>step)

    # ---- building

    cdef int add_task(self, Py_ssize_t i, bint centralize, row_means) except -1:
        cdef Task* task = &self.work.tasks[i]
        cdef Door* door = &self.doors[i]
        parameter = self.parameters[i]
        slots = list(map(itemgetter(i), self.slots))
        shapes = [parameter.shape] * len(slots)
        if row_means is not None:
            if not (self.rule.matrix and parameter.ndim > 1) or centralize:
                raise ValueError(
                    f"row_means of {self.names[i]!r} must be None except for a rule over matrices, two axes or more, "
                    "and no centralization")
            slots, shapes = [*slots, row_means], [*shapes, parameter.shape[:-1]]
            shapes[0] = parameter.shape[:-2] + parameter.shape[-1:]
        self.check_slots(i, slots, shapes)
        self.check_memory(i, parameter)
        self.settle_parameter(i, parameter)
        door.source, door.dtype = <void*>self.sources[i], <void*>self.dtypes[i]
        door.layout, door.compute_layout = _LAYOUTS[parameter.dtype.name]
        door.type, door.compute_type = parameter.dtype.num, compute_dtype(parameter.dtype).num
        task.decay = task.scale = task.trust = 1
        task.size = parameter.size
        task.table_rows = parameter.shape[0] if parameter.ndim else 1
        task.width = task.size // task.table_rows if task.size else 0
        task.centralized = centralize and task.size > 0
        if row_means is not None and task.size > 0:
            self.add_matrices(i, slots[0], row_means)
        return 0

    cdef int check_slots(self, Py_ssize_t i, list slots, list shapes) except -1:
        compute = compute_dtype(self.parameters[i].dtype)
        for slot, shape in zip(slots, shapes):
            if slot.shape != shape or slot.dtype != compute:
                raise ValueError(
                    f"slots of {self.names[i]!r} must have shape {shape} and dtype {compute}, "
                    f"got {slot.shape} and {slot.dtype}")
            self.check_memory(i, slot)
        return 0

    cdef int check_memory(self, Py_ssize_t i, array) except -1:
        flags = array.flags
        writable = flags.writeable or not self.writes
        if not (writable and flags.c_contiguous and flags.aligned and array.dtype.isnative):
            raise ValueError(
                f"parameter {self.names[i]!r} and its slots must be writable, C-contiguous, aligned and of native byte "
                "order")
        return 0

    cdef int settle_parameter(self, Py_ssize_t i, parameter) except -1:
        """Note where a parameter is."""
        cdef Door* door = &self.doors[i]
        view = memoryview(as_bits(parameter))
        self.homes[i] = view
        self.work.tasks[i].arrays.w = PyMemoryView_GET_BUFFER(view).buf
        door.ndim, door.shape = PyMemoryView_GET_BUFFER(view).ndim, PyMemoryView_GET_BUFFER(view).shape
        return 0

    cdef int settle_rule(self) except -1:
        """Show the kernels the slots that the rule uses; see whether first steps have numbers of their own."""
        cdef Py_ssize_t i
        cdef void** pointers
        cdef int k, used = 0 if self.rule == NULL else self.rule.slots
        self.has_first_steps = self.has_flags and self.rule_name in _FIRST_STEP_RULES
        for i in range(self.count):
            pointers = &self.work.tasks[i].arrays.slot0
            for k in range(3):
                pointers[k] = PyMemoryView_GET_BUFFER(self.pinned[k][i]).buf if k < used else NULL
            if self.work.tasks[i].matrices.columns:     # the first slot is that of the columns
                pointers[0] = NULL
        return 0

    cdef int add_matrices(self, Py_ssize_t i, column_means, row_means) except -1:
        cdef Task* task = &self.work.tasks[i]
        cdef Matrices* m = &task.matrices
        cdef Py_ssize_t size
        cdef double[::1] row, column
        self.has_matrices = True
        m.row_means = PyArray_DATA(<ndarray?>row_means)
        m.column_means = PyArray_DATA(<ndarray?>column_means)
        m.rows, m.columns = self.parameters[i].shape[-2:]
        size = m.rows * m.columns
        m.length, m.parts = max(PART_ROWS, CHUNK // m.columns) * m.columns, 1
        if m.length < size:
            m.parts = (size + m.length - 1) // m.length
        else:
            m.length = max(1, CHUNK // size) * size
        row = np.empty(task.size // m.columns)
        column = np.empty(task.size // size * m.parts * m.columns)
        self.row_means.append(row_means)
        self.booked += [row, column]
        m.row, m.column = &row[0], &column[0]
        return 0

    cdef int find_spans(self) except -1:
        """Sort what a step writes, so that gradients in the same memory are found."""
        cdef Span* spans
        cdef Py_ssize_t i, n = 0
        if not self.writes:
            return 0
        written = list(chain(*self.slots, self.row_means, self.parameters))
        ranges = sorted(
            (<size_t>PyArray_DATA(<ndarray>a), <size_t>PyArray_DATA(<ndarray>a) + <size_t>PyArray_NBYTES(<ndarray>a))
            for a in written if a.size)
        spans = <Span*>allocate(len(ranges), sizeof(Span))
        for start, stop in ranges:
            spans[n].start, spans[n].stop = <const char*><size_t>start, <const char*><size_t>stop
            n += 1
        PyMem_Free(self.spans)
        self.spans, self.n_spans = spans, n
        for i in range(self.count):
            self.doors[i].apart = NULL
        return 0

    # ---- a step

    def step(self, gradients, hypers):
        """Update every parameter once.

        Parameters
        ----------
        gradients : tuple or list
            One entry per parameter: an array of its shape and any float dtype, or None to skip the parameter. Read
            only. A gradient of another dtype than the parameter's and its compute dtype, or one that is not
            C-contiguous, costs a copy. So does one that shares memory with parameters or slots: the result is as if
            all gradients had been read first.
        hypers : sequence of tuples of float
            The hyperparameters of this step: one tuple for each row, in the order of the rule's struct.

        Raises
        ------
        TypeError, ValueError
            If a gradient does not fit its parameter, or `hypers` not the rule. Nothing was changed then.
        RuntimeError
            If this thread is inside a step of this plan, or another one is and `turn.wait` is False.
        """
        self.turn.enter()
        try:
            self.open(gradients, True)
            try:
                self.update(list(hypers))
            finally:
                self.close()
        finally:
            self.turn.leave()

    def measure(self, measure, gradients, hypers=None, int exponent=0):
        """Find the norms of two quantities over each parameter, in a pass that only reads.

        Parameters
        ----------
        measure : {'norm', 'gradient_norm', 'finite', ...}
            'norm': the parameter and the gradient as it came. 'gradient_norm': 0 and that gradient. 'finite': 0 and,
            unless all of the gradient is finite, NaN; it stops at the first NaN that it meets. Others belong to a rule,
            and see what the rule would see.
        gradients, hypers
            As for `step`; these three need no hypers.
        exponent : int
            Norms are multiplied by this power of two: with a negative one, norms beyond the largest double are finite.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            Roots of sums of squares, accumulated in float64 and in a fixed order, with a factor where squares would
            overflow or vanish; 0 for a parameter without a gradient. For a row gradient, whose rows count after
            merging, the first of the two has no meaning.
        """
        self.turn.enter()
        try:
            self.open(gradients, False)
            try:
                return self.measure_opened(measure, hypers, exponent)
            finally:
                self.close()
        finally:
            self.turn.leave()

    def measure_opened(self, measure, hypers=None, int exponent=0):
        """Do what `measure` does with the gradients that are open: in `Optimizer.prepare`."""
        cdef MeasureKernels* kernels = find_measure(self.table, measure)
        cdef double[:, ::1] norms = np.zeros((self.count, 2))
        cdef Py_ssize_t t, threads
        if not self.is_open:
            raise RuntimeError("gradients must be open")
        self.work.raw, self.work.until_nan = hypers is None, measure == "finite"
        if hypers is not None:
            self.fill(list(hypers))
        self.work.measure = kernels
        try:
            threads = self.reserve()
            self.run(threads)
            for t in range(self.count):
                find_norms(&self.work, t, exponent, &norms[t, 0], &norms[t, 1])
        finally:
            self.work.measure, self.work.raw, self.work.until_nan = NULL, False, False
        return np.asarray(norms)

    def flush(self):
        """Bring all rows up to date, in a pass over the tables of which any row has missed a step.

        The turn is the caller's business, as it is with all settings.
        """
        self.flush_rows()

    cdef int open(self, gradients, bint once) except -1:
        cdef Py_ssize_t i
        if not isinstance(gradients, (tuple, list)):
            raise TypeError(
                f"gradients must be a tuple or list with one entry per parameter, got {type(gradients).__name__}")
        opened = tuple(gradients)
        if len(opened) != self.count:
            raise ValueError(
                f"gradients must have one entry per parameter, {self.count} in all, got {len(opened)}")
        if self.is_open and self.open_forks == count_forks():
            raise RuntimeError("an optimizer takes one step at a time, but this thread is inside a step of this one")
        self.opened, self.is_open, self.open_forks = opened, True, count_forks()
        self.fills_tables = self.work.factoring = self.work.flushing = False
        try:
            for i in range(self.count):
                self.open_gradient(i, opened[i], once)
        except BaseException:
            self.close()
            raise
        return 0

    cdef int open_gradient(self, Py_ssize_t i, gradient, bint once) except -1:
        cdef Task* task = &self.work.tasks[i]
        task.present = gradient is not None and not self.frozen_view[i]
        task.rows = NULL
        if not task.present:
            return 0
        if not self.is_at_home(i):
            self.find_home(i)
        if not self.take(i, gradient):
            if is_rows(gradient):
                return self.open_rows(i, gradient, once)
            gradient = self.convert(i, gradient)
            self.converted.append(gradient)
            self.take(i, gradient)
        if not self.is_apart(i, task.arrays.g, task.size * gradient_size(task)):
            gradient = gradient.copy()
            self.converted.append(gradient)
            self.take(i, gradient)
        return 0

    cdef bint take(self, Py_ssize_t i, gradient) noexcept:
        """Take a gradient as it is, if it is an array that fits."""
        cdef const Door* door = &self.doors[i]
        return (
            PyArray_CheckExact(gradient)        # others may mean more than their memory: a mask
            and PyArray_NDIM(<ndarray>gradient) == door.ndim
            and same_axes(PyArray_DIMS(<ndarray>gradient), door.shape, 0, door.ndim)
            and take_array(<ndarray>gradient, &self.work.tasks[i], door)
        )

    cdef bint is_at_home(self, Py_ssize_t i) noexcept:
        """Tell whether a parameter is where, and what, it was when the plan noted it."""
        cdef const Door* door = &self.doors[i]
        return (
            data_of(door.source) == self.work.tasks[i].arrays.w
            and (not self.writes or flags_of(door.source) & IN_PLACE == IN_PLACE)
            and ndim_of(door.source) == door.ndim
            and same_axes(dims_of(door.source), door.shape, 0, door.ndim)
            and dtype_of(door.source) == door.dtype
        )

    cdef int find_home(self, Py_ssize_t i) except -1:
        """Follow a parameter to other memory, or say what somebody has done to its array."""
        source, home = self.sources[i], self.homes[i]
        what = f"parameter {self.names[i]!r} must stay as it was when the optimizer was made"
        if source.shape != home.shape or source.dtype != self.dtypes[i]:
            raise ValueError(
                f"{what}: of shape {home.shape} and dtype {self.dtypes[i]}, got {source.shape} and {source.dtype}")
        if source is not self.parameters[i]:
            if PyArray_DATA(<ndarray?>source) != self.work.tasks[i].arrays.w:
                raise ValueError(f"{what}: in the same memory, got an array that has been given other memory")
            if not source.flags.writeable:
                raise ValueError(f"{what}: writable, got an array that has been made read-only")
        elif not source.flags.writeable and self.writes:
            raise ValueError(f"{what}: writable, got an array that has been made read-only")
        self.replace(i, self.parameters[i])
        return 0

    cdef bint is_apart(self, Py_ssize_t i, const void* start, Py_ssize_t nbytes) noexcept:
        """Tell whether a step writes none of these bytes. What was found apart last time is remembered."""
        cdef Door* door = &self.doors[i]
        cdef const char* stop = <const char*>start + nbytes
        cdef Py_ssize_t low = 0, high = self.n_spans, middle
        if start == door.apart and nbytes <= door.apart_bytes:
            return True
        while low < high:                   # the first span that ends behind the start
            middle = (low + high) // 2
            if self.spans[middle].stop <= <const char*>start:
                low = middle + 1
            else:
                high = middle
        if low < self.n_spans and self.spans[low].start < stop:
            return False
        door.apart, door.apart_bytes = start, nbytes
        return True

    cdef int open_rows(self, Py_ssize_t i, gradient, bint once) except -1:
        """Take a row gradient: merge its rows and check their range, without touching the parameter."""
        cdef Task* task = &self.work.tasks[i]
        cdef RowGradient rows
        if self.row_gradients[i] is None:
            self.row_gradients[i] = RowGradient(f"gradients[{i}], of parameter {self.names[i]!r},")
        rows = self.row_gradients[i]
        if not self.takes_rows or self.has_matrices:
            raise self.not_dense(i, gradient)
        self.met_rows = True
        shape = getattr(gradient, "dense_shape", None)      # of a stranger it may be an array, or missing
        if not (
            isinstance(shape, tuple) and shape == self.parameters[i].shape
            and rows.take(task, &self.doors[i], gradient.indices, gradient.values)
        ):
            indices, values = convert_rows(gradient, self.parameters[i], rows.name)
            rows.take(task, &self.doors[i], indices, values)
        # rows that a pass measures, centralizes or spreads over a table lie one behind the other
        rows.arrange(
            task, &self.doors[i], self.merge or not self.lazy, not self.merge,
            once and self.lazy and not task.centralized)
        nbytes = task.n_values * task.width * gradient_size(task)
        if not self.is_apart(i, task.arrays.g, nbytes):
            values = rows.values.copy()
            self.converted.append(values)
            task.arrays.g = PyArray_DATA(<ndarray?>values)
        task.lazy = self.lazy
        if self.catching_up and task.backlog == NULL and task.size:
            task.backlog = new_backlog(task.table_rows)
            if task.backlog == NULL:
                raise MemoryError()
        if not task.lazy:
            self.fills_tables = True
            rows.fill_buckets(task)
            self.work.scratch_length = max(self.work.scratch_length, task.bucket_length)
        return 0

    cdef int refuse_rows(self) except -1:
        cdef Py_ssize_t i
        if self.met_rows:
            for i in range(self.count):
                if self.work.tasks[i].present and self.work.tasks[i].rows != NULL:
                    raise self.not_dense(i, self.opened[i])
        return 0

    cdef object not_dense(self, Py_ssize_t i, gradient):
        return TypeError(
            f"gradients[{i}], of parameter {self.names[i]!r}, must be dense: this optimizer looks at whole parameters, "
            f"got {gradient!r}")

    cdef object convert(self, Py_ssize_t i, gradient):
        """Copy a gradient of another float dtype or memory order, or say why it cannot be one."""
        parameter = self.parameters[i]
        name = f"gradients[{i}], of parameter {self.names[i]!r},"
        array = as_floats(gradient, name)
        if array.shape != parameter.shape:
            raise ValueError(f"{name} must have shape {parameter.shape}, got {array.shape}{pair_hint(gradient)}")
        same = array.dtype.name == parameter.dtype.name
        return converted(array, parameter.dtype if same else compute_dtype(parameter.dtype))

    cdef void close(self) noexcept:
        if self.met_rows:
            for rows in self.row_gradients:
                if rows is not None:
                    (<RowGradient>rows).release()
            self.met_rows = False
        self.converted.clear()
        self.opened = None
        self.is_open = False

    cdef bint has_run_python(self) noexcept:
        return len(self.converted) > 0 or self.met_rows

    cdef int check_homes(self) except -1:
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.work.tasks[i].present and not self.is_at_home(i):
                raise RuntimeError(f"parameter {self.names[i]!r} must not be changed within a step")
        return 0

    cdef int use_lazily(self, use_lazy) except -1:
        cdef bint catch_up = use_lazy == "catch_up"
        if catch_up != self.catching_up:
            self.catch_up = catch_up
        self.lazy = bool(use_lazy)
        return 0

    cdef int fill_decay_and_scale(self, list decay, scale) except -1:
        cdef Py_ssize_t i
        cdef double number
        if decay is not None:
            for i in range(self.count):
                self.decay_view[i] = decay[i]
        if scale is not None:
            number = scale
            for i in range(self.count):
                self.scale_view[i] = number
        return 0

    cdef int update(self, list hypers) except -1:
        cdef Py_ssize_t threads
        self.fill(hypers)
        if self.work.adaptation != NOT_ADAPTED:
            self.refuse_rows()
        threads = self.reserve()
        if self.catching_up:
            self.reserve_steps()
        # From here on nothing fails, and no Python code runs in this thread.
        if self.catching_up:
            self.note_step()
        if self.work.adaptation == NOT_ADAPTED:
            self.run(threads)
        else:
            self.run_adapted(threads)
        if self.catching_up:
            self.clear_backlogs()
        self.book_numbers()
        return 0

    cdef int fill(self, list hypers) except -1:
        cdef Py_ssize_t r, i
        cdef int k
        cdef double number
        cdef Py_ssize_t n_hypers = self.n_rates * (1 + self.has_first_steps)
        for i in range(self.count):
            if not 0 <= self.rows_view[i] < self.n_rates:
                raise ValueError(f"rows[{i}] must be in [0, {self.n_rates}), got {self.rows_view[i]}")
            self.hyper_rows[i] = self.rows_view[i]
            if self.has_first_steps:
                self.hyper_rows[i] = 2 * self.rows_view[i] + (self.flags[i] != 0)
        if len(hypers) != n_hypers:
            raise ValueError(f"hypers must have {n_hypers} rows, got {len(hypers)}")
        self.work.n_hypers = n_hypers
        for r in range(n_hypers):
            row = <tuple?>hypers[r]
            if len(row) != self.rule.hypers:
                raise ValueError(f"hypers[{r}] must have {self.rule.hypers} numbers, got {len(row)}")
            for k in range(self.rule.hypers):
                number = row[k]
                if number != number:
                    raise ValueError(f"hypers[{r}] of rule {self.rule_name!r} must be numbers, got {row}")
                self.work.hypers[r * MAX_HYPERS + k] = clamp(number, -DBL_MAX, DBL_MAX)
                self.work.hypers[(n_hypers + r) * MAX_HYPERS + k] = in_float32(number)
        return 0

    cdef void book_numbers(self) noexcept:
        """Let the numbers advance that `book` was told of."""
        cdef Entry* entry
        cdef Py_ssize_t i
        cdef int k
        for k in range(self.n_entries):
            entry = &self.entries[k]
            if k == 0 and self.has_flags and not self.has_first_steps:
                continue                    # the flags wait for a rule that has first steps
            if not entry.own:
                memcpy(entry.live, entry.next, entry.count * entry.size)
                continue
            for i in range(self.count):
                if self.work.tasks[i].present:
                    memcpy(entry.live + i * entry.size, entry.next + i * entry.size, entry.size)

    # ---- rows that have missed steps

    cdef void drop_backlogs(self) noexcept:
        cdef Py_ssize_t i
        for i in range(self.count):
            free_backlog(self.work.tasks[i].backlog)
            self.work.tasks[i].backlog = NULL
            self.work.tasks[i].n_missed = 0

    cdef int flush_rows(self) except -1:
        cdef Py_ssize_t i, threads
        cdef Task* task
        if not self.catching_up:
            return 0
        for i in range(self.count):
            task = &self.work.tasks[i]
            task.n_missed = 0 if task.backlog == NULL else task.backlog.n_steps
            task.present, task.rows = task.n_missed > 0, NULL
            if task.present and not self.is_at_home(i):
                self.find_home(i)
        self.fills_tables = False
        self.work.flushing = True
        try:
            threads = self.reserve()
            self.run(threads)
            self.clear_backlogs()
        finally:
            self.work.flushing = False
        return 0

    cdef int reserve_steps(self) except -1:
        """Make room for this step in the backlogs of all tables, so that `note_step` cannot fail."""
        cdef Py_ssize_t i
        cdef Task* task
        cdef bint mapped = self.work.coast == COAST_DECAYED_MOMENTUM
        for i in range(self.count):
            task = &self.work.tasks[i]
            if task.backlog == NULL:
                continue
            if self.work.decay_absent and self.decay_view[i] != 0 and (task.centralized or not mapped):
                raise ValueError(
                    f"decay of {self.names[i]!r} must be 0 while absent rows are decayed and catch up, unless the rule "
                    f"is one of momentum and gradients are not centralized, got {self.decay_view[i]}")
            if reserve_step(task.backlog, mapped) != 0:
                raise MemoryError(f"no room for what rows of {self.names[i]!r} have missed, until the next flush()")
        return 0

    cdef void note_step(self) noexcept:
        """Enter this step into the backlogs of the tables that get rows of a gradient."""
        cdef Py_ssize_t i
        cdef Task* task
        cdef const double* hyper
        for i in range(self.count):
            task = &self.work.tasks[i]
            if task.backlog == NULL:
                continue
            task.n_missed = task.backlog.n_steps
            if task.present and task.rows != NULL:
                hyper = &self.work.hypers[self.hyper_rows[i] * MAX_HYPERS]
                if self.work.coast == COAST_DECAYED_MOMENTUM:
                    add_map(task.backlog, decayed_step(
                        self.rule, hyper, self.work.nesterov, self.decay_view[i] * self.scale_view[i]))
                else:
                    add_step(task.backlog, hyper[0])

    cdef void clear_backlogs(self) noexcept:
        """Forget the steps that a pass over whole tables has made up for."""
        cdef Py_ssize_t i
        cdef Task* task
        for i in range(self.count):
            task = &self.work.tasks[i]
            if task.backlog != NULL and task.present and task.rows == NULL:
                clear_backlog(task.backlog)

    # ---- passes

    cdef Py_ssize_t reserve(self) except -1:
        """Cut the work and get all memory that its passes take; return how many threads they may have."""
        cdef bint adapted = self.work.adaptation != NOT_ADAPTED and self.work.measure == NULL
        cdef Py_ssize_t threads
        arrange(&self.work, 0, self.count)
        # passes that follow each other share the scratch
        threads = allowed_threads() if adapted else threads_for(self.work.n_elements)
        if adapted or self.work.measure != NULL:
            self.make_room_for_squares()
        if self.has_matrices or self.fills_tables:
            self.make_room_for_scratch(threads)
        return threads

    cdef void run(self, Py_ssize_t threads) noexcept:
        if self.work.measure != NULL and self.work.n_chunks > 0:
            memset(self.work.squares, 0, SUMS * self.work.n_chunks * sizeof(double))
        run_blocks(run_block, &self.work, self.work.n_blocks, threads)

    cdef void run_adapted(self, Py_ssize_t threads) noexcept:
        """Measure and update portion by portion."""
        cdef Py_ssize_t first = 0, last
        while first < self.count:
            last = end_of_portion(&self.work, first)
            if self.has_matrices:
                self.work.factoring = True
                self.run_portion(first, last, threads)
                with nogil:
                    combine_parts(&self.work, first, last)
                self.work.factoring = False
            self.work.measure, self.work.raw = self.adaptation_measure, self.adaptation_is_raw
            self.run_portion(first, last, threads)
            adapt(&self.work, first, last)
            self.work.measure, self.work.raw = NULL, False
            self.run_portion(first, last, threads)
            first = last

    cdef void run_portion(self, Py_ssize_t first, Py_ssize_t last, Py_ssize_t threads) noexcept:
        arrange(&self.work, first, last)
        self.run(min(threads, threads_for(self.work.n_elements)))

    cdef int make_room_for_squares(self) except -1:
        if self.work.squares == NULL or self.room_for_squares < self.work.n_chunks:
            PyMem_Free(self.work.squares)
            self.work.squares, self.room_for_squares = NULL, 0
            self.work.squares = <double*>allocate(self.work.n_chunks, SUMS * sizeof(double))
            self.room_for_squares = self.work.n_chunks
        return 0

    cdef int make_room_for_scratch(self, Py_ssize_t threads) except -1:
        cdef Py_ssize_t room = threads * self.work.scratch_length
        if self.room_for_scratch < room:
            PyMem_Free(self.work.scratch)
            self.work.scratch, self.room_for_scratch = NULL, 0
            self.work.scratch = <char*>allocate(room, sizeof(double))
            self.room_for_scratch = room
        return 0


def norm_of(const double[:, ::1] norms):
    """Return the norm of all gradients, from the norms that `Plan.measure` has found; NaN if one of them is.

    No function of NumPy reduces an array here: without memory, those of NumPy 2 raise a SystemError.
    """
    cdef double most = 0, total = 0
    cdef int exponent = 0
    cdef Py_ssize_t i
    for i in range(norms.shape[0]):
        if norms[i, 1] != norms[i, 1]:
            return norms[i, 1]
        most = max(most, norms[i, 1])
    if most == 0 or most > DBL_MAX:
        return most
    if not 1e-140 < most < 1e140:
        frexp(most, &exponent)
    for i in range(norms.shape[0]):
        total += ldexp(norms[i, 1], -exponent) * ldexp(norms[i, 1], -exponent)
    return ldexp(sqrt(total), exponent)


def convert_rows(gradient, parameter, name):
    """Return indices and values of a row gradient as the kernels read them, or say why that cannot be."""
    indices, values, _ = as_rows(gradient, name, parameter.shape)
    same = values.dtype.name == parameter.dtype.name
    values = converted(values, parameter.dtype if same else compute_dtype(parameter.dtype))
    return converted(indices, np.dtype(np.int64)), values


cdef double in_float32(double x) noexcept:
    """Return a number that is finite in float32, and 0 if it rounds to that; its digits stay."""
    x = clamp(x, -<double>FLT_MAX, <double>FLT_MAX)
    return 0 if <float>x == 0 else x


cdef void* allocate(Py_ssize_t count, size_t size) except NULL:
    cdef void* memory = PyMem_Calloc(max(count, 1), size)
    if memory == NULL:
        raise MemoryError()
    return memory
