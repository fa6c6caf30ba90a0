"""Write one page of what the benchmarks found: tables, and plots of time per element against size.

Usage: python benchmarks/report.py [--peers] [--output FOLDER]       run the benchmarks, then write the page
       python benchmarks/report.py --json FILE... [--output FOLDER]  of what `pytest --benchmark-json` wrote
       ... --section NAME   print a section as Markdown instead
       ... --readme         put the table of results into README.md instead

Several files are parts of one session: same machine, same versions. A run by this program also has the sizes 1e4 and
1e6 of every rule, for the plots, and so takes a minute longer than ``pytest benchmarks/``.
"""

import argparse
import html
import subprocess
import sys
from pathlib import Path

import results
import tables

TOP = Path(__file__).resolve().parent.parent
README = TOP / "README.md"
BEGIN, END = "<!-- results: written by benchmarks/report.py --readme -->\n", "<!-- end of results -->\n"
# title and text of each group
GROUPS = {
    "dense": "One tensor",
    "many": "Many small tensors",
    "pipeline": "The tensors of ResNet-50",
    "unique": "Numbering indices",
    "merge": "Summing rows that share an index",
    "rows": "Steps on rows",
    "overhead": "Overhead",
}
NOTES = """
<p>Times are medians; what is in brackets is the interquartile range in percent of the median. The limit is
hand-written C with the same traffic, measured right before and after, and the smaller of both: <i>of limit</i> is its
time over that of optimcore. It has next to no arithmetic and no call to pay for, so that small sizes, which stay in a
cache, cannot reach it. <i>Vs fastest peer</i> is how many times as fast optimcore is as the fastest of all others with
at most as many threads, in its fastest mode. Every peer does the same work on the same data and was checked to
agree.</p>
<p>Everyone has the allocator as users have it. glibc gives the pages of large results back to the system and takes new
ones in every call, until its threshold has adapted: that can double the time of <code>unique</code> and
<code>merge_rows</code> on 1e6 indices, which return arrays of 8 MB or more, and it hits peers alike.
MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ are not set.</p>
"""
CSS = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; padding: 0 1em; max-width: 1180px; color: #222; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd; }
nav a { margin-right: 1em; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 9px; text-align: left; border-bottom: 1px solid #eee; vertical-align: top; }
th { background: #f4f4f4; } tbody tr:hover { background: #f8f8ff; }
td.met { color: #17712b; font-weight: 600; } td.missed { color: #b3261e; font-weight: 600; }
td.not-measured { color: #777; }
summary { cursor: pointer; color: #1f6fb4; margin: .5em 0; }
img { max-width: 100%; }
"""


def run_benchmarks(folder, peers):
    """Run all benchmarks; return the JSON file. SystemExit if there is none."""
    path = folder / "benchmarks.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "benchmarks", "-q", "--sizes", f"--benchmark-json={path}"]
    code = subprocess.run(command + ["--peers"] * peers, cwd=TOP).returncode
    if not path.exists():
        raise SystemExit(f"the benchmarks ended with {code}, and wrote nothing")
    if code:
        print("some benchmarks failed; the report has the others", file=sys.stderr)
    return path


def page(found):
    """Return the page as HTML, with all that it needs inside."""
    import plots

    def section(name, title, content):
        return f'<h2 id="{name}">{title}</h2>\n{content}'

    def hidden(table):
        return f"<details><summary>{len(table.rows)} rows</summary>{table.html()}</details>" if table.rows else ""

    def drawn(figure):
        return plots.svg(figure) if figure else ""

    missed, everyone, scaling = tables.missed(found), tables.everyone(found), tables.scaling(found)
    parts = {"machine": ("Machine", tables.machine(found).html() + NOTES)}
    parts["goals"] = ("What must hold", tables.what_must_hold(found).html() + f"<h3>What misses</h3>{hidden(missed)}")
    parts["slow"] = ("Slow cases", tables.slow(found).html())
    parts["peers"] = ("Beside the fastest peer", drawn(plots.draw_ratios(found)))
    for name, title in GROUPS.items():
        table = tables.group(name, found)
        if table.rows:
            parts[name] = (title, drawn(plots.draw_group(found, name)) + hidden(table))
    parts["growth"] = ("Tables that grow", drawn(plots.draw_growth(found)) + tables.growing(found).html())
    parts["scaling"] = (scaling.title, f"<p>{scaling.note}</p>" + hidden(scaling))
    parts["everyone"] = ("Everyone, on everything", hidden(everyone))
    links = "".join(f'<a href="#{name}">{title}</a> ' for name, (title, _) in parts.items())
    body = "\n".join(section(name, title, content) for name, (title, content) in parts.items())
    where = html.escape(f"{found.machine.get('cpu', '')}, {found.machine.get('isa', '')}")
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>optimcore benchmarks</title>'
        f"<style>{CSS}</style>"
        f"<h1>optimcore benchmarks: {where}</h1><nav>{links}</nav>\n{body}\n</html>\n"
    )


def put_between(text, content):
    """Return a text with new content between the markers. ValueError if they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md must contain {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}{content}{END}{after}"


def main(arguments=None):
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", nargs="+", type=Path, metavar="FILE", help="what was measured; default: measure now")
    parser.add_argument("--peers", action="store_true", help="measure the packages that can be imported, too")
    parser.add_argument("--output", type=Path, default=TOP / "build" / "report", metavar="FOLDER", help="%(default)s")
    parser.add_argument("--section", choices=tables.SECTIONS, help="print this as Markdown")
    parser.add_argument("--readme", action="store_true", help="put the table of results into README.md")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    found = results.load(options.json or [run_benchmarks(options.output, options.peers)])
    if options.readme:
        README.write_text(put_between(README.read_text(encoding="utf-8"), tables.readme(found)), encoding="utf-8")
    elif options.section:
        section = tables.SECTIONS[options.section](found)
        print(section if isinstance(section, str) else section.markdown())
    else:
        target = options.output / "report.html"
        target.write_text(page(found), encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()
