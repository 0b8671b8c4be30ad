"""What every reader of HDF5 files checks first: links to other files, and huge arrays."""

from __future__ import annotations

from typing import Any

from nppac_tf.errors import UserError

_MAX_BYTES = 2**32
_MAX_COMPRESSION = 1100  # Deflate compresses to 1:1032 at best.
TOO_LARGE = (
    "the arrays of a data set must take at most 4 GiB, and no more than its file can hold; got more"
)


def max_bytes(file_size: int) -> int:
    """Bytes that the arrays of a file of this size may take."""
    return min(_MAX_BYTES, _MAX_COMPRESSION * file_size)


def check(file: Any, file_size: int, name: str) -> None:
    """Checks an open `h5py.File`.

    Raises:
        UserError: It has a link to another file, or arrays that take more than `max_bytes`.
    """
    import h5py

    outside = UserError(f"{name} must hold all data itself; got a link to another file")
    taken = 0

    def leads_outside(_: str, link: Any) -> bool | None:
        return None if isinstance(link, h5py.HardLink) else True

    def check_item(_: str, item: Any) -> None:
        nonlocal taken
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise outside
            taken += item.nbytes
            if taken > max_bytes(file_size):
                raise UserError(TOO_LARGE)

    if file.visititems_links(leads_outside):
        raise outside
    file.visititems(check_item)
