"""Atomic writing of files, and reading of npz archives without running code."""

import contextlib
import os
import pathlib
import re
import secrets
import tempfile
import zipfile
from collections.abc import Callable, Container, Iterator
from typing import BinaryIO

import numpy as np

from nppac_tf.errors import UserError

_MAX_UNPACKED_BYTES = 2**32
_PART = re.compile(r"[^/,]+")


def replace_file(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Writes a file atomically: an earlier file is replaced once the new one is on the disk.

    The mode of the file is 0o666 without the umask. A missing folder is made. If `write` raises,
    the earlier file is kept.

    Args:
        path: File to write.
        write: Called with a binary file to write the content to.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text atomically; see `replace_file`."""
    replace_file(path, lambda file: file.write(text.encode()))


def sync(path: str | os.PathLike[str]) -> None:
    """Flushes a file, or changes of a folder's entries, to the disk."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_arrays(file: BinaryIO, leave_out: Container[str] = ()) -> dict[str, np.ndarray]:
    """Reads the arrays of an npz archive by name, but for those left out; never unpickles.

    Raises:
        UserError: if the archive declares more than 4 GiB of unpacked data.
        Exception: of several types from zipfile and NumPy, if the archive is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _MAX_UNPACKED_BYTES:
        raise UserError(
            f"the file must unpack to at most {_MAX_UNPACKED_BYTES:,} bytes; got {unpacked:,}"
        )
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if name not in leave_out}


def split_names(text: str) -> list[str]:
    """Splits names at commas, as in "a.npz,b.npz"; the name of an existing file may have some."""
    pieces, names = text.split(","), []
    while pieces:
        count = len(pieces)
        while count > 1 and not split_part(",".join(pieces[:count]))[0].exists():
            count -= 1
        names.append(",".join(pieces[:count]))
        pieces = pieces[count:]
    return names


def absolute_names(text: str) -> str:
    """Replaces the names of files that exist by their whole paths; see `split_names`."""
    whole = []
    for name in split_names(text):
        path, part = split_part(name)
        whole.append(f"{path.absolute()}{part and f':{part}'}" if path.exists() else name)
    return ",".join(whole)


def split_part(name: str) -> tuple[pathlib.Path, str]:
    """Splits "data.hdf5:train" into a path and the part of it that is meant, "" for all.

    The name of an existing file may have a colon, and so may one that does not exist.
    """
    path = pathlib.Path(name).expanduser()
    before, _, part = name.rpartition(":")
    whole = pathlib.Path(before).expanduser()
    if _PART.fullmatch(part) and before and not path.exists() and whole.exists():
        return whole, part
    return path, ""


def folder_name(text: str) -> str:
    """Makes a folder name of letters, digits and _.+=,- that does not start with one of .-,+=."""
    return re.sub(r"[^A-Za-z0-9_.+=,-]", "_", text).lstrip(".-,+=") or "_"


@contextlib.contextmanager
def for_tensorflow(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to a folder that TensorFlow can read: it takes [, ], * and ? in one for a pattern."""
    if not set(str(folder)) & set("[]*?\\"):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        link = pathlib.Path(temporary) / "link"
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link
