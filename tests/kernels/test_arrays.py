"""How the package reads what a caller passes: arrays of every origin, shapes, and what looks like rows."""

import array

import ml_dtypes
import numpy as np
import pytest

from optimcore import SGD, LazyAdam, Parameter, RowTensor, all_finite, clip_by_global_norm, global_norm
from optimcore.kernels.arrays import as_array, as_floats, as_indices, as_rows, as_shape, is_rows, one_number


class Exports:
    """Stand for an array of another library that knows nothing but DLPack."""

    def __init__(self, data):
        self.data = data

    def __dlpack__(self, **kwargs):
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()


class Reads:
    """Stand for an array of another library that knows nothing but ``__array__``."""

    def __init__(self, data):
        self.data = data

    def __array__(self, dtype=None, copy=None):
        return self.data


@pytest.mark.parametrize("wrap", [lambda a: a, memoryview, Exports, Reads, lambda a: array.array("f", a)])
def test_arrays_are_read(wrap):
    data = np.array([1, 2, 3], np.float32)
    read = as_floats(wrap(data), "x")
    assert type(read) is np.ndarray
    np.testing.assert_array_equal(read, data)
    assert np.shares_memory(read, data) or isinstance(wrap(data), array.array)


def test_subclasses_are_read_as_plain_arrays(tmp_path):
    data = np.memmap(tmp_path / "w", np.float32, "w+", shape=(4,))
    assert type(as_array(data, "x")) is np.ndarray
    assert np.shares_memory(as_array(data, "x"), data)


MASKED = np.ma.array([1.0, 99.0], mask=[False, True])


@pytest.mark.parametrize(
    "data", [MASKED, np.ma.array([1.0, 2.0]), [MASKED, [1.0, 2.0]], [1.0, np.ma.masked], ([MASKED],)]
)
def test_masked_arrays_are_refused(data):
    """Also one that an object makes of itself."""
    with pytest.raises(TypeError, match="^x must not be a masked array"):
        as_floats(Reads(data) if isinstance(data, np.ndarray) else data, "x")

    with pytest.raises(TypeError, match=r"^x must not be a masked array.*filled\(0\) or array.compressed\(\)"):
        as_floats(data, "x")


@pytest.mark.parametrize("call", [global_norm, all_finite, lambda g: clip_by_global_norm(g, 1.0)])
def test_masked_gradients_have_no_norm(call):
    with pytest.raises(TypeError, match=r"gradients\[1\] must not be a masked array"):
        call([np.ones(2), MASKED])


@pytest.mark.parametrize("data", [object(), None, "text", [[1.0], [2.0, 3.0]], {1.0}])
def test_other_objects_are_no_floats(data):
    with pytest.raises(TypeError, match="x must be an array of floats, got"):
        as_floats(data, "x")


def test_lack_of_memory_is_not_taken_for_a_wrong_kind():
    class Large:
        def __array__(self, dtype=None, copy=None):
            raise MemoryError

    for call in (lambda x: as_floats(x, "x"), lambda x: as_indices(x, "x"), lambda x: global_norm([x])):
        with pytest.raises(MemoryError):
            call(Large())


@pytest.mark.parametrize("pair", [([1, 2], [[1.0], [2.0]]), (np.array([1, 2]), np.ones((2, 3), np.float32))])
def test_pair_of_indices_and_values_is_explained(pair):
    with pytest.raises(
        TypeError, match=r"x must be .*; pass indices and values as optimcore.RowTensor\(indices, values, "
    ):
        as_floats(pair, "x")


def test_other_lists_of_two_are_not_taken_for_rows():
    with pytest.raises(TypeError) as raised:
        as_floats(([1.0], [2.0, 3.0]), "x")
    assert "RowTensor" not in str(raised.value)


def test_empty_floats_are_no_indices():
    for data in ([], np.array([]), np.zeros((0, 3), np.float32)):
        assert as_indices(data, "x").dtype == np.int64
    with pytest.raises(TypeError, match="x must be integers, got dtype bool"):
        as_indices(np.zeros(0, bool), "x")


def test_shapes():
    assert as_shape([2, np.int64(3)], "s") == as_shape(np.array([2, 3]), "s") == (2, 3)
    for shape in (3, "23", {2, 3}, (2, None), (2, 3.0), np.array([True])):
        with pytest.raises(TypeError, match="s must be a tuple or list of ints, got"):
            as_shape(shape, "s")


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(0.5), np.array(0.5), np.array([[0.5]]), np.array(0.5, ml_dtypes.bfloat16), Reads(np.array(0.5))],
)
def test_one_number(value):
    assert float(one_number(value, "x")) == 0.5


def test_several_numbers_are_not_one():
    numbers = np.ones(2)
    assert one_number(numbers, "x") is numbers
    with pytest.raises(TypeError, match="x must not be a masked array"):
        one_number(np.ma.array(0.5, mask=True), "x")


class Slices:
    """Stand for TensorFlow's IndexedSlices, whose dense_shape is a tensor or None."""

    def __init__(self, indices, values, dense_shape):
        self.indices, self.values, self.dense_shape = indices, values, dense_shape


@pytest.mark.parametrize("shape", [(5, 2), [5, 2], np.array([5, 2]), Reads(np.array([5, 2])), None])
def test_slices_are_rows(shape):
    slices = Slices(Reads(np.array([1, 3, 1])), Reads(np.ones((3, 2), np.float32)), shape)
    assert is_rows(slices)
    indices, values, dense_shape = as_rows(slices, "x", (5, 2))
    np.testing.assert_array_equal(indices, [1, 3, 1])
    assert values.shape == (3, 2)
    assert dense_shape == (5, 2)
    assert global_norm([slices]) == global_norm([RowTensor([1, 3, 1], np.ones((3, 2)), (5, 2))])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1], [[1.0, 2.0]], (6, 2)), ValueError, r"x must have dense_shape \(5, 2\), got \(6, 2\)"),
        (([1], [[1.0, 2.0]], "52"), TypeError, "dense_shape of x must be a tuple or list of ints"),
        (([1.0], [[1.0, 2.0]], None), TypeError, "x must have indices.*: indices must be integers, got dtype float64"),
        (([1], [[1, 2]], None), TypeError, "x must have .*: values must be an array of floats"),
        (
            ([1], [[1.0]], None),
            ValueError,
            r"x must have .*dense_shape \(5, 2\): values must have shape .*\(1, 2\), got \(1, 1\)",
        ),
        (
            ([1, 2], [[1.0, 2.0]], None),
            ValueError,
            "x must have .*: indices and values must have one length, got 2 and 1",
        ),
        ((1, [1.0, 2.0], None), ValueError, r"x must have .*: indices must have one dimension, got shape \(\)"),
    ],
)
def test_rows_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        as_rows(Slices(*arguments), "x", (5, 2))


def test_slices_without_a_shape_cannot_be_clipped():
    slices = Slices([1], np.full((1, 2), 3.0), None)
    with pytest.raises(ValueError, match=r"gradients\[0\] must have a dense_shape, got None"):
        clip_by_global_norm([slices], 1.0)
    slices.dense_shape = [4, 2]
    (clipped,) = clip_by_global_norm([slices], 1.0)
    assert clipped.dense_shape == (4, 2)
    assert global_norm([clipped]) == pytest.approx(1.0)


# ---- in a step


def table_and_step(shape=(5, 2)):
    table = np.zeros(shape, np.float32)
    return table, SGD([Parameter(table, "table")], learning_rate=1.0)


def test_masked_gradient_changes_nothing():
    table, step = table_and_step((2,))
    for gradient in (MASKED, MASKED.astype(np.float32), Slices(np.ma.array([1]), np.ones(1), None)):
        with pytest.raises(TypeError, match=r"gradients\[0\], of parameter 'table', must .*not be a masked array"):
            step((gradient,))
    assert not table.any()


def test_subclasses_are_gradients(tmp_path):
    table, step = table_and_step((4,))
    gradient = np.memmap(tmp_path / "g", np.float32, "w+", shape=(4,))
    gradient[:] = 2
    step((gradient,))
    np.testing.assert_array_equal(table, -2)


@pytest.mark.parametrize("shape", [(5, 2), [5, 2], np.array([5, 2]), None])
def test_slices_in_a_step(shape):
    table, step = table_and_step()
    step((Slices(np.array([1, 3, 1]), np.ones((3, 2), np.float32), shape),))
    step((Slices(np.array([[1], [3]]), np.ones((2, 1, 2), np.float32), shape),))
    step((Slices([], [], shape),))
    np.testing.assert_array_equal(table[:, 0], [0, -3, 0, -2, 0])


@pytest.mark.parametrize("shape", [(5, 2), (5,)])
def test_pair_in_a_step_is_explained(shape):
    table, step = table_and_step(shape)
    pair = (np.array([1, 2]), np.ones((2, *shape[1:]), np.float32))
    with pytest.raises(
        (TypeError, ValueError), match=r"of parameter 'table', must .*optimcore.RowTensor\(indices, val"
    ):
        step((pair,))
    assert not table.any()


def test_list_of_rows_is_not_made_dense():
    """Each would be as large as the table: here 4 TB."""
    rows = RowTensor([1], np.ones((1, 1000)), (10**9, 1000))
    with pytest.raises(TypeError, match=r"gradients\[0\] must not be a list of rows; pass one optimcore.RowTensor"):
        global_norm([[rows, rows]])


def test_empty_batch_in_a_step():
    table = np.ones((5, 2), np.float32)
    opt = LazyAdam([Parameter(table, "table")], learning_rate=1.0)
    opt((RowTensor(np.array([]), np.zeros((0, 2)), table.shape),))
    assert (table == 1).all()


def test_masked_array_is_no_target():
    opt = SGD([Parameter(np.zeros(2), "w")], weight_decay=0.1)
    with pytest.raises(TypeError, match=r"out\[0\], of parameter 'w', must not be a masked array"):
        opt.decay_weight((np.ones(2),), out=[np.ma.array([1.0, 1.0])])
