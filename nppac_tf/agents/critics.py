"""Critic networks: one, or an ensemble."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tf_agents.networks import network

from nppac_tf.agents.layers import LayerNorm, ObservationStandardization, dense, layer_seeds
from nppac_tf.config import AgentConfig
from nppac_tf.seeding import derive_seed


class CriticNetwork(network.Network):
    """(Observation [B, D], action [B, A]) -> Q value [B].

    Args:
        input_spec: Specs of one observation and one action.
        layers: Units of the hidden ReLU layers.
        layer_norm: Layer normalization before each ReLU (RLPD, Ball et al. 2023): it bounds how far
            Q extrapolates to actions that the replay does not hold.
        seed: Seed of the initial weights.
        precision: "float32" or "bfloat16", of the products in hidden layers.
    """

    def __init__(
        self,
        input_spec: tuple[tf.TensorSpec, Any],
        layers: Sequence[int],
        layer_norm: bool,
        seed: int = 0,
        precision: str = "float32",
        name: str = "CriticNetwork",
    ) -> None:
        super().__init__(input_tensor_spec=input_spec, state_spec=(), name=name)
        self._seed = seed
        seeds = layer_seeds(seed)
        self.standardization = ObservationStandardization()
        self._trunk = [dense(units, next(seeds), precision=precision) for units in layers]
        self._norms = [LayerNorm() for _ in layers] if layer_norm else None
        self._value_layer = dense(1, next(seeds))

    def call(
        self,
        inputs: tuple[tf.Tensor, tf.Tensor],
        step_type: Any = None,
        network_state: Any = (),
        training: bool = False,
    ) -> tuple[tf.Tensor, Any]:
        """Q [B], and the (empty) state."""
        observation, action = inputs
        hidden = tf.concat([self.standardization(observation), action], axis=-1)
        for index, layer in enumerate(self._trunk):
            hidden = layer(hidden)
            if self._norms:
                hidden = self._norms[index](hidden)
            hidden = tf.nn.relu(hidden)
        return tf.squeeze(self._value_layer(hidden), axis=-1), network_state

    def twin(self) -> "CriticNetwork":
        """The same network with other initial weights."""
        return self.copy(name=f"{self.name}Twin", seed=derive_seed(self._seed, "twin"))


class CriticEnsemble(network.Network):
    """Critics of their own weights, in one network: (observation, action) -> Q values [E, B].

    Each member has products of its own: one batched product of all of them was no faster on a CPU.

    Args:
        members: E critics with the same input specs and different seeds, an attribute as well.
    """

    def __init__(self, members: Sequence[CriticNetwork], name: str = "CriticEnsemble") -> None:
        super().__init__(input_tensor_spec=members[0].input_tensor_spec, state_spec=(), name=name)
        self.members = list(members)

    def call(
        self,
        inputs: tuple[tf.Tensor, tf.Tensor],
        step_type: Any = None,
        network_state: Any = (),
        training: bool = False,
    ) -> tuple[tf.Tensor, Any]:
        """Q [E, B], and the (empty) state."""
        return tf.stack([member(inputs)[0] for member in self.members]), network_state

    def copy(self, **kwargs: Any) -> "CriticEnsemble":
        """The same ensemble with weights of its own."""
        return super().copy(**{"members": [member.copy() for member in self.members], **kwargs})

    def twin(self) -> "CriticEnsemble":
        """The same ensemble with other initial weights."""
        return CriticEnsemble([member.twin() for member in self.members], f"{self.name}Twin")


def make_critics(
    input_spec: tuple[tf.TensorSpec, Any], config: AgentConfig, precision: str, seed: int
) -> tuple[CriticNetwork | CriticEnsemble, CriticNetwork | CriticEnsemble]:
    """The configuration's critics in two halves, as `SacAgent` takes two; each with its own seed.

    Args:
        input_spec: Specs of one observation and one action.
        config: How many, their layers and normalization.
        precision: "float32" or "bfloat16", of the products in hidden layers.
        seed: From which those of the members are derived.
    """
    members = [
        CriticNetwork(
            input_spec,
            config.critic_layers,
            config.critic_layer_norm,
            seed=derive_seed(seed, f"initial critic {index}"),
            precision=precision,
            name=f"CriticNetwork{index}",
        )
        for index in range(1, config.num_critics + 1)
    ]
    first, second = members[: len(members) // 2], members[len(members) // 2 :]
    return (
        first[0] if len(first) == 1 else CriticEnsemble(first),
        second[0] if len(second) == 1 else CriticEnsemble(second),
    )


def members(critics: Sequence[Any]) -> list[Any]:
    """All critics, those of an ensemble one by one."""
    ensembles = [
        critic.members if isinstance(critic, CriticEnsemble) else [critic] for critic in critics
    ]
    return [member for members in ensembles for member in members]
