# cython: language_level=3
"""Threads: run independent blocks of work without the GIL, together with helpers that wait nearby.

A helper is a thread of a `concurrent.futures` pool. Handing work to such a pool costs tens of microseconds, as long as
a small step takes; so a helper that has done its part stays for a while. First it looks out for the next call, for
about as long as it would take to wake it. Then it sleeps, and a call rings its bell. If none comes it goes back.
"""
import os
import threading

from libc.string cimport memset

cdef extern from "platform.h":
    void yield_thread() noexcept nogil
    long current_cpu() noexcept nogil
    bint leave_cpu(long cpu) noexcept nogil
    unsigned long microseconds() noexcept nogil
    void relax() noexcept nogil
    long fetch_add(long* counter, long amount) noexcept nogil
    long exchange(long* flag, long value) noexcept nogil
    void* load_pointer(void** pointer) noexcept nogil
    bint replace_pointer(void** pointer, void* expected, void* value) noexcept nogil

cdef extern from "pythread.h":
    ctypedef void* PyThread_type_lock
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) nogil
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible) nogil
    void PyThread_release_lock(PyThread_type_lock lock) nogil

cdef enum:
    MAX_THREADS = 64        # in one call
    LINE = 64               # bytes of a cache line
    LOOKS = 1000            # for the next call before a helper sleeps: about 20 microseconds
    REST = 500              # microseconds without a helper that only kept the caller from working
    PATIENCE = 5000         # microseconds that it sleeps before it goes


# ---- settings

cdef Py_ssize_t num_threads = 1
cdef Py_ssize_t threshold = 0


def set_num_threads(Py_ssize_t value):
    global num_threads
    num_threads = value


def get_num_threads():
    return num_threads


def set_thread_threshold(Py_ssize_t value):
    global threshold
    threshold = value


def get_thread_threshold():
    return threshold


cdef Py_ssize_t allowed_threads() noexcept nogil:
    return num_threads


cdef Py_ssize_t threads_for(Py_ssize_t n_elements) noexcept nogil:
    return num_threads if n_elements >= threshold else 1


# ---- one call

# Neighbouring blocks that one thread begins with. It meets the same ones in every step, and finds them in its cache.
cdef struct Span:
    long next_block
    long stop
    char[<int>LINE] padding         # threads do not wait for each other's counters

cdef struct Call:
    block_f run
    const void* work
    long n_spans
    long cpu                # of the caller when it took its last block
    long entered            # helpers that have begun, and
    long finished           # that are done
    long stopped            # no more blocks are needed
    Span[<int>MAX_THREADS] spans


cdef void prepare(Call* call, block_f run, const void* work, long n_blocks, long threads) noexcept nogil:
    cdef long s
    memset(call, 0, sizeof(Call))
    call.run, call.work, call.n_spans, call.cpu = run, work, threads, current_cpu()
    for s in range(threads):
        call.spans[s].next_block, call.spans[s].stop = n_blocks * s // threads, n_blocks * (s + 1) // threads


cdef void take_blocks(Call* call, long thread) noexcept nogil:
    """Take the blocks of a thread's own span, then what others have left of theirs."""
    cdef long s, block
    for s in range(call.n_spans):
        span = &call.spans[(thread + s) % call.n_spans]
        while not call.stopped:
            block = fetch_add(&span.next_block, 1)
            if block >= span.stop:
                break
            if thread == 0:
                exchange(&call.cpu, current_cpu())
            if call.run(call.work, block, thread):
                exchange(&call.stopped, 1)


# ---- helpers

cdef char busy, gone        # their addresses stand for what a helper does that has no call waiting

cdef class Helper:
    """A thread of the pool that serves one call after the other.

    A caller leaves its call here. Until the helper has taken it, the caller may take it back: nobody ever waits for a
    helper that has not begun.
    """
    cdef void* call         # that waits for the helper, NULL, or the address of `busy` or `gone`
    cdef long asleep        # and has to be woken
    cdef bint moved         # after the last call, because it was on the caller's CPU
    cdef long rests         # and leaves calls out, because moving did not help: all other CPUs are busy
    cdef unsigned long rests_from
    cdef PyThread_type_lock bell

    def __cinit__(self):
        self.bell = PyThread_allocate_lock()
        if self.bell == NULL:
            raise MemoryError()
        PyThread_acquire_lock(self.bell, 1)

    def __dealloc__(self):
        if self.bell != NULL:
            PyThread_free_lock(self.bell)

    def serve(self):
        """Serve calls until none comes any more."""
        with nogil:
            self.serve_calls()
        _forget(self)

    cdef bint take(self, Call* call) noexcept nogil:
        """Be given a call, if nothing else is to be done."""
        if self.rests and microseconds() - self.rests_from < REST:
            return False
        if not replace_pointer(&self.call, NULL, call):
            return False
        if exchange(&self.asleep, 0):
            PyThread_release_lock(self.bell)
        return True

    cdef bint give_back(self, Call* call) noexcept nogil:
        """Forget a call that was not begun."""
        return replace_pointer(&self.call, call, NULL)

    cdef void serve_calls(self) noexcept nogil:
        cdef Call* call
        cdef long cpu
        while True:
            call = <Call*>load_pointer(&self.call)
            if call != NULL and replace_pointer(&self.call, call, &busy):
                take_blocks(call, 1 + fetch_add(&call.entered, 1))
                cpu = fetch_add(&call.cpu, 0)
                fetch_add(&call.finished, 1)            # from here on the call may be no more
                self.keep_away(cpu)
                replace_pointer(&self.call, &busy, NULL)
            elif not self.wait() and replace_pointer(&self.call, NULL, &gone):
                return

    cdef void keep_away(self, long cpu) noexcept nogil:
        """Leave the caller's CPU: the system may wake a thread there even if another one has nothing to do."""
        cdef bint is_there = cpu == current_cpu(), was_there = self.moved
        self.moved = is_there and not was_there and leave_cpu(cpu)
        cdef bint rests = is_there and not self.moved
        if rests:
            self.rests_from = microseconds()
        exchange(&self.rests, rests)

    cdef bint wait(self) noexcept nogil:
        """Wait for a call; false if none has come for a while."""
        cdef int _
        for _ in range(0 if self.rests else LOOKS):
            if load_pointer(&self.call) != NULL:
                return True
            relax()
        exchange(&self.asleep, 1)
        if load_pointer(&self.call) == NULL and PyThread_acquire_lock_timed(self.bell, PATIENCE, 0):
            return True
        if exchange(&self.asleep, 0):
            return load_pointer(&self.call) != NULL
        PyThread_acquire_lock(self.bell, 1)     # somebody was about to ring
        return True


cdef list _helpers = []     # that serve, or soon will
_pool = None
_pool_size = 0
_lock = threading.Lock()


def count_helpers():
    """Return how many threads are waiting nearby, or at work."""
    return len(_helpers)


def _forget(helper):
    if helper in _helpers:
        _helpers.remove(helper)


def _forget_all():
    """Start over in the child of a fork, which has none of its parent's threads."""
    global _lock, _pool, _pool_size
    _lock, _pool, _pool_size = threading.Lock(), None, 0
    _helpers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _pool_of(count):
    """Return the pool, made anew if it has fewer than `count` threads."""
    global _pool, _pool_size
    if _pool_size < count:
        # imported here: most processes never take a step that is large enough
        from concurrent.futures import ThreadPoolExecutor

        if _pool is not None:
            _pool.shutdown(wait=False)
        _pool, _pool_size = ThreadPoolExecutor(count, thread_name_prefix="optimcore"), count
    return _pool


cdef int ask_helpers(Call* call, Py_ssize_t count, list asked) except -1:
    """Give the call to as many helpers as are free, get new ones if there are too few of them; list them."""
    cdef Helper helper
    for helper in list(_helpers):
        if len(asked) == count:
            return 0
        if helper.take(call):
            asked.append(helper)
    while len(_helpers) < count:
        helper = Helper()
        helper.take(call)
        asked.append(helper)
        _helpers.append(helper)
        try:
            with _lock:
                _pool_of(count).submit(helper.serve)
        except RuntimeError:    # the interpreter is shutting down: the caller does the work alone
            _forget(helper)
            return 0
        except BaseException:
            _forget(helper)
            raise
    return 0


cdef int dismiss(Call* call, list asked) except -1:
    """Wait for the helpers that have begun; the others get nothing to do."""
    cdef Helper helper
    cdef long begun = 0
    for helper in asked:
        begun += not helper.give_back(call)
    with nogil:
        while fetch_add(&call.finished, 0) != begun:
            yield_thread()
    return 0


cdef int run_blocks(block_f run, const void* work, long n_blocks, Py_ssize_t threads) except -1:
    cdef Call call
    cdef long block
    cdef list asked = []
    threads = min(threads, n_blocks, MAX_THREADS)
    if threads <= 1:
        with nogil:
            for block in range(n_blocks):
                if run(work, block, 0):
                    break
        return 0
    prepare(&call, run, work, n_blocks, threads)
    try:
        ask_helpers(&call, threads - 1, asked)
    finally:                # whatever interrupts the asking: a helper may be at work already
        with nogil:
            take_blocks(&call, 0)
        dismiss(&call, asked)
    return 0
