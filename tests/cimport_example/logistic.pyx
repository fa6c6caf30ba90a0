# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False
"""Logistic regression on sparse examples, trained by FTRL: a complete trainer around the kernels of optimcore.

A step takes a batch of examples. Blocks of examples compute the gradients of their features; then the gradients of each
feature are summed, and blocks of features are updated. Blocks run in several threads without the GIL, and none reads
what another one writes: weights have the same bits for any number of threads.
"""
import numpy as np

from libc.math cimport exp
from libc.stdint cimport int64_t

from optimcore.kernels.embed cimport (
    FLOAT32, Rule, Scratch, find_rule, free_scratch, merge_rows, merged_rows, new_scratch, num_threads, run_blocks,
    unique_indices, update_rows
)

cdef enum:
    EXAMPLES = 64           # in a block
    FEATURES = 512

# What the blocks of a step look at.
cdef struct Step:
    const int64_t* starts   # entries starts[j]..starts[j + 1] of the next three belong to example j
    const int64_t* features
    const float* values
    float* gradients
    const float* labels
    Py_ssize_t n_examples
    const int64_t* rows     # features that have a gradient in this step,
    const float* sums       # and their gradients
    Py_ssize_t n_rows
    const Rule* rule
    double[3] hypers
    float* weights
    void* slots[2]


cdef bint differentiate(const void* work, long block, long thread) noexcept nogil:
    """Compute the gradients of the mean logistic loss for a block of examples."""
    cdef const Step* step = <const Step*>work
    cdef Py_ssize_t j, i
    cdef double score, error
    for j in range(block * EXAMPLES, min((block + 1) * EXAMPLES, step.n_examples)):
        score = 0
        for i in range(step.starts[j], step.starts[j + 1]):
            score += <double>step.weights[step.features[i]] * step.values[i]
        error = (1 / (1 + exp(-score)) - step.labels[j]) / step.n_examples
        for i in range(step.starts[j], step.starts[j + 1]):
            step.gradients[i] = <float>(error * step.values[i])
    return False


cdef bint update(const void* work, long block, long thread) noexcept nogil:
    """Update a block of features: rows of a table with one column."""
    cdef const Step* step = <const Step*>work
    cdef Py_ssize_t first = block * FEATURES
    update_rows(
        step.rule, FLOAT32, step.hypers, 0, 1, step.weights, <void**>step.slots,
        step.rows + first, min(FEATURES, step.n_rows - first), 1, step.sums + first)
    return False


cdef class LogisticRegression:
    """Hold the weights of a logistic regression and the state of FTRL.

    Parameters
    ----------
    n_features : int
    learning_rate, l1, l2, initial_accum : float
        As in `optimcore.FTRL`.

    Attributes
    ----------
    weights : ndarray of float32, shape (n_features,)
    """
    cdef readonly object weights
    cdef object state
    cdef Step step
    cdef Scratch* scratch

    def __cinit__(self, Py_ssize_t n_features, double learning_rate, double l1, double l2, double initial_accum):
        cdef float[::1] w = np.zeros(n_features, np.float32)
        cdef float[::1] accum = np.full(n_features, initial_accum, np.float32)
        cdef float[::1] linear = np.zeros(n_features, np.float32)
        self.weights, self.state = np.asarray(w), (accum, linear)       # they keep the memory alive
        self.step.rule, self.step.hypers = find_rule(b"ftrl"), [learning_rate, l1, l2]
        self.step.weights, self.step.slots = &w[0], [&accum[0], &linear[0]]
        self.scratch = new_scratch()

    def __dealloc__(self):
        free_scratch(self.scratch)

    def fit(
        self, const int64_t[::1] starts, const int64_t[::1] features, const float[::1] values, const float[::1] labels,
        Py_ssize_t batch_size
    ):
        """Pass once over the examples, `batch_size` of them at a time.

        Parameters
        ----------
        starts : ndarray of int64, shape (n + 1,)
            Example j has the features ``features[starts[j]:starts[j + 1]]``.
        features : ndarray of int64
            In ``[0, n_features)``.
        values : ndarray of float32
            Of the features.
        labels : ndarray of float32, shape (n,)
            0 or 1.
        batch_size : int
        """
        cdef Py_ssize_t first, n = labels.shape[0]
        cdef float[::1] gradients = np.empty(features.shape[0], np.float32)
        check_examples(np.asarray(starts), np.asarray(features), len(values), n, len(self.weights))
        self.step.features, self.step.values, self.step.gradients = &features[0], &values[0], &gradients[0]
        for first in range(0, n, batch_size):
            self.step.starts, self.step.labels = &starts[first], &labels[first]
            self.step.n_examples = min(batch_size, n - first)
            self.fit_batch()

    cdef int fit_batch(self) except -1:
        cdef Step* step = &self.step
        cdef Py_ssize_t start = step.starts[0], stop = step.starts[step.n_examples]
        run_blocks(differentiate, step, blocks(step.n_examples, EXAMPLES), num_threads())
        with nogil:
            step.n_rows = merge_rows(
                self.scratch, FLOAT32, step.features + start, stop - start, step.gradients + start, 1)
        if step.n_rows < 0:
            raise MemoryError()
        step.rows, step.sums = unique_indices(self.scratch), <const float*>merged_rows(self.scratch)
        return run_blocks(update, step, blocks(step.n_rows, FEATURES), num_threads())


cdef long blocks(Py_ssize_t n, Py_ssize_t size) noexcept nogil:
    return (n + size - 1) // size


def check_examples(starts, features, n_values, n_labels, n_features):
    """Raise ValueError if examples are not as `LogisticRegression.fit` wants them: kernels check nothing."""
    if not (
        n_labels > 0 and len(starts) == n_labels + 1 and starts[0] == 0 and (np.diff(starts) >= 0).all()
        and 0 < starts[n_labels] == len(features) == n_values and 0 <= features.min() and features.max() < n_features
    ):
        raise ValueError("starts, features, values and labels must fit together and features be known")
