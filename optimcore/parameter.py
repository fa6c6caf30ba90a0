"""Named arrays that an optimizer updates in place."""

import mmap
import os
import re
from functools import partial

import numpy as np

from .checks import check_flag
from .kernels.arrays import aligned_zeros, compute_dtype

__all__ = ["Parameter", "ParameterTuple"]

_STORAGE = ("float16", "bfloat16", "float32", "float64")
_PREFIX = re.compile(r"\w+[0-9a-zA-Z_.]*")
_INIT_VALUES = {"zeros": 0.0, "ones": 1.0}
_HOW_TO_FIX = "pass numpy.array(data) and read the result from Parameter.data"


class Parameter(np.lib.mixins.NDArrayOperatorsMixin):
    """Hold an array that an optimizer updates in place, and its name.

    A Parameter never copies an array: it shares the memory, so every step of an optimizer shows in the
    array that was given. An array that a step cannot write in place is therefore an error, not a copy.

    Parameters
    ----------
    data : array_like or Parameter
        ndarray, Parameter, or any object with the buffer protocol or ``__dlpack__``, such as a torch CPU
        tensor: memory of dtype float16, bfloat16 (of ``ml_dtypes``), float32 or float64 that is writable,
        C-contiguous, aligned and in native byte order; it is shared. A number or a (nested) list or tuple
        of numbers becomes a new float32 array.
    name : str, optional
        Name in messages, groups and checkpoints. A Parameter without one is named ``parameter_<index>``
        by the first `ParameterTuple` or optimizer that takes it.
    requires_grad : bool, default True
        Kept for the caller: an optimizer updates every parameter that it is given.

    Attributes
    ----------
    unique : bool
        False at first. True says that indices of its sparse gradients never repeat.

    Raises
    ------
    TypeError
        If `data` is not of a floating dtype, or an argument is of the wrong kind.
    ValueError
        If the memory cannot be updated in place; the message says how to fix it.

    Notes
    -----
    NumPy functions and operators work on a Parameter and return plain arrays; ``p -= x``, ``p[i] = x`` and
    ``out=p`` write into the shared memory. ``==`` compares elements, as in NumPy; hashing goes by identity.

    Examples
    --------
    >>> weights = np.ones(3, np.float32)
    >>> w = Parameter(weights, name="fc.weight")
    >>> w -= 0.5
    >>> weights
    array([0.5, 0.5, 0.5], dtype=float32)
    """

    # The mixin's elementwise == would take the hash away; dictionaries and sets go by identity.
    __hash__ = object.__hash__

    def __init__(self, data, name=None, requires_grad=True):
        self._data = _check_memory(_as_array(data))
        self.name = name
        self.requires_grad = requires_grad
        self.unique = False

    @classmethod
    def _read_only(cls, view, name):
        """Wrap a view that nothing may write, e.g. one number broadcast to a shape."""
        self = cls.__new__(cls)
        self._data = view
        self.name, self.requires_grad, self.unique = name, False, False
        return self

    @property
    def name(self):
        """str or None : the name; it can be set."""
        return self._name

    @name.setter
    def name(self, name):
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str or None, got {name!r}")
        if name == "":
            raise ValueError("name must not be empty, got ''")
        self._name = name

    @property
    def requires_grad(self):
        """bool : whether the caller computes a gradient for it; it can be set."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value):
        self._requires_grad = check_flag("requires_grad", value)

    @property
    def unique(self):
        """bool : whether indices of its sparse gradients never repeat; it can be set."""
        return self._unique

    @unique.setter
    def unique(self, value):
        self._unique = check_flag("unique", value)

    @property
    def data(self):
        """ndarray : the shared memory. It stays the same array for the life of the Parameter."""
        return self._data

    @property
    def shape(self):
        """tuple of int : shape of the array."""
        return self._data.shape

    @property
    def dtype(self):
        """numpy.dtype : dtype of the array."""
        return self._data.dtype

    @property
    def size(self):
        """int : number of elements."""
        return self._data.size

    @property
    def ndim(self):
        """int : number of axes."""
        return self._data.ndim

    def asnumpy(self):
        """Return the live array: it changes with the next step, so copy what you want to keep."""
        return self._data

    def set_data(self, data):
        """Write new values into the shared memory.

        Parameters
        ----------
        data : array_like
            Real numbers of exactly this shape; they are cast to this dtype.

        Returns
        -------
        Parameter
            `self`.

        Raises
        ------
        TypeError
            If `data` does not hold real numbers.
        ValueError
            If the shape differs.
        """
        new = np.asarray(data)
        if not _is_real(new.dtype):
            raise TypeError(f"data must hold real numbers, got dtype {new.dtype}")
        if new.shape != self.shape:
            raise ValueError(f"data must have shape {self.shape}, got {new.shape}")
        self._data[...] = new
        return self

    def __array__(self, dtype=None, copy=None):
        if dtype is None or np.dtype(dtype) == self.dtype:
            return self._data.copy() if copy else self._data
        if copy is False:
            raise ValueError(f"dtype must be {self.dtype} when copy=False, got {np.dtype(dtype)}")
        return self._data.astype(dtype)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if out is not None:
            kwargs["out"] = tuple(_unwrap(x) for x in out)
        result = getattr(ufunc, method)(*(_unwrap(x) for x in inputs), **kwargs)
        # `p -= x` must leave a Parameter behind, not the array inside it.
        if out is None:
            return result
        results = result if isinstance(result, tuple) else (result,)
        given = tuple(r if o is None else o for r, o in zip(results, out, strict=True))
        return given if isinstance(result, tuple) else given[0]

    def __dlpack__(self, **kwargs):
        return self._data.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self._data.__dlpack_device__()

    def __len__(self):
        return len(self._data)

    def __iter__(self):
        return iter(self._data)

    def __getitem__(self, key):
        return self._data[key]

    def __setitem__(self, key, value):
        self._data[key] = _unwrap(value)

    def __bool__(self):
        return bool(self._data)

    def __float__(self):
        return float(self._data.item())

    def __int__(self):
        return int(self._data.item())

    def __repr__(self):
        return f"Parameter(name={self.name!r}, shape={self.shape}, dtype={self.dtype})"


class ParameterTuple(tuple):
    """Hold parameters of different names.

    Parameters
    ----------
    parameters : iterable of Parameter
        An element without a name is named ``parameter_<index>``; when that name is taken, the next free
        index is used.

    Raises
    ------
    TypeError
        If an element is not a Parameter.
    ValueError
        If two elements have one name, or one element comes twice.

    Examples
    --------
    >>> pair = ParameterTuple([Parameter([1.0, 2.0], "w"), Parameter([0.0])])
    >>> [p.name for p in pair.clone("accum", "zeros")]
    ['accum.w', 'accum.parameter_1']
    """

    __slots__ = ()

    def __new__(cls, parameters):
        parameters = tuple(parameters)
        for i, p in enumerate(parameters):
            if not isinstance(p, Parameter):
                raise TypeError(f"parameters[{i}] must be a Parameter, got {type(p).__name__}")
        check_names(parameters)
        _name_unnamed(parameters)
        return super().__new__(cls, parameters)

    def clone(self, prefix, init="same", dtype="same", number=0):
        """Make new parameters of the same shapes, e.g. the slots of an optimizer.

        Parameters
        ----------
        prefix : str
            The new names are ``prefix + "." + name``. Letters, digits, ``_`` and, not first, ``.``.
        init : {'same', 'zeros', 'ones'} or number, default 'same'
            Initial value of every element; 'same' copies the values.
        dtype : {'same', 'compute'}, default 'same'
            'compute' is the dtype in which kernels compute: float32 for 16-bit parameters, otherwise
            the dtype of the parameter. Slots use it.

        number : int, default 0
            Different for slots that one step updates together: their memory is laid out so that they do not collide.

        Returns
        -------
        ParameterTuple
            Parameters with memory of their own; `requires_grad` is kept. What is made from a writable `numpy.memmap`
            is in an unnamed temporary file in the same folder, which takes the space of the pages that are written.
        """
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be a str, got {prefix!r}")
        if not _PREFIX.fullmatch(prefix):
            raise ValueError(f"prefix must consist of letters, digits, '_' and '.', got {prefix!r}")
        if dtype not in ("same", "compute"):
            raise ValueError(f"dtype must be 'same' or 'compute', got {dtype!r}")
        return ParameterTuple([_clone(p, f"{prefix}.{p.name}", init, dtype, number) for p in self])


def check_names(parameters):
    """Raise ValueError when two parameters share a name, or one comes twice."""
    seen = set()
    for p in parameters:
        key = p.name if p.name is not None else id(p)
        if key in seen:
            what = "the same unnamed parameter" if p.name is None else repr(p.name)
            raise ValueError(f"names of parameters must differ, got {what} twice")
        seen.add(key)


def _name_unnamed(parameters):
    taken = {p.name for p in parameters}
    for index, p in enumerate(parameters):
        if p.name is None:
            while f"parameter_{index}" in taken:
                index += 1
            p.name = f"parameter_{index}"
            taken.add(p.name)


def _clone(parameter, name, init, dtype, number):
    dtype = compute_dtype(parameter.dtype) if dtype == "compute" else parameter.dtype
    data = aligned_zeros(parameter.shape, dtype, number, _allocator(parameter.data))
    value = _init_value(init, parameter)
    if np.ndim(value) or value != 0:  # zeros take no memory until they are touched
        data[...] = value
    return Parameter(data, name, parameter.requires_grad)


def _allocator(array):
    """Return the function for zeros beside an array: in memory, or in a file if the array is in one.

    Who maps a table has no memory for its slots. Memory that nothing has been written to takes none, but a page of new
    memory may have 2 MB, so that a few thousand rows fill gigabytes; a page of a file has 4 KB.
    """
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.filename is not None and array.mode in ("r+", "w+"):
            return partial(_zeros_in_file, os.path.dirname(array.filename))
        array = array.base
    return np.zeros


def _zeros_in_file(folder, size, dtype):
    import tempfile  # here, because it takes a while and most processes map no file

    with tempfile.TemporaryFile(dir=folder) as file:  # the mapping keeps it alive
        zeros = np.memmap(file, dtype, "w+", shape=(size,))
    if hasattr(mmap, "MADV_RANDOM"):  # the system would read megabytes around each row
        zeros.base.madvise(mmap.MADV_RANDOM)
    return zeros


def _init_value(init, parameter):
    if isinstance(init, str):
        if init == "same":
            return parameter.data
        if init not in _INIT_VALUES:
            raise ValueError(f"init must be 'same', 'zeros', 'ones' or a number, got {init!r}")
        return _INIT_VALUES[init]
    if isinstance(init, bool) or not isinstance(init, (int, float, np.integer, np.floating)):
        raise TypeError(f"init must be 'same', 'zeros', 'ones' or a number, got {init!r}")
    return init


def _unwrap(x):
    return x.data if isinstance(x, Parameter) else x


def _as_array(data):
    """Return an ndarray over the memory of `data`, or a new one for numbers and lists of them."""
    if isinstance(data, Parameter):
        return data.data
    if isinstance(data, np.ndarray):
        return np.asarray(data)
    if isinstance(data, (int, float, complex, str, bytes, np.generic, list, tuple)):
        return _numbers_to_array(data)
    try:
        return np.asarray(memoryview(data))
    except TypeError:
        pass  # It has no buffer protocol; BufferError and ValueError are for the caller to see.
    if hasattr(data, "__dlpack__"):
        return _from_dlpack(data)
    raise TypeError(
        "data must be an ndarray, a Parameter, numbers, or an object with the buffer protocol or "
        f"__dlpack__, got {type(data).__name__}"
    )


def _numbers_to_array(data):
    array = np.asarray(data)
    if array.dtype.kind not in "iuf" and array.dtype.name not in _STORAGE:
        raise TypeError(f"data must hold real numbers, got dtype {array.dtype}")
    return np.array(array, np.float32)


def _from_dlpack(data):
    try:
        array = np.from_dlpack(data)
    except (BufferError, RuntimeError, TypeError) as error:
        hint = "; pass tensor.detach()" if getattr(data, "requires_grad", False) else ""
        raise ValueError(
            f"data must export CPU memory that NumPy can share, got {type(data).__name__}: {error}{hint}"
        ) from error
    if array.flags.writeable or not hasattr(data, "__array__"):
        return array
    # NumPy before 2.1 marks whatever comes through DLPack as read-only. What __array__ returns
    # carries the owner's own flag; it counts when it is the same memory.
    other = np.asarray(data)
    same = other.__array_interface__["data"][0] == array.__array_interface__["data"][0]
    return other if same and other.shape == array.shape else array


def _check_memory(array):
    """Return `array` if a kernel can update it in place; otherwise say what to do."""
    if array.dtype.name not in _STORAGE:
        raise TypeError(f"data must be of dtype {', '.join(_STORAGE)}, got {array.dtype}")
    rules = {
        "in native byte order": array.dtype.isnative,
        "writable": array.flags.writeable,
        "C-contiguous": array.flags.c_contiguous,
        "aligned": array.flags.aligned,
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(f"data must be {rule}, got an array that is not; {_HOW_TO_FIX}")
    return array


def _is_real(dtype):
    return dtype.kind in "iuf" or dtype.name in _STORAGE
