"""Plots of time per element against size, with the limit as a line: one picture per group, one panel per kernel."""

import base64
import io
import re

import matplotlib
from growth import growth
from matplotlib.figure import Figure  # not pyplot: it needs no display, and forgets figures
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

__all__ = ["draw_group", "draw_growth", "draw_ratios", "families", "svg"]

COLUMNS = 4
COLOURS = {1: "#1f6fb4", 2: "#d9641a"}
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "svg.hashsalt": "optimcore",
}
SIZE = re.compile(r"(, )?\b\de\d\b")


def families(ids):
    """Return {kernel and case without its size: [ids]}, of those with two sizes or more.

    Examples
    --------
    >>> families(["dense/adam/1e3", "dense/adam/1e5", "merge/merge_rows/zipf, 1e4 x 16", "many/adam/200 x 1e3"])
    {'adam': ['dense/adam/1e3', 'dense/adam/1e5']}
    """
    found = {}
    for name in ids:
        _, kernel, case = name.split("/", 2)
        rest = SIZE.sub("", case, count=1).strip(" ,")
        if SIZE.search(case) and "table of" not in case:
            found.setdefault(f"{kernel}, {rest}" if rest else kernel, []).append(name)
    return {family: names for family, names in found.items() if len(names) > 1}


def size_of(name):
    """Return the size in a workload's id: elements, indices or rows of a batch.

    Examples
    --------
    >>> size_of("rows/adagrad/zipf, 1e4 x 16")
    10000.0
    """
    return float(SIZE.search(name).group().strip(", "))


def draw_group(results, group):
    """Return a figure of a group, None if nothing in it has two sizes."""
    panels = families(name for name in results.ids if name.startswith(f"{group}/"))
    if not panels:
        return None
    figure, axes = make_figure(len(panels))
    for ax, (family, names) in zip(axes, panels.items(), strict=True):
        for threads in (1, 2):
            found = {size_of(name): results.own(name, threads) for name in sorted(names, key=size_of)}
            draw_series(ax, {size: one for size, one in found.items() if one}, threads)
        ax.set(xscale="log", yscale="log", xticks=sorted({size_of(name) for name in names}))
        ax.set_title(family, fontsize=8)
        ax.xaxis.set_major_formatter(power)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_formatter(NullFormatter())
    finish(figure, "elements, indices or rows of a batch", "ns per element")
    return figure


def power(value, place):
    """Return a power of ten as the workloads write it."""
    return f"{value:.0e}".replace("e+0", "e")


def draw_series(ax, measured, threads):
    """Draw times per element by size, their quartiles as a band, and the limit as a dashed line."""
    sizes, values, colour = list(measured), measured.values(), COLOURS[threads]
    low, middle, high = ([getattr(m, q) / m.elements * 1e9 for m in values] for q in ("q1", "median", "q3"))
    ax.plot(sizes, middle, "o-", ms=3, lw=1.2, color=colour)
    ax.fill_between(sizes, low, high, color=colour, alpha=0.25, lw=0)
    if all(m.limit for m in values):
        ax.plot(sizes, [m.limit / m.elements * 1e9 for m in values], "--", lw=1, color=colour)


def draw_growth(results):
    """Return a figure of the cost of a lazy step on tables that grow, None if that was not measured."""
    found = [one for one in (growth(results, threads) for threads in (1, 2)) if one]
    if not found:
        return None
    figure, axes = make_figure(1, width=5)
    for one in found:
        colour, y = COLOURS[one.threads], [m.median * 1e6 for m in one.measured]
        errors = [[(m.median - m.q1) * 1e6 for m in one.measured], [(m.q3 - m.median) * 1e6 for m in one.measured]]
        axes[0].errorbar(one.rows, y, errors, fmt="o-", ms=3, lw=1.2, capsize=2, color=colour)
        axes[0].plot(one.rows, [m.limit * 1e6 for m in one.measured], "--", lw=1, color=colour)
    axes[0].set(xscale="log", ylim=(0, None))
    axes[0].set_title("lazy_adam, uniform, 1e4 x 16", fontsize=8)
    finish(figure, "rows of the table", "us per step")
    return figure


def draw_ratios(results):
    """Return a figure of the fastest peer's time over that of optimcore, by group, None if there are no peers."""
    groups = list(dict.fromkeys(name.partition("/")[0] for name in results.ids))
    points = {group: ratios(results, group) for group in groups}
    points = {group: found for group, found in points.items() if found[1] or found[2]}
    if not points:
        return None
    figure, axes = make_figure(1, width=9, height=0.45 * len(points) + 1.2)
    for row, found in enumerate(points.values()):
        for threads, values in found.items():
            y = [row + 0.3 * (threads - 1.5) + 0.18 * ((0.618 * i) % 1 - 0.5) for i in range(len(values))]
            axes[0].plot(values, y, "o", ms=3, alpha=0.6, mew=0, color=COLOURS[threads])
    axes[0].axvline(1, color="black", lw=0.8)
    axes[0].set(yticks=range(len(points)), yticklabels=points, xscale="log")
    axes[0].set_title("each workload beside its fastest peer", fontsize=8)
    axes[0].xaxis.set_major_formatter("{x:g}")
    axes[0].invert_yaxis()
    finish(figure, "times as fast as the fastest peer", "", limits=False)
    return figure


def ratios(results, group):
    """Return {threads: [the fastest peer's time over that of optimcore]}."""
    found = {1: [], 2: []}
    for name in results.ids:
        for threads, values in found.items():
            own, peers = results.own(name, threads), results.peers(name, threads)
            if name.startswith(f"{group}/") and own and peers:
                values.append(peers[0].median / own.median)
    return found


# ---- what all have


def make_figure(panels, width=11.0, height=None):
    """Return a figure and the list of its axes."""
    columns = min(panels, COLUMNS)
    rows = -(-panels // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((width, height or (1.75 * rows + 0.9 if panels > 1 else 3)), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[panels:]:
        ax.remove()
    return figure, axes[:panels]


def finish(figure, xlabel, ylabel, limits=True):
    """Label what needs it, and add the legend."""
    figure.supxlabel(xlabel, fontsize=8)
    figure.supylabel(ylabel, fontsize=8)
    lines = [Line2D([], [], color=COLOURS[n], marker="o", ms=3, label=f"{n} thread{'s' * (n > 1)}") for n in (1, 2)]
    if limits:
        lines += [Line2D([], [], color=COLOURS[n], ls="--", lw=1, label=f"limit, {n}") for n in (1, 2)]
    figure.legend(handles=lines, loc="outside upper right", ncols=len(lines), frameon=False, fontsize=8)


def svg(figure):
    """Return a figure as an `img` of HTML that needs no other file."""
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="svg", metadata={"Date": None})
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="" src="data:image/svg+xml;base64,{data}">'
