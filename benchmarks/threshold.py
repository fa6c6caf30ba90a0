"""The size of a step from which a second thread pays on this machine, measured at import.

The benchmarks import this module, so that every figure with two threads is one that the machine deserves. Elsewhere the
library goes by its own default, which was measured so too; ``python benchmarks/threshold.py`` prints what to set here
instead, by `optimcore.set_thread_threshold` or ``OPTIMCORE_THREAD_THRESHOLD``. That variable also overrides what the
benchmarks measure.
"""

import os
import statistics
from functools import partial
from time import perf_counter, sleep

import numpy as np

import optimcore
from optimcore import runtime

SIZES = [2**power for power in range(12, 21)]
GAIN = 1.1  # a second thread that saves less than a tenth is better left to others
ROUNDS, STEPS = 15, 5


def gains(sizes=SIZES):
    """Return, for each size, how many times sooner two threads are done with a step of Momentum, as a median.

    It is the cheapest rule that has a slot: others, which compute more, gain sooner. The sizes are measured in turn, so
    that what disturbs some milliseconds spoils a round of each, and not all rounds of one.
    """
    before = optimcore.get_num_threads(), optimcore.get_thread_threshold()
    optimcore.set_thread_threshold(0)
    sleep(0.2)  # the threads of NumPy's BLAS keep a CPU busy for a while after they have begun
    try:
        steps = {size: make_step(size) for size in sizes}
        rounds = [{size: gain(step) for size, step in steps.items()} for _ in range(ROUNDS)]
        return {size: statistics.median(one[size] for one in rounds) for size in sizes}
    finally:
        optimcore.set_num_threads(before[0])
        optimcore.set_thread_threshold(before[1])


def make_step(size):
    """Return a function that takes a step on a tensor of so many elements."""
    optimizer = optimcore.Momentum([optimcore.Parameter(np.ones(size, np.float32), "w")], 1e-3, 0.9)
    return partial(optimizer, (np.full(size, 1e-3, np.float32),))


def gain(step):
    """Return the ratio of the times of a step in one thread and in two."""
    return seconds(step, 1) / seconds(step, 2)


def seconds(step, threads):
    """Return the time of some steps, after one that wakes the helper."""
    optimcore.set_num_threads(threads)
    step()
    start = perf_counter()
    for _ in range(STEPS):
        step()
    return perf_counter() - start


def threshold_of(gains):
    """Return the smallest size from which on two threads gain at every size; if at none, one beyond all."""
    threshold = 2 * max(gains)
    for size in sorted(gains, reverse=True):
        if gains[size] < GAIN:
            break
        threshold = size
    return threshold


GAINS = gains() if runtime.default_num_threads() > 1 else {max(SIZES): 1.0}
THRESHOLD = threshold_of(GAINS)
if not os.environ.get("OPTIMCORE_THREAD_THRESHOLD"):
    optimcore.set_thread_threshold(THRESHOLD)


if __name__ == "__main__":
    for size, times in GAINS.items():
        print(f"{size:9,} elements: two threads are {times:.2f} times as fast as one")
    print(f"OPTIMCORE_THREAD_THRESHOLD={THRESHOLD}")
