"""Is the change in a set of paired measurements beyond their noise? The test of Wilcoxon, without SciPy.

One value stands for one pair of processes: the logarithm of (time of the revision / time of the base). What noise does
to both processes alike cancels; what it does to one of them is as likely to hit the base as the revision, so that the
values of two equal revisions lie symmetrically around 0. That is all that the test assumes: neither normal values nor
equal spread.
"""

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement
from statistics import median


@dataclass(frozen=True)
class Comparison:
    """What the pairs of one workload say.

    Attributes
    ----------
    ratio, low, high : float
        Estimate of time / time of the base, and the ends of its confidence interval.
    verdict : str
        "slower" or "faster" if all of the interval lies beyond the least effect, else "same".
    """

    ratio: float
    low: float
    high: float
    verdict: str


def rank_sums(n):
    """Return how likely each sum 0 ... n (n + 1) / 2 is, of ranks 1 ... n that a fair coin chooses."""
    ways = [1]
    for rank in range(1, n + 1):
        longer = ways + [0] * rank
        for i, count in enumerate(ways):
            longer[i + rank] += count
        ways = longer
    return [count / 2**n for count in ways]


def middles(values):
    """Return the middle of every two values, and of each with itself, in order: their median estimates the truth."""
    return sorted((a + b) / 2 for a, b in combinations_with_replacement(values, 2))


def interval(values, tail):
    """Return the ends of a confidence interval; `tail` is the chance of either end to be on the wrong side.

    They are -inf and inf where there are too few values for such a confidence.
    """
    cumulated, rejected = 0.0, 0
    for chance in rank_sums(len(values)):
        cumulated += chance
        if cumulated > tail:
            break
        rejected += 1  # so many rank sums, on either side, are too unlikely
    means = middles(values)
    return (means[rejected - 1], means[-rejected]) if rejected else (-math.inf, math.inf)


def check_effect(effect):
    """Raise ValueError if nothing could be beyond this effect, or everything."""
    if not effect >= 0:
        raise ValueError(f"effect must be >= 0, got {effect}")


def suspects(log_ratios, effect=0.03):
    """Return the names of workloads whose estimate lies beyond the least effect, noise or not.

    Raises
    ------
    ValueError
        If `effect` is negative or NaN.
    """
    check_effect(effect)
    return [name for name, values in log_ratios.items() if abs(median(middles(values))) > math.log1p(effect)]


def compare(log_ratios, confidence=0.99, effect=0.03):
    """Judge every workload.

    Parameters
    ----------
    log_ratios : dict of str to list of float
        For each workload, the log ratios of its pairs of processes.
    confidence : float
        That no workload of the whole dict is wrongly called slower, and none wrongly faster (Bonferroni).
    effect : float
        The least change that counts, e.g. 0.03 for 3 %.

    Returns
    -------
    dict of str to Comparison

    Raises
    ------
    ValueError
        If `confidence` is not in (0, 1), or `effect` is negative or NaN.
    """
    check_effect(effect)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    tail = (1 - confidence) / max(1, len(log_ratios))
    least = math.log1p(effect)
    found = {}
    for name, values in log_ratios.items():
        low, high = interval(values, tail)
        verdict = "slower" if low > least else "faster" if high < -least else "same"
        found[name] = Comparison(*map(math.exp, (median(middles(values)), low, high)), verdict)
    return found
