"""What an update learns from: transitions, and the prior's statistics at both ends.

The losses read `states`, `actions`, `rewards`, `discounts` and `next_states`. A `Batch` comes from
the project's own replay, an `Experience` from a TF-Agents program.
"""

from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from nppac_tf.priors.base import PriorStatistics


class States(NamedTuple):
    """States as TF-Agents' networks and policies take them, and pi0's statistics there.

    The observations of `time_steps` are [B, D]; in TF-Agents' programs they may be any nest and
    have a time axis, [B, T, ...], which the statistics then have as well.
    """

    time_steps: ts.TimeStep
    prior: PriorStatistics

    @classmethod
    def at(cls, observations: tf.Tensor, prior: PriorStatistics) -> "States":
        """States within an episode, at observations [B, D]."""
        observations = tf.convert_to_tensor(observations)
        return cls(ts.transition(observations, tf.zeros(tf.shape(observations)[:1])), prior)

    @property
    def observations(self) -> Any:
        """[B, D], or as TF-Agents has them."""
        return self.time_steps.observation


class Batch(NamedTuple):
    """B transitions and pi0's statistics at both ends; all float32.

    `discounts` [B] are 0 where the episode terminated at s' and 1 elsewhere (also where it was cut
    off by its horizon); after m steps summed into one, the discount to the power m - 1.
    """

    observations: tf.Tensor
    actions: tf.Tensor
    rewards: tf.Tensor
    discounts: tf.Tensor
    next_observations: tf.Tensor
    prior: PriorStatistics
    next_prior: PriorStatistics

    @property
    def states(self) -> States:
        """Where the actions were taken."""
        return States.at(self.observations, self.prior)

    @property
    def next_states(self) -> States:
        """Where they led."""
        return States.at(self.next_observations, self.next_prior)


class Experience(NamedTuple):
    """Transitions [B] or sequences of them [B, T], with states and actions of any structure."""

    states: States
    actions: Any
    next_states: States

    @property
    def rewards(self) -> tf.Tensor:
        """[B] or [B, T]."""
        return self.next_states.time_steps.reward

    @property
    def discounts(self) -> tf.Tensor:
        """[B] or [B, T], as of `Batch`."""
        return self.next_states.time_steps.discount
