"""What the threads ask of the system, in a module that is built against the header."""

import os
from pathlib import Path

import extension
import pytest

from optimcore.kernels import crew

DOORS = """
cdef extern from r"{header}":
    long current_cpu() noexcept nogil
    bint leave_cpu(long cpu) noexcept nogil
    unsigned long microseconds() noexcept nogil

def cpu():
    return current_cpu()

def leave(long cpu):
    return leave_cpu(cpu)

def clock():
    return microseconds()
"""


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    header = Path(crew.__file__).with_name("platform.h")
    return extension.build(tmp_path_factory.mktemp("doors"), "platform_doors", DOORS.format(header=header))


@pytest.fixture
def two_cpus():
    """Two CPUs that this thread may use, and no other one during a test."""
    if not hasattr(os, "sched_setaffinity") or len(allowed := os.sched_getaffinity(0)) < 2:
        pytest.skip("needs Linux and two CPUs")
    two = set(sorted(allowed)[:2])
    os.sched_setaffinity(0, two)
    yield two
    os.sched_setaffinity(0, allowed)


def test_thread_leaves_its_cpu(doors, two_cpus):
    for cpu in sorted(two_cpus):
        os.sched_setaffinity(0, {cpu})
        assert doors.cpu() == cpu
        os.sched_setaffinity(0, two_cpus)
        assert doors.leave(cpu)
        assert os.sched_getaffinity(0) == two_cpus


def test_thread_that_has_nowhere_to_go_stays(doors, two_cpus):
    (cpu, *_) = two_cpus
    os.sched_setaffinity(0, {cpu})
    assert not doors.leave(cpu)
    assert os.sched_getaffinity(0) == {cpu} and doors.cpu() == cpu


def test_clock_does_not_go_back(doors):
    times = [doors.clock() for _ in range(1000)]
    assert times == sorted(times)
