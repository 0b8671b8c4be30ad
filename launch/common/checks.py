"""Checks of flags, and of the files that they name, before anything slow is imported."""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from common import flagfiles
from nppac_tf.config import RunConfig
from nppac_tf.errors import UserError
from nppac_tf.runs.config_file import read_config_file

FLAGS = flags.FLAGS


def reject(flag: str, why: str) -> None:
    """Raises UserError if a flag is given that has no effect."""
    if FLAGS[flag].present:
        raise UserError(f"--{flag} has no effect {why}; remove it")


def require_one(*names: str) -> str:
    """Returns the name of the one flag of these that is given; UserError if not exactly one is."""
    given = [name for name in names if FLAGS[name].value]
    if len(given) == 1:
        return given[0]
    listed, received = (", ".join(f"--{name}" for name in part) for part in (names, given))
    raise UserError(f"exactly one of {listed} must be given; got {received or 'none'}")


def run_folder(flag: str) -> tuple[pathlib.Path, RunConfig]:
    """Returns a run's folder and configuration; UserError if there is none of this version."""
    path = existing(flag)
    if not (path / "config.json").is_file():
        near = [str(item.parent) for item in sorted(path.glob("*/config.json"))][:3]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"--{flag} must be the folder of a run; {path} has no config.json{hint}")
    try:
        return path, RunConfig.from_dict(read_config_file(path / "config.json")["config"])
    except UserError as error:
        raise UserError(f"--{flag}={path}: {error}") from None


def existing(flag: str) -> pathlib.Path:
    """Returns the file or folder that a flag names; UserError if it does not exist."""
    value = FLAGS[flag].value or ""
    path = pathlib.Path(value).expanduser()
    if not value or not path.exists():
        hint = flagfiles.did_you_mean(path)
        raise UserError(f"--{flag} must be a file or folder that exists; got {value!r}{hint}")
    return path


def output_file(flag: str, suffixes: Sequence[str]) -> pathlib.Path:
    """Returns a file to write, with one of the suffixes; UserError if it cannot be written."""
    path = pathlib.Path(FLAGS[flag].value or "").expanduser()
    if path.suffix.lower() not in suffixes or path.is_dir():
        raise UserError(f"--{flag} must be a file that ends in {' or '.join(suffixes)}; got {path}")
    _require_writable(flag, path.parent)
    return path


def output_folder(flag: str) -> pathlib.Path:
    """Returns a folder to write, which may be missing; UserError if it cannot be written."""
    if not FLAGS[flag].value:
        raise UserError(f"--{flag} must be a folder to write; got none")
    return _require_writable(flag, pathlib.Path(str(FLAGS[flag].value)).expanduser())


def _require_writable(flag: str, path: pathlib.Path) -> pathlib.Path:
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        reason = f"no permission for {folder}" if folder.is_dir() else f"{folder} is not a folder"
        raise UserError(f"--{flag}={FLAGS[flag].value} cannot be written: {reason}")
    return path
