"""What is unequal or missing between the runs of a comparison, in sentences."""

from collections.abc import Iterable, Sequence

import numpy as np

from nppac_tf.comparison.archive import Run, printable
from nppac_tf.comparison.methods import Method, differences
from nppac_tf.comparison.scores import LABELS, Comparison

_FEW_SEEDS = 10
# Settings that are of the measurement and not of the method.
_MEASUREMENT = ("reward", "training.eval_interval", "training.eval_episodes")


def notes(comparison: Comparison, not_evaluated: Sequence[str]) -> list[str]:
    """Sentences, the weightiest first.

    Args:
        comparison: What is told of.
        not_evaluated: Names of runs that have no evaluation yet.
    """
    methods = comparison.methods
    runs = [run for method in methods for run in method.runs]
    return [
        *_lengths(comparison, runs),
        *(
            [f"Without an evaluation yet, and left out: {_listed(not_evaluated)}."]
            if not_evaluated
            else []
        ),
        *_seeds(methods),
        *_grids(comparison, runs),
        *_metrics(comparison, runs),
        *_measurements(methods),
        *_versions(runs),
        *_older(runs),
    ]


def _lengths(comparison: Comparison, runs: Sequence[Run]) -> list[str]:
    end = int(comparison.env_steps[-1])
    told = [
        f"{run.name} is unfinished: {run.env_steps:,} of {run.planned_steps:,} steps."
        for run in runs
        if run.planned_steps is not None and run.env_steps < run.planned_steps
    ]
    constant = [run.name for run in runs if run.constant]
    if constant and end > 0:
        told.append(
            f"{_listed(constant)} learned nothing online: what was evaluated at 0 steps stands for "
            "all."
        )
    runs = [run for run in runs if not run.constant]
    longer = [run.name for run in runs if run.env_steps > end]
    if longer:
        shortest = [run.name for run in runs if run.env_steps == end]
        reason = f", where {_listed(shortest)} ends" if shortest else ""
        told.append(
            f"Scores are compared at {end:,} steps, the last that all runs have evaluated{reason}; "
            f"what {_listed(longer)} did after that is in the curves alone."
        )
    return told


def _seeds(methods: Sequence[Method]) -> list[str]:
    told = []
    seeds = {seeds for method in methods for seeds in {run.seeds for run in method.runs}}
    for method in methods:
        missing = seeds - {run.seeds for run in method.runs}
        if missing:
            several = len({prior for _, prior in seeds}) > 1
            names = [f"{seed}/{prior}" if several else seed for seed, prior in sorted(missing)]
            kind = "seed/prior_seed" if several else "seed"
            told.append(
                f"{method.name} has {_count(len(method.runs))} and lacks {kind} "
                f"{_listed(map(printable, names))}, which others have."
            )
    counts = sorted({len(method.runs) for method in methods})
    if counts[0] == 1:
        told.append(
            "A method of a single run has no interval: nothing tells how far another seed would be."
        )
    if any(1 < count < _FEW_SEEDS for count in counts):
        told.append(
            "Bootstrap intervals of few seeds are too narrow. Of two or three runs they go from "
            "the least to the greatest, which covers the middle of a symmetric distribution with "
            "50 and 75 %, not 95 %; an interquartile mean of three runs is their mean."
        )
    return told


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
        f"Runs were evaluated at different steps; scores use the {len(comparison.env_steps)} that "
        "all have."
    ]


def _metrics(comparison: Comparison, runs: Sequence[Run]) -> list[str]:
    told = []
    for metric in comparison.metrics:
        lacking = [run.name for run in runs if np.isnan(run.table[metric]).any()]
        if lacking:
            told.append(
                f"{LABELS[metric]} is missing in evaluations of {_listed(lacking)}: scores of it "
                "are left out."
            )
    return told


def _measurements(methods: Sequence[Method]) -> list[str]:
    unequal = {difference.setting: difference.values for difference in differences(methods)}
    return [
        f"Methods differ in {name}, which is how they are measured: {_listed(unequal[name], '; ')}."
        for name in _MEASUREMENT
        if name in unequal
    ]


def _versions(runs: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run.versions)
    told = []
    for name in names:
        values = {run.versions[name] for run in runs if name in run.versions}
        if len(values) > 1:
            told.append(f"{name} {' and '.join(sorted(values))}")
    return [f"Runs were made with different versions: {printable('; '.join(told))}."] * bool(told)


def _older(runs: Sequence[Run]) -> list[str]:
    told = []
    assumed = dict.fromkeys(name for run in runs for name in run.assumed)
    if assumed:
        without = [run.name for run in runs if run.assumed]
        told.append(
            f"config.json of {_listed(without)} is of an older version and lacks "
            f"{_listed(name.rpartition('.')[2] for name in assumed)}: what runs did before there "
            "were these settings is assumed."
        )
    columns = [
        run.name
        for run in runs
        if "wall_seconds" in run.table or not any(c.startswith("monitor/") for c in run.table)
    ]
    if columns:
        told.append(
            f"metrics.csv of {_listed(columns)} has the columns of an older version; those that "
            "the report needs are there."
        )
    return told


def _count(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _listed(names: Iterable[str], separator: str = ", ") -> str:
    names = list(names)
    shown = separator.join(names[:8])
    return shown if len(names) <= 8 else f"{shown}{separator}and {len(names) - 8} more"
