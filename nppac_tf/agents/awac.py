"""AWAC: advantage-weighted actor-critic (Nair et al. 2020, arXiv:2006.09359).

The policy imitates the actions of the replay, demonstrations among them, the more the better the
critics find them:

    actor loss     -E[ w(s, a) log pi(a | s) ],  w = exp(A(s, a) / lambda), normalized to mean 1
    advantage      A(s, a) = min( min_i Q_i(s, a) - min_i Q_i(s, mean of pi), 0.5 )
    critic target  y = r + gamma (1 - terminal) min_i Q'_i(s', a'),                   a' ~ pi

with (s, a) from the replay, lambda the agent's temperature, and no entropy term. As in the authors'
code for the Adroit hand, weights are normalized over the batch, advantages are cut off at 0.5, the
scale of pi is the same in every state and between exp(-6) and 1 (of a squashed actor, before
its tanh), and the actor's weights decay (an L2 penalty of 1e-4 / 2).

Differences: critics, networks and loop are the project's own, Q is not clipped at 0, and actions at
the bounds of a squashed actor are moved in by 1e-4 of the range.
"""

from typing import Any

import tensorflow as tf

from nppac_tf.agents import distributions
from nppac_tf.agents.batch import Batch, Experience
from nppac_tf.agents.nppac import NppacAgent, NppacLossInfo
from nppac_tf.agents.sac import aggregate

_LARGEST_ADVANTAGE = 0.5
_WEIGHT_DECAY = 1e-4
# log pi of an action at the bounds is infinite for a squashed actor.
_SQUASH_MARGIN = 1e-4


class AwacAgent(NppacAgent):
    """`NppacAgent` with AWAC's losses; its prior is only what the actor is pre-trained to."""

    _actor_scale = (-6.0, 0.0)

    @property
    def kl_regularized(self) -> bool:  # noqa: D102
        return False

    def _penalty_in_target(self, divergence: tf.Tensor) -> tf.Tensor:
        return tf.zeros_like(divergence)

    def _improve_policy(
        self, batch: Batch | Experience, weights: tf.Tensor | None, learn_policy: bool
    ) -> NppacLossInfo:
        states = batch.states
        _, divergence, log_prob = self._actions_and_kl(
            states, self._sample_seed("actor"), training=False
        )
        variables = self._actor_network.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            policy = self.policy_distribution(states)
            actions = self._inside(batch.actions, policy)
            log_likelihood = distributions.log_prob(policy, actions, self.action_spec)
            with tape.stop_recording():
                value = self._value(states, distributions.mode(policy))
                importance = self._importance(self._value(states, batch.actions) - value)
            loss = aggregate(-importance * log_likelihood, weights)
            loss += _WEIGHT_DECAY * tf.add_n([tf.nn.l2_loss(weight) for weight in variables])
        gradients = tape.gradient(loss, variables)
        if learn_policy:
            self._apply_gradients(gradients, variables, self._actor_optimizer)
        return NppacLossInfo(
            critic_loss=tf.constant(0.0),
            actor_loss=loss,
            alpha_loss=tf.constant(0.0),
            kl=tf.reduce_mean(divergence),
            q_value=tf.reduce_mean(value) * self._reward_unit(),
            alpha=tf.exp(self._log_alpha),
            entropy=-tf.reduce_mean(log_prob),
            prior_scale=tf.reduce_mean(states.prior.scale),
            actor_gradient_norm=tf.linalg.global_norm(gradients),
        )

    def _importance(self, advantages: tf.Tensor) -> tf.Tensor:
        """Weights w(s, a) of mean 1, in the shape of the advantages."""
        scores = tf.minimum(advantages, _LARGEST_ADVANTAGE) / tf.exp(self._log_alpha)
        weights = tf.reshape(tf.nn.softmax(tf.reshape(scores, [-1])), tf.shape(scores))
        return tf.cast(tf.size(scores), tf.float32) * weights

    def _inside(self, actions: Any, policy: Any) -> Any:
        """Actions that the policy has a finite density at, whichever way it is squashed."""
        if distributions.gaussian_parameters(policy, self.action_spec) is not None:
            return actions

        def inside(part: tf.Tensor, spec: Any) -> tf.Tensor:
            margin = _SQUASH_MARGIN * (spec.maximum - spec.minimum)
            return tf.clip_by_value(part, spec.minimum + margin, spec.maximum - margin)

        return tf.nest.map_structure(inside, actions, self.action_spec)
