"""Checks of the files and folders that flags name, before anything slow is imported."""

import difflib
import json
import os
import pathlib
import zipfile
from collections.abc import Sequence

import checkout  # noqa: F401
from absl import flags

from nppac_tf import config
from nppac_tf.errors import UserError

FLAGS = flags.FLAGS


def require_run(flag: str) -> pathlib.Path:
    """The folder of a run that a flag names, checked before anything slow is imported.

    Raises:
        UserError: if there is no run there, or one whose configuration cannot be read.
    """
    path = _existing(flag, "the folder of a run")
    if (path / "saved_model.pb").is_file():
        raise UserError(
            f"--{flag} must be the folder of a run; {path} is an exported policy: use --saved_model"
        )
    if not (path / "config.json").is_file():
        near = [item.parent for item in sorted(path.glob("*/config.json"))]
        hint = f"; did you mean {_listed(near)}?" if near else ""
        raise UserError(f"--{flag} must be the folder of a run; {path} holds no config.json{hint}")
    run_configuration(path)
    return path


def refuse_a_module(path: pathlib.Path, task: str) -> None:
    """Raises UserError where a task would import a module that a file alone, not --task, names."""
    if ":" in task and task != flags.FLAGS.task:
        raise UserError(
            f"{path} is for {task}, which would import a module of that name: pass "
            f"--task={task} if that is what you want"
        )


def require_saved_model(flag: str) -> pathlib.Path:
    """The folder of an exported policy that a flag names; likewise.

    Raises:
        UserError: if no exported policy is there.
    """
    path = _existing(flag, "the folder of an exported policy")
    if (path / "config.json").is_file():
        raise UserError(
            f"--{flag} must be the folder of an exported policy; {path} is the folder of a run: "
            "use --run"
        )
    for part in ("saved_model.pb", "assets.extra/metadata.json"):
        if not (path / part).is_file():
            raise UserError(
                f"--{flag} must be the folder of an exported policy; {path} holds no {part}: "
                "export the policy again"
            )
    return path


def require_prior_file(flag: str) -> pathlib.Path:
    """The file of a fitted prior that a flag names; likewise.

    Raises:
        UserError: if it is missing or of another kind.
    """
    path = require_file(flag, (".npz",))
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"--{flag}: {path} is damaged, or no .npz file: {error}") from None
    if "observations.npy" in members:
        raise UserError(f"--{flag} must be a fitted prior; {path} holds demonstrations")
    if "header.npy" not in members:
        raise UserError(f"--{flag} must be a fitted prior (launch/fit_prior.py); {path} is none")
    return path


def require_file(flag: str, suffixes: Sequence[str] = ()) -> pathlib.Path:
    """The file that a flag names.

    Args:
        flag: Its name.
        suffixes: One of which the file's name must have; any where empty.

    Raises:
        UserError: if there is no such file, or its name ends otherwise.
    """
    path = _existing(flag, "a file")
    if path.is_dir():
        raise UserError(f"--{flag} must be a file; {path} is a folder")
    _check_suffix(flag, path, suffixes)
    return path


def require_output(flag: str, suffixes: Sequence[str]) -> pathlib.Path:
    """The file that a flag names to be written.

    Raises:
        UserError: if its name has none of the suffixes, or no such file can be written.
    """
    path = pathlib.Path(FLAGS[flag].value or "").expanduser()
    _check_suffix(flag, path, suffixes)
    if path.is_dir():
        raise UserError(f"--{flag} must be a file; {path} is a folder")
    _check_writable(flag, path.parent)
    return path


def require_output_folder(flag: str) -> pathlib.Path:
    """The folder that a flag names to be made or written into.

    Raises:
        UserError: if that cannot be.
    """
    path = pathlib.Path(FLAGS[flag].value or "").expanduser()
    _check_writable(flag, path)
    return path


def run_configuration(path: pathlib.Path) -> config.RunConfig:
    """What the run in a folder was asked.

    Raises:
        UserError: if its config.json is damaged or of another version.
    """
    file = path / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return config.RunConfig.from_dict(content["config"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is not the configuration of a run: {error}") from None


def _existing(flag: str, what: str) -> pathlib.Path:
    value = FLAGS[flag].value
    if not value:
        raise UserError(f"--{flag} must name {what}; got nothing")
    path = pathlib.Path(value).expanduser()
    try:
        if path.exists():
            return path
        folder = path.parent
        names = [item.name for item in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"--{flag}={value} cannot be read: {error.strerror}") from None
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f"; did you mean {folder / close[0]}?" if close else ""
    raise UserError(f"--{flag} must be {what}; {value} does not exist{hint}")


def _check_suffix(flag: str, path: pathlib.Path, suffixes: Sequence[str]) -> None:
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"--{flag} must end in {' or '.join(suffixes)}; got {FLAGS[flag].value!r}")


def _check_writable(flag: str, folder: pathlib.Path) -> None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"--{flag}={FLAGS[flag].value} cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"--{flag}={FLAGS[flag].value} cannot be written: no permission for {folder}"
        )


def _listed(paths: Sequence[pathlib.Path]) -> str:
    shown = [str(path) for path in paths[:3]]
    return ", ".join(shown) + (", ..." if len(paths) > len(shown) else "")
