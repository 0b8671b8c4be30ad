"""The training loop: prepare, then collect, update, evaluate, save.

Environments are stepped in plain Python, many at once. Updates run in a compiled loop over a replay
that holds the prior's statistics. Observers print, write or draw what happens.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from nppac_tf.agents.nppac import NppacAgent, NppacLossInfo
from nppac_tf.config import TrainingConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task, VectorEnvironment
from nppac_tf.training.checkpoints import RunCheckpoint
from nppac_tf.training.collector import Collector
from nppac_tf.training.evaluator import Evaluator, Metrics, main_metric
from nppac_tf.training.guard import TemperatureGuard
from nppac_tf.training.learner import Learner
from nppac_tf.training.monitor import Monitor
from nppac_tf.training.replay import Replay
from nppac_tf.training.schedule import Schedule
from nppac_tf.training.transitions import (
    Transitions,
    of_demonstrations,
    over_steps,
    replayed,
)

_EPISODE_LIMIT = 200

EVALUATION_COLUMNS = (
    "env_steps",
    "updates",
    "wall_seconds",
    "eval/any_success",
    "eval/time_at_goal",
    "eval/final_success",
    "eval/return",
)
TRAINING_COLUMNS = tuple(
    f"train/{name}" for name in ("return", *NppacLossInfo._fields, "updates_per_second")
)


class Observer(Protocol):
    """Follows a run; any method may do nothing."""

    def on_progress(self, stage: str, done: int, total: int, metrics: Metrics) -> None:
        """`stage` is "pretraining" (of updates) or "training" (of environment steps)."""

    def on_evaluation(self, row: Metrics) -> None:
        """`row` has `EVALUATION_COLUMNS` and, after the first epoch, `TRAINING_COLUMNS`.

        With an informative prior it has what `monitor.Monitor.measure` gives as well. The first row
        has the prior's metrics ("prior/return", ...) and, for a task without a success signal,
        "demonstrations/return" where the demonstrations have rewards.
        """

    def on_epoch(self, row: Metrics) -> None:
        """`row` has "env_steps" and `TRAINING_COLUMNS`: the end of an epoch's updates.

        Losses and the like are means over the epoch's last updates, 50 at most.
        """

    def on_notice(self, line: str) -> None:
        """`line` is something that a person should know."""


class Stopped(Exception):
    """A run was asked to stop, and did; with a checkpoint it can be resumed."""


def train(
    agent: NppacAgent,
    task: Task,
    demonstrations: Demonstrations | None = None,
    *,
    num_steps: int | None = None,
    config: TrainingConfig | None = None,
    observers: Sequence[Observer] = (),
    checkpoint: Callable[[NppacAgent, Replay], RunCheckpoint] | None = None,
    keep_best: Callable[[NppacAgent], None] | None = None,
    should_stop: Callable[[], Any] = lambda: False,
) -> list[Metrics]:
    """Trains an agent on a task.

    Args:
        agent: Changed in place.
        task: To collect from and to evaluate on.
        demonstrations: Set the units of observations in all networks; a network actor is fitted to
            the prior on their states, and the configuration may replay them. With none, the units
            are those of the first observations collected, and there is no pre-training. An agent
            that has been trained before keeps its units and is not pre-trained again.
        num_steps: Environment steps, in place of the configuration's `num_env_steps`.
        config: The loop's settings; defaults where None. With the seed of an earlier call the
            environments start in the same states again.
        observers: Called with progress, evaluations and notices.
        checkpoint: Makes the run's checkpoint from agent and replay; if it has one to restore,
            the run resumes from there, and ends as if it had never been interrupted. None saves
            nothing.
        keep_best: Called with the agent after each evaluation that is the best so far, by time at
            the goal, or return where the task has no goal.
        should_stop: Asked every second or so; once it returns true, the run saves and raises
            `Stopped`.

    Returns:
        One row of metrics per evaluation, the first before any environment step.

    Raises:
        Stopped: if `should_stop` returned true.
        UserError: if a loss or a parameter stops being finite, a checkpoint cannot be written or
            does not fit, or demonstrations are to be replayed that cannot be.
        FloatingPointError: if an observation, a reward or an action is not finite.
    """
    config = config or TrainingConfig()
    if num_steps is not None:
        config = dataclasses.replace(config, num_env_steps=num_steps)
    with contextlib.closing(
        VectorEnvironment(task, config.num_environments, config.seed)
    ) as environments:
        loop = _Loop(
            agent, task, demonstrations, environments, config, observers, keep_best, should_stop
        )
        saved = checkpoint(agent, loop.replay) if checkpoint else None
        return loop.run(saved)


class _Loop:
    """One run: its state, and the steps that change it."""

    def __init__(
        self,
        agent: NppacAgent,
        task: Task,
        demonstrations: Demonstrations | None,
        environments: VectorEnvironment,
        config: TrainingConfig,
        observers: Sequence[Observer],
        keep_best: Callable[[NppacAgent], None] | None,
        should_stop: Callable[[], Any],
    ) -> None:
        self._expert = replayed(demonstrations, task, config, agent.discount)
        self.replay = Replay(
            task.observation_size, task.action_size, _capacity(config, self._expert)
        )
        self._demonstrations = demonstrations
        self._agent = agent
        self._task = task
        self._environments = environments
        self._config = config
        self._observers = observers
        self._should_stop = should_stop
        self._keep_best = keep_best
        self._schedule = Schedule.of(config, agent.temperature)
        first, last = agent.temperature, config.final_temperature
        self._guard = TemperatureGuard(first, last, config.temperature_decay)
        self._steps_of_episodes = config.num_environments * (task.horizon or config.steps_per_epoch)
        self._learner = Learner(agent, self.replay, config, self._expert)
        self._collector = Collector(agent, environments, config)
        self._evaluator = Evaluator(
            *(agent, task, demonstrations, environments, self._collector, config),
            notice=self._notice,
            check=self._stop_if_asked,
        )

        self._env_steps = 0
        self._saved = -1  # environment steps of the latest checkpoint
        self._updates_before = int(agent.train_step_counter)
        self._started = time.monotonic()
        self._monitor: Monitor | None = None
        self._rows: list[Metrics] = []  # one per evaluation
        self._epochs: list[Metrics] = []  # one per epoch
        self._losses: Metrics = {}  # of the latest updates

    def run(self, saved: RunCheckpoint | None) -> list[Metrics]:
        """Pre-trains or restores, and then trains until the configured step."""
        config = self._config
        if self._agent.kl_regularized:
            states = None if self._demonstrations is None else self._demonstrations.observations
            self._monitor = Monitor(self._agent, self.replay, states, self._notice, config.seed)
        restored = saved.restore(self._notice) if saved else None
        if restored:
            self._load_state_dict(restored)
        else:
            self._prepare()
        try:
            while True:
                self._learn()
                if self._due(config.eval_interval, self._evaluated):
                    self._evaluate()
                if saved and self._due(config.checkpoint_interval, self._saved):
                    saved.save(self._state_dict())
                    self._saved = self._env_steps
                if saved:
                    saved.check()
                if self._env_steps >= config.num_env_steps:
                    break
                self._collect()
        except Stopped:
            if saved:
                saved.save(self._state_dict())
            raise
        finally:
            if saved:
                saved.wait()
        return self._rows

    def _prepare(self) -> None:
        """What comes before the first step: units, replayed demonstrations, pre-training."""
        agent, config, demonstrations = self._agent, self._config, self._demonstrations
        if not self._updates_before and demonstrations is not None:
            agent.standardize(demonstrations.observations)
        if self._expert is not None and demonstrations is not None:
            # Rewards of single steps; those of `_expert` are sums over n steps.
            agent.calibrate_rewards(of_demonstrations(demonstrations, self._task).rewards)
            if config.prefill_replay:
                expert = Transitions(*(column[-self.replay.capacity :] for column in self._expert))
                self.replay.add(self._learner.with_statistics(expert, stride=config.n_step))
        wanted = agent.prior.informative and not agent.anchored and config.pretraining_steps > 0
        if not wanted or self._updates_before:
            return
        if demonstrations is None:
            self._notice("No pre-training: train() was given no demonstrations")
        else:
            self._learner.pretrain(demonstrations.observations, self._progress)

    @property
    def _evaluated(self) -> float:
        return self._rows[-1]["env_steps"] if self._rows else -1

    def _due(self, interval: int, done_at: float) -> bool:
        at_end = self._env_steps >= self._config.num_env_steps
        return self._env_steps != done_at and (at_end or self._env_steps % interval == 0)

    def _collect(self) -> None:
        config, steps = self._config, self._config.steps_per_epoch
        if limit := self._episode_limit():
            self._environments.limit_episodes(limit)
        transitions, mean_return = self._collector.collect(steps, self._env_steps)
        episodes = steps / self._steps_of_episodes * config.judged_environments
        learns = self._env_steps >= self._schedule.warmup
        self._guard.watch(self._collector.take_scores(), episodes if learns else 0.0)
        self._agent.calibrate_rewards(transitions.rewards)
        if self._demonstrations is None and not self._updates_before and self._env_steps == 0:
            self._agent.standardize(transitions.observations)
            self._evaluator.policy_changed()
        stride = config.num_environments
        transitions = over_steps(transitions, config.n_step, self._agent.discount, stride)
        self.replay.add(self._learner.with_statistics(transitions, stride * config.n_step))
        self._env_steps += steps
        self._losses = {"train/return": mean_return}

    def _episode_limit(self) -> int | None:
        """Steps of a training episode, see `TrainingConfig.episode_limit`."""
        has_success = not math.isnan(self._rows[0]["eval/any_success"])
        return self._config.episode_limit or (None if has_success else _EPISODE_LIMIT)

    def _learn(self) -> None:
        """The updates that the environment steps so far are worth."""
        config = self._config
        earned = config.offline_updates + round(self._env_steps * config.updates_per_step)
        wanted = self._updates_before + earned
        num_updates = wanted - int(self._agent.train_step_counter)
        started = time.monotonic()
        learn_policy = self._env_steps > self._schedule.warmup or self._schedule.warmup == 0
        imitate = (
            config.warmup_imitation
            and not learn_policy
            and not self._updates_before
            and not self._agent.anchored
            and self._agent.kl_regularized
        )
        if num_updates and (learn_policy or imitate):
            self._evaluator.policy_changed()
        if learn_policy:
            guarded, episode = self._guard.temperature, self._steps_of_episodes
            self._schedule.anchor(self._agent, guarded, self._env_steps, episode)
        for done, losses in self._learner.update(
            num_updates, learn_policy, imitate, self._schedule.averaging
        ):
            self._losses |= losses
            self._losses["train/updates_per_second"] = done / (time.monotonic() - started)
            fresh = config.steps_per_epoch * (1 - done / num_updates)
            self._progress("training", max(0, round(self._env_steps - fresh)), self._losses)
        if self._env_steps > (self._epochs[-1]["env_steps"] if self._epochs else 0):
            self._losses |= self._monitor.measure() if self._monitor else {}
            self._end_epoch({"env_steps": self._env_steps, **self._losses})

    def _evaluate(self) -> None:
        metrics = self._evaluator.measure(self._rows[-1] if self._rows else None)
        row = {
            "env_steps": self._env_steps,
            "updates": int(self._agent.train_step_counter),
            "wall_seconds": time.monotonic() - self._started,
            **metrics,
            **self._losses,
        }
        best = max((main_metric(past) for past in self._rows), default=-math.inf)
        self._end_evaluation(row)
        if self._keep_best is not None and main_metric(row) > best:
            self._keep_best(self._agent)

    def _end_epoch(self, row: Metrics) -> None:
        self._epochs.append(row)
        for observer in self._observers:
            observer.on_epoch(row)

    def _end_evaluation(self, row: Metrics) -> None:
        self._rows.append(row)
        for observer in self._observers:
            observer.on_evaluation(row)

    def _progress(self, stage: str, done: int, metrics: Metrics) -> None:
        total = (
            self._config.num_env_steps if stage == "training" else self._config.pretraining_steps
        )
        for observer in self._observers:
            observer.on_progress(stage, done, total, metrics)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise Stopped

    def _notice(self, line: str) -> None:
        for observer in self._observers:
            observer.on_notice(line)

    def _state_dict(self) -> dict[str, Any]:
        return {
            "env_steps": self._env_steps,
            "updates_before": self._updates_before,
            "wall_seconds": time.monotonic() - self._started,
            "rows": self._rows,
            "epochs": self._epochs,
            "losses": self._losses,
            "environments": self._environments.state_dict(),
            "collector": self._collector.state_dict(),
            "dominated_epochs": self._monitor.dominated_epochs if self._monitor else 0,
            "schedule": dataclasses.asdict(self._schedule),
            "guard": self._guard.state_dict(),
        }

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        self._env_steps = state["env_steps"]
        self._updates_before = state["updates_before"]
        self._started -= state["wall_seconds"]
        self._losses = state["losses"]
        self._schedule = Schedule(**state["schedule"])
        if "guard" in state:  # Older checkpoints have a fixed schedule.
            self._guard.load_state_dict(state["guard"])
        if self._monitor:
            self._monitor.dominated_epochs = state.get("dominated_epochs", 0)
        unrepeated = self._environments.load_state_dict(state["environments"])
        if unrepeated:
            self._notice(
                f"{self._task.name} is not deterministic: {len(unrepeated)} of "
                f"{self._environments.num_environments} environments start a new episode, so the "
                "resumed run differs from an uninterrupted one"
            )
        self._collector.load_state_dict(state["collector"], unrepeated)
        # The observers get everything again, in the order in which it happened.
        past = [(row, self._end_epoch) for row in state["epochs"]]
        past += [(row, self._end_evaluation) for row in state["rows"]]
        for row, tell in sorted(past, key=lambda item: item[0]["env_steps"]):
            tell(row)
        total = self._config.num_env_steps
        if self._env_steps < total:
            self._notice(f"Resuming at step {self._env_steps:,} of {total:,}")
        else:
            self._notice(
                f"All {self._env_steps:,} steps are done; a larger num_env_steps adds more"
            )


def _capacity(config: TrainingConfig, expert: Transitions | None) -> int:
    """Rows of the replay: as many as the run needs, and no more than allowed."""
    needed = max(1, math.ceil(config.num_env_steps / config.steps_per_epoch))
    needed *= config.steps_per_epoch
    if expert is not None and config.prefill_replay:
        needed += len(expert.rewards)
    return min(config.replay_capacity, needed)
