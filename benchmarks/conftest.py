"""Options and fixtures of the benchmarks."""

import os
import platform
import shlex
import statistics
from functools import lru_cache
from importlib import metadata
from time import perf_counter

import limits
import numpy as np
import pytest
import threshold
from goals import SMALL
from results import BUSY, is_busy

import optimcore
from optimcore.kernels import isa

ROUND = 2e-5  # seconds that a round takes at least, so that the clock is no matter
LEAST_ROUNDS, MOST_ROUNDS = 5, 2000
BUDGET = 0.08  # seconds per measurement, if that makes LEAST_ROUNDS
KEPT_LIMITS = 4
MORE_TRIES = 3  # for a limit that is much slower than what it limits
LARGE = 10**7  # bytes: above, the memory decides, which other guests of a machine use too
# distributions, as they are named where they are published
PEERS = (
    "torch",
    "fbgemm-gpu-cpu",
    "pandas",
    "pyarrow",
    "tensorflow-cpu",
    "tensorflow",
    "keras",
    "optax",
    "jax",
    "mindspore",
)

summary = []


def pytest_addoption(parser):
    """Add --peers and --sizes."""
    parser.addoption("--peers", action="store_true", help="also time every other package that can be imported")
    parser.addoption("--sizes", action="store_true", help="also time optimcore on sizes between, for plots")


def pytest_configure(config):
    """Name the marker, and let no garbage be collected within a round."""
    config.addinivalue_line("markers", "peer: of another package; needs --peers")
    config.addinivalue_line("markers", "between: of a size that only plots have; needs --sizes")
    config.option.benchmark_disable_gc = True


def pytest_collection_modifyitems(config, items):
    """Leave out the peers and the sizes that nobody asked for."""
    for marker, option in (("peer", "--peers"), ("between", "--sizes")):
        if not config.getoption(option):
            left_out = {item for item in items if item.get_closest_marker(marker)}
            config.hook.pytest_deselected(items=list(left_out))
            items[:] = [item for item in items if item not in left_out]


def pytest_report_header():
    """Say on which machine, and with what."""
    return "optimcore: " + ", ".join(f"{key} {value}" for key, value in machine().items())


def pytest_benchmark_update_machine_info(config, machine_info):
    """Put the same into the JSON, the command, versions of peers, and how fast memory is."""
    machine_info["optimcore"] = machine()
    machine_info["command"] = command(config.invocation_params.args)
    if config.getoption("--peers"):
        machine_info["peers"] = {name: version for name in PEERS if (version := version_of(name))}
    if limits.is_available():
        machine_info["limits"] = bandwidths()


def command(arguments):
    """Return the command line without what says where to write."""
    shown = (str(a) for a in arguments if not str(a).startswith("--benchmark-json"))
    return shlex.join(["pytest", *shown])


def version_of(package):
    """Return the version of a package, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@lru_cache
def bandwidths(size=10**8):
    """Return bytes per second of a copy and of reads of arrays that no cache holds, for 1 and 2 threads."""
    read = dict(passes=(("g", ""),), sizes=(size // 4,), dtype="float32")
    kinds = {"copy": ("copy", dict(size=size)), "read": ("stream", read)}
    return {
        f"{kind}, {threads} thread(s)": limits.traffic(limit) / limits.seconds(limit, threads)
        for kind, limit in kinds.items()
        for threads in (1, 2)
    }


def machine():
    """Return what figures depend on, as a dict of strings."""
    return {
        "cpu": cpu_name(),
        "cpus": str(os.cpu_count()),
        "isa": isa.active_isa(),
        "second thread from": f"{optimcore.get_thread_threshold():,} elements ({threshold.THRESHOLD:,} measured)",
        "compiler": isa.compiler(),
        "version": optimcore.__version__,
        "numpy": np.__version__,
    }


def cpu_name():
    """Return what the system calls the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@pytest.hookimpl(trylast=True)  # so that both follow each other, and need the data once
def pytest_generate_tests(metafunc):
    """Measure with 1 and with 2 threads."""
    if "threads" in metafunc.fixturenames:
        metafunc.parametrize("threads", [1, 2], indirect=True)


@pytest.fixture
def run_once_made(workload):
    """Return the Run of a workload; the next test of the same workload gets the same."""
    return cached_run(workload.id)


@lru_cache(maxsize=1)
def cached_run(workload_id):
    """Return the Run of the workload that was last asked for."""
    from workloads import WORKLOADS

    return WORKLOADS[workload_id].make()


@pytest.fixture
def threads(request):
    """Set the threads of optimcore, and return their number; a peer sets its own."""
    before = optimcore.get_num_threads()
    optimcore.set_num_threads(request.param)
    yield request.param
    optimcore.set_num_threads(before)


@pytest.fixture
def measure(benchmark):
    """Return the function that times the step of a run of a workload.

    ``measure(workload, step, threads, who="optimcore", limit=False)`` puts the benchmark into the workload's group.
    With `limit`, the workload's limit is measured right before and after. So is optimcore beside a peer if the workload
    is large: the memory may have become faster or slower since it had its turn.
    """

    def timed(workload, step, threads, who="optimcore", limit=False):
        benchmark.group = f"{workload.group}: {workload.name}, {workload.case}, {threads} thread(s)"
        benchmark.extra_info.update(
            id=workload.id, who=who, threads=threads, elements=workload.elements, isa=isa.active_isa()
        )
        if not benchmark.enabled:  # nothing is timed, but it runs
            benchmark(step)
            return
        loop = limit_of(workload) if limit else None
        is_beside = who != "optimcore" and workload.limit and limits.traffic(workload.limit) > LARGE
        own_times = seconds_of_own(workload, threads) if is_beside else []
        times = seconds_of_limit(loop, workload, threads)
        run(benchmark, step)
        times += seconds_of_limit(loop, workload, threads)
        for _ in range(MORE_TRIES):
            if times and is_busy(min(times), benchmark.stats.stats.median):
                times += seconds_of_limit(loop, workload, threads)
        own_times += seconds_of_own(workload, threads) if is_beside else []
        note(benchmark, workload, times, own_times)

    return timed


kept_limits = {}


def limit_of(workload):
    """Return the limit of a workload, None if it has none or there is no compiler; the last four keep their arrays."""
    if not (workload.limit and limits.is_available()):
        return None
    key = repr(workload.limit)
    limit = kept_limits.pop(key, None) or limits.Limit(workload.limit)
    kept_limits[key] = limit  # now the latest
    if len(kept_limits) > KEPT_LIMITS:
        del kept_limits[next(iter(kept_limits))]
    return limit


def seconds_of_limit(limit, workload, threads):
    """Return medians of the seconds of a limit, which may do with fewer threads where little is to be done."""
    times = []
    if limit is not None:
        for count in range(1 if limits.traffic(workload.limit) < SMALL else threads, threads + 1):
            limit.use(count)
            times.append(statistics.median(limit.sample()))
    return times


def seconds_of_own(workload, threads):
    """Return the seconds of some steps of optimcore."""
    before = optimcore.get_num_threads()
    optimcore.set_num_threads(threads)
    step = cached_run(workload.id).step
    step()
    times = [seconds_of(step, 1) for _ in range(LEAST_ROUNDS)]
    optimcore.set_num_threads(before)
    return times


def run(benchmark, step):
    """Time a step in rounds, as many as the budget allows, each of as many steps as the clock needs."""
    took = seconds_of(step, 1)
    if took < BUDGET:  # the first call is slower
        took = seconds_of(step, 1)
    iterations = 1
    while took < ROUND and iterations < 10**5:
        iterations *= 2
        took = seconds_of(step, iterations)
    rounds = min(max(int(BUDGET / took), LEAST_ROUNDS), MOST_ROUNDS)
    benchmark.pedantic(step, rounds=rounds, iterations=iterations)


def seconds_of(step, iterations):
    """Return the seconds of so many steps."""
    start = perf_counter()
    for _ in range(iterations):
        step()
    return perf_counter() - start


def note(benchmark, workload, limit_times, own_times):
    """Put what the median means into extra_info: per element, as a fraction of the limit, beside optimcore."""
    info, median = benchmark.extra_info, benchmark.stats.stats.median
    info["seconds per element"] = median / workload.elements
    if workload.limit:
        info["bytes"] = limits.traffic(workload.limit)
    if limit_times and is_busy(min(limit_times), median):
        info["limit"] = BUSY
    elif limit_times:
        # the smaller one: a limit is the best that there is
        info["limit seconds"] = min(limit_times)
        info["fraction of limit"] = min(limit_times) / median
    if own_times:
        info["optimcore seconds"] = statistics.median(own_times)
    summary.append({**info, "median": median})


def pytest_terminal_summary(terminalreporter):
    """Print how far from the limits optimcore is."""
    rows = [row for row in summary if "fraction of limit" in row or "limit" in row]
    if rows:
        terminalreporter.section("fractions of the limit")
    for row in rows:
        terminalreporter.write_line(summary_line(row))


def summary_line(row):
    """Return a line on one workload: its time, the limit, and the fraction of the limit's speed."""
    start = f"{row['id']:40} {row['threads']} thread(s) {row['median'] * 1e6:12.2f} us "
    if "limit" in row:
        return f"{start}{row['limit']:>18}"
    return f"{start}{row['limit seconds'] * 1e6:12.2f} us limit {row['fraction of limit']:6.2f}"
