"""Actor networks, which see observations in standard units.

`AnchoredActorNetwork` is the prior until it learns; `ActorNetwork` begins anywhere.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network

from nppac_tf.agents.layers import ObservationStandardization, dense, layer_seeds
from nppac_tf.config import AgentConfig
from nppac_tf.priors.base import BehavioralPrior
from nppac_tf.seeding import derive_seed

LOG_SCALE_RANGE = (-10.0, 2.0)
_FIRST_LOG_SCALE = -1.0
# Prior means at the bounds of actions, where tanh is flat, are moved inside by this share.
BOUND_MARGIN = 0.01
_LOG_STRETCH_RANGE = (-5.0, 2.0)
_SMALLEST_RANGE = 1e-6


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
        observation_spec: Spec of one observation, [D] float32.
        action_spec: Bounded, of one action, [A] float32.
        layers: Units of the hidden ReLU layers.
        squash: A tanh-squashed Gaussian, or (as the authors have it for the hand) a Gaussian with a
            tanh mean, whose samples may leave the bounds.
        seed: Seed of the initial weights.
        precision: "float32" or "bfloat16", of the products in hidden layers.
        constant_scale: If given, the Gaussian's log scale in each action component is one learned
            number between these two, the same in every state; it begins in their middle.
    """

    def __init__(
        self,
        observation_spec: tf.TensorSpec,
        action_spec: Any,
        layers: Sequence[int],
        squash: bool,
        seed: int = 0,
        precision: str = "float32",
        constant_scale: tuple[float, float] | None = None,
        name: str = "ActorNetwork",
    ) -> None:
        super().__init__(input_tensor_spec=observation_spec, state_spec=(), name=name)
        self._precision = precision
        action_size = int(np.prod(action_spec.shape))
        self._center, self._half_range = _bounds(action_spec)
        self._squash = squash
        seeds = layer_seeds(seed)
        self.standardization = ObservationStandardization()
        self._trunk = [
            dense(units, next(seeds), activation="relu", precision=precision) for units in layers
        ]
        self._location_layer = dense(action_size, next(seeds), gain=0.1)
        self._constant_scale = constant_scale
        if constant_scale is None:
            self._log_scale_layer = dense(action_size, next(seeds), gain=0.1, bias=_FIRST_LOG_SCALE)
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
        hidden = self.standardization(observation)
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
        return tfp.distributions.MultivariateNormalDiag(mean, self._half_range * scale), (
            network_state
        )

    def _log_scale(self, hidden: tf.Tensor) -> tf.Tensor:
        """Log scale [B, A] of the Gaussian, in units of half the action's range."""
        if self._constant_scale is None:
            return tf.clip_by_value(self._log_scale_layer(hidden), *LOG_SCALE_RANGE)
        low, high = self._constant_scale
        log_scale = low + (high - low) * tf.sigmoid(self._scale_logits)
        return tf.broadcast_to(log_scale, [tf.shape(hidden)[0], log_scale.shape[0]])


class AnchoredActorNetwork(network.Network):
    """The prior and a learned correction: it is the prior until it learns.

    With h = half the action's range, c its center and u0(s) = (mu0(s) - c) / h,

        mean(s)  = c + h tanh(artanh(u0(s)) + f(s)),        scale(s) = sigma0(s) exp(g(s)),

    where f and g come from one trunk over the observation, u0 and log(sigma0 / h), and are 0 before
    the first update.

    Args:
        observation_spec: Spec of one observation, [D] float32.
        action_spec: Bounded, of one action, [A] float32.
        statistics: Observations [B, D] -> the prior's location and scale [B, A]; called where a
            caller does not have them. The network does not track the prior's variables.
        layers: Units of the hidden ReLU layers.
        seed: Seed of the initial weights.
        precision: "float32" or "bfloat16", of the products in hidden layers.
    """

    def __init__(
        self,
        observation_spec: tf.TensorSpec,
        action_spec: Any,
        statistics: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        layers: Sequence[int],
        seed: int = 0,
        precision: str = "float32",
        name: str = "AnchoredActorNetwork",
    ) -> None:
        super().__init__(input_tensor_spec=observation_spec, state_spec=(), name=name)
        self._precision = precision
        self._statistics = statistics
        action_size = int(np.prod(action_spec.shape))
        self._center, self._half_range = _bounds(action_spec)
        seeds = layer_seeds(seed)
        self.standardization = ObservationStandardization()
        self._trunk = [
            dense(units, next(seeds), activation="relu", precision=precision) for units in layers
        ]
        self._correction_layer = dense(2 * action_size, next(seeds), gain=0.0)

    def call(
        self,
        observation: tf.Tensor,
        step_type: Any = None,
        network_state: Any = (),
        training: bool = False,
        statistics: Any = None,
    ) -> tuple[tfp.distributions.Distribution, Any]:
        """The action's distribution, and the (empty) state.

        Args:
            observation: [B, D].
            step_type: Not used.
            network_state: Empty.
            training: Not used.
            statistics: The prior's location and scale there, [B, A] each, where they are known.
        """
        location, scale = self._statistics(observation) if statistics is None else statistics
        limit = 1.0 - BOUND_MARGIN
        unit = tf.clip_by_value((location - self._center) / self._half_range, -limit, limit)
        hidden = tf.concat(
            [self.standardization(observation), unit, tf.math.log(scale / self._half_range)],
            axis=-1,
        )
        for layer in self._trunk:
            hidden = layer(hidden)
        shift, log_stretch = tf.split(self._correction_layer(hidden), 2, axis=-1)
        artanh = 0.5 * tf.math.log((1.0 + unit) / (1.0 - unit))  # TFLite has no tf.atanh.
        mean = self._center + self._half_range * tf.tanh(artanh + shift)
        stretch = tf.exp(tf.clip_by_value(log_stretch, *_LOG_STRETCH_RANGE))
        return tfp.distributions.MultivariateNormalDiag(mean, scale * stretch), network_state


def in_float32(actor: Any) -> Any:
    """The same actor with float32 products, for any hardware; itself if it has them already."""
    if getattr(actor, "_precision", "float32") == "float32":
        return actor
    twin = actor.copy(precision="float32")
    twin.create_variables()
    for variable, value in zip(twin.variables, actor.variables, strict=True):
        variable.assign(value)
    return twin


def make_actor(
    observation_spec: tf.TensorSpec,
    action_spec: Any,
    prior: BehavioralPrior,
    config: AgentConfig,
    precision: str,
    seed: int,
    constant_scale: tuple[float, float] | None = None,
) -> ActorNetwork | AnchoredActorNetwork:
    """The configuration's actor; a uniform prior has nothing to anchor it to.

    Args:
        observation_spec: Spec of one observation.
        action_spec: Spec of one action.
        prior: pi0.
        config: Kind of actor, layers and squashing.
        precision: "float32" or "bfloat16", of the products in hidden layers.
        seed: From which that of the network is derived.
        constant_scale: Argument of `ActorNetwork`, which is then used.
    """
    seed = derive_seed(seed, "initial actor")
    if config.actor == "anchored" and prior.informative and constant_scale is None:
        return AnchoredActorNetwork(
            observation_spec, action_spec, prior.statistics, config.actor_layers, seed, precision
        )
    return ActorNetwork(
        observation_spec,
        action_spec,
        config.actor_layers,
        config.squash,
        seed,
        precision,
        constant_scale,
    )


def _bounds(action_spec: Any) -> tuple[np.ndarray, np.ndarray]:
    """Center and half range of actions, [A] float32 each."""
    low, high = (
        np.broadcast_to(bound, action_spec.shape).astype(np.float64)
        for bound in (action_spec.minimum, action_spec.maximum)
    )
    center, half_range = (high + low) / 2, (high - low) / 2
    # Of a locked joint, whose bounds are equal, not zero, by which the networks would divide.
    half_range = np.maximum(half_range, _SMALLEST_RANGE * np.maximum(1.0, np.abs(center)))
    return center.astype(np.float32), half_range.astype(np.float32)
