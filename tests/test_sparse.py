"""RowTensor, unique and merge_rows: what they take, what they refuse, and that they agree with NumPy."""

import sys

import ml_dtypes
import numpy as np
import pytest

import optimcore
from optimcore import RowTensor, merge_rows, sparse, unique


def test_unique_returns_what_is_asked_for():
    """An array alone, or a tuple in NumPy's order."""
    indices = np.array([3, 1, 3, -7], np.int32)
    found = unique(indices)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, [3, 1, -7])
    found, inverse, counts = unique(indices, return_inverse=True, return_counts=True)
    np.testing.assert_array_equal(found[inverse], indices)
    np.testing.assert_array_equal(counts, [2, 1, 1])
    found, counts = unique(indices, return_counts=True)
    np.testing.assert_array_equal(counts, [2, 1, 1])


def test_unique_agrees_with_numpy():
    """Sorted by first appearance, NumPy's result is ours."""
    indices = np.random.default_rng(0).integers(-300, 300, 5000)
    expected, first, counts = np.unique(indices, return_index=True, return_counts=True)
    order = np.argsort(first)
    found, inverse, found_counts = unique(indices, True, True)
    np.testing.assert_array_equal(found, expected[order])
    np.testing.assert_array_equal(found_counts, counts[order])
    np.testing.assert_array_equal(found[inverse], indices)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">i8"])
def test_every_integer_dtype_is_taken(dtype):
    """int32 stays int32, in either byte order; all others become int64."""
    found = unique(np.array([5, 3, 5], dtype))
    assert found.dtype == (np.int32 if dtype.endswith("i4") else np.int64)
    np.testing.assert_array_equal(found, [5, 3])


def test_unsigned_64_bit_indices():
    """Up to the largest int64 they work, beyond they are an error, never a negative index."""
    np.testing.assert_array_equal(unique(np.array([2**63 - 1, 0], np.uint64)), [2**63 - 1, 0])
    with pytest.raises(ValueError, match=f"indices must fit int64, got {2**63}"):
        unique(np.array([2**63, 0], np.uint64))


def test_strided_read_only_and_empty_input():
    """Strided and unaligned arrays are copied once; nothing is written to any input."""
    indices = np.arange(20)[::-3]
    values = np.arange(40.0).reshape(20, 2)[::-3]
    indices.setflags(write=False)
    values.setflags(write=False)
    found, merged = merge_rows(indices, values)
    np.testing.assert_array_equal(found, indices)
    np.testing.assert_array_equal(merged, values)
    unaligned = np.frombuffer(b"x" + np.arange(3).tobytes(), np.uint8)[1:].view(np.int64)
    np.testing.assert_array_equal(unique(unaligned), [0, 1, 2])
    assert unique([]).shape == (0,)
    found, merged = merge_rows([], np.zeros((0, 3)))
    assert found.shape == (0,)
    assert merged.shape == (0, 3)


@pytest.mark.parametrize(
    "call", [unique, lambda x: merge_rows(x, np.zeros((2, 1))), lambda x: RowTensor(x, [0.0], (9,))]
)
@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        (np.array([1.0, 2.0]), TypeError, "indices must be integers, got dtype float64"),
        (np.array([True, False]), TypeError, "indices must be integers, got dtype bool"),
        (["a", "b"], TypeError, "indices must be integers, got dtype <U1"),
        (3, ValueError, r"indices must have one dimension, got shape \(\)"),
        ([[1], [2, 3]], TypeError, "indices must be an array of integers, got list"),
    ],
)
def test_indices_that_are_none(call, indices, error, message):
    """Floats, bools, text and other shapes are refused with their kind."""
    with pytest.raises(error, match=message):
        call(indices)


def test_unique_of_a_batch_of_sequences():
    """The result has one dimension; the message says how to get there."""
    with pytest.raises(ValueError, match=r"one dimension, got shape \(1, 2\); pass indices.reshape\(-1\)"):
        unique(np.array([[1, 2]]))


@pytest.mark.parametrize("flag", ["return_inverse", "return_counts"])
def test_flags_are_bools(flag):
    """1 is not True."""
    with pytest.raises(TypeError, match=f"{flag} must be a bool, got 1"):
        unique(np.arange(3), **{flag: 1})


def test_rows_of_any_shape_are_merged():
    """One and more dimensions behind the first."""
    indices = np.array([4, 2, 4])
    for shape in ((3,), (3, 2), (3, 2, 5), (3, 0), (3, 2, 0)):
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        found, merged = merge_rows(indices, values)
        np.testing.assert_array_equal(found, [4, 2])
        np.testing.assert_array_equal(merged, np.stack([values[0] + values[2], values[1]]))


def test_16_bit_rows_are_summed_in_float32():
    """4096 ones of float16 are 4096; summed in float16 they would stop at 2048."""
    for dtype, count in ((np.float16, 4096), (ml_dtypes.bfloat16, 1000)):
        _, merged = merge_rows(np.zeros(count, np.int64), np.ones((count, 3), dtype))
        assert merged.dtype == np.float32
        np.testing.assert_array_equal(merged, [[count] * 3])


def test_byte_order_of_values():
    """Values in the other byte order are converted."""
    _, merged = merge_rows([1, 1], np.array([[1.0], [2.0]], ">f8"))
    np.testing.assert_array_equal(merged, [[3.0]])


@pytest.mark.parametrize(
    ("indices", "values", "error", "message"),
    [
        ([1, 2], np.zeros((3, 1)), ValueError, "indices and values must have one length, got 2 and 3"),
        ([1, 2], np.zeros((2, 1), int), TypeError, "values must be an array of floats, got int64"),
        ([1, 2], np.zeros((2, 1), complex), TypeError, "values must be an array of floats, got complex128"),
        ([1], np.float32(1), ValueError, r"values must have at least one dimension, got shape \(\)"),
        ([1, -2], np.zeros((2, 1)), ValueError, "indices must be >= 0, got -2"),
    ],
)
def test_rows_that_cannot_be_merged(indices, values, error, message):
    """Lengths, dtypes and negative indices."""
    with pytest.raises(error, match=message):
        merge_rows(np.array(indices), values)


@pytest.mark.skipif(np.finfo(np.longdouble).bits == 64, reason="long double is double here")
def test_long_double_is_refused():
    """There is no kernel for it."""
    with pytest.raises(TypeError, match="dtype of values must be one of"):
        merge_rows([1], np.zeros((1, 1), np.longdouble))


def test_memory_for_the_next_call_is_bounded():
    """The workspace of a short call is kept, that of a long one is not."""
    unique(np.arange(100)[::-1])
    assert [w.nbytes <= sparse.SPARE_BYTES for w in sparse._spare] == [True]
    unique(np.arange(10**6)[::-1] << 20)
    assert sum(w.nbytes for w in sparse._spare) <= sparse.SPARE_BYTES


class TestRowTensor:
    """What it holds and what it refuses."""

    def test_holds_its_arrays(self):
        """Indices and values are shared, not copied."""
        indices, values = np.array([3, 1], np.int32), np.ones((2, 4, 5), np.float32)
        rows = RowTensor(indices, values, [10, 4, 5])
        assert rows.indices is indices
        assert rows.values is values
        assert rows.dense_shape == (10, 4, 5)
        assert rows.dtype == np.float32
        assert repr(rows) == "RowTensor(2 rows of shape (10, 4, 5), dtype float32)"

    def test_reads_only(self):
        """A gradient is checked once; nothing can be exchanged afterwards."""
        rows = RowTensor([0], [1.0], (1,))
        for name in ("indices", "values", "dense_shape", "other"):
            with pytest.raises(AttributeError):
                setattr(rows, name, None)

    def test_no_rows(self):
        """A batch without any row is a gradient, also of a table without rows."""
        assert RowTensor([], np.zeros((0, 4)), (10, 4)).indices.dtype == np.int64
        assert RowTensor([], np.zeros((0, 4)), (0, 4)).values.shape == (0, 4)

    @pytest.mark.parametrize("indices", [[], np.array([]), np.zeros(0, np.float32), np.zeros((0, 5)), np.zeros(0, int)])
    @pytest.mark.parametrize("values", [[], np.array([]), np.zeros((0, 4), np.float32)])
    def test_empty_batch(self, indices, values):
        """NumPy reads an empty list as floats of shape (0,)."""
        if np.ndim(indices) == 2 and np.ndim(values) == 2:
            values = values.reshape(0, 5, 4)
        rows = RowTensor(indices, values, (10, 4))
        assert rows.indices.shape == (0,)
        assert rows.indices.dtype == np.int64
        assert rows.values.shape == (0, 4)

    def test_batch_of_sequences_is_flattened(self):
        """Indices of shape (batch, time) are what an embedding layer was called with."""
        indices, values = np.array([[3, 1], [3, 0]]), np.arange(16, dtype=np.float32).reshape(2, 2, 4)
        rows = RowTensor(indices, values, (10, 4))
        np.testing.assert_array_equal(rows.indices, [3, 1, 3, 0])
        np.testing.assert_array_equal(rows.values, values.reshape(4, 4))
        assert np.shares_memory(rows.values, values)
        found, merged = merge_rows(indices, values)
        np.testing.assert_array_equal(found, [3, 1, 0])
        np.testing.assert_array_equal(merged[0], values[0, 0] + values[1, 0])

    @pytest.mark.parametrize(
        "shape", [[10, 4], np.array([10, 4]), (np.int32(10), np.int64(4)), np.array([10, 4], "u2")]
    )
    def test_shapes_of_every_kind(self, shape):
        """The shape becomes a tuple of Python's ints."""
        dense_shape = RowTensor([1], np.zeros((1, 4)), shape).dense_shape
        assert dense_shape == (10, 4)
        assert [type(n) for n in dense_shape] == [int, int]

    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
    def test_dense_array(self, dtype):
        """NumPy reads it as the array that it stands for, in which equal rows are summed."""
        rows = RowTensor([3, 1, 3], np.array([[1, 2], [3, 4], [10, 20]], dtype), (5, 2))
        dense = np.asarray(rows)
        assert dense.dtype == dtype
        np.testing.assert_array_equal(dense.astype(np.float32), [[0, 0], [3, 4], [0, 0], [11, 22], [0, 0]])
        assert np.asarray(rows, np.float64).dtype == np.float64
        assert np.array(rows).shape == rows.__array__(copy=True).shape == (5, 2)
        with pytest.raises(ValueError, match="copy must not be False"):
            rows.__array__(copy=False)

    def test_masked_arrays_are_refused(self):
        """What a mask hides would become data."""
        masked, values = np.ma.array([1, 2], mask=[0, 1]), np.zeros((2, 4))
        for indices, rows in [(masked, values), (np.array([1, 2]), np.ma.array(values)), ([1, np.ma.masked], values)]:
            with pytest.raises(TypeError, match="must not be a masked array"):
                RowTensor(indices, rows, (10, 4))
            with pytest.raises(TypeError, match="must not be a masked array"):
                merge_rows(indices, rows)
        with pytest.raises(TypeError, match="indices must not be a masked array"):
            unique(masked)

    @pytest.mark.parametrize(
        ("indices", "values", "shape", "error", "message"),
        [
            ([0, 10], np.zeros((2, 4)), (10, 4), IndexError, r"indices must be in \[0, 10\), got 10"),
            ([0, -1], np.zeros((2, 4)), (10, 4), IndexError, r"indices must be in \[0, 10\), got -1"),
            ([0], np.zeros((1, 4)), (0, 4), IndexError, r"indices must be in \[0, 0\), got 0"),
            ([0, 1], np.zeros((2, 5)), (10, 4), ValueError, r"values must have shape .*\(2, 4\), got \(2, 5\)"),
            ([0, 1], np.zeros(2), (10, 4), ValueError, r"values must have shape .*\(2, 4\), got \(2,\)"),
            ([0, 1], np.zeros((3, 4)), (10, 4), ValueError, "must have one length, got 2 and 3"),
            ([0, 1], np.zeros((2, 4), int), (10, 4), TypeError, "values must be an array of floats, got int64"),
            ([0, 1], np.zeros((2, 4)), (), ValueError, r"dense_shape must have at least one dimension.*got \(\)"),
            ([0, 1], np.zeros((2, 4)), (10, -4), ValueError, r"dense_shape must have .* none below 0, got \(10, -4\)"),
            ([0, 1], np.zeros((2, 4)), (10.0, 4), TypeError, "dense_shape must be a tuple or list of ints"),
            ([0, 1], np.zeros((2, 4)), (True, 4), TypeError, "dense_shape must be a tuple or list of ints"),
            ([0, 1], np.zeros((2, 4)), 10, TypeError, "dense_shape must be a tuple or list of ints, got 10"),
            ([0, 1], np.zeros((2, 4)), "10", TypeError, "dense_shape must be a tuple or list of ints, got '10'"),
            ([0, 1], np.zeros((2, 4)), np.array([10.0, 4]), TypeError, "dense_shape must be a tuple or list of ints"),
            ([0, 1], np.zeros((2, 4)), np.array([[10, 4]]), TypeError, "dense_shape must be a tuple or list of ints"),
            ([[0, 1]], np.zeros((1, 3, 4)), (10, 4), ValueError, r"\*indices.shape.*\(1, 2, 4\), got \(1, 3, 4\)"),
            ([[0, 1]], np.zeros((2, 4)), (10, 4), ValueError, r"\*indices.shape.*\(1, 2, 4\), got \(2, 4\)"),
            ([], np.zeros((0, 5)), (10, 4), ValueError, r"values must have shape .*\(0, 4\), got \(0, 5\)"),
        ],
    )
    def test_refuses(self, indices, values, shape, error, message):
        """Every argument that does not fit is named with its rule."""
        with pytest.raises(error, match=message):
            RowTensor(np.array(indices), values, shape)


def test_names_are_public():
    """All three come from the package itself, and `optimcore.unique` is the function, not the kernel module."""
    assert optimcore.unique is unique
    assert sys.modules["optimcore.kernels.unique"] is not unique
    assert {"RowTensor", "merge_rows", "unique"} <= set(optimcore.__all__)
