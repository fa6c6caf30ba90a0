"""The kernel table: what one ISA build offers to the driver, handed over in a capsule."""
from .storage cimport LAYOUTS
from .rules cimport Prologue

# update elements start..stop of one parameter: hyper is the rule's struct, arrays the layout's struct
ctypedef void (*update_t)(
    const void* hyper, const void* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue
) noexcept nogil

# sum the decayed gradient over elements start..stop
ctypedef double (*total_t)(
    const void* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue
) noexcept nogil

cdef enum:
    MAX_RULES = 64

ctypedef struct RuleKernels:
    const char* name
    int hypers              # doubles in the rule's struct
    int slots
    update_t[<int>LAYOUTS] update

ctypedef struct KernelTable:
    int count
    RuleKernels[<int>MAX_RULES] rules
    total_t[<int>LAYOUTS] total
