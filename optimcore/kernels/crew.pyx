# cython: language_level=3
"""Threads: run independent blocks of work without the GIL, with the help of the pool."""

from optimcore import runtime

cdef extern from "platform.h":
    void yield_thread() noexcept nogil
    long fetch_add(long* counter, long amount) noexcept nogil


cdef class Crew:
    """The threads of one call: the caller, and those helpers of the pool that wake up in time.

    The caller starts at once and takes blocks until none is left; then it waits only for helpers that are inside a
    block. A helper that wakes up later finds nothing to do and never looks at `work`, which may be gone by then; so
    nobody ever waits for a busy pool.
    """
    cdef block_f run
    cdef const void* work
    cdef long n_blocks
    cdef long next_block
    cdef long inside        # helpers that may be inside a block
    cdef long helpers       # that have come so far

    def help(self):
        """Take blocks, in a thread of the pool."""
        with nogil:
            fetch_add(&self.inside, 1)
            self.take_blocks(1 + fetch_add(&self.helpers, 1))
            fetch_add(&self.inside, -1)

    cdef void lead(self) noexcept nogil:
        self.take_blocks(0)
        while fetch_add(&self.inside, 0) != 0:
            yield_thread()

    cdef void take_blocks(self, long thread) noexcept nogil:
        """Take blocks until none is left."""
        cdef long block = fetch_add(&self.next_block, 1)
        while block < self.n_blocks:
            if self.run(self.work, block, thread):
                fetch_add(&self.next_block, self.n_blocks)      # nobody takes another one
                return
            block = fetch_add(&self.next_block, 1)


cdef int run_blocks(block_f run, const void* work, long n_blocks, Py_ssize_t threads) except -1:
    cdef Crew crew
    cdef long block
    threads = min(threads, n_blocks)
    if threads <= 1:
        with nogil:
            for block in range(n_blocks):
                if run(work, block, 0):
                    break
        return 0
    crew = Crew()
    crew.run, crew.work, crew.n_blocks = run, work, n_blocks
    try:
        runtime.call_helpers(crew.help, threads - 1)
    finally:                # whatever interrupts the calling: a helper may be at work already
        with nogil:
            crew.lead()
    return 0
