"""C9: how good a prior's mean is when it is fitted to few demonstrations."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nppac_tf.claims import drawing
from nppac_tf.claims.common import Table
from nppac_tf.claims.drawing import CLASSES
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task
from nppac_tf.errors import UserError
from nppac_tf.evaluation import rollouts
from nppac_tf.evaluation.episodes import readable
from nppac_tf.priors.base import BehavioralPrior

Fit = Callable[[Demonstrations, str], BehavioralPrior]


@dataclasses.dataclass(frozen=True, eq=False)
class FewDemonstrations:
    """Results of priors that were fitted to random subsets of the demonstrations.

    Attributes:
        task: Name.
        metric: "return", or "B, time at goal" where the task has a goal.
        counts: [C] sizes of the subsets, in episodes, increasing.
        values: By class, the metric of each episode of the prior's mean, [C, subsets, episodes].
        demonstrated: The demonstrations' mean return; nan if they do not say, or have a goal.
    """

    task: str
    metric: str
    counts: tuple[int, ...]
    values: dict[str, np.ndarray]
    demonstrated: float

    def numbers(self) -> dict[str, Any]:
        """Content of c9.json."""
        return {
            "task": self.task,
            "metric": self.metric,
            "demonstrations_return": self.demonstrated,
            "episodes": self.counts,
            "mean_by_subset": {name: each.mean(axis=2) for name, each in self.values.items()},
            "median_by_subset": {
                name: np.median(each, axis=2) for name, each in self.values.items()
            },
        }

    def table(self) -> Table:
        """Content of c9.csv: one row per class, number of episodes, and subset."""
        rows = [
            (name, count, subset, row.mean(), float(np.median(row)))
            for name, each in self.values.items()
            for count, subsets in zip(self.counts, each, strict=True)
            for subset, row in enumerate(subsets)
        ]
        return ("prior", "episodes", "subset", "mean", "median"), rows

    def finding(self) -> str:
        """The result in one line."""
        name = next(iter(self.values))
        means = self.values[name].mean(axis=(1, 2))
        few, many = self.counts[0], self.counts[-1]
        return (
            f"{self.task}: {_readable(means[0])} from {few} and {_readable(means[-1])} from {many} "
            "demonstrations"
        )

    def figure(self) -> Figure:
        """The metric by the number of demonstrations: a point for each subset, a line of means."""
        result = drawing.new_figure((6.4, 4.0), self.finding())
        axis = result.subplots()
        for name, each in self.values.items():
            label, color = CLASSES[name]
            means = each.mean(axis=2)
            axis.plot(self.counts, means.mean(axis=1), color=color, marker="_", label=label)
            for subset in means.T:
                axis.plot(self.counts, subset, "o", color=color, alpha=0.5, markersize=4)
        if np.isfinite(self.demonstrated):
            axis.axhline(self.demonstrated, color="black", linewidth=1, label="demonstrations")
        axis.set_xticks(self.counts, [str(count) for count in self.counts])
        axis.set_xlabel("demonstrations")
        axis.set_ylabel(f"{self.metric} of the prior's mean")
        return drawing.finish(result, axis)


def measure_few_demonstrations(
    demonstrations: Demonstrations,
    task: Task,
    fit: Fit,
    classes: Sequence[str],
    counts: Sequence[int] = (1, 5, 15),
    num_subsets: int = 3,
    num_episodes: int = 20,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> FewDemonstrations:
    """Fits priors to subsets of the demonstrations, and lets their means act.

    Args:
        demonstrations: To draw from. All of them are one subset only: its values count for each.
        task: To act in, from the same starts each time.
        fit: Fits a prior of a class to demonstrations.
        classes: Classes of priors.
        counts: Episodes per subset; larger numbers than there are episodes are left out.
        num_subsets: Subsets of each size.
        num_episodes: Episodes in which each mean acts.
        seed: Of the subsets and of the starts.
        on_progress: Called with what is measured next.

    Raises:
        UserError: if no count is between 1 and the number of demonstrations.
    """
    total = demonstrations.num_episodes
    chosen = tuple(sorted({count for count in counts if 1 <= count <= total}))
    if not chosen:
        raise UserError(f"counts must have one in 1 to {total}; got {list(counts)}")
    values: dict[str, np.ndarray] = {}
    metric = ""
    for name in classes:
        rows = []
        for count in chosen:
            row: list[np.ndarray] = []
            for subset in range(num_subsets):
                if count == total and row:
                    row.append(row[0])
                    continue
                on_progress(f"{name}, {count} of {total} episodes, subset {subset}")
                order = np.random.default_rng([seed, subset]).permutation(total)[:count]
                prior = fit(demonstrations.select(np.sort(order)), name)
                metric, outcome = _act(prior, task, num_episodes, seed)
                row.append(outcome)
            rows.append(row)
        values[name] = np.array(rows)
    has_goal = metric != "return"
    demonstrated = np.nan if has_goal else demonstrations.mean_return
    return FewDemonstrations(
        task.name, metric, chosen, values, np.nan if demonstrated is None else float(demonstrated)
    )


def _readable(value: float) -> str:
    return drawing.signed(readable(value))


def _act(
    prior: BehavioralPrior, task: Task, num_episodes: int, seed: int
) -> tuple[str, np.ndarray]:
    """The name of the metric, and its values [num_episodes]."""
    episodes = rollouts.evaluate(rollouts.mean_policy(prior), task, num_episodes, seed)
    has_goal = np.isfinite(episodes.time_at_goal).all()
    return "B, time at goal" if has_goal else "return", episodes.main_values
