"""The process that the gate measures: it makes and calls workloads as its parent says, in lines of text.

It runs in the virtual environment of one revision, on the workloads that lie beside this file.

    list        answer: ids of the gate's workloads, separated by tabs
    make ID     build the workload, call it until it is warm; answer: seconds of the fastest call, or an error
    run N       call it once, then N times; answer: seconds of the CPU that one of the N calls took

Of the CPU, not of the clock: with one thread, a call waits for nothing but others that have the CPU meanwhile.
"""

import gc
import sys
import time

from workloads import WORKLOADS

import optimcore

# not on Windows, where they are counted in ticks
cpu_time = time.process_time if time.get_clock_info("process_time").resolution < 1e-6 else time.perf_counter
WARM = 0.004  # seconds of calls before anything counts: caches, pages, and the interpreter's specialized instructions


def time_calls(step, calls, clock):
    """Return the mean seconds of a call."""
    start = clock()
    for _ in range(calls):
        step()
    return (clock() - start) / calls


def warm(step):
    """Call for some time; return the seconds of the fastest call."""
    times = []
    while len(times) < 3 or sum(times) < WARM:
        times.append(time_calls(step, 1, time.perf_counter))  # time of the CPU may stand still for so long
    return min(times)


def main():
    """Serve until the input ends."""
    if not optimcore.__file__.startswith(sys.prefix):
        raise SystemExit(f"optimcore comes from {optimcore.__file__}, not from {sys.prefix}")
    gc.disable()
    run = None
    for line in sys.stdin:
        request, _, argument = line.rstrip("\n").partition(" ")
        try:
            if request == "list":
                answer = "\t".join(name for name, workload in WORKLOADS.items() if workload.quick)
            elif request == "make":
                run = None  # free the last one's memory first
                gc.collect()
                run = WORKLOADS[argument].make()
                answer = warm(run.step)
            else:
                run.step()  # the other process has had the cache
                answer = time_calls(run.step, int(argument), cpu_time)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}".replace("\n", " ")
        print(answer, flush=True)


if __name__ == "__main__":
    main()
