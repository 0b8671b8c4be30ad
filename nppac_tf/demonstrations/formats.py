"""Reading and writing demonstrations, one reader per file format.

AWAC and DAPG demonstrations are Python pickles, which may name any function and have it called.
They are read without that: an unpickler looks names up in a short list, in which NumPy's own names
lead to inert records of this module. NumPy's functions are not called with what a pickle holds
(a forged dtype state would let a file write raw pointers into an object array); plain numeric
arrays are rebuilt from the records after checking type, shape and size.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.resources
import io
import json
import math
import os
import pathlib
import pickle
import re
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar

import numpy as np

from nppac_tf.demonstrations.demonstrations import Demonstrations, TaskSpaces
from nppac_tf.errors import UserError

_EMBEDDED_PREFIX = "embedded:"


def load_demonstrations(
    source: str | os.PathLike[str], task: TaskSpaces | None = None
) -> Demonstrations:
    """Loads demonstrations; nothing that a file holds is executed.

    Args:
        source: `embedded:NAME` for those that ship with the package, or a file: `*.npz` as written
            by `save_demonstrations`, `*.npy` (AWAC) or `*.pickle`, `*.pkl` (DAPG).
        task: If given, the demonstrations are checked against it and clipped into its action
            bounds; see `Demonstrations.conform`.

    Returns:
        The demonstrations; `notices` says what was changed in loading.

    Raises:
        UserError: There is no such source, it cannot be read, is damaged, does not hold
            demonstrations, names a Python object other than arrays and plain containers, or does
            not fit the task. The message is one line that begins with the source.
    """
    source = os.fspath(source)
    try:
        if source.startswith(_EMBEDDED_PREFIX):
            demonstrations = _load_embedded(source.removeprefix(_EMBEDDED_PREFIX))
        else:
            demonstrations = _load_file(pathlib.Path(os.path.expanduser(source)))
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    return demonstrations if task is None else demonstrations.conform(task)


def save_demonstrations(demonstrations: Demonstrations, path: str | os.PathLike[str]) -> None:
    """Writes demonstrations so that `load_demonstrations` gives them back, notices apart.

    The file appears whole or not at all: it is written beside `path` and then renamed.

    Args:
        demonstrations: What to write.
        path: A file name ending in `.npz`; a file of that name is replaced.

    Raises:
        UserError: The name does not end in `.npz`, or the file cannot be written.
    """
    path = pathlib.Path(os.path.expanduser(path))
    if path.suffix != ".npz":
        raise UserError(f"path must end in .npz; got {str(path)!r}")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            np.savez_compressed(
                file,
                observations=demonstrations.observations,
                actions=demonstrations.actions,
                episode_ends=demonstrations.episode_ends,
                metadata=np.array(json.dumps(demonstrations.metadata, sort_keys=True)),
                name=np.array(demonstrations.name),
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"path must be writable; got {str(path)!r} ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _load_embedded(name: str) -> Demonstrations:
    files = {
        pathlib.PurePath(file.name).stem: file
        for file in _embedded_files()
        if file.name.endswith(".npz")
    }
    if name not in files:
        known = ", ".join(sorted(files)) or "none"
        raise UserError(f"embedded demonstrations must be one of: {known}; got {name!r}")
    return _read_npz(io.BytesIO(files[name].read_bytes()), files[name].name)


def _embedded_files() -> list[Traversable]:
    folder = importlib.resources.files(__package__).joinpath("data")
    return list(folder.iterdir()) if folder.is_dir() else []


def _load_file(path: pathlib.Path) -> Demonstrations:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"demonstrations must be {_EMBEDDED_PREFIX}NAME or a file ending in "
            f"{', '.join(_READERS)}; got suffix {path.suffix!r}"
        )
    try:
        with open(path, "rb") as file:
            return reader(file, path.name)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})") from error


def _read_npz(file: BinaryIO, file_name: str) -> Demonstrations:
    """Reads what `save_demonstrations` writes; `metadata` and `name` may be absent."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:
        raise UserError(
            f"the file must be a whole npz archive of plain arrays; got {_one_line(error)}"
        ) from error
    missing = {"observations", "actions", "episode_ends"} - arrays.keys()
    if missing:
        raise UserError(
            f"the file must hold observations, actions, episode_ends; got {_keys(arrays)}"
        )
    try:
        metadata = json.loads(str(arrays["metadata"])) if "metadata" in arrays else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"metadata must be JSON; got {_one_line(error)}") from error
    if not isinstance(metadata, dict):
        raise UserError(f"metadata must be a JSON object; got {type(metadata).__name__}")
    return Demonstrations(
        arrays["observations"],
        arrays["actions"],
        arrays["episode_ends"],
        str(arrays["name"]) if "name" in arrays else pathlib.PurePath(file_name).stem,
        metadata,
    )


def _read_awac(file: BinaryIO, file_name: str) -> Demonstrations:
    """Reads an object array [E] of episodes saved by `np.save`."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(file)
    except Exception as error:
        raise UserError(f"the file must be a whole npy file; got {_one_line(error)}") from error
    if dtype.kind != "O":
        raise UserError(
            "an npy file of demonstrations must hold an object array of episodes (AWAC); "
            f"got {dtype} {list(shape)}"
        )
    return _read_records(file, file_name, "AWAC npy")


def _read_dapg(file: BinaryIO, file_name: str) -> Demonstrations:
    """Reads a pickled list of episodes."""
    return _read_records(file, file_name, "DAPG pickle")


_READERS: Mapping[str, Callable[[BinaryIO, str], Demonstrations]] = MappingProxyType(
    {".npz": _read_npz, ".npy": _read_awac, ".pickle": _read_dapg, ".pkl": _read_dapg}
)


def _read_records(file: BinaryIO, file_name: str, format_name: str) -> Demonstrations:
    """Unpickles episodes: mappings with `observations` and `actions`; other keys are not used.

    Rewards are among the keys not used: those of published AWAC files disagree with their
    observations, and have other lengths.
    """
    try:
        records = _RestrictedUnpickler(file.read()).load()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the pickle must be whole and undamaged; got {_one_line(error)}"
        ) from error
    records = _as_list(records)
    if records is None:
        raise UserError(f"the {format_name} must hold a list of episodes")
    return Demonstrations.from_episodes(
        [_read_record(record, index) for index, record in enumerate(records)],
        pathlib.PurePath(file_name).stem,
        {"format": format_name, "source": file_name},
    )


def _read_record(record: Any, index: int) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(record, dict):
        raise UserError(f"episode {index} must be a dict; got {type(record).__name__}")
    for key in ("observations", "actions"):
        if key not in record:
            raise UserError(f"episode {index} must hold observations, actions; got {_keys(record)}")
    observations = _as_list(record["observations"])
    if observations and isinstance(observations[0], dict):
        observations = [_state(item, index) for item in observations]
    else:
        observations = record["observations"]
    return (
        _as_numbers(observations, f"observations of episode {index}"),
        _as_numbers(record["actions"], f"actions of episode {index}"),
    )


def _state(observation: Any, index: int) -> Any:
    if not isinstance(observation, dict) or "state_observation" not in observation:
        got = _keys(observation) if isinstance(observation, dict) else type(observation).__name__
        raise UserError(
            f"observations of episode {index} must each hold state_observation; got {got}"
        )
    return observation["state_observation"]


def _as_list(value: Any) -> Sequence[Any] | None:
    """Returns a list's, tuple's or object array's items; None for anything else."""
    if isinstance(value, list | tuple):
        return value
    return value.items() if isinstance(value, _PickledArray) else None


def _as_numbers(value: Any, label: str, depth: int = 2) -> np.ndarray:
    """Turns an array, or lists nested at most `depth` deep, into a numeric array."""
    items = _as_list(value)
    if isinstance(value, _PickledArray) and items is None:
        return value.to_array(label)
    if isinstance(value, int | float):
        try:
            return np.array(value, np.float64)
        except OverflowError as error:
            raise UserError(f"{label} must fit into float64; got a greater number") from error
    if items is None or not depth:
        raise UserError(f"{label} must be arrays or lists of numbers; got {type(value).__name__}")
    rows = [_as_numbers(item, label, depth - 1) for item in items]
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        shown = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
        raise UserError(f"{label} must be rows of one width; got rows of {shown}")
    return np.stack(rows) if rows else np.empty((0,) * depth)


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
            raise UserError(f"{label} must be arrays; got {_one_line(error)}") from error


class _PickledBuffer(_PickledArray):
    """Stands for `_frombuffer`, by which pickle protocol 5 rebuilds an array."""

    def __init__(self, content: Any, dtype: Any, shape: Any, order: Any) -> None:
        self._content = (shape, dtype, order, content)


class _PickledScalar(_PickledArray):
    """Stands for `scalar`, by which a pickle rebuilds a NumPy number."""

    def __init__(self, dtype: Any, content: Any = b"") -> None:
        self._content = ((), dtype, "C", content)


# Every value is an immutable built-in type or has a `__setstate__`, so that a pickle's BUILD
# instruction cannot set attributes of it. `bytes(text, "latin1")` is what `_codecs.encode` is
# written for.
_ADMITTED: Mapping[tuple[str, str], Callable[..., Any]] = MappingProxyType(
    {
        ("numpy", "dtype"): _PickledType,
        ("numpy", "ndarray"): _PickledArray,
        ("_codecs", "encode"): bytes,
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
        for admitted in (list, dict, tuple, set, frozenset, int, float, complex, bytes, bytearray)
    }
)


class _RestrictedUnpickler(pickle._Unpickler):
    """Rebuilds arrays and plain containers, and refuses every other name.

    It is the pickle module's implementation in Python: the one in C lets ten bytes of a damaged
    file fill 64 GB, since it keeps the numbered objects in an array as long as the greatest number.
    For the same reason the content is read at once, and byte arrays are not set up at the size that
    they announce but at that of what there is.
    """

    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")

    def load_bytearray8(self) -> None:
        """Reads a byte array of pickle protocol 5."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise UserError(
                "a pickle must hold arrays and plain containers only; refused "
                f"{f'{module}.{name}'!r}"
            ) from None


def _keys(mapping: Mapping[Any, Any]) -> str:
    """Lists a mapping's keys in one line."""
    return " ".join(", ".join(sorted(map(str, mapping))).split()) or "nothing"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
