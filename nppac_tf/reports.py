"""What several runs of one configuration show together, from their tables of metrics alone."""

import csv
import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nppac_tf.errors import UserError

METRICS = ("eval/any_success", "eval/time_at_goal", "eval/final_success", "eval/return")
LABELS = dict(
    zip(METRICS, ("A, any-time success", "B, time at goal", "final", "return"), strict=True)
)
KEPT_SHARE = 0.9

Table = dict[str, np.ndarray]


class Summary(NamedTuple):
    """One run in a few numbers.

    Attributes:
        first: Metrics before any environment step, by name.
        last: Metrics at the end, by name.
        env_steps: Length of the run.
        longest_dip: Environment steps of the longest time that `eval/time_at_goal` stayed under
            `KEPT_SHARE` of its first value, from the first evaluation under it to the next that is
            not; 0 where it never did, None for a task without a goal.
    """

    first: dict[str, float]
    last: dict[str, float]
    env_steps: int
    longest_dip: int | None


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """The rows of a table of metrics, without the cells that are empty.

    Raises:
        UserError: if there is no such table, or it is damaged.
    """
    return _read(path)[1]


def read_metrics(run: str | os.PathLike[str]) -> Table:
    """The columns of a run's metrics.csv, each [evaluations] float64; an empty cell is nan.

    `METRICS` that the table lacks are nan throughout.

    Args:
        run: A run's folder, or the table itself.

    Raises:
        UserError: if there is no table, or it holds no evaluation.
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
    """Runs below a folder, or folders and files of a similar name."""
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
    """First, last and the longest dip of one run."""
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


def in_common(tables: Sequence[Table]) -> list[Table]:
    """The rows of several runs at the steps that all have evaluated.

    Raises:
        UserError: if there is no such step.
    """
    steps = tables[0]["env_steps"]
    for table in tables[1:]:
        steps = np.intersect1d(steps, table["env_steps"])
    if not len(steps):
        raise UserError("runs must have evaluations at the same steps to be put together")
    chosen = (np.isin(table["env_steps"], steps) for table in tables)
    return [
        {name: column[rows] for name, column in table.items()}
        for table, rows in zip(tables, chosen, strict=True)
    ]


def together(tables: Sequence[Table], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """A metric of several runs at the steps that all have evaluated.

    Returns:
        Steps [K] and values [runs, K].
    """
    rows = in_common(tables)
    return rows[0]["env_steps"], np.stack([table[metric] for table in rows])
