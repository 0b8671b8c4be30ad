"""SacAgent with losses over batches that carry the prior's statistics.

What TF-Agents' programs and networks ask of the agent, so that `nppac.NppacAgent` is the algorithm
alone: experience, policies of any distribution, critics of any input, summaries.
"""

import abc
import functools
import math
from collections.abc import Sequence
from typing import Any, Self

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.sac import sac_agent
from tf_agents.policies import actor_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common, nest_utils

from nppac_tf.agents.actors import BOUND_MARGIN, AnchoredActorNetwork, make_actor
from nppac_tf.agents.batch import Batch, Experience, States
from nppac_tf.agents.critics import make_critics, members
from nppac_tf.agents.distributions import as_vectors
from nppac_tf.agents.learned import LearnedParts, move_toward
from nppac_tf.config import AgentConfig
from nppac_tf.hardware import resolve_precision
from nppac_tf.priors.base import BehavioralPrior, BoundedPrior, PriorStatistics


class PriorPolicy(actor_policy.ActorPolicy):
    """Policy of an actor that evaluates the prior.

    Its variables include the prior's, so that PolicySaver saves them.
    """

    def __init__(self, *args: Any, prior: BehavioralPrior, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prior_variables = list(prior.variables)

    def _variables(self) -> list[tf.Variable]:
        return [*super()._variables(), *self._prior_variables]


class BatchSacAgent(LearnedParts, sac_agent.SacAgent, abc.ABC):
    """`SacAgent` whose subclass gives the losses of a batch.

    Experience of TF-Agents' programs does not carry the prior's statistics: they are evaluated
    here.

    Args:
        time_step_spec: As in SacAgent.
        action_spec: As in SacAgent.
        critic_network: As in SacAgent.
        actor_network: As in SacAgent, or an `AnchoredActorNetwork`.
        *args: As in SacAgent.
        prior: pi0.
        average_policy: Whether `policy` acts by an average of the actor's weights.
        actor_policy_ctor: As in SacAgent.
        **kwargs: As in SacAgent.
    """

    # The `constant_scale` of the actor, for algorithms that have one.
    _actor_scale: tuple[float, float] | None = None

    def __init__(
        self,
        time_step_spec: ts.TimeStep,
        action_spec: Any,
        critic_network: Any,
        actor_network: Any,
        *args: Any,
        prior: BehavioralPrior,
        average_policy: bool,
        actor_policy_ctor: Any = actor_policy.ActorPolicy,
        **kwargs: Any,
    ) -> None:
        evaluates_prior = isinstance(actor_network, AnchoredActorNetwork)
        if evaluates_prior and actor_policy_ctor is actor_policy.ActorPolicy:
            actor_policy_ctor = functools.partial(PriorPolicy, prior=prior)
        super().__init__(
            time_step_spec,
            action_spec,
            critic_network,
            actor_network,
            *args,
            actor_policy_ctor=actor_policy_ctor,
            **kwargs,
        )
        self._prior = prior
        if average_policy:
            self._averaged_actor = actor_network.copy(name="AveragedActor")
            self._averaged_actor.create_variables()
            self._policy = actor_policy_ctor(
                time_step_spec, action_spec, actor_network=self._averaged_actor, training=False
            )
            self.restart_average()

    @abc.abstractmethod
    def _improve(self, batch: Batch | Experience, weights: tf.Tensor | None) -> tf_agent.LossInfo:
        """Gradient steps of all that is learned."""

    @abc.abstractmethod
    def _critic_objective(
        self,
        batch: Batch | Experience,
        weights: tf.Tensor | None,
        training: bool = True,
        td_errors_loss_fn: Any = None,
        gamma: float | None = None,
        reward_scale_factor: float | None = None,
    ) -> tf.Tensor:
        """Mean squared error [] of the critics."""

    @abc.abstractmethod
    def _actor_objective(
        self, states: States, weights: tf.Tensor | None, training: bool = True
    ) -> tuple[tf.Tensor, ...]:
        """The actor's loss [], and more."""

    @abc.abstractmethod
    def _temperature_objective(self, states: States, weights: tf.Tensor | None) -> tf.Tensor:
        """The temperature's loss []."""

    @classmethod
    def for_task(
        cls,
        task: Any,
        prior: BehavioralPrior,
        config: AgentConfig | None = None,
        seed: int = 0,
    ) -> Self:
        """An agent with the project's own networks, ready to train.

        Args:
            task: Gives `observation_size`, `action_low` [A] and `action_high` [A].
            prior: pi0; its location is kept inside the bounds of actions.
            config: Networks and constants; defaults where None.
            seed: Seed of initial weights and samples.
        """
        config = config or AgentConfig()
        observation_spec = tf.TensorSpec([task.observation_size], tf.float32, "observation")
        action_spec = tensor_spec.BoundedTensorSpec(
            task.action_low.shape, tf.float32, task.action_low, task.action_high, "action"
        )
        if prior.informative:
            margin = 0.5 * BOUND_MARGIN * (task.action_high - task.action_low)
            prior = BoundedPrior(prior, task.action_low + margin, task.action_high - margin)

        def adam() -> tf.keras.optimizers.legacy.Optimizer:
            return tf.keras.optimizers.legacy.Adam(config.learning_rate)

        precision = resolve_precision(config.precision)
        critics = make_critics((observation_spec, action_spec), config, precision, seed)
        agent = cls(
            ts.time_step_spec(observation_spec),
            action_spec,
            critic_network=critics[0],
            critic_network_2=critics[1],
            actor_network=cls._make_actor(
                observation_spec, action_spec, prior, config, precision, seed
            ),
            actor_optimizer=adam(),
            critic_optimizer=adam(),
            alpha_optimizer=None if config.target_kl is None else adam(),
            prior=prior,
            divergence=config.divergence,
            num_target_critics=config.num_target_critics,
            actor_value=config.actor_value,
            kl_in_target=config.kl_in_target,
            target_kl=config.target_kl,
            reward_scale=config.reward_scale,
            average_policy=True,
            initial_log_alpha=math.log(config.temperature),
            target_update_tau=config.target_update_rate,
            gamma=config.discount,
            td_errors_loss_fn=tf.math.squared_difference,
            train_step_counter=tf.Variable(0, dtype=tf.int64, trainable=False, name="updates"),
            seed=seed,
        )
        agent.initialize()
        agent._make_optimizer_variables()
        return agent

    @classmethod
    def _make_actor(
        cls,
        observation_spec: tf.TensorSpec,
        action_spec: Any,
        prior: BehavioralPrior,
        config: AgentConfig,
        precision: str,
        seed: int,
    ) -> Any:
        return make_actor(
            observation_spec, action_spec, prior, config, precision, seed, cls._actor_scale
        )

    @property
    def prior(self) -> BehavioralPrior:
        """pi0."""
        return self._prior

    @property
    def actor_network(self) -> Any:
        """Observations -> (distribution over actions, state)."""
        return self._actor_network

    @property
    def temperature(self) -> float:
        """Alpha, the weight of the KL term, per unit of the reward scale."""
        return float(tf.exp(self._log_alpha))

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._log_alpha.assign(math.log(value))

    @property
    def tunes_temperature(self) -> bool:
        """Whether alpha follows a target and not `temperature`."""
        return self._alpha_optimizer is not None

    @property
    def anchored(self) -> bool:
        """Whether the actor is the prior until it learns."""
        return isinstance(self._actor_network, AnchoredActorNetwork)

    @property
    def discount(self) -> float:
        """Gamma, per environment step."""
        return float(self._gamma)

    def policy_distribution(self, states: States, training: bool = False) -> Any:
        """pi(. | s) of the actor at states: a distribution, or a nest of them."""
        if self.anchored:  # It would evaluate the prior again.
            return self._actor_network(
                states.observations, training=training, statistics=states.prior
            )[0]
        policy = self._train_policy if training else self._collect_policy
        size = nest_utils.get_outer_shape(states.time_steps, self.time_step_spec)[0]
        return policy.distribution(states.time_steps, policy.get_initial_state(size)).action

    @property
    def _actor_regularization(self) -> list[tf.Tensor]:
        return self._actor_network.losses if self._actor_network else []

    @staticmethod
    def _q_values(
        critics: Sequence[Any], states: States, actions: Any, training: bool = False
    ) -> tf.Tensor:
        """Values [E, B] or [E, B, T] of critics, those of an ensemble one by one."""
        inputs, step_types = (states.observations, actions), states.time_steps.step_type
        return tf.stack(
            [
                critic(inputs, step_type=step_types, training=training)[0]
                for critic in members(critics)
            ]
        )

    def _get_target_updater(self, tau: float = 1.0, period: int = 1) -> Any:
        """As SacAgent's, w' + tau (w - w')."""
        if tf.distribute.has_strategy():
            return super()._get_target_updater(tau, period)

        def update() -> tf.Operation:
            pairs = {
                id(copy): (source, copy)
                for critic, target in zip(self._critics, self._target_critics, strict=True)
                for source, copy in zip(critic.variables, target.variables, strict=True)
            }
            updates = [
                move_toward(copy, source, tau if source.trainable else 1.0)
                for source, copy in pairs.values()
            ]
            return tf.group(*updates)

        return common.Periodically(update, period, "update_targets")

    def _advance(self, averaging: int = 1) -> None:
        """Ends an update: moves the averaged policy, the step counter and the target critics."""
        if self._averaged_actor is not None:
            self._move_average(1.0 / averaging)
        self.train_step_counter.assign_add(1)
        self._update_target()

    @tf.autograph.experimental.do_not_convert
    def _train(self, experience: Any, weights: tf.Tensor | None) -> tf_agent.LossInfo:
        time_steps, policy_steps, next_time_steps = self._as_transition(experience)
        batch = self._experience(time_steps, policy_steps.action, next_time_steps)
        info = self._improve(batch, weights)
        with tf.name_scope("Losses"):
            for name, value in info.extra._asdict().items():
                tf.debugging.check_numerics(value, f"{name} is not finite")
                tf.summary.scalar(name, value, self.train_step_counter)
        self._advance()
        return info

    def critic_loss(
        self,
        time_steps: ts.TimeStep,
        actions: Any,
        next_time_steps: ts.TimeStep,
        td_errors_loss_fn: Any = None,
        gamma: float | None = None,
        reward_scale_factor: float | None = None,
        weights: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Mean squared error [] of both critics; arguments left out are the agent's own."""
        return self._critic_objective(
            self._experience(time_steps, actions, next_time_steps),
            weights,
            training,
            td_errors_loss_fn,
            gamma,
            reward_scale_factor,
        )

    def actor_loss(
        self, time_steps: ts.TimeStep, weights: tf.Tensor | None = None, training: bool = True
    ) -> tf.Tensor:
        """E[alpha d(s) - min Q(s, a)] over a ~ pi, []."""
        return self._actor_objective(self._states(time_steps), weights, training)[0]

    def alpha_loss(
        self, time_steps: ts.TimeStep, weights: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """log(alpha) (target KL - E[d(s)]), []."""
        return self._temperature_objective(self._states(time_steps), weights)

    def _experience(
        self, time_steps: ts.TimeStep, actions: Any, next_time_steps: ts.TimeStep
    ) -> Experience:
        return Experience(self._states(time_steps), actions, self._states(next_time_steps))

    def _states(self, time_steps: ts.TimeStep) -> States:
        """Time steps with pi0's statistics there."""
        observations = as_vectors(time_steps.observation, self.time_step_spec.observation)
        rows = tf.reshape(observations, [-1, self._prior.observation_size])
        shape = tf.concat([tf.shape(observations)[:-1], [self._prior.action_size]], axis=0)
        statistics = (tf.reshape(part, shape) for part in self._prior.statistics(rows))
        return States(time_steps, PriorStatistics(*statistics))


def aggregate(
    losses: tf.Tensor,
    weights: tf.Tensor | None,
    regularization: Sequence[tf.Tensor] | None = None,
) -> tf.Tensor:
    """Mean [] of losses [B] or, where a sequence counts as the sum of its steps, [B, T].

    Args:
        losses: Of each example.
        weights: Importance weights, scalar or [B]; None for 1.
        regularization: Losses of the networks' weights, which are added.
    """
    if losses.shape.rank > 1:
        losses = tf.reduce_sum(losses, axis=range(1, losses.shape.rank))
    return common.aggregate_losses(
        per_example_loss=losses, sample_weight=weights, regularization_loss=regularization
    ).total_loss
