"""Torch tensors as parameters, gradients, rows and rates. No door may make a storage impossible to resize."""

import sys
import warnings

import ml_dtypes
import numpy as np
import pytest

import optimcore as nn
from optimcore.kernels import tensors
from optimcore.kernels.arrays import as_floats, as_rows
from optimcore.kernels.tensors import as_writable, tensor_array


@pytest.fixture
def embedding(torch):
    """Return a table and the gradients of an embedding, coalesced and not."""
    layer = torch.nn.Embedding(10, 3, sparse=True)
    layer(torch.tensor([1, 2, 1])).sum().backward()
    return layer.weight, [layer.weight.grad, layer.weight.grad.coalesce()]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_memory_is_shared(torch, dtype, shape):
    tensor = torch.ones(shape, dtype=getattr(torch, dtype), requires_grad=True)
    array = tensor_array(tensor, "x")
    assert (array.dtype.name, array.shape) == (dtype, shape)
    array[...] = 2
    assert array.flags.writeable
    assert (tensor == 2).all()
    assert tensor.untyped_storage().resizable()


def test_strides_are_kept(torch):
    tensor = torch.arange(12.0).reshape(3, 4).T[::2]
    array = as_floats(tensor, "x")
    np.testing.assert_array_equal(array, [[0, 4, 8], [2, 6, 10]])
    assert array.ctypes.data == tensor.data_ptr()


def test_memory_of_old_numpy_becomes_writable():
    """Before 2.1 NumPy takes whatever comes through DLPack for read-only; torch has no read-only tensors."""
    data = np.arange(6.0).reshape(2, 3)
    view = data.T
    view.flags.writeable = False
    again = as_writable(view)
    again[0, 1] = 7
    assert data[1, 0] == 7
    assert (again.shape, again.strides) == (view.shape, view.strides)
    assert as_writable(np.empty((0, 3))).shape == (0, 3)


def bad_tensors(torch):
    """Return tensors whose memory is not that of an array."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates some of these
        return {
            "on meta; pass tensor.cpu": torch.zeros(3, device="meta"),
            "layout torch.sparse_csr; pass tensor.to_dense": torch.zeros(3, 3).to_sparse_csr(),
            "quantized, .*; pass tensor.dequantize": torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.quint8),
            "conjugate bit; pass tensor.resolve_conj": torch.zeros(3, dtype=torch.complex64).conj(),
            "negated view of it; pass tensor.resolve_neg": torch.zeros(3, dtype=torch.complex64).conj().imag,
            "share, got torch.float8_e4m3fn": torch.zeros(3, dtype=torch.float8_e4m3fn),
        }


def test_tensors_that_cannot_be_read(torch):
    calls = {
        "data": nn.Parameter,
        "values": lambda t: nn.RowTensor([0, 1, 2], t, (3,)),
        "gradients": lambda t: nn.global_norm([t]),
    }
    for message, tensor in bad_tensors(torch).items():
        for name, call in calls.items():
            with pytest.raises((TypeError, ValueError), match=f"{name}.* must .*{message}"):
                call(tensor)


def test_freed_storage_is_refused(torch):
    tensor = torch.zeros(3)
    tensor.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="x must have 12 bytes of memory, got a tensor whose storage was resized to 0"):
        tensor_array(tensor, "x")


def test_bfloat16_needs_ml_dtypes(torch, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    for call in (nn.Parameter, lambda t: nn.global_norm([t]), lambda t: nn.RowTensor([0], t, (1,))):
        with pytest.raises(ImportError, match=r"is of bfloat16, for which NumPy needs ml_dtypes.*optimcore\[bf16\]"):
            call(torch.zeros(1, dtype=torch.bfloat16))


def test_nothing_is_imported(monkeypatch):
    """Without torch, nothing is a tensor."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert not tensors.is_tensor(np.ones(3))
    assert "torch" not in sys.modules


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_step_on_tensors(torch, dtype):
    weight = torch.ones(3, dtype=getattr(torch, dtype), requires_grad=True)
    gradient = torch.full((3,), 0.5, dtype=weight.dtype)
    opt = nn.SGD([nn.Parameter(weight, "w")], learning_rate=1.0)
    opt((gradient,))
    assert weight.tolist() == [0.5] * 3
    for tensor in (weight, gradient):
        assert tensor.untyped_storage().resizable()


def test_step_on_tensors_in_lists(torch):
    """A list of tensors is read without asking one for its ``__array__``."""
    parts = [torch.ones(2), torch.ones(2)]
    data = np.zeros((2, 2), np.float32)
    nn.SGD([nn.Parameter(data, "w")], learning_rate=1.0)((parts,))
    np.testing.assert_array_equal(data, -1)
    assert all(t.untyped_storage().resizable() for t in parts)


def test_gradient_of_an_embedding_is_taken_as_it_is(embedding):
    weight, gradients = embedding
    before = weight.detach().clone()
    opt = nn.SGD([nn.Parameter(weight, "table")], learning_rate=1.0)
    for gradient in gradients:
        opt((gradient,))
        assert gradient._values().untyped_storage().resizable()
    moved = (before - weight.detach())[:4, 0].tolist()
    assert moved == pytest.approx([0, 4, 2, 0], abs=1e-6)


def test_gradient_of_an_embedding_has_a_norm(embedding):
    weight, gradients = embedding
    for gradient in gradients:
        assert nn.global_norm([gradient]) == pytest.approx((3 * (2**2 + 1)) ** 0.5)
        assert nn.all_finite((gradient,))
        (clipped,) = nn.clip_by_global_norm([gradient], 1.0)
        assert clipped.dense_shape == (10, 3)
    opt = nn.LazyAdam([nn.Parameter(weight, "table")], weight_decay=0.5)
    (decayed,) = opt.decay_weight((gradients[0],))
    assert decayed.dense_shape == (10, 3)
    np.testing.assert_array_equal(decayed.indices, [1, 2])


def test_values_of_an_embedding_are_not_copied(embedding):
    weight, gradients = embedding
    rows = tensors.tensor_array(gradients[0]._values(), "x")
    indices, values, shape = as_rows(gradients[0], "x", (10, 3))
    assert values.ctypes.data == rows.ctypes.data == gradients[0]._values().data_ptr()
    assert indices.ctypes.data == gradients[0]._indices().data_ptr()
    assert shape == (10, 3)


def test_tensor_that_is_sparse_in_all_dimensions_is_refused(torch):
    gradient = torch.eye(3).to_sparse()
    opt = nn.SGD([nn.Parameter(np.zeros((3, 3), np.float32), "table")])
    for call in (lambda: opt((gradient,)), lambda: nn.global_norm([gradient])):
        with pytest.raises(
            ValueError, match=r"gradients\[0\].* sparse in its first dimension alone.*tensor.to_dense\(\)"
        ):
            call()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_row_tensor_of_tensors(torch, dtype):
    indices, values = torch.tensor([1, 2]), torch.ones(2, 3, dtype=getattr(torch, dtype), requires_grad=True)
    rows = nn.RowTensor(indices, values, torch.Size([10, 3]))
    assert rows.indices.ctypes.data == indices.data_ptr()
    assert rows.values.ctypes.data == values.data_ptr()
    assert rows.dtype.name == dtype
    assert nn.RowTensor(torch.tensor([]), torch.zeros(0, 3), torch.tensor([10, 3])).dense_shape == (10, 3)
    np.testing.assert_array_equal(nn.unique(torch.tensor([3, 1, 3])), [3, 1])
    np.testing.assert_array_equal(nn.merge_rows(torch.tensor([3, 3]), torch.ones(2, 1))[1], [[2]])
    for tensor in (indices, values):
        assert tensor.untyped_storage().resizable()


def test_rates(torch):
    """A scalar is a fixed rate, one dimension holds the rate of every step."""
    w = nn.Parameter(np.zeros(2), "w")
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        rate = torch.tensor(0.5, dtype=dtype)
        assert nn.SGD([w], learning_rate=rate).get_lr() == 0.5
        opt = nn.SGD([w], learning_rate=torch.tensor([0.5, 0.25], dtype=dtype))
        assert opt.dynamic_lr
        opt.global_step = 1
        assert opt.get_lr() == 0.25
        assert rate.untyped_storage().resizable()
    assert nn.SGD([w], learning_rate=[torch.tensor(0.5), 0.25]).get_lr() == 0.5
    assert nn.SGD([{"params": [w], "lr": torch.tensor(0.125)}]).get_lr() == (0.125,)
    with pytest.raises(ValueError, match="learning_rate must have 0 or 1 dimensions, got 2"):
        nn.SGD([w], learning_rate=torch.ones(1, 1))
    with pytest.raises(ValueError, match="learning_rate must be >= 0, got -1"):
        nn.SGD([w], learning_rate=torch.tensor(-1.0))
    with pytest.raises(TypeError, match="learning_rate must be a number, got .*True"):
        nn.SGD([w], learning_rate=torch.tensor(True))


def test_tensors_from_schedules_and_decay(torch):
    class Schedule(nn.LearningRateSchedule):
        def construct(self, global_step):
            return torch.tensor([0.5], requires_grad=True)

    w = np.ones(2)
    opt = nn.SGD([nn.Parameter(w, "w")], Schedule(), weight_decay=lambda step: torch.tensor(0.5))
    assert opt.get_lr() == 0.5
    opt((np.zeros(2),))
    np.testing.assert_array_equal(w, 0.75)
    np.testing.assert_array_equal(nn.WarmUpLR(1.0, 4)(torch.tensor([0, 2])), [0.0, 0.5])


def test_loss_scale_in_a_tensor(torch):
    cell = nn.DynamicLossScaleManager(16).get_update_cell()
    scale = torch.tensor(16.0)
    cell(scale, True)
    assert scale == 8
    assert scale.untyped_storage().resizable()


def test_set_data_takes_a_tensor(torch):
    new = torch.tensor([1.0, 2.0], dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_array_equal(nn.Parameter([0.0, 0.0]).set_data(new), [1, 2])
    assert new.untyped_storage().resizable()
    assert nn.Parameter(new).dtype == ml_dtypes.bfloat16
