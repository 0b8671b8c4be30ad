"""Descriptions of unexpected content, for the readers' error messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

HEAD_SIZE = 512
NPY_MAGIC = b"\x93NUMPY"
UNKNOWN = "a file of unknown type"
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (NPY_MAGIC, "an npy file: rename it to end in .npy"),
    (b"PK\x03\x04", "a zip archive: if NumPy wrote it, rename it to end in .npz"),
    (b"\x89HDF", "an HDF5 file: rename it to end in .hdf5; of a Minari data set, pass the folder"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x80", "a Python pickle: rename it to end in .pickle"),
)


def describe(head: bytes) -> str:
    """Describes a file by its first bytes."""
    for beginning, description in _BEGINNINGS:
        if head.startswith(beginning):
            return description
    if not head:
        return "an empty file"
    if head.decode("utf-8", "ignore").lstrip().startswith("<"):
        return "a web page: download the file itself"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        return "a text file"
    return UNKNOWN


def list_keys(mapping: Iterable[Any]) -> str:
    """Lists the first keys of a mapping in one line."""
    names = sorted(key if isinstance(key, str) else type(key).__name__ for key in mapping)
    shown = ", ".join(" ".join(name.split())[:40] for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "nothing"
