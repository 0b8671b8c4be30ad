"""SacAgent with losses over batches that carry the prior's statistics.

What TF-Agents' programs, checkpoints and optimizers ask of the agent, so that `agent.NppacAgent` is
the algorithm alone.
"""

import abc
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.sac import sac_agent
from tf_agents.policies import actor_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common

from nppac_tf.agents.actors import BOUND_MARGIN, AnchoredActorNetwork, make_actor
from nppac_tf.agents.batch import Batch
from nppac_tf.agents.critics import make_critics
from nppac_tf.agents.layers import ObservationStandardization
from nppac_tf.config import AgentConfig
from nppac_tf.hardware import resolve_precision
from nppac_tf.priors.base import BehavioralPrior, BoundedPrior, PriorStatistics
from nppac_tf.priors.standardization import Standardization


class _DeployedPolicy(actor_policy.ActorPolicy):
    """Policy whose variables include those of the prior, so that PolicySaver saves them."""

    prior_variables: Sequence[tf.Variable] = ()

    def _variables(self) -> list[tf.Variable]:
        return [*super()._variables(), *self.prior_variables]


class BatchSacAgent(sac_agent.SacAgent, abc.ABC):
    """`SacAgent` whose subclass gives the losses of a `Batch` as `update` and `_*_objective`.

    Experience of plain TF-Agents programs does not carry the prior's statistics: they are evaluated
    here. A subclass sets `_prior`.
    """

    _prior: BehavioralPrior
    _reward_scale: tf.Variable
    # The `constant_scale` of the actor, for algorithms that have one.
    _actor_scale: tuple[float, float] | None = None
    _averaged_actor: Any = None

    @abc.abstractmethod
    def update(self, batch: Batch, weights: tf.Tensor | None = None) -> tf_agent.LossInfo:
        """One update of all that is learned."""

    @abc.abstractmethod
    def _critic_objective(
        self,
        batch: Batch,
        weights: tf.Tensor | None,
        training: bool = True,
        td_errors_loss_fn: Any = None,
        gamma: float | None = None,
        reward_scale_factor: float | None = None,
    ) -> tf.Tensor:
        """Mean squared error [] of the critics."""

    @abc.abstractmethod
    def _actor_objective(
        self,
        observations: tf.Tensor,
        statistics: PriorStatistics,
        weights: tf.Tensor | None,
        training: bool = True,
    ) -> tuple[tf.Tensor, ...]:
        """The actor's loss [], and more."""

    @abc.abstractmethod
    def _temperature_objective(
        self, observations: tf.Tensor, statistics: PriorStatistics, weights: tf.Tensor | None
    ) -> tf.Tensor:
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
    def reward_scale(self) -> float | None:
        """Unit of rewards in the losses; None while it is not known."""
        return float(self._reward_scale) or None

    def calibrate_rewards(self, rewards: np.ndarray) -> None:
        """Takes the reward scale, where it is not known yet, from rewards [N]: the largest |r|."""
        if self.reward_scale is None and np.size(rewards):
            self._reward_scale.assign(np.abs(rewards).max())

    def standardize(self, observations: np.ndarray) -> None:
        """Has all networks see observations in units of these, [N, D].

        A dimension that does not vary keeps its scale.
        """
        units = Standardization.of(observations)
        for network in self._networks:
            for layer in network.submodules:
                if isinstance(layer, ObservationStandardization):
                    layer.shift.assign(units.shift)
                    layer.scale.assign(units.scale)

    @property
    def _networks(self) -> list[Any]:
        actors = [self._actor_network, self._averaged_actor]
        critics = [*self._critics, *self._target_critics]
        return [network for network in (*actors, *critics) if network is not None]

    @property
    def parameters(self) -> list[tf.Variable]:
        """What gradients change: weights of actor and critics, and log alpha."""
        networks = (self._actor_network, self._critic_network_1, self._critic_network_2)
        weights = [weight for network in networks for weight in network.trainable_variables]
        return [*weights, self._log_alpha]

    @property
    def learned(self) -> dict[str, Any]:
        """All that training changes, by name: what a checkpoint holds."""
        parts = {
            "actor": self._actor_network,
            "critic_1": self._critic_network_1,
            "critic_2": self._critic_network_2,
            "target_critic_1": self._target_critic_network_1,
            "target_critic_2": self._target_critic_network_2,
            "log_alpha": self._log_alpha,
            "reward_scale": self._reward_scale,
            "actor_optimizer": self._actor_optimizer,
            "critic_optimizer": self._critic_optimizer,
            "updates": self.train_step_counter,
        }
        if self._alpha_optimizer is not None:
            parts["alpha_optimizer"] = self._alpha_optimizer
        return parts | self.deployed

    @property
    def deployed(self) -> dict[str, Any]:
        """The part of `learned` that acts once training is over."""
        if self._averaged_actor is None:
            return {"actor": self._actor_network}
        return {"averaged_actor": self._averaged_actor}

    @property
    def deployed_actor(self) -> Any:
        """The actor of `policy`: the actor network, or the average of its weights."""
        return self._averaged_actor or self._actor_network

    def restart_average(self) -> None:
        """Sets the averaged actor, if there is one, to the actor's weights."""
        if self._averaged_actor is not None:
            self._move_average(1.0)

    @property
    def _critics(self) -> tuple[Any, Any]:
        return self._critic_network_1, self._critic_network_2

    @property
    def _target_critics(self) -> tuple[Any, Any]:
        return self._target_critic_network_1, self._target_critic_network_2

    def _make_optimizer_variables(self) -> None:
        """Makes what the optimizers keep, so that every checkpoint holds and restores all of it."""
        critics = (
            self._critic_network_1.trainable_variables + self._critic_network_2.trainable_variables
        )
        for optimizer, variables in (
            (self._actor_optimizer, self._actor_network.trainable_variables),
            (self._critic_optimizer, critics),
            (self._alpha_optimizer, [self._log_alpha]),
        ):
            if optimizer is not None:
                optimizer._create_all_weights(variables)

    def _average_actor(self, time_step_spec: ts.TimeStep, action_spec: Any) -> None:
        """Has `policy` act by an average of the actor's weights."""
        self._averaged_actor = self._actor_network.copy(name="AveragedActor")
        self._averaged_actor.create_variables()
        self._policy = _DeployedPolicy(
            time_step_spec, action_spec, actor_network=self._averaged_actor, training=False
        )
        if self.anchored:
            self._policy.prior_variables = list(self._prior.variables)
        self.restart_average()

    def _move_average(self, rate: float) -> None:
        variables = zip(self._actor_network.variables, self._averaged_actor.variables, strict=True)
        for source, average in variables:
            _move_toward(average, source, rate if source.trainable else 1.0)

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
                _move_toward(copy, source, tau if source.trainable else 1.0)
                for source, copy in pairs.values()
            ]
            return tf.group(*updates)

        return common.Periodically(update, period, "update_targets")

    def _train(self, experience: Any, weights: tf.Tensor | None) -> tf_agent.LossInfo:
        time_steps, policy_steps, next_time_steps = self._as_transition(experience)
        return self.update(self._batch(time_steps, policy_steps.action, next_time_steps), weights)

    def critic_loss(
        self,
        time_steps: ts.TimeStep,
        actions: tf.Tensor,
        next_time_steps: ts.TimeStep,
        td_errors_loss_fn: Any = None,
        gamma: float | None = None,
        reward_scale_factor: float | None = None,
        weights: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        """Mean squared error [] of both critics; arguments left out are the agent's own."""
        return self._critic_objective(
            self._batch(time_steps, actions, next_time_steps),
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
        observations = time_steps.observation
        statistics = self._prior.statistics(observations)
        return self._actor_objective(observations, statistics, weights, training)[0]

    def alpha_loss(
        self, time_steps: ts.TimeStep, weights: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """log(alpha) (target KL - E[d(s)]), []."""
        observations = time_steps.observation
        statistics = self._prior.statistics(observations)
        return self._temperature_objective(observations, statistics, weights)

    def _batch(
        self, time_steps: ts.TimeStep, actions: tf.Tensor, next_time_steps: ts.TimeStep
    ) -> Batch:
        return Batch(
            time_steps.observation,
            actions,
            next_time_steps.reward,
            next_time_steps.discount,
            next_time_steps.observation,
            self._prior.statistics(time_steps.observation),
            self._prior.statistics(next_time_steps.observation),
        )


def _move_toward(target: tf.Variable, source: tf.Variable, share: float) -> tf.Operation:
    """The target t becomes t + share (s - t), in two operations where an assignment takes five."""
    if share == 1.0:  # Exactly s, of which t + (s - t) is only near.
        return target.assign(source)
    return tf.raw_ops.ResourceApplyGradientDescent(
        var=target.handle, alpha=tf.constant(share, source.dtype), delta=target - source
    )
