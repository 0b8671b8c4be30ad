"""Files written whole or not at all, and npz archives read without running code."""

import os
import pathlib
import re
import secrets
import zipfile
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from nppac_tf.errors import UserError

_MAX_UNPACKED_BYTES = 2**32


def replace_file(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Writes a file, replacing an earlier one only when the new one is whole and on the disk.

    The mode is that of any new file of this process (0o666 less the umask). The folder is made if
    it is missing. If `write` raises, the earlier file stays as it was.

    Args:
        path: Of the file.
        write: Writes the content to the binary file that it is given.
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
    """`replace_file` for UTF-8 text."""
    replace_file(path, lambda file: file.write(text.encode()))


def sync(path: str | os.PathLike[str]) -> None:
    """Asks the disk to keep a file, or what was made, renamed or removed in a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_arrays(file: BinaryIO) -> dict[str, np.ndarray]:
    """The plain arrays of an npz archive, by name; nothing in it is unpickled.

    Raises:
        UserError: if the archive says that it unpacks to more than 4 GiB.
        Exception: of any kind, for a damaged one: zipfile and NumPy have many.
    """
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > _MAX_UNPACKED_BYTES:
        raise UserError(
            f"the file must unpack to at most {_MAX_UNPACKED_BYTES:,} bytes; got {unpacked:,}"
        )
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def folder_name(text: str) -> str:
    """The nearest name of a folder: letters, digits and _.+=,- only, none of .-,+= in front."""
    return re.sub(r"[^A-Za-z0-9_.+=,-]", "_", text).lstrip(".-,+=") or "_"
