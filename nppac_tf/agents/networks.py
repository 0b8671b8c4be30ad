"""Actor and critic networks, as TF-Agents networks.

Every layer draws its initial weights from a generator of its own, seeded by the network's seed, so
twin critics with different seeds differ and equal seeds repeat a run.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network

from nppac_tf.config import AgentConfig
from nppac_tf.seeding import derive_seed

LOG_SCALE_RANGE = (-10.0, 2.0)
_FIRST_LOG_SCALE = -1.0


class SquashedGaussian(tfp.distributions.TransformedDistribution):
    """tanh of a diagonal Gaussian, mapped onto the action's bounds.

    `mode` and `mean` are the image of the Gaussian's mean: what a deterministic policy does.
    """

    def __init__(
        self, location: tf.Tensor, scale: tf.Tensor, center: tf.Tensor, half_range: tf.Tensor
    ) -> None:
        parameters = dict(locals())
        bijectors = tfp.bijectors
        super().__init__(
            tfp.distributions.MultivariateNormalDiag(location, scale),
            bijectors.Chain(
                [bijectors.Shift(center), bijectors.Scale(half_range), bijectors.Tanh()]
            ),
            parameters=parameters,
            name="SquashedGaussian",
        )

    def _mode(self) -> tf.Tensor:
        return self.bijector.forward(self.distribution.mode())

    _mean = _mode

    def log_prob_by_component(self, actions: tf.Tensor) -> tf.Tensor:
        """Log density of each component [..., A] of actions [..., A] sampled from this."""
        normal = tfp.distributions.Normal(self.distribution.mean(), self.distribution.stddev())
        gaussian = self.bijector.inverse(actions)
        slope = self.bijector.forward_log_det_jacobian(gaussian, event_ndims=0)
        return normal.log_prob(gaussian) - slope

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: int | None = None) -> dict[str, Any]:
        properties = tfp.util.ParameterProperties
        return {
            "location": properties(event_ndims=1),
            "scale": properties(event_ndims=1),
            "center": properties(event_ndims=1),
            "half_range": properties(event_ndims=1),
        }


class ActorNetwork(network.Network):
    """Observation [B, D] -> distribution over actions [B, A] within the spec's bounds.

    Args:
        observation_spec: Of one observation, [D] float32.
        action_spec: Bounded, of one action, [A] float32.
        layers: Units of the hidden ReLU layers.
        squash: A tanh-squashed Gaussian, or (as the authors have it for the hand) a Gaussian with a
            tanh mean, whose samples may leave the bounds.
        seed: Of the initial weights.
        precision: "float32" or "bfloat16", of the products in hidden layers.
        constant_scale: If given, the Gaussian's log deviation in each action component is one
            learned number between these two, the same in every state; it begins in their middle.
    """

    def __init__(
        self,
        observation_spec: tf.TensorSpec,
        action_spec: Any,
        layers: Sequence[int] = (256, 256),
        squash: bool = True,
        seed: int = 0,
        precision: str = "float32",
        constant_scale: tuple[float, float] | None = None,
        name: str = "ActorNetwork",
    ) -> None:
        super().__init__(input_tensor_spec=observation_spec, state_spec=(), name=name)
        self._precision = precision
        action_size = int(np.prod(action_spec.shape))
        low = np.broadcast_to(action_spec.minimum, action_spec.shape).astype(np.float32)
        high = np.broadcast_to(action_spec.maximum, action_spec.shape).astype(np.float32)
        self._center = (high + low) / 2
        self._half_range = (high - low) / 2
        self._squash = squash
        seeds = _layer_seeds(seed)
        self._trunk = [
            _dense(units, next(seeds), activation="relu", precision=precision) for units in layers
        ]
        self._location_layer = _dense(action_size, next(seeds), gain=0.1)
        self._constant_scale = constant_scale
        if constant_scale is None:
            self._log_scale_layer = _dense(
                action_size, next(seeds), gain=0.1, bias=_FIRST_LOG_SCALE
            )
        else:
            self._scale_logits = tf.Variable(tf.zeros([action_size]), name="scale_logits")

    def call(
        self,
        observation: tf.Tensor,
        step_type: Any = None,
        network_state: Any = (),
        training: bool = False,
    ) -> tuple[tfp.distributions.Distribution, Any]:
        """The action's distribution, and the (empty) state."""
        hidden = observation
        for layer in self._trunk:
            hidden = layer(hidden)
        location = self._location_layer(hidden)
        scale = tf.exp(self._log_scale(hidden))
        if self._squash:
            return (
                SquashedGaussian(location, scale, self._center, self._half_range),
                network_state,
            )
        mean = self._center + self._half_range * tf.tanh(location)
        return tfp.distributions.MultivariateNormalDiag(mean, scale), network_state

    def _log_scale(self, hidden: tf.Tensor) -> tf.Tensor:
        """Log deviation [B, A] of the Gaussian."""
        if self._constant_scale is None:
            return tf.clip_by_value(self._log_scale_layer(hidden), *LOG_SCALE_RANGE)
        low, high = self._constant_scale
        log_scale = low + (high - low) * tf.sigmoid(self._scale_logits)
        return tf.broadcast_to(log_scale, [tf.shape(hidden)[0], log_scale.shape[0]])

    def in_float32(self) -> "ActorNetwork":
        """The same actor with float32 products, wherever it is to run; itself if it has them."""
        if self._precision == "float32":
            return self
        twin = self.copy(precision="float32")
        twin.create_variables()
        for variable, value in zip(twin.variables, self.variables, strict=True):
            variable.assign(value)
        return twin


class CriticNetwork(network.Network):
    """(Observation [B, D], action [B, A]) -> Q value [B].

    Args:
        input_spec: Specs of one observation and one action.
        layers: Units of the hidden ReLU layers.
        layer_norm: Layer normalization before each ReLU (RLPD, Ball et al. 2023): it bounds how far
            Q extrapolates to actions that the replay does not hold.
        seed: Of the initial weights.
        precision: "float32" or "bfloat16", of the products in hidden layers.
    """

    def __init__(
        self,
        input_spec: tuple[tf.TensorSpec, Any],
        layers: Sequence[int] = (256, 256),
        layer_norm: bool = False,
        seed: int = 0,
        precision: str = "float32",
        name: str = "CriticNetwork",
    ) -> None:
        super().__init__(input_tensor_spec=input_spec, state_spec=(), name=name)
        self._seed = seed
        seeds = _layer_seeds(seed)
        self._trunk = [_dense(units, next(seeds), precision=precision) for units in layers]
        self._norms = [LayerNorm() for _ in layers] if layer_norm else None
        self._value_layer = _dense(1, next(seeds))

    def call(
        self,
        inputs: tuple[tf.Tensor, tf.Tensor],
        step_type: Any = None,
        network_state: Any = (),
        training: bool = False,
    ) -> tuple[tf.Tensor, Any]:
        """Q [B], and the (empty) state."""
        hidden = tf.concat(inputs, axis=-1)
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


class LayerNorm(tf.keras.layers.Layer):
    """Layer normalization over the last axis, in plain operations and float32.

    Keras's own goes through the fused batch-normalization kernel with reshapes.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates gain and offset, each [units]."""
        units = int(input_shape[-1])
        self.gain = self.add_weight("gain", shape=[units], initializer="ones")
        self.offset = self.add_weight("offset", shape=[units], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalized inputs [..., units]."""
        return _standardize(inputs) * self.gain + self.offset


@tf.custom_gradient
def _standardize(inputs: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Inputs [..., units] with mean 0 and variance 1 in each row.

    With y the outputs and s the deviation, the gradient of the inputs is
    (g - mean(g) - y mean(g y)) / s for a gradient g of the outputs: a third of the operations that
    automatic differentiation makes of it.
    """

    def mean(values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(values, axis=-1, keepdims=True)

    centered = inputs - mean(inputs)
    inverse = tf.math.rsqrt(mean(tf.square(centered)) + 1e-6)
    outputs = centered * inverse

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return inverse * (upstream - mean(upstream) - outputs * mean(upstream * outputs))

    return outputs, gradient


def _layer_seeds(seed: int) -> Any:
    return iter(int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(64))


def _dense(
    units: int,
    seed: int,
    activation: str | None = None,
    gain: float = 1.0,
    bias: float = 0.0,
    precision: str = "float32",
) -> tf.keras.layers.Dense:
    """A layer with weights uniform in +-gain / sqrt(inputs).

    Its weights are float32; with bfloat16 its product, bias and activation are not.
    """
    return tf.keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=tf.keras.initializers.VarianceScaling(
            gain**2 / 3.0, mode="fan_in", distribution="uniform", seed=seed % (2**31)
        ),
        bias_initializer=tf.keras.initializers.Constant(bias),
        dtype="mixed_bfloat16" if precision == "bfloat16" else "float32",
    )
