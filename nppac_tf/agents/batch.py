"""A batch of transitions with the prior's statistics: what an update learns from."""

from typing import NamedTuple

import tensorflow as tf

from nppac_tf.priors.base import PriorStatistics


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
