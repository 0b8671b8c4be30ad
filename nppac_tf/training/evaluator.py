"""Evaluation during training, always on the same starts."""

import math
from collections.abc import Callable

import numpy as np

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import TrainingConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task, VectorEnvironment
from nppac_tf.evaluation import rollouts
from nppac_tf.evaluation.episodes import Episodes
from nppac_tf.training.collector import Collector

Metrics = dict[str, float]


class Evaluator:
    """Rolls out the policy's mean, unless it has not changed since.

    Args:
        agent: Whose policy.
        task: To roll out in.
        demonstrations: To compare the first evaluation with, or None.
        environments: Those of training. A task with only one of them, such as a robot, is evaluated
            in it; the interrupted episode then goes on.
        collector: Of the interrupted episode.
        config: `eval_episodes` and `num_environments`.
        notice: Called with what a person should know.
        check: Called before each step; what it raises ends the evaluation.
    """

    def __init__(
        self,
        agent: NppacAgent,
        task: Task,
        demonstrations: Demonstrations | None,
        environments: VectorEnvironment,
        collector: Collector,
        config: TrainingConfig,
        notice: Callable[[str], None],
        check: Callable[[], None],
    ) -> None:
        self._agent = agent
        self._task = task
        self._demonstrations = demonstrations
        self._environments = environments
        self._collector = collector
        self._config = config
        self._notice = notice
        self._check = check
        self._policy = rollouts.as_policy_function(agent.policy)
        self._is_prior = agent.anchored and not int(agent.train_step_counter)
        self._is_measured = False
        self._noted = False  # whether a notice said how B counts

    def policy_changed(self) -> None:
        """Says that the policy is another than at the latest evaluation."""
        self._is_prior = self._is_measured = False

    def measure(self, latest: Metrics | None) -> Metrics:
        """Evaluates the policy.

        Args:
            latest: What this returned last; None at the start of a run, where the policy is
                compared with its prior and the demonstrations as well.

        Returns:
            "eval/any_success" and the like, means over the episodes. At the start also
            "prior/any_success" and the like, and "demonstrations/return" for a task without a
            success signal.
        """
        if latest is not None and self._is_measured:
            return {name: value for name, value in latest.items() if name.startswith("eval/")}
        episodes = self._roll_out(self._policy)
        metrics = episodes.summary()
        if latest is None:
            metrics |= self._compare_with_prior(episodes)
            metrics |= self._compare_with_demonstrations(episodes, metrics)
        if episodes.note and not self._noted:
            self._noted = True
            self._notice(episodes.note)
        self._is_measured = True
        return metrics

    def _roll_out(self, policy: rollouts.PolicyFunction) -> Episodes:
        def stoppable(observations: np.ndarray) -> np.ndarray:
            self._check()
            return policy(observations)

        number = self._config.eval_episodes
        if self._config.num_environments > 1:
            return rollouts.evaluate(stoppable, self._task, number)
        before = self._environments.state_dict()
        episodes = rollouts.evaluate(
            stoppable, self._task, number, environments=self._environments.environments
        )
        self._collector.drop_episodes(self._environments.load_state_dict(before))
        return episodes

    def _compare_with_demonstrations(self, episodes: Episodes, metrics: Metrics) -> Metrics:
        """The recorded return, for a task without a success signal; a notice of a poor prior."""
        data = self._demonstrations
        if data is None:
            return {}
        has_goal = np.isfinite(episodes.time_at_goal).all()
        shown = _time_at_goal(data, self._task.horizon) if has_goal else data.mean_return
        name = "B" if has_goal else "return"
        reached = metrics.get("prior/time_at_goal" if has_goal else "prior/return", math.inf)
        if shown is not None and shown > 0 and reached < 0.5 * shown:
            self._notice(
                f"The prior is far below the demonstrations ({name} {reached:.3g}, demonstrations "
                f"{shown:.3g}): try --lengthscale_factor=3, --noard or, if they are slow, "
                "--action_lookahead=3; launch/fit_prior.py --search tries them all"
            )
        return {} if has_goal or shown is None else {"demonstrations/return": shown}

    def _compare_with_prior(self, episodes: Episodes) -> Metrics:
        """The prior's mean on the same starts; a notice if the policy is far below."""
        prior, episodes_of_prior = self._agent.prior, episodes
        if not prior.informative:
            return {}
        if not self._is_prior:
            episodes_of_prior = self._roll_out(rollouts.mean_policy(prior))
        had, has = episodes_of_prior.main_values, episodes.main_values
        error = math.sqrt((had.var() + has.var()) / len(had))
        if had.mean() - has.mean() > max(2.0 * error, 0.1 * abs(had.mean())):
            self._notice(
                f"The policy starts far below its prior ({has.mean():.3g}, prior "
                f"{had.mean():.3g}): use --actor=anchored, or more --pretraining_steps"
            )
        return {
            name.replace("eval/", "prior/"): value
            for name, value in episodes_of_prior.summary().items()
        }


def _time_at_goal(data: Demonstrations, horizon: int | None) -> float | None:
    """Share of the time at the goal in the demonstrations; None if they do not say."""
    if data.successes is None:
        return None
    episodes = np.split(data.successes, data.episode_ends[:-1])
    return float(np.mean([successes[:horizon].mean() for successes in episodes]))


def main_metric(row: Metrics) -> float:
    """Time at the goal, or return where the task has no goal."""
    time_at_goal = row["eval/time_at_goal"]
    return row["eval/return"] if math.isnan(time_at_goal) else time_at_goal
