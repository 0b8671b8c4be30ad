"""The training loop: pre-train, then collect, update, evaluate, save.

Environments are stepped in plain Python, many at once. Updates run in a compiled loop over a replay
that holds the prior's statistics. What happens is told to observers, which print, write or draw it.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from nppac_tf.agents.nppac import NppacAgent, NppacLossInfo
from nppac_tf.config import TrainingConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task, VectorEnvironment
from nppac_tf.errors import UserError
from nppac_tf.evaluation import rollouts
from nppac_tf.training.checkpoints import RunCheckpoint
from nppac_tf.training.collector import Collector
from nppac_tf.training.learner import Learner
from nppac_tf.training.monitor import Monitor
from nppac_tf.training.replay import Replay
from nppac_tf.training.transitions import Transitions, of_demonstrations, over_steps

Metrics = dict[str, float]

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
    """Is told what a run does; any method may be left as it is."""

    def on_progress(self, stage: str, done: int, total: int, metrics: Metrics) -> None:
        """`stage` is "pretraining" (of updates) or "training" (of environment steps)."""

    def on_evaluation(self, row: Metrics) -> None:
        """`row` has `EVALUATION_COLUMNS` and, after the first epoch, `TRAINING_COLUMNS`.

        With an informative prior it has what `monitor.Monitor.measure` gives as well.
        """

    def on_epoch(self, row: Metrics) -> None:
        """`row` has "env_steps" and `TRAINING_COLUMNS`: the end of an epoch's updates.

        Losses and the like are means over the epoch's last updates, 50 at most.
        """

    def on_notice(self, line: str) -> None:
        """Something that a person should know of."""


class Stopped(Exception):
    """A run was asked to stop, and did; with a checkpoint it can go on as if it had not."""


def train(
    agent: NppacAgent,
    task: Task,
    demonstrations: Demonstrations | None = None,
    *,
    num_steps: int | None = None,
    config: TrainingConfig | None = None,
    observers: Sequence[Observer] = (),
    checkpoint: Callable[[NppacAgent, Replay], RunCheckpoint] | None = None,
    should_stop: Callable[[], Any] = lambda: False,
) -> list[Metrics]:
    """Trains an agent on a task.

    Args:
        agent: Changed in place.
        task: To collect from and to be evaluated on.
        demonstrations: On whose states the actor is pre-trained to the prior, and which the
            configuration may have replayed. None for no pre-training; nor is there any with a
            uniform prior, or of an agent that has learned before, which does not imitate the prior
            while its critics warm up either.
        num_steps: Environment steps, in place of the configuration's `num_env_steps`.
        config: The loop's settings; defaults where None. With the seed of an earlier call the
            environments begin in the same states again.
        observers: Told of progress, evaluations and what else is to be known.
        checkpoint: Makes the run's checkpoint from agent and replay; if it has one to restore,
            the run goes on from there, and ends as if it had never been interrupted. None saves
            nothing.
        should_stop: Asked every second or so; once it says yes, the run saves and raises `Stopped`.

    Returns:
        One row of metrics per evaluation, the first before any environment step.

    Raises:
        Stopped: if `should_stop` said so.
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
        loop = _Loop(agent, task, demonstrations, environments, config, observers, should_stop)
        saved = checkpoint(agent, loop.replay) if checkpoint else None
        return loop.run(saved)


class _Loop:
    """One run: what it has done so far, and how it goes on from there."""

    def __init__(
        self,
        agent: NppacAgent,
        task: Task,
        demonstrations: Demonstrations | None,
        environments: VectorEnvironment,
        config: TrainingConfig,
        observers: Sequence[Observer],
        should_stop: Callable[[], Any],
    ) -> None:
        expert = _replayed(demonstrations, task, config, agent.discount)
        epochs = max(1, math.ceil(config.num_env_steps / config.steps_per_epoch))
        needed = epochs * config.steps_per_epoch
        if expert is not None and config.prefill_replay:
            needed += len(expert.rewards)
        capacity = min(config.replay_capacity, needed)
        self.replay = Replay(task.observation_size, task.action_size, capacity)
        expert_replay = None
        if expert is not None and config.demonstration_share:
            expert_replay = Replay(task.observation_size, task.action_size, len(expert.rewards))
        self._expert = expert
        self._demonstrations = demonstrations
        self._agent = agent
        self._task = task
        self._environments = environments
        self._config = config
        self._observers = observers
        self._should_stop = should_stop
        self._learner = Learner(agent, self.replay, config, expert_replay)
        if expert is not None and expert_replay is not None:
            expert_replay.add(self._learner.with_statistics(expert, stride=config.n_step))
        self._collector = Collector(
            agent,
            environments,
            config.seed,
            config.greedy_environments,
            config.exploration_spread,
        )
        self._policy = rollouts.as_policy_function(agent.policy)

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
        config, demonstrations = self._config, self._demonstrations
        if self._agent.kl_regularized:
            states = None if demonstrations is None else demonstrations.observations
            self._monitor = Monitor(self._agent, self.replay, states, self._notice, config.seed)
        restored = saved.restore(self._notice) if saved else None
        fresh_to_prior = self._agent.prior.informative and not self._updates_before
        if not restored and self._expert is not None and config.prefill_replay:
            expert = Transitions(*(column[-self.replay.capacity :] for column in self._expert))
            self.replay.add(self._learner.with_statistics(expert, stride=config.n_step))
        if restored:
            self._load_state_dict(restored)
        elif demonstrations is not None and fresh_to_prior and config.pretraining_steps:
            self._learner.pretrain(demonstrations.observations, self._progress)
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

    @property
    def _evaluated(self) -> float:
        return self._rows[-1]["env_steps"] if self._rows else -1

    def _due(self, interval: int, done_at: float) -> bool:
        at_end = self._env_steps >= self._config.num_env_steps
        return self._env_steps != done_at and (at_end or self._env_steps % interval == 0)

    def _collect(self) -> None:
        config, steps = self._config, self._config.steps_per_epoch
        transitions, mean_return = self._collector.collect(steps, self._env_steps)
        stride = config.num_environments
        transitions = over_steps(transitions, config.n_step, self._agent.discount, stride)
        self.replay.add(self._learner.with_statistics(transitions, stride * config.n_step))
        self._env_steps += steps
        self._losses = {"train/return": mean_return}

    def _learn(self) -> None:
        """The updates that the environment steps so far are worth."""
        config = self._config
        earned = config.offline_updates + round(self._env_steps * config.updates_per_step)
        wanted = self._updates_before + earned
        num_updates = wanted - int(self._agent.train_step_counter)
        started = time.monotonic()
        warmup = config.critic_warmup_steps
        learn_policy = warmup == 0 or self._env_steps > warmup
        imitate = (
            config.warmup_imitation
            and not learn_policy
            and not self._updates_before
            and self._agent.kl_regularized
        )
        for done, losses in self._learner.update(num_updates, learn_policy, imitate):
            self._losses |= losses
            self._losses["train/updates_per_second"] = done / (time.monotonic() - started)
            fresh = config.steps_per_epoch * (1 - done / num_updates)
            self._progress("training", max(0, round(self._env_steps - fresh)), self._losses)
        if self._env_steps > (self._epochs[-1]["env_steps"] if self._epochs else 0):
            self._losses |= self._monitor.measure() if self._monitor else {}
            self._end_epoch({"env_steps": self._env_steps, **self._losses})

    def _evaluate(self) -> None:
        def policy(observations: np.ndarray) -> np.ndarray:
            self._stop_if_asked()
            return self._policy(observations)

        episodes = rollouts.evaluate(policy, self._task, self._config.eval_episodes)
        row = {
            "env_steps": self._env_steps,
            "updates": int(self._agent.train_step_counter),
            "wall_seconds": time.monotonic() - self._started,
            **episodes.summary(),
            **self._losses,
        }
        self._end_evaluation(row)

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
        }

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        self._env_steps = state["env_steps"]
        self._updates_before = state["updates_before"]
        self._started -= state["wall_seconds"]
        self._losses = state["losses"]
        if self._monitor:
            self._monitor.dominated_epochs = state.get("dominated_epochs", 0)
        unrepeated = self._environments.load_state_dict(state["environments"])
        if unrepeated:
            self._notice(
                f"{self._task.name} does not repeat itself: {len(unrepeated)} of "
                f"{self._environments.num_environments} environments begin a new episode, and the "
                "run goes on otherwise than it would have"
            )
        self._collector.load_state_dict(state["collector"], unrepeated)
        # The observers hear of everything again, in the order in which it happened.
        past = [(row, self._end_epoch) for row in state["epochs"]]
        past += [(row, self._end_evaluation) for row in state["rows"]]
        for row, tell in sorted(past, key=lambda item: item[0]["env_steps"]):
            tell(row)
        total = self._config.num_env_steps
        if self._env_steps < total:
            self._notice(f"Going on from step {self._env_steps:,} of {total:,}")
        else:
            self._notice(
                f"All {self._env_steps:,} steps are done: a larger num_env_steps adds to them"
            )


def _replayed(
    demonstrations: Demonstrations | None, task: Task, config: TrainingConfig, discount: float
) -> Transitions | None:
    """The demonstrations' transitions, if the configuration has them replayed."""
    if not (config.demonstration_share or config.prefill_replay):
        return None
    if demonstrations is None:
        raise UserError(
            "demonstration_share and prefill_replay need demonstrations; got none: pass them, or "
            "leave these out"
        )
    return over_steps(of_demonstrations(demonstrations, task), config.n_step, discount)
