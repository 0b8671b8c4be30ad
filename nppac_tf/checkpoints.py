"""Everything a run needs to go on: networks, optimizers, replay, and the loop's own state."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import tensorflow as tf

from nppac_tf.errors import UserError

_TO_KEEP = 2


class _JsonState(tf.train.experimental.PythonState):
    """Plain values and arrays, kept in the checkpoint as JSON."""

    def __init__(self) -> None:
        self.value: dict[str, Any] | None = None

    def serialize(self) -> str:
        return json.dumps(self.value, default=_encode)

    def deserialize(self, string_value: Any) -> None:
        self.value = json.loads(string_value, object_hook=_decode)


class RunCheckpoint:
    """The checkpoints of one run, of which the latest two are kept.

    Saving writes new files and then moves the pointer to them, so a run killed at any moment
    leaves the previous checkpoint whole.

    Args:
        folder: Where the checkpoints lie; made where absent.
        trackables: TensorFlow objects by name (`NppacAgent.learned`, the replay).
    """

    def __init__(self, folder: pathlib.Path, trackables: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for orphan in folder.glob("*_temp"):
            shutil.rmtree(orphan)
        self._state = _JsonState()
        self._checkpoint = tf.train.Checkpoint(**trackables, loop=self._state)
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(folder), _TO_KEEP)

    def save(self, state: dict[str, Any]) -> None:
        """Writes the trackables and `state` (plain values and arrays)."""
        self._state.value = state
        self._manager.save()

    def restore(self) -> dict[str, Any] | None:
        """Restores the latest checkpoint and returns its state; None where there is none.

        Raises:
            UserError: if the checkpoint does not fit the run or cannot be read.
        """
        latest = self._manager.latest_checkpoint
        if latest is None:
            return None
        try:
            status = self._checkpoint.restore(latest)
            status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"checkpoint {latest} does not fit this run: {reason}") from None
        return self._state.value


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"__array__": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot save a {type(value).__name__}")


def _decode(value: dict[str, Any]) -> Any:
    if "__array__" in value:
        return np.array(value["__array__"], dtype=value["dtype"])
    return value
