"""Records what a server was asked and answered, as a data set that `load_demonstrations` reads.

Each file is one stretch of requests in order. Its observations are those asked, its actions those
answered: edit or replace the actions where `novelty` was high before training on them.
"""

from __future__ import annotations

import pathlib

import numpy as np

from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.errors import UserError
from nppac_tf.serving.runtimes import Arrays


class ShadowLog:
    """Collects answers and writes them to an npz file.

    Answers without an observation or with an action that is not finite are not recorded.

    Args:
        path: File to write, ending in .npz; it must not exist.
        limit: Steps after which nothing more is recorded.

    Raises:
        UserError: if the file exists or has another ending.
    """

    def __init__(self, path: str, limit: int = 1_000_000) -> None:
        self._path, self._limit = pathlib.Path(path).expanduser(), limit
        if self._path.suffix != ".npz" or self._path.exists():
            raise UserError(f"record must be a new file that ends in .npz; got {path!r}")
        self._steps: list[tuple[np.ndarray, np.ndarray, float]] = []

    def __call__(self, inputs: Arrays, outputs: Arrays) -> None:
        """Records the rows of an answer."""
        if "observation" not in inputs or "action" not in outputs:
            return
        observations = np.atleast_2d(np.asarray(inputs["observation"], np.float32))
        actions = np.atleast_2d(outputs["action"])
        novelty = np.broadcast_to(np.atleast_1d(outputs.get("novelty", np.nan)), len(actions))
        for row in zip(observations, actions, novelty, strict=True):
            if len(self._steps) < self._limit and np.isfinite(np.concatenate(row[:2])).all():
                self._steps.append(row)

    def save(self) -> int:
        """Writes what was recorded; returns the number of steps, and writes nothing for none."""
        if self._steps:
            observations, actions, novelty = map(np.array, zip(*self._steps, strict=True))
            metadata = {"novelty": [round(float(value), 4) for value in novelty]}
            end = np.array([len(actions)])
            data = Demonstrations(observations, actions, end, name="log", metadata=metadata)
            save_demonstrations(data, self._path)
        return len(self._steps)
