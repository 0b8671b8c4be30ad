"""Reading a Python pickle without executing anything that is in it.

A pickle may name any function and have it called. Here an unpickler looks names up in a short list,
in which NumPy's own names lead to inert records of this module. NumPy's functions are not called
with what a pickle holds (a forged dtype state would let a file write raw pointers into an object
array); plain numeric arrays are rebuilt from the records after checking type, shape and size.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from nppac_tf.errors import UserError

_MAX_VALUES = 2**25
_MAX_COPIED_PER_BYTE = 16
_MAX_TUPLE_DEPTH = 100


def unpickle(content: bytes) -> Any:
    """Rebuilds what a pickle holds: plain containers as they are, arrays as records.

    `as_list` and `as_numbers` turn the records into lists and arrays.

    Raises:
        UserError: The pickle names anything but arrays and plain containers.
        Exception: Of any kind, if the pickle is damaged.
    """
    return _RestrictedUnpickler(content).load()


def as_list(value: Any) -> Sequence[Any] | None:
    """Returns a list's, tuple's or object array's items; None for anything else."""
    if isinstance(value, list | tuple):
        return value
    return value.items() if isinstance(value, _PickledArray) else None


def as_numbers(value: Any, label: str, depth: int = 2) -> np.ndarray:
    """Turns an array, or lists nested at most `depth` deep, into a numeric array."""
    items = as_list(value)
    if isinstance(value, _PickledArray) and items is None:
        return value.to_array(label)
    if isinstance(value, int | float):
        try:
            return np.array(value, np.float64)
        except OverflowError as error:
            raise UserError(f"{label} must fit into float64; got a greater number") from error
    if items is None or not depth:
        raise UserError(f"{label} must be arrays or lists of numbers; got {type(value).__name__}")
    # The same row may stand in a pickle many times over, at two bytes each.
    if sum(map(_num_values, items)) > _MAX_VALUES:
        raise UserError(f"{label} must be at most {_MAX_VALUES:,} numbers; got more")
    rows = [as_numbers(item, label, depth - 1) for item in items]
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        shown = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
        raise UserError(f"{label} must be rows of one width; got rows of {shown}")
    return np.stack(rows) if rows else np.empty((0,) * depth)


def _num_values(item: Any) -> int:
    """How many numbers a row would become."""
    items = as_list(item)
    if items is not None:
        return len(items)
    return item.num_values if isinstance(item, _PickledArray) else 1


class _PickledType:
    """A NumPy dtype as a pickle describes it."""

    _code: Any = None
    _state: Any = None

    def __init__(self, code: Any, *_: Any) -> None:
        self._code = code

    def __setstate__(self, state: Any) -> None:
        self._state = state

    @property
    def is_object(self) -> bool:
        return isinstance(self._code, str) and re.fullmatch(r"O\d?", self._code) is not None

    def to_dtype(self, label: str) -> np.dtype:
        """Returns a numeric dtype; raises UserError for any other."""
        match self._state:
            case [_, "<" | ">" | "=" | "|" as byte_order, None, None, None, *_]:
                pass
            case _:
                byte_order = ""
        code = self._code if isinstance(self._code, str) else ""
        if not byte_order or not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            raise UserError(f"{label} must be numbers; got an array of type {self._code!r}")
        return np.dtype(byte_order + code)


class _PickledArray:
    """A NumPy array as a pickle describes it; stands for `ndarray` and `_reconstruct`."""

    _content: tuple[Any, ...] = ()

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self._content = (shape, dtype, "F" if fortran else "C", content)

    def items(self) -> list[Any] | None:
        """Returns the items of a one-dimensional object array; None of any other."""
        match self._content:
            case ((int(),), _PickledType(is_object=True), _, list() as items):
                return items
        return None

    @property
    def num_values(self) -> int:
        """How many numbers the array says that it holds."""
        match self._content:
            case (tuple() as shape, *_) if all(isinstance(size, int) for size in shape):
                return math.prod(shape)
        return 0

    def to_array(self, label: str) -> np.ndarray:
        """Returns the numeric array; raises UserError if it is not one."""
        match self._content:
            case (tuple() as shape, _PickledType() as pickled_type, "C" | "F" as order, content):
                dtype = pickled_type.to_dtype(label)
            case _:
                raise UserError(f"{label} must be arrays; got a damaged one")
        if isinstance(content, str):
            content = content.encode("latin1", "replace")
        if (
            not isinstance(content, bytes | bytearray)
            or not all(isinstance(size, int) and size >= 0 for size in shape)
            or math.prod(shape) * dtype.itemsize != len(content)
        ):
            raise UserError(f"{label} must be arrays with as much content as shape")
        try:
            return np.ndarray(shape, dtype, bytes(content), order=order)
        except (ValueError, OverflowError) as error:
            raise UserError(f"{label} must be arrays; got an impossible shape") from error


class _PickledBuffer(_PickledArray):
    """Stands for `_frombuffer`, by which pickle protocol 5 rebuilds an array."""

    def __init__(self, content: Any, dtype: Any, shape: Any, order: Any) -> None:
        self._content = (shape, dtype, order, content)


class _PickledScalar(_PickledArray):
    """Stands for `scalar`, by which a pickle rebuilds a NumPy number."""

    def __init__(self, dtype: Any, content: Any = b"") -> None:
        self._content = ((), dtype, "C", content)


class _PickledBytes:
    """Stands for `bytes`, `bytearray` and `_codecs.encode`; given a number, `bytes` allocates."""

    def __new__(cls, content: Any = b"", *encoding: Any) -> Any:
        if isinstance(content, str):
            return content.encode("latin1", "replace")
        if isinstance(content, bytes | bytearray):
            return bytes(content)
        raise UserError("a pickle must hold arrays and plain containers only; got damaged bytes")

    def __setstate__(self, state: Any) -> None:
        raise UserError("a pickle must hold arrays and plain containers only; got damaged bytes")


class _Copying:
    """Stands for a container type, which copies what it is given; it counts what that costs."""

    __slots__ = ("_kind", "_unpickler")

    def __init__(self, unpickler: _RestrictedUnpickler, kind: Callable[..., Any]) -> None:
        self._kind = kind
        self._unpickler = unpickler

    def __call__(self, *arguments: Any) -> Any:
        self._unpickler.spend(sum(len(a) for a in arguments if hasattr(a, "__len__")))
        return self._kind(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UserError("a pickle must hold arrays and plain containers only; got a damaged one")


_CONTAINERS = (
    *(list, tuple, dict, set, frozenset),
    *(collections.OrderedDict, collections.defaultdict),
)

# Every value is an immutable built-in type or has a `__setstate__`, so that a pickle's BUILD
# instruction cannot set attributes of it.
_ADMITTED: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        ("numpy", "dtype"): _PickledType,
        ("numpy", "ndarray"): _PickledArray,
        ("_codecs", "encode"): _PickledBytes,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
    }
    | {
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _PickledArray),
            ("multiarray", "scalar", _PickledScalar),
            ("numeric", "_frombuffer", _PickledBuffer),
        )
    }
    | {
        (module, admitted.__name__): admitted
        for module in ("builtins", "__builtin__")
        for admitted in (list, dict, tuple, set, frozenset, int, float, complex)
    }
    | {
        (module, name): _PickledBytes
        for module in ("builtins", "__builtin__")
        for name in ("bytes", "bytearray")
    }
)


class _RestrictedUnpickler(pickle._Unpickler):
    """Rebuilds arrays and plain containers, and refuses every other name.

    It is the pickle module's implementation in Python: the one in C lets ten bytes of a damaged
    file fill 64 GB, since it keeps the numbered objects in an array as long as the greatest number.
    For the same reason the content is read at once, and byte arrays are not set up at the size that
    they announce but at that of what there is.
    """

    stack: list[Any]
    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._tuples: dict[int, tuple[int, Any]] = {}
        self._left_to_copy = _MAX_COPIED_PER_BYTE * len(content)

    def note_depth(self) -> None:
        """Refuses a tuple of tuples of tuples ...: its hash would overflow the C stack."""
        made = self.stack[-1]
        if isinstance(made, tuple):
            depth = 1 + max((self._tuples.get(id(item), (0, None))[0] for item in made), default=0)
            if depth > _MAX_TUPLE_DEPTH:
                raise UserError("a pickle must hold plain containers; got tuples nested too deeply")
            self._tuples[id(made)] = (depth, made)

    def spend(self, number: int) -> None:
        """Counts items copied into a container: three bytes of a pickle copy one of any size."""
        self._left_to_copy -= number
        if self._left_to_copy < 0:
            raise UserError("a pickle must hold what its size is for; got containers copied over")

    def load_bytearray8(self) -> None:
        """Reads a byte array of pickle protocol 5."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def get_extension(self, code: int) -> None:
        """Refuses a number that stands for a name: looked up once, it would not be checked."""
        raise UserError("a pickle must hold arrays and plain containers only; refused an extension")

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            admitted = _ADMITTED[module, name]
            if admitted in _CONTAINERS:
                return _Copying(self, admitted)
            return admitted
        except KeyError:
            raise UserError(
                "a pickle must hold arrays and plain containers only; refused "
                f"{f'{module}.{name}'!r}"
            ) from None


def _noting_depth(load: Callable[[Any], None]) -> Callable[[Any], None]:
    def load_and_note(unpickler: _RestrictedUnpickler) -> None:
        load(unpickler)
        unpickler.note_depth()

    return load_and_note


for _opcode in (
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.REDUCE),
    *(pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.OBJ, pickle.INST),
):
    _load = _RestrictedUnpickler.dispatch[_opcode[0]]
    _RestrictedUnpickler.dispatch[_opcode[0]] = _noting_depth(_load)
