"""Does the cost of a lazy step follow the table? A straight line through its times on tables that grow.

The times on small tables are lower because they stay in caches; the limit, which has no pass over the table by
construction, shows that part alone. What is left over is compared with the cheapest pass there could be: one that
reads a single byte of each row.
"""

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["SERIES", "Line", "fit", "growth"]

# rows of the table and workload; the batch is the same
SERIES = {
    rows: f"rows/lazy_adam/uniform, 1e4 x 16{table}"
    for rows, table in (
        (10**4, ", table of 1e4"),
        (10**5, ", table of 1e5"),
        (10**6, ""),
        (10**7, ", table of 1e7"),
    )
}


@dataclass(frozen=True)
class Line:
    """Least squares: start + slope * rows, with the standard error of the slope; seconds."""

    start: float
    slope: float
    error: float


def fit(rows, seconds):
    """Return the Line of least squares.

    Examples
    --------
    >>> line = fit([0, 1, 2, 3], [1.0, 3.0, 5.0, 7.0])
    >>> round(line.start, 6), round(line.slope, 6), round(line.error, 6)
    (1.0, 2.0, 0.0)
    """
    x, y = np.asarray(rows, float), np.asarray(seconds, float)
    centered = x - x.mean()
    slope = centered @ y / (centered @ centered)
    left = y - y.mean() - slope * centered
    error = math.sqrt(left @ left / (len(x) - 2) / (centered @ centered)) if len(x) > 2 else math.nan
    return Line(y.mean() - slope * x.mean(), slope, error)


@dataclass(frozen=True)
class Growth:
    """The series with a number of threads, and its lines.

    Parameters
    ----------
    threads : int
        Of both.
    rows, measured : list
        Rows of the tables, and the Measurement on each.
    own, limit, rest : Line
        Of optimcore, of the limit, and of what optimcore takes beyond the limit.
    byte : float or None
        Seconds to read a byte, where memory was measured.
    """

    threads: int
    rows: list
    measured: list
    own: Line
    limit: Line
    rest: Line
    byte: float | None

    @property
    def verdict(self):
        """str : met if what is beyond the limit grows by less than a byte per row, with two standard errors."""
        if self.byte is None:
            return "not measured"
        return "met" if self.rest.slope + 2 * self.rest.error < self.byte else "missed"


def growth(results, threads):
    """Return the Growth in the results, None unless three tables were measured with their limits."""
    found = {rows: results.own(name, threads) for rows, name in SERIES.items()}
    found = {rows: one for rows, one in found.items() if one and one.limit}
    if len(found) < 3:
        return None
    rows, measured = list(found), list(found.values())
    speed = results.memory.get(f"read, {threads} thread(s)")
    return Growth(
        threads,
        rows,
        measured,
        own=fit(rows, [one.median for one in measured]),
        limit=fit(rows, [one.limit for one in measured]),
        rest=fit(rows, [one.median - one.limit for one in measured]),
        byte=speed and 1 / speed,
    )
