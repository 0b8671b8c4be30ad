"""What several runs of one configuration show together, from their tables of metrics alone."""

import csv
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from nppac_tf.errors import UserError

METRICS = ("eval/any_success", "eval/time_at_goal", "eval/final_success", "eval/return")
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
            not; 0 where it never did.
    """

    first: dict[str, float]
    last: dict[str, float]
    env_steps: int
    longest_dip: int


def read_metrics(run: str | os.PathLike[str]) -> Table:
    """The columns of a run's metrics.csv, each [evaluations] float64; an empty cell is nan.

    Args:
        run: A run's folder, or the table itself.

    Raises:
        UserError: if there is no table, or it holds no evaluation.
    """
    path = pathlib.Path(run)
    path = path / "metrics.csv" if path.is_dir() else path
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        table = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
        if "env_steps" not in table:
            raise ValueError("it has no column env_steps")
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise UserError(f"{path} is not a run's table of metrics: {error}") from None
    return table


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
        int(max(dips)),
    )


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the middle half; of three values their mean, since no whole one can be cut."""
    return float(stats.trim_mean(values, 0.25))


def together(tables: Sequence[Table], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """A metric of several runs at the steps that all have evaluated.

    Returns:
        Steps [K] and values [runs, K].
    """
    steps = tables[0]["env_steps"]
    for table in tables[1:]:
        steps = np.intersect1d(steps, table["env_steps"])
    rows = [table[metric][np.isin(table["env_steps"], steps)] for table in tables]
    return steps, np.stack(rows)
