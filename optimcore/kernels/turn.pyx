# cython: language_level=3
"""Turns: one thread at a time is inside an optimizer; other threads wait, or are refused.

A thread that is inside cannot come in again: a gradient's ``__array__``, a schedule or a signal handler that takes a
step of the same optimizer gets a RuntimeError instead of waiting for itself. The child of a fork has a new lock, since
the thread that held the old one may have stayed behind in the parent.
"""
import os

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept
    int PyErr_CheckSignals() except -1

cdef extern from "pythread.h":
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyThread_type_lock PyThread_allocate_lock()
    void PyThread_free_lock(PyThread_type_lock lock)
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int interruptible) nogil
    int PyThread_acquire_lock(PyThread_type_lock lock, int wait) nogil
    void PyThread_release_lock(PyThread_type_lock lock) nogil

cdef long forks = 0         # that led from the process which imported this module to this one


def _count_fork():
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


cdef long count_forks() noexcept:
    return forks


cdef class Turn:
    """The right to be inside an optimizer: ``with turn: ...``.

    In a step of a class of the user's own, the thread that is inside may change settings: it may use ``with`` again.

    Attributes
    ----------
    wait : bool
        Whether a thread waits while another one is inside (True at first), or gets a RuntimeError.

    Raises
    ------
    RuntimeError
        If this thread is inside already; or if another one is, and `wait` is False.
    """

    def __cinit__(self):
        self.wait = True
        self.renew()

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    def __enter__(self):
        if self.is_lent and self.is_mine():
            self.depth += 1
        else:
            self.enter()
        return self

    def __exit__(self, *error):
        if self.depth > 0 and self.is_mine():
            self.depth -= 1
        else:
            self.leave()

    cdef int enter(self) except -1:
        cdef unsigned long me = PyThread_get_thread_ident()
        if self.forks != forks:
            self.renew()
        if self.owner == me:
            raise RuntimeError("an optimizer takes one step at a time, but this thread is inside a step of this one")
        if not PyThread_acquire_lock(self.lock, 0):
            if not self.wait:
                raise RuntimeError(
                    "an optimizer takes one step at a time, but another thread is inside a step of this one")
            self.wait_for_turn()
        self.owner, self.depth, self.is_lent = me, 0, False
        return 0

    cdef int wait_for_turn(self) except -1:
        """Acquire the lock. What a signal handler raises meanwhile, such as KeyboardInterrupt, ends the waiting."""
        cdef PyLockStatus status = PY_LOCK_INTR
        while status != PY_LOCK_ACQUIRED:
            PyErr_CheckSignals()
            with nogil:
                status = PyThread_acquire_lock_timed(self.lock, -1, 1)
        return 0

    cdef bint is_mine(self) noexcept:
        return self.owner == PyThread_get_thread_ident() and self.forks == forks

    cdef void leave(self) noexcept:
        if self.is_mine():          # else this is the child of a fork inside, and has a new lock
            self.owner = 0
            PyThread_release_lock(self.lock)

    cdef int renew(self) except -1:
        cdef PyThread_type_lock lock = PyThread_allocate_lock()
        if lock == NULL:
            raise MemoryError()
        if self.lock != NULL:
            PyThread_free_lock(self.lock)
        self.lock, self.owner, self.forks = lock, 0, forks
        return 0
