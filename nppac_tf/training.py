"""The training loop: pre-train, then collect, update, evaluate, save.

Environments are stepped in plain Python, many at once. Updates run in a compiled loop over a replay
that holds the prior's statistics. What happens is told to observers, which print, write or draw it.
"""

import collections
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from nppac_tf import evaluation
from nppac_tf.agent import NppacAgent, NppacLossInfo
from nppac_tf.checkpoints import RunCheckpoint
from nppac_tf.config import TrainingConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task, VectorEnvironment
from nppac_tf.errors import UserError
from nppac_tf.priors.base import BehavioralPrior, PriorStatistics
from nppac_tf.replay import Batch, Replay
from nppac_tf.seeding import derive_seed

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

# Updates per compiled call: about a second of work, so that signals and progress do not wait.
_CHUNK = 50
_PRETRAINING_LEARNING_RATE = 1e-3


class Observer(Protocol):
    """Is told what a run does; any method may be left as it is."""

    def on_progress(self, stage: str, done: int, total: int, metrics: Metrics) -> None:
        """`stage` is "pretraining" (of updates) or "training" (of environment steps)."""

    def on_evaluation(self, row: Metrics) -> None:
        """`row` has `EVALUATION_COLUMNS` and, after the first update, `TRAINING_COLUMNS`."""


def train(
    agent: NppacAgent,
    task: Task,
    demonstrations: Demonstrations | None = None,
    *,
    num_steps: int | None = None,
    config: TrainingConfig | None = None,
    observers: Sequence[Observer] = (),
    checkpoint: Callable[[NppacAgent, Replay], RunCheckpoint] | None = None,
) -> list[Metrics]:
    """Trains an agent on a task.

    Args:
        agent: Changed in place.
        task: To collect from and to be evaluated on.
        demonstrations: On whose states the actor is pre-trained to the prior. None for no
            pre-training; nor is there any with a uniform prior, or of an agent that has learned
            before.
        num_steps: Environment steps, in place of the configuration's `num_env_steps`.
        config: The loop's settings; defaults where None.
        observers: Told of progress and evaluations.
        checkpoint: Makes the run's checkpoint from agent and replay; if it has one to restore,
            the run goes on from there. None saves nothing.

    Returns:
        One row of metrics per evaluation, the first before any environment step.

    Raises:
        UserError: if a loss stops being finite.
    """
    config = config or TrainingConfig()
    total = config.num_env_steps if num_steps is None else num_steps
    epochs = max(1, math.ceil(total / config.steps_per_epoch))
    capacity = min(config.replay_capacity, epochs * config.steps_per_epoch)
    replay = Replay(task.observation_size, task.action_size, capacity)
    learner = Learner(agent, replay, config)
    environments = VectorEnvironment(task, config.num_environments, config.seed)
    policy = evaluation.as_policy_function(agent.policy)
    saved = checkpoint(agent, replay) if checkpoint else None
    rows: list[Metrics] = []
    env_steps, started = 0, time.monotonic()
    losses: Metrics = {}

    def progress(stage: str, done: int, of: int, metrics: Metrics) -> None:
        for observer in observers:
            observer.on_progress(stage, done, of, metrics)

    def evaluate() -> None:
        episodes = evaluation.evaluate(policy, task, config.eval_episodes)
        row = {
            "env_steps": env_steps,
            "updates": int(agent.train_step_counter),
            "wall_seconds": time.monotonic() - started,
            **episodes.summary(),
            **losses,
        }
        rows.append(row)
        for observer in observers:
            observer.on_evaluation(row)

    updates_before = int(agent.train_step_counter)
    restored = saved.restore() if saved else None
    if restored:
        replay.reserve()
        env_steps, rows = restored["env_steps"], restored["rows"]
        updates_before = restored["updates_before"]
        started -= restored["wall_seconds"]
        environments.load_state_dict(restored["environments"])
        for row in rows:
            for observer in observers:
                observer.on_evaluation(row)
    else:
        fresh_to_prior = agent.prior.informative and not updates_before
        if demonstrations is not None and config.pretraining_steps and fresh_to_prior:
            learner.pretrain(demonstrations.observations, progress)
        evaluate()

    collector = Collector(agent, environments, config.seed)
    while env_steps < total:
        transitions, mean_return = collector.collect(config.steps_per_epoch, env_steps)
        replay.add(learner.with_statistics(*transitions))
        env_steps += config.steps_per_epoch

        updates_due = updates_before + round(env_steps * config.updates_per_step)
        num_updates = updates_due - int(agent.train_step_counter)
        epoch_started = time.monotonic()
        learn_policy = env_steps > config.critic_warmup_steps
        for done, losses in learner.update(num_updates, learn_policy):
            losses["train/return"] = mean_return
            losses["train/updates_per_second"] = done / (time.monotonic() - epoch_started)
            fresh = config.steps_per_epoch * (1 - done / num_updates)
            progress("training", round(env_steps - fresh), total, losses)
        if env_steps % config.eval_interval == 0 or env_steps >= total:
            evaluate()
        if saved and (env_steps % config.checkpoint_interval == 0 or env_steps >= total):
            saved.save(
                {
                    "env_steps": env_steps,
                    "updates_before": updates_before,
                    "wall_seconds": time.monotonic() - started,
                    "rows": rows,
                    "environments": environments.state_dict(),
                }
            )
    environments.close()
    return rows


class Collector:
    """Steps the environments with samples of the policy."""

    def __init__(self, agent: NppacAgent, environments: VectorEnvironment, seed: int) -> None:
        self._environments = environments
        self._seed = derive_seed(seed, "collection")
        self._returns = np.zeros(environments.num_environments)
        self._finished: collections.deque[float] = collections.deque(
            maxlen=environments.num_environments
        )
        actor = agent.actor_network

        @tf.function(autograph=False)
        def sample(observations: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return actor(observations, step_type=(), network_state=())[0].sample(seed=seed)

        self._sample = sample

    def collect(self, num_steps: int, first_step: int) -> tuple[tuple[np.ndarray, ...], float]:
        """`num_steps` transitions, and the mean return of the latest finished episodes.

        Returns:
            Arrays of observations, actions, rewards, discounts and next observations, each
            [num_steps, ...], and a return; nan before the first episode ends.
        """
        columns: list[tuple[np.ndarray, ...]] = []
        batch = self._environments.num_environments
        for offset in range(0, num_steps, batch):
            observations = self._environments.observations
            seed = tf.constant([self._seed, first_step + offset])
            actions = self._sample(tf.constant(observations), seed).numpy()
            step = self._environments.step(actions)
            self._record(step.rewards, step.terminations | step.truncations)
            discounts = 1.0 - step.terminations.astype(np.float32)
            columns.append((observations, actions, step.rewards, discounts, step.next_observations))
        arrays = tuple(np.concatenate(column) for column in zip(*columns, strict=True))
        return arrays, float(np.mean(self._finished)) if self._finished else float("nan")

    def _record(self, rewards: np.ndarray, ends: np.ndarray) -> None:
        self._returns += rewards
        self._finished.extend(self._returns[ends])
        self._returns[ends] = 0.0


class Learner:
    """The compiled parts: pre-training, updates, and the prior's statistics in bulk."""

    def __init__(self, agent: NppacAgent, replay: Replay, config: TrainingConfig) -> None:
        self._agent = agent
        self._prior: BehavioralPrior = agent.prior
        self._replay = replay
        self._config = config
        self._replay_seed = derive_seed(config.seed, "replay")
        self._pretraining_seed = derive_seed(config.seed, "pretraining")
        self._pretraining_action_seed = derive_seed(config.seed, "pretraining actions")
        self._noise_seed = derive_seed(config.seed, "pretraining noise")
        jit_compile = use_xla(config.xla)
        self._statistics = tf.function(
            self._prior.statistics,
            input_signature=[tf.TensorSpec([None, agent.prior.observation_size], tf.float32)],
        )
        # Two functions, since one may create an optimizer's variables in its first trace only.
        self._update_loops = {
            learn_policy: tf.function(
                functools.partial(self._updates, learn_policy=learn_policy),
                jit_compile=jit_compile,
            )
            for learn_policy in (False, True)
        }
        self._pretraining_loop = tf.function(self._pretraining, jit_compile=jit_compile)

    def with_statistics(
        self,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        discounts: np.ndarray,
        next_observations: np.ndarray,
    ) -> Batch:
        """Transitions, in the order of collection, with the prior's statistics at both ends.

        A state that ends one transition and begins its environment's next is evaluated once.
        """
        size, stride = len(observations), self._config.num_environments
        later = np.arange(size) + stride
        repeated = later < size
        repeated[repeated] = (next_observations[repeated] == observations[later[repeated]]).all(
            axis=1
        )
        rows = np.where(repeated, later, size + np.cumsum(~repeated) - 1)
        states = np.concatenate([observations, next_observations[~repeated]])
        statistics = self._statistics(states)
        prior = PriorStatistics(*(values[:size] for values in statistics))
        next_prior = PriorStatistics(*(tf.gather(values, rows) for values in statistics))
        return Batch(
            observations, actions, rewards, discounts, next_observations, prior, next_prior
        )

    def update(self, num_updates: int, learn_policy: bool) -> Iterator[tuple[int, Metrics]]:
        """Runs updates in compiled chunks; yields how many are done, and their mean losses.

        Raises:
            UserError: if a loss is not finite.
        """
        done = 0
        while done < num_updates:
            chunk = min(_CHUNK, num_updates - done)
            means = self._update_loops[learn_policy](tf.constant(chunk)).numpy() / chunk
            done += chunk
            losses = {
                f"train/{name}": float(value)
                for name, value in zip(NppacLossInfo._fields, means, strict=True)
            }
            _check_finite(losses, int(self._agent.train_step_counter))
            yield done, losses

    def _updates(self, num_updates: tf.Tensor, learn_policy: bool) -> tf.Tensor:
        sums = tf.zeros([len(NppacLossInfo._fields)])
        for _ in tf.range(num_updates):
            seed = [self._replay_seed, tf.cast(self._agent.train_step_counter, tf.int32)]
            batch = self._replay.sample(self._config.batch_size, tf.stack(seed))
            sums += tf.stack(self._agent.update(batch, learn_policy=learn_policy).extra)
        return sums

    def pretrain(self, observations: np.ndarray, progress: Callable[..., None]) -> None:
        """Fits the actor to the prior on demonstration states [N, D], by KL.

        With `pretraining_noise` the actor sees the states with Gaussian noise, and the prior
        without: a penalty on the policy's slope (Bishop 1995).
        """
        total = self._config.pretraining_steps
        rate = tf.keras.optimizers.schedules.CosineDecay(_PRETRAINING_LEARNING_RATE, total)
        self._pretraining_optimizer = tf.keras.optimizers.legacy.Adam(rate)
        states = tf.constant(observations)
        statistics = self._statistics(states)
        for first in range(0, total, 10 * _CHUNK):
            last = min(first + 10 * _CHUNK, total)
            kl = self._pretraining_loop(
                states, statistics, tf.constant(first), tf.constant(last)
            ).numpy() / (last - first)
            _check_finite({"train/kl": kl}, last)
            progress("pretraining", last, total, {"train/kl": float(kl)})

    def _pretraining(
        self, states: tf.Tensor, statistics: PriorStatistics, first: tf.Tensor, last: tf.Tensor
    ) -> tf.Tensor:
        total = tf.zeros([])
        size = tf.shape(states, out_type=tf.int64)[0]
        noise_scale = self._config.pretraining_noise * tf.math.reduce_std(states, axis=0)
        for step in tf.range(first, last):
            seed = tf.stack([self._pretraining_seed, step])
            indices = tf.random.stateless_uniform(
                [self._config.pretraining_batch_size], seed, 0, size, tf.int64
            )
            batch = tf.gather(states, indices) + noise_scale * tf.random.stateless_normal(
                [self._config.pretraining_batch_size, states.shape[1]],
                tf.stack([self._noise_seed, step]),
            )
            targets = PriorStatistics(*(tf.gather(values, indices) for values in statistics))
            sample_seed = tf.stack([self._pretraining_action_seed, step])
            total += self._agent.pretrain(batch, targets, self._pretraining_optimizer, sample_seed)
        return total


def use_xla(mode: str) -> bool:
    """Whether to compile with XLA: "on", "off", or "auto", which means with a GPU.

    On a CPU TensorFlow's own kernels are about twice as fast as XLA's.
    """
    return mode == "on" or (mode == "auto" and bool(tf.config.list_physical_devices("GPU")))


def _check_finite(losses: Metrics, updates: int) -> None:
    broken = [name for name, value in losses.items() if not np.isfinite(value)]
    if broken:
        raise UserError(
            f"{', '.join(broken)} stopped being finite before update {updates}; try a larger "
            "--scale_floor, a smaller --learning_rate, or --critic_layer_norm"
        )
