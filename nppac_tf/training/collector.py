"""Collecting experience: the environments stepped with the policy, in plain Python."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from nppac_tf.agents.actors import SquashedGaussian
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import TrainingConfig
from nppac_tf.environments import VectorEnvironment
from nppac_tf.seeding import derive_seed
from nppac_tf.training.transitions import Transitions


class Collector:
    """Steps the environments with samples of the policy, and some with its mean.

    The first environments take the newest policy's mean action. (Evaluation takes that of its
    average, and can hang where noise would carry on.) The noise of the others is the policy's times
    factors that rise evenly from 1 to the exploration spread (as epsilon in Horgan et al. 2018,
    "Distributed prioritized experience replay"): the critics see what lies beside the policy before
    it goes there.

    With an episode limit, the replay sees starts often, and an environment that hangs starts again:
    four of five environments cut their episodes there. A cut is a truncation, not an end.

    Args:
        agent: Whose policy.
        environments: To step.
        config: `greedy_environments`, `exploration_spread` and seed.
    """

    def __init__(
        self, agent: NppacAgent, environments: VectorEnvironment, config: TrainingConfig
    ) -> None:
        self._environments = environments
        self._seed = derive_seed(config.seed, "collection")
        self._returns = np.zeros(environments.num_environments)
        self._finished: collections.deque[float] = collections.deque(
            maxlen=environments.num_environments
        )
        actor, num_greedy = agent.actor_network, config.greedy_environments
        self._num_judged = config.judged_environments
        self._default_length = config.steps_per_epoch
        self._scores: list[float] = []
        factors = np.zeros([environments.num_environments, 1], np.float32)
        factors[num_greedy:, 0] = np.linspace(
            1.0, config.exploration_spread, environments.num_environments - num_greedy
        )

        @tf.function(autograph=False)
        def act(observations: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            distribution = actor(observations, step_type=(), network_state=())[0]
            return _scaled_sample(distribution, factors, seed)

        self._act = act

    def collect(self, num_steps: int, first_step: int) -> tuple[Transitions, float]:
        """`num_steps` transitions, and the mean return of the latest whole episodes.

        Returns:
            Transitions in the order of time, the environments' side by side, and a return; nan
            before the first episode ends.
        """
        parts: list[Transitions] = []
        batch = self._environments.num_environments
        for offset in range(0, num_steps, batch):
            observations = self._environments.observations
            seed = tf.constant([self._seed, first_step + offset])
            actions = self._act(tf.constant(observations), seed).numpy()
            step = self._environments.step(actions)
            ends = step.terminations | step.truncations
            self._record(step.rewards, ends)
            discounts = 1.0 - step.terminations.astype(np.float32)
            parts.append(
                Transitions(
                    observations, actions, step.rewards, discounts, step.next_observations, ends
                )
            )
        transitions = Transitions(*map(np.concatenate, zip(*parts, strict=True)))
        return transitions, float(np.mean(self._finished)) if self._finished else float("nan")

    def take_scores(self) -> list[float]:
        """Returns per step of the judged episodes that ended since the last call.

        A step counts whether or not the episode reached it: one that falls scores less.
        """
        scores, self._scores = self._scores, []
        return scores

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs: the returns of episodes underway and of finished ones."""
        return {"returns": self._returns.copy(), "finished": [float(r) for r in self._finished]}

    def load_state_dict(self, state: dict[str, Any], restarted: Sequence[int] = ()) -> None:
        """Restores a saved state, but for environments whose episodes restarted."""
        self._returns = np.array(state["returns"], np.float64)
        self.drop_episodes(restarted)
        self._finished.extend(state["finished"])

    def drop_episodes(self, restarted: Sequence[int]) -> None:
        """Forgets the returns so far of environments whose episodes restarted."""
        self._returns[list(restarted)] = 0.0

    def _record(self, rewards: np.ndarray, ends: np.ndarray) -> None:
        self._returns += rewards
        self._finished.extend(self._returns[ends & self._environments.whole])
        judged = np.flatnonzero(ends[: self._num_judged])
        if judged.size:
            longest = self._environments.longest[judged]
            lengths = np.where(np.isinf(longest), self._default_length, longest)
            self._scores.extend((self._returns[judged] / lengths).tolist())
        self._returns[ends] = 0.0


def _scaled_sample(
    distribution: tfp.distributions.Distribution, factors: np.ndarray, seed: tf.Tensor
) -> tf.Tensor:
    """Actions [B, A] with the Gaussian's scale times factors [B, 1], before a tanh if any."""
    squashed = isinstance(distribution, SquashedGaussian)
    gaussian = distribution.distribution if squashed else distribution
    mean = gaussian.mean()
    sampled = mean + factors * (gaussian.sample(seed=seed) - mean)
    return distribution.bijector.forward(sampled) if squashed else sampled
