# cython: language_level=3, cdivision=True
"""Threads: run independent blocks of work without the GIL, together with helper threads.

A helper is a thread of the operating system that knows nothing of Python. To start one and to give it work runs no
Python code and needs no Python object. So no signal handler runs in between, and nothing here can raise: where a thread
or its memory cannot be had, the caller does the work with fewer helpers, or alone.

To start a thread costs tens of microseconds, as long as a small step takes. So a helper that has done its part stays
for a while. First it looks out for the next call, for about as long as it would take to wake it. Then it sleeps, and a
call rings its bell. If none comes, the thread ends.

The blocks of a call run in the floating-point mode of the caller (rounding, subnormal numbers) in every thread.
"""
import os

from libc.string cimport memset

cdef extern from "platform.h":
    void yield_thread() noexcept nogil
    long current_cpu() noexcept nogil
    bint leave_cpu(long cpu) noexcept nogil
    unsigned long microseconds() noexcept nogil
    void relax() noexcept nogil
    long fetch_add(long* counter, long amount) noexcept nogil
    long exchange(long* flag, long value) noexcept nogil
    long load_relaxed(long* number) noexcept nogil
    void store_relaxed(long* number, long value) noexcept nogil
    void* load_pointer(void** pointer) noexcept nogil
    bint replace_pointer(void** pointer, void* expected, void* value) noexcept nogil
    unsigned long float_mode() noexcept nogil
    void set_float_mode(unsigned long mode) noexcept nogil

cdef extern from "pythread.h":
    ctypedef void* PyThread_type_lock
    unsigned long INVALID_THREAD "PYTHREAD_INVALID_THREAD_ID"
    unsigned long PyThread_start_new_thread(void (*run)(void*) noexcept nogil, void* argument) noexcept
    PyThread_type_lock PyThread_allocate_lock() noexcept
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) noexcept nogil
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible) noexcept nogil
    void PyThread_release_lock(PyThread_type_lock lock) noexcept nogil

cdef enum:
    MAX_THREADS = 64        # in one call
    MAX_HELPERS = 63        # in the process: all threads of a call but the caller
    LINE = 64               # bytes of a cache line
    LOOKS = 1000            # for the next call before a helper sleeps: about 20 microseconds
    REST = 500              # microseconds without a helper that only kept the caller from working
    PATIENCE = 5000         # microseconds that a helper sleeps before it ends
    RETRY = 100000          # microseconds without another try after a thread could not be started


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
    unsigned long mode      # of the caller's floating-point arithmetic
    Span[<int>MAX_THREADS] spans


cdef void prepare(Call* call, block_f run, const void* work, long n_blocks, long threads) noexcept nogil:
    cdef long s
    memset(call, 0, sizeof(Call))
    call.run, call.work, call.n_spans, call.cpu = run, work, threads, current_cpu()
    call.mode = float_mode()
    for s in range(threads):
        call.spans[s].next_block, call.spans[s].stop = n_blocks * s // threads, n_blocks * (s + 1) // threads


cdef void take_blocks(Call* call, long thread) noexcept nogil:
    """Take the blocks of a thread's own span, then what others have left of theirs."""
    cdef long s, block
    for s in range(call.n_spans):
        span = &call.spans[(thread + s) % call.n_spans]
        while not load_relaxed(&call.stopped):
            block = fetch_add(&span.next_block, 1)
            if block >= span.stop:
                break
            if thread == 0:
                exchange(&call.cpu, current_cpu())
            if call.run(call.work, block, thread):
                exchange(&call.stopped, 1)


# ---- helpers

cdef char busy, gone        # their addresses stand for what a helper does that has no call waiting

# A thread that serves one call after the other; or, if `call` is the address of `gone`, the place for one.
#
# A caller leaves its call here. Until the helper has taken it, the caller may take it back: nobody ever waits for a
# helper that has not begun.
cdef struct Helper:
    void* call              # that waits for the helper, NULL, or the address of `busy` or `gone`
    long asleep             # and has to be woken
    long moved              # after the last call, because it was on the caller's CPU; only the helper looks at it
    long rests              # and leaves calls out, because moving did not help: all other CPUs are busy
    long rests_from
    PyThread_type_lock bell     # held, except between a ring and the waking; it is never freed
    char[<int>LINE] padding

cdef Helper[<int>MAX_HELPERS] helpers
cdef bint refused           # the last thread that was asked for, and when
cdef unsigned long refused_at


def count_helpers():
    """Return how many threads are waiting nearby, or at work."""
    cdef int i
    count = 0
    for i in range(MAX_HELPERS):
        count += load_pointer(&helpers[i].call) != &gone
    return count


def _forget_all():
    """Start over in the child of a fork, which has none of its parent's threads."""
    global refused
    refused = False
    memset(helpers, 0, sizeof(helpers))     # bells too: what a lost thread did to its own cannot be known
    cdef int i
    for i in range(MAX_HELPERS):
        helpers[i].call = &gone


_forget_all()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


cdef bint take(Helper* helper, Call* call) noexcept nogil:
    """Give a call to a helper that has nothing else to do; false if there is none."""
    if load_relaxed(&helper.rests) and microseconds() - <unsigned long>load_relaxed(&helper.rests_from) < REST:
        return False
    if not replace_pointer(&helper.call, NULL, call):
        return False
    if exchange(&helper.asleep, 0):
        PyThread_release_lock(helper.bell)
    return True


cdef bint start(Helper* helper, Call* call) noexcept:
    """Start a thread in an empty place and give it a call; false if the place is taken or no thread can be had."""
    global refused, refused_at
    if load_pointer(&helper.call) != &gone or refused and microseconds() - refused_at < RETRY:
        return False
    if not replace_pointer(&helper.call, &gone, call):
        return False
    helper.moved = False
    store_relaxed(&helper.rests, False)
    if helper.bell == NULL:
        helper.bell = PyThread_allocate_lock()
        if helper.bell != NULL:
            PyThread_acquire_lock(helper.bell, 1)
    refused = helper.bell == NULL or PyThread_start_new_thread(serve_calls, helper) == INVALID_THREAD
    if refused:
        refused_at = microseconds()
        replace_pointer(&helper.call, call, &gone)
    return not refused


cdef bint give_back(Helper* helper, Call* call) noexcept nogil:
    """Take a call back that was not begun."""
    return replace_pointer(&helper.call, call, NULL)


cdef void serve_calls(void* place) noexcept nogil:
    """Serve calls until none comes any more: what a helper's thread does."""
    cdef Helper* helper = <Helper*>place
    cdef Call* call
    cdef long cpu
    while True:
        call = <Call*>load_pointer(&helper.call)
        if call != NULL and replace_pointer(&helper.call, call, &busy):
            if float_mode() != call.mode:
                set_float_mode(call.mode)
            take_blocks(call, 1 + fetch_add(&call.entered, 1))
            cpu = fetch_add(&call.cpu, 0)
            fetch_add(&call.finished, 1)            # from here on the call may be no more
            keep_away(helper, cpu)
            replace_pointer(&helper.call, &busy, NULL)
        elif not wait(helper) and replace_pointer(&helper.call, NULL, &gone):
            return                                  # another thread may have the place by now


cdef void keep_away(Helper* helper, long cpu) noexcept nogil:
    """Leave the caller's CPU: the system may wake a thread there even if another one has nothing to do."""
    cdef bint is_there = cpu == current_cpu(), was_there = helper.moved
    helper.moved = is_there and not was_there and leave_cpu(cpu)
    cdef bint rests = is_there and not helper.moved
    if rests:
        store_relaxed(&helper.rests_from, <long>microseconds())
    store_relaxed(&helper.rests, rests)


cdef bint wait(Helper* helper) noexcept nogil:
    """Wait for a call; false if none has come for a while."""
    cdef int _
    for _ in range(0 if load_relaxed(&helper.rests) else LOOKS):
        if load_pointer(&helper.call) != NULL:
            return True
        relax()
    exchange(&helper.asleep, 1)
    if load_pointer(&helper.call) == NULL and PyThread_acquire_lock_timed(helper.bell, PATIENCE, 0):
        return True
    if exchange(&helper.asleep, 0):
        return load_pointer(&helper.call) != NULL
    PyThread_acquire_lock(helper.bell, 1)       # somebody was about to ring
    return True


cdef long ask_helpers(Call* call, long count, Helper** asked) noexcept:
    """Give the call to up to `count` helpers; write them to `asked` and return how many they are."""
    cdef long i, n = 0
    for i in range(count):
        if take(&helpers[i], call) or start(&helpers[i], call):
            asked[n] = &helpers[i]
            n += 1
    return n


cdef void dismiss(Call* call, long n_asked, Helper** asked) noexcept nogil:
    """Wait for the helpers that have begun; the others get nothing to do."""
    cdef long i, begun = 0
    for i in range(n_asked):
        begun += not give_back(asked[i], call)
    while fetch_add(&call.finished, 0) < begun:
        yield_thread()


cdef int run_blocks(block_f run, const void* work, long n_blocks, Py_ssize_t threads) except -1:
    cdef Call call
    cdef Helper* asked[<int>MAX_HELPERS]
    cdef long block, n_asked = 0
    threads = min(threads, n_blocks, MAX_THREADS)
    if threads > 1:
        prepare(&call, run, work, n_blocks, threads)
        n_asked = ask_helpers(&call, threads - 1, asked)
    # One piece without the GIL: at its end the interpreter may end this thread, and no helper may need its stack then.
    with nogil:
        if n_asked == 0:
            for block in range(n_blocks):
                if run(work, block, 0):
                    break
        else:
            take_blocks(&call, 0)
            dismiss(&call, n_asked, asked)
    return 0
