"""N-PPAC: soft actor-critic regularized toward a behavioral prior (Rudner et al., NeurIPS 2021).

The entropy bonus of SAC is replaced by minus the KL divergence to pi0,

    R(tau_t) = sum_k gamma^k [ r(s_k, a_k) - alpha KL(pi(. | s_k) || pi0(. | s_k)) ],

which changes one quantity in each loss, the KL d(s):

    critic target     y = r + gamma (1 - terminal) [ min_i Q'_i(s', a') - alpha d(s') ],   a' ~ pi
    actor loss        E[ alpha d(s) - min_i Q_i(s, a) ],                                   a ~ pi
    temperature loss  log(alpha) (target KL - d(s))

with d(s) the KL in closed form where both are Gaussian in the same space, else log pi(a | s) -
log pi0(a | s), an estimate from one sample. pi0 gets no gradients; r is in units of its own scale.
With `UniformPrior` log pi0 = 0, and with sampled d(s) this is `SacAgent`, to rounding.
Each of SacAgent's two critics may be a `CriticEnsemble`; then i runs over all members, in the
target over a random few (REDQ, Chen et al. 2021), and the actor may maximize their mean.
"""

import collections
import functools
from typing import Any

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.trajectories import time_step as ts

from nppac_tf.agents import arguments
from nppac_tf.agents.batch import Batch, Experience, States
from nppac_tf.agents.critics import CriticEnsemble, CriticNetwork, members
from nppac_tf.agents.distributions import as_vectors, gaussian_parameters, sample_with_log_prob
from nppac_tf.agents.sac import BatchSacAgent, aggregate
from nppac_tf.config import AgentConfig
from nppac_tf.priors.base import BehavioralPrior
from nppac_tf.seeding import derive_seed

NppacLossInfo = collections.namedtuple(
    "NppacLossInfo",
    (
        "critic_loss",
        "actor_loss",
        "alpha_loss",
        "kl",
        "q_value",
        "alpha",
        "entropy",
        "prior_scale",
        "actor_gradient_norm",
    ),
)


class NppacAgent(BatchSacAgent):
    """`SacAgent` with a behavioral prior.

    It takes SacAgent's arguments and trains from the same experience: in a plain TF-Agents program
    (driver, replay buffer, `agent.train(trajectories)`) it evaluates the prior itself. `update`
    takes a `Batch` that holds the prior's statistics already, and is what the project's own loop
    compiles.

    Args:
        time_step_spec: Spec of the environment's steps; observations [D] float32.
        action_spec: Bounded, [A] float32.
        critic_network: As in SacAgent; its twin, where none is given, has other initial weights.
        actor_network: As in SacAgent, or an `AnchoredActorNetwork`.
        actor_optimizer: As in SacAgent.
        critic_optimizer: As in SacAgent.
        alpha_optimizer: Tunes alpha to a target; None keeps it where `temperature` sets it.
        prior: pi0, over the same observations and actions.
        divergence: "sampled", "closed_form" (the policy must be a `MultivariateNormalDiag`), or
            "auto": closed form where it can be.
        num_target_critics: Critics, drawn for each update, of which a target takes the minimum;
            None for all.
        actor_value: "min" or "mean" of all critics, for the actor.
        kl_in_target: Whether the critic target has its KL term.
        target_kl: Mean KL in nats to which alpha is tuned; None with an alpha optimizer means
            SacAgent's `target_entropy`, of which it is the negative.
        target_entropy: As in SacAgent.
        reward_scale: Unit of rewards, positive; None to take it from `calibrate_rewards`.
        average_policy: Whether `policy` acts by an average of the actor's weights (Polyak and
            Juditsky 1992), which `update` moves. `collect_policy` always has the actor's own.
        seed: Seed of the actions sampled in the losses. They depend on it and on the step counter
            alone, so a resumed run repeats an uninterrupted one.
        name: Name of the agent.
        **kwargs: As in SacAgent.

    Raises:
        ValueError: for an unknown divergence or actor_value, a target KL that is not positive or
            is given beside a target entropy, or a prior whose sizes are not those of the specs.
    """

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: Any,
        critic_network: Any,
        actor_network: Any,
        actor_optimizer: Any,
        critic_optimizer: Any,
        alpha_optimizer: Any = None,
        *,
        prior: BehavioralPrior,
        divergence: str = AgentConfig.divergence,
        num_target_critics: int | None = AgentConfig.num_target_critics,
        actor_value: str = AgentConfig.actor_value,
        kl_in_target: bool = AgentConfig.kl_in_target,
        target_kl: float | None = AgentConfig.target_kl,
        target_entropy: float | None = None,
        reward_scale: float | None = AgentConfig.reward_scale,
        average_policy: bool = False,
        seed: int = 0,
        name: str = "NppacAgent",
        **kwargs: Any,
    ) -> None:
        arguments.check_prior(prior, time_step_spec, action_spec)
        arguments.check_losses(divergence, actor_value, num_target_critics, reward_scale)
        arguments.check_targets(target_kl, target_entropy, alpha_optimizer)
        if kwargs.get("critic_network_2") is None and isinstance(
            critic_network, CriticNetwork | CriticEnsemble
        ):
            # SacAgent would copy the seed with the network, and equal twins stay equal.
            kwargs["critic_network_2"] = critic_network.twin()
        super().__init__(
            time_step_spec,
            action_spec,
            critic_network,
            actor_network,
            actor_optimizer,
            critic_optimizer,
            alpha_optimizer,
            target_entropy=target_entropy if target_kl is None else _negative(target_kl),
            prior=prior,
            average_policy=average_policy,
            name=name,
            **kwargs,
        )
        self._target_kl = target_kl
        self._divergence = divergence
        self._kl_in_target = kl_in_target
        self._num_target_critics = num_target_critics
        self._actor_value = {"min": tf.reduce_min, "mean": tf.reduce_mean}[actor_value]
        self._seed = seed
        # 0 until it is known: all rewards so far were 0.
        self._reward_scale = tf.Variable(
            reward_scale or 0.0, dtype=tf.float32, trainable=False, name="reward_scale"
        )

    @property
    def target_kl(self) -> float | None:
        """Mean KL in nats to which alpha is tuned in the end; None for no such target."""
        return self._target_kl

    def allow_kl(self, nats: float) -> None:
        """Has alpha tuned to another mean KL from now on, where there is a target KL."""
        self._target_entropy.assign(-nats)

    @property
    def kl_regularized(self) -> bool:
        """Whether the actor's loss has a KL term, which the pathology monitor watches."""
        return self._prior.informative

    @tf.autograph.experimental.do_not_convert
    def update(
        self,
        batch: Batch,
        weights: tf.Tensor | None = None,
        learn_policy: bool = True,
        policy_batch: Batch | None = None,
        averaging: int = 1,
    ) -> tf_agent.LossInfo:
        """One update of critics, actor, temperature and target critics.

        Args:
            batch: B transitions with pi0's statistics.
            weights: Optional importance weights, scalar or [B].
            learn_policy: False leaves actor and temperature as they are.
            policy_batch: What actor and temperature learn from, without weights; `batch` where
                None.
            averaging: Updates over which an averaged policy averages, exponentially.
        """
        info = self._improve(batch, weights, learn_policy, policy_batch)
        self._advance(averaging)
        return info

    @tf.autograph.experimental.do_not_convert
    def update_critics(self, batch: Batch, weights: tf.Tensor | None = None) -> tf.Tensor:
        """One update of critics and target critics alone; gives the critics' loss []."""
        critic_loss = self._improve_critics(batch, weights)
        self.train_step_counter.assign_add(1)
        self._update_target()
        return critic_loss

    def _improve(
        self,
        batch: Batch | Experience,
        weights: tf.Tensor | None,
        learn_policy: bool = True,
        policy_batch: Batch | None = None,
    ) -> tf_agent.LossInfo:
        critic_loss = self._improve_critics(batch, weights)
        if policy_batch is not None:
            batch, weights = policy_batch, None
        losses = self._improve_policy(batch, weights, learn_policy)
        return tf_agent.LossInfo(
            critic_loss + losses.actor_loss + losses.alpha_loss,
            losses._replace(critic_loss=critic_loss),
        )

    def _improve_critics(self, batch: Batch | Experience, weights: tf.Tensor | None) -> tf.Tensor:
        variables = self._critic_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss = self._critic_loss_weight * self._critic_objective(batch, weights)
        self._apply_gradients(tape.gradient(loss, variables), variables, self._critic_optimizer)
        return loss

    def _improve_policy(
        self, batch: Batch | Experience, weights: tf.Tensor | None, learn_policy: bool
    ) -> NppacLossInfo:
        """Actor and temperature; the critics' loss is left at 0."""
        states, variables = batch.states, self._actor_network.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss, kl, value, entropy = self._actor_objective(states, weights)
            loss = self._actor_loss_weight * loss
        gradients = tape.gradient(loss, variables)
        alpha_loss = tf.constant(0.0)
        if learn_policy:
            self._apply_gradients(gradients, variables, self._actor_optimizer)
            alpha_loss = self._update_temperature(states, weights)
        return NppacLossInfo(
            tf.constant(0.0),
            loss,
            alpha_loss,
            kl,
            value * self._reward_unit(),
            tf.exp(self._log_alpha),
            entropy,
            tf.reduce_mean(states.prior.scale),
            tf.linalg.global_norm(gradients),
        )

    @tf.autograph.experimental.do_not_convert
    def imitate(self, states: States, seed: tf.Tensor, optimizer: Any = None) -> tf.Tensor:
        """One step of the actor toward the prior: minimizes KL(pi || pi0) on states.

        Args:
            states: B states with pi0's statistics.
            seed: [2] int, stateless.
            optimizer: One of its own leaves the actor's own as it is; the actor's where None.

        Returns:
            [] mean KL in nats, before the step.
        """
        variables = self._actor_network.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            _, divergence, _ = self._actions_and_kl(states, seed, training=True)
            kl = tf.reduce_mean(divergence)
        optimizer = optimizer or self._actor_optimizer
        optimizer.apply_gradients(zip(tape.gradient(kl, variables), variables, strict=True))
        return kl

    def gradient_parts(
        self, states: States, seed: tf.Tensor
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """The two parts of the actor's gradient, of alpha E[d(s)] and of -E[min Q(s, a)].

        Args:
            states: B states with pi0's statistics.
            seed: [2] int, stateless.

        Returns:
            Gradients in the order of the actor's trainable variables, which sum to the actor's.
        """
        variables = self._actor_network.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
            tape.watch(variables)
            actions, divergence, _ = self._actions_and_kl(states, seed, training=True)
            penalty = tf.exp(self._log_alpha) * tf.reduce_mean(divergence)
            loss = -tf.reduce_mean(self._value(states, actions))
        unconnected = tf.UnconnectedGradients.ZERO
        penalty_gradient = tape.gradient(penalty, variables, unconnected_gradients=unconnected)
        loss_gradient = tape.gradient(loss, variables, unconnected_gradients=unconnected)
        return penalty_gradient, loss_gradient

    def _critic_objective(
        self,
        batch: Batch | Experience,
        weights: tf.Tensor | None,
        training: bool = True,
        td_errors_loss_fn: Any = None,
        gamma: float | None = None,
        reward_scale_factor: float | None = None,
    ) -> tf.Tensor:
        loss = td_errors_loss_fn or self._td_errors_loss_fn
        gamma = self._gamma if gamma is None else gamma
        reward_scale = self._reward_scale_factor
        if reward_scale_factor is not None:
            reward_scale = reward_scale_factor
        next_actions, divergence, _ = self._actions_and_kl(
            batch.next_states, self._sample_seed("critic"), training=False
        )
        next_q = self._target_value(batch.next_states, next_actions)
        targets = tf.stop_gradient(
            reward_scale * batch.rewards / self._reward_unit()
            + gamma * batch.discounts * (next_q - self._penalty_in_target(divergence))
        )
        q = tf.unstack(self._q_values(self._critics, batch.states, batch.actions, training))
        errors = sum(loss(targets, member) for member in q)
        self._critic_loss_debug_summaries(targets, q[0], q[-1])
        regularization = self._critic_network_1.losses + self._critic_network_2.losses
        return aggregate(errors, weights, regularization)

    def _actor_objective(
        self, states: States, weights: tf.Tensor | None, training: bool = True
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """The loss, and for the record the mean KL, the mean Q and the policy's entropy."""
        actions, divergence, log_prob = self._actions_and_kl(
            states, self._sample_seed("actor"), training
        )
        q = self._value(states, actions)
        loss = aggregate(
            tf.exp(self._log_alpha) * divergence - q, weights, self._actor_regularization
        )
        self._actor_loss_debug_summaries(loss, actions, log_prob, q, states.time_steps)
        return loss, tf.reduce_mean(divergence), tf.reduce_mean(q), -tf.reduce_mean(log_prob)

    def _temperature_objective(self, states: States, weights: tf.Tensor | None) -> tf.Tensor:
        _, divergence, _ = self._actions_and_kl(
            states, self._sample_seed("temperature"), training=False
        )
        alpha = self._log_alpha if self._use_log_alpha_in_alpha_loss else tf.exp(self._log_alpha)
        excess = tf.stop_gradient(-divergence - self._target_entropy)
        loss = aggregate(alpha * excess, weights)
        self._alpha_loss_debug_summaries(loss, excess)
        return loss

    def _update_temperature(self, states: States, weights: tf.Tensor | None) -> tf.Tensor:
        if self._alpha_optimizer is None:
            return tf.constant(0.0)
        with tf.GradientTape() as tape:
            loss = self._alpha_loss_weight * self._temperature_objective(states, weights)
        self._apply_gradients(
            tape.gradient(loss, [self._log_alpha]), [self._log_alpha], self._alpha_optimizer
        )
        return loss

    def _actions_and_kl(
        self, states: States, seed: tf.Tensor, training: bool
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        """Actions a ~ pi, KL(pi || pi0) or its estimate d(s) [B], and log pi(a | s) [B]."""
        policy = self.policy_distribution(states, training)
        actions, log_prob = sample_with_log_prob(policy, self.action_spec, seed)
        gaussian = None
        if self._divergence != "sampled":
            gaussian = gaussian_parameters(policy, self.action_spec)
        if gaussian is not None:
            return actions, self._prior.kl_divergence(states.prior, *gaussian), log_prob
        if self._divergence == "closed_form":
            kinds = ", ".join(type(part).__name__ for part in tf.nest.flatten(policy))
            raise ValueError(
                "divergence must be auto or sampled unless the actor gives diagonal Gaussians; "
                f"got {kinds}"
            )
        prior_log_prob = self._prior.log_prob(states.prior, as_vectors(actions, self.action_spec))
        return actions, log_prob - prior_log_prob, log_prob

    def _reward_unit(self) -> tf.Tensor:
        """The scale that rewards are divided by, []; 1 as long as it is not known."""
        return tf.where(self._reward_scale > 0.0, self._reward_scale, 1.0)

    def _sample_seed(self, loss: str) -> tf.Tensor:
        """Seed [2] of a loss's sample in this step; stateless, so a resumed run repeats it."""
        step = tf.cast(self.train_step_counter, tf.int32)
        return tf.stack([derive_seed(self._seed, loss), step])

    def _penalty_in_target(self, divergence: tf.Tensor) -> tf.Tensor:
        """The KL term of the target, alpha d(s') or nothing, [B]."""
        alpha = tf.exp(self._log_alpha) if self._kl_in_target else 0.0
        return alpha * divergence

    def _value(self, states: States, actions: Any) -> tf.Tensor:
        """What the actor maximizes, [B]."""
        return self._actor_value(self._q_values(self._critics, states, actions), axis=0)

    def _target_value(self, states: States, actions: Any) -> tf.Tensor:
        """Minimum of the target critics, or of some drawn for this update, [B]."""
        critics = members(self._target_critics)
        count = self._num_target_critics
        if count is None or count >= len(critics):
            return tf.reduce_min(self._q_values(critics, states, actions), axis=0)
        scores = tf.random.stateless_uniform([len(critics)], self._sample_seed("target critics"))
        branches = [
            functools.partial(self._q_values, [critic], states, actions) for critic in critics
        ]
        drawn = tf.unstack(tf.math.top_k(scores, count).indices)
        values = [tf.switch_case(index, branches) for index in drawn]
        return tf.reduce_min(tf.concat(values, axis=0), axis=0)


def _negative(target_kl: float) -> tf.Variable:
    """The target entropy, which compiled updates read anew."""
    return tf.Variable(-target_kl, dtype=tf.float32, trainable=False, name="target_entropy")
