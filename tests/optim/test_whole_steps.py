"""A step happens wholly or not at all: interrupts, other threads, memory that cannot be had."""

import os
import signal
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
from allocations import load_testcapi
from cases import CASES, conv_arrays, gradients_of, state_of
from interrupts import heed

import optimcore


class Interrupt(BaseException):
    """Stand for what a signal handler raises."""


def interrupt_at(k, call):
    """Call a function and raise `Interrupt` before the k-th instruction of Python code in it; return whether it did.

    Signal handlers run between instructions of Python code, nowhere else.
    """
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == k:
                raise Interrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(None)
    return False


def options(optimizer):
    """Let a step do whatever it can do in Python."""
    optimizer.max_grad_norm, optimizer.stochastic_rounding = 1.0, True
    return optimizer


@pytest.mark.parametrize("prepare", [lambda optimizer: optimizer, options], ids=["plain", "prepared"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_interrupt_at_any_instruction_leaves_a_whole_step_or_none(case, prepare):
    extra = dict(weight_decay=lambda step: 0.01) if prepare is options else {}

    def start():
        arrays = conv_arrays()
        optimizer = prepare(case.build(arrays, **extra))
        optimizer(gradients_of(arrays, seed=1))
        return optimizer

    gradients = list(gradients_of(conv_arrays(), seed=2))
    gradients[1] = np.asfortranarray(gradients[1])  # converted by Python code
    optimizer = start()
    before = state_of(optimizer)
    optimizer(gradients)
    after = state_of(optimizer)
    optimizer, k = start(), 1
    while interrupt_at(k, partial(optimizer, gradients)):
        state = state_of(optimizer)
        assert state in (before, after)
        if state == after:
            optimizer = start()
        k += 1 if k < 40 else 7  # all of a small step, and a sample of a long one
    assert k > 1 or optimizer.global_step == 2
    assert state_of(optimizer) == after


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("cls", ["Adam", "ASGD", "Lamb"])
def test_interrupt_that_arrives_while_kernels_run(cls, threads, restore_runtime):
    optimcore.set_num_threads(threads)
    n, gradients = 1_000_000, (np.ones(1_000_000, np.float32),)

    def start():
        optimizer = getattr(optimcore, cls)([optimcore.Parameter(np.ones(n, np.float32), "w")], learning_rate=0.01)
        optimizer(gradients)
        return optimizer

    def interrupt(w, old):
        while w[-1] == old and not is_done:
            pass
        if not is_done:
            signal.raise_signal(signal.SIGUSR1)

    is_done = []  # no Event: an interrupt within its `set` would leave its lock taken

    def handler(*_):
        if not is_done:
            raise Interrupt

    before, old_handler = start(), signal.signal(signal.SIGUSR1, handler)
    try:
        after = start()
        after(gradients)
        states = [state_of(before), state_of(after)]
        for _ in range(5):
            optimizer = start()
            is_done.clear()
            w = optimizer.parameters[0].data
            thread = threading.Thread(target=interrupt, args=(w, w[-1]))
            try:
                thread.start()
                optimizer(gradients)
            except Interrupt:
                pass
            finally:
                is_done.append(True)
                thread.join()
            assert state_of(optimizer) in states
    finally:
        signal.signal(signal.SIGUSR1, old_handler)


# Prints a line for each case that is not as it was after an error, or raises something else than a MemoryError.
NO_MEMORY = """
import gc, sys, _testcapi
import numpy as np
import optimcore
sys.path[:0] = [{tests!r}]
from cases import CASES, conv_arrays, gradients_of, state_of

optimcore.set_num_threads(2)
optimcore.set_thread_threshold(0)
gc.disable()
chosen = {{str(case).partition("(")[0] + str(case.lars): case for case in CASES}}
for name, case in chosen.items():
    arrays = conv_arrays()
    optimizer = case.build(arrays)
    optimizer.max_grad_norm = 1.0
    gradients = list(gradients_of(arrays, seed=1))
    gradients[1] = np.asfortranarray(gradients[1])
    optimizer(gradients)
    failures = good = k = 0
    while good < 3 and k < 1000:
        before = state_of(optimizer)
        error = None
        _testcapi.set_nomemory(k, k + 1)
        try:
            optimizer(gradients)
        except BaseException as caught:
            error = caught
        _testcapi.remove_mem_hooks()
        if error is None:
            good += 1
            if optimizer.global_step != before["global_step"] + 1:
                print(name, k, "not counted")
        else:
            good = 0
            failures += 1
            if not isinstance(error, MemoryError):
                print(name, k, repr(error))
            if state_of(optimizer) != before:
                print(name, k, "changed")
        k += 1
    if not failures or good < 3:
        print(name, "was not tried", failures, good)
print("end")
"""


def test_step_without_memory_changes_nothing():
    load_testcapi()
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", NO_MEMORY.format(tests=tests)],
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=heed,
    )
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "end\n")
