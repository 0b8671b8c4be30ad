"""Sentences on what differs between the runs of a comparison, or is missing."""

from collections.abc import Iterable, Sequence

import numpy as np

from nppac_tf.comparison.archive import Run, printable
from nppac_tf.comparison.methods import Method, differences, unshared_settings
from nppac_tf.comparison.scores import Comparison
from nppac_tf.runs.metrics import LABELS

_FEW_SEEDS = 10
# Settings of the measurement, not of the method.
_MEASUREMENT = ("reward", "training.eval_interval", "training.eval_episodes")


def notes(comparison: Comparison, not_evaluated: Sequence[str]) -> list[str]:
    """Returns sentences, the most important first.

    Args:
        comparison: Comparison to check.
        not_evaluated: Names of runs without an evaluation.
    """
    methods = comparison.methods
    runs = [run for method in methods for run in method.runs]
    found = _lengths(comparison, runs)
    if not_evaluated:
        found.append(f"Left out because not evaluated yet: {_listed(not_evaluated)}.")
    return [
        *found,
        *_seeds(methods),
        *_grids(comparison, runs),
        *_metrics(comparison, runs),
        *_measurements(methods),
        *_versions(runs),
        *_unshared(runs),
    ]


def _lengths(comparison: Comparison, runs: Sequence[Run]) -> list[str]:
    end = int(comparison.env_steps[-1])
    found = [
        f"{run.name} is unfinished: {run.env_steps:,} of {run.planned_steps:,} steps."
        for run in runs
        if run.planned_steps is not None and run.env_steps < run.planned_steps
    ]
    constant = [run.name for run in runs if run.constant]
    if constant and end > 0:
        found.append(
            f"{_listed(constant)} learned nothing online: the evaluation at 0 steps is shown at "
            "all steps."
        )
    runs = [run for run in runs if not run.constant]
    longer = [run.name for run in runs if run.env_steps > end]
    if longer:
        shortest = [run.name for run in runs if run.env_steps == end]
        reason = f", where {_listed(shortest)} ends" if shortest else ""
        found.append(
            f"Scores are compared at {end:,} steps, the last that all runs have evaluated{reason}; "
            f"only the curves show later evaluations of {_listed(longer)}."
        )
    return found


def _seeds(methods: Sequence[Method]) -> list[str]:
    found = []
    seeds = {run.seeds for method in methods for run in method.runs}
    several = len({prior for _, prior in seeds}) > 1 and any(seed != prior for seed, prior in seeds)
    for method in methods:
        missing = sorted(seeds - {run.seeds for run in method.runs})
        if missing:
            names = [f"{seed}/{prior}" if several else seed for seed, prior in missing]
            found.append(
                f"{method.name} has {_count(len(method.runs))} and lacks "
                f"{'seed/prior_seed' if several else 'seed'} {_listed(map(printable, names))}, "
                "which other methods have."
            )
    counts = {len(method.runs) for method in methods}
    if 1 in counts:
        found.append("A method with a single run has no interval.")
    if any(1 < count < _FEW_SEEDS for count in counts):
        found.append(
            "Bootstrap intervals of few seeds are too narrow. With two or three runs they extend "
            "from the smallest to the largest value, which covers the center of a symmetric "
            "distribution with a probability of 50 % or 75 %, not 95 %. The interquartile mean of "
            "up to three runs is their mean."
        )
    return found


def _grids(comparison: Comparison, runs: Sequence[Run]) -> list[str]:
    end = comparison.env_steps[-1]
    grids = {
        tuple(run.table["env_steps"][run.table["env_steps"] <= end])
        for run in runs
        if not run.constant
    }
    if len(grids) < 2:
        return []
    return [
        "Runs were evaluated at different steps; scores use the "
        f"{len(comparison.env_steps)} steps that all runs share."
    ]


def _metrics(comparison: Comparison, runs: Sequence[Run]) -> list[str]:
    found = []
    for metric in comparison.metrics:
        lacking = [run.name for run in runs if np.isnan(run.table[metric]).any()]
        if lacking:
            found.append(
                f"{LABELS[metric]} is missing in evaluations of {_listed(lacking)}: its scores "
                "are left out."
            )
    return found


def _measurements(methods: Sequence[Method]) -> list[str]:
    return [
        f"Methods differ in {name}, a setting of the measurement: {_listed(values, '; ')}."
        for name, values in differences(methods)
        if name in _MEASUREMENT
    ]


def _versions(runs: Sequence[Run]) -> list[str]:
    found = []
    for name in dict.fromkeys(name for run in runs for name in run.versions):
        values = {run.versions[name] for run in runs if name in run.versions}
        if len(values) > 1:
            found.append(f"{name} {' and '.join(sorted(values))}")
    return [f"Runs were made with different versions: {printable('; '.join(found))}."] * bool(found)


def _unshared(runs: Sequence[Run]) -> list[str]:
    names = unshared_settings(runs)
    if not names:
        return []
    return [f"Settings that only some runs record are not compared: {_listed(names)}."]


def _count(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _listed(names: Iterable[str], separator: str = ", ") -> str:
    names = list(map(printable, names))
    shown = separator.join(names[:8])
    return shown if len(names) <= 8 else f"{shown}{separator}and {len(names) - 8} more"
