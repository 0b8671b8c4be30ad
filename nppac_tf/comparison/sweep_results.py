"""Results of a sweep: a table of the methods, and the commands that compare them in full."""

import shlex
from collections.abc import Sequence

import numpy as np

from nppac_tf.comparison.intervals import estimate
from nppac_tf.runs.metrics import LABELS, METRICS, read_rows
from nppac_tf.runs.sweep.plan import PlannedRun

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
_ANY, _TIME, _, _RETURN = METRICS


def tables(runs: Sequence[PlannedRun]) -> dict[str, Table]:
    """Computes interquartile means of the last evaluations over seeds, with 95 % intervals.

    Args:
        runs: Complete runs, at least one.

    Returns:
        By task, a header and a row for each method: A and B, or the return for a task without a
        goal.
    """
    grouped: dict[str, dict[str, list[dict[str, float]]]] = {}
    for run in runs:
        last = read_rows(run.folder / "metrics.csv")[-1]
        grouped.setdefault(run.config.task, {}).setdefault(run.method, []).append(last)
    return {task: _table(methods) for task, methods in grouped.items()}


def commands(runs: Sequence[PlannedRun]) -> list[str]:
    """Returns the commands that compare all runs in the folders of a sweep, one for each task."""
    tasks = dict.fromkeys(run.config.task for run in runs)
    return [
        _command([run for run in runs if run.config.task == task], len(tasks)) for task in tasks
    ]


def _table(methods: dict[str, list[dict[str, float]]]) -> Table:
    rows = [row for each in methods.values() for row in each]
    goal = any(np.isfinite(row.get(_TIME, np.nan)) for row in rows)
    metrics = (_ANY, _TIME) if goal else (_RETURN,)
    lines = []
    for name, each in methods.items():
        values = np.array([[row.get(metric, np.nan) for metric in metrics] for row in each])
        cells = [
            _cell(value, low, high, goal)
            for value, low, high in zip(*map(np.ndarray.tolist, estimate(values)), strict=True)
        ]
        lines.append((name, str(len(each)), *cells))
    return ("", "runs", *(LABELS[metric] for metric in metrics)), lines


def _cell(value: float, low: float, high: float, share: bool) -> str:
    number = "{:.3f}".format if share else "{:,.1f}".format
    if np.isnan(value):
        return "–"
    return number(value) if np.isnan(low) else f"{number(value)} [{number(low)}, {number(high)}]"


def _command(runs: Sequence[PlannedRun], num_tasks: int) -> str:
    root = runs[0].folder.parent.parent
    methods = list(dict.fromkeys(run.folder.parent for run in runs))
    folders = methods
    target = root / f"report-{methods[0].name}"
    if num_tasks == 1:
        folders, target = list(dict.fromkeys(folder.parent for folder in methods)), root / "report"
    names = " ".join(shlex.quote(str(folder)) for folder in folders)
    return f"python launch/report.py {names} --output_dir={shlex.quote(str(target))}"
