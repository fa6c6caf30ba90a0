"""What `pytest --benchmark-json` wrote, by workload, package and threads."""

import json
from dataclasses import dataclass, field, replace

__all__ = ["BUSY", "OWN", "Measurement", "Results", "is_busy", "load"]

OWN = "optimcore"
BUSY = "machine too busy"  # in place of a limit
TOO_SLOW = 3  # times as slow as what it limits: a limit lost the CPU, or waited for its second thread
SAME = ("cpu", "cpus", "isa", "compiler", "version", "numpy")  # in all files; what is measured may differ


@dataclass(frozen=True)
class Measurement:
    """The times of one package on one workload; times in seconds.

    Parameters
    ----------
    id : str
        Of the workload: group, name and case.
    who : str
        "optimcore", or a peer with its mode.
    threads : int
        How many it was allowed.
    elements : int
        Touched in one call.
    median, q1, q3 : float
        Of the rounds.
    rounds : int
        Their number.
    limit : float or None
        Of optimcore alone, as all that follows: what hand-written C took for the same traffic.
    traffic : int
        Bytes that are read and written; 0 if it is unknown.
    own : float or None
        Of a peer: what optimcore took right before and after.
    busy : bool
        Whether the machine was too busy to measure the limit; `limit` is None then.
    """

    id: str
    who: str
    threads: int
    elements: int
    median: float
    q1: float
    q3: float
    rounds: int
    limit: float | None = None
    traffic: int = 0
    own: float | None = None
    busy: bool = False

    def when(self, other):
        """Return what it would have been when optimcore was measured: scaled as the time of optimcore has changed."""
        if not (other and self.own):
            return self
        factor = other.median / self.own
        return replace(self, median=self.median * factor, q1=self.q1 * factor, q3=self.q3 * factor)

    @property
    def spread(self):
        """float : interquartile range as a fraction of the median."""
        return (self.q3 - self.q1) / self.median

    @property
    def fraction(self):
        """float or None : of the limit's speed."""
        return self.limit and self.limit / self.median


@dataclass
class Results:
    """All measurements of a session, and what they were made with.

    Parameters
    ----------
    measured : list of Measurement
        A later one takes the place of an earlier one of the same. Those of peers beside which optimcore was measured
        are scaled: see `Measurement.when`.
    machine : dict of str
        CPU, ISA, compiler, versions.
    versions : dict of str
        Of the peers' packages.
    memory : dict of str to float
        Bytes per second of a copy and of reads, by number of threads.
    commands, commits, dates : list of str
        One for each part of the session.
    """

    measured: list
    machine: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    memory: dict = field(default_factory=dict)
    commands: list = field(default_factory=list)
    commits: list = field(default_factory=list)
    dates: list = field(default_factory=list)

    def __post_init__(self):
        self.by_key = {(m.id, m.threads, m.who): m for m in self.measured}
        self.by_key = {key: m.when(self.own(m.id, m.threads)) for key, m in self.by_key.items()}
        self.ids = list(dict.fromkeys(m.id for m in self.measured))
        self.by_id = {name: [] for name in self.ids}
        for m in self.by_key.values():
            self.by_id[m.id].append(m)

    def own(self, workload, threads):
        """Return the measurement of optimcore, None if there is none."""
        return self.by_key.get((workload, threads, OWN))

    def peers(self, workload, threads, start=""):
        """Return the peers whose names begin with one of `start`, the fastest first.

        Of each that with at most so many threads which is the fastest. One that always takes more is left out: to be
        slower than two threads with one says nothing.
        """
        found = {}
        for m in self.by_id.get(workload, []):
            if m.who != OWN and m.threads <= threads and m.who.startswith(start):
                found[m.who] = min(m, found.get(m.who, m), key=lambda one: one.median)
        return sorted(found.values(), key=lambda one: one.median)


def load(paths):
    """Return the Results in JSON files of one session. ValueError if they are of different machines or versions."""
    results = Results([])
    for path in paths:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        info = content["machine_info"]
        machine = info["optimcore"]
        differing = [name for name in SAME if machine.get(name) != results.machine.get(name)]
        if results.machine and differing:
            raise ValueError(f"files must be of one machine and one version, got other {', '.join(differing)}")
        results.machine = machine
        results.versions |= info.get("peers", {})
        results.memory = info.get("limits", results.memory)
        results.commands.append(info.get("command", "pytest benchmarks/"))
        results.commits.append(commit_of(content["commit_info"]))
        results.dates.append(content["datetime"])
        results.measured += [measurement(benchmark) for benchmark in content["benchmarks"]]
    return Results(**{name: getattr(results, name) for name in Results.__dataclass_fields__})


def is_busy(limit, seconds):
    """Tell whether a limit is so much slower than what it limits that it says nothing."""
    return limit > TOO_SLOW * seconds


def commit_of(info):
    """Return the short name of a commit, and whether files had changed since."""
    return (info.get("id") or "unknown")[:10] + " and changes" * bool(info.get("dirty"))


def measurement(benchmark):
    """Return the Measurement in an entry of the JSON."""
    info, stats = benchmark["extra_info"], benchmark["stats"]
    limit = info.get("limit seconds")
    busy = info.get("limit") == BUSY or bool(limit and is_busy(limit, stats["median"]))
    return Measurement(
        **{name: info[name] for name in ("id", "who", "threads", "elements")},
        **{name: stats[name] for name in ("median", "q1", "q3", "rounds")},
        limit=None if busy else limit,
        busy=busy,
        traffic=info.get("bytes", 0),
        own=info.get("optimcore seconds"),
    )
