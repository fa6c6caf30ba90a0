# cython: language_level=3, cdivision=True
"""Driver: from Python arrays to the kernels of the active ISA build, one crossing per step.

A `Plan` is built once per optimizer and holds what does not change from step to step: pointers, sizes, flags.
`Plan.step` checks and fills in the gradients, then runs the work without the GIL.
"""
import os
from zlib import crc32

import numpy as np

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memset
from numpy cimport PyArray_Check, PyArray_DIMS, PyArray_NDIM, ndarray

from .backlog cimport (
    COAST_ADAM, COAST_AMSGRAD, COAST_MOMENTUM, add_step, clear_backlog, free_backlog, new_backlog, reserve_step
)
from .crew cimport allowed_threads, run_blocks, threads_for
from .isa cimport active_table, find_measure, find_rule
from .storage cimport BFLOAT16, BFLOAT16_MIXED, FLOAT16, FLOAT16_MIXED, FLOAT32, FLOAT64
from .table cimport KernelTable, MeasureKernels, RuleKernels
from .row_gradient cimport Door, RowGradient, take_array
from .work cimport (
    ADAPTED_BY_ADAFACTOR, ADAPTED_BY_LAMB, ADAPTED_BY_LARS, CHUNK, MAX_HYPERS, MAX_NUMBERS, NOT_ADAPTED, Matrices,
    Segment, Task, Work, adapt, arrange, combine_parts, end_of_portion, find_sums, mixed,
    run_block
)

from optimcore.kernels.arrays import as_bits, as_floats, as_indices, compute_dtype, converted, is_rows

cdef enum:
    PART_ROWS = 64          # at least, of a matrix that is cut: its sums of columns take little memory beside it

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept

cdef long forks = 0         # that led from the process which imported this module to this one


def _count_fork():
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


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


def can_catch_up(rule):
    """Tell whether `Plan.catch_up` may be set for this rule."""
    return rule in _ABSENT_RULES


cdef class Plan:
    """The parameters of one optimizer, ready to be updated by one rule.

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

    Attributes
    ----------
    decay : ndarray of float64, shape (n,)
        Weight decay times loss scale of each parameter, 0 for none. May be written between steps.
    scale : ndarray of float64, shape (n,)
        Reciprocal of the loss scale for each parameter, 1 at first. May be written between steps.
    adaptation_numbers : ndarray of float64, shape (n, 8)
        What the adaptation needs to know of each parameter, in the order of its struct. May be written between steps.
    rows : ndarray of intc, shape (n,)
        May be written between steps.
    clip : float
        Factor of all gradients before anything else, 1 at first. May be set between steps.
    catch_up : bool
        With lazy: whether a row that comes back first receives the steps with a gradient of 0 that it has missed,
        computed with this step's hypers but each with its own rate. False at first. Setting it brings all rows up to
        date. Only for rules for which `can_catch_up` is true.
    takes_rows, lazy, merge : bool
        Whether row gradients are taken (False at first); whether rows without a gradient stay as they are, or take a
        step with a gradient of 0; whether rows that share an index are summed first (without lazy they always are).
        May be set between steps.
    """
    cdef Work work
    cdef Door* doors
    cdef RuleKernels* rule
    cdef Py_ssize_t count
    cdef Py_ssize_t room_for_squares
    cdef Py_ssize_t room_for_scratch
    cdef MeasureKernels* adaptation_measure
    cdef bint adaptation_is_raw
    cdef int n_hypers
    cdef bint busy
    cdef unsigned long thread       # that is busy with it
    cdef long forks                 # how many there had been when it began
    cdef object held                # the gradients that stay open for several passes,
    cdef int holds                  # and how many wait for them to be released
    cdef object interruption        # of a step that was finished nevertheless
    cdef readonly object decay
    cdef readonly object scale
    cdef readonly object adaptation_numbers
    cdef readonly object rows
    cdef double[::1] decay_view
    cdef double[::1] scale_view
    cdef double[:, ::1] numbers_view
    cdef int[::1] rows_view
    cdef uint64_t[::1] keys
    cdef KernelTable* table
    cdef bint has_matrices
    cdef bint writes                # the rule writes the parameters
    cdef tuple names
    cdef tuple parameters
    cdef list pinned                # memoryviews that keep parameters and slots where they are
    cdef tuple opened               # the gradients that a pass reads: nobody frees them meanwhile, nor
    cdef list converted             # copies of some of them
    cdef bint fills_tables          # a row gradient of this step is not lazy
    cdef bint met_rows              # a gradient of this step is one of rows
    cdef list row_gradients         # a RowGradient for each parameter that has met one
    cdef public bint takes_rows     # the rule has a step on rows
    cdef public bint lazy           # rows without a gradient stay as they are
    cdef bint catching_up
    cdef public bint merge          # rows that share an index are summed first

    def __cinit__(self, rule, names, parameters, slots, centralize, rows=None, row_means=None):
        cdef Py_ssize_t i
        self.table = active_table()
        self.rule = NULL if rule is None else find_rule(self.table, rule)
        self.writes = rule not in (None, "gradient")
        self.count = len(parameters)
        self.names, self.parameters = tuple(names), tuple(parameters)
        self.pinned, self.converted = [], []
        if len(slots) != (self.rule.slots if rule is not None else 0):
            raise ValueError(f"slots must be {self.rule.slots} for {rule}, got {len(slots)}")
        self.decay, self.scale = np.zeros(self.count), np.ones(self.count)
        self.adaptation_numbers = np.zeros((self.count, MAX_NUMBERS))
        self.rows = np.zeros(self.count, np.intc) if rows is None else np.array(rows, np.intc)
        self.decay_view, self.scale_view, self.numbers_view = self.decay, self.scale, self.adaptation_numbers
        self.rows_view = self.rows
        self.keys = np.array([crc32(name.encode()) for name in names], np.uint64)
        self.n_hypers = self.rows.max(initial=0) + 1

        self.doors = <Door*>allocate(self.count, sizeof(Door))
        self.work.tasks = <Task*>allocate(self.count, sizeof(Task))
        self.work.segments = <Segment*>allocate(self.count, sizeof(Segment))
        self.work.n_tasks = self.count
        self.row_gradients = [None] * self.count
        self.merge = self.lazy = True
        self.work.hypers = <double*>allocate(self.n_hypers * MAX_HYPERS, sizeof(double))
        if self.count:
            self.work.decay, self.work.scale = &self.decay_view[0], &self.scale_view[0]
            self.work.numbers, self.work.hyper_rows = &self.numbers_view[0, 0], &self.rows_view[0]
            self.work.keys = &self.keys[0]
        self.work.rule, self.work.total, self.work.clip = self.rule, self.table.total, 1
        self.work.gradient = find_rule(self.table, "gradient").update
        self.work.square_sums = self.table.square_sums
        self.work.factors32, self.work.factors64 = self.table.factors32, self.table.factors64
        for i in range(self.count):
            means = None if row_means is None else row_means[i]
            self.add_task(i, [slot[i] for slot in slots], centralize[i], means)

    def __dealloc__(self):
        if self.work.tasks != NULL:     # else the constructor has failed
            self.drop_backlogs()
        PyMem_Free(self.doors)
        PyMem_Free(self.work.tasks)
        PyMem_Free(self.work.hypers)
        PyMem_Free(self.work.segments)
        PyMem_Free(self.work.squares)
        PyMem_Free(self.work.scratch)

    @property
    def decoupled(self):
        """Whether the rule decays the parameter itself instead of through its gradient."""
        return self.rule != NULL and bool(self.rule.decoupled)

    @property
    def clip(self):
        return self.work.clip

    @clip.setter
    def clip(self, double value):
        self.work.clip = value

    @property
    def catch_up(self):
        return self.catching_up

    @catch_up.setter
    def catch_up(self, bint value):
        self.flush()
        if value:
            rule, coast, nesterov = _ABSENT_RULES[self.rule.name.decode()]
            self.work.absent, self.work.coast, self.work.nesterov = find_rule(self.table, rule), coast, nesterov
        else:
            self.drop_backlogs()
        self.catching_up = value

    cdef void drop_backlogs(self) noexcept:
        cdef Py_ssize_t i
        for i in range(self.count):
            free_backlog(self.work.tasks[i].backlog)
            self.work.tasks[i].backlog = NULL
            self.work.tasks[i].n_missed = 0

    def flush(self):
        """Bring all rows up to date, in a pass over the tables of which any row has missed a step."""
        cdef Py_ssize_t i
        cdef Task* task
        self.enter(None)
        try:
            self.work.measure, self.work.raw, self.work.until_nan, self.work.flushing = NULL, False, False, True
            for i in range(self.count):
                task = &self.work.tasks[i]
                task.n_missed = 0 if task.backlog == NULL else task.backlog.n_steps
                task.present, task.rows = task.n_missed > 0, NULL
            self.run()
        finally:
            self.work.flushing = False
            self.clear_backlogs()
            self.leave()

    cdef int note_step(self) except -1:
        """Enter this step into the backlogs of the tables that get rows of a gradient: all of them, or none."""
        cdef Py_ssize_t i
        cdef Task* task
        for i in range(self.count):
            task = &self.work.tasks[i]
            if task.backlog != NULL and reserve_step(task.backlog) != 0:
                raise MemoryError(f"no room for what rows of {self.names[i]!r} have missed, until the next flush()")
        for i in range(self.count):
            task = &self.work.tasks[i]
            if task.backlog != NULL:
                task.n_missed = task.backlog.n_steps
                if task.present and task.rows != NULL:
                    add_step(task.backlog, self.work.hypers[self.rows_view[i] * MAX_HYPERS])
        return 0

    cdef void clear_backlogs(self) noexcept:
        """Forget the steps that a pass over whole tables has made up for."""
        cdef Py_ssize_t i
        cdef Task* task
        for i in range(self.count):
            task = &self.work.tasks[i]
            if task.backlog != NULL and task.present and task.rows == NULL:
                clear_backlog(task.backlog)

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

    cdef int add_task(self, Py_ssize_t i, list slots, bint centralize, row_means) except -1:
        cdef Task* task = &self.work.tasks[i]
        cdef Door* door = &self.doors[i]
        parameter = self.parameters[i]
        shapes = [parameter.shape] * len(slots)
        if row_means is not None:
            if not (self.rule.matrix and parameter.ndim > 1) or centralize:
                raise ValueError(
                    f"row_means of {self.names[i]!r} must be None except for a rule over matrices, two axes or more, "
                    "and no centralization")
            slots, shapes = [*slots, row_means], [*shapes, parameter.shape[:-1]]
            shapes[0] = parameter.shape[:-2] + parameter.shape[-1:]
        self.check_slots(i, slots, shapes)
        task.arrays.w = self.pin(i, parameter)
        door.ndim = PyMemoryView_GET_BUFFER(self.pinned[-1]).ndim
        door.shape = PyMemoryView_GET_BUFFER(self.pinned[-1]).shape
        if len(slots) > 0:
            task.arrays.slot0 = self.pin(i, slots[0])
        if len(slots) > 1:
            task.arrays.slot1 = self.pin(i, slots[1])
        if len(slots) > 2:
            task.arrays.slot2 = self.pin(i, slots[2])
        door.layout, door.compute_layout = _LAYOUTS[parameter.dtype.name]
        door.type, door.compute_type = parameter.dtype.num, compute_dtype(parameter.dtype).num
        task.decay = task.scale = task.trust = 1
        task.size = parameter.size
        task.table_rows = parameter.shape[0] if parameter.ndim else 1
        task.width = task.size // task.table_rows if task.size else 0
        task.centralized = centralize and task.size > 0
        if row_means is not None and task.size > 0:
            task.arrays.slot0 = NULL
            self.add_matrices(i, slots[0], row_means)
        return 0

    cdef int check_slots(self, Py_ssize_t i, list slots, list shapes) except -1:
        compute = compute_dtype(self.parameters[i].dtype)
        for slot, shape in zip(slots, shapes):
            if slot.shape != shape or slot.dtype != compute:
                raise ValueError(
                    f"slots of {self.names[i]!r} must have shape {shape} and dtype {compute}, "
                    f"got {slot.shape} and {slot.dtype}")
        return 0

    cdef int add_matrices(self, Py_ssize_t i, column_means, row_means) except -1:
        cdef Task* task = &self.work.tasks[i]
        cdef Matrices* m = &task.matrices
        cdef Py_ssize_t size
        cdef double[::1] row, column
        self.has_matrices = True
        m.row_means, m.column_means = self.pin(i, row_means), self.pin(i, column_means)
        m.rows, m.columns = self.parameters[i].shape[-2:]
        size = m.rows * m.columns
        m.length, m.parts = max(PART_ROWS, CHUNK // m.columns) * m.columns, 1
        if m.length < size:
            m.parts = (size + m.length - 1) // m.length
        else:
            m.length = max(1, CHUNK // size) * size
        row = np.empty(task.size // m.columns)
        column = np.empty(task.size // size * m.parts * m.columns)
        self.pinned += [row, column]
        m.row, m.column = &row[0], &column[0]
        return 0

    cdef void* pin(self, Py_ssize_t i, array) except? NULL:
        flags = array.flags
        writable = flags.writeable or not self.writes
        if not (writable and flags.c_contiguous and flags.aligned and array.dtype.isnative):
            raise ValueError(
                f"parameter {self.names[i]!r} and its slots must be writable, C-contiguous, aligned and of native byte "
                "order")
        view = memoryview(as_bits(array))
        self.pinned.append(view)
        return PyMemoryView_GET_BUFFER(view).buf

    def step(self, gradients, hypers):
        """Update every parameter once.

        Parameters
        ----------
        gradients : tuple or list
            One entry per parameter: an array of its shape and any float dtype, or None to skip the parameter. Read
            only. A gradient of another dtype than the parameter's and its compute dtype, or one that is not
            C-contiguous, costs a copy.
        hypers : sequence of tuples of float
            The hyperparameters of this step: one tuple for each row, in the order of the rule's struct.

        Raises
        ------
        TypeError, ValueError
            If a gradient does not fit its parameter, or `hypers` not the rule. Nothing was changed then.
        RuntimeError
            If another thread is inside a step of this plan.
        """
        cdef bint held = self.enter(gradients)
        try:
            self.work.measure, self.work.raw, self.work.until_nan = NULL, False, False
            self.fill(hypers)
            if not held:
                self.collect(gradients, True)
            if self.work.adaptation != NOT_ADAPTED:
                self.refuse_rows()
            if self.catching_up:
                self.note_step()
            try:
                if self.work.adaptation == NOT_ADAPTED:
                    self.run()
                else:
                    self.run_adapted()
            finally:            # the work is done even if something interrupts it
                if self.catching_up:
                    self.clear_backlogs()
        finally:
            if not held:
                self.leave()

    def adapt(self, how):
        """Let steps first measure each parameter as a whole, and make of it factors of its decay, scale and rate.

        A step does so with a few parameters at a time, and updates them while the cache has them. Gradients must be
        dense then.

        Parameters
        ----------
        how : {'lamb', 'lars', 'adafactor'} or None
            None: no longer. What each needs to know is in `adaptation_numbers`.
        """
        cdef Py_ssize_t t
        if how is None:
            self.work.adaptation = NOT_ADAPTED
        else:
            self.work.adaptation, measure, self.adaptation_is_raw = _ADAPTATIONS[how]
            self.adaptation_measure = find_measure(self.table, measure)
        for t in range(self.count):
            self.work.tasks[t].decay = self.work.tasks[t].scale = self.work.tasks[t].trust = 1

    def hold(self, gradients):
        """Open gradients for several passes: ``with plan.hold(gradients): ...``.

        Inside, passes of this thread with the same object do not open them again, and other threads are refused.
        Raises what `step` raises of gradients.
        """
        if not self.enter(gradients):
            try:
                self.collect(gradients)
            except BaseException:
                self.leave()
                raise
            self.held = gradients
        self.holds += 1
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.holds -= 1
        if self.holds == 0:
            self.leave()

    def measure(self, measure, gradients, hypers=None):
        """Sum the squares of two quantities over each parameter, in a pass that only reads.

        Parameters
        ----------
        measure : {'norm', 'gradient_norm', 'finite', ...}
            'norm': the parameter and the gradient as it came. 'gradient_norm': 0 and that gradient. 'finite': 0 and,
            unless all of the gradient is finite, NaN; it stops at the first NaN that it meets. Others belong to a rule,
            and see what the rule would see.
        gradients, hypers
            As for `step`; these three need no hypers.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            Accumulated in float64 and in a fixed order; 0 for a parameter without a gradient. For a row gradient, whose
            rows count after merging, the first of the two has no meaning.
        """
        cdef MeasureKernels* kernels = find_measure(self.table, measure)
        cdef double[:, ::1] sums = np.zeros((self.count, 2))
        cdef Py_ssize_t t
        cdef bint held = self.enter(gradients)
        try:
            self.work.measure = kernels
            self.work.raw, self.work.until_nan = hypers is None, measure == "finite"
            if hypers is not None:
                self.fill(hypers)
            if not held:
                self.collect(gradients)
            self.run()
            for t in range(self.count):
                find_sums(&self.work, t, &sums[t, 0], &sums[t, 1])
        finally:
            if not held:
                self.leave()
        return np.asarray(sums)

    cdef bint enter(self, gradients) except? True:
        """Begin a pass; return whether the gradients are open already. One thread at a time may be inside."""
        if self.busy:
            if self.forks != forks:         # the thread that was inside stayed behind in the parent
                self.leave()
                self.work.factoring = self.work.flushing = False
                self.interruption = None
            elif self.held is not None and self.held is gradients and self.thread == PyThread_get_thread_ident():
                return True
            else:
                raise RuntimeError(
                    "an optimizer takes one step at a time, but another thread is inside a step of this one")
        self.busy, self.thread, self.forks = True, PyThread_get_thread_ident(), forks
        return False

    cdef void leave(self) noexcept:
        if self.met_rows:
            for rows in self.row_gradients:
                if rows is not None:
                    (<RowGradient>rows).release()
            self.met_rows = False
        self.converted.clear()
        self.opened = self.held = None
        self.holds = 0
        self.busy = False

    cdef int fill(self, hypers) except -1:
        cdef Py_ssize_t r
        cdef int k
        if len(hypers) != self.n_hypers:
            raise ValueError(f"hypers must have {self.n_hypers} rows, got {len(hypers)}")
        for r in range(self.n_hypers):
            row = <tuple?>hypers[r]
            if len(row) != self.rule.hypers:
                raise ValueError(f"hypers[{r}] must have {self.rule.hypers} numbers, got {len(row)}")
            for k in range(self.rule.hypers):
                self.work.hypers[r * MAX_HYPERS + k] = row[k]
        return 0

    cdef int collect(self, gradients, bint stepping=False) except -1:
        """Open every gradient, or none. `stepping`: for one step and no other pass."""
        cdef Py_ssize_t i
        cdef Task* task
        if not isinstance(gradients, (tuple, list)):
            raise TypeError(
                f"gradients must be a tuple or list with one entry per parameter, got {type(gradients).__name__}")
        self.opened = tuple(gradients)
        if len(self.opened) != self.count:
            raise ValueError(
                f"gradients must have one entry per parameter, {self.count} in all, got {len(self.opened)}")
        self.fills_tables = False
        for i in range(self.count):
            if not 0 <= self.rows_view[i] < self.n_hypers:
                raise ValueError(f"rows[{i}] must be in [0, {self.n_hypers}), got {self.rows_view[i]}")
            task = &self.work.tasks[i]
            gradient = self.opened[i]
            task.present = gradient is not None
            task.rows = NULL
            if task.present and not self.open(i, gradient):
                if is_rows(gradient):
                    self.open_rows(i, gradient, stepping)
                else:
                    gradient = self.convert(i, gradient)
                    self.converted.append(gradient)
                    self.open(i, gradient)
        return 0

    cdef bint open(self, Py_ssize_t i, gradient) noexcept:
        """Take a gradient as it is, if it is an array that fits."""
        cdef const Door* door = &self.doors[i]
        return (
            PyArray_Check(gradient)
            and PyArray_NDIM(<ndarray>gradient) == door.ndim
            and memcmp(PyArray_DIMS(<ndarray>gradient), door.shape, door.ndim * sizeof(Py_ssize_t)) == 0
            and take_array(<ndarray>gradient, &self.work.tasks[i], door)
        )

    cdef int open_rows(self, Py_ssize_t i, gradient, bint stepping) except -1:
        """Take a row gradient: merge its rows and check their range, without touching the parameter."""
        cdef Task* task = &self.work.tasks[i]
        cdef RowGradient rows
        if self.row_gradients[i] is None:
            self.row_gradients[i] = RowGradient(f"gradients[{i}], of parameter {self.names[i]!r},")
        rows = self.row_gradients[i]
        if not self.takes_rows or self.has_matrices:
            raise self.not_dense(i, gradient)
        self.met_rows = True
        if not (
            gradient.dense_shape == self.parameters[i].shape
            and rows.take(task, &self.doors[i], gradient.indices, gradient.values)
        ):
            indices, values = convert_rows(gradient, self.parameters[i], rows.name)
            rows.take(task, &self.doors[i], indices, values)
        # rows that a pass measures, centralizes or spreads over a table lie one behind the other
        rows.arrange(
            task, &self.doors[i], self.merge or not self.lazy, not self.merge,
            stepping and self.lazy and not task.centralized)
        task.lazy = self.lazy
        if self.catching_up and task.backlog == NULL and task.size:
            task.backlog = new_backlog(task.table_rows)
            if task.backlog == NULL:
                raise MemoryError()
        if not task.lazy:
            self.fills_tables = True
            rows.fill_buckets(task)
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
            raise ValueError(f"{name} must have shape {parameter.shape}, got {array.shape}")
        same = array.dtype.name == parameter.dtype.name
        return converted(array, parameter.dtype if same else compute_dtype(parameter.dtype))

    cdef int run(self) except -1:
        cdef Py_ssize_t threads
        arrange(&self.work, 0, self.count)
        threads = threads_for(self.work.n_elements)
        if self.work.measure != NULL:
            self.make_room_for_squares()
        if self.has_matrices or self.fills_tables:
            self.make_room_for_scratch(threads)
        return run_blocks(run_block, &self.work, self.work.n_blocks, threads)

    cdef int run_adapted(self) except -1:
        """Measure and update portion by portion. What interrupts it is raised when all of them are done."""
        cdef Py_ssize_t first = 0, last, threads = allowed_threads()    # the same in all passes: they share the scratch
        arrange(&self.work, 0, self.count)      # all of it, to get the memory for every portion beforehand
        self.make_room_for_squares()
        if self.has_matrices:
            self.make_room_for_scratch(threads)
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
        if self.interruption is not None:
            interruption, self.interruption = self.interruption, None
            raise interruption
        return 0

    cdef void run_portion(self, Py_ssize_t first, Py_ssize_t last, Py_ssize_t threads) noexcept:
        arrange(&self.work, first, last)
        if self.work.measure != NULL:
            memset(self.work.squares, 0, 2 * self.work.n_chunks * sizeof(double))
        try:
            threads = min(threads, threads_for(self.work.n_elements))
            run_blocks(run_block, &self.work, self.work.n_blocks, threads)
        except BaseException as error:          # raised after the work
            self.interruption = error

    cdef int make_room_for_squares(self) except -1:
        if self.room_for_squares < self.work.n_chunks:
            PyMem_Free(self.work.squares)
            self.work.squares, self.room_for_squares = NULL, 0
            self.work.squares = <double*>allocate(self.work.n_chunks, 2 * sizeof(double))
            self.room_for_squares = self.work.n_chunks
        memset(self.work.squares, 0, 2 * self.work.n_chunks * sizeof(double))
        return 0

    cdef int make_room_for_scratch(self, Py_ssize_t threads) except -1:
        if self.room_for_scratch < threads:
            PyMem_Free(self.work.scratch)
            self.work.scratch, self.room_for_scratch = NULL, 0
            self.work.scratch = <char*>allocate(threads, CHUNK * sizeof(double))
            self.room_for_scratch = threads
        return 0


def convert_rows(gradient, parameter, name):
    """Return indices and values of a row gradient as the kernels read them, or say why that cannot be."""
    indices, values = as_indices(gradient.indices, name), as_floats(gradient.values, name)
    if gradient.dense_shape != parameter.shape or values.shape != (len(indices), *parameter.shape[1:]):
        raise ValueError(
            f"{name} must have dense_shape {parameter.shape}, got {gradient.dense_shape} and values of shape "
            f"{values.shape}")
    same = values.dtype.name == parameter.dtype.name
    values = converted(values, parameter.dtype if same else compute_dtype(parameter.dtype))
    return converted(indices, np.dtype(np.int64)), values


cdef void* allocate(Py_ssize_t count, size_t size) except NULL:
    cdef void* memory = PyMem_Calloc(max(count, 1), size)
    if memory == NULL:
        raise MemoryError()
    return memory
