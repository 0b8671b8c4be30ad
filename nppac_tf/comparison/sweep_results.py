"""What the runs of a sweep came to, by method."""

import pathlib
import shlex
from collections.abc import Sequence

import numpy as np

from nppac_tf.comparison.intervals import estimate
from nppac_tf.comparison.scores import ANY, LABELS, RETURN, TIME
from nppac_tf.runs import metrics as reports
from nppac_tf.runs.sweep.plan import PlannedRun

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def tables(runs: Sequence[PlannedRun]) -> dict[str, Table]:
    """Interquartile means of the last evaluations over each method's seeds, with 95 % intervals.

    Of A and B, or where a task has no goal of the return; over the runs that are complete.

    Args:
        runs: Those that are complete, at least one.

    Returns:
        By task, a header and a row per method.
    """
    grouped: dict[str, dict[str, list[dict[str, float]]]] = {}
    for run in runs:
        last = reports.read_rows(run.folder / "metrics.csv")[-1]
        grouped.setdefault(run.config.task, {}).setdefault(run.method, []).append(last)
    return {task: _table(methods) for task, methods in grouped.items()}


def commands(runs: Sequence[PlannedRun]) -> list[str]:
    """What draws the comparison of all runs in the sweep's folders, a command per task."""
    tasks = dict.fromkeys(run.config.task for run in runs)
    return [
        _command([run for run in runs if run.config.task == task], len(tasks)) for task in tasks
    ]


def _table(methods: dict[str, list[dict[str, float]]]) -> Table:
    rows = [row for each in methods.values() for row in each]
    goal = any(np.isfinite(row.get(TIME, np.nan)) for row in rows)
    metrics = (ANY, TIME) if goal else (RETURN,)
    header = ("", "runs", *(LABELS[metric] for metric in metrics))
    lines = []
    for name, each in methods.items():
        values = np.array([[row.get(metric, np.nan) for metric in metrics] for row in each])
        cells = [
            _cell(float(value), float(low), float(high), goal)
            for value, low, high in zip(*estimate(values), strict=True)
        ]
        lines.append((name, str(len(each)), *cells))
    return header, lines


def _cell(value: float, low: float, high: float, share: bool) -> str:
    def number(x: float) -> str:
        return f"{x:.3f}" if share else f"{x:,.1f}"

    if np.isnan(value):
        return "–"
    return number(value) if np.isnan(low) else f"{number(value)} [{number(low)}, {number(high)}]"


def _command(runs: Sequence[PlannedRun], num_tasks: int) -> str:
    roots = list(dict.fromkeys(run.folder.parent.parent for run in runs))
    methods = list(dict.fromkeys(run.folder.parent for run in runs))
    folders: list[pathlib.Path] = roots if num_tasks == 1 else methods
    target = roots[0] / ("report" if num_tasks == 1 else f"report-{methods[0].name}")
    names = " ".join(shlex.quote(str(folder)) for folder in folders)
    return f"python launch/report.py {names} --output_dir={shlex.quote(str(target))}"
