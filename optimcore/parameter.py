"""Named arrays that an optimizer updates in place."""

import re
import sys

import numpy as np

from .checks import check_flag
from .kernels.arrays import aligned_zeros, as_array, compute_dtype, unmasked
from .kernels.mapped import allocator, take_space
from .kernels.tensors import Whereabouts, address, is_tensor, tensor_array, users_of, users_when_alone

__all__ = ["Parameter", "ParameterTuple"]

_STORAGE = ("float16", "bfloat16", "float32", "float64")
_PREFIX = re.compile(r"\w+[0-9a-zA-Z_.]*")
_INIT_VALUES = {"zeros": 0.0, "ones": 1.0}
_HOW_TO_FIX = "pass numpy.array(data) and read the result from Parameter.data"

# How often a `requires_grad` has changed, of any Parameter: optimizers look at this one number in each step.
requires_grad_changes = [0]

# What ties a Parameter to memory of others: a pickled one has its own.
_TIES = ("_source", "_is_foreign", "_whereabouts", "_users")


class _Holder:
    """Stand for a Parameter whose source nobody else knows."""

    _source = object()


_REFERENCES = sys.getrefcount(_Holder()._source)


class Parameter(np.lib.mixins.NDArrayOperatorsMixin):
    """Hold an array that an optimizer updates in place, and its name.

    A Parameter never copies an array: it shares the memory, so every step of an optimizer shows in the
    array that was given. An array that a step cannot write in place is therefore an error, not a copy.

    Parameters
    ----------
    data : array_like or Parameter
        ndarray, Parameter, torch CPU tensor, or any object with the buffer protocol or ``__dlpack__``: memory of
        dtype float16, bfloat16 (of ``ml_dtypes``), float32 or float64 that is writable, C-contiguous, aligned and in
        native byte order; it is shared. Pass the weight of a torch module as it is, although it requires a gradient:
        ``Parameter(layer.weight)``. A number or a (nested) list or tuple of numbers becomes a new float32 array.
    name : str, optional
        Name in messages, groups and checkpoints. A Parameter without one is named ``parameter_<index>``
        by the first `ParameterTuple` or optimizer that takes it.
    requires_grad : bool, default True
        False freezes: an optimizer neither moves nor decays such a parameter, nor reads its gradient. It can be
        changed between steps.

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

    Memory of another library may move. The object that was given is kept and asked, whenever `data` is read and before
    a step of an optimizer, where its memory is now. New memory of the same shape and dtype is followed, for instance
    after ``layer.weight.data = other``; anything else is a ValueError. ``layer.weight.detach()`` is another tensor,
    which does not know where the memory of `layer.weight` goes: that the layer has gone elsewhere is then an error as
    soon as nobody else shares the memory. A pickled or deeply copied Parameter has memory of its own.

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

    # What was given, if it is neither a number nor a list, and whether its memory may move without NumPy's knowledge.
    _source = None
    _is_foreign = False
    _whereabouts = None  # of the memory of a tensor
    _users = None  # how many its storage has when others have left it; None if it is not watched

    def __init__(self, data, name=None, requires_grad=True):
        if isinstance(data, Parameter):
            data = data._data if data._source is None else data._source
        self._data = _check_memory(_as_array(data))
        self._remember(data)
        self.name = name
        self._requires_grad = check_flag("requires_grad", requires_grad)
        self.unique = False

    def _remember(self, data):
        """Keep what the memory belongs to, so that it can be asked later."""
        if _is_number_like(data):
            self._source = self._data
            return
        self._source, self._users = data, users_when_alone(data)
        if self._users is not None and users_of(data) <= self._users:
            self._users = None
        if is_tensor(data):
            self._whereabouts = Whereabouts(data)
        elif isinstance(data, np.ndarray):
            if self._users is not None:
                self._data = data.view()  # others may hold on to the view: who holds `data` itself is counted
        elif _may_move(data) and address(_foreign_array(data)) != address(self._data):
            raise ValueError(f"data must share its memory, but each export of {type(data).__name__} is a copy")
        self._is_foreign = self._users is not None or _may_move(data)

    def _look(self, is_stepping=True):
        """Ask where foreign memory is now, and follow it.

        Parameters
        ----------
        is_stepping : bool, default True
            Whether it is an error that nothing else shares the memory any more; whoever reads it may.

        Returns
        -------
        bool
            Whether `_data` is another array than before this call. Whoever holds on to the array itself, as a plan
            does, compares it with `_data`: another one may have looked before.

        Raises
        ------
        ValueError
            If the memory cannot be followed. Nothing was changed.
        """
        if is_stepping and self._users is not None and self._is_left():
            raise ValueError(
                f"memory of parameter {self._name!r} must be that of the model, but nothing shares it any more: the "
                "model has other memory now, or is gone. Pass the weight itself, Parameter(layer.weight), without "
                ".detach() or .data; without a model, Parameter(p.data.copy())"
            )
        if self._whereabouts is not None:
            return not self._whereabouts.hold(self._source) and self._follow()
        return not isinstance(self._source, np.ndarray) and self._follow()

    def _is_left(self):
        """Tell whether all others have gone that shared the memory of `detach()` or the like when it was given."""
        ours = _REFERENCES + (self._data.base is self._source)
        return sys.getrefcount(self._source) <= ours and users_of(self._source) <= self._users

    def _follow(self):
        """Take the memory that the source has now; return whether it is another."""
        try:
            array = _check_memory(_foreign_array(self._source))
        except (TypeError, ValueError) as error:
            raise ValueError(self._why_not(str(error))) from error
        old = self._data
        if array.shape != old.shape or array.dtype != old.dtype:
            raise ValueError(self._why_not(f"got shape {array.shape} and dtype {array.dtype}"))
        if self._whereabouts is None and address(array) == address(old):
            return False
        self._data = array
        self._whereabouts = Whereabouts(self._source) if is_tensor(self._source) else None
        return True

    def _why_not(self, reason):
        return (
            f"parameter {self._name!r} must keep its shape {self._data.shape} and dtype {self._data.dtype}, in memory "
            f"that a step can write, but {_kind(self._source)} has changed: {reason}; make a new Parameter and a new "
            "optimizer"
        )

    @classmethod
    def _read_only(cls, view, name):
        """Wrap a view that nothing may write, e.g. one number broadcast to a shape."""
        self = cls.__new__(cls)
        self._data = self._source = view
        self.name, self._requires_grad, self.unique = name, False, False
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
        """bool : whether optimizers update it; it can be set between steps.

        False freezes: an optimizer neither moves nor decays it, nor reads its gradient, which may be None.
        """
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value):
        changed = check_flag("requires_grad", value) is not self._requires_grad
        self._requires_grad = value
        requires_grad_changes[0] += changed

    @property
    def unique(self):
        """bool : whether indices of its sparse gradients never repeat; it can be set."""
        return self._unique

    @unique.setter
    def unique(self, value):
        self._unique = check_flag("unique", value)

    @property
    def data(self):
        """ndarray : the shared memory.

        It stays the same array for the life of the Parameter, unless it is memory of another library that has moved:
        then it is a view of the new memory.
        """
        if self._is_foreign:
            self._look(is_stepping=False)
        return self._data

    @data.setter
    def data(self, value):
        raise AttributeError("data cannot be exchanged; write new values into it by set_data(values)")

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
        return self.data

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
        new = as_array(data, "data")
        if not _is_real(new.dtype):
            raise TypeError(f"data must hold real numbers, got dtype {new.dtype}")
        if new.shape != self.shape:
            raise ValueError(f"data must have shape {self.shape}, got {new.shape}")
        self.data[...] = new
        return self

    def __array__(self, dtype=None, copy=None):
        if dtype is None or np.dtype(dtype) == self.dtype:
            return self.data.copy() if copy else self.data
        if copy is False:
            raise ValueError(f"dtype must be {self.dtype} when copy=False, got {np.dtype(dtype)}")
        return self.data.astype(dtype)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if out is not None:
            kwargs["out"] = tuple(_unwrap(x) for x in out)
            for x in inputs:
                unmasked(x, "what is written into a Parameter")
        result = getattr(ufunc, method)(*(_unwrap(x) for x in inputs), **kwargs)
        # `p -= x` must leave a Parameter behind, not the array inside it.
        if out is None:
            return result
        results = result if isinstance(result, tuple) else (result,)
        given = tuple(r if o is None else o for r, o in zip(results, out, strict=True))
        return given if isinstance(result, tuple) else given[0]

    def __dlpack__(self, **kwargs):
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return iter(self.data)

    def __getitem__(self, key):
        return self.data[key]

    def __setitem__(self, key, value):
        self.data[key] = unmasked(_unwrap(value), "what is written into a Parameter")

    def __bool__(self):
        return bool(self.data)

    def __float__(self):
        return float(self.data.item())

    def __int__(self):
        return int(self.data.item())

    def __getstate__(self):
        own = {key: value for key, value in self.__dict__.items() if key not in _TIES}
        return {**own, "_data": self.data}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._source = self._data

    def __copy__(self):
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

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
            is in an unnamed temporary file in the same folder. Zeros take the space of the pages that are written, or
            all of it by `reserve`; with another initial value they take it at once.
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
    data = aligned_zeros(parameter.shape, dtype, number, allocator(parameter.data))
    value = _init_value(init, parameter)
    if np.ndim(value) or value != 0:  # zeros take no memory until they are touched
        take_space(data, wanted=False)  # a full disk is an error here; amid the writing it would end the process
        data[...] = value
    return Parameter(data, name, parameter.requires_grad)


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


def _kind(data):
    return f"the {type(data).__module__}.{type(data).__qualname__}"


def _is_number_like(data):
    return isinstance(data, (int, float, complex, str, bytes, np.generic, list, tuple))


def _may_move(data):
    """Tell whether the memory of `data` can move while an array shares it: not NumPy's, nor what a buffer pins."""
    return not isinstance(data, np.ndarray) and (
        is_tensor(data) or (not _has_buffer(data) and hasattr(data, "__dlpack__"))
    )


def _has_buffer(data):
    try:
        memoryview(data).release()
    except TypeError:
        return False
    return True


def _as_array(data):
    """Return an ndarray over the memory of `data`, or a new one for numbers and lists of them."""
    if isinstance(data, np.ndarray):
        return np.asarray(unmasked(data, "data"))
    if _is_number_like(data):
        return _numbers_to_array(data)
    if _may_move(data):
        return _foreign_array(data)
    if _has_buffer(data):
        return np.asarray(memoryview(data))
    raise TypeError(
        "data must be an ndarray, a Parameter, numbers, or an object with the buffer protocol or "
        f"__dlpack__, got {type(data).__name__}"
    )


def _numbers_to_array(data):
    array = as_array(data, "data")
    if array.dtype.kind not in "iuf" and array.dtype.name not in _STORAGE:
        raise TypeError(f"data must hold real numbers, got dtype {array.dtype}")
    return np.array(array, np.float32)


def _foreign_array(data):
    """Return an ndarray over the memory that an object of another library has now."""
    if is_tensor(data):
        return tensor_array(data, "data")
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
    return other if address(other) == address(array) and other.shape == array.shape else array


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
