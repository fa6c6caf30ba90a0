"""Tell whether the working tree is slower than a base revision, on a machine that may be noisy.

Usage: python benchmarks/gate.py [--base REV] [--only TEXT]                time, compared with the base
       python benchmarks/gate.py --instructions [--update] [--base REV]   instructions, compared with the table

Exits with 1 if something is slower or fails. `--only rows/` takes the workloads with "rows/" in their id, such as
rows/ftrl/zipf, 1e4 x 16: after a first run, those that it named.

Two revisions are built and installed into two virtual environments; the workloads are those of the working tree, for
both.

Time. Processes of both revisions live side by side on one CPU and are called in turn: base, revision, revision, base, a
few milliseconds each, so that what the machine does hits neighbours alike; what counts is the time that the CPU gives
them, not what passes while others have it. The median of the log ratios of neighbours is one value for this pair of
processes. Where data lies in physical memory can cost some ten percent if it just fits into a cache, and where code
lies, some percent: hence data is made several times, in many pairs of processes. All workloads are screened with some
pairs; those that seem changed are measured anew with more, and it is these values alone that decide (see `paired`).

Instructions. Callgrind counts those of one call, for the ISA builds that it can run. See `instructions`.
"""

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import monotonic

import builds
import instructions
import paired

HERE = Path(__file__).resolve().parent
SCREEN, CONFIRM = 8, 30  # pairs of processes
BLOCK = 0.002  # seconds of calls between two changes of the side
QUIET = 30  # seconds between two lines of progress where they stay, in a file or a log


class WorkloadError(Exception):
    """What a workload raised: number of the side, message."""


class Side:
    """A process of one revision."""

    def __init__(self, python):
        # the size of the environment moves the stack, and with it what depends on its alignment
        environment = builds.environment() | {"PADDING": "x" * random.randrange(4096)}
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.process = subprocess.Popen([python, HERE / "rounds.py"], **pipes)

    def ask(self, request):
        """Send a line; return the answer."""
        try:
            self.process.stdin.write(f"{request}\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise SystemExit(f"{self.process.args[0]} ended at: {request}")
        return answer.rstrip("\n")

    def seconds(self, request, side):
        """Send a line; return the seconds that come back. WorkloadError if the workload fails."""
        answer = self.ask(request)
        try:
            return float(answer)
        except ValueError:
            raise WorkloadError(side, answer) from None

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def quick_workloads(python, text):
    """Return the ids that the gate has, those with `text` in them. SystemExit if there are none."""
    side = Side(python)
    names = side.ask("list").split("\t")
    side.close()
    return chosen(names, text)


def chosen(names, text):
    """Return the names with `text` in them. SystemExit if there are none, for a gate that measures nothing passes."""
    found = [name for name in names if text in name]
    if not found:
        raise SystemExit(f"--only must be a part of a workload's id, got {text!r}; there are:\n  " + "\n  ".join(names))
    return found


def measure_pair(sides, names, makes, failures):
    """Return {name: log ratio} from one pair of processes.

    Parameters
    ----------
    sides : list of Side
        Base and revision.
    names : list of str
        Workloads, in the order to take them.
    makes : int
        How many times the data is made: each time, it lies elsewhere.
    failures : dict
        Receives {name: (side, message)} for workloads that cannot be run.
    """
    values = {}
    for name in names:
        try:
            values[name] = median(ratio for _ in range(makes) for ratio in neighbours(sides, name))
        except WorkloadError as error:
            failures[name] = error.args
    return values


def neighbours(sides, name):
    """Make the data of both sides, and return log ratios of neighbouring blocks of calls."""
    seconds = {i: sides[i].seconds(f"make {name}", i) for i in random.sample([0, 1], 2)}
    request = f"run {max(1, round(BLOCK / min(seconds.values())))}"
    ratios = []
    for first in random.sample([0, 1], 2):
        blocks = [(i, math.log(sides[i].seconds(request, i))) for i in (first, 1 - first, 1 - first, first)]
        for (i, one), (_, other) in (blocks[:2], blocks[2:]):
            ratios.append(one - other if i else other - one)
    return ratios


def measure(pythons, names, pairs, makes, failures, what):
    """Return {name: [log ratio of each pair of processes]}."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    values = {name: [] for name in names}
    for pair in range(pairs):
        progress(f"{what}: pair {pair + 1} of {pairs}, {len(names)} workloads")
        if cpus:
            os.sched_setaffinity(0, {cpus[pair // 2 % len(cpus)]})  # inherited: both on one CPU, for CPUs differ
        sides = [None, None]
        for i in (pair % 2, 1 - pair % 2):  # the one that is started first was found to be up to 2 % slower
            sides[i] = Side(pythons[i])
        remaining = [name for name in names if name not in failures]
        for name, value in measure_pair(sides, random.sample(remaining, len(remaining)), makes, failures).items():
            values[name].append(value)
        for side in sides:
            side.close()
    if cpus:
        os.sched_setaffinity(0, cpus)
    return {name: found for name, found in values.items() if name not in failures}


class Progress:
    """Lines on stderr, each of which replaces the one before; where they cannot, one now and then.

    Parameters
    ----------
    stream : file
    clock : callable
        Returns seconds.
    """

    def __init__(self, stream=None, clock=monotonic):
        self.stream, self.clock, self.last = stream, clock, -math.inf

    def __call__(self, text):
        """Show a line; an empty one ends the show."""
        stream = self.stream or sys.stderr
        if stream.isatty():
            print(f"\r\033[K{text}", end="", file=stream, flush=True)
        elif text and self.clock() - self.last >= QUIET:
            self.last = self.clock()
            print(text, file=stream, flush=True)


progress = Progress()


def compare_times(pythons, options):
    """Measure, print the table, and return whether nothing is slower and nothing fails."""
    names, failures = quick_workloads(pythons[1], options.only), {}
    screened = measure(pythons, names, SCREEN, 2, failures, "screening")
    suspicious = paired.suspects(screened, options.effect)
    makes = 6 if len(suspicious) <= 8 else 2  # a change of everything shows without much care
    confirmed = measure(pythons, suspicious, CONFIRM, makes, failures, "measuring anew") if suspicious else {}
    progress("")
    found = paired.compare(confirmed, options.confidence, options.effect)
    width = max(map(len, names), default=0)
    print(f"{'workload':{width}} {'time / base':>11}   {options.confidence:.0%} interval    verdict")
    for name, values in screened.items():
        screening = paired.compare({name: values}, options.confidence, math.inf)[name]
        c = found.get(name, screening)
        confirmation = f" (screened: {screening.ratio:.3f})" if name in found else ""
        print(f"{name:{width}} {c.ratio:11.3f}   {c.low:.3f} to {c.high:.3f}   {c.verdict}{confirmation}")
    for name, (side, message) in failures.items():
        print(f"{name:{width}} {'new: the base cannot run it' if side == 0 else 'fails'}: {message}")
    verdicts = {name: found[name].verdict if name in found else "same" for name in screened}
    lines, good = summary(verdicts, failures, options)
    print("\n".join(["", *lines]))
    return good


def summary(verdicts, failures, options):
    """Return lines that say how many workloads are slower, faster, or fail, and what to do; and whether all is well.

    Parameters
    ----------
    verdicts : dict of str to str
        "slower", "faster" or "same".
    failures : dict of str to tuple
        Workloads that could not be run: number of the side, message.
    options : Namespace
        With `effect` and `base`.
    """
    sides = [side for side, _ in failures.values()]
    counts = {
        "slower": list(verdicts.values()).count("slower"),
        "faster": list(verdicts.values()).count("faster"),
        "same": list(verdicts.values()).count("same"),
        "new": sides.count(0),
        "failed": sides.count(1),
    }
    bad = [name for name, verdict in verdicts.items() if verdict == "slower"]
    bad += [name for name, (side, _) in failures.items() if side == 1]
    lines = [f"{sum(counts.values())} workloads: " + ", ".join(f"{count} {what}" for what, count in counts.items())]
    if counts["slower"]:
        lines.append(
            f"Slower by more than {options.effect:.0%} for certain. Repeat one alone: "
            f"python benchmarks/gate.py{f' --base {options.base}' if options.base else ''} --only {bad[0]!r}; "
            "--instructions tells whether it does more work."
        )
    if counts["failed"]:
        lines.append("A workload that fails does so in the working tree: see its message above.")
    lines.append("FAIL" if bad else "PASS")
    return lines, not bad


def fraction(text):
    """Return a number between 0 and 1, both excluded, from the command line."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must be in (0, 1), got {text}")
    return value


def compare_instructions(wheels, options):
    """Count, print the table, and return whether every count is within the band."""
    with tempfile.TemporaryDirectory() as folder:
        python = builds.make_environment(f"{folder}/new", wheels["new"]())
        names = quick_workloads(python, options.only)
        new = instructions.count(python, names, folder)
        if options.update:
            instructions.write(instructions.updated(instructions.read(), new) if options.only else new)
            return True
        table = instructions.read()
        differing = instructions.differing(table["made with"], new["made with"])
        if differing:
            print(f"{instructions.TABLE.name} was made elsewhere ({differing}): the base is counted instead")
            table = instructions.count(builds.make_environment(f"{folder}/base", wheels["base"]()), names, folder)
    if options.only:
        table["counts"] = {key: n for key, n in table["counts"].items() if options.only in key}
    lines, good = instructions.compare(table["counts"], new["counts"], exact=not differing)
    print("\n".join(lines))
    return good


def main():
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--base", help="default: where the branch left main; on main, HEAD if files changed, else HEAD~"
    )
    parser.add_argument("--instructions", action="store_true", help="count instructions instead of measuring time")
    parser.add_argument(
        "--update", action="store_true", help="write what --instructions counts into the table (with --only, its part)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="workloads with this in their id, e.g. rows/")
    parser.add_argument("--confidence", type=fraction, default=0.99, help="of all verdicts together (%(default)s)")
    parser.add_argument("--effect", type=fraction, default=0.03, help="least change that counts (%(default)s)")
    options = parser.parse_args()
    base = options.base or builds.default_base()
    wheels = {
        "base": lambda: builds.build_wheel(builds.tree_of(base)),
        "new": lambda: builds.build_wheel(builds.working_tree()),
    }
    if options.instructions:
        return not compare_instructions(wheels, options)
    print(f"base: {base} = {builds.run('git', 'log', '-1', '--format=%h %s', base)}")
    with tempfile.TemporaryDirectory() as folder:
        pythons = [builds.make_environment(f"{folder}/{side}", wheels[side]()) for side in ("base", "new")]
        return not compare_times(pythons, options)


if __name__ == "__main__":
    sys.exit(main())
