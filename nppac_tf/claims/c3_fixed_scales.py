"""C3: the smaller the prior's deviation, the worse online learning with the KL term.

Read from runs that differ in `--fixed_scale` and seeds (`--seed`, `--prior_seed`) alone.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nppac_tf.claims.comparable import require_alike
from nppac_tf.claims.writing import Table
from nppac_tf.errors import UserError
from nppac_tf.runs import metrics
from nppac_tf.runs.directory import RunDirectory

METRICS = (
    "eval/time_at_goal",
    "eval/return",
    "train/kl",
    "train/actor_gradient_norm",
    "train/q_value",
)
_FINAL_EVALUATIONS = 3
_MAY_DIFFER = ("prior.fixed_scale", "prior.prior_seed", "training.seed")


class Curve(NamedTuple):
    """A metric of the runs at one deviation: environment steps [K], values [runs, K]."""

    steps: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class FixedScaleRuns:
    """Learning curves by the prior's deviation.

    Attributes:
        scales: [S], rising.
        curves: For each scale, metric -> curve.
        seeds: Of each scale, the seeds of its runs, in their order in the curves.
    """

    scales: np.ndarray
    curves: tuple[dict[str, Curve], ...]
    seeds: tuple[tuple[int, ...], ...]

    def numbers(self) -> dict[str, Any]:
        """For c3.json: by scale, first value and mean over seeds of the last evaluations."""
        by_scale = []
        for scale, curves in zip(self.scales, self.curves, strict=True):
            row: dict[str, Any] = {"sigma0": scale, "runs": len(curves[METRICS[0]].values)}
            for metric, (steps, values) in curves.items():
                if not np.isfinite(values).any():
                    continue
                row["env_steps"] = int(steps[-1])
                row[f"{metric}, first"] = float(values[:, np.isfinite(values).all(0)][:, 0].mean())
                row[f"{metric}, final"] = float(values[:, -_FINAL_EVALUATIONS:].mean())
            by_scale.append(row)
        finals = [row.get(f"{METRICS[1]}, final", np.nan) for row in by_scale]
        return {
            "final_is_the_mean_of_evaluations": _FINAL_EVALUATIONS,
            "by_sigma0": by_scale,
            "final_return_rises_with_sigma0": bool(np.all(np.diff(finals) > 0)),
        }

    def table(self) -> Table:
        """For c3.csv: a row per scale, seed, metric and evaluation."""
        rows = [
            (scale, seed, metric, int(step), value)
            for scale, seeds, curves in zip(self.scales, self.seeds, self.curves, strict=True)
            for metric, (steps, values) in curves.items()
            for seed, run in zip(seeds, values, strict=True)
            for step, value in zip(steps, run, strict=True)
            if np.isfinite(value)
        ]
        return ("sigma0", "seed", "metric", "env_steps", "value"), rows


def read_fixed_scale_runs(runs: Sequence[str | os.PathLike[str]]) -> FixedScaleRuns:
    """Reads runs that were made with `--fixed_scale`, and groups them by it.

    They are compared at the evaluations that all of them have.

    Raises:
        UserError: if one is no run or was made without a fixed scale, if two have the same scale
            and seeds, or if anything but these differs.
    """
    configs = [RunDirectory(run).config(archived=True) for run in runs]
    found: dict[tuple[float, int, int], str | os.PathLike[str]] = {}
    for run, config in zip(runs, configs, strict=True):
        scale = config.prior.fixed_scale
        if scale is None:
            raise UserError(f"--runs must be made with --fixed_scale; {run} was not: leave it out")
        key = (scale, config.training.seed, config.prior.prior_seed)
        if key in found:
            raise UserError(
                f"--runs must differ in fixed_scale or seed; got {found[key]} and {run}, both "
                f"{scale} with seed {key[1]}: leave one out"
            )
        found[key] = run
    require_alike(runs, configs, _MAY_DIFFER, "fixed_scale and seeds")
    tables: dict[float, list[metrics.Table]] = {}
    seeds: dict[float, list[int]] = {}
    compared = metrics.in_common([metrics.read_metrics(found[key]) for key in sorted(found)])
    for (scale, seed, _), table in zip(sorted(found), compared, strict=True):
        tables.setdefault(scale, []).append(table)
        seeds.setdefault(scale, []).append(seed)
    scales = sorted(tables)
    return FixedScaleRuns(
        np.array(scales),
        tuple(
            {
                metric: Curve(*metrics.together(tables[scale], metric))
                for metric in METRICS
                if all(metric in table for table in tables[scale])
            }
            for scale in scales
        ),
        tuple(tuple(seeds[scale]) for scale in scales),
    )
