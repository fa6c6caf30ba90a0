"""Floating-point modes of the calling thread, which say how it rounds and what it makes of subnormal numbers."""

import ctypes
import platform
from contextlib import contextmanager

import pytest

# where in the C library's fenv_t the control register is, and its bits; by machine
_REGISTERS = {
    "x86_64": (28, {"flush subnormals": 0x8040, "round down": 0x2000, "round up": 0x4000, "truncate": 0x6000}),
    "aarch64": (0, {"flush subnormals": 1 << 24, "round down": 2 << 22, "round up": 1 << 22, "truncate": 3 << 22}),
}
MODES = ["flush subnormals", "round down", "round up", "truncate"]


@contextmanager
def float_mode(mode):
    """Let this thread, and no other one, compute in a mode of `MODES`."""
    if platform.libc_ver()[0] != "glibc" or platform.machine() not in _REGISTERS:
        pytest.skip("the layout of fenv_t is not known here")
    libc = ctypes.CDLL(None)
    offset, bits = _REGISTERS[platform.machine()]
    usual, changed = (ctypes.create_string_buffer(64) for _ in range(2))
    libc.fegetenv(usual)
    changed.raw = usual.raw
    register = ctypes.c_uint32.from_buffer(changed, offset)
    register.value |= bits[mode]
    libc.fesetenv(changed)
    try:
        yield
    finally:
        libc.fesetenv(usual)
