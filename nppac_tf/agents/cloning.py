"""Behavioral cloning: the policy is the prior, and nothing is learned online (Pomerleau 1988).

With a network as prior this is cloning by maximum likelihood; with a Gaussian process it is the
posterior's mean.
"""

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network

from nppac_tf.agents.batch import Batch, Experience
from nppac_tf.agents.nppac import NppacAgent, NppacLossInfo
from nppac_tf.config import AgentConfig
from nppac_tf.priors.base import BehavioralPrior


class PriorNetwork(network.Network):
    """An actor [B, D] -> N(location, scale) [B, A] that is pi0 and has no weights.

    Args:
        observation_spec: Spec of one observation, [D] float32.
        prior: pi0.
    """

    def __init__(
        self, observation_spec: tf.TensorSpec, prior: BehavioralPrior, name: str = "PriorNetwork"
    ) -> None:
        super().__init__(input_tensor_spec=observation_spec, state_spec=(), name=name)
        self._distribution = prior.distribution  # Of which Keras tracks no variables.

    def call(
        self,
        observation: tf.Tensor,
        step_type: Any = None,
        network_state: Any = (),
        training: bool = False,
    ) -> tuple[tfp.distributions.Distribution, Any]:
        """The action's distribution, and the (empty) state."""
        return self._distribution(observation), network_state


class CloningAgent(NppacAgent):
    """Acts as the prior does; its updates change the critics alone."""

    @classmethod
    def _make_actor(
        cls,
        observation_spec: tf.TensorSpec,
        action_spec: Any,
        prior: BehavioralPrior,
        config: AgentConfig,
        precision: str,
        seed: int,
    ) -> PriorNetwork:
        if not prior.informative:
            raise ValueError("prior must be one that is fitted, to be cloned; got UniformPrior")
        return PriorNetwork(observation_spec, prior)

    @property
    def kl_regularized(self) -> bool:  # noqa: D102
        return False

    def _improve_policy(
        self, batch: Batch | Experience, weights: tf.Tensor | None, learn_policy: bool
    ) -> NppacLossInfo:
        states = batch.states
        loss, kl, q_value, entropy = self._actor_objective(states, weights)
        zero = tf.constant(0.0)
        alpha, scale = tf.exp(self._log_alpha), tf.reduce_mean(states.prior.scale)
        return NppacLossInfo(zero, loss, zero, kl, q_value, alpha, entropy, scale, zero)
