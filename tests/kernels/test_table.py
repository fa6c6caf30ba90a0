"""The kernel table has room for so many rules and measures, and no more."""

import extension
import pytest

DOORS = """
from optimcore.kernels.table cimport KernelTable, add_measure, add_rule

cdef struct Guarded:
    KernelTable table
    char[4096] behind

cdef Guarded guarded

def fill_rules(int hypers, int slots):
    guarded.table.rule_count = 0
    while True:
        add_rule(&guarded.table, "some", hypers, slots)

def fill_measures():
    guarded.table.measure_count = 0
    while True:
        add_measure(&guarded.table, "some")

def counts():
    return guarded.table.rule_count, guarded.table.measure_count

def behind():
    return (<char*>guarded.behind)[:4096]
"""


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    return extension.build(tmp_path_factory.mktemp("doors"), "table_doors", DOORS)


def test_one_rule_or_measure_too_many(doors):
    with pytest.raises(RuntimeError, match="rules must be at most MAX_RULES = 64, got 'some' beside them"):
        doors.fill_rules(8, 3)
    with pytest.raises(RuntimeError, match="measures must be at most MAX_MEASURES = 16, got 'some' beside them"):
        doors.fill_measures()
    assert doors.counts() == (64, 16)
    assert doors.behind() == bytes(4096)


def test_rule_that_is_too_large(doors):
    with pytest.raises(RuntimeError, match="rule 'some' must have at most MAX_HYPERS = 8 hypers, got 9"):
        doors.fill_rules(9, 1)
    with pytest.raises(RuntimeError, match="rule 'some' must have at most MAX_SLOTS = 3 slots, got 4"):
        doors.fill_rules(8, 4)
    assert doors.counts()[0] == 0
