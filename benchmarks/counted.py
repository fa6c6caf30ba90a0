"""The process whose instructions are counted. Usage, under callgrind: python counted.py LIBRARY ID...

Two stretches of calls are dumped, with n and with 2 n calls: what both have in common cancels, and the difference is n
calls. A garbage collection would not cancel, so there is none. CPython specializes its instructions by the types that
it has seen: every workload has a fork of its own, or its count would depend on those before it.
"""

import ctypes
import gc
import os
import sys

from workloads import WORKLOADS

import optimcore

WARM = 40  # calls before the first that counts: CPython has specialized its instructions by then


def stretch(step, calls):
    """Call so many times."""
    for _ in range(calls):
        step()


def dump(callgrind, name):
    """Dump two stretches of a workload, both named by n and its id."""
    run = WORKLOADS[name].make()
    calls = max(2, min(20, 10**6 // WORKLOADS[name].elements))
    stretch(run.step, WARM if calls > 2 else 3)
    callgrind.start()
    for times in (1, 2):
        callgrind.zero()
        stretch(run.step, times * calls)
        callgrind.dump(f"{calls} {name}".encode())
    callgrind.stop()


def main():
    """Dump all workloads, one after another."""
    if not optimcore.__file__.startswith(sys.prefix):
        raise SystemExit(f"optimcore comes from {optimcore.__file__}, not from {sys.prefix}")
    callgrind = ctypes.CDLL(sys.argv[1])
    gc.disable()
    for name in sys.argv[2:]:
        child = os.fork()
        if not child:
            dump(callgrind, name)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"{name} fails")


if __name__ == "__main__":
    main()
