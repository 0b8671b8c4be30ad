"""Collecting experience: the environments stepped with the policy, in plain Python."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from nppac_tf.agents.networks import SquashedGaussian
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.environments import VectorEnvironment
from nppac_tf.seeding import derive_seed
from nppac_tf.training.transitions import Transitions


class Collector:
    """Steps the environments with samples of the policy, and some with its mean.

    Args:
        agent: Whose policy.
        environments: To step.
        seed: Of the samples.
        num_greedy: Environments, the first ones, that take the newest policy's mean action.
            Evaluation takes that of its average, and can hang where noise would go on.
        spread: At least 1. The other environments' noise is the policy's times factors that rise
            evenly from 1 to this (as in Horgan et al. 2018, "Distributed prioritized experience
            replay", of epsilon): the critics see what lies beside the policy before it goes there.
    """

    def __init__(
        self,
        agent: NppacAgent,
        environments: VectorEnvironment,
        seed: int,
        num_greedy: int = 0,
        spread: float = 1.0,
    ) -> None:
        self._environments = environments
        self._seed = derive_seed(seed, "collection")
        self._returns = np.zeros(environments.num_environments)
        self._finished: collections.deque[float] = collections.deque(
            maxlen=environments.num_environments
        )
        actor = agent.actor_network
        num_exploring = environments.num_environments - num_greedy
        factors = np.ones([environments.num_environments, 1], np.float32)
        factors[num_greedy:, 0] = np.linspace(1.0, spread, num_exploring)

        @tf.function(autograph=False)
        def act(observations: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            distribution = actor(observations, step_type=(), network_state=())[0]
            if spread == 1:
                sampled = distribution.sample(seed=seed)
            else:
                sampled = _spread_sample(distribution, factors, seed)
            if num_greedy == 0:
                return sampled
            return tf.concat([distribution.mode()[:num_greedy], sampled[num_greedy:]], axis=0)

        self._act = act

    def collect(self, num_steps: int, first_step: int) -> tuple[Transitions, float]:
        """`num_steps` transitions, and the mean return of the latest finished episodes.

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

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs: the returns of episodes underway and of finished ones."""
        return {"returns": self._returns.copy(), "finished": [float(r) for r in self._finished]}

    def load_state_dict(self, state: dict[str, Any], begun_anew: Sequence[int] = ()) -> None:
        """Goes on from a saved state, but for environments whose episodes began anew."""
        self._returns = np.array(state["returns"], np.float64)
        self._returns[list(begun_anew)] = 0.0
        self._finished.extend(state["finished"])

    def _record(self, rewards: np.ndarray, ends: np.ndarray) -> None:
        self._returns += rewards
        self._finished.extend(self._returns[ends])
        self._returns[ends] = 0.0


def _spread_sample(
    distribution: tfp.distributions.Distribution, factors: np.ndarray, seed: tf.Tensor
) -> tf.Tensor:
    """Actions [B, A] with the Gaussian's deviation times factors [B, 1], before a tanh if any."""
    squashed = isinstance(distribution, SquashedGaussian)
    gaussian = distribution.distribution if squashed else distribution
    mean = gaussian.mean()
    wide = mean + factors * (gaussian.sample(seed=seed) - mean)
    return distribution.bijector.forward(wide) if squashed else wide
