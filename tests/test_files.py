"""Space on the disk for tables and slots in files."""

import errno
import os

import numpy as np
import pytest

import optimcore as nn
from optimcore.kernels.mapped import map_behind

SHAPE = (1000, 256)  # 1 MB of float32


@pytest.fixture
def table(tmp_path):
    """Return a table in a file that is one hole."""
    return np.memmap(tmp_path / "table", np.float32, "w+", shape=SHAPE)


def space_of(array):
    part = map_behind(array)
    if hasattr(part, "descriptor"):
        return 512 * os.fstat(part.descriptor).st_blocks
    return 512 * os.stat(part.filename).st_blocks


def test_holes_are_the_default(table):
    opt = nn.LazyAdam([nn.Parameter(table, "table")])
    assert space_of(table) < table.nbytes / 2
    assert space_of(opt.moment1[0].data) < table.nbytes / 2


def test_table_and_slots_take_their_space(table):
    table[3] = 7
    opt = nn.LazyAdam([nn.Parameter(table[1:], "table")])
    assert nn.reserve(opt) >= 3 * table[1:].nbytes
    for array in (table, opt.moment1[0].data, opt.moment2[0].data):
        assert space_of(array) >= table[1:].nbytes
    assert (table[3] == 7).all()
    assert (table[4] == 0).all()
    assert not opt.moment1[0].data.any()


@pytest.mark.parametrize(
    "wrap", [lambda t: t, lambda t: t[5:], lambda t: nn.Parameter(t), lambda t: [(t,)], np.asarray]
)
def test_parts_and_lists_of_tables(table, wrap):
    assert nn.reserve(wrap(table), np.ones(3)) == table.nbytes
    assert space_of(table) >= table.nbytes


def test_memory_takes_no_space(tmp_path):
    opt = nn.Adam([nn.Parameter(np.ones(3, np.float32), "w")])
    assert nn.reserve(opt) == 0
    np.ones(10, np.float32).tofile(tmp_path / "copy")
    assert nn.reserve(np.memmap(tmp_path / "copy", np.float32, "c")) == 0


@pytest.mark.parametrize("thing", [None, 3, "table", {"params": []}])
def test_other_things_are_refused(thing):
    with pytest.raises(TypeError, match="things must be optimizers, Parameters or arrays, got"):
        nn.reserve(thing)


def full(descriptor, offset, length):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_is_an_error_with_file_and_bytes(table, monkeypatch):
    opt = nn.LazyAdam([nn.Parameter(table, "table")])
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=f"No space left on device, for {table.nbytes} bytes of: .*table'") as raised:
        nn.reserve(opt)
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match=rf"No space .* bytes of: '{os.path.dirname(table.filename)}'"):
        nn.reserve(opt.moment1)


def test_full_disk_while_a_slot_gets_its_first_value(table, monkeypatch):
    """All of the file is written then, which must not be what finds out."""
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left on device"):
        nn.Adagrad([nn.Parameter(table, "table")], accum=0.5)


def test_systems_that_cannot_take_space_in_advance(table, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    with pytest.raises(OSError, match="table'") as raised:
        nn.reserve(table)
    assert raised.value.errno == errno.ENOTSUP
    opt = nn.Adagrad([nn.Parameter(table, "table")], accum=0.5)
    assert (opt.accum[0].data == 0.5).all()


def test_descriptors_are_closed(table):
    """A slot without a name keeps its file open, no longer than itself."""
    slot = nn.ParameterTuple([nn.Parameter(table, "table")]).clone("m", "zeros")
    descriptor = map_behind(slot[0].data).descriptor
    os.fstat(descriptor)
    del slot
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_slots_of_slots_are_in_files(table):
    """What is made from a slot in a file, such as a copy of it, is beside it."""
    slots = nn.ParameterTuple([nn.Parameter(table, "table")]).clone("m", "zeros")
    (copy,) = slots.clone("n")
    assert map_behind(copy.data) is not None
