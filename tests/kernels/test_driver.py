import os
import pickle
import threading
import warnings
import weakref
from array import array
from hashlib import sha256

import ml_dtypes
import numpy as np
import pytest

import optimcore
from optimcore.kernels import crew
from optimcore.kernels import isa as builds
from optimcore.kernels.arrays import aligned_zeros
from optimcore.kernels.driver import Plan


def make_plan(parameters, rule="momentum", slots=1, centralize=None, rows=None):
    names = [f"w{i}" for i in range(len(parameters))]
    arrays = [[np.zeros_like(p) for p in parameters] for _ in range(slots)]
    return Plan(rule, names, parameters, arrays, centralize or [False] * len(parameters), rows)


def test_rows_choose_the_hyperparameters():
    parameters = [np.zeros(3), np.zeros(3)]
    plan = make_plan(parameters, "sgd", 0, rows=[1, 0])
    plan.step([np.ones(3), np.ones(3)], [(0.25,), (0.5,)])
    plan.rows[:] = [0, 0]
    plan.step([np.ones(3), np.ones(3)], [(0.25,), (0.5,)])
    assert parameters[0].tolist() == [-0.75] * 3
    assert parameters[1].tolist() == [-0.5] * 3


def test_unknown_rule():
    with pytest.raises(ValueError, match="rule must name a kernel, got 'nonsense'"):
        make_plan([np.zeros(3)], "nonsense")


def test_wrong_number_of_slots():
    with pytest.raises(ValueError, match="slots must be 1 for momentum, got 2"):
        make_plan([np.zeros(3)], slots=2)


def matrix_plan(shape):
    means = np.zeros(shape[:-1]), np.zeros(shape[:-2] + shape[-1:])
    plan = Plan("adafactor", ["w"], [np.zeros(shape)], [[means[1]]], [False], row_means=[means[0]])
    plan.adapt("adafactor")
    plan.adaptation_numbers[:, :3] = 1e-3, 1.0, True
    return plan, *means


MATRIX_SHAPES = [
    (2, 3),
    (4, 2, 3),
    (3000, 2, 7),
    (2, 3000, 7),
    (5000, 4, 16),
    (150, 500),
    (2, 65, 17000),
    (1, 1),
    (7, 1),
]


@pytest.mark.parametrize("shape", MATRIX_SHAPES, ids=str)
def test_means_of_rows_and_columns(shape):
    plan, row, column = matrix_plan(shape)
    g = np.random.default_rng(0).standard_normal(shape)
    for _ in range(2):
        plan.step([g], [(0.1, 0.25, 0.5)])
    np.testing.assert_allclose(row, 0.75 * ((g * g).mean(axis=-1) + 0.25), rtol=1e-12)
    np.testing.assert_allclose(column, 0.75 * ((g * g).mean(axis=-2) + 0.25), rtol=1e-12)


def test_means_of_an_absent_gradient_stay():
    plan, row, column = matrix_plan((2, 3))
    plan.step([np.ones((2, 3))], [(0.1, 0.0, 0.0)])
    plan.step([None], [(0.1, 0.0, 0.0)])
    assert row.tolist() == [1, 1]
    assert column.tolist() == [1, 1, 1]


def test_means_of_a_wrong_shape():
    with pytest.raises(ValueError, match=r"slots of 'w' must have shape \(2,\) and dtype float64, got \(3,\)"):
        Plan("adafactor", ["w"], [np.zeros((2, 3))], [[np.zeros(3)]], [False], row_means=[np.zeros(3)])


ADAPTED = {
    "lamb": lambda ps: optimcore.Lamb(ps, 0.1, weight_decay=0.01),
    "lars": lambda ps: optimcore.LARS(optimcore.Momentum(ps, 0.1, 0.9, weight_decay=0.01), use_clip=True),
    "adafactor": lambda ps: optimcore.AdaFactor(ps, weight_decay=0.01),
}
# several portions, the last parameters in one
SIZES = [(3,), (700, 500), (600_001,), (0,), (17, 4, 5), (300_000,), (1,)]


@pytest.fixture(params=ADAPTED)
def adapted(request):
    return ADAPTED[request.param]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_parameters_that_are_adapted_together_are_what_they_are_alone(adapted, threads, restore_runtime):
    optimcore.set_num_threads(threads)
    optimcore.set_thread_threshold(0)
    rng = np.random.default_rng(0)
    together = [
        optimcore.Parameter(rng.standard_normal(shape).astype(np.float32), f"w{i}") for i, shape in enumerate(SIZES)
    ]
    alone = [optimcore.Parameter(p.asnumpy().copy(), p.name) for p in together]
    optimizer, others = adapted(together), [adapted([p]) for p in alone]
    for absent in (None, 5, 2):
        gradients = [rng.standard_normal(shape).astype(np.float32) for shape in SIZES]
        if absent is not None:
            gradients[absent] = None
        optimizer(gradients)
        for other, g in zip(others, gradients, strict=True):
            other([g])
    for p, other in zip(together, alone, strict=True):
        assert p.asnumpy().tobytes() == other.asnumpy().tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_adaptation_is_whole_where_no_thread_can_be_had(adapted, restore_runtime):
    optimcore.set_thread_threshold(0)

    def step_in_a_child(threads, stack):
        """Return the state after a step in a new process, and how many helpers it had."""
        reader, writer = os.pipe()
        if os.fork() == 0:
            optimcore.set_num_threads(threads)
            threading.stack_size(stack)
            parameters = [optimcore.Parameter(np.ones(shape, np.float32), f"w{i}") for i, shape in enumerate(SIZES)]
            adapted(parameters)([np.full(shape, 0.5, np.float32) for shape in SIZES])
            digest = sha256(b"".join(p.asnumpy().tobytes() for p in parameters)).hexdigest()
            os.write(writer, f"{digest} {crew.count_helpers()}".encode())
            os._exit(0)
        os.close(writer)
        with open(reader, encoding="ascii") as pipe:
            answer = pipe.read()
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        return answer.split()

    digest, helpers = step_in_a_child(threads=1, stack=0)
    assert helpers == "0"
    assert step_in_a_child(threads=3, stack=0)[0] == digest
    assert step_in_a_child(threads=3, stack=1 << 47) == [digest, "0"]


@pytest.mark.parametrize(
    ("rule", "shape", "centralize"),
    [("momentum", (2, 3), False), ("adafactor", (3,), False), ("adafactor", (2, 3), True)],
)
def test_means_that_are_not_for_matrices(rule, shape, centralize):
    means = np.zeros(shape[:-1]), np.zeros(shape[:-2] + shape[-1:])
    with pytest.raises(ValueError, match="row_means of 'w' must be None except for a rule over matrices"):
        Plan(rule, ["w"], [np.zeros(shape)], [[means[1]]], [centralize], row_means=[means[0]])


@pytest.mark.parametrize("slot", [np.zeros(4), np.zeros(3, np.float32)])
def test_slot_that_does_not_fit(slot):
    with pytest.raises(ValueError, match=r"slots of 'w' must have shape \(3,\) and dtype float64"):
        Plan("momentum", ["w"], [np.zeros(3)], [[slot]], [False])


@pytest.mark.parametrize("spoil", [lambda a: a[::2], lambda a: np.frombuffer(a.tobytes())])
def test_memory_that_cannot_be_updated_in_place(spoil):
    with pytest.raises(ValueError, match="'w0' and its slots must be writable, C-contiguous, aligned"):
        make_plan([spoil(np.zeros(8))], "sgd", 0)


def test_dtype_without_a_kernel():
    with pytest.raises(TypeError, match="dtype must be one of float16, bfloat16, float32, float64, got int64"):
        make_plan([np.zeros(3, np.int64)], "sgd", 0)


@pytest.mark.parametrize(
    ("hypers", "error", "message"),
    [
        ([], ValueError, "hypers must have 1 rows, got 0"),
        ([(0.1,), (0.1,)], ValueError, "hypers must have 1 rows, got 2"),
        ([(0.1, 0.9, 0.9)], ValueError, r"hypers\[0\] must have 2 numbers, got 3"),
        ([("a", "b")], TypeError, "must be real number"),
    ],
)
def test_hypers_that_do_not_fit(hypers, error, message):
    w = np.ones(3)
    with pytest.raises(error, match=message):
        make_plan([w]).step([np.ones(3)], hypers)
    assert w.tolist() == [1, 1, 1]


def test_rows_that_do_not_exist():
    plan = make_plan([np.zeros(3)])
    plan.rows[0] = 1
    with pytest.raises(ValueError, match=r"rows\[0\] must be in \[0, 1\), got 1"):
        plan.step([np.ones(3)], [(0.1, 0.9)])


def test_parameter_outlives_its_array():
    w = np.ones(1000)
    plan = make_plan([w], "sgd", 0)
    view = w[:]
    del w
    plan.step([np.ones(1000)], [(0.25,)])
    assert (view == 0.75).all()


def test_step_inside_a_step_is_refused():
    plan = make_plan([np.ones(4), np.ones(4)], "sgd", 0)
    plan.turn.wait = False

    class Sneaky:
        """A gradient that asks for another step while it is being read."""

        def __array__(self, dtype=None, copy=None):
            errors = []

            def step():
                try:
                    plan.step([np.ones(4), np.ones(4)], [(0.1,)])
                except RuntimeError as error:
                    errors.append(str(error))

            thread = threading.Thread(target=step)
            thread.start()
            thread.join()
            assert errors == ["an optimizer takes one step at a time, but another thread is inside a step of this one"]
            return np.ones(4)

    plan.step([np.ones(4), Sneaky()], [(0.1,)])
    plan.step([np.ones(4), np.ones(4)], [(0.1,)])


def test_no_parameters():
    make_plan([]).step([], [(0.1, 0.9)])


@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 255, 256, 257, 1000, 20_000])
def test_centralized_mean(width):
    """Means over whole output channels, of any width around lanes, batches and chunks."""
    rng = np.random.default_rng(width)
    w = np.zeros((5, width, 1))
    g = rng.standard_normal(w.shape) + 3
    plan = make_plan([w], "sgd", 0, [True])
    plan.decay[:] = 0.1
    plan.step([g], [(1.0,)])
    np.testing.assert_allclose(-w, g - g.mean(axis=(1, 2), keepdims=True), rtol=0, atol=1e-13)


def test_mean_is_exact_where_float32_sums_are_not():
    g = np.full((1, 100_000, 1), 0.1, np.float32)
    g[0, 0, 0] = 1e4
    w = np.zeros_like(g)
    make_plan([w], "sgd", 0, [True]).step([g], [(1.0,)])
    expected = g.astype(np.float64) - g.astype(np.float64).mean()
    np.testing.assert_allclose(-w, expected, rtol=1e-6)


def test_isa_that_is_not_there():
    with pytest.raises(ValueError, match="OPTIMCORE_ISA must name an ISA build"):
        builds.use_isa("avx1024")


def test_aligned_zeros():
    for number in range(4):
        for shape in [(), (0,), (3, 5), (5000,), (100, 100)]:
            for dtype in (np.float32, np.float64):
                array = aligned_zeros(shape, np.dtype(dtype), number)
                assert array.shape == shape and array.dtype == dtype and not array.any()
                assert array.flags.writeable and array.flags.c_contiguous
                assert array.size == 0 or array.__array_interface__["data"][0] % 64 == 0
    places = {aligned_zeros((5000,), np.dtype(np.float32), i).__array_interface__["data"][0] % 4096 for i in range(3)}
    assert len(places) == 3


def test_error_while_gradients_are_opened_releases_them():
    w, g = np.ones(4), [np.ones(4), np.ones(3)]
    plan, reference = make_plan([w, np.ones(4)], "sgd", 0), weakref.ref(g[0])
    with pytest.raises(ValueError, match="must have shape"):
        plan.step(g, [(1.0,)])
    g[:] = np.full(4, 2.0), None
    assert reference() is None
    plan.step(g, [(1.0,)])
    assert w.tolist() == [-1, -1, -1, -1]


def test_rules_on_the_same_slots():
    w, plain = np.ones(3), np.ones(3)
    plan, other = make_plan([w]), make_plan([plain], "momentum_nesterov")
    plan.use_rule("momentum_nesterov")
    plan.step([np.ones(3)], [(0.5, 0.5)])
    other.step([np.ones(3)], [(0.5, 0.5)])
    assert w.tolist() == plain.tolist() and plan.rule_name == "momentum_nesterov"
    plan.use_rule("sgd")
    plan.step([np.ones(3)], [(0.5,)])
    assert w.tolist() == (plain - 0.5).tolist()
    with pytest.raises(ValueError, match="rule must take at most 1 slots here, got 'adam' with 2"):
        plan.use_rule("adam")


def test_numbers_are_booked_with_the_step():
    parameters = [np.ones(3), np.ones(3)]
    plan = make_plan(parameters, "sgd", 0)
    shared, own = np.zeros(2), np.array([7, 8])
    coming, next_own = plan.book(shared), plan.book(own, own=True)
    coming[:], next_own[:] = (1, 2), (9, 10)
    with pytest.raises(ValueError, match="hypers must have 1 rows"):
        plan.step([np.ones(3), None], [])
    assert (shared.tolist(), own.tolist()) == ([0, 0], [7, 8])
    plan.step([np.ones(3), None], [(0.5,)])
    assert (shared.tolist(), own.tolist()) == ([1, 2], [9, 8])


def test_numbers_that_cannot_be_booked():
    plan = make_plan([np.ones(3)], "sgd", 0)
    for live, own in [(np.zeros(4)[::2], False), (np.zeros(2), True)]:
        with pytest.raises(ValueError, match="live must be C-contiguous and writable"):
            plan.book(live, own)


@pytest.mark.parametrize("number", [1e39, np.inf])
def test_hypers_beyond_the_arithmetic_count_as_its_largest_number(number):
    w = np.ones(3, np.float32)
    make_plan([w], "sgd", 0).step([np.array([0, 1, 10], np.float32)], [(number,)])
    assert w.tolist() == [1, -float(np.finfo(np.float32).max), -np.inf]


def test_hypers_that_are_no_numbers():
    w = np.ones(3)
    with pytest.raises(ValueError, match=r"hypers\[0\] of rule 'sgd' must be numbers, got \(nan,\)"):
        make_plan([w], "sgd", 0).step([np.zeros(3)], [(np.nan,)])
    assert w.tolist() == [1, 1, 1]


def test_frozen_parameters_are_left_alone():
    parameters = [np.ones(3), np.ones(3)]
    plan = make_plan(parameters, "sgd", 0)
    plan.frozen[1] = True
    plan.step([np.ones(3), "not even looked at"], [(1.0,)])
    assert [w.tolist() for w in parameters] == [[0, 0, 0], [1, 1, 1]]
    assert plan.measure("norm", [np.ones(3), "nor here"])[1].tolist() == [0, 0]


@pytest.mark.parametrize(
    "export",
    [
        lambda g: pickle.loads(pickle.dumps(g)),  # whose dtype is equal, but another object
        lambda g: g.view(np.matrix)[0],
        lambda g: memoryview(g),
        lambda g: array("d", g),
        lambda g: g.astype(np.longdouble),
        lambda g: np.stack([g, g], axis=1)[:, 0],
    ],
    ids=["unpickled", "matrix", "memoryview", "array", "longdouble", "strided"],
)
def test_gradient_in_any_form(export):
    w, gradient = np.zeros(3), np.array([1.0, 2.0, 3.0])
    if isinstance(exported := export(gradient), np.matrix):
        w = w[None]
    make_plan([w], "sgd", 0).step([exported], [(0.5,)])
    assert w.ravel().tolist() == [-0.5, -1.0, -1.5]


def test_gradients_stay_alive_while_they_are_open():
    w, gradients = np.zeros(3), [np.ones(3), None]
    alive = weakref.ref(gradients[0])

    class Greedy:
        """A gradient that throws the others away while it is read."""

        def __array__(self, dtype=None, copy=None):
            gradients.clear()
            assert alive() is not None
            return np.ones(3)

    gradients[1] = Greedy()
    make_plan([w, np.zeros(3)], "sgd", 0).step(gradients, [(0.5,)])
    assert alive() is None
    assert w.tolist() == [-0.5] * 3


def test_uint16_is_no_bfloat16():
    w = np.ones(3, ml_dtypes.bfloat16)
    plan = make_plan([w], "sgd", 0)
    with pytest.raises(TypeError, match="must be an array of floats, got uint16"):
        plan.step([np.array([1, 2, 16256], np.uint16)], [(1.0,)])
    plan.step([np.ones(3, ml_dtypes.bfloat16)], [(1.0,)])
    assert w.astype(float).tolist() == [0, 0, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_fork_inside_a_step_leaves_a_usable_plan():
    plan = make_plan([np.ones(4), np.ones(4)], "sgd", 0)

    class Forking:
        """A gradient that forks while it is being read, as if another thread were inside the step."""

        def __array__(self, dtype=None, copy=None):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # CPython 3.12 warns of any fork with threads
                child = os.fork()
            if child == 0:
                try:
                    plan.step([np.ones(4), np.ones(4)], [(0.1,)])
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            return np.ones(4)

    plan.step([np.ones(4), Forking()], [(0.1,)])
