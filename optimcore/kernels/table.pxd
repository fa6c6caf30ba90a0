"""The kernel table: what one ISA build offers to the driver, handed over in a capsule."""
from .storage cimport LAYOUTS
from .rules cimport Prologue

# update elements start..stop of one parameter: hyper is the rule's struct, arrays the layout's struct
ctypedef void (*update_f)(
    const void* hyper, const void* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue
) noexcept nogil

# sum the decayed gradient over elements start..stop
ctypedef double (*total_f)(
    const void* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue
) noexcept nogil

# add to squares[0..1] the sums of squares of a measure's two quantities over elements start..stop
ctypedef void (*measure_f)(
    const void* hyper, const void* arrays, Py_ssize_t start, Py_ssize_t stop, const Prologue* prologue, double* squares
) noexcept nogil

cdef enum:
    MAX_RULES = 64
    MAX_MEASURES = 16

ctypedef struct RuleKernels:
    const char* name
    int hypers              # doubles in the rule's struct
    int slots
    bint decoupled          # the rule reads the decay itself; its gradient goes without
    update_f[<int>LAYOUTS] update

ctypedef struct MeasureKernels:
    const char* name
    measure_f[<int>LAYOUTS] measure

ctypedef struct KernelTable:
    int rule_count
    RuleKernels[<int>MAX_RULES] rules
    int measure_count
    MeasureKernels[<int>MAX_MEASURES] measures
    total_f[<int>LAYOUTS] total
