"""Allocations that fail: each in turn of those that a call makes."""

import sys

import pytest

CRASHES = "seen to crash CPython 3.12 and 3.13, for a reason that is not known yet"


def load_testcapi():
    """Return CPython's module that lets allocations fail; skip the test where there is none, or it must not be used."""
    if sys.version_info >= (3, 12):
        pytest.skip(CRASHES)
    return pytest.importorskip("_testcapi", reason="this Python comes without its own tests")


def fail_each_allocation(prepare, check, most=400):
    """Call what `prepare` returns with the first allocation failing, then with the second, until none is left.

    Parameters
    ----------
    prepare : callable
        Takes how many allocations succeed before the one that fails, and returns a callable without arguments. It and
        its result are new for each.
    check : callable
        Takes that callable and whether it has raised MemoryError, with memory as usual.
    most : int
        Allocations that a call makes at most.

    Returns
    -------
    int
        How many of the calls raised MemoryError. No other exception is taken for one.
    """
    testcapi = load_testcapi()
    failed = 0
    succeeded = 0  # one behind the other: some allocations fail and nobody minds
    for n in range(most):
        call = prepare(n)
        testcapi.set_nomemory(n, n + 1)
        try:
            call()
        except MemoryError:
            raised = True
        else:
            raised = False
        finally:
            testcapi.remove_mem_hooks()
        check(call, raised)
        failed += raised
        succeeded = 0 if raised else succeeded + 1
        if succeeded > 20:
            return failed
    raise AssertionError(f"calls must make at most {most} allocations")
