"""What training changes, by name: for checkpoints, exports and the training loop."""

from typing import Any

import numpy as np
import tensorflow as tf

from nppac_tf.agents.layers import ObservationStandardization
from nppac_tf.priors.standardization import Standardization


class LearnedParts:
    """The part of an agent that knows its networks, optimizers and units, and no loss.

    A subclass of `SacAgent` as well sets the attributes.
    """

    _actor_network: Any
    _averaged_actor: Any = None
    _critic_network_1: Any
    _critic_network_2: Any
    _target_critic_network_1: Any
    _target_critic_network_2: Any
    _actor_optimizer: Any
    _critic_optimizer: Any
    _alpha_optimizer: Any
    _log_alpha: tf.Variable
    _reward_scale: tf.Variable
    train_step_counter: tf.Variable

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
        return [
            *self._actor_network.trainable_variables,
            *self._critic_variables,
            self._log_alpha,
        ]

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

    @property
    def _critic_variables(self) -> list[tf.Variable]:
        """Weights of both critics, which may share some."""
        variables = [weight for critic in self._critics for weight in critic.trainable_variables]
        return list({id(weight): weight for weight in variables}.values())

    def _make_optimizer_variables(self) -> None:
        """Makes what the optimizers keep, so that every checkpoint holds and restores all of it."""
        for optimizer, variables in (
            (self._actor_optimizer, self._actor_network.trainable_variables),
            (self._critic_optimizer, self._critic_variables),
            (self._alpha_optimizer, [self._log_alpha]),
        ):
            if optimizer is not None:
                optimizer._create_all_weights(variables)

    def _move_average(self, rate: float) -> None:
        variables = zip(self._actor_network.variables, self._averaged_actor.variables, strict=True)
        for source, average in variables:
            move_toward(average, source, rate if source.trainable else 1.0)


def move_toward(target: tf.Variable, source: tf.Variable, share: float) -> tf.Operation:
    """The target t becomes t + share (s - t), in two operations where an assignment takes five."""
    if share == 1.0:  # Exactly s, of which t + (s - t) is only near.
        return target.assign(source)
    return tf.raw_ops.ResourceApplyGradientDescent(
        var=target.handle, alpha=tf.constant(share, source.dtype), delta=target - source
    )
