"""Learning curves of methods, and scores at the steps that all runs have evaluated."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nppac_tf.comparison.intervals import Estimate, estimate
from nppac_tf.comparison.methods import Method
from nppac_tf.errors import UserError
from nppac_tf.runs.metrics import LABELS, METRICS, Table, in_common, summarize

ANY, TIME, FINAL, RETURN = METRICS
# Time at the goal that is good on a task.
THRESHOLDS = dict.fromkeys(("pen-binary", "door-binary", "relocate-binary", "hammer-binary"), 0.6)
_NUM_HELD = 2
_ROUNDING = 1e-6  # Metrics are float32: 0.6 may be written as 0.59999999.


class Curve(NamedTuple):
    """A metric of a method over environment steps.

    Attributes:
        env_steps: [K], steps at which at least one run of the method was evaluated.
        estimate: K interquartile means and intervals over the runs evaluated at each step.
        counts: [K], number of these runs.
        runs: [runs, K], values of each run; nan where it was not evaluated.
    """

    env_steps: np.ndarray
    estimate: Estimate
    counts: np.ndarray
    runs: np.ndarray


class Score(NamedTuple):
    """One number per run, and its interquartile mean over runs.

    Attributes:
        name: Kind of score, such as "last".
        metric: Column of metrics.csv that it is computed from.
        label: Text for tables and figures.
        unit: "share" (values in [0, 1]), "steps" or "return".
        values: For each method [runs]; nan where a run has none.
        estimates: For each method, estimates of K = 1 quantity.
        reached: For each method, the number of runs that reached the threshold; None for other
            scores. Runs that did not reach it count with the last compared step, so the mean is
            a lower bound.
    """

    name: str
    metric: str
    label: str
    unit: str
    values: tuple[np.ndarray, ...]
    estimates: tuple[Estimate, ...]
    reached: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Learning curves and scores of methods on one task.

    Attributes:
        methods: One or more methods.
        metrics: The `metrics.METRICS` that at least one run has.
        main: Metric of dip, area and threshold: time at goal, or the return for a task without a
            goal.
        threshold: Threshold of `main`; None for none.
        env_steps: [K], steps at which all runs were evaluated. Scores use these steps only.
        curves: One curve per method, by metric.
        scores: Scores, in the order in which they are shown.
    """

    methods: tuple[Method, ...]
    metrics: tuple[str, ...]
    main: str
    threshold: float | None
    env_steps: np.ndarray
    curves: dict[str, tuple[Curve, ...]]
    scores: tuple[Score, ...]

    @property
    def drawn(self) -> tuple[str, ...]:
        """The metrics without the return where methods have different rewards."""
        rewards = {run.settings.get("reward") for each in self.methods for run in each.runs}
        if len(rewards) == 1 or self.main == RETURN:
            return self.metrics
        return tuple(metric for metric in self.metrics if metric != RETURN)

    @property
    def task(self) -> str:
        """Task of all runs."""
        return self.methods[0].runs[0].task


def compare(methods: Sequence[Method], threshold: float | None = None) -> Comparison:
    """Compares methods.

    Args:
        methods: One or more methods.
        threshold: Threshold of time at goal in (0, 1], or of the return for a task without a goal
            (default: that of `THRESHOLDS`, else none).

    Raises:
        UserError: if there is no step at which all runs were evaluated, the runs have no metric,
            or the threshold is out of range.
    """
    tables = _tables(methods)
    everything = [table for method in tables for table in method]
    metrics = tuple(name for name in METRICS if any(np.isfinite(t[name]).any() for t in everything))
    if not metrics:
        raise UserError(f"runs must have evaluations of {' or '.join(METRICS)}; got none")
    main = TIME if TIME in metrics else metrics[0]
    if threshold is None and main == TIME:
        threshold = THRESHOLDS.get(methods[0].runs[0].task)
    if threshold is not None and main != RETURN and not 0 < threshold <= 1:
        raise UserError(f"threshold must be in (0, 1], a share; got {threshold:g}")
    common = iter(in_common(everything))
    aligned = [[next(common) for _ in method] for method in tables]
    curves = [_curves(method, metrics) for method in tables]
    return Comparison(
        tuple(methods),
        metrics,
        main,
        threshold,
        aligned[0][0]["env_steps"],
        {metric: tuple(each[metric] for each in curves) for metric in metrics},
        tuple(_scores(aligned, metrics, main, threshold)),
    )


def _tables(methods: Sequence[Method]) -> list[list[Table]]:
    """Returns the evaluations of each run; constant runs are repeated at the others' steps."""
    runs = [run for method in methods for run in method.runs]
    learning = [run.table["env_steps"] for run in runs if not run.constant]
    if not learning:
        return [[run.table for run in method.runs] for method in methods]
    steps = np.unique(np.concatenate(learning))
    return [
        [_repeated(run.table, steps) if run.constant else run.table for run in method.runs]
        for method in methods
    ]


def _repeated(table: Table, steps: np.ndarray) -> Table:
    """Repeats the first row at other steps."""
    return {name: np.full(len(steps), column[0]) for name, column in table.items()} | {
        "env_steps": steps
    }


def letter_of(metric: str) -> str:
    """Returns the short name of a metric, such as "B"."""
    return LABELS[metric].split(",")[0]


def finding(comparison: Comparison, metric: str, name: str = "last") -> str:
    """Says in words which method has the highest score, and whether its interval stands apart.

    Args:
        comparison: Comparison to describe.
        metric: One of its metrics.
        name: Name of a score of that metric.
    """
    (score,) = (s for s in comparison.scores if (s.name, s.metric) == (name, metric))
    means, lows, highs = np.array(score.estimates)[:, :, 0].T
    when = (
        "on average over the steps"
        if name == "area"
        else f"at {int(comparison.env_steps[-1]):,} steps"
    )
    if not np.isfinite(means).any():
        return f"{LABELS[metric]}, {when}"
    best = int(np.nanargmax(means))
    value = f"{means[best]:,.0f}" if metric == RETURN else f"{means[best]:.2f}"
    who = comparison.methods[best].name
    others = np.delete(highs, best)
    if not len(others):
        return f"{who}: {letter_of(metric)} {value} {when}"
    level = int((others >= lows[best]).sum())
    rest = "no other interval reaches its" if not level else f"{level} other intervals overlap"
    if level == 1:
        rest = "one other interval overlaps"
    if min(len(method.runs) for method in comparison.methods) == 1:
        rest = "not all methods have several runs"
    return f"{who} has the highest {letter_of(metric)} {when}: {value}; {rest}"


def _curves(tables: Sequence[Table], metrics: Sequence[str]) -> dict[str, Curve]:
    """Returns curves over all evaluations of a method; intervals use the runs with the step."""
    grids = {metric: _on_one_grid(tables, metric) for metric in metrics}
    values = np.concatenate([each for _, each in grids.values()], axis=1)
    there = np.isfinite(values)
    result = np.full((3, values.shape[1]), np.nan)
    for pattern in np.unique(there, axis=1).T:
        columns = (there == pattern[:, None]).all(axis=0)
        result[:, columns] = estimate(values[pattern][:, columns])
    curves = {}
    for metric, (steps, each) in grids.items():
        own, result = np.split(result, [len(steps)], axis=1)
        curves[metric] = Curve(steps, Estimate(*own), np.isfinite(each).sum(axis=0), each)
    return curves


def _on_one_grid(tables: Sequence[Table], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps [K] at which any run has a metric, and its values [runs, K]."""
    known = [np.isfinite(table[metric]) for table in tables]
    steps = np.unique(
        np.concatenate([t["env_steps"][rows] for t, rows in zip(tables, known, strict=True)])
    )
    values = np.full((len(tables), len(steps)), np.nan)
    for row, table, rows in zip(values, tables, known, strict=True):
        row[np.searchsorted(steps, table["env_steps"][rows])] = table[metric][rows]
    return steps, values


def _scores(
    tables: Sequence[Sequence[Table]],
    metrics: Sequence[str],
    main: str,
    threshold: float | None,
) -> list[Score]:
    found: list[tuple[str, str, str, str, list[np.ndarray]]] = []
    reached: dict[str, tuple[int, ...]] = {}

    def column(metric: str) -> list[np.ndarray]:
        return [np.stack([table[metric] for table in method]) for method in tables]

    steps = tables[0][0]["env_steps"]
    for metric in metrics:
        unit = "return" if metric == RETURN else "share"
        for name, index in (("first", 0), ("last", -1)):
            values = [each[:, index] for each in column(metric)]
            found.append((name, metric, f"{LABELS[metric]}: {name}", unit, values))
    unit, letter = "return" if main == RETURN else "share", letter_of(main)
    curves = column(main)
    areas = [area(steps, each) for each in curves]
    found.append(("area", main, f"{letter}: mean over steps (area)", unit, areas))
    if threshold is not None:
        times = [steps_to_threshold(steps, each, threshold) for each in curves]
        counted = [np.where(np.isinf(each), steps[-1], each) for each in times]
        reached["steps_to_threshold"] = tuple(int(np.isfinite(each).sum()) for each in times)
        label = f"steps to {letter} ≥ {threshold:g}"
        found.append(("steps_to_threshold", main, label, "steps", counted))
    depths = [each[:, 0] - each.min(axis=1) for each in curves]
    found.append(("dip_depth", main, f"dip of {letter}: depth", unit, depths))
    if main == TIME:
        dips = [np.array([_dip(table) for table in method]) for method in tables]
        found.append(("dip_steps", main, "dip of B: longest, in steps", "steps", dips))
    # One bootstrap per method: [method][3, scores].
    estimates = [
        np.array(estimate(np.stack([values[method] for *_, values in found], axis=1)))
        for method in range(len(tables))
    ]
    return [
        Score(
            name,
            metric,
            label,
            unit,
            tuple(values),
            tuple(Estimate(*each[:, [index]]) for each in estimates),
            reached.get(name),
        )
        for index, (name, metric, label, unit, values) in enumerate(found)
    ]


def _dip(table: Table) -> float:
    dip = summarize(table).longest_dip
    return np.nan if dip is None or np.isnan(table[TIME]).any() else float(dip)


def area(env_steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Computes the area under each curve by the trapezoidal rule, divided by the steps it spans.

    Args:
        env_steps: [K], increasing.
        values: [runs, K].

    Returns:
        [runs], in the unit of the values; nan if K is 1.
    """
    if len(env_steps) == 1:
        return np.full(len(values), np.nan)
    return np.trapz(values, env_steps, axis=1) / (env_steps[-1] - env_steps[0])


def steps_to_threshold(env_steps: np.ndarray, values: np.ndarray, threshold: float) -> np.ndarray:
    """Finds the first of two successive evaluations that are both at or above a threshold.

    A single one does not count: among many noisy evaluations one is above by chance.

    Args:
        env_steps: [K], increasing.
        values: [runs, K].
        threshold: In the unit of the values.

    Returns:
        [runs], environment steps; inf if the threshold is not reached, nan if a value is nan.
    """
    result = np.full(len(values), np.inf)
    for row, run in enumerate(values):
        held = np.convolve(run >= threshold - _ROUNDING, np.ones(_NUM_HELD), "valid") == _NUM_HELD
        if len(run) >= _NUM_HELD and held.any():
            result[row] = env_steps[np.argmax(held)]
        if np.isnan(run).any():
            result[row] = np.nan
    return result
