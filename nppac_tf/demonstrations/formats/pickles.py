"""Python pickles read without running code: an allow-list of names, none of which is called.

`find_class` allows the names that arrays are pickled with, and no others. Even these lead to inert
records instead of NumPy's functions, which are not safe against forged input: a dtype with forged
flags makes `ndarray.__setstate__` use raw bytes as object pointers. `as_list` and `as_numbers`
rebuild numeric arrays from the records after checking type, shape and size.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nppac_tf.errors import UserError

_MAX_BYTES = 2**28
_ALLOWED = {
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "_codecs": ("encode",),
    "collections": ("OrderedDict", "defaultdict"),
    "builtins": (
        "bytes",
        "bytearray",
        "complex",
        "dict",
        "float",
        "frozenset",
        "int",
        "list",
        "set",
    ),
}


def unpickle(content: bytes) -> Any:
    """Loads a pickle: plain containers as they are, arrays as records.

    Pickles of Python 2 and of NumPy 1 and 2 are read.

    Raises:
        UserError: The pickle names anything but arrays and plain containers.
        Exception: any, if the pickle is damaged.
    """
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name.startswith("EXT"):  # A cached extension would bypass `find_class`.
            raise UserError(_refusal("an extension code"))
        # The unpickler allocates an array as long as the greatest memo index.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise pickle.UnpicklingError("memo index beyond the number of objects")
    return _Unpickler(io.BytesIO(content), encoding="latin1").load()


def as_list(value: Any) -> Sequence[Any] | None:
    """Returns the items of a list, tuple or object array [E]; None for anything else."""
    if isinstance(value, list | tuple):
        return value
    match value:
        case _Call(
            "_reconstruct", _, (_, (int(),), _Call("dtype", ("O" | "O8", *_)), _, list(items))
        ):
            return items
    return None


def as_numbers(value: Any, label: str, depth: int = 2) -> np.ndarray:
    """Converts an array, or lists nested at most `depth` deep, to a numeric array.

    Raises:
        UserError: The value is not numeric, is ragged, or takes more than 256 MiB.
    """
    items = as_list(value)
    if isinstance(value, _Call) and items is None:
        return _to_array(value, label)
    if isinstance(value, int | float):
        return _to_float64(value, label)
    if items is None or not depth:
        raise UserError(f"{label} must be arrays or lists of numbers; got {type(value).__name__}")
    too_large = UserError(f"{label} must take at most {_MAX_BYTES:,} bytes; got more")
    if len(items) * 8 > _MAX_BYTES:
        raise too_large
    if items and set(map(type, items)) <= {int, float, bool}:
        return _to_float64(items, label)
    rows: list[np.ndarray] = []
    taken = 0
    for item in items:  # The same row may occur many times, at two bytes each.
        rows.append(as_numbers(item, label, depth - 1))
        taken += rows[-1].nbytes
        if taken > _MAX_BYTES:
            raise too_large
    shapes = sorted({row.shape for row in rows})
    if len(shapes) > 1:
        shown = " and ".join(str(list(shape)) for shape in shapes[:2])
        raise UserError(f"{label} must be rows of one width; got rows of {shown}")
    return np.stack(rows) if rows else np.empty((0,) * depth)


@dataclasses.dataclass(eq=False)
class _Call:
    """A call that a pickle asks for: recorded, never made."""

    name: str
    arguments: tuple[Any, ...]
    state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, tuple) else ()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        package = module.replace("numpy._core.", "numpy.core.").replace("__builtin__", "builtins")
        if name not in _ALLOWED.get(package, ()):
            raise UserError(_refusal(repr(f"{module}.{name}")))
        if package == "collections":
            return lambda *arguments: _new_dict(arguments)
        return lambda *arguments: _Call(name, arguments)


def _new_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Returns a dict to which the pickle's next instructions add the items."""
    if arguments and isinstance(arguments[0], list):
        raise UserError(_refusal("an OrderedDict written by Python 2"))
    return {}


def _refusal(refused: str) -> str:
    return f"a pickle must hold arrays and plain containers only; refused {refused}"


def _to_float64(value: Any, label: str) -> np.ndarray:
    try:
        return np.array(value, np.float64)
    except OverflowError as error:
        raise UserError(f"{label} must fit into float64; got a greater number") from error


def _to_array(call: _Call, label: str) -> np.ndarray:
    """Rebuilds a numeric array or scalar."""
    order: Any
    match call:
        case _Call("_reconstruct", _, (_, shape, dtype, fortran, content)):
            order = "F" if fortran else "C"
        case _Call("_frombuffer", (content, dtype, shape, ("C" | "F") as order), ()):
            pass
        case _Call("scalar", (dtype, content), ()):
            shape, order = (), "C"
        case _:
            raise UserError(f"{label} must be arrays; got a damaged one")
    numeric_dtype = _to_dtype(dtype, label)
    match content:
        case _Call("encode", (str(text), *_)) | str(text):
            content = text.encode("latin1", "replace")
        case _Call("bytes", ()):
            content = b""
    if (
        not isinstance(content, bytes | bytearray)
        or not isinstance(shape, tuple)
        or not all(isinstance(size, int) and size >= 0 for size in shape)
        or math.prod(shape) * numeric_dtype.itemsize != len(content)
    ):
        raise UserError(f"{label} must be arrays with as much content as shape; got a damaged one")
    try:
        return np.ndarray(shape, numeric_dtype, bytes(content), order=order)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{label} must be arrays; got an impossible shape") from error


def _to_dtype(value: Any, label: str) -> np.dtype:
    match value:
        case _Call(
            "dtype", (str(code), *_), (_, "<" | ">" | "=" | "|" as order, None, None, None, *_)
        ):
            if re.fullmatch(r"b1|[iu][1248]|f[248]", code):
                return np.dtype(order + code)
    got = "damaged"
    match value:
        case _Call("dtype", (str(got), *_)):
            pass
    raise UserError(f"{label} must be numbers; got an array of type {got!r}")
