import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import optimcore
from optimcore import runtime
from optimcore.kernels import isa as builds

# a step in two threads, and how many of them were ever used
THREADED_STEP = """
import numpy as np, optimcore
from optimcore.kernels import crew

optimcore.set_thread_threshold(0)
optimcore.set_num_threads(2)
w = optimcore.Parameter(np.ones(200_000, np.float32), name="w")
opt = optimcore.SGD([w], learning_rate=0.5)

def step():
    opt((np.ones(200_000, np.float32),))
"""
PRINT_THREADS = "import optimcore; print(optimcore.get_num_threads())"


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


def test_set_num_threads(restore_runtime):
    for threads in (1, 3, np.int64(2)):
        optimcore.set_num_threads(threads)
        assert optimcore.get_num_threads() == threads


@pytest.mark.parametrize("value", [0, -1])
def test_set_num_threads_below_one(value):
    with pytest.raises(ValueError, match=f"num_threads must be >= 1, got {value}"):
        optimcore.set_num_threads(value)


@pytest.mark.parametrize("value", [True, 2.0, "2", None])
def test_set_num_threads_not_an_int(value):
    with pytest.raises(TypeError, match=f"num_threads must be an int, got {value!r}"):
        optimcore.set_num_threads(value)


def test_environment_sets_threads():
    assert run(PRINT_THREADS, OPTIMCORE_NUM_THREADS="5").stdout == "5\n"


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5"])
def test_environment_with_bad_threads(value):
    result = run("import optimcore", OPTIMCORE_NUM_THREADS=value)
    assert result.returncode == 1
    assert f"ValueError: OPTIMCORE_NUM_THREADS must be an int >= 1, got '{value}'" in result.stderr


def test_default_threads_respect_affinity():
    if not hasattr(os, "sched_setaffinity"):
        assert runtime.default_num_threads() >= 1
        return
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + PRINT_THREADS
    assert run(code, OPTIMCORE_NUM_THREADS="").stdout == "1\n"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, float("inf")),
        ({"cpu.max": "max 100000\n"}, float("inf")),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, float("inf")),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.max": "nonsense\n"}, float("inf")),
    ],
)
def test_cgroup_limit(tmp_path, files, cpus):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert runtime._cgroup_cpus(tmp_path) == cpus


def test_environment_forces_isa():
    for isa in builds.available_isas():
        assert run("import optimcore; optimcore.show_config()", OPTIMCORE_ISA=isa).stdout.split()[3] == isa


def test_environment_with_isa_that_is_not_there():
    result = run("import optimcore", OPTIMCORE_ISA="sse9")
    assert result.returncode == 1
    names = ", ".join(builds.available_isas())
    assert (
        f"ValueError: OPTIMCORE_ISA must name an ISA build that this CPU can run ({names}), got 'sse9'" in result.stderr
    )


def test_show_config(capsys):
    optimcore.show_config()
    printed = dict(
        line.split(maxsplit=1) for line in capsys.readouterr().out.replace("isa avail", "avail").splitlines()
    )
    assert printed["version"] == optimcore.__version__
    assert printed["isa"] == builds.active_isa()
    assert printed["available"] == ", ".join(builds.available_isas())
    assert printed["threads"] == str(optimcore.get_num_threads())
    assert printed["numpy"] == np.__version__
    assert "-ffast-math" not in printed["flags"] and "-march=native" not in printed["flags"]


def test_helpers_take_part(restore_runtime):
    code = THREADED_STEP + "step(); print(crew.count_helpers(), w.asnumpy().max())"
    assert run(code).stdout == "1 0.5\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_step_after_fork_does_not_hang():
    code = (
        THREADED_STEP
        + """
import os, warnings
warnings.simplefilter("ignore")     # CPython 3.12 warns of any fork with threads
step()
child = os.fork()
if child == 0:
    assert crew.count_helpers() == 0
    step()
    assert crew.count_helpers() == 1
    os._exit(0 if (w.asnumpy() == 0.0).all() else 1)
step()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), w.asnumpy().max())
"""
    )
    assert run(code).stdout == "0 0.0\n"


def test_step_while_the_interpreter_shuts_down():
    code = "import atexit\natexit.register(lambda: (step(), print(w.asnumpy().max())))\n" + THREADED_STEP
    result = run(code)
    assert (result.stdout, result.stderr) == ("0.5\n", "")


def test_asking_for_helpers_runs_no_python():
    # a signal handler runs where Python code does: with parameters moved and the step not counted
    code = (
        THREADED_STEP
        + """
import sys
g = np.ones(200_000, np.float32),
calls = {}
for threads in (1, 2):
    optimcore.set_num_threads(threads)
    opt, calls[threads] = optimcore.SGD([w], learning_rate=0.5), []
    sys.setprofile(lambda frame, event, _: calls[threads].append((event, frame.f_code.co_name)))
    opt(g)
    sys.setprofile(None)
print(crew.count_helpers(), calls[1] == calls[2], len(calls[2]) > 0)
"""
    )
    assert run(code).stdout == "1 True True\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_step_without_memory_for_helpers_is_done_alone():
    pytest.importorskip("_testcapi", reason="CPython's tests are not installed")
    # no memory from the k-th allocation on: nothing was done (0), or all of it (2; 3 if a helper is still there)
    code = (
        THREADED_STEP
        + """
import _testcapi, os
g, outcomes = (np.ones(200_000, np.float32),), []
for k in range(60):
    if os.fork() == 0:
        _testcapi.set_nomemory(k)
        try:
            opt(g)
        except MemoryError:
            pass
        _testcapi.remove_mem_hooks()
        is_whole = (w.asnumpy() == 1 - 0.5 * opt.global_step).all()
        os._exit(2 * opt.global_step + crew.count_helpers() if is_whole else 9)
    outcomes.append(os.waitstatus_to_exitcode(os.wait()[1]))
print(set(outcomes) <= {0, 2, 3} and outcomes[0] == 0 and outcomes[-1] > 0)
"""
    )
    assert run(code).stdout == "True\n"


NO_THREADS = (
    THREADED_STEP
    + """
import sys, threading, time
g = np.ones(200_000, np.float32),
usual = threading.stack_size(1 << 47)       # no address space has room for it
opt(g)
assert not crew.count_helpers()
"""
)


def test_nothing_grows_where_no_thread_can_be_had():
    code = (
        NO_THREADS
        + """
blocks = sys.getallocatedblocks()
for _ in range(300): opt(g)
print(crew.count_helpers(), sys.getallocatedblocks() - blocks < 100, w.asnumpy().min(), w.asnumpy().max())
"""
    )
    assert run(code).stdout == "0 True -149.5 -149.5\n"


def test_helpers_come_back_when_threads_can_be_had_again():
    code = (
        NO_THREADS
        + """
threading.stack_size(usual)
end = time.monotonic() + 30
while not crew.count_helpers() and time.monotonic() < end: opt(g)
print(crew.count_helpers())
"""
    )
    assert run(code).stdout == "1\n"


def test_daemon_threads_that_step_at_the_end_of_the_process():
    code = (
        THREADED_STEP
        + """
import threading
def train():
    started.release()
    while True: step()
started = threading.Semaphore(0)
threading.Thread(target=train, daemon=True).start()
started.acquire()
for _ in range(20): optimcore.SGD([optimcore.Parameter(w.asnumpy().copy())], 1.0)((np.ones(200_000, np.float32),))
"""
    )
    result = run(code)
    assert (result.returncode, result.stderr) == (0, "")


def test_helpers_go_when_nobody_calls(restore_runtime):
    code = THREADED_STEP + (
        "import threading\n"
        "step()\n"
        "while crew.count_helpers(): threading.Event().wait(0.001)\n"
        "step(); print(crew.count_helpers(), w.asnumpy().max())"
    )
    assert run(code).stdout == "1 0.0\n"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to a CPU")
def test_helper_on_the_only_cpu_keeps_nobody_waiting():
    code = (
        "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        + THREADED_STEP
        + "for _ in range(200): step()\n"
        + "print(crew.count_helpers() <= 1, w.asnumpy().max(), w.asnumpy().min())"
    )
    assert run(code).stdout == "True -99.0 -99.0\n"


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_steps_of_several_optimizers_at_once(threads, restore_runtime):
    # they share helpers, which go and come back in between
    def train(seed):
        gradients = np.random.default_rng(seed).standard_normal((300, 70_000), dtype=np.float32)
        w = optimcore.Parameter(np.zeros(70_000, np.float32), name="w")
        opt = optimcore.Momentum([w], learning_rate=0.5, momentum=0.5)
        for gradient in gradients:
            opt((gradient,))
        return w.asnumpy()

    optimcore.set_num_threads(1)
    expected = [train(seed) for seed in range(3)]
    optimcore.set_thread_threshold(0)
    optimcore.set_num_threads(threads)
    with ThreadPoolExecutor(3) as pool:
        for result, alone in zip(pool.map(train, range(3)), expected, strict=True):
            np.testing.assert_array_equal(result, alone)


@pytest.mark.parametrize("value", [0, 1, np.int64(10**6)])
def test_set_thread_threshold(value, restore_runtime):
    optimcore.set_thread_threshold(value)
    assert optimcore.get_thread_threshold() == value


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (True, TypeError), (1.5, TypeError)])
def test_bad_thread_threshold(value, error):
    with pytest.raises(error, match=f"elements must be .*got {value}"):
        optimcore.set_thread_threshold(value)


def test_environment_sets_the_thread_threshold():
    code = "import optimcore; print(optimcore.get_thread_threshold())"
    assert run(code, OPTIMCORE_THREAD_THRESHOLD="123").stdout == "123\n"
    result = run(code, OPTIMCORE_THREAD_THRESHOLD="-1")
    assert "ValueError: OPTIMCORE_THREAD_THRESHOLD must be an int >= 0, got '-1'" in result.stderr


def test_below_the_threshold_no_helper_is_called():
    code = THREADED_STEP + "optimcore.set_thread_threshold(200_001); step(); print(crew.count_helpers())"
    assert run(code).stdout == "0\n"


def test_import_loads_numpy_and_nothing_else():
    code = "import sys, numpy; before = set(sys.modules); import optimcore; print(sorted(set(sys.modules) - before))"
    loaded = eval(run(code).stdout)
    assert {"optimcore", "optimcore.kernels.driver"} <= set(loaded)
    optional = {
        "torch",
        "matplotlib",
        "tqdm",
        "ml_dtypes",
        "mpi4py",
        "safetensors",
        "concurrent.futures",
        "optimcore.train",
    }
    assert not optional & set(loaded)
