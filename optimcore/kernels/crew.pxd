"""Threads: run independent blocks of work without the GIL, together with helpers that wait nearby."""

# Do block number `block` of `work` in thread number `thread`, the caller's being 0. True means that the blocks which
# nobody has begun need not be done.
ctypedef bint (*block_f)(const void* work, long block, long thread) noexcept nogil

# Run blocks 0..n_blocks-1, each once and in any order, in up to `threads` threads, and return when all are done or not
# needed. Needs the GIL and releases it. It runs no Python code and never raises, so that nothing interrupts a step in
# the middle. No block may read what another one writes: then bits do not depend on threads.
cdef int run_blocks(block_f run, const void* work, long n_blocks, Py_ssize_t threads) except -1

# How many threads work may have that goes over so many elements: one if a second would cost more than it does.
cdef Py_ssize_t threads_for(Py_ssize_t n_elements) noexcept nogil

# How many threads any work may have.
cdef Py_ssize_t allowed_threads() noexcept nogil
