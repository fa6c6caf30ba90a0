"""Arrays over the memory of torch tensors.

torch is never imported here: a tensor exists only where somebody else has imported it. ``tensor.numpy()`` and
``tensor.__array__()`` are never called: they make the tensor's storage impossible to resize, for good.
"""

import sys

import numpy as np


def is_tensor(data):
    """Tell whether `data` is a torch tensor."""
    kind = getattr(sys.modules.get("torch"), "Tensor", None)
    return kind is not None and isinstance(data, kind)


def is_sparse_coo(data):
    """Tell whether `data` is a torch tensor of the layout that gradients of sparse embeddings have."""
    return is_tensor(data) and data.layout is sys.modules["torch"].sparse_coo


def tensor_array(tensor, name):
    """Return an ndarray over the memory of a dense torch tensor, which may require a gradient.

    The array keeps the block of memory that the tensor has now, also when the tensor gets another one, but not when
    its storage is resized.

    Raises
    ------
    TypeError, ValueError
        If NumPy cannot share the memory; the message says what to pass instead.
    ImportError
        If the tensor is of bfloat16 and ``ml_dtypes`` is not there.
    """
    torch = sys.modules["torch"]
    is_bfloat16 = tensor.dtype is torch.bfloat16
    number_type = _bfloat16(name) if is_bfloat16 else None
    try:
        if tensor.is_neg() or tensor.untyped_storage().nbytes() < _needed_bytes(tensor):
            raise BufferError("its memory is not that of an array")
        # an alias of its own: `tensor.data = other` then leaves the memory of the array alone
        alias = tensor.detach()
        array = np.from_dlpack(alias.view(torch.int16) if is_bfloat16 else alias)  # NumPy's DLPack has no bfloat16
    except (BufferError, RuntimeError, TypeError) as error:
        _explain(tensor, name)
        raise TypeError(f"{name} must be a tensor that NumPy can share, got {tensor.dtype}: {error}") from error
    if not array.flags.writeable:
        array = as_writable(array)
    return array.view(number_type) if is_bfloat16 else array


def _explain(tensor, name):
    """Raise an error that says what to pass instead, if it is known why the memory is not that of an array."""
    torch = sys.modules["torch"]
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be dense, got a tensor of layout {tensor.layout}; pass tensor.to_dense()")
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} must be in CPU memory, got a tensor on {tensor.device}; pass tensor.cpu()")
    if tensor.is_quantized:
        raise TypeError(f"{name} must not be quantized, got a tensor of {tensor.dtype}; pass tensor.dequantize()")
    if tensor.is_conj():
        raise TypeError(f"{name} must be real, got a tensor with the conjugate bit; pass tensor.resolve_conj().real")
    if tensor.is_neg():
        raise ValueError(f"{name} must be memory as it is, got a negated view of it; pass tensor.resolve_neg()")
    if tensor.untyped_storage().nbytes() < _needed_bytes(tensor):
        raise ValueError(
            f"{name} must have {_needed_bytes(tensor)} bytes of memory, got a tensor whose storage was resized to "
            f"{tensor.untyped_storage().nbytes()} bytes"
        )


def _bfloat16(name):
    try:
        from ml_dtypes import bfloat16  # optional: most processes meet no bfloat16
    except ImportError as error:
        raise ImportError(
            f"{name} is of bfloat16, for which NumPy needs ml_dtypes: pip install optimcore[bf16]"
        ) from error
    return bfloat16


class _Memory:
    """Say where an array is, and keep it alive."""

    def __init__(self, array):
        self.owner = array
        self.__array_interface__ = {
            "version": 3,
            "shape": array.shape,
            "strides": array.strides,
            "typestr": array.dtype.str,
            "data": (address(array), False),
        }


def as_writable(array):
    """Return an array over the same memory that may be written: NumPy before 2.1 takes DLPack for read-only."""
    return np.asarray(_Memory(array)) if array.size else np.empty(array.shape, array.dtype)


def address(array):
    """Return where the first element of an array is, as an int."""
    return array.ctypes.data


class Whereabouts:
    """Where the memory of a torch tensor was, to find out whether it still is there."""

    __slots__ = ("_dtype", "_nbytes", "_offset", "_place", "_shape", "_strides")

    def __init__(self, tensor):
        self._place, self._offset, self._dtype = tensor.data_ptr(), tensor.storage_offset(), tensor.dtype
        self._shape, self._strides = tensor.shape, tensor.stride()
        self._nbytes = _needed_bytes(tensor)

    def hold(self, tensor):
        """Tell whether the tensor still has this memory, shape, order and dtype."""
        return (
            tensor.data_ptr() == self._place
            and tensor.storage_offset() == self._offset
            and tensor.untyped_storage().nbytes() >= self._nbytes  # resizing may have freed it
            and tensor.shape == self._shape
            and tensor.stride() == self._strides
            and tensor.dtype is self._dtype
        )


def _needed_bytes(tensor):
    """Return how many bytes a storage must have for this tensor."""
    count = tensor.numel()
    if count == 0:
        return 0
    if not tensor.is_contiguous():
        count = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (tensor.storage_offset() + count) * tensor.element_size()


def users_of(data):
    """Return how many tensors, arrays and others use the storage behind a tensor, or behind an array of one.

    A tensor that ``weight.detach()`` or ``weight.data`` has made cannot be asked where the memory of `weight` is, but
    its storage knows how many share it.
    """
    tensor = _tensor_behind(data)
    return sys.modules["torch"]._C._storage_Use_Count(tensor.untyped_storage()._cdata)


def users_when_alone(data):
    """Return what `users_of` is when nobody else uses the storage of what a Parameter has taken.

    None if that is not known, if no tensor is behind `data`, or if `data` is a model's own tensor, which requires a
    gradient and can be asked itself.
    """
    tensor = _tensor_behind(data)
    if tensor is None or (tensor is data and tensor.requires_grad):
        return None
    if not hasattr(sys.modules["torch"]._C, "_storage_Use_Count"):
        return None
    probe = tensor.new_zeros(1)
    array = tensor_array(probe, "probe") if tensor is data else None
    users = users_of(probe) + tensor._is_view()  # a view keeps the tensor of which it is one
    del array  # it was there while the users were counted
    return users


def _tensor_behind(data):
    while isinstance(data, np.ndarray):
        data = data.base
    return data if is_tensor(data) else None
