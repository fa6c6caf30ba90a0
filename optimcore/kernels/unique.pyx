# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False
"""Number indices in order of first appearance, and sum rows that share an index.

There are three ways to number indices, chosen by what the indices look like: a comparison with the index before
while they are in order, a direct table where their range is near their count, a hash table otherwise. Indices that
collide too often under several seeds of the hash are sorted instead: no indices take much longer than others.

Both tables hold numbers that count on from call to call. An entry below the first number of this call is as good as
empty, so a table that is kept is never cleared until numbers run out.

The caller's indices may change at any time: another thread may write to them while this one runs without the GIL.
Everything therefore works on a copy. It lies in the memory of the unique indices, which take its place one by one:
when index j is looked at, at most j unique ones have been found.
"""
import math
import os
from functools import cache

import numpy as np

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.stdint cimport UINT32_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove, memset

from .crew cimport run_blocks, threads_for
from .isa cimport active_table
from .storage cimport BFLOAT16, FLOAT16, FLOAT32, FLOAT64, Arrays, Layout
from .table cimport SUMMED, HotRows, KernelTable

from optimcore.kernels.arrays import compute_dtype

cdef extern from "platform.h":
    void prefetch(const void* address) noexcept nogil
    void* allocate(size_t nbytes) noexcept nogil
    void* allocate_table(size_t nbytes) noexcept nogil

cdef enum:
    DIRECT_RANGE = 16       # a direct table may have this many entries for each index,
    SMALL_RANGE = 128       # or this many
    SMALL_TABLE = 1 << 20   # while it has no more entries than this
    DIRECT_AHEAD = 32       # indices between the one that is looked up and the one whose entry is fetched
    HASH_BATCH = 256        # indices that are hashed, and their entries fetched, at once
    PARTS = 128             # with so many tables at once the CPU still has their pages at hand
    SLICES = 16             # that several threads divide many indices into
    WORKERS = 64            # threads at most
    PARTED = 1 << 19        # indices from which on a table is beyond the cache,
    PROBED = 1 << 12        # if most of so many are different
    COPIED = 1 << 11        # indices that are copied before their bounds are found: the cache has them then
    SEEDS = 3               # of the hash that are tried before indices are sorted,
    COLLISIONS = 8          # each until so many entries for each index were looked at in vain
    DIGITS = 8              # bytes of an index, by which indices are sorted
    ROOM = 64               # slots with sums in double that there is room for at first
    SPARES = 4              # results that nobody uses any more, and whose memory is kept,
    SPARE_LEAST = 1 << 20   # if it is as large as this,
    SPARE_MOST = 1 << 25    # and all of it no larger than this

cdef enum:                  # numbers of unique indices that are none
    NO_MEMORY = -1
    COLLIDED = -2

cdef struct Memory:
    void* data
    size_t nbytes

cdef struct Table:
    Memory entries          # all numbers in it are below `base`
    uint32_t base           # the first number of the next call, at least 1

cdef struct Scratch:
    KernelTable* kernels
    Table direct            # of uint32: the number of index lowest + i
    Table hash              # of uint64: a tag in the upper half, a number in the lower
    Memory parts            # many indices, divided
    Memory unique
    Memory slots
    Memory merged
    Memory counts           # of the rows of each slot,
    Memory hot              # and sums in double where there are many
    int64_t lowest
    int64_t highest
    uint64_t seed           # of the hash
    Py_ssize_t collisions   # for each index, from which on another seed is tried
    Py_ssize_t probes       # steps beyond the first entry, in all calls: tests look at it


# ---- memory

cdef Scratch* new_scratch() except NULL:
    cdef Scratch* scratch = <Scratch*>PyMem_RawCalloc(1, sizeof(Scratch))
    if scratch == NULL:
        raise MemoryError()
    scratch.kernels, scratch.collisions = active_table(), COLLISIONS
    return scratch


cdef void free_scratch(Scratch* scratch) noexcept nogil:
    if scratch != NULL:
        free(scratch.direct.entries.data)
        free(scratch.hash.entries.data)
        free(scratch.parts.data)
        PyMem_RawFree(scratch.unique.data)
        PyMem_RawFree(scratch.slots.data)
        PyMem_RawFree(scratch.merged.data)
        PyMem_RawFree(scratch.counts.data)
        PyMem_RawFree(scratch.hot.data)
        PyMem_RawFree(scratch)


cdef size_t scratch_bytes(const Scratch* scratch) noexcept nogil:
    return (
        scratch.direct.entries.nbytes + scratch.hash.entries.nbytes + scratch.parts.nbytes + scratch.unique.nbytes
        + scratch.slots.nbytes + scratch.merged.nbytes + scratch.counts.nbytes + scratch.hot.nbytes)


cdef void* reserve(Memory* memory, size_t nbytes) noexcept nogil:
    """Return at least `nbytes`, not initialized, or NULL."""
    if memory.nbytes < nbytes or memory.data == NULL:
        PyMem_RawFree(memory.data)
        memory.data = PyMem_RawMalloc(nbytes)
        memory.nbytes = nbytes if memory.data != NULL else 0
    return memory.data


cdef void* reserve_large(Memory* memory, size_t nbytes) noexcept nogil:
    """Return at least `nbytes` in large pages, zeroed if they are new, or NULL."""
    if memory.nbytes < nbytes:
        free(memory.data)
        memory.data = allocate_table(nbytes)
        memory.nbytes = nbytes if memory.data != NULL else 0
    return memory.data


cdef void* reserve_table(Table* table, size_t nbytes, Py_ssize_t k) noexcept nogil:
    """Return a table of at least `nbytes` in which the next k numbers are free, or NULL."""
    if table.entries.nbytes < nbytes:
        reserve_large(&table.entries, nbytes)
        table.base = 1
    elif table.base > UINT32_MAX - <uint32_t>k:
        memset(table.entries.data, 0, table.entries.nbytes)
        table.base = 1
    return table.entries.data


cdef int32_t* reserve_slots(Scratch* scratch, Py_ssize_t k) noexcept nogil:
    return <int32_t*>reserve(&scratch.slots, k * sizeof(int32_t))


cdef void* reserve_merged(Scratch* scratch, size_t nbytes) noexcept nogil:
    return reserve(&scratch.merged, nbytes)


# Memory of large results that nobody uses any more serves the next ones, since to hand out pages anew often takes the
# system longer than it takes a kernel to write them. All of this needs the GIL.

cdef Memory[<int>SPARES] spares     # the oldest first
cdef int n_spares = 0


cdef Memory pop_spare(int i) noexcept:
    global n_spares
    cdef Memory memory = spares[i]
    n_spares -= 1
    memmove(&spares[i], &spares[i + 1], (n_spares - i) * sizeof(Memory))
    return memory


cdef Memory new_memory(size_t nbytes) noexcept:
    """Return memory of at least `nbytes`, less than twice as many, not initialized; data is NULL if there is none."""
    cdef Memory memory
    cdef int i
    for i in range(n_spares):
        if nbytes <= spares[i].nbytes < 2 * nbytes:
            return pop_spare(i)
    memory.data = allocate(nbytes)
    memory.nbytes = nbytes if memory.data != NULL else 0
    return memory


cpdef size_t spare_bytes() noexcept:
    """Return how much memory of former results is kept for the next ones, in bytes."""
    cdef size_t kept = 0
    cdef int i
    for i in range(n_spares):
        kept += spares[i].nbytes
    return kept


cdef void release_memory(Memory memory) noexcept:
    global n_spares
    if not SPARE_LEAST <= memory.nbytes <= SPARE_MOST:
        free(memory.data)
        return
    while n_spares == SPARES or spare_bytes() + memory.nbytes > SPARE_MOST:
        free(pop_spare(0).data)
    spares[n_spares] = memory
    n_spares += 1


# ---- unique

cdef Py_ssize_t number_sorted(
    const index_t* indices, Py_ssize_t k, slot_t* slots, index_t* unique
) noexcept nogil:
    """Number at least one index while they never decrease; return -1 as soon as one does. Each is read once."""
    cdef index_t last = indices[0], index
    cdef Py_ssize_t j, u = 0
    unique[0], slots[0] = last, 0
    for j in range(1, k):
        index = indices[j]
        if index < last:
            return -1
        u += index != last
        last = index
        unique[u] = index
        slots[j] = <slot_t>u
    return u + 1


cdef inline void find_bounds(
    const KernelTable* kernels, const index_t* indices, Py_ssize_t k, index_t* lowest, index_t* highest
) noexcept nogil:
    if index_t is int32_t:
        kernels.bounds32(indices, k, lowest, highest)
    else:
        kernels.bounds64(indices, k, lowest, highest)


cdef void copy_with_bounds(
    const KernelTable* kernels, const index_t* indices, Py_ssize_t k, index_t* copy, index_t* lowest, index_t* highest
) noexcept nogil:
    """Copy at least one index, and find the smallest and the largest of the copy."""
    cdef index_t low, high
    cdef Py_ssize_t start = 0, n
    while start < k:
        n = min(k - start, COPIED)
        memcpy(&copy[start], &indices[start], n * sizeof(index_t))
        find_bounds(kernels, &copy[start], n, &low, &high)
        lowest[0] = low if start == 0 else min(lowest[0], low)
        highest[0] = high if start == 0 else max(highest[0], high)
        start += n


cdef const int64_t* copy_indices(Scratch* scratch, const int64_t* indices, Py_ssize_t k) noexcept nogil:
    cdef int64_t* copy = <int64_t*>reserve(&scratch.unique, k * sizeof(int64_t))
    if copy != NULL and k > 0:
        copy_with_bounds(scratch.kernels, indices, k, copy, &scratch.lowest, &scratch.highest)
    return copy


cdef void restore(const slot_t* slots, Py_ssize_t n, index_t* keys) noexcept nogil:
    """Put the first n keys back where the unique ones have taken their place."""
    cdef Py_ssize_t j = n
    while j > 0:            # backwards: a key never stands before its unique one
        j -= 1
        keys[j] = keys[slots[j]]


# An entry `base + slot` of this call gives its slot. One of an earlier call is below base, the difference wraps around
# to something larger than any slot, and the smaller of it and u is u: the next free slot. No branch is needed.
# From here on `keys` are a copy of the indices. The unique ones take their place.

cdef Py_ssize_t number_directly(
    Table* table, index_t* keys, Py_ssize_t k, slot_t* slots, int64_t lowest
) noexcept nogil:
    cdef uint32_t* entries = <uint32_t*>table.entries.data
    cdef uint32_t* entry
    cdef uint32_t base = table.base, u = 0, slot
    cdef bint is_new
    cdef Py_ssize_t j
    for j in range(k):
        prefetch(&entries[<uint64_t>keys[min(j + DIRECT_AHEAD, k - 1)] - <uint64_t>lowest])
        entry = &entries[<uint64_t>keys[j] - <uint64_t>lowest]
        is_new = entry[0] < base
        slot = min(entry[0] - base, u)
        entry[0] = base + slot
        keys[u] = keys[j]
        slots[j] = <slot_t>slot
        u += is_new
    table.base = base + u
    return u


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    """Permute 64-bit numbers. Every bit of x reaches the upper bits: keys that differ anywhere are spread."""
    x ^= x >> 32
    x *= <uint64_t>0xff51afd7ed558ccd       # the odd constants of MurmurHash3's finalizer
    x ^= x >> 32
    return x * <uint64_t>0xc4ceb9fe1a85ec53


# How indices are hashed: the distance from the lowest one, permuted together with the seed.
cdef struct Hashing:
    int64_t lowest
    uint64_t seed
    bint narrow             # all distances are below 2**32
    Py_ssize_t collisions   # for each index, from which on the seed will not do


cdef inline uint64_t hashed(const Hashing* h, uint64_t index) noexcept nogil:
    return mix((index - <uint64_t>h.lowest) ^ h.seed)


cdef inline Py_ssize_t probe(
    Table* table, int bits, index_t* keys, Py_ssize_t k, slot_t* slots, const Hashing* h, bint narrow,
    Py_ssize_t* probes
) noexcept nogil:
    """The loop of number_by_hash."""
    cdef uint64_t* entries = <uint64_t*>table.entries.data
    cdef uint64_t[<int>HASH_BATCH] hashes
    cdef uint64_t hash, entry, at, occupied, last = (<uint64_t>1 << bits) - 1
    cdef Hashing hashing = h[0]
    cdef uint32_t base = table.base, u = 0, slot, tag
    cdef int shift = 64 - bits
    cdef Py_ssize_t most = hashing.collisions * k, left = most, start = 0, n, i
    cdef index_t key
    cdef bint is_new
    while start < k and left >= 0:
        n = min(k - start, HASH_BATCH)
        for i in range(n):
            hashes[i] = hashed(&hashing, <uint64_t>keys[start + i])
            prefetch(&entries[hashes[i] >> shift])
        for i in range(n):
            key, hash = keys[start + i], hashes[i]
            tag = <uint32_t>(<uint64_t>key - <uint64_t>hashing.lowest) if narrow else <uint32_t>hash
            at = hash >> shift
            keys[u] = key
            while True:
                entry = entries[at]
                slot = min(<uint32_t>entry - base, u)
                is_new = <uint32_t>entry < base
                occupied = <uint64_t>is_new - 1     # all bits or none: a branch here would be a coin toss
                if ((entry >> 32) ^ tag) & occupied == 0 and (narrow or keys[slot] == key):
                    break
                at = (at + 1) & last
                left -= 1
                if left < 0:
                    break
            if left < 0:
                restore(slots, start + i, keys)
                break
            entries[at] = <uint64_t>tag << 32 | (base + slot)
            slots[start + i] = <slot_t>slot
            u += is_new
        start += n
    table.base = base + u
    probes[0] += most - left
    return <Py_ssize_t>u if left >= 0 else COLLIDED


cdef Py_ssize_t number_by_hash(
    Table* table, int bits, index_t* keys, Py_ssize_t k, slot_t* slots, const Hashing* h, Py_ssize_t* probes
) noexcept nogil:
    """Number keys with a table of 2**bits entries, at least 2 k.

    Return COLLIDED, and leave the keys as they were, if the seed will not do. The tag is the distance from the lowest
    index if that is below 2**32 for all of them (`narrow`), and so tells keys apart. Otherwise it is half of the hash,
    and keys with equal tags are compared.
    """
    if h.narrow:    # known to the compiler, it makes a shorter loop
        return probe(table, bits, keys, k, slots, h, True, probes)
    return probe(table, bits, keys, k, slots, h, False, probes)


cdef inline int hash_bits(Py_ssize_t k) noexcept nogil:
    """Return the binary logarithm of the smallest power of two that is at least 2 k."""
    cdef int bits = 4
    while (<Py_ssize_t>1 << bits) < 2 * k:
        bits += 1
    return bits


cdef inline int part_bits(Py_ssize_t n, Py_ssize_t k) noexcept nogil:
    """Return the same for a part of n indices, a quarter full: within the cache that saves more than it costs."""
    return min(hash_bits(2 * n), hash_bits(k))


cdef Py_ssize_t find_unique(Scratch* scratch, const index_t* indices, Py_ssize_t k, slot_t* slots) noexcept nogil:
    cdef index_t* unique = <index_t*>reserve(&scratch.unique, k * sizeof(index_t))
    return NO_MEMORY if unique == NULL else number(scratch, indices, k, slots, unique, 1)


cdef Py_ssize_t number(
    Scratch* scratch, const index_t* indices, Py_ssize_t k, slot_t* slots, index_t* unique, Py_ssize_t threads
) except -3 nogil:
    """Do what find_unique does, and write the unique indices to k elements of `unique`.

    With more than one thread the caller must be one of Python's, as `run_blocks` demands.
    """
    cdef index_t lowest, highest
    cdef uint64_t span
    cdef Py_ssize_t u
    cdef Hashing h
    if k == 0:
        return 0
    u = number_sorted(indices, k, slots, unique)
    if u > 0:
        scratch.lowest, scratch.highest = unique[0], unique[u - 1]
        return u
    copy_with_bounds(scratch.kernels, indices, k, unique, &lowest, &highest)
    scratch.lowest, scratch.highest = lowest, highest
    span = <uint64_t>highest - <uint64_t>lowest
    if span < <uint64_t>max(DIRECT_RANGE * k, min(SMALL_RANGE * k, SMALL_TABLE)):
        if reserve_table(&scratch.direct, (span + 1) * sizeof(uint32_t), k) == NULL:
            return NO_MEMORY
        return number_directly(&scratch.direct, unique, k, slots, lowest)
    h.lowest, h.narrow, h.collisions = lowest, span <= <uint64_t>UINT32_MAX, scratch.collisions
    for _ in range(SEEDS):
        h.seed = scratch.seed
        u = number_hashed(scratch, k, slots, unique, &h, threads)
        if u != COLLIDED:
            return u
        scratch.seed = next_seed(scratch.seed)
    return number_by_sorting(scratch, k, slots, unique, lowest)


# Whoever chooses indices that collide must not know the seed. The first one is 0 all the same: results do not depend on
# it, and repeatable work is easier to measure.
cdef uint64_t secret = int.from_bytes(os.urandom(8), "little")


cdef inline uint64_t next_seed(uint64_t seed) noexcept nogil:
    return mix(seed + secret) ^ secret


cdef Py_ssize_t number_hashed(
    Scratch* scratch, Py_ssize_t k, slot_t* slots, index_t* unique, const Hashing* h, Py_ssize_t threads
) except -3 nogil:
    """Number the indices in `unique` with one seed, in parts if there are many different ones."""
    cdef int bits = hash_bits(PROBED if k >= PARTED else k)
    cdef Py_ssize_t u
    if reserve_table(&scratch.hash, sizeof(uint64_t) << bits, k) == NULL:
        return NO_MEMORY
    if k >= PARTED:
        u = number_by_hash(&scratch.hash, bits, unique, PROBED, slots, h, &scratch.probes)
        if u == COLLIDED:
            return u
        restore(slots, PROBED, unique)
        if u > PROBED // 2:
            return number_in_parts(scratch, k, slots, unique, h, threads)
        bits = hash_bits(k)
        if reserve_table(&scratch.hash, sizeof(uint64_t) << bits, k) == NULL:
            return NO_MEMORY
    return number_by_hash(&scratch.hash, bits, unique, k, slots, h, &scratch.probes)


# A table beyond the cache costs an access to memory for each index. Many indices are therefore divided by some bits of
# their hash into parts, in order, and each part is numbered with a table that fits the cache. Then the indices are gone
# through in their own order: each takes the next number of its part, and a number that is new there is new in all.
#
# Threads share the work of a stage: slices of the indices, or parts. How many unique keys of each part come before a
# slice is known before it is gone through; so every number is the same whoever finds it.

cdef enum:
    COUNT, DIVIDE, NUMBER, ENTER, FILL      # stages

cdef struct Worker:
    Table table             # a thread's own, in the memory that they share
    Py_ssize_t probes
    char[64] padding        # threads do not wait for each other's counters

cdef struct Parts:
    void* slots
    void* unique            # in the place of the indices, from ENTER on
    void* keys              # the indices, part by part; from NUMBER on the unique ones of each part come first in it
    int32_t* numbers        # of the keys, in their parts
    int32_t* final          # of the unique keys, from ENTER on: the numbers in all of the unique ones
    uint8_t* part_of        # each index
    Py_ssize_t k
    Hashing hashing
    bint wide_indices
    bint wide_slots
    int stage
    long n_slices
    int32_t[<int>SLICES + 1][<int>PARTS] starts     # of the keys of a slice in each part; the last ones are the ends
    int32_t[<int>SLICES + 1][<int>PARTS] seen       # unique keys of each part before a slice; the last ones are all
    Worker[<int>WORKERS] workers


cdef Py_ssize_t number_in_parts(
    Scratch* scratch, Py_ssize_t k, slot_t* slots, index_t* unique, const Hashing* h, Py_ssize_t threads
) except -3 nogil:
    """Number the indices in `unique`; return COLLIDED, and leave them as they were, if the seed will not do."""
    cdef Parts parts
    cdef index_t* keys = <index_t*>reserve_large(
        &scratch.parts, k * (sizeof(index_t) + 2 * sizeof(int32_t) + sizeof(uint8_t)))
    cdef Py_ssize_t tables, table
    if keys == NULL:
        return NO_MEMORY
    parts.k, parts.hashing = k, h[0]
    parts.slots, parts.unique, parts.keys = slots, unique, keys
    parts.numbers = <int32_t*>&keys[k]
    parts.final = &parts.numbers[k]
    parts.part_of = <uint8_t*>&parts.final[k]
    parts.wide_indices, parts.wide_slots = sizeof(index_t) == 8, sizeof(slot_t) == 8
    parts.n_slices = 1 if threads == 1 else SLICES
    run_stage(&parts, COUNT, parts.n_slices, threads)
    place_keys(&parts)
    run_stage(&parts, DIVIDE, parts.n_slices, threads)
    tables = share_tables(&parts, scratch, threads)
    if tables == 0:
        return NO_MEMORY
    run_stage(&parts, NUMBER, PARTS, tables)
    for table in range(tables):
        scratch.probes += parts.workers[table].probes
    if some_collided(&parts):
        return COLLIDED
    run_stage(&parts, ENTER, parts.n_slices, threads)
    run_stage(&parts, FILL, parts.n_slices, threads)
    return sum_of(parts.seen[parts.n_slices])


cdef int run_stage(Parts* parts, int stage, long n_blocks, Py_ssize_t threads) except -1 nogil:
    cdef long block
    parts.stage = stage
    if threads > 1:
        with gil:
            run_blocks(run_block, parts, n_blocks, threads)
    else:
        for block in range(n_blocks):
            run_block(parts, block, 0)
    return 0


cdef bint run_block(const void* work, long block, long thread) noexcept nogil:
    cdef Parts* parts = <Parts*>work
    if parts.wide_indices and parts.wide_slots:
        do_block(parts, <int64_t*>parts.unique, <int64_t*>parts.slots, block, thread)
    elif parts.wide_indices:
        do_block(parts, <int64_t*>parts.unique, <int32_t*>parts.slots, block, thread)
    elif parts.wide_slots:
        do_block(parts, <int32_t*>parts.unique, <int64_t*>parts.slots, block, thread)
    else:
        do_block(parts, <int32_t*>parts.unique, <int32_t*>parts.slots, block, thread)
    return False


cdef void do_block(Parts* parts, index_t* unique, slot_t* slots, long block, long thread) noexcept nogil:
    cdef Py_ssize_t start = parts.k * block // parts.n_slices, stop = parts.k * (block + 1) // parts.n_slices
    if parts.stage == COUNT:
        count_slice(parts, unique, start, stop, parts.starts[block])
    elif parts.stage == DIVIDE:
        divide_slice(parts, unique, start, stop, parts.starts[block], <index_t*>parts.keys)
    elif parts.stage == NUMBER:
        number_part(parts, block, <index_t*>parts.keys, &parts.workers[thread])
    elif parts.stage == ENTER:
        enter_slice(parts, <index_t*>parts.keys, start, stop, block, slots, unique)
    elif block > 0:
        fill_slice(parts.final, start, stop, slots)


cdef void count_slice(
    Parts* parts, const index_t* indices, Py_ssize_t start, Py_ssize_t stop, int32_t* counts
) noexcept nogil:
    cdef Hashing hashing = parts.hashing
    cdef uint8_t* part_of = parts.part_of
    cdef uint8_t part
    cdef Py_ssize_t j
    memset(counts, 0, PARTS * sizeof(int32_t))
    for j in range(start, stop):
        part = hashed(&hashing, <uint64_t>indices[j]) & (PARTS - 1)     # tables go by the upper bits
        part_of[j] = part
        counts[part] += 1


cdef void place_keys(Parts* parts) noexcept nogil:
    """Make starts of counts."""
    cdef int32_t at = 0, n
    cdef long slice, part
    for part in range(PARTS):
        for slice in range(parts.n_slices):
            n, parts.starts[slice][part] = parts.starts[slice][part], at
            at += n
        parts.starts[parts.n_slices][part] = at


cdef void divide_slice(
    Parts* parts, const index_t* indices, Py_ssize_t start, Py_ssize_t stop, const int32_t* starts, index_t* keys
) noexcept nogil:
    cdef int32_t[<int>PARTS] next
    cdef const uint8_t* part_of = parts.part_of
    cdef Py_ssize_t j
    cdef uint8_t part
    memcpy(next, starts, sizeof(next))
    for j in range(start, stop):
        part = part_of[j]
        keys[next[part]] = indices[j]
        next[part] += 1


cdef Py_ssize_t share_tables(Parts* parts, Scratch* scratch, Py_ssize_t threads) noexcept nogil:
    """Give a table to as many threads as can have one in the memory of a table for all indices; return how many."""
    cdef int32_t longest = 0
    cdef Py_ssize_t part, t
    cdef size_t nbytes
    cdef int bits
    for part in range(PARTS):
        longest = max(longest, parts.starts[parts.n_slices][part] - parts.starts[0][part])
    bits = part_bits(longest, parts.k)
    nbytes = sizeof(uint64_t) << bits
    threads = min(threads, WORKERS, <Py_ssize_t>1 << (hash_bits(parts.k) - bits))
    if reserve_table(&scratch.hash, threads * nbytes, parts.k) == NULL:
        return 0
    for t in range(threads):
        parts.workers[t].table.entries.data = <char*>scratch.hash.entries.data + t * nbytes
        parts.workers[t].table.base = scratch.hash.base
        parts.workers[t].probes = 0
    scratch.hash.base += <uint32_t>parts.k      # no table counts farther
    return threads


cdef void number_part(Parts* parts, long part, index_t* keys, Worker* worker) noexcept nogil:
    cdef Py_ssize_t start = parts.starts[0][part], n = parts.starts[parts.n_slices][part] - start, i
    cdef Py_ssize_t u = number_by_hash(
        &worker.table, part_bits(n, parts.k), &keys[start], n, &parts.numbers[start], &parts.hashing, &worker.probes)
    cdef int32_t count = 0
    cdef long slice
    parts.seen[parts.n_slices][part] = <int32_t>u
    if u == COLLIDED:
        return
    for slice in range(parts.n_slices):
        parts.seen[slice][part] = count
        if slice < parts.n_slices - 1:
            for i in range(parts.starts[slice][part], parts.starts[slice + 1][part]):
                count = max(count, parts.numbers[i] + 1)


cdef bint some_collided(const Parts* parts) noexcept nogil:
    cdef long part
    for part in range(PARTS):
        if parts.seen[parts.n_slices][part] == COLLIDED:
            return True
    return False


cdef void enter_slice(
    Parts* parts, const index_t* keys, Py_ssize_t start, Py_ssize_t stop, long slice, slot_t* slots, index_t* unique
) noexcept nogil:
    """Give the next numbers to keys that are new. Slots become places in `final`, or, in the first slice, numbers."""
    cdef int32_t[<int>PARTS] starts, next, unseen
    cdef const int32_t* numbers = parts.numbers
    cdef const uint8_t* part_of = parts.part_of
    cdef int32_t* final = parts.final
    cdef int32_t u = <int32_t>sum_of(parts.seen[slice])
    cdef Py_ssize_t j, at, part
    memcpy(starts, parts.starts[0], sizeof(starts))
    memcpy(next, parts.starts[slice], sizeof(next))
    for part in range(PARTS):
        unseen[part] = starts[part] + parts.seen[slice][part]
    for j in range(start, stop):
        part = part_of[j]
        at = starts[part] + numbers[next[part]]
        next[part] += 1
        if at == unseen[part]:
            final[at] = u
            unique[u] = keys[at]
            unseen[part] += 1
            u += 1
        slots[j] = <slot_t>(at if slice else final[at])


cdef void fill_slice(const int32_t* final, Py_ssize_t start, Py_ssize_t stop, slot_t* slots) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(start, stop):
        slots[j] = <slot_t>final[slots[j]]


# ---- by sorting: slower than a table where indices do not collide, and as slow whatever they are

cdef struct Sorted:
    uint64_t* keys          # distances from the lowest index, and
    int32_t* places         # where these indices are


cdef Py_ssize_t number_by_sorting(
    Scratch* scratch, Py_ssize_t k, slot_t* slots, index_t* unique, int64_t lowest
) noexcept nogil:
    """Number the indices in `unique`. Equal ones come one behind the other in their order; the first stands for all."""
    cdef Sorted[2] buffers
    cdef Sorted* result
    cdef Py_ssize_t j, leader = 0, u = 0
    if (
        reserve_large(&scratch.parts, k * (sizeof(uint64_t) + sizeof(int32_t))) == NULL
        # a table is at least as large, and what is written there is cleared afterwards
        or reserve_table(&scratch.hash, sizeof(uint64_t) << hash_bits(k), k) == NULL
    ):
        return NO_MEMORY
    buffers[0].keys, buffers[1].keys = <uint64_t*>scratch.parts.data, <uint64_t*>scratch.hash.entries.data
    for j in range(2):
        buffers[j].places = <int32_t*>&buffers[j].keys[k]
    for j in range(k):
        buffers[0].keys[j], buffers[0].places[j] = <uint64_t>unique[j] - <uint64_t>lowest, <int32_t>j
    result = sort_by_digits(buffers, k)
    for j in range(k):
        if result.keys[j] != result.keys[leader]:
            leader = j
        slots[result.places[j]] = <slot_t>result.places[leader]
    for j in range(k):
        if slots[j] == j:
            unique[u] = unique[j]
            slots[j] = <slot_t>u
            u += 1
        else:
            slots[j] = slots[slots[j]]
    memset(scratch.hash.entries.data, 0, k * (sizeof(uint64_t) + sizeof(int32_t)))
    return u


cdef Sorted* sort_by_digits(Sorted* buffers, Py_ssize_t k) noexcept nogil:
    """Sort k >= 1 keys of the first buffer, equal ones in their order; return the buffer that has them then."""
    cdef Py_ssize_t[256] starts
    cdef Sorted* source = &buffers[0]
    cdef Sorted* target = &buffers[1]
    cdef Py_ssize_t j, n, at
    cdef int digit, value, shift
    for digit in range(DIGITS):
        shift = 8 * digit
        memset(starts, 0, sizeof(starts))
        for j in range(k):
            starts[(source.keys[j] >> shift) & 255] += 1
        if starts[(source.keys[0] >> shift) & 255] == k:      # all have the same digit
            continue
        at = 0
        for value in range(256):
            n, starts[value] = starts[value], at
            at += n
        for j in range(k):
            value = (source.keys[j] >> shift) & 255
            target.keys[starts[value]], target.places[starts[value]] = source.keys[j], source.places[j]
            starts[value] += 1
        source, target = target, source
    return source


cdef Py_ssize_t sum_of(const int32_t* counts) noexcept nogil:
    cdef Py_ssize_t total = 0, part
    for part in range(PARTS):
        total += counts[part]
    return total


cdef const void* unique_indices(const Scratch* scratch) noexcept nogil:
    return scratch.unique.data


cdef int64_t lowest_index(const Scratch* scratch) noexcept nogil:
    return scratch.lowest


cdef int64_t highest_index(const Scratch* scratch) noexcept nogil:
    return scratch.highest


# ---- merged rows

cdef int sum_rows(
    Scratch* scratch, const int32_t* slots, Py_ssize_t k, Py_ssize_t u, const void* values, Layout storage,
    Py_ssize_t width, void* merged
) noexcept nogil:
    cdef Py_ssize_t most = min(u, (k - u) // SUMMED), j = 0      # hot slots at most
    cdef HotRows hot
    cdef Arrays arrays
    arrays.w = arrays.slot1 = arrays.slot2 = NULL
    arrays.g, arrays.slot0, arrays.zero = values, merged, 0
    memset(&hot, 0, sizeof(hot))
    if most > 0 and storage != FLOAT64:
        hot.places = <int32_t*>reserve(&scratch.counts, u * (sizeof(int32_t) + sizeof(uint8_t)))
        if hot.places == NULL:
            return -1
        hot.counts = <uint8_t*>&hot.places[u]
        memset(hot.counts, 0, u)
    while True:
        j = scratch.kernels.merge[<int>storage](&arrays, slots, j, k, width, &hot)
        if j == k:
            return 0
        if not make_room(&scratch.hot, &hot, min(most, max(<Py_ssize_t>ROOM, 2 * hot.room)), width):
            return -1


cdef bint make_room(Memory* memory, HotRows* hot, Py_ssize_t room, Py_ssize_t width) noexcept nogil:
    """Make room for more hot slots, and keep those that are there; tell whether there is memory."""
    cdef size_t nbytes = room * (width * sizeof(double) + sizeof(int32_t))
    cdef const int32_t* slots
    cdef void* data
    if memory.nbytes < nbytes:
        data = PyMem_RawRealloc(memory.data, nbytes)
        if data == NULL:
            return False
        memory.data, memory.nbytes = data, nbytes
    hot.sums = <double*>memory.data
    slots = <int32_t*>&hot.sums[hot.room * width]
    hot.slots = <int32_t*>&hot.sums[room * width]
    memmove(hot.slots, slots, hot.n_sums * sizeof(int32_t))
    hot.room = room
    return True


# ---- doors

PARTED_FROM = PARTED      # for tests

_STORAGE = {"float32": FLOAT32, "float64": FLOAT64, "float16": FLOAT16, "bfloat16": BFLOAT16}


@cache      # the name of a dtype takes longer than a small merge
def storage_of(dtype):
    """Return the storage and the compute dtype of rows of `dtype`; TypeError if no kernel takes it."""
    compute = compute_dtype(dtype, "dtype of values")
    return _STORAGE[dtype.name], compute


cdef class Workspace:
    """Working memory for `unique` and `merge_rows`, kept from call to call.

    Its size follows the longest call, never the values of the indices. One thread at a time may use it.

    Attributes
    ----------
    nbytes : int
        Bytes that are kept.
    probes : int
        Entries of the hash table that were looked at in vain, in all calls.
    collisions : int
        So many of them for each index, and indices are hashed anew or sorted. Only tests have a reason to set it.
    busy : bool
        Whether a call is using it. Only tests have a reason to set it.
    """
    cdef Scratch* scratch
    cdef public bint busy

    def __cinit__(self):
        self.scratch = new_scratch()

    def __dealloc__(self):
        free_scratch(self.scratch)

    cdef int enter(self) except -1:
        if self.busy:
            raise RuntimeError("a workspace serves one call at a time, but another thread is inside a call of this one")
        self.busy = True
        return 0

    def skip_numbers(self, uint32_t base):
        """Go on with the number `base`, as after very many calls; only tests have a reason to."""
        self.scratch.direct.base = self.scratch.hash.base = base

    @property
    def nbytes(self):
        return scratch_bytes(self.scratch)

    @property
    def probes(self):
        return self.scratch.probes

    @property
    def collisions(self):
        return self.scratch.collisions

    @collisions.setter
    def collisions(self, Py_ssize_t value):
        self.scratch.collisions = value


cdef class Result:
    """Memory of an array that is returned. Kernels write it before its length is known.

    Attributes
    ----------
    nbytes : int
        Bytes of the memory: at most twice those of the array.
    """
    cdef Memory memory

    def __cinit__(self, size_t nbytes):
        self.memory = new_memory(nbytes)
        if self.memory.data == NULL:
            raise MemoryError()

    def __dealloc__(self):
        release_memory(self.memory)

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory.data, self.memory.nbytes, False, flags)

    @property
    def nbytes(self):
        return self.memory.nbytes

    cdef as_array(self, tuple shape, dtype):
        """Return the array; one that needs less than half of the memory gets its own."""
        cdef size_t nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        cdef Result result = self
        if 2 * nbytes < self.memory.nbytes:
            result = Result(nbytes)
            memcpy(result.memory.data, self.memory.data, nbytes)
        return np.ndarray(shape, dtype, result)


def bounds(indices):
    """Return the smallest and the largest of at least one index."""
    return bounds_of[int32_t](indices) if indices.dtype == np.int32 else bounds_of[int64_t](indices)


cdef bounds_of(const index_t[::1] indices):
    cdef index_t lowest, highest
    cdef KernelTable* kernels = active_table()
    with nogil:
        find_bounds(kernels, &indices[0], indices.shape[0], &lowest, &highest)
    return lowest, highest


def unique(indices, return_inverse, return_counts, Workspace workspace not None):
    """Number indices in order of first appearance.

    Parameters
    ----------
    indices : ndarray of int32 or int64, shape (k,)
        C-contiguous and aligned, k < 2**31.
    return_inverse, return_counts : bool
        What to return beside the unique indices.
    workspace : Workspace

    Returns
    -------
    tuple of ndarray
        Unique indices in the dtype of `indices`; the inverse and the counts (int64), where they are asked for.
    """
    workspace.enter()
    try:
        if indices.dtype == np.int32:
            return unique_of[int32_t](indices, return_inverse, return_counts, workspace)
        return unique_of[int64_t](indices, return_inverse, return_counts, workspace)
    finally:
        workspace.busy = False


cdef tuple unique_of(const index_t[::1] indices, bint return_inverse, bint return_counts, Workspace workspace):
    cdef Scratch* scratch = workspace.scratch
    cdef Py_ssize_t k = indices.shape[0], threads = threads_for(k), u
    cdef int32_t* slots = NULL
    cdef Result found = Result(k * sizeof(index_t)), inverse
    cdef int64_t[::1] counts
    if return_inverse:
        inverse = Result(k * sizeof(int64_t))
        with nogil:
            u = number(scratch, &indices[0], k, <int64_t*>inverse.memory.data, <index_t*>found.memory.data, threads)
    else:
        slots = checked_slots(scratch, k)
        with nogil:
            u = number(scratch, &indices[0], k, slots, <index_t*>found.memory.data, threads)
    result = (found.as_array((checked_count(u),), np.int32 if index_t is int32_t else np.int64),)
    if return_inverse:
        result += (inverse.as_array((k,), np.int64),)
    if return_counts:
        counts = np.zeros(u, np.int64)
        with nogil:
            if return_inverse:
                count(<int64_t*>inverse.memory.data, k, &counts[0])
            else:
                count(slots, k, &counts[0])
        result += (counts.base,)
    return result


cdef void count(const slot_t* slots, Py_ssize_t k, int64_t* counts) noexcept nogil:
    cdef Py_ssize_t j
    for j in range(k):
        counts[slots[j]] += 1


def merge_rows(indices, values, Workspace workspace not None):
    """Sum the rows of `values` that share an index, in order of occurrence.

    Parameters
    ----------
    indices : ndarray of int32 or int64, shape (k,)
        C-contiguous and aligned, not negative, k < 2**31.
    values : ndarray of float, shape (k, width)
        C-contiguous and aligned.
    workspace : Workspace

    Returns
    -------
    unique : ndarray, shape (u,)
        Indices in order of first appearance.
    merged : ndarray, shape (u, width)
        Sums, in the compute dtype of `values`.

    Raises
    ------
    ValueError
        If an index is negative.
    """
    workspace.enter()
    try:
        if indices.dtype == np.int32:
            return merge_rows_of[int32_t](indices, values, workspace)
        return merge_rows_of[int64_t](indices, values, workspace)
    finally:
        workspace.busy = False


cdef tuple merge_rows_of(const index_t[::1] indices, values, Workspace workspace):
    cdef Scratch* scratch = workspace.scratch
    cdef Py_ssize_t k = indices.shape[0], threads = threads_for(k), u
    cdef int32_t* slots = checked_slots(scratch, k)
    cdef const unsigned char[::1] value_bytes = values.reshape(-1).view(np.uint8)
    cdef Layout storage
    cdef Py_ssize_t width
    cdef bint failed
    cdef Result found = Result(k * sizeof(index_t)), merged
    with nogil:
        u = number(scratch, &indices[0], k, slots, <index_t*>found.memory.data, threads)
    unique = found.as_array((checked_count(u),), np.int32 if index_t is int32_t else np.int64)
    if u > 0 and scratch.lowest < 0:
        raise ValueError(f"indices must be >= 0, got {scratch.lowest}")
    storage, compute = storage_of(values.dtype)
    width = values.shape[1]
    merged = Result(u * width * compute.itemsize)
    # One thread: two that shared the columns, or the slots, took longer. Most of the time is the memory's.
    with nogil:
        failed = sum_rows(scratch, slots, k, u, &value_bytes[0], storage, width, merged.memory.data)
    if failed:
        raise MemoryError()
    return unique, merged.as_array((u, width), compute)


cdef int32_t* checked_slots(Scratch* scratch, Py_ssize_t k) except NULL:
    cdef int32_t* slots = reserve_slots(scratch, k)
    if slots == NULL:
        raise MemoryError()
    return slots


cdef Py_ssize_t checked_count(Py_ssize_t u) except -1:
    if u < 0:
        raise MemoryError()
    return u
