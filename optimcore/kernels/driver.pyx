# cython: language_level=3, cdivision=True
"""Driver: from Python arrays to the kernels of the chosen ISA, one crossing per step.

A `Plan` is built once per optimizer. It holds what does not change from step to step (pointers, sizes, the cut into
chunks); `Plan.step` checks and fills in the gradients, then runs every chunk without the GIL. Chunks do not depend
on the number of threads and no chunk reads what another one writes: any number of threads gives equal bits.
"""
import os
from importlib import import_module
from zlib import crc32

import numpy as np

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBuffer_Release
from cpython.exc cimport PyErr_Clear
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memset, strcmp

from .rules cimport Prologue
from .storage cimport (
    BFLOAT16, BFLOAT16_MIXED, FLOAT16, FLOAT16_MIXED, FLOAT32, FLOAT64, Arrays, Layout
)
from .table cimport KernelTable, MeasureKernels, RuleKernels, measure_f, total_f, update_f

from optimcore import runtime
from optimcore.kernels.arrays import as_floats, converted

cdef extern from "Python.h":
    # without the automatic exception: a gradient that does not fit is converted, not refused
    int PyObject_GetBuffer(object exporter, Py_buffer* view, int flags) noexcept

cdef extern from "platform.h":
    void yield_thread() noexcept nogil
    long fetch_add(long* counter, long amount) noexcept nogil
    bint cpu_has_avx2() noexcept nogil
    bint cpu_has_avx512() noexcept nogil

cdef enum:
    MAX_HYPERS = 8
    MAX_SLOTS = 3
    CHUNK = 1 << 14         # elements that a thread takes at once: the working set of a rule stays in the L2 cache
    BLOCK = 64              # chunks at most in one block, for optimizers with many small parameters

# Elements from which a second thread pays: waking it costs 15 to 40 microseconds, the time of about this much work.
THREAD_ELEMENTS = 1 << 18


# ---- ISA builds

_builds = {}                # name -> compiled module, narrowest first
_active = None


def _load_builds():
    supported = {"baseline": True, "avx2": cpu_has_avx2(), "avx512": cpu_has_avx512()}
    for name, has in supported.items():
        if has:
            try:
                _builds[name] = import_module(f"optimcore.kernels._isa_{name}")
            except ModuleNotFoundError:     # other architectures and compilers build the baseline alone
                continue


def available_isas():
    """Return the names of the ISA builds that this CPU can run, narrowest first."""
    return tuple(_builds)


def active_isa():
    """Return the name of the ISA build that new plans use."""
    return _active


def use_isa(name):
    """Let plans that are built from now on use the ISA build `name`.

    Raises
    ------
    ValueError
        If there is no such build, or the CPU lacks it.
    """
    global _active
    if name not in _builds:
        raise ValueError(
            f"OPTIMCORE_ISA must name an ISA build that this CPU can run ({', '.join(_builds)}), got {name!r}")
    _active = name


def compiler():
    """Return name and version of the compiler that made the active ISA build."""
    return _builds[_active].compiler


def flags():
    """Return the compiler flags of the active ISA build."""
    return _builds[_active].flags


_load_builds()
use_isa(os.environ.get("OPTIMCORE_ISA") or list(_builds)[-1])


cdef KernelTable* active_table() except NULL:
    return <KernelTable*>PyCapsule_GetPointer(_builds[_active].kernel_table, "optimcore.kernel_table")


cdef RuleKernels* find_rule(KernelTable* table, str rule) except NULL:
    cdef bytes name = rule.encode()
    cdef int i
    for i in range(table.rule_count):
        if strcmp(table.rules[i].name, <const char*>name) == 0:
            return &table.rules[i]
    raise ValueError(f"rule must name a kernel, got {rule!r}")


cdef MeasureKernels* find_measure(KernelTable* table, str measure) except NULL:
    cdef bytes name = measure.encode()
    cdef int i
    for i in range(table.measure_count):
        if strcmp(table.measures[i].name, <const char*>name) == 0:
            return &table.measures[i]
    raise ValueError(f"measure must name a kernel, got {measure!r}")


# ---- one step, without the GIL

cdef struct Task:           # one parameter
    Arrays arrays
    Py_ssize_t size
    Py_ssize_t width        # elements per output channel if the gradient is centralized, else 0
    Layout layout           # of the parameter and this step's gradient
    bint present            # has a gradient in this step

cdef struct Chunk:          # part of a parameter
    Py_ssize_t task
    Py_ssize_t start
    Py_ssize_t stop

cdef struct Work:
    Task* tasks
    Chunk* chunks
    Py_ssize_t* blocks      # block b is the chunks from blocks[b] up to blocks[b + 1]
    long n_blocks
    update_f* update        # one per layout
    total_f* total
    measure_f* measure      # if this pass only reads, else NULL
    double* squares         # what it found: two sums for each chunk
    bint decoupled          # decay is not part of the gradient
    bint raw                # it reads the gradients as they came
    bint until_nan          # it may stop at the first chunk whose sum is NaN
    const int* rows         # hyper row of each task
    double* hypers          # rows of MAX_HYPERS
    const double* decay     # one per task, as the next three
    const double* scale
    const double* trust
    const uint64_t* keys    # of the random generator
    double clip
    bint stochastic
    uint64_t key            # of seed and step


cdef void run_span(
    const Work* work, Py_ssize_t c, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue
) noexcept nogil:
    cdef Py_ssize_t t = work.chunks[c].task
    cdef const Task* task = &work.tasks[t]
    cdef const double* hyper = &work.hypers[work.rows[t] * MAX_HYPERS]
    if work.measure == NULL:
        work.update[<int>task.layout](hyper, &task.arrays, start, stop, prologue)
    else:
        work.measure[<int>task.layout](hyper, &task.arrays, start, stop, prologue, &work.squares[2 * c])


cdef void run_chunk(const Work* work, Py_ssize_t c) noexcept nogil:
    cdef const Chunk* chunk = &work.chunks[c]
    cdef const Task* task = &work.tasks[chunk.task]
    cdef total_f total = work.total[<int>task.layout]
    cdef Py_ssize_t start = chunk.start
    cdef Prologue prologue = prologue_of(work, chunk.task)
    cdef Prologue undecayed = prologue
    if not task.present:
        return
    if work.decoupled:
        undecayed.decay = 0
    if task.width == 0 or work.raw:
        run_span(work, c, start, chunk.stop, &prologue)
    else:
        while start < chunk.stop:
            prologue.mean = total(&task.arrays, start, start + task.width, &undecayed) / <double>task.width
            run_span(work, c, start, start + task.width, &prologue)
            start += task.width


cdef Prologue prologue_of(const Work* work, Py_ssize_t t) noexcept nogil:
    cdef Prologue p
    cdef uint64_t key
    p.clip, p.decay, p.mean, p.scale, p.trust = 1, 0, 0, 1, 1
    p.rounding.stochastic, p.rounding.key0, p.rounding.key1 = False, 0, 0
    if not work.raw:
        p.clip, p.decay, p.scale, p.trust = work.clip, work.decay[t], work.scale[t], work.trust[t]
    if work.stochastic:
        key = mixed(work.key ^ work.keys[t])
        p.rounding.stochastic = True
        p.rounding.key0, p.rounding.key1 = <uint32_t>key, <uint32_t>(key >> 32)
    return p


cdef uint64_t mixed(uint64_t x) noexcept nogil:
    """Spread every bit of x over all bits: the finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    x += <uint64_t>0x9e3779b97f4a7c15
    x = (x ^ (x >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    x = (x ^ (x >> 27)) * <uint64_t>0x94d049bb133111eb
    return x ^ (x >> 31)


cdef void run_blocks(const Work* work, long n_blocks, long* next_block) noexcept nogil:
    """Take blocks until none is left."""
    cdef long block = fetch_add(next_block, 1)
    cdef Py_ssize_t c
    while block < n_blocks:
        for c in range(work.blocks[block], work.blocks[block + 1]):
            run_chunk(work, c)
            if work.until_nan and work.squares[2 * c + 1] != 0:
                fetch_add(next_block, n_blocks)     # nobody takes another one
                return
        block = fetch_add(next_block, 1)


cdef class Crew:
    """The threads of one step: the caller, and those helpers of the pool that wake up in time.

    The caller starts at once and takes blocks until none is left; then it waits only for helpers that are inside a
    block. A helper that wakes up later finds nothing to do, so nobody ever waits for a busy pool.
    """
    cdef Plan plan
    cdef long n_blocks
    cdef long next_block
    cdef long inside        # helpers that may be inside a block

    def __cinit__(self, Plan plan):
        self.plan = plan
        self.n_blocks = plan.work.n_blocks

    def help(self):
        """Take blocks, in a thread of the pool."""
        with nogil:
            fetch_add(&self.inside, 1)
            run_blocks(&self.plan.work, self.n_blocks, &self.next_block)
            fetch_add(&self.inside, -1)

    cdef void lead(self) noexcept nogil:
        run_blocks(&self.plan.work, self.n_blocks, &self.next_block)
        while fetch_add(&self.inside, 0) != 0:
            yield_thread()


# ---- plans

cdef struct Door:           # what a gradient must look like to go straight to the kernels
    int ndim
    const Py_ssize_t* shape
    char format             # the parameter's own, or
    char compute_format     # the compute type's
    Layout layout
    Layout compute_layout


# dtype name -> layout and buffer format, the same for a gradient in the compute type, the compute type
_DTYPES = {
    "float32": (FLOAT32, b"f", FLOAT32, b"f", np.dtype(np.float32)),
    "float64": (FLOAT64, b"d", FLOAT64, b"d", np.dtype(np.float64)),
    "float16": (FLOAT16, b"e", FLOAT16_MIXED, b"f", np.dtype(np.float32)),
    "bfloat16": (BFLOAT16, b"H", BFLOAT16_MIXED, b"f", np.dtype(np.float32)),
}


def has_kernel(dtype):
    """Tell whether parameters and gradients of this dtype have kernels."""
    return dtype.name in _DTYPES


def compute_dtype(dtype):
    """Return the dtype that kernels compute in, and slots have, for parameters of `dtype`.

    Returns
    -------
    dtype
        float64 for float64; float32 for float32, float16 and bfloat16.

    Raises
    ------
    TypeError
        If no kernel takes parameters of this dtype.
    """
    if not has_kernel(dtype):
        raise TypeError(f"dtype must be one of {', '.join(_DTYPES)}, got {dtype}")
    return _DTYPES[dtype.name][4]


def _bits(array):
    # bfloat16 has no buffer format: the kernels see uint16
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


cdef Py_ssize_t chunk_length(const Task* task) noexcept:
    # whole output channels where the gradient is centralized
    return CHUNK if task.width == 0 else max(1, CHUNK // task.width) * task.width


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

    Attributes
    ----------
    decay : ndarray of float64, shape (n,)
        Weight decay times loss scale of each parameter, 0 for none. May be written between steps.
    scale : ndarray of float64, shape (n,)
        Reciprocal of the loss scale for each parameter, 1 at first. May be written between steps.
    trust : ndarray of float64, shape (n,)
        Factor of the rate for rules that have one per parameter, 1 at first. May be written between steps.
    rows : ndarray of intc, shape (n,)
        May be written between steps.
    clip : float
        Factor of all gradients before anything else, 1 at first. May be set between steps.
    """
    cdef Work work
    cdef Door* doors
    cdef Py_buffer* views           # of this step's gradients
    cdef RuleKernels* rule
    cdef Py_ssize_t count
    cdef int n_rows
    cdef bint busy
    cdef readonly object decay
    cdef readonly object scale
    cdef readonly object trust
    cdef readonly object rows
    cdef double[::1] decay_view
    cdef double[::1] scale_view
    cdef double[::1] trust_view
    cdef int[::1] rows_view
    cdef uint64_t[::1] keys
    cdef KernelTable* table
    cdef bint writes                # the rule writes the parameters
    cdef tuple names
    cdef tuple parameters
    cdef list pinned                # memoryviews that keep parameters and slots where they are
    cdef list converted             # copies of gradients, for the time of a step

    def __cinit__(self, rule, names, parameters, slots, centralize, rows=None):
        cdef Py_ssize_t i
        self.table = active_table()
        self.rule = NULL if rule is None else find_rule(self.table, rule)
        self.writes = rule not in (None, "gradient")
        self.count = len(parameters)
        self.names, self.parameters = tuple(names), tuple(parameters)
        self.pinned, self.converted = [], []
        if len(slots) != (self.rule.slots if rule is not None else 0):
            raise ValueError(f"slots must be {self.rule.slots} for {rule}, got {len(slots)}")
        self.decay, self.scale, self.trust = np.zeros(self.count), np.ones(self.count), np.ones(self.count)
        self.rows = np.zeros(self.count, np.intc) if rows is None else np.array(rows, np.intc)
        self.decay_view, self.scale_view, self.trust_view = self.decay, self.scale, self.trust
        self.rows_view = self.rows
        self.keys = np.array([crc32(name.encode()) for name in names], np.uint64)
        self.n_rows = self.rows.max(initial=0) + 1

        self.doors = <Door*>allocate(self.count, sizeof(Door))
        self.views = <Py_buffer*>allocate(self.count, sizeof(Py_buffer))
        self.work.tasks = <Task*>allocate(self.count, sizeof(Task))
        self.work.hypers = <double*>allocate(self.n_rows * MAX_HYPERS, sizeof(double))
        if self.count:
            self.work.decay, self.work.scale = &self.decay_view[0], &self.scale_view[0]
            self.work.trust, self.work.rows = &self.trust_view[0], &self.rows_view[0]
            self.work.keys = &self.keys[0]
        self.work.total = self.table.total
        self.work.decoupled = self.rule != NULL and self.rule.decoupled
        self.work.clip = 1
        for i in range(self.count):
            self.add_task(i, [slot[i] for slot in slots], centralize[i])
        self.cut()

    def __dealloc__(self):
        PyMem_Free(self.doors)
        PyMem_Free(self.views)
        PyMem_Free(self.work.tasks)
        PyMem_Free(self.work.hypers)
        PyMem_Free(self.work.chunks)
        PyMem_Free(self.work.blocks)
        PyMem_Free(self.work.squares)

    @property
    def decoupled(self):
        """Whether the rule decays the parameter itself instead of through its gradient."""
        return bool(self.work.decoupled)

    @property
    def clip(self):
        return self.work.clip

    @clip.setter
    def clip(self, double value):
        self.work.clip = value

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

    cdef int add_task(self, Py_ssize_t i, list slots, bint centralize) except -1:
        cdef Task* task = &self.work.tasks[i]
        cdef Door* door = &self.doors[i]
        parameter = self.parameters[i]
        compute = compute_dtype(parameter.dtype)
        for slot in slots:
            if slot.shape != parameter.shape or slot.dtype != compute:
                raise ValueError(
                    f"slots of {self.names[i]!r} must have shape {parameter.shape} and dtype {compute}, "
                    f"got {slot.shape} and {slot.dtype}")
        task.arrays.w = self.pin(i, parameter)
        door.ndim = PyMemoryView_GET_BUFFER(self.pinned[-1]).ndim
        door.shape = PyMemoryView_GET_BUFFER(self.pinned[-1]).shape
        if len(slots) > 0:
            task.arrays.slot0 = self.pin(i, slots[0])
        if len(slots) > 1:
            task.arrays.slot1 = self.pin(i, slots[1])
        if len(slots) > 2:
            task.arrays.slot2 = self.pin(i, slots[2])
        layout, format, compute_layout, compute_format, _ = _DTYPES[parameter.dtype.name]
        door.layout, door.compute_layout = layout, compute_layout
        door.format, door.compute_format = ord(format), ord(compute_format)
        task.size = parameter.size
        task.width = task.size // parameter.shape[0] if centralize and task.size else 0
        return 0

    cdef void* pin(self, Py_ssize_t i, array) except? NULL:
        flags = array.flags
        writable = flags.writeable or not self.writes
        if not (writable and flags.c_contiguous and flags.aligned and array.dtype.isnative):
            raise ValueError(
                f"parameter {self.names[i]!r} and its slots must be writable, C-contiguous, aligned and of native byte "
                "order")
        view = memoryview(_bits(array))
        self.pinned.append(view)
        return PyMemoryView_GET_BUFFER(view).buf

    cdef int cut(self) except -1:
        """Cut the parameters into chunks, and gather chunks of small parameters into blocks."""
        cdef Py_ssize_t n_chunks = 0, length, start, i, c, first, elements
        for i in range(self.count):
            length = chunk_length(&self.work.tasks[i])
            n_chunks += (self.work.tasks[i].size + length - 1) // length
        self.work.chunks = <Chunk*>allocate(n_chunks, sizeof(Chunk))
        self.work.blocks = <Py_ssize_t*>allocate(n_chunks + 1, sizeof(Py_ssize_t))
        self.work.squares = <double*>allocate(2 * n_chunks, sizeof(double))
        c = 0
        for i in range(self.count):
            length = chunk_length(&self.work.tasks[i])
            for start in range(0, self.work.tasks[i].size, length):
                self.work.chunks[c] = Chunk(i, start, min(start + length, self.work.tasks[i].size))
                c += 1
        first = elements = 0
        for c in range(n_chunks):
            elements += self.work.chunks[c].stop - self.work.chunks[c].start
            if elements >= CHUNK or c + 1 - first == BLOCK or c + 1 == n_chunks:
                self.work.n_blocks += 1
                self.work.blocks[self.work.n_blocks] = c + 1
                first, elements = c + 1, 0
        return 0

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
        cdef Py_ssize_t elements
        self.enter()
        try:
            self.work.update, self.work.measure = self.rule.update, NULL
            self.work.raw = self.work.until_nan = False
            self.fill(hypers)
            elements = self.collect(gradients)
            self.run(elements)
        finally:
            self.leave()

    def measure(self, measure, gradients, hypers=None):
        """Sum the squares of two quantities over each parameter, in a pass that only reads.

        Parameters
        ----------
        measure : {'norm', 'finite', ...}
            'norm': the parameter and the gradient as it came. 'finite': 0 and, unless all of the gradient is finite,
            NaN; it stops at the first NaN that it meets. Others belong to a rule, and see what the rule would see.
        gradients, hypers
            As for `step`; 'norm' and 'finite' need no hypers.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            Accumulated in float64 and in a fixed order; 0 for a parameter without a gradient.
        """
        cdef MeasureKernels* kernels = find_measure(self.table, measure)
        cdef Py_ssize_t elements, c, n_chunks
        cdef double[:, ::1] sums = np.zeros((self.count, 2))
        self.enter()
        try:
            self.work.measure = kernels.measure
            self.work.raw, self.work.until_nan = hypers is None, measure == "finite"
            if hypers is not None:
                self.fill(hypers)
            elements = self.collect(gradients)
            n_chunks = self.work.blocks[self.work.n_blocks]
            memset(self.work.squares, 0, 2 * n_chunks * sizeof(double))
            self.run(elements)
            for c in range(n_chunks):
                sums[self.work.chunks[c].task, 0] += self.work.squares[2 * c]
                sums[self.work.chunks[c].task, 1] += self.work.squares[2 * c + 1]
        finally:
            self.leave()
        return np.asarray(sums)

    cdef int enter(self) except -1:
        if self.busy:
            raise RuntimeError("an optimizer takes one step at a time, but another thread is inside a step of this one")
        self.busy = True
        return 0

    cdef void leave(self) noexcept:
        cdef Py_ssize_t i
        for i in range(self.count):
            PyBuffer_Release(&self.views[i])    # nothing to do where none is open
        self.converted.clear()
        self.busy = False

    cdef int fill(self, hypers) except -1:
        cdef Py_ssize_t r
        cdef int k
        if len(hypers) != self.n_rows:
            raise ValueError(f"hypers must have {self.n_rows} rows, got {len(hypers)}")
        for r in range(self.n_rows):
            row = <tuple?>hypers[r]
            if len(row) != self.rule.hypers:
                raise ValueError(f"hypers[{r}] must have {self.rule.hypers} numbers, got {len(row)}")
            for k in range(self.rule.hypers):
                self.work.hypers[r * MAX_HYPERS + k] = row[k]
        return 0

    cdef Py_ssize_t collect(self, gradients) except -1:
        """Open every gradient; return the number of elements to update."""
        cdef Py_ssize_t i, elements = 0
        cdef Task* task
        if not isinstance(gradients, (tuple, list)):
            raise TypeError(
                f"gradients must be a tuple or list with one entry per parameter, got {type(gradients).__name__}")
        if len(gradients) != self.count:
            raise ValueError(
                f"gradients must have one entry per parameter, {self.count} in all, got {len(gradients)}")
        for i in range(self.count):
            if not 0 <= self.rows_view[i] < self.n_rows:
                raise ValueError(f"rows[{i}] must be in [0, {self.n_rows}), got {self.rows_view[i]}")
            task = &self.work.tasks[i]
            gradient = gradients[i]
            task.present = gradient is not None
            if task.present:
                if not self.open(i, gradient):
                    gradient = self.convert(i, gradient)
                    self.converted.append(gradient)
                    self.open(i, gradient)
                elements += task.size
        return elements

    cdef bint open(self, Py_ssize_t i, gradient) noexcept:
        """Take a gradient as it is, if it fits."""
        cdef Py_buffer* view = &self.views[i]
        cdef Door* door = &self.doors[i]
        cdef Task* task = &self.work.tasks[i]
        if PyObject_GetBuffer(gradient, view, PyBUF_ND | PyBUF_FORMAT) != 0:
            PyErr_Clear()
            return False
        if (
            view.ndim == door.ndim
            and memcmp(view.shape, door.shape, door.ndim * sizeof(Py_ssize_t)) == 0
            and view.format[1] == 0
            and <size_t>view.buf % <size_t>view.itemsize == 0
        ):
            task.arrays.g = view.buf
            if view.format[0] == door.format:
                task.layout = door.layout
                return True
            if view.format[0] == door.compute_format:
                task.layout = door.compute_layout
                return True
        PyBuffer_Release(view)
        return False

    cdef object convert(self, Py_ssize_t i, gradient):
        """Copy a gradient of another float dtype or memory order, or say why it cannot be one."""
        parameter = self.parameters[i]
        name = f"gradients[{i}], of parameter {self.names[i]!r},"
        array = as_floats(gradient, name)
        if array.shape != parameter.shape:
            raise ValueError(f"{name} must have shape {parameter.shape}, got {array.shape}")
        same = array.dtype.name == parameter.dtype.name
        return _bits(converted(array, parameter.dtype if same else compute_dtype(parameter.dtype)))

    cdef int run(self, Py_ssize_t elements) except -1:
        cdef long next_block = 0
        cdef Py_ssize_t threads = 1
        cdef Crew crew
        if elements >= <Py_ssize_t>THREAD_ELEMENTS:
            threads = min(runtime.get_num_threads(), self.work.n_blocks)
        if threads == 1:
            with nogil:
                run_blocks(&self.work, self.work.n_blocks, &next_block)
            return 0
        crew = Crew(self)
        try:
            runtime.call_helpers(crew.help, threads - 1)
        finally:            # whatever interrupts the calling: a helper may be at work already
            with nogil:
                crew.lead()
        return 0


cdef void* allocate(Py_ssize_t count, size_t size) except NULL:
    cdef void* memory = PyMem_Calloc(max(count, 1), size)
    if memory == NULL:
        raise MemoryError()
    return memory
