# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, infer_types=True
from libc.stdint cimport int32_t, int64_t
from cpython.pycapsule cimport PyCapsule_New
from .rules cimport *
from .storage cimport *
from .table cimport *
include "_isa.pxi"
