"""C8: what the class of the prior does to online learning, read from runs that differ in it alone.

Runs may differ in `--prior`, in the lower bound on its deviation (`--scale_floor`), and in seeds
(`--seed`, `--prior_seed`), in nothing else. A class with a lower bound is a class of its own.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from nppac_tf.claims.comparable import require_alike
from nppac_tf.claims.writing import Table
from nppac_tf.config import PRIORS
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
        prior: The class, as `--prior` has it.
        scale_floor: Lower bound on its deviation; 0 for none.
        seeds: Of each run: `training.seed` and `prior.prior_seed`.
        values: Metric -> [runs, K], in [0, 1].
        monitored: Mean over runs of each figure's last known value; without those that no run has.
    """

    prior: str
    scale_floor: float
    seeds: tuple[tuple[int, int], ...]
    values: Mapping[str, np.ndarray]
    monitored: Mapping[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class PriorClassRuns:
    """Learning curves by the prior's class.

    Attributes:
        env_steps: [K], rising: the evaluations that all runs have in common.
        classes: Name, which tells of a lower bound -> runs.
        warmup_steps: Environment steps at the start in which the policy is held.
        eval_episodes: Episodes per evaluation.
        unfinished: Of each run that is not as long as it was to be: its folder, its steps, and
            how many it was to have.
        left_out: Folders of runs that have no evaluation yet.
    """

    env_steps: np.ndarray
    classes: Mapping[str, ClassRuns]
    warmup_steps: int
    eval_episodes: int
    unfinished: tuple[tuple[str, int, int], ...]
    left_out: tuple[str, ...]

    def notices(self) -> list[str]:
        """A line for each unfinished run."""
        return [f"{run} has no evaluation yet: it is left out" for run in self.left_out] + [
            f"{run} is unfinished ({steps:,} of {planned:,} steps): "
            f"runs are compared up to step {int(self.env_steps[-1]):,}; leave it out to go on"
            for run, steps, planned in self.unfinished
        ]

    def numbers(self) -> dict[str, Any]:
        """For c8.json: by class, both metrics with intervals, and what the monitor said last."""
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
        """For c8.csv: a row per class, seed and evaluation."""
        rows = [
            (name, *seeds, int(step), *(runs.values[metric][run, index] for metric in METRICS))
            for name, runs in self.classes.items()
            for run, seeds in enumerate(runs.seeds)
            for index, step in enumerate(self.env_steps)
        ]
        return ("prior", "seed", "prior_seed", "env_steps", *METRICS), rows


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """A 95 % interval of the mean of shares [runs], as `INTERVAL` says; None for a single one."""
    if len(values) < 2:
        return None
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return max(float(values.mean() - half), 0.0), min(float(values.mean() + half), 1.0)


def read_prior_class_runs(runs: Sequence[str | os.PathLike[str]]) -> PriorClassRuns:
    """Reads runs of several classes of prior, and groups them by it.

    Raises:
        UserError: if one is no run of a fitted prior on a task with a goal, if two have the same
            class and seeds, if there is a single class, or if anything but class and seeds differs.
    """
    configs = [RunDirectory(run).config(archived=True) for run in runs]
    require_alike(runs, configs, _MAY_DIFFER, "prior, scale_floor and seeds")
    found: dict[_Key, str | os.PathLike[str]] = {}
    for run, config in zip(runs, configs, strict=True):
        prior = config.prior
        kind = _Kind(prior.prior, prior.scale_floor)
        key = _Key(kind, config.training.seed, prior.prior_seed)
        if prior.prior == "uniform":
            raise UserError(f"--runs must be made with a fitted prior; {run} was not: leave it out")
        if key in found:
            raise UserError(
                f"--runs must differ in prior or seed; got {found[key]} and {run}, "
                f"both {key.kind.name} with seed {key.seed}: leave one out"
            )
        found[key] = run
    left_out = tuple(str(run) for run in found.values() if not RunDirectory(run).rows())
    found = {key: run for key, run in found.items() if str(run) not in left_out}
    kinds = sorted({key.kind for key in found}, key=lambda kind: (PRIORS.index(kind[0]), kind[1]))
    if len(kinds) < 2:
        raise UserError(
            "--runs must be of two or more classes of prior; got "
            f"{f'{kinds[0].name} alone' if kinds else 'none with an evaluation'}: add runs"
        )
    tables = [metrics.read_metrics(run) for run in found.values()]
    planned = configs[0].training.num_env_steps
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
        configs[0].training.critic_warmup_steps,
        configs[0].training.eval_episodes,
        unfinished,
        left_out,
    )


class _Kind(NamedTuple):
    """A class of prior, with the lower bound on its deviation."""

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
