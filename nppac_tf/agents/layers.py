"""Layers that actors and critics share.

Every layer draws its initial weights from a generator of its own, seeded by the network's seed, so
twin critics with different seeds differ and equal seeds repeat a run.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

_LARGEST_OBSERVATION = 10.0


class ObservationStandardization(tf.keras.layers.Layer):
    """Observations [B, D] in standard units: (observation - shift) / scale, cut off at +-10.

    Part of each network, so that checkpoints and exports carry it. Until `NppacAgent.standardize`
    sets them, shift is 0 and scale 1.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates shift and scale, [D] each."""
        size = int(input_shape[-1])
        self.shift = self.add_weight("shift", [size], initializer="zeros", trainable=False)
        self.scale = self.add_weight("scale", [size], initializer="ones", trainable=False)
        super().build(input_shape)

    def call(self, observations: tf.Tensor) -> tf.Tensor:
        """Standardized observations."""
        standardized = (observations - self.shift) / self.scale
        return tf.clip_by_value(standardized, -_LARGEST_OBSERVATION, _LARGEST_OBSERVATION)


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

    With y the outputs and s the standard deviation, the gradient of the inputs is
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


def layer_seeds(seed: int) -> Iterator[int]:
    """Seeds of the layers of one network, all different."""
    return iter(int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(64))


def dense(
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
    initializer = tf.keras.initializers.Zeros()
    if gain > 0.0:
        initializer = tf.keras.initializers.VarianceScaling(
            gain**2 / 3.0, mode="fan_in", distribution="uniform", seed=seed % (2**31)
        )
    return tf.keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=initializer,
        bias_initializer=tf.keras.initializers.Constant(bias),
        dtype="mixed_bfloat16" if precision == "bfloat16" else "float32",
    )
