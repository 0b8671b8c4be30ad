"""Checks of which flags are given."""

import checkout  # noqa: F401
from absl import flags

from nppac_tf.errors import UserError

FLAGS = flags.FLAGS


def reject(flag: str, why: str) -> None:
    """Raises UserError if a flag is given that has no effect."""
    if FLAGS[flag].present:
        raise UserError(f"--{flag} has no effect {why}: leave it out")


def require_one(*names: str) -> str:
    """The one flag of these that is given.

    Raises:
        UserError: if it is none or several.
    """
    given = [name for name in names if FLAGS[name].value]
    if len(given) != 1:
        alternatives = " or ".join(f"--{name}" for name in names)
        received = " and ".join(f"--{name}" for name in given) or "none"
        raise UserError(f"exactly one of {alternatives} must be given; got {received}")
    return given[0]
