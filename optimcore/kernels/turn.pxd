"""Turns: one thread at a time is inside an optimizer."""

cdef extern from "pythread.h":
    ctypedef void* PyThread_type_lock

# Return how many forks led from the process which imported this module to this one.
cdef long count_forks() noexcept

cdef class Turn:
    cdef PyThread_type_lock lock
    cdef unsigned long owner        # thread that is inside, 0 if there is none
    cdef long forks                 # how many there had been when the lock was made
    cdef long depth                 # how often it has come in again where that is allowed
    cdef bint is_lent               # the thread that is inside may come in again for anything but a step
    cdef public bint wait

    # Come in, after whoever is inside has left.
    cdef int enter(self) except -1
    # Tell whether this thread is inside.
    cdef bint is_mine(self) noexcept
    cdef void leave(self) noexcept
    cdef int wait_for_turn(self) except -1
    cdef int renew(self) except -1
