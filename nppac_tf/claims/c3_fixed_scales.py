"""C3: the smaller the prior's scale, the worse online learning with the KL term.

Reads runs that differ only in `--fixed_scale` and seeds (`--seed`, `--prior_seed`).
"""

import dataclasses
import functools
import os
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from nppac_tf.claims import drawing
from nppac_tf.claims.common import Table, read_configs, seeds
from nppac_tf.errors import UserError
from nppac_tf.runs import metrics

_TIME_AT_GOAL, _RETURN = "eval/time_at_goal", "eval/return"
METRICS = (
    _TIME_AT_GOAL,
    _RETURN,
    "train/kl",
    "train/actor_gradient_norm",
    "train/q_value",
)
_FINAL_EVALUATIONS = 3
_MAY_DIFFER = ("prior.fixed_scale", "prior.prior_seed", "training.seed")
# Title of each panel, and how its last value is written in the figure's title.
_PANELS = {
    _TIME_AT_GOAL: ("B: share of time at the goal", "B", ".2f"),
    _RETURN: ("return", "return", ",.0f"),
    "train/kl": ("KL from the prior (nats)", "KL", ",.0f"),
    "train/actor_gradient_norm": ("norm of the actor's gradient", "gradient", ",.0f"),
}
_LOGARITHMIC = ("train/kl", "train/actor_gradient_norm")


class Curve(NamedTuple):
    """A metric of the runs at one scale: environment steps [K], values [runs, K]."""

    steps: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class FixedScaleRuns:
    """Learning curves by the prior's scale.

    Attributes:
        scales: [S] scales sigma0, increasing.
        curves: For each scale, metric -> curve.
        seeds: For each scale, the seeds of its runs, in the order of the curves.
    """

    scales: np.ndarray
    curves: tuple[dict[str, Curve], ...]
    seeds: tuple[tuple[int, ...], ...]

    def numbers(self) -> dict[str, Any]:
        """Content of c3.json: first value and mean of the last evaluations, by scale."""
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
        finals = [row.get(f"{_RETURN}, final", np.nan) for row in by_scale]
        return {
            "final_is_the_mean_of_evaluations": _FINAL_EVALUATIONS,
            "by_sigma0": by_scale,
            "final_return_rises_with_sigma0": bool(np.all(np.diff(finals) > 0)),
        }

    def table(self) -> Table:
        """Content of c3.csv: one row per scale, seed, metric and evaluation."""
        rows = [
            (scale, seed, metric, int(step), value)
            for scale, of_scale, curves in zip(self.scales, self.seeds, self.curves, strict=True)
            for metric, (steps, values) in curves.items()
            for seed, run in zip(of_scale, values, strict=True)
            for step, value in zip(steps, run, strict=True)
            if np.isfinite(value)
        ]
        return ("sigma0", "seed", "metric", "env_steps", "value"), rows

    def finding(self) -> str:
        """Last common values of the metrics, smallest scale first."""
        shown = [m for m in self._shown() if all(m in curves for curves in self.curves)]
        drawn = [curves[metric] for metric in shown for curves in self.curves]
        known = [steps[np.isfinite(values).all(axis=0)] for steps, values in drawn]
        common = functools.reduce(np.intersect1d, known) if known else np.array([])
        title = "Online learning by the prior's fixed scale σ₀"
        if not len(common):
            return title
        parts = []
        for metric in shown:
            _, name, form = _PANELS[metric]
            curves = [of_scale[metric] for of_scale in self.curves]
            last = [values[:, steps == common[-1]].mean() for steps, values in curves]
            parts.append(f"{name} {', '.join(format(value, form) for value in last)}")
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        values = drawing.signed("; ".join(parts))
        return f"{title}\n{int(common[-1]):,} steps, σ₀ = {scales}: {values}"

    def figure(self) -> Figure:
        """Learning curves, colored by scale."""
        shown = self._shown()
        rows = -(-len(shown) // 2)
        title = "\n".join(textwrap.fill(line, 88) for line in self.finding().splitlines())
        result = drawing.new_figure((8.4, 0.9 + 2.9 * rows), title)
        panels: Any = result.subplots(rows, 2, squeeze=False).flatten()
        for empty in panels[len(shown) :]:
            empty.remove()
        colors = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(self.scales)))
        for panel, metric in zip(panels, shown, strict=False):
            for scale, curves, color in zip(self.scales, self.curves, colors, strict=True):
                if metric not in curves:
                    continue
                steps, values = curves[metric]
                for run in values[: len(values) if len(values) > 1 else 0]:
                    known = np.isfinite(run)
                    panel.plot(steps[known], run[known], color=color, alpha=0.35, linewidth=0.8)
                mean = values.mean(axis=0)
                known = np.isfinite(mean)
                label = f"σ₀ = {scale:g}"
                panel.plot(steps[known], mean[known], color=color, linewidth=2.0, label=label)
            panel.set_title(_PANELS[metric][0], fontsize="small")
            panel.set_xlabel("environment steps")
            panel.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
            if metric in _LOGARITHMIC:
                panel.set_yscale("log")
        for panel in panels[: len(shown) : 2]:
            panel.set_ylabel("mean of runs (thick), each run (thin)", fontsize="small")
        return drawing.finish(result, panels[0], columns=6)

    def _shown(self) -> list[str]:
        """Metrics to draw: those with values, and the return only for tasks without a goal."""
        known = [
            metric
            for metric in _PANELS
            if any(np.isfinite(c[metric].values).any() for c in self.curves if metric in c)
        ]
        return [m for m in known if m != _RETURN or _TIME_AT_GOAL not in known]


def read_fixed_scale_runs(runs: Sequence[str | os.PathLike[str]]) -> FixedScaleRuns:
    """Reads runs made with `--fixed_scale` and groups them by scale.

    Runs are compared at the evaluations that all of them have.

    Raises:
        UserError: if a folder is no run or was made without a fixed scale, if two runs have the
            same scale and seeds, or if any other setting differs.
    """
    configs = read_configs(runs, _MAY_DIFFER, "fixed_scale and seeds")
    found: dict[tuple[float, int, int], str | os.PathLike[str]] = {}
    for run, config in zip(runs, configs, strict=True):
        scale = config["prior.fixed_scale"]
        if scale is None:
            raise UserError(f"--runs must be made with --fixed_scale; {run} was not: leave it out")
        key = (scale, *seeds(config))
        if key in found:
            raise UserError(
                f"--runs must differ in fixed_scale or seed; got {found[key]} and {run}, both "
                f"{scale} with seed {key[1]}: leave one out"
            )
        found[key] = run
    tables: dict[float, list[metrics.Table]] = {}
    run_seeds: dict[float, list[int]] = {}
    compared = metrics.in_common([metrics.read_metrics(found[key]) for key in sorted(found)])
    for (scale, seed, _), table in zip(sorted(found), compared, strict=True):
        tables.setdefault(scale, []).append(table)
        run_seeds.setdefault(scale, []).append(seed)
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
        tuple(tuple(run_seeds[scale]) for scale in scales),
    )
