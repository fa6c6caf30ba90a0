"""Threads: run independent blocks of work without the GIL, with the help of the pool."""

# Do block number `block` of `work` in thread number `thread`, the caller's being 0. True means that the blocks which
# nobody has begun need not be done.
ctypedef bint (*block_f)(const void* work, long block, long thread) noexcept nogil

# Run blocks 0..n_blocks-1, each once and in any order, in up to `threads` threads, and return when all are done or not
# needed. Needs the GIL and releases it. No block may read what another one writes: then bits do not depend on threads.
cdef int run_blocks(block_f run, const void* work, long n_blocks, Py_ssize_t threads) except -1
