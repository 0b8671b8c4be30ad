"""The tables and TensorBoard files of a run, written as it goes."""

import csv
import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nppac_tf.files import write_text
from nppac_tf.monitor import MONITOR_COLUMNS
from nppac_tf.training import EVALUATION_COLUMNS, TRAINING_COLUMNS, Metrics

_TIMING_COLUMNS = ("wall_seconds", "train/updates_per_second")


class MetricsWriter:
    """An observer of `training.train` that writes tables and TensorBoard's files.

    What is measured in seconds has a table of its own, so that the other is the same for every run
    of one configuration and seed, interrupted or not. The first evaluation begins all files anew: a
    run that goes on is told of all that came before.

    Args:
        table: The CSV file of evaluations; whole after each row.
        timings: Likewise, with `env_steps` and what the clock says.
        tensorboard: A folder.
    """

    def __init__(
        self, table: pathlib.Path, timings: pathlib.Path, tensorboard: pathlib.Path
    ) -> None:
        self._table = table
        self._timings = timings
        self._tensorboard = tensorboard
        self._rows: list[Metrics] = []
        self._writer: Any = None

    def on_progress(self, stage: str, done: int, total: int, metrics: Metrics) -> None:
        """See `training.Observer`."""

    def on_notice(self, line: str) -> None:
        """See `training.Observer`."""

    def on_epoch(self, row: Metrics) -> None:
        """See `training.Observer`."""
        self._write_scalars(row)

    def on_evaluation(self, row: Metrics) -> None:
        """See `training.Observer`."""
        self._rows.append(row)
        if len(self._rows) == 1:
            for file in self._tensorboard.glob("events.out.*"):
                file.unlink()
        self._write_scalars(row)
        columns = dict.fromkeys((*EVALUATION_COLUMNS, *TRAINING_COLUMNS, *MONITOR_COLUMNS))
        columns |= dict.fromkeys(self._rows[-1])
        self._write_table(self._table, [c for c in columns if c not in _TIMING_COLUMNS])
        self._write_table(self._timings, ["env_steps", *_TIMING_COLUMNS])

    def _write_table(self, path: pathlib.Path, columns: Sequence[str]) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows(self._rows)
        write_text(path, text.getvalue())

    def _write_scalars(self, metrics: Metrics) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._tensorboard))
        # Never the default writer while updates are traced: XLA refuses summaries.
        with self._writer.as_default(int(metrics["env_steps"])):
            for name, value in metrics.items():
                if name != "env_steps" and np.isfinite(value):
                    tf.summary.scalar(name, value)
        self._writer.flush()
