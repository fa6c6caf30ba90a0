"""What must hold, as data, and whether it does: goals, and checks of them in the results of a run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

__all__ = ["GOALS", "Check", "Goal", "Scaling", "check", "verdict"]

FIVE = ("adam", "adam_weight_decay", "momentum", "adagrad", "rmsprop")
SMALL = 10**6  # bytes: below, a second thread need not pay


@dataclass(frozen=True)
class Check:
    """A goal on one workload: the figure, as large as it should at least be if that is good.

    Parameters
    ----------
    workload : str
        Its id.
    threads : int
        Of optimcore.
    value : float or None
        What was measured; None if something is missing.
    goal : float
        What it must at least be.
    low, high : float or None
        What the quartiles of the times make of it.
    against : str
        Who was compared with: the fastest of its modes.
    """

    workload: str
    threads: int
    value: float | None
    goal: float
    low: float | None = None
    high: float | None = None
    against: str = ""

    @property
    def verdict(self):
        """str : met, missed or not measured."""
        if self.value is None:
            return "not measured"
        return "met" if self.value >= self.goal else "missed"

    @property
    def share(self):
        """float : of the goal that is reached, 1 if just so."""
        return self.value / self.goal


@dataclass(frozen=True)
class Goal:
    """A claim about workloads.

    Parameters
    ----------
    text : str
        What is claimed of what.
    workloads : tuple of str
        Their ids.
    find : callable
        ``find(results, workload, threads)`` returns the arguments of a Check beyond the goal: value, low, high, who.
    least : float
        What the value must at least be.
    threads : tuple of int, default (1, 2)
        Of optimcore.
    unit : str, default "x"
        What the value counts: times as fast, or fraction of the limit.
    """

    text: str
    workloads: tuple
    find: Callable
    least: float
    threads: tuple = (1, 2)
    unit: str = "x"


def ratio_to(starts, results, workload, threads):
    """Return how many times as fast optimcore is as the fastest peer whose name begins with one of `starts`."""
    own, peers = results.own(workload, threads), results.peers(workload, threads, starts)
    if not (own and peers):
        return None, None, None, ""
    peer = peers[0]
    who = peer.who if peer.threads == threads else f"{peer.who}, {peer.threads} thread(s)"
    return peer.median / own.median, peer.q1 / own.q3, peer.q3 / own.q1, who


def ratio_to_workload(other, results, workload, threads):
    """Return how many times as fast a workload is as another one of optimcore."""
    own, base = results.own(workload, threads), results.own(other, threads)
    if not (own and base):
        return None, None, None, ""
    return base.median / own.median, base.q1 / own.q3, base.q3 / own.q1, other


def fraction(results, workload, threads):
    """Return the fraction of the limit."""
    own = results.own(workload, threads)
    if not (own and own.limit):
        return None, None, None, ""
    return own.fraction, own.limit / own.q3, own.limit / own.q1, "limit"


def within(seconds, results, workload, threads):
    """Return how many times as fast as a given time optimcore is."""
    own = results.own(workload, threads)
    if not own:
        return None, None, None, ""
    return seconds / own.median, seconds / own.q3, seconds / own.q1, f"{seconds * 1e6:g} us"


@dataclass(frozen=True)
class Scaling:
    """How many times as fast two threads are as one, here and at the limit."""

    workload: str
    own: float
    limit: float

    least = 1.7

    @property
    def applies(self):
        """bool : whether the limit scales so that we must."""
        return self.limit >= self.least


def scalings(results):
    """Return the Scaling of every workload above a megabyte that was measured with one and two threads."""
    pairs = [(results.own(name, 1), results.own(name, 2)) for name in results.ids]
    return [
        Scaling(one.id, one.median / two.median, one.limit / two.limit)
        for one, two in pairs
        if one and two and one.limit and two.limit and one.traffic > SMALL
    ]


def scaling_of(results, workload, threads):
    """Return how many times as fast two threads are as one."""
    one, two = results.own(workload, 1), results.own(workload, 2)
    return one.median / two.median, one.q1 / two.q3, one.q3 / two.q1, "1 thread"


def check(goal, results):
    """Return the Checks of a goal, one for each workload and number of threads."""
    return [
        Check(workload, threads, value, goal.least, low, high, against)
        for workload in goal.workloads
        for threads in goal.threads
        for value, low, high, against in [goal.find(results, workload, threads)]
    ]


def scaling_goal(results):
    """Return the goal of scaling; which workloads it has depends on how the limits scale."""
    names = tuple(scaling.workload for scaling in scalings(results) if scaling.applies)
    text = "scaling 1 -> 2 threads above 1 MB where the limit scales 1.7x"
    return Goal(text, names, scaling_of, Scaling.least, threads=(2,))


def verdict(checks):
    """Return what checks come to: missed if one is, not measured if nothing is."""
    found = {one.verdict for one in checks}
    return next((word for word in ("missed", "met") if word in found), "not measured")


def ids(group, names, cases):
    """Return the ids of all names in all cases."""
    return tuple(f"{group}/{name}/{case}" for name in names for case in cases)


def dense(size):
    """Return the ids of the five rules; RMSProp with momentum, and as it is by default."""
    return (*ids("dense", FIVE, [size]), f"dense/rmsprop/{size}, momentum 0")


def patterns(names, *rest):
    """Return cases of indices."""
    return [f"{pattern}, {end}" for pattern in names for end in rest]


def faster(text, workloads, *peers):
    """Return a Goal for each (names of the peer's modes, factor, further arguments) on the same workloads."""
    return [
        Goal(f"{text}: {label}", workloads, partial(ratio_to, starts), least, *more)
        for label, starts, least, *more in peers
    ]


TORCH = "torch, best mode", ("torch",)
NUMPY = "NumPy", ("numpy",)
# fused kernels of packages that take all CPUs are compared with as many threads
ALL_CPUS = (2,)
FIVE_TEXT = "Adam, AdamWeightDecay, Momentum, Adagrad, RMSProp"
ANY = ("uniform", "zipf", "all unique", "all equal", "sorted")
COUNTS = ("1e4", "1e5", "1e6")
UNIQUE = ids("unique", ["unique"], patterns(ANY, *COUNTS))
KEYS = ("64 bits, 1e4", "64 bits, 1e5"), ("64 bits, 1e6",)


def many(case, factors):
    """Return the goals of lists of small tensors."""
    return [
        goal
        for name, least in zip(("adam", "adagrad", "momentum"), factors, strict=True)
        for goal in faster(f"{case}, {name}", ids("many", [name], [case]), (*TORCH, least))
    ]


def rows(name, *peers):
    """Return the goals of a rule on rows, each with a factor for 1e4 and one for 1e5 rows, and the fraction."""
    found = []
    for place, count in enumerate(("1e4", "1e5")):
        workloads = ids("rows", [name], patterns(("uniform", "zipf"), f"{count} x 16", f"{count} x 64"))
        text = f"{name}, {count} rows of 1e6 x 16 and x 64"
        found += faster(text, workloads, *((label, who, least[place], *more) for label, who, least, *more in peers))
        found.append(Goal(f"{text}: fraction of the limit (stretch)", workloads, fraction, 0.6, unit="of the limit"))
    return found


def at_limit(text, workloads, least):
    """Return the goal of a fraction of the limit."""
    return Goal(f"{text}: fraction of the limit", workloads, fraction, least, unit="of the limit")


GOALS = [
    *faster(f"{FIVE_TEXT}, 1e3", dense("1e3"), (*TORCH, 20)),
    Goal(f"{FIVE_TEXT}, 1e3: <= 2 us", dense("1e3"), partial(within, 2e-6), 1.0),
    *faster(f"{FIVE_TEXT}, 1e5", dense("1e5"), (*TORCH, 1.8)),
    *faster(f"{FIVE_TEXT}, 1e7", dense("1e7"), (*TORCH, 1.0)),
    at_limit(f"{FIVE_TEXT}, 1e7", dense("1e7"), 0.95),
    *many("200 x 1e3", (10, 6, 4.5)),
    *many("1,000 x 100", (30, 15, 6)),
    *faster(
        "ResNet-50, Momentum with clip, decay, centralization",
        ids("pipeline", ["momentum"], ["ResNet-50"]),
        (*TORCH, 2.2, (1,)),
        (*TORCH, 2.5, (2,)),
    ),
    *faster(
        "ResNet-50, LAMB and LARS",
        ids("pipeline", ["lamb", "lars"], ["ResNet-50"]),
        ("torch or NumPy", ("torch", "numpy"), 3),
    ),
    Goal(
        "Adam 1e7 in 16 bits: faster than float32",
        ids("dense", ["adam"], ["1e7, float16", "1e7, bfloat16"]),
        partial(ratio_to_workload, "dense/adam/1e7"),
        1.0,
    ),
    at_limit("Adam 1e7 in 16 bits", ids("dense", ["adam"], ["1e7, float16", "1e7, bfloat16"]), 0.85),
    *faster(
        "unique with inverse, 1e4 to 1e6",
        UNIQUE,
        ("pandas.factorize", ("pandas",), 2.5),
        ("torch.unique", ("torch",), 5),
        ("np.unique", ("numpy",), 1),
    ),
    *faster(
        "unique of random 64-bit keys, 1e4 and 1e5",
        ids("unique", ["unique"], KEYS[0]),
        ("pandas.factorize", ("pandas",), 1.5),
    ),
    *faster(
        "unique of random 64-bit keys, 1e6", ids("unique", ["unique"], KEYS[1]), ("pandas.factorize", ("pandas",), 2.5)
    ),
    *(
        goal
        for pattern, least in (("zipf", 4), ("uniform", 3))
        for goal in faster(
            f"merge_rows, {pattern}, 1e5 x 16 and x 64",
            ids("merge", ["merge_rows"], patterns([pattern], "1e5 x 16", "1e5 x 64")),
            ("torch coalesce", ("torch coalesce",), least),
            ("torch unique + index_add", ("torch unique",), 2.2),
        )
    ),
    *rows("lazy_adam", ("torch SparseAdam", ("torch",), (12, 5)), ("MindSpore", ("mindspore",), (6, 3), ALL_CPUS)),
    *rows("adagrad", ("FBGEMM", ("fbgemm",), (4, 2)), ("torch Adagrad", ("torch",), (8, 4))),
    *rows("ftrl", ("MindSpore", ("mindspore",), (8, 4), ALL_CPUS), ("TensorFlow", ("tensorflow",), (8, 4), ALL_CPUS)),
    *faster(
        "exact Adam on 1e6 x 16 with 1e4 rows",
        ids("rows", ["adam"], patterns(("uniform", "zipf"), "1e4 x 16")),
        ("MindSpore FusedSparseAdam", ("mindspore",), 3, ALL_CPUS),
    ),
]
