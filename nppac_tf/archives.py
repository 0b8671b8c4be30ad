"""Reading npz archives that anyone may have written."""

import zipfile
from typing import BinaryIO

import numpy as np

from nppac_tf.errors import UserError

_MAX_UNPACKED_BYTES = 2**32


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
