"""Files that are whole or not there: written beside their place, synced, then renamed into it."""

import os
import pathlib
import secrets
from collections.abc import Callable
from typing import BinaryIO


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
