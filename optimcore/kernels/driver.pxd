"""What other kernel modules take from the driver."""
from .table cimport KernelTable

# The kernel table of the active ISA build. It lives as long as the process.
cdef KernelTable* active_table() except NULL
