# cython: language_level=3
"""Doors to the functions of embed.pxd for test_embed.py, which passes pointers as addresses."""
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

from optimcore.kernels cimport embed


def find_rule(bytes name):
    return <size_t>embed.find_rule(name)


def counts(size_t rule):
    return embed.count_hypers(<const embed.Rule*>rule), embed.count_slots(<const embed.Rule*>rule)


def update_row(
    size_t rule, embed.Storage storage, size_t hypers, double decay, double scale, size_t w, size_t slots, size_t g,
    Py_ssize_t n
):
    with nogil:
        embed.update_row(
            <const embed.Rule*>rule, storage, <const double*>hypers, decay, scale, <void*>w, <void**>slots,
            <const void*>g, n)


def update_rows(
    size_t rule, embed.Storage storage, size_t hypers, double decay, double scale, size_t table, size_t slots,
    size_t rows, Py_ssize_t n_rows, Py_ssize_t width, size_t values
):
    with nogil:
        embed.update_rows(
            <const embed.Rule*>rule, storage, <const double*>hypers, decay, scale, <void*>table, <void**>slots,
            <const int64_t*>rows, n_rows, width, <const void*>values)


def new_scratch():
    return <size_t>embed.new_scratch()


def free_scratch(size_t scratch):
    embed.free_scratch(<embed.Scratch*>scratch)


def scratch_bytes(size_t scratch):
    return embed.scratch_bytes(<const embed.Scratch*>scratch)


def find_unique(size_t scratch, size_t indices, Py_ssize_t k, size_t slots):
    with nogil:
        u = embed.find_unique(<embed.Scratch*>scratch, <const int64_t*>indices, k, <int32_t*>slots)
    return u


def merge_rows(
    size_t scratch, embed.Storage storage, size_t indices, Py_ssize_t k, size_t values, Py_ssize_t width
):
    with nogil:
        u = embed.merge_rows(
            <embed.Scratch*>scratch, storage, <const int64_t*>indices, k, <const void*>values, width)
    return u


def bounds(size_t scratch):
    return embed.lowest_index(<const embed.Scratch*>scratch), embed.highest_index(<const embed.Scratch*>scratch)


def unique_indices(size_t scratch):
    return <size_t>embed.unique_indices(<const embed.Scratch*>scratch)


def merged_rows(size_t scratch):
    return <size_t>embed.merged_rows(<const embed.Scratch*>scratch)


def num_threads():
    return embed.num_threads()


cdef struct Tally:
    long[1000] runs         # of each block
    long[1000] thread       # that ran it
    long last               # block after which no other one is needed


cdef bint count(const void* work, long block, long thread) noexcept nogil:
    cdef Tally* tally = <Tally*>work
    tally.runs[block] += 1
    tally.thread[block] = thread
    return block == tally.last


def run_blocks(long n_blocks, Py_ssize_t threads, long last):
    """Return how often each of at most 1000 blocks ran, and in which thread."""
    cdef Tally tally
    memset(&tally, 0, sizeof(Tally))
    tally.last = last
    embed.run_blocks(count, &tally, n_blocks, threads)
    return list(tally.runs)[:n_blocks], list(tally.thread)[:n_blocks]
