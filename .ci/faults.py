"""Let each allocation of Python fail in turn: in steps, constructors, flush, unique and others, for every optimizer.

Usage: PYTHONPATH=tests python .ci/faults.py [--only TEXT] [--quick] [--jobs 2]

A try is a process of its own, in which allocation number k fails, or all from number k on. What is tried must then have
succeeded, or have raised MemoryError and changed nothing; and the next step must have the bits that it always has.
Everything else is a fault: another error, a state that has changed, a crash, a hang. All of them are listed, with what
repeats them; the exit code is 1 if there are any. All of it takes some three hours of one core; with `--quick`, one
configuration of each class with float32 and bfloat16, half an hour. Needs CPython's `_testcapi` and fork.
"""

import argparse
import faulthandler
import gc
import os
import signal
import sys
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from subprocess import PIPE, Popen

import numpy as np
from cases import CASES, DTYPES, state_of

import optimcore

PATIENCE = 30  # tries in a row without a fault of memory: there are no more allocations
LONGEST = 20  # seconds of a try
OUTCOMES = ["success", "MemoryError", "another error", "changed", "unusable"]


def make_arrays(dtype):
    """Return parameters with more elements than a chunk has, and a convolution kernel."""
    rng = np.random.default_rng(0)
    shapes = {"table": (700, 33), "conv": (4, 3, 3, 3), "vector": (40_000,)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def make_gradients(arrays, rows, seed):
    """Return gradients, one of rows if `rows`, one that has to be copied."""
    rng = np.random.default_rng(seed)
    gradients = [rng.standard_normal(a.shape).astype(a.dtype) for a in arrays.values()]
    if rows:
        values = rng.standard_normal((300, 33)).astype(gradients[0].dtype)
        gradients[0] = optimcore.RowTensor(rng.integers(0, 700, 300), values, (700, 33))
    gradients[1] = np.asfortranarray(gradients[1])
    return tuple(gradients)


class Steps:
    """A constructor, steps and flush of one optimizer; `attempt` is what fails, `follow` what must work afterwards."""

    def __init__(self, case, dtype, threads, gradient, what):
        self.case, self.what = case, what
        optimcore.set_thread_threshold(0)
        optimcore.set_num_threads(threads)
        self.gradient = gradient
        self.arrays = make_arrays(DTYPES[dtype])
        self.gradients = [make_gradients(self.arrays, gradient != "dense", seed) for seed in range(3)]
        self.optimizer = None
        if what != "constructor":
            self.optimizer = self.build()
        if what in ("warm step", "flush"):
            self.optimizer(self.gradients[2])

    def build(self):
        """Return the optimizer."""
        optimizer = self.case.build(self.arrays, [dict(params=["table", "conv"]), dict(params=["vector"])])
        if self.gradient == "catch_up":
            optimizer.use_lazy = "catch_up"
        return optimizer

    def attempt(self):
        """Do what is tried."""
        if self.what == "constructor":
            self.optimizer = self.build()
        elif self.what == "flush":
            self.optimizer.flush()
        else:
            self.optimizer(self.gradients[0])

    def follow(self):
        """Do what must be possible after success."""
        self.optimizer(self.gradients[1])
        self.optimizer.flush()

    def state(self):
        """Return all that may change."""
        if self.optimizer is None:
            return {name: a.tobytes() for name, a in self.arrays.items()}
        return state_of(self.optimizer)


class Call:
    """A function of arrays, which has no state but its result."""

    def __init__(self, function, threads):
        optimcore.set_thread_threshold(0)
        optimcore.set_num_threads(threads)
        self.function, self.result = function, None

    def attempt(self):
        """Call it."""
        self.result = self.function()

    def follow(self):
        """Call it again."""
        self.result = self.function()

    def state(self):
        """Return the result as bytes."""
        return None if self.result is None else [np.asarray(part).tobytes() for part in self.result]


def calls():
    """Return {name: function}."""
    rng = np.random.default_rng(0)
    few, many = rng.integers(0, 2**62, 500), rng.integers(0, 2**62, 70_000)
    values = rng.standard_normal((500, 3)).astype(np.float32)
    gradients = (values, optimcore.RowTensor(few % 50, values, (50, 3)))
    return {
        "unique few": lambda: optimcore.unique(few, True, True),
        "unique many": lambda: optimcore.unique(many, True, True),
        "merge_rows": lambda: optimcore.merge_rows(few % 50, values),
        "global_norm": lambda: [optimcore.global_norm(gradients)],
        "all_finite": lambda: [optimcore.all_finite(gradients)],
        "clip_by_global_norm": lambda: [optimcore.clip_by_global_norm((values, values), 0.5)[0]],
    }


def scenarios(quick):
    """Return {name: function that makes it}."""
    found, seen = {}, set()
    for case in CASES:
        name = case.cls if case.lars is None else f"LARS({case.cls})"
        if quick and name in seen:
            continue
        seen.add(name)
        gradients = ["dense"] if case.lars or case.cls in ("Lamb", "AdaFactor") else ["dense", "rows"]
        if case.cls in ("Momentum", "Adam", "AdamOffload") and not case.lars:
            gradients.append("catch_up")
        for dtype in ("float32", "bfloat16") if quick else DTYPES:
            for threads in (1, 2):
                for gradient in gradients:
                    for what in ("constructor", "first step", "warm step", *["flush"] * (gradient == "catch_up")):
                        if what == "constructor" and (gradient == "rows" or threads == 2):
                            continue
                        key = f"{case} {dtype} {threads} {gradient} {what}"
                        found[key] = partial(Steps, case, dtype, threads, gradient, what)
    for name, function in calls().items():
        for threads in (1, 2):
            found[f"{name} {threads}"] = partial(Call, function, threads)
    return found


def judge(scenario, before, after, finally_, k, stop):
    """In a process of its own: try with failing allocations; return the number of the outcome."""
    import _testcapi

    raised = None
    _testcapi.set_nomemory(k, stop)
    try:
        scenario.attempt()
    except BaseException as error:
        raised = error
    finally:
        _testcapi.remove_mem_hooks()
    if raised is not None and not isinstance(raised, MemoryError):
        frame = traceback.extract_tb(raised.__traceback__)[-1]
        print(f"{type(raised).__name__}: {raised}, in {frame.filename}:{frame.lineno}", file=sys.stderr, flush=True)
        return 2
    if scenario.state() != (after if raised is None else before):
        return 3
    if raised is not None:
        scenario.attempt()
        if scenario.state() != after:
            return 4
    scenario.follow()
    return (1 if raised is not None else 0) if scenario.state() == finally_ else 4


def in_a_child(function):
    """Return what the function returns in a fork of this process, or minus a signal; and what it says of an error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 2)
        faulthandler.enable()
        signal.alarm(LONGEST)
        code = 4
        try:
            code = function()
        except BaseException as error:
            print(f"afterwards: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as pipe:
        lines = [line.strip() for line in pipe]
    where = [line.removeprefix("File ") for line in lines if line.startswith("File ")] or lines
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), " < ".join(where[:2])


def run_scenario(name, make):
    """Try every allocation; print faults, and return the number of each outcome."""
    twin = make()
    before = twin.state()
    twin.attempt()
    after = twin.state()
    twin.follow()
    finally_ = twin.state()
    scenario, outcomes = make(), Counter()
    for kind in ("once", "from then on"):
        k = successes = 0
        while successes < PATIENCE:
            stop = k + 1 if kind == "once" else 0
            code, where = in_a_child(lambda k=k, stop=stop: judge(scenario, before, after, finally_, k, stop))
            if code >= 0:
                outcome = OUTCOMES[code]
            else:
                outcome = "hang" if -code == signal.SIGALRM else f"crash ({signal.Signals(-code).name})"
            outcomes[outcome] += 1
            if code not in (0, 1):
                print(f"FAULT {outcome}: {name}, allocation {k}, {kind}: {where}", flush=True)
            successes = successes + 1 if code == 0 else 0
            k += 1
    return outcomes


def main():
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios with this in their name")
    parser.add_argument("--quick", action="store_true", help="one configuration of each class, two dtypes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once (%(default)s)")
    parser.add_argument("--scenario", help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    found = scenarios(options.quick)
    if options.scenario:
        gc.disable()
        print(dict(run_scenario(options.scenario, found[options.scenario])))
        return 0
    names = [name for name in found if options.only in name]
    if not names:
        parser.error(f"--only must be a part of a scenario's name, such as {next(iter(found))!r}, got {options.only!r}")

    def run(name):
        quick = ["--quick"] * options.quick
        process = Popen([sys.executable, __file__, "--scenario", name, *quick], stdout=PIPE, stderr=PIPE, text=True)
        out, error = process.communicate()
        return name, process.returncode, out.splitlines(), error

    total = Counter()
    with ThreadPoolExecutor(options.jobs) as pool:
        for done, (name, code, lines, error) in enumerate(pool.map(run, names), 1):
            if code:
                total["scenario failed"] += 1
                print(f"FAULT scenario failed: {name}\n{error}")
                continue
            print(f"{done} of {len(names)}: {name}: {lines[-1]}", *lines[:-1], sep="\n  ", flush=True)
            total.update(eval(lines[-1]))  # what this program has printed
    faults = sum(count for outcome, count in total.items() if outcome not in OUTCOMES[:2])
    print(f"{len(names)} scenarios: {dict(total)}: {faults or 'no'} faults")
    return faults > 0


if __name__ == "__main__":
    sys.exit(main())
