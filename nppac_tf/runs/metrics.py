"""Writes and reads the tables of metrics of a run. Reading loads no TensorFlow."""

import csv
import difflib
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nppac_tf.errors import UserError
from nppac_tf.evaluation.episodes import LABELS as LABELS
from nppac_tf.files import write_text

METRICS = tuple(LABELS)
KEPT_SHARE = 0.9
_TIMING_COLUMNS = ("wall_seconds", "train/updates_per_second")

Table = dict[str, np.ndarray]


class Summary(NamedTuple):
    """Summary of one run.

    Attributes:
        first: Metrics of the first evaluation, by name.
        last: Metrics of the last evaluation, by name.
        env_steps: Environment steps at the last evaluation.
        longest_dip: Longest period in environment steps in which `eval/time_at_goal` stays below
            `KEPT_SHARE` of its first value, until the next evaluation that does not; 0 if it never
            does, None for a task without a goal.
    """

    first: dict[str, float]
    last: dict[str, float]
    env_steps: int
    longest_dip: int | None


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Reads the rows of a table of metrics, without empty cells.

    Raises:
        UserError: if the table does not exist or is damaged.
    """
    return _read(path)[1]


def read_metrics(run: str | os.PathLike[str]) -> Table:
    """Reads the columns of a run's metrics.csv.

    Args:
        run: Folder of the run, or the table.

    Returns:
        Columns by name, each [evaluations] float64. Empty cells are nan, and so are all values of
        `METRICS` that the table lacks.

    Raises:
        UserError: if the table does not exist, is damaged or holds no evaluation.
    """
    path = pathlib.Path(run)
    if not path.exists():
        raise UserError(f"no run at {path}{_suggestion(path)}")
    if path.is_dir():
        if not (path / "metrics.csv").is_file():
            raise UserError(
                f"{path} must be a run's folder, with a metrics.csv; it has none"
                f"{_suggestion(path / 'metrics.csv')}"
            )
        path = path / "metrics.csv"
    columns, rows = _read(path)
    if not rows:
        raise UserError(f"{path} must hold an evaluation; it has none yet")
    return {
        name: np.array([row.get(name, np.nan) for row in rows])
        for name in dict.fromkeys([*columns, *METRICS])
    }


def _read(path: str | os.PathLike[str]) -> tuple[list[str], list[dict[str, float]]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            table = csv.DictReader(file, strict=True)
            rows = [{name: float(value) for name, value in row.items() if value} for row in table]
            columns = list(table.fieldnames or ())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is not a run's table of metrics: {error}") from None
    if "env_steps" not in columns or any("env_steps" not in row for row in rows):
        raise UserError(f"{path} is not a run's table of metrics: env_steps must be in every row")
    return columns, rows


def _suggestion(path: pathlib.Path) -> str:
    """Suggests a similar name, or runs in the same folder."""
    folder = path.parent
    if not folder.is_dir():
        return ""
    runs = [table.parent for table in sorted(folder.glob("*/metrics.csv"))]
    close = difflib.get_close_matches(path.name, [item.name for item in folder.iterdir()], n=1)
    if close:
        return f"; did you mean {folder / close[0]}?"
    shown = ",".join(map(str, runs[:3])) + (",..." if len(runs) > 3 else "")
    return f"; runs near it: {shown}" if runs else ""


def summarize(table: Table) -> Summary:
    """Computes the summary of one run."""
    steps, time_at_goal = table["env_steps"], table["eval/time_at_goal"]
    dips, began = [0.0], None
    for step, under in zip(steps, time_at_goal < KEPT_SHARE * time_at_goal[0], strict=True):
        if under:
            began = step if began is None else began
            dips.append(step - began)
        elif began is not None:
            dips.append(step - began)
            began = None
    return Summary(
        {name: float(table[name][0]) for name in METRICS},
        {name: float(table[name][-1]) for name in METRICS},
        int(steps[-1]),
        None if np.isnan(time_at_goal).all() else int(max(dips)),
    )


def is_kept(first: float, value: float) -> bool:
    """Whether a metric has not fallen by more than a tenth of its first value, of either sign."""
    return not value < first - (1.0 - KEPT_SHARE) * abs(first)


def in_common(tables: Sequence[Table]) -> list[Table]:
    """Selects the rows at the steps at which all runs were evaluated.

    Raises:
        UserError: if there is no such step.
    """
    steps = tables[0]["env_steps"]
    for table in tables[1:]:
        steps = np.intersect1d(steps, table["env_steps"])
    if not len(steps):
        raise UserError(
            "runs must have evaluations at the same steps to be compared; they share none"
        )
    chosen = (np.isin(table["env_steps"], steps) for table in tables)
    return [
        {name: column[rows] for name, column in table.items()}
        for table, rows in zip(tables, chosen, strict=True)
    ]


def together(tables: Sequence[Table], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Stacks a metric of several runs at the steps at which all were evaluated.

    Returns:
        Steps [K] and values [runs, K].
    """
    rows = in_common(tables)
    return rows[0]["env_steps"], np.stack([table[metric] for table in rows])


class MetricsWriter:
    """An observer of `training.train` that writes tables and TensorBoard's files.

    Times are in a table of their own, so that the other is the same for all runs of one
    configuration and seed, interrupted or not. The first evaluation replaces all files: a resumed
    run reports its earlier evaluations again.

    Args:
        table: CSV file of evaluations, replaced as a whole for each row.
        timings: CSV file of times, with `env_steps`.
        tensorboard: Folder of TensorBoard files.
    """

    def __init__(
        self, table: pathlib.Path, timings: pathlib.Path, tensorboard: pathlib.Path
    ) -> None:
        self._table = table
        self._timings = timings
        self._tensorboard = tensorboard
        self._rows: list[dict[str, float]] = []
        self._writer: Any = None

    def on_progress(self, stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        """See `training.Observer`."""

    def on_notice(self, line: str) -> None:
        """See `training.Observer`."""

    def on_epoch(self, row: dict[str, float]) -> None:
        """See `training.Observer`."""
        self._write_scalars(row)

    def on_evaluation(self, row: dict[str, float]) -> None:
        """See `training.Observer`."""
        self._rows.append(row)
        if len(self._rows) == 1:
            for file in self._tensorboard.glob("events.out.*"):
                file.unlink()
        self._write_scalars(row)
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        self._write_table(self._table, [c for c in columns if c not in _TIMING_COLUMNS])
        self._write_table(self._timings, ["env_steps", *_TIMING_COLUMNS])

    def _write_table(self, path: pathlib.Path, columns: Sequence[str]) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows(self._rows)
        write_text(path, text.getvalue())

    def _write_scalars(self, metrics: dict[str, float]) -> None:
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._tensorboard))
        # Never the default writer while updates are traced: XLA refuses summaries.
        with self._writer.as_default(int(metrics["env_steps"])):
            for name, value in metrics.items():
                if name != "env_steps" and np.isfinite(value):
                    tf.summary.scalar(name, value)
        self._writer.flush()
