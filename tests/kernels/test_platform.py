"""What the threads ask of the system, in a module that is built against the header."""

import os
from pathlib import Path

import extension
import pytest
from float_modes import MODES, float_mode

from optimcore.kernels import crew

DOORS = """
from optimcore.kernels.embed cimport run_blocks

cdef extern from r"{header}":
    long current_cpu() noexcept nogil
    bint leave_cpu(long cpu) noexcept nogil
    unsigned long microseconds() noexcept nogil
    unsigned long float_mode() noexcept nogil
    void set_float_mode(unsigned long mode) noexcept nogil
    long fetch_add(long* counter, long amount) noexcept nogil

def cpu():
    return current_cpu()

def leave(long cpu):
    return leave_cpu(cpu)

def clock():
    return microseconds()

def mode():
    return float_mode()

def copy_mode(unsigned long value):
    set_float_mode(value)

cdef struct Meeting:
    long arrived
    unsigned long[2] modes

cdef bint meet(const void* work, long block, long thread) noexcept nogil:
    "Note the mode of this thread, and wait for the other one, for ten milliseconds at most."
    meeting = <Meeting*>work
    meeting.modes[thread] = float_mode()
    fetch_add(&meeting.arrived, 1)
    cdef unsigned long start = microseconds()
    while fetch_add(&meeting.arrived, 0) < 2 and microseconds() - start < 10_000:
        pass
    return False

def modes_of_two_threads():
    cdef Meeting meeting
    for _ in range(1000):           # a helper may have a rest
        meeting.arrived, meeting.modes[1] = 0, 12345
        run_blocks(meet, &meeting, 2, 2)
        if meeting.modes[1] != 12345:
            break
    return meeting.modes[0], meeting.modes[1]
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


def test_helper_takes_over_the_mode_of_each_call(doors):
    usual = doors.mode()
    assert doors.modes_of_two_threads() == (usual, usual)
    for mode in MODES:
        with float_mode(mode):
            changed = doors.mode()
            assert changed != usual
            assert doors.modes_of_two_threads() == (changed, changed)
    assert doors.modes_of_two_threads() == (usual, usual)


@pytest.mark.parametrize("mode", MODES)
def test_mode_is_all_that_changes_results(doors, mode):
    def results():
        return 1.0 / ten, -1.0 / ten, (least * 0.5).hex(), (1.5 * least - least).hex()

    ten, least, usual = 10.0, 2.0**-1022, doors.mode()
    with float_mode(mode):
        code, expected = doors.mode(), results()
    before = results()
    doors.copy_mode(code)
    found = results()
    doors.copy_mode(usual)
    assert found == expected != before
    assert results() == before
