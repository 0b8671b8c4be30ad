"""Checkpoints: networks, optimizers, replay, and the loop's own state.

A checkpoint is a folder, written under another name and renamed when it is whole:

variables.*    networks, optimizers, temperature, step counter (TensorFlow's format)
replay.npy     the transitions stored so far, with the prior's statistics
state.json     the loop's state
manifest.json  size and SHA-256 of the other files

Nothing in it is code: TensorFlow's tensors, a plain array and JSON.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from nppac_tf.errors import UserError
from nppac_tf.files import for_tensorflow, sync
from nppac_tf.training.replay import Replay

_VERSION = 1
_TO_KEEP = 2
_PREFIX = "checkpoint-"
_TEMPORARY = ".writing-"
_VARIABLES, _REPLAY, _STATE, _MANIFEST = "variables", "replay.npy", "state.json", "manifest.json"


class RunCheckpoint:
    """The checkpoints of one run, of which the latest two are kept.

    Saving holds the run up for a copy of the variables and of the replay in memory; checksums and
    the disk are left to a thread.

    Args:
        folder: Where the checkpoints lie; made where absent.
        learned: TensorFlow objects by name (`NppacAgent.learned`).
        replay: Its content is kept; its capacity may grow between runs.
    """

    def __init__(self, folder: pathlib.Path, learned: dict[str, Any], replay: Replay) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for orphan in folder.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(orphan, ignore_errors=True)
        self._folder = folder
        self._variables = tf.train.Checkpoint(**learned)
        self._replay = replay
        self._damaged: set[pathlib.Path] = set()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None

    def save(self, state: dict[str, Any]) -> None:
        """Writes a checkpoint with `state` (plain values and arrays), after any before it.

        Raises:
            UserError: if this or the checkpoint before could not be written; what was written
                earlier is untouched.
        """
        self.wait()
        number = max((_number(path) for path in _all(self._folder)), default=0) + 1
        temporary = self._folder / f"{_TEMPORARY}{number}"
        rows, added = self._replay.content()
        content = {"version": _VERSION, "loop": state, "replay_added": added}
        text = json.dumps(content, default=_encode)
        with self._failing_clearly(temporary):
            temporary.mkdir()
            self._variables.write(str(temporary / _VARIABLES))

        def finish() -> None:
            with self._failing_clearly(temporary):
                with open(temporary / _REPLAY, "wb") as file:
                    np.save(file, rows)
                (temporary / _STATE).write_text(text)
                manifest = {path.name: _checksum(path) for path in sorted(temporary.iterdir())}
                (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2))
                for path in (*temporary.iterdir(), temporary):
                    sync(path)
                os.rename(temporary, self._folder / f"{_PREFIX}{number:06d}")
                sync(self._folder)
            whole = [path for path in _all(self._folder) if path not in self._damaged]
            for old in {*whole[_TO_KEEP:], *self._damaged}:
                shutil.rmtree(old, ignore_errors=True)  # What stays goes at the next save.

        self._pending = self._thread.submit(finish)

    def wait(self) -> None:
        """Returns when what was saved is on the disk.

        Raises:
            UserError: if it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def check(self) -> None:
        """As `wait`, but only for what has ended already."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def restore(self, notice: Callable[[str], None]) -> dict[str, Any] | None:
        """Restores the latest checkpoint that is whole.

        Args:
            notice: Called with a line for each damaged checkpoint that was skipped.

        Returns:
            The state saved with it; None where there is no checkpoint.

        Raises:
            UserError: if all are damaged, or the checkpoint does not fit the run.
        """
        found = _all(self._folder)
        for path in found:
            try:
                state = read_state(path)
            except ValueError as error:
                notice(f"{path} is damaged and passed over: {error}")
                self._damaged.add(path)
                continue
            try:
                read_variables(self._variables, path)
                rows = np.load(path / _REPLAY, allow_pickle=False)
                self._replay.load(rows, state["replay_added"])
            except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"{path} does not fit this run: {reason}") from None
            return state["loop"]
        if found:
            raise UserError(
                f"{self._folder} holds no whole checkpoint ({len(found)} damaged): begin a new run "
                "in another folder"
            )
        return None

    @contextlib.contextmanager
    def _failing_clearly(self, temporary: pathlib.Path) -> Any:
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            reason = str(getattr(error, "strerror", None) or error).splitlines()[0]
            kept = _all(self._folder)
            last = f"the last good one is {kept[0]}" if kept else "there is none before it"
            raise UserError(
                f"a checkpoint could not be written to {self._folder} ({reason}); {last}: "
                "make room and pass --resume"
            ) from None


def latest(folder: pathlib.Path) -> pathlib.Path | None:
    """The newest whole checkpoint in a run's folder of checkpoints; None if there is none."""
    for path in _all(folder):
        with contextlib.suppress(ValueError):
            read_state(path)
            return path
    return None


def write_variables(objects: tf.train.Checkpoint, path: pathlib.Path) -> None:
    """Writes learned objects alone to the folder `path`, in place of what was there."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    objects.write(str(temporary / _VARIABLES))
    shutil.rmtree(path, ignore_errors=True)
    os.rename(temporary, path)


def copy_variables(source: pathlib.Path, path: pathlib.Path) -> None:
    """Copies the learned objects of a checkpoint to the folder `path`, for `read_variables`."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    for file in source.glob(f"{_VARIABLES}.*"):
        shutil.copyfile(file, path / file.name)


def read_variables(objects: tf.train.Checkpoint, path: pathlib.Path) -> None:
    """Restores some or all of the learned objects from the checkpoint at `path`.

    Raises:
        AssertionError: if a variable of theirs is not in it.
        ValueError: if one is there with another shape.
    """
    with for_tensorflow(path) as readable:
        status = objects.read(str(readable / _VARIABLES))
        status.assert_existing_objects_matched().expect_partial()


def _all(folder: pathlib.Path) -> list[pathlib.Path]:
    """Checkpoints, the newest first."""
    found = (path for path in folder.glob(f"{_PREFIX}*") if _number(path))
    return sorted(found, key=_number, reverse=True)


def _number(path: pathlib.Path) -> int:
    digits = path.name.removeprefix(_PREFIX)
    return int(digits) if digits.isdecimal() else 0


def read_variable(path: pathlib.Path, name: str) -> np.ndarray:
    """One of the learned objects that is a plain variable, from the checkpoint at `path`."""
    with for_tensorflow(path) as readable:
        key = f"{name}/.ATTRIBUTES/VARIABLE_VALUE"
        return tf.train.load_variable(str(readable / _VARIABLES), key)


def read_state(path: pathlib.Path) -> dict[str, Any]:
    """Content of state.json, after all files of a checkpoint were found as they were written.

    Returns:
        "loop", the state given to `RunCheckpoint.save`, "replay_added" and "version".

    Raises:
        ValueError: if the checkpoint is damaged.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        for name in {_STATE, _REPLAY, f"{_VARIABLES}.index"} | manifest.keys():
            if pathlib.PurePath(name).name != name or not (path / name).is_file():
                raise ValueError(f"{name} is missing or no file of a checkpoint")
            if _checksum(path / name) != manifest[name]:
                raise ValueError(f"{name} is not as it was written")
        state = json.loads((path / _STATE).read_text(), object_hook=_decode)
        if state["version"] != _VERSION:
            raise ValueError(f"it is of version {state['version']}, and this program of {_VERSION}")
        return state
    except OSError as error:
        name = pathlib.PurePath(str(error.filename)).name
        raise ValueError(f"{name} cannot be read ({error.strerror})") from None
    except (KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{_MANIFEST} is not that of a checkpoint") from None


def _checksum(path: pathlib.Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": file.tell(), "sha256": digest}


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        shape = list(value.shape)
        return {"__array__": value.ravel().tolist(), "dtype": str(value.dtype), "shape": shape}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot save a {type(value).__name__}")


def _decode(value: dict[str, Any]) -> Any:
    if "__array__" in value:
        return np.array(value["__array__"], dtype=value["dtype"]).reshape(value["shape"])
    return value
