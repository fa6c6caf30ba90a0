"""Tables that are larger than memory: steps on rows touch the pages of those rows and nothing else."""

import subprocess
import sys

import numpy as np
import pytest

import optimcore

GIGABYTE = 10**9
ROWS, WIDTH = 50_000_000, 100  # 20 GB of float32

# Prints the peak of resident memory and the bytes of the file that are on the disk. No process may have more than 1 GB
# of private memory here, touched or not, so that an allocation as large as the table is an error at once.
STEPS = """
import mmap, os, resource, sys
import numpy as np
import optimcore as nn

rows, width, path, make = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
resource.setrlimit(resource.RLIMIT_DATA, (10**9, 10**9))
table = np.memmap(path, np.float32, "r+", shape=(rows, width))
table.base.madvise(mmap.MADV_RANDOM)    # without it the system reads megabytes around each row
opt = eval(make)([nn.Parameter(table, "table")])
opt.max_grad_norm = 1.0
rng = np.random.default_rng(0)
indices = rng.integers(0, rows, 1000)
gradient = nn.RowTensor(indices, rng.standard_normal((1000, width), np.float32), table.shape)
for step in range(2):
    prepared = opt.scale_grad(opt.decay_weight((gradient,)))
    assert nn.all_finite(prepared)
    opt(prepared)
assert (table[indices] != 0).any(axis=1).all() and not table[np.setdiff1d(np.arange(1000), indices)].any()

if sys.platform == "linux":     # getrusage would count the process that started this one
    (peak,) = [1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")]
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak, 512 * os.stat(path).st_blocks)
"""


@pytest.fixture
def path(tmp_path):
    """Return the path of a file of zeros as large as the table, which takes no space; remove it soon."""
    path = tmp_path / "table"
    with open(path, "wb") as file:
        file.truncate(4 * ROWS * WIDTH)
    if 512 * path.stat().st_blocks > GIGABYTE:
        pytest.fail(f"the file system of {tmp_path} has no sparse files: choose another one with --basetemp")
    yield path
    path.unlink()


@pytest.mark.parametrize(
    "make",
    [
        "lambda p: nn.SGD(p, learning_rate=0.1, weight_decay=0.01)",
        "lambda p: nn.LazyAdam(p, weight_decay=0.01, loss_scale=2.0)",
        "lambda p: nn.Adagrad(p, accum=0.0)",
        "lambda p: nn.FTRL(p, initial_accum=0.0)",
    ],
)
def test_a_thousand_rows_of_20_gigabytes(path, make):
    command = [sys.executable, "-c", STEPS, str(ROWS), str(WIDTH), str(path), make]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    peak, on_disk = map(int, result.stdout.split())
    assert peak < GIGABYTE / 2
    assert on_disk < GIGABYTE / 10


def memmap_behind(array):
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array


@pytest.mark.parametrize("init", ["zeros", 0.1, "same"])
def test_slots_of_a_table_in_a_file_are_in_the_same_folder_without_a_name(tmp_path, init):
    table = np.memmap(tmp_path / "table", np.float16, "w+", shape=(300, 40))
    table[7] = 3
    part = optimcore.ParameterTuple([optimcore.Parameter(table[1:], "table")])
    (slot,) = part.clone("accum", init, dtype="compute")
    expected = table[1:] if init == "same" else np.full((299, 40), 0.0 if init == "zeros" else init)
    np.testing.assert_array_equal(slot.data, expected.astype(np.float32))
    assert memmap_behind(slot.data) is not None and not np.shares_memory(slot.data, table)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_slots_of_a_private_copy_of_a_file_are_in_memory(tmp_path):
    np.ones(10, np.float32).tofile(tmp_path / "table")
    table = np.memmap(tmp_path / "table", np.float32, "c")
    opt = optimcore.Momentum([optimcore.Parameter(table, "table")], learning_rate=0.1, momentum=0.9)
    assert memmap_behind(opt.moments[0].data) is None


def test_training_from_a_file_has_the_bits_of_training_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    in_memory = rng.standard_normal((200, 30)).astype(np.float32)
    in_file = np.memmap(tmp_path / "table", np.float32, "w+", shape=(200, 30))
    in_file[:] = in_memory
    optimizers = [optimcore.LazyAdam([optimcore.Parameter(a, "table")]) for a in (in_memory, in_file)]
    for _ in range(3):
        gradient = optimcore.RowTensor(rng.integers(0, 200, 50), rng.standard_normal((50, 30)), (200, 30))
        for opt in optimizers:
            opt((gradient,))
    assert in_file.tobytes() == in_memory.tobytes()
