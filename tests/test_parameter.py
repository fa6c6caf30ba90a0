"""Tests of Parameter and ParameterTuple."""

import array
import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

from optimcore import Parameter, ParameterTuple
from optimcore.parameter import requires_grad_changes

FLOATS = ["float16", "float32", "float64"]


class Exporter:
    """Stand for an array of another library, which exports as DLPack did before it knew a read-only flag."""

    def __init__(self, data):
        self.data = data

    def __dlpack__(self, **kwargs):
        return self.data.__dlpack__()

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()

    def __array__(self, dtype=None, copy=None):
        return self.data


class Refusing:
    """Stand for a torch tensor that requires a gradient."""

    requires_grad = True

    def __dlpack__(self, **kwargs):
        raise BufferError("Can't export tensors that require gradient")

    def __dlpack_device__(self):
        return (1, 0)


# ---- memory


@pytest.mark.parametrize("dtype", FLOATS)
def test_array_is_shared(dtype):
    data = np.ones((2, 3), dtype)
    p = Parameter(data, name="w")
    assert np.shares_memory(p.data, data)
    assert (p.dtype, p.shape, p.size, p.ndim) == (data.dtype, (2, 3), 6, 2)
    data[0, 0] = 5
    assert p.asnumpy()[0, 0] == 5


def test_bfloat16_array_is_shared():
    data = np.ones(3, ml_dtypes.bfloat16)
    p = Parameter(data)
    assert p.data is data
    p.set_data(np.array([1.5, 2.0, 2.5], np.float32))
    np.testing.assert_array_equal(data.astype(np.float32), [1.5, 2.0, 2.5])


@pytest.mark.parametrize(
    ("data", "expected"),
    [(0.5, 0.5), (2, 2), (np.float64(0.5), 0.5), ([1, 2.5], [1, 2.5]), (((1,), (2,)), [[1], [2]])],
)
def test_numbers_become_a_new_float32_array(data, expected):
    p = Parameter(data)
    assert p.dtype == np.float32
    np.testing.assert_array_equal(p.data, expected)


def test_parameter_of_a_parameter_shares_memory():
    p = Parameter([1.0, 2.0], name="w")
    assert Parameter(p, name="again").data is p.data


def test_memmap_is_shared(tmp_path):
    data = np.memmap(tmp_path / "w", np.float32, "w+", shape=(4,))
    Parameter(data).set_data(np.arange(4.0))
    np.testing.assert_array_equal(data, [0, 1, 2, 3])


@pytest.mark.parametrize("data", [array.array("f", [1, 2]), memoryview(np.ones(2))])
def test_buffer_is_shared(data):
    Parameter(data).set_data([3.0, 4.0])
    assert list(data) == [3.0, 4.0]


def test_dlpack_memory_is_shared():
    data = np.ones(3, np.float32)
    p = Parameter(Exporter(data))
    p -= 1
    np.testing.assert_array_equal(data, 0)


def test_read_only_dlpack_memory_is_refused():
    class ReadOnly(Exporter):
        def __array__(self, dtype=None, copy=None):
            view = self.data.view()
            view.flags.writeable = False
            return view

    with pytest.raises(ValueError, match="data must be writable"):
        Parameter(ReadOnly(np.ones(3, np.float32)))


def test_copy_beside_dlpack_memory_is_not_taken():
    """An __array__ that copies must not be trained instead of the memory of the caller."""

    class Copying(Exporter):
        def __array__(self, dtype=None, copy=None):
            return self.data.copy()

    with pytest.raises(ValueError, match="data must be writable"):
        Parameter(Copying(np.ones(3, np.float32)))


def test_refused_dlpack_export_is_explained():
    with pytest.raises(ValueError, match=r"(?s)data must export CPU memory.*gradient.*tensor\.detach\(\)"):
        Parameter(Refusing())


def read_only():
    data = np.ones(4, np.float32)
    data.flags.writeable = False
    return data


UNFIT = {
    "writable": read_only(),
    "C-contiguous": np.ones(8, np.float32)[::2],
    "aligned": np.zeros(9, np.uint8)[1:].view(np.float32),
    "in native byte order": np.ones(4, np.dtype(np.float32).newbyteorder()),
}


@pytest.mark.parametrize("rule", UNFIT)
def test_memory_that_a_step_cannot_write_is_refused(rule):
    with pytest.raises(ValueError, match=f"data must be {rule}, .*numpy.array"):
        Parameter(UNFIT[rule])


def test_fortran_order_is_refused():
    with pytest.raises(ValueError, match="data must be C-contiguous"):
        Parameter(np.ones((2, 3), np.float32, order="F"))


@pytest.mark.parametrize("dtype", ["int32", "complex64", "bool", "longdouble", "O"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match="data must be of dtype float16, bfloat16, float32, float64, got"):
        Parameter(np.ones(2, dtype))


@pytest.mark.parametrize("data", [True, 1j, "1.0", ["1.0"], [True], [None], b"ab", np.bool_(1)])
def test_other_numbers_are_refused(data):
    with pytest.raises(TypeError, match="data must hold real numbers, got dtype"):
        Parameter(data)


@pytest.mark.parametrize("data", [None, {1.0}, object(), iter([1.0])])
def test_other_objects_are_refused(data):
    with pytest.raises(TypeError, match="data must be an ndarray, a Parameter, numbers, or an object with"):
        Parameter(data)


# ---- attributes


def test_defaults():
    p = Parameter([1.0])
    assert (p.name, p.requires_grad, p.unique) == (None, True, False)


def test_attributes_can_be_set():
    p = Parameter([1.0], name="w", requires_grad=False)
    assert not p.requires_grad
    p.name, p.requires_grad, p.unique = "v", True, True
    assert (p.name, p.requires_grad, p.unique) == ("v", True, True)


@pytest.mark.parametrize(
    ("attribute", "value", "error", "message"),
    [
        ("name", 3, TypeError, "name must be a str or None, got 3"),
        ("name", "", ValueError, "name must not be empty, got ''"),
        ("requires_grad", 1, TypeError, "requires_grad must be a bool, got 1"),
        ("unique", None, TypeError, "unique must be a bool, got None"),
    ],
)
def test_attributes_are_checked(attribute, value, error, message):
    p = Parameter([1.0], name="w")
    with pytest.raises(error, match=message):
        setattr(p, attribute, value)


@pytest.mark.parametrize("attribute", ["data", "shape", "dtype"])
def test_memory_cannot_be_exchanged(attribute):
    with pytest.raises(AttributeError):
        setattr(Parameter([1.0]), attribute, None)


def test_data_is_written_by_set_data():
    with pytest.raises(AttributeError, match=r"data cannot be exchanged; write new values into it by set_data"):
        Parameter([1.0]).data = np.ones(1)


def test_changes_of_requires_grad_are_counted():
    """Optimizers look at one number to learn that something was frozen."""
    p = Parameter([1.0], requires_grad=False)
    before = requires_grad_changes[0]
    p.requires_grad = False
    Parameter([1.0])
    assert requires_grad_changes[0] == before
    p.requires_grad = True
    assert requires_grad_changes[0] == before + 1


@pytest.mark.parametrize("data", [np.ma.array([1.0, 2.0], mask=[0, 1]), [np.ma.array([1.0])], [1.0, np.ma.masked]])
def test_masked_arrays_are_refused(data):
    with pytest.raises(TypeError, match="data must not be a masked array"):
        Parameter(data)
    with pytest.raises(TypeError, match="data must not be a masked array"):
        Parameter([0.0, 0.0]).set_data(data)


def test_masked_arrays_are_not_written():
    p, masked = Parameter([1.0, 2.0], "w"), np.ma.array([1.0, 99.0], mask=[False, True])
    with pytest.raises(TypeError, match="what is written into a Parameter must not be a masked array"):
        p -= masked
    with pytest.raises(TypeError, match="what is written into a Parameter must not be a masked array"):
        p[:] = masked
    np.testing.assert_array_equal(p, [1, 2])
    assert (p * masked).mask.tolist() == [False, True]


# ---- memory of other libraries


def test_what_was_given_is_kept():
    data, buffer = np.ones(2), bytearray(8)
    assert Parameter(data)._source is data
    assert Parameter(Parameter(data))._source is data
    assert Parameter(np.frombuffer(buffer, np.float32))._is_foreign is False
    p = Parameter(memoryview(buffer).cast("f"))
    assert p._is_foreign is False
    with pytest.raises(BufferError):
        buffer.extend(b"more")


class Moving(Exporter):
    """Stand for an array of another library that can get other memory."""

    def __dlpack__(self, **kwargs):
        return self.data.__dlpack__(**kwargs)


def test_dlpack_memory_is_followed():
    source = Moving(np.ones(3, np.float32))
    p = Parameter(source, "w")
    assert p._is_foreign
    assert p._look() is False
    source.data = np.zeros(3, np.float32)
    assert p._look() is True
    assert p._look() is False
    p += 1
    np.testing.assert_array_equal(source.data, 1)


@pytest.mark.parametrize("other", [np.ones(4, np.float32), np.ones(3), np.ones(6, np.float32)[::2], read_only()[:3]])
def test_dlpack_memory_of_another_kind_is_not_followed(other):
    source = Moving(np.ones(3, np.float32))
    p = Parameter(source, "w")
    old, source.data = p.data, other
    for look in (p._look, lambda: p.data, lambda: p.set_data([0.0] * 3), lambda: np.asarray(p)):
        with pytest.raises(
            ValueError, match=r"parameter 'w' must keep its shape \(3,\) and dtype float32.*Moving has cha"
        ):
            look()
    assert p._data is old


def test_exports_that_copy_are_refused():
    class Copying(Exporter):
        def __dlpack__(self, **kwargs):
            return self.data.copy().__dlpack__(**kwargs)

        def __array__(self, dtype=None, copy=None):
            return self.data.copy()

    with pytest.raises(ValueError, match="data must (share its memory|be writable)"):
        Parameter(Copying(np.ones(3, np.float32)))


def layer_of(torch):
    return torch.nn.Linear(2, 1, bias=False)


# what leaves a layer with memory of the same kind elsewhere, and what with another kind
MOVES = {
    "data": lambda torch, m: setattr(m.weight, "data", torch.zeros(1, 2)),
    "vector": lambda torch, m: torch.nn.utils.vector_to_parameters(torch.zeros(2), m.parameters()),
    "there and back": lambda torch, m: m.double().float(),
    "swap": lambda torch, m: torch.utils.swap_tensors(m.weight, torch.nn.Parameter(torch.zeros(1, 2))),
    "grown storage": lambda torch, m: m.weight.untyped_storage().resize_(1 << 20),
}
CHANGES = {
    "double": lambda torch, m: m.double(),
    "other shape": lambda torch, m: setattr(m.weight, "data", torch.zeros(1, 5)),
    "strides": lambda torch, m: setattr(m.weight, "data", torch.zeros(1, 4)[:, ::2]),
    "freed": lambda torch, m: m.weight.untyped_storage().resize_(0),
    "cut": lambda torch, m: m.weight.untyped_storage().resize_(4),
}


@pytest.mark.parametrize("move", MOVES)
def test_tensor_that_moves_is_followed(torch, move):
    layer = layer_of(torch)
    p = Parameter(layer.weight, "w")
    assert p._look() is False
    MOVES[move](torch, layer)
    assert p._look() is True
    assert p.data.ctypes.data == layer.weight.data_ptr()
    assert p._look() is False
    p.set_data([[3, 4]])
    assert layer.weight.tolist() == [[3, 4]]
    assert layer.weight.untyped_storage().resizable()


@pytest.mark.parametrize("change", CHANGES)
def test_tensor_of_another_kind_is_an_error(torch, change):
    layer = layer_of(torch)
    p = Parameter(layer.weight, "w")
    old = p.data
    CHANGES[change](torch, layer)
    for look in (p._look, lambda: p.data, lambda: p.set_data([[1, 2]]), lambda: np.asarray(p), lambda: p[0]):
        with pytest.raises(ValueError, match=r"parameter 'w' must keep its shape \(1, 2\) and dtype float32"):
            look()
    assert p._data is old
    assert repr(p) == "Parameter(name='w', shape=(1, 2), dtype=float32)"


@pytest.mark.parametrize("alias", [lambda w: w.detach(), lambda w: w.data, lambda w: w.detach().numpy()])
@pytest.mark.parametrize("move", ["data", "vector", "there and back"])
def test_layer_that_leaves_an_alias_behind_is_an_error(torch, alias, move):
    """The alias cannot be asked where the weight is, but nothing else shares its storage any more."""
    layer = layer_of(torch)
    p = Parameter(alias(layer.weight), "w")
    assert p._look() is False
    pinned = p.data  # as the plan of an optimizer does
    MOVES[move](torch, layer)
    with pytest.raises(
        ValueError, match=r"memory of parameter 'w' must be that of the model.*Parameter\(layer.weight\)"
    ):
        p._look()
    assert pinned is p._data


def test_aliases_without_others_are_no_reason_to_complain(torch):
    """Nobody shared them, or somebody still has the tensor that was given."""
    for given in (torch.zeros(3), torch.zeros(6)[:3], torch.zeros(3).bfloat16(), torch.zeros(3).numpy()):
        p = Parameter(given)
        del given
        p._look()
    given = torch.zeros(3)
    for alias in (given.detach(), given.view(-1)):
        p = Parameter(given)
        del alias
        p._look()
    parameter = torch.nn.Parameter(torch.zeros(3))
    p = Parameter(parameter)
    alias = parameter.detach()
    del parameter, alias
    p._look()


def test_copies_of_foreign_parameters(torch):
    weight = torch.ones(3, requires_grad=True)
    p = Parameter(weight, "w")
    for other in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert other._is_foreign is False
        other += 1
        assert weight.tolist() == [1, 1, 1]
    same = copy.copy(p)
    weight.data = torch.zeros(3)
    for q in (p, same, Parameter(p)):
        assert q.data.ctypes.data == weight.data_ptr()


def test_subclass_of_a_tensor_that_requires_a_gradient_is_taken(torch):
    weight = torch.nn.Parameter(torch.ones(2))
    Parameter(weight).set_data([3, 4])
    assert weight.tolist() == [3, 4]


# ---- set_data


@pytest.mark.parametrize("dtype", [*FLOATS, "int64"])
def test_set_data_writes_in_place_and_casts(dtype):
    data = np.zeros(2, np.float32)
    p = Parameter(data)
    assert p.set_data(np.array([1, 2], dtype)) is p
    np.testing.assert_array_equal(data, [1, 2])
    assert p.dtype == np.float32


def test_set_data_takes_a_parameter_and_a_number():
    p = Parameter(1.0)
    assert p.set_data(Parameter(2.0)).data == 2
    assert p.set_data(3).data == 3


@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        ([1.0], ValueError, r"data must have shape \(2,\), got \(1,\)"),
        (1.0, ValueError, r"data must have shape \(2,\), got \(\)"),
        ([1j, 1j], TypeError, "data must hold real numbers, got dtype complex128"),
        (["1", "2"], TypeError, "data must hold real numbers"),
        ([True, False], TypeError, "data must hold real numbers, got dtype bool"),
    ],
)
def test_set_data_is_checked(new, error, message):
    p = Parameter([5.0, 6.0])
    with pytest.raises(error, match=message):
        p.set_data(new)
    np.testing.assert_array_equal(p, [5, 6])


# ---- NumPy


def test_asarray_does_not_copy():
    p = Parameter([1.0, 2.0])
    assert np.asarray(p) is p.data
    assert np.shares_memory(np.asarray(p, dtype=np.float32), p.data)


def test_array_copies():
    p = Parameter([1.0, 2.0])
    assert not np.shares_memory(np.array(p), p.data)
    assert np.asarray(p, np.float64).dtype == np.float64


def test_array_protocol():
    p = Parameter([1.0, 2.0])
    assert p.__array__(copy=False) is p.data
    assert not np.shares_memory(p.__array__(copy=True), p.data)
    with pytest.raises(ValueError, match="dtype must be float32 when copy=False, got float64"):
        p.__array__(np.float64, copy=False)


def test_operators_return_arrays():
    p, q = Parameter([1.0, 2.0]), Parameter([3.0, 5.0])
    for result, expected in [
        (p + q, [4, 7]),
        (2 * p, [2, 4]),
        (np.ones(2, np.float32) - p, [0, -1]),
        (p == q, [False, False]),
        (-p, [-1, -2]),
        (np.sqrt(q - 1), [np.sqrt(2), 2]),
        (np.maximum(p, q), [3, 5]),
    ]:
        assert type(result) is np.ndarray
        np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert np.sum(p) == np.add.reduce(p) == 3
    assert p @ q == 13


def test_in_place_operators_write_and_keep_the_parameter():
    data = np.ones(2, np.float32)
    p = same = Parameter(data)
    p -= 0.5
    p *= Parameter([2.0, 4.0])
    assert p is same
    np.testing.assert_array_equal(data, [1, 2])


def test_out_writes_and_returns_the_parameter():
    p, q = Parameter([1.5, 2.0]), Parameter([0.0, 0.0])
    assert np.add(p, p, out=q) is q
    np.testing.assert_array_equal(q, [3, 4])
    fraction, whole = np.modf(p, out=(None, q))
    assert whole is q
    np.testing.assert_array_equal(fraction, [0.5, 0])


def test_items():
    p = Parameter([1.0, 2.0])
    p[0] = Parameter(5.0)
    assert len(p) == 2
    assert list(p) == [5, 2]
    assert np.shares_memory(p[1:], p.data)


def test_scalars():
    p = Parameter(2.5)
    assert (float(p), int(p), bool(p)) == (2.5, 2, True)
    with pytest.raises(ValueError):
        float(Parameter([1.0, 2.0]))


def test_hash_goes_by_identity():
    p, q = Parameter([1.0, 2.0]), Parameter([1.0, 2.0])
    assert {p: "p", q: "q"}[p] == "p"


def test_repr():
    assert repr(Parameter([1.0], "w")) == "Parameter(name='w', shape=(1,), dtype=float32)"


def test_dlpack_export_shares_memory():
    p = Parameter([1.0, 2.0])
    assert np.shares_memory(np.from_dlpack(p), p.data)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_deep_copies_own_their_memory(duplicate):
    p = Parameter([1.0, 2.0], name="w", requires_grad=False)
    other = duplicate(p)
    assert (other.name, other.requires_grad, other.dtype) == ("w", False, p.dtype)
    other += 1
    np.testing.assert_array_equal(p, [1, 2])
    np.testing.assert_array_equal(other, [2, 3])


# ---- ParameterTuple


def test_tuple_keeps_the_objects():
    a, b = Parameter([1.0], "a"), Parameter([1.0], "b")
    pair = ParameterTuple(p for p in (a, b))
    assert isinstance(pair, tuple)
    assert pair[0] is a
    assert pair[1] is b


@pytest.mark.parametrize("element", [np.ones(2), None, {"params": []}])
def test_tuple_checks_elements(element):
    with pytest.raises(TypeError, match=r"parameters\[1\] must be a Parameter, got"):
        ParameterTuple([Parameter([1.0], "a"), element])


def test_tuple_checks_names():
    a = Parameter([1.0], "a")
    for other in (Parameter([1.0], "a"), a):
        with pytest.raises(ValueError, match="names of parameters must differ, got 'a' twice"):
            ParameterTuple([a, other])


def test_tuple_refuses_an_unnamed_parameter_that_comes_twice():
    unnamed = Parameter([1.0])
    with pytest.raises(ValueError, match="must differ, got the same unnamed parameter twice"):
        ParameterTuple([unnamed, unnamed])
    assert unnamed.name is None


def test_tuple_names_the_unnamed_ones():
    parameters = [Parameter([1.0], name) for name in (None, "parameter_2", None, None)]
    names = [p.name for p in ParameterTuple(parameters)]
    assert names == ["parameter_0", "parameter_2", "parameter_3", "parameter_4"]


def test_failing_tuple_names_nothing():
    unnamed = Parameter([1.0])
    with pytest.raises(ValueError, match="names"):
        ParameterTuple([unnamed, Parameter([1.0], "a"), Parameter([1.0], "a")])
    assert unnamed.name is None


@pytest.mark.parametrize(
    ("init", "expected"),
    [("same", [1, 2]), ("zeros", [0, 0]), ("ones", [1, 1]), (0.5, [0.5, 0.5]), (np.int32(3), [3, 3])],
)
def test_clone(init, expected):
    source = ParameterTuple([Parameter(np.array([1.0, 2.0]), "w", requires_grad=False)])
    (p,) = source.clone("moments.1", init)
    assert (p.name, p.dtype, p.requires_grad) == ("moments.1.w", np.float64, False)
    assert not np.shares_memory(p.data, source[0].data)
    np.testing.assert_array_equal(p, expected)


def test_clone_in_the_compute_dtype():
    source = ParameterTuple(Parameter(np.ones(2, dtype), dtype) for dtype in FLOATS)
    same = [p.dtype.name for p in source.clone("m")]
    compute = [p.dtype.name for p in source.clone("m", "zeros", dtype="compute")]
    assert same == FLOATS
    assert compute == ["float32", "float32", "float64"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prefix": 1}, TypeError, "prefix must be a str, got 1"),
        ({"prefix": ""}, ValueError, "prefix must consist of"),
        ({"prefix": ".m"}, ValueError, "prefix must consist of"),
        ({"prefix": "m-1"}, ValueError, "prefix must consist of"),
        ({"prefix": "m\n"}, ValueError, "prefix must consist of"),
        ({"init": "twos"}, ValueError, "init must be 'same', 'zeros', 'ones' or a number, got 'twos'"),
        ({"init": True}, TypeError, "init must be 'same', 'zeros', 'ones' or a number, got True"),
        ({"init": None}, TypeError, "init must be"),
        ({"dtype": "float32"}, ValueError, "dtype must be 'same' or 'compute', got 'float32'"),
    ],
)
def test_clone_is_checked(arguments, error, message):
    source = ParameterTuple([Parameter([1.0], "w")])
    with pytest.raises(error, match=message):
        source.clone(**{"prefix": "m", **arguments})
