"""Tables of results, and how they are written in Markdown and in HTML."""

import html
from dataclasses import dataclass

import goals
from goals import GOALS, check, scaling_goal, scalings, verdict
from growth import growth
from results import BUSY

__all__ = ["SECTIONS", "Table", "seconds_text"]

GROUPS = ("dense", "many", "pipeline", "unique", "merge", "rows", "overhead")
SLOW = 0.5  # of the limit's speed
MOST = 15  # that README names


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, with a title and a note."""

    title: str
    header: tuple
    rows: list
    note: str = ""

    def markdown(self):
        """Return it as Markdown, without the title."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{table}\n\n{self.note}\n" if self.note else f"{table}\n"

    def html(self):
        """Return it as HTML, without the title."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        body = "\n".join(f"<tr>{''.join(map(cell_html, row))}</tr>" for row in self.rows)
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"{note}<div><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>"


def cell_html(text):
    """Return a cell; verdicts have a class, and so a colour."""
    kind = text.replace(" ", "-") if text in ("met", "missed", "not measured") else ""
    return f'<td class="{kind}">{html.escape(text)}</td>' if kind else f"<td>{html.escape(text)}</td>"


# ---- figures as text


def seconds_text(seconds):
    """Return a time with three digits.

    Examples
    --------
    >>> [seconds_text(s) for s in (7.8e-7, 1.234e-5, 0.0123, 1.5)]
    ['0.78 us', '12.3 us', '12.3 ms', '1.5 s']
    """
    for factor, unit in ((1e6, "us"), (1e3, "ms"), (1, "s")):
        if seconds * factor < 999.5 or unit == "s":
            return f"{float(f'{seconds * factor:.3g}'):g} {unit}"


def time_text(measured):
    """Return the median, and the interquartile range in percent of it."""
    return f"{seconds_text(measured.median)} ({measured.spread:.0%})" if measured else "-"


def fraction_text(measured):
    """Return the fraction of the limit."""
    if measured and measured.busy:
        return BUSY
    return f"{measured.fraction:.2f}" if measured and measured.limit else "-"


def ratio_text(ratio):
    """Return a ratio with two or three digits.

    Examples
    --------
    >>> [ratio_text(r) for r in (0.984, 1.234, 23.4, 234.5)]
    ['0.98', '1.2', '23', '234']
    """
    return f"{ratio:.2f}" if ratio < 1 else f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"


def fastest_text(results, workload, threads):
    """Return how many times as fast as the fastest peer optimcore is, and who that is."""
    own, peers = results.own(workload, threads), results.peers(workload, threads)
    if not (own and peers):
        return "-"
    peer = peers[0]
    with_threads = "" if peer.threads == threads else f", {peer.threads} thread"
    return f"{ratio_text(peer.median / own.median)} x {peer.who}{with_threads}"


# ---- tables


def machine(results):
    """What was measured where, and how."""
    memory = ", ".join(f"{name} {speed / 1e9:.1f} GB/s" for name, speed in results.memory.items())
    rows = [
        *([key, value] for key, value in results.machine.items()),
        ["memory", memory],
        ["peers", ", ".join(f"{name} {version}" for name, version in results.versions.items())],
        ["threads", "1 and 2; peers that cannot be set use all CPUs"],
        ["command", command_text(results.commands)],
        ["commit", ", ".join(dict.fromkeys(results.commits))],
        ["time (UTC)", f"{min(results.dates)[:16]} to {max(results.dates)[:16]}" if results.dates else ""],
    ]
    return Table("Machine", ("what", "value"), [[key, str(value)] for key, value in rows])


def command_text(commands):
    """Return what was called; of many parts, the first and the number of others."""
    commands = list(dict.fromkeys(commands))
    return f"`{commands[0]}`" + f" and {len(commands) - 1} more like it" * (len(commands) > 1)


def what_must_hold(results):
    """Every goal with its verdict and its worst case."""
    rows = []
    for goal in [*GOALS, scaling_goal(results)]:
        checks = check(goal, results)
        known = [one for one in checks if one.value is not None]
        worst = min(known, key=lambda one: one.share, default=None)
        rows.append(
            [
                goal.text,
                f"{goal.least:g}{goal.unit}",
                verdict(checks),
                f"{sum(one.verdict == 'met' for one in known)} of {len(checks)}",
                *worst_text(worst, goal),
            ]
        )
    for threads in (1, 2):
        found = growth(results, threads)
        if found:
            slope = f"{found.rest.slope * 1e9:.4f} ± {found.rest.error * 1e9:.4f} ns per table row beyond the limit"
            text = f"a lazy step on tables of 1e4 to 1e7 rows, {threads} thread(s): less than a byte read per table row"
            rows.append([text, f"{found.byte * 1e9:.4f} ns" if found.byte else "-", found.verdict, "", slope, ""])
    note = (
        "Factors are medians of the same run: the peer's time over that of optimcore, with the fastest of the peer's "
        "modes and at most as many threads; above 10 MB optimcore is measured beside each peer once more, and the "
        "peer's time is scaled by how that of optimcore has changed. In brackets: what the quartiles of both make of "
        "it. A goal is met if it is on all its workloads, with one and with two threads."
    )
    return Table(
        "What must hold", ("goal", "at least", "verdict", "met", "worst", "on, threads, compared with"), rows, note
    )


def worst_text(worst, goal):
    """Return the cells of the worst check."""
    if worst is None:
        return "-", "-"
    figure = f"{worst.value:.2f}{goal.unit[:1] if goal.unit == 'x' else ''} ({worst.low:.2f} to {worst.high:.2f})"
    return figure, f"{worst.workload}, {worst.threads}, {worst.against}"


def missed(results):
    """Every single check that missed."""
    rows = [
        [
            goal.text,
            f"{goal.least:g}{goal.unit}",
            one.workload,
            str(one.threads),
            f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})",
            one.against,
        ]
        for goal in [*GOALS, scaling_goal(results)]
        for one in check(goal, results)
        if one.verdict == "missed"
    ]
    header = ("goal", "at least", "workload", "threads", "figure (quartiles)", "compared with")
    return Table("Missed", header, rows)


HEADER = (
    "workload",
    *(f"{what}, {n} thread{'s' * (n > 1)}" for n in (1, 2) for what in ("time (IQR)", "of limit", "vs fastest peer")),
)


def line(results, workload):
    """Return the row of a workload."""
    cells = [workload]
    for threads in (1, 2):
        own = results.own(workload, threads)
        cells += [time_text(own), fraction_text(own), fastest_text(results, workload, threads)]
    return cells


def group(name, results):
    """Every workload of a group."""
    rows = [line(results, workload) for workload in results.ids if workload.startswith(f"{name}/")]
    return Table(name, HEADER, rows)


def everyone(results):
    """Every package on every workload."""
    rows = []
    for workload in results.ids:
        for threads in (1, 2):
            own = results.own(workload, threads)
            for m in sorted(results.by_id[workload], key=lambda one: one.median):
                if m.threads == threads:
                    ratio = ratio_text(m.median / own.median) if own else "-"
                    rows.append([workload, str(threads), m.who, time_text(m), f"{m.rounds}", ratio])
    header = ("workload", "threads", "who", "time (IQR)", "rounds", "time / optimcore's")
    return Table("Everyone", header, rows)


def slow(results):
    """Where a peer is faster, where more than half of the limit is lost, and where a second thread does harm."""
    rows = behind(results)
    for workload, one, two in far_from_limit(results):
        rows.append([workload, fraction_text(one), fraction_text(two), "of the limit"])
    note = (
        f"Where a peer is faster, where two threads are slower than one, and where less than {SLOW:g} of the limit is "
        "reached by more than 1 MB of traffic."
    )
    return Table("Slow cases", SLOW_HEADER, rows, note)


SLOW_HEADER = ("workload", "1 thread", "2 threads", "what")


def behind(results):
    """Return rows of where a peer is faster, or two threads are slower than one though those of the limit are not."""
    rows = []
    for workload in results.ids:
        faster = {}
        for threads in (1, 2):
            own, peers = results.own(workload, threads), results.peers(workload, threads)
            if own and peers and peers[0].median < own.median:
                faster[threads] = f"{ratio_text(peers[0].median / own.median)} x {peers[0].who}"
        if faster:
            rows.append([workload, faster.get(1, "-"), faster.get(2, "-"), "vs the fastest peer"])
    for one in scalings(results):
        if one.own < min(0.95, one.limit):
            rows.append([one.workload, "1", f"{one.own:.2f}", f"speed; the limit: {one.limit:.2f}"])
    return rows


def far_from_limit(results):
    """Return (workload, measurement with one thread, with two), the farthest from the limit first."""
    found = []
    for workload in results.ids:
        both = [m for m in (results.own(workload, 1), results.own(workload, 2)) if m and m.limit]
        if both and both[0].traffic > goals.SMALL and (least := min(m.fraction for m in both)) < SLOW:
            found.append((least, workload))
    return [(name, results.own(name, 1), results.own(name, 2)) for _, name in sorted(found)]


def growing(results):
    """The cost of a lazy step on tables that grow."""
    rows = []
    for found in filter(None, (growth(results, threads) for threads in (1, 2))):
        for count, one in zip(found.rows, found.measured, strict=True):
            cells = (time_text(one), seconds_text(one.limit), seconds_text(one.median - one.limit))
            rows.append([str(found.threads), f"{count:,} rows", *cells])
        lines = [f"{a.slope * 1e9:.4f} ± {a.error * 1e9:.4f}" for a in (found.own, found.limit, found.rest)]
        rows.append([str(found.threads), "slope, ns per table row", *lines])
    bytes_ = [f"{1e9 / s:.3f} ns ({name})" for name, s in results.memory.items() if name.startswith("read")]
    note = (
        "LazyAdam, a batch of 1e4 uniform rows of 16. Slopes and their standard errors are of least squares over the "
        "four tables. The limit has no pass over the table: what it costs more on larger tables is the caches' doing. "
        f"To read a single byte of each table row takes {' or '.join(bytes_)}."
    )
    return Table("Tables that grow", ("threads", "table", "time (IQR)", "limit", "beyond the limit"), rows, note)


def scaling(results):
    """How a second thread helps, here and at the limit."""
    rows = [
        [one.workload, f"{one.own:.2f}", f"{one.limit:.2f}", *scaling_verdict(one)]
        for one in sorted(scalings(results), key=lambda one: one.own / one.limit)
    ]
    note = "Workloads with more than 1 MB of traffic, the worst first. The goal holds where the limit scales 1.7x."
    return Table("Scaling from one to two threads", ("workload", "optimcore", "limit", "verdict"), rows, note)


def scaling_verdict(one):
    """Return the cell of the verdict."""
    return ["-" if not one.applies else "met" if one.own >= one.least else "missed"]


# ---- unique, merge_rows and lazy steps beside each peer

SPARSE = {"unique/unique/": "unique", "merge/merge_rows/": "merge_rows", "rows/lazy_adam/": "LazyAdam, table of 1e6"}


def sparse(results):
    """Ratios of unique, merge_rows and lazy steps to each peer, with 1 and with 2 threads: Markdown, several tables."""
    return "\n".join(
        f"**{title}**\n\n{sparse_table(results, start).markdown()}"
        for start, title in SPARSE.items()
        if any(name.startswith(start) for name in results.ids)
    )


def sparse_table(results, start):
    """Return the table of one of them: a column for each peer, cells with the ratio for 1 / 2 threads."""
    names = [name for name in results.ids if name.startswith(start) and "table of" not in name]
    names_of_peers = list(dict.fromkeys(who for name, _, who in results.by_key if name in names and who != "optimcore"))
    rows = []
    for name in sorted(names, key=sparse_order):
        own = [results.own(name, threads) for threads in (1, 2)]
        cells = [f"{one.median * 1e6:.4g} ±{one.spread / 2:.0%}" if one else "-" for one in own]
        peers = [" / ".join(sparse_ratios(results, name, who, own)) for who in names_of_peers]
        rows.append([name.removeprefix(start), " / ".join(cells), *peers])
    return Table("", ("case", "us", *names_of_peers), rows)


def sparse_ratios(results, name, who, own):
    """Return the ratios to a peer for 1 and 2 threads; one that knows but one thread is compared with both."""
    for threads, one in zip((1, 2), own, strict=True):
        peer = next((peer for peer in results.peers(name, threads, who) if peer.who == who), None)
        yield ratio_text(peer.median / one.median) if one and peer else "-"


def sparse_order(name):
    """Return the key that puts widths, then counts, then patterns in order."""
    pattern, _, rest = name.rpartition("/")[2].partition(", ")
    count, _, width = rest.partition(" x ")
    return int(width or 0), float(count), pattern


# ---- README

SHOWN = [
    *(name for size in ("1e3", "1e5", "1e7") for name in goals.dense(size)),
    *goals.ids("dense", ["adam"], ["1e7, float16", "1e7, bfloat16"]),
    *goals.ids("many", ["adam", "adagrad", "momentum"], ["200 x 1e3", "1,000 x 100"]),
    *goals.ids("pipeline", ["momentum", "lamb", "lars"], ["ResNet-50"]),
    *goals.ids("unique", ["unique"], goals.patterns(("uniform", "zipf", "64 bits"), "1e5", "1e6")),
    *goals.ids("merge", ["merge_rows"], goals.patterns(("uniform", "zipf"), "1e5 x 16", "1e5 x 64")),
    *goals.ids("rows", ["lazy_adam", "adagrad", "ftrl"], goals.patterns(["zipf"], "1e4 x 16", "1e5 x 64")),
    *goals.ids("rows", ["adam", "adam_catch_up"], ["zipf, 1e4 x 16"]),
]


def readme(results):
    """The section of README, as Markdown."""
    about = results.machine
    memory = ", ".join(f"{speed / 1e9:.0f} GB/s {name}" for name, speed in results.memory.items())
    far = far_from_limit(results)
    farthest = "; ".join(f"{name} {fraction_text(one)}, {fraction_text(two)}" for name, one, two in far[:MOST])
    return f"""\
{about["cpu"]}, {about["cpus"]} CPUs, {about["isa"]} kernels, {about["compiler"]}, NumPy {about["numpy"]}.
Memory: {memory}. {command_text(results.commands)}; {max(results.dates)[:10]}, commit {results.commits[-1]}.

{Table("", HEADER, [line(results, name) for name in SHOWN if name in results.ids]).markdown()}
Slow cases: where a peer is faster, or two threads are slower than one although those of the limit are not.

{Table("", SLOW_HEADER, behind(results)).markdown()}
Of all workloads with more than 1 MB of traffic, {len(far)} reach less than {SLOW:g} of the limit with one or two
threads. Farthest from it, with one and two threads: {farthest}.
"""


SECTIONS = {
    "machine": machine,
    "goals": what_must_hold,
    "missed": missed,
    "slow": slow,
    **{name: (lambda results, name=name: group(name, results)) for name in GROUPS},
    "growth": growing,
    "scaling": scaling,
    "everyone": everyone,
    "sparse": sparse,
    "readme": readme,
}
