"""Options and fixtures of the benchmarks."""

import os
import platform

import pytest
from workloads.indices import make_indices as indices_of

import optimcore
from optimcore.kernels import isa


def pytest_addoption(parser):
    """Add --peers."""
    parser.addoption("--peers", action="store_true", help="also time every other package that can be imported")


def pytest_report_header():
    """Say on which machine, and with what."""
    return "optimcore: " + ", ".join(f"{key} {value}" for key, value in machine().items())


def machine():
    """Return what figures depend on, as a dict of strings."""
    return {
        "cpu": cpu_name(),
        "cpus": str(os.cpu_count()),
        "isa": isa.active_isa(),
        "compiler": isa.compiler(),
        "version": optimcore.__version__,
    }


def cpu_name():
    """Return what the system calls the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def pytest_benchmark_update_machine_info(machine_info):
    """Put the same into the JSON."""
    machine_info["optimcore"] = machine()


@pytest.fixture
def threads(request):
    """Set the threads of optimcore to what the test is parametrized with."""
    before = optimcore.get_num_threads()
    optimcore.set_num_threads(request.param)
    yield request.param
    optimcore.set_num_threads(before)


@pytest.fixture
def make_indices():
    """Return a function of a pattern's name and a count; the same indices in every run."""
    return indices_of
