"""C8: the effect of the prior's class on online learning.

Reads runs that differ only in `--prior`, the lower bound on its scale (`--scale_floor`) and seeds
(`--seed`, `--prior_seed`). A class with a lower bound counts as a class of its own.
"""

import dataclasses
import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from scipy import stats

from nppac_tf.claims import drawing
from nppac_tf.claims.common import Table, read_configs, seeds
from nppac_tf.claims.drawing import CLASSES
from nppac_tf.errors import UserError
from nppac_tf.runs import metrics
from nppac_tf.runs.directory import RunDirectory

METRICS = ("eval/any_success", "eval/time_at_goal")
INTERVAL = "95 %, of the mean over seeds: Student's t, cut to [0, 1]; none for one seed"
_MONITORED = ("monitor/prior_scale_visited", "monitor/narrow_share", "train/kl")
_PRIOR_GRADIENT, _VALUE_GRADIENT = "monitor/prior_gradient_norm", "monitor/value_gradient_norm"
_MAY_DIFFER = ("prior.prior", "prior.scale_floor", "prior.prior_seed", "training.seed")


@dataclasses.dataclass(frozen=True, eq=False)
class ClassRuns:
    """The runs of one class, at the steps that the runs of all classes have evaluated.

    Attributes:
        prior: Value of `--prior`.
        scale_floor: Lower bound on the prior's scale; 0 for none.
        seeds: `training.seed` and `prior.prior_seed` of each run.
        values: Metric -> [runs, K], in [0, 1].
        monitored: Mean over runs of the last known value of each monitored metric.
    """

    prior: str
    scale_floor: float
    seeds: tuple[tuple[int, int], ...]
    values: Mapping[str, np.ndarray]
    monitored: Mapping[str, float]

    @property
    def label(self) -> str:
        """Name for a person."""
        floor = f", floor {self.scale_floor:g}" if self.scale_floor else ""
        return f"{CLASSES[self.prior][0]}{floor}"


@dataclasses.dataclass(frozen=True, eq=False)
class PriorClassRuns:
    """Learning curves by the prior's class.

    Attributes:
        env_steps: [K] increasing, the evaluations that all runs have in common.
        classes: Name (with the lower bound, if any) -> runs.
        warmup_steps: Environment steps at the start in which the policy is held fixed.
        eval_episodes: Episodes per evaluation.
        unfinished: Folder, steps and planned steps of each unfinished run.
        left_out: Folders of runs without an evaluation.
    """

    env_steps: np.ndarray
    classes: Mapping[str, ClassRuns]
    warmup_steps: int
    eval_episodes: int
    unfinished: tuple[tuple[str, int, int], ...]
    left_out: tuple[str, ...]

    def notices(self) -> list[str]:
        """One line for each run that is left out or unfinished."""
        return [f"{run} is left out: it has no evaluation yet" for run in self.left_out] + [
            f"{run} is unfinished ({steps:,} of {planned:,} steps): runs are compared up to step "
            f"{int(self.env_steps[-1]):,}; leave it out to compare longer"
            for run, steps, planned in self.unfinished
        ]

    def numbers(self) -> dict[str, Any]:
        """Content of c8.json: finding, both metrics with intervals, and last monitored values."""
        by_prior: dict[str, Any] = {}
        for name, runs in self.classes.items():
            entry: dict[str, Any] = {
                "seeds": [seed for seed, _ in runs.seeds],
                "prior_seeds": [seed for _, seed in runs.seeds],
            }
            for metric in METRICS:
                values = runs.values[metric]
                mean = values.mean(axis=0)
                entry[metric] = {
                    "mean": mean,
                    "intervals": [interval(column) for column in values.T],
                    "first": mean[0],
                    "first_interval": interval(values[:, 0]),
                    "last": mean[-1],
                    "last_interval": interval(values[:, -1]),
                    "minimum": mean.min(),
                    "minimum_env_steps": int(self.env_steps[mean.argmin()]),
                }
            by_prior[name] = entry | dict(runs.monitored)
        return {
            "finding": self.finding(),
            "env_steps": self.env_steps.astype(int),
            "eval_episodes": self.eval_episodes,
            "interval": INTERVAL,
            "minimum_is": "of the mean over seeds",
            "unfinished": [
                {"run": pathlib.Path(run).name, "env_steps": steps, "num_env_steps": planned}
                for run, steps, planned in self.unfinished
            ],
            "left_out": [pathlib.Path(run).name for run in self.left_out],
            "by_prior": by_prior,
        }

    def table(self) -> Table:
        """Content of c8.csv: one row per class, seed and evaluation."""
        rows = [
            (name, *of_run, int(step), *(runs.values[metric][run, index] for metric in METRICS))
            for name, runs in self.classes.items()
            for run, of_run in enumerate(runs.seeds)
            for index, step in enumerate(self.env_steps)
        ]
        return ("prior", "seed", "prior_seed", "env_steps", *METRICS), rows

    def finding(self) -> str:
        """One sentence: the classes with the highest and lowest B at the last common step."""
        values = {name: runs.values["eval/time_at_goal"] for name, runs in self.classes.items()}
        best = max(values, key=lambda name: values[name][:, -1].mean())
        worst = min(values, key=lambda name: values[name][:, -1].mean())
        of_best, of_worst = (interval(values[name][:, -1]) for name in (best, worst))
        if of_best is None or of_worst is None:
            certainty = "too few seeds for intervals"
        else:
            apart = of_best[0] > of_worst[1]
            certainty = f"95% intervals {'do not overlap' if apart else 'overlap'}"
        high, low = (
            f"{self.classes[name].label}: {values[name][:, -1].mean():.2f}, "
            f"from {values[name][:, 0].mean():.2f}"
            for name in (best, worst)
        )
        return (
            f"B at {int(self.env_steps[-1]):,} steps is highest with {high} at the start; "
            f"lowest with {low}; {certainty}"
        )

    def figure(self) -> Figure:
        """Learning curves of A and B, colored by class."""
        result = drawing.new_figure((9.6, 4.4), textwrap.fill(self.finding(), 90))
        panels: Sequence[Any] = result.subplots(1, 2, sharey=True)
        titles = ("A: share of episodes that reach the goal", "B: share of time at the goal")
        for panel, metric, title in zip(panels, METRICS, titles, strict=True):
            if self.warmup_steps:
                panel.axvspan(0, self.warmup_steps, color="#EEEEEE", zorder=0)
            for runs in self.classes.values():
                values, color = runs.values[metric], CLASSES[runs.prior][1]
                line = {"color": color, "linestyle": "--" if runs.scale_floor else "-"}
                for run in values:
                    panel.plot(self.env_steps, run, alpha=0.4, linewidth=0.7, **line)
                label = f"{runs.label} ({len(values)} seed{'' if len(values) == 1 else 's'})"
                panel.plot(self.env_steps, values.mean(axis=0), linewidth=2.2, label=label, **line)
            panel.set_title(title, fontsize="small")
            panel.set(xlabel="environment steps", ylim=(0, 1.03))
            panel.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        if self.warmup_steps:
            at = (0.01 * self.warmup_steps, 0.02)
            panels[1].annotate("policy held", at, fontsize="x-small")
        panels[0].set_ylabel(
            "mean over seeds (thick), each seed (thin);\n"
            f"{self.eval_episodes} episodes per evaluation",
            fontsize="small",
        )
        return drawing.finish(result, panels[0])


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean of shares [runs] (see `INTERVAL`); None for a single run."""
    if len(values) < 2:
        return None
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return max(float(values.mean() - half), 0.0), min(float(values.mean() + half), 1.0)


def read_prior_class_runs(runs: Sequence[str | os.PathLike[str]]) -> PriorClassRuns:
    """Reads runs of several prior classes and groups them by class.

    Raises:
        UserError: if a folder is no run of a fitted prior on a task with a goal, if two runs have
            the same class and seeds, if there is a single class, or if any other setting differs.
    """
    configs = read_configs(runs, _MAY_DIFFER, "prior, scale_floor and seeds")
    found: dict[_Key, str | os.PathLike[str]] = {}
    for run, config in zip(runs, configs, strict=True):
        kind = _Kind(config["prior.prior"], config["prior.scale_floor"] or 0.0)
        key = _Key(kind, *seeds(config))
        if kind.prior not in CLASSES:
            raise UserError(f"--runs must be made with a fitted prior; {run} was not: leave it out")
        if key in found:
            raise UserError(
                f"--runs must differ in prior or seed; got {found[key]} and {run}, "
                f"both {key.kind.name} with seed {key.seed}: leave one out"
            )
        found[key] = run
    left_out = tuple(str(run) for run in found.values() if not RunDirectory(run).rows())
    found = {key: run for key, run in found.items() if str(run) not in left_out}
    order = list(CLASSES)
    kinds = sorted(
        {key.kind for key in found}, key=lambda kind: (order.index(kind.prior), kind.scale_floor)
    )
    if len(kinds) < 2:
        raise UserError(
            "--runs must be of two or more classes of prior; got "
            f"{f'{kinds[0].name} alone' if kinds else 'none with an evaluation'}: add runs"
        )
    tables = [metrics.read_metrics(run) for run in found.values()]
    planned = configs[0]["training.num_env_steps"]
    lengths = [int(table["env_steps"][-1]) for table in tables]
    unfinished = tuple(
        (str(run), length, planned)
        for run, length in zip(found.values(), lengths, strict=True)
        if length < planned
    )
    rows = dict(zip(found, metrics.in_common(tables), strict=True))
    for key, table in rows.items():
        if not all(np.isfinite(table[metric]).all() for metric in METRICS):
            raise UserError(
                f"--runs must be of a task with a goal; {found[key]} has evaluations without "
                f"{' or '.join(METRICS)}"
            )
    return PriorClassRuns(
        next(iter(rows.values()))["env_steps"],
        {
            kind.name: _class_runs(kind, {k[1:]: rows[k] for k in sorted(rows) if k.kind == kind})
            for kind in kinds
        },
        configs[0]["training.critic_warmup_steps"] or 0,
        configs[0]["training.eval_episodes"],
        unfinished,
        left_out,
    )


class _Kind(NamedTuple):
    """A prior class and the lower bound on its scale."""

    prior: str
    scale_floor: float

    @property
    def name(self) -> str:
        return f"{self.prior}, floor {self.scale_floor:g}" if self.scale_floor else self.prior


class _Key(NamedTuple):
    kind: _Kind
    seed: int
    prior_seed: int


def _class_runs(kind: _Kind, tables: Mapping[tuple[int, int], metrics.Table]) -> ClassRuns:
    last: dict[str, list[float]] = {}
    for table in tables.values():
        figures = {name: table[name] for name in _MONITORED if name in table}
        if _PRIOR_GRADIENT in table and _VALUE_GRADIENT in table:
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = table[_PRIOR_GRADIENT] / table[_VALUE_GRADIENT]
            figures[f"{_PRIOR_GRADIENT} / {_VALUE_GRADIENT}"] = ratio
        for name, column in figures.items():
            known = column[~np.isnan(column)]
            if len(known):
                last.setdefault(name, []).append(float(known[-1]))
    return ClassRuns(
        *kind,
        tuple(tables),
        {metric: np.stack([table[metric] for table in tables.values()]) for metric in METRICS},
        {name: float(np.mean(values)) for name, values in last.items()},
    )
