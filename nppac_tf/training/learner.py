"""The compiled parts of training: pre-training, updates, and the prior's statistics in bulk."""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from nppac_tf.agents.batch import Batch, States
from nppac_tf.agents.nppac import NppacAgent, NppacLossInfo
from nppac_tf.config import TrainingConfig
from nppac_tf.errors import UserError
from nppac_tf.priors.base import BehavioralPrior, PriorStatistics
from nppac_tf.seeding import derive_seed
from nppac_tf.training.replay import Replay
from nppac_tf.training.transitions import Transitions

Losses = dict[str, float]

# Updates per compiled call: about a second of work, so that signals and progress do not wait.
_CHUNK = 50
# States per call of the prior.
_STATISTICS_CHUNK = 4096
_PRETRAINING_LEARNING_RATE = 1e-3


class Learner:
    """The compiled parts: pre-training, updates, and the prior's statistics in bulk."""

    def __init__(
        self,
        agent: NppacAgent,
        replay: Replay,
        config: TrainingConfig,
        expert: Transitions | None = None,
    ) -> None:
        """With a `demonstration_share`, `expert` is what that share is drawn from."""
        self._agent = agent
        self._demonstration_seed = derive_seed(config.seed, "demonstrations")
        self._prior: BehavioralPrior = agent.prior
        self._replay = replay
        self._config = config
        self._replay_seed = derive_seed(config.seed, "replay")
        self._pretraining_seed = derive_seed(config.seed, "pretraining")
        self._pretraining_action_seed = derive_seed(config.seed, "pretraining actions")
        self._imitation_seed = derive_seed(config.seed, "imitation")
        jit_compile = use_xla(config.xla)
        self._statistics_of_chunk = tf.function(
            self._prior.statistics,
            input_signature=[tf.TensorSpec([None, agent.prior.observation_size], tf.float32)],
        )
        self._update_loop = tf.function(self._updates, jit_compile=jit_compile)
        self._all_finite = tf.function(
            lambda: tf.reduce_all(
                [tf.reduce_all(tf.math.is_finite(weights)) for weights in agent.parameters]
            ),
            autograph=False,
        )
        self._pretraining_loop = tf.function(self._pretraining, jit_compile=jit_compile)
        self._demonstrations: Replay | None = None
        if expert is not None and config.demonstration_share:
            sizes = agent.prior.observation_size, agent.prior.action_size
            self._demonstrations = Replay(*sizes, len(expert.rewards))
            self._demonstrations.add(self.with_statistics(expert, stride=config.n_step))

    def _statistics(self, states: np.ndarray) -> PriorStatistics:
        """The prior's, in chunks, so that memory does not grow with the number of states."""
        parts = [
            self._statistics_of_chunk(tf.constant(states[first : first + _STATISTICS_CHUNK]))
            for first in range(0, len(states), _STATISTICS_CHUNK)
        ]
        return PriorStatistics(*(tf.concat(column, axis=0) for column in zip(*parts, strict=True)))

    def with_statistics(self, transitions: Transitions, stride: int) -> Batch:
        """Transitions, in the order of time, with the prior's statistics at both ends.

        A state that ends one transition and begins the one `stride` rows later is evaluated once.
        """
        observations, actions, rewards, discounts, next_observations, _ = transitions
        size = len(observations)
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

    def update(
        self, num_updates: int, learn_policy: bool, imitate: bool = False, averaging: int = 1
    ) -> Iterator[tuple[int, Losses]]:
        """Runs updates in compiled chunks; yields how many are done, and a chunk's mean losses.

        Args:
            num_updates: Number of critic updates.
            learn_policy: Whether the actor and the temperature learn from the critics.
            imitate: Whether the actor is fitted to the prior on the same states.
            averaging: Updates over which the evaluated policy averages the actor's weights.

        Raises:
            UserError: if a loss or a parameter is not finite.
        """
        done = 0
        while done < num_updates:
            chunk = min(_CHUNK, num_updates - done)
            sums, counts = self._update_loop(tf.constant(chunk), learn_policy, imitate, averaging)
            done += chunk
            losses = {
                f"train/{name}": float(total / count)
                for name, total, count in zip(
                    NppacLossInfo._fields, sums.numpy(), counts.numpy(), strict=True
                )
                if count
            }
            self._check_finite(losses, int(self._agent.train_step_counter))
            yield done, losses

    def _check_finite(self, losses: Losses, updates: int) -> None:
        broken = [name for name, value in losses.items() if not np.isfinite(value)]
        if not broken and not self._all_finite():
            broken = ["a parameter"]
        if broken:
            raise UserError(
                f"{', '.join(broken)} stopped being finite before update {updates}: try a larger "
                "--scale_floor, a smaller --learning_rate, or --critic_layer_norm"
            )

    def _updates(
        self, num_updates: tf.Tensor, learn_policy: bool, imitate: bool, averaging: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Sums of the losses, and how many of each there were."""
        interval = self._config.policy_interval
        sums = tf.zeros([len(NppacLossInfo._fields)])
        counts = tf.zeros_like(sums)
        for _ in tf.range(num_updates):
            step = self._agent.train_step_counter.value()
            batches = self._sample(tf.cast(step, tf.int32))
            if interval == 1:
                losses, known = self._update(*batches, learn_policy, imitate, averaging)
            else:
                losses, known = tf.cond(
                    (step + 1) % interval == 0,
                    functools.partial(self._update, *batches, learn_policy, imitate, averaging),
                    functools.partial(self._update_critics, batches[0]),
                )
            sums += losses
            counts += known
        return sums, counts

    def _update(
        self,
        batch: Batch,
        policy_batch: Batch | None,
        learn_policy: bool,
        imitate: bool,
        averaging: int,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        info = self._agent.update(
            batch, learn_policy=learn_policy, policy_batch=policy_batch, averaging=averaging
        )
        losses = tf.stack(info.extra)
        if imitate:
            step = tf.cast(self._agent.train_step_counter, tf.int32)
            seed = tf.stack([self._imitation_seed, step])
            self._agent.imitate((policy_batch or batch).states, seed)
        return losses, tf.ones_like(losses)

    def _update_critics(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        known = tf.one_hot(NppacLossInfo._fields.index("critic_loss"), len(NppacLossInfo._fields))
        return self._agent.update_critics(batch) * known, known

    def _sample(self, step: tf.Tensor) -> tuple[Batch, Batch | None]:
        """What the critics learn from, and what the actor does where that is something else."""
        config = self._config
        seeds = [tf.stack([seed, step]) for seed in (self._replay_seed, self._demonstration_seed)]
        if self._demonstrations is None:
            return self._replay.sample(config.batch_size, seeds[0]), None
        expert_size = round(config.demonstration_share * config.batch_size)
        online = self._replay.sample(config.batch_size - expert_size, seeds[0])
        expert = self._demonstrations.sample(expert_size, seeds[1])
        together = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), online, expert)
        return together, online if config.demonstrations_teach == "critics" else None

    def pretrain(self, observations: np.ndarray, progress: Callable[..., None]) -> None:
        """Fits a network actor to the prior on demonstration states [N, D], by KL."""
        total = self._config.pretraining_steps
        rate = tf.keras.optimizers.schedules.CosineDecay(_PRETRAINING_LEARNING_RATE, total)
        self._pretraining_optimizer = tf.keras.optimizers.legacy.Adam(rate)
        states = tf.constant(observations)
        statistics = self._statistics(observations)
        for first in range(0, total, 10 * _CHUNK):
            last = min(first + 10 * _CHUNK, total)
            kl = self._pretraining_loop(
                states, statistics, tf.constant(first), tf.constant(last)
            ).numpy() / (last - first)
            self._check_finite({"train/kl": kl}, last)
            progress("pretraining", last, {"train/kl": float(kl)})
        self._agent.restart_average()

    def _pretraining(
        self, states: tf.Tensor, statistics: PriorStatistics, first: tf.Tensor, last: tf.Tensor
    ) -> tf.Tensor:
        total = tf.zeros([])
        size = tf.shape(states, out_type=tf.int64)[0]
        for step in tf.range(first, last):
            seed = tf.stack([self._pretraining_seed, step])
            indices = tf.random.stateless_uniform(
                [self._config.pretraining_batch_size], seed, 0, size, tf.int64
            )
            targets = PriorStatistics(*(tf.gather(values, indices) for values in statistics))
            batch = States.at(tf.gather(states, indices), targets)
            sample_seed = tf.stack([self._pretraining_action_seed, step])
            total += self._agent.imitate(batch, sample_seed, self._pretraining_optimizer)
        return total


def use_xla(mode: str) -> bool:
    """Whether to compile with XLA: "on", "off", or "auto", which means with a GPU.

    On a CPU TensorFlow's own kernels are about twice as fast as XLA's.
    """
    return mode == "on" or (mode == "auto" and bool(tf.config.list_physical_devices("GPU")))
