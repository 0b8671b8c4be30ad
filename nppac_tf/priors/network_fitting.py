"""Fits networks with Gaussian outputs to demonstrations (Keras and TFP's probabilistic layers).

A model maps standardized states [K, B, D] to a distribution over standardized actions [K, B, A].
Its K members are trained side by side in one graph and do not interact: each has its own weights
and order of the data, losses are summed, and Adam works on single weights. A member's loss is

    mean_B -log p(a | s) + KL / N,

where KL, of the posterior of the weights from their prior, is 0 unless the model is Bayesian.

Glossary: N states, D observation components, A action components, K members, B batch.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors.standardization import Standardization
from nppac_tf.seeding import derive_seed

# Added to standard deviations of standardized actions, to keep log densities finite in float32.
# Low enough that a network far from its data can reach it: collapse is not hidden.
SMALLEST_SCALE = 1e-4

_BATCH_SIZE = 256
_LEARNING_RATE = 1e-3
_INITIAL_POSTERIOR_SCALE = -5.0  # Before softplus: 0.007.


def gaussian_parameters(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Location and standard deviation [..., A] from outputs [..., 2 A] of the last layer."""
    location, raw_scale = tf.split(outputs, 2, axis=-1)
    return location, SMALLEST_SCALE + tf.nn.softplus(raw_scale)


def stacked_model(
    sizes: Sequence[int], seeds: Sequence[int], dropout_rate: float = 0.0
) -> tf.keras.Model:
    """Builds K Gaussian networks as batched matrix products.

    Args:
        sizes: D, number of units of each hidden ReLU layer, 2 A.
        seeds: Seed of each member [K].
        dropout_rate: Share of hidden units dropped in each training step, in [0, 1).
    """
    states = outputs = tf.keras.Input(batch_shape=(len(seeds), None, sizes[0]))
    for index, units in enumerate(sizes[1:]):
        if index and dropout_rate:
            dropout_seed = derive_seed(seeds[0], f"dropout {index - 1}")
            outputs = tf.keras.layers.Dropout(dropout_rate, seed=dropout_seed)(outputs)
        outputs = tf.keras.layers.EinsumDense(
            "kbi,kio->kbo",
            output_shape=(None, units),
            bias_axes="ko",
            activation="relu" if index < len(sizes) - 2 else None,
            kernel_initializer=_stacked_glorot(
                [derive_seed(seed, f"kernel {index}") for seed in seeds]
            ),
        )(outputs)
    return tf.keras.Model(states, _gaussian_layer()(outputs))


def bayesian_model(sizes: Sequence[int], num_steps: int, seed: int) -> tf.keras.Model:
    """Builds a network with a Gaussian posterior over its kernels (Blundell et al. 2015), K = 1.

    Each call samples the kernels by reparameterization (Kingma and Welling 2014). Their prior is
    N(0, 2 / fan-in), which keeps the size of hidden units whatever the width (He et al. 2015).
    Biases are points. `losses` holds KL / N of each layer.

    Args:
        sizes: D, number of units of each hidden ReLU layer, 2 A.
        num_steps: N.
        seed: Seed of initial weights and samples.
    """
    initializers, normal = tf.keras.initializers, tfp.layers.default_mean_field_normal_fn
    states = outputs = tf.keras.Input(batch_shape=(1, None, sizes[0]))
    for index, units in enumerate(sizes[1:]):
        layer = tfp.layers.DenseReparameterization(
            units,
            activation="relu" if index < len(sizes) - 2 else None,
            kernel_posterior_fn=normal(
                loc_initializer=initializers.GlorotUniform(derive_seed(seed, f"kernel {index}")),
                untransformed_scale_initializer=initializers.Constant(_INITIAL_POSTERIOR_SCALE),
            ),
            bias_posterior_fn=normal(is_singular=True, loc_initializer="zeros"),
            kernel_posterior_tensor_fn=_Sampler(derive_seed(seed, f"noise {index}")),
            kernel_prior_fn=_kernel_prior,
            kernel_divergence_fn=lambda q, p, _: tfp.distributions.kl_divergence(q, p) / num_steps,
        )
        with warnings.catch_warnings():  # TFP calls a deprecated method of Keras.
            warnings.filterwarnings("ignore", "`layer.add_variable` is deprecated")
            outputs = layer(outputs)
    return tf.keras.Model(states, _gaussian_layer()(outputs))


def dense_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """Layers of a model that have weights, from first to last."""
    return [layer for layer in model.layers if layer.trainable_variables]


def maximize_likelihood(
    model: tf.keras.Model, demonstrations: Demonstrations, epochs: int, seeds: Sequence[int]
) -> dict[str, np.ndarray]:
    """Standardizes demonstrations and trains a model on them in place, with Adam.

    Args:
        model: Model of K members.
        demonstrations: N state-action pairs.
        epochs: Number of passes over the demonstrations, at least 1.
        seeds: Seeds of the order in which each member sees the data [K].

    Returns:
        The units: `observation_shift` and `observation_scale` [D], `action_shift` and
        `action_scale` [A].

    Raises:
        UserError: `epochs` is out of range, or the weights are not finite after training.
    """
    if epochs < 1:
        raise UserError(f"epochs must be at least 1; got {epochs}")
    observation_units = Standardization.of(demonstrations.observations)
    action_units = Standardization.of(demonstrations.actions)
    states = tf.constant(observation_units(demonstrations.observations), tf.float32)
    actions = tf.constant(action_units(demonstrations.actions), tf.float32)
    optimizer = tf.keras.optimizers.Adam(_LEARNING_RATE, jit_compile=False)
    optimizer.build(model.trainable_variables)

    @tf.function
    def train_epoch(batches: tf.Tensor) -> None:
        for indices in batches:
            with tf.GradientTape() as tape:
                log_prob = model(tf.gather(states, indices), training=True).log_prob(
                    tf.gather(actions, indices)
                )
                loss = tf.add_n([-tf.reduce_sum(tf.reduce_mean(log_prob, axis=1)), *model.losses])
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    batch_size = min(_BATCH_SIZE, len(states))
    num_batches = len(states) // batch_size  # What is left of an epoch is dropped.
    generators = [np.random.default_rng(derive_seed(seed, "order")) for seed in seeds]
    for _ in range(epochs):
        orders = np.stack([generator.permutation(len(states)) for generator in generators])
        batches = orders[:, : num_batches * batch_size].reshape(len(seeds), num_batches, batch_size)
        train_epoch(tf.constant(batches.swapaxes(0, 1), tf.int32))
    # A loss that is not finite leaves weights that are not finite.
    if not all(np.isfinite(variable.numpy()).all() for variable in model.trainable_variables):
        raise UserError(
            "the network could not be fitted: its weights are not finite; check the demonstrations "
            "for badly scaled components, or lower --network_epochs"
        )
    return observation_units.arrays("observation") | action_units.arrays("action")


class _Sampler(tf.Module):
    """Samples from the posterior of a kernel, with a new stateless seed at each call.

    A stateful generator would be shared by the parallel iterations of a loop, in any order.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(name="sampler")
        self._seed = seed
        self._num_calls = tf.Variable(0, trainable=False, dtype=tf.int64)

    def __call__(self, posterior: tfp.distributions.Distribution) -> tf.Tensor:
        num_calls = tf.cast(self._num_calls.assign_add(1), tf.int32)
        return posterior.sample(seed=tf.stack([self._seed, num_calls]))


def _stacked_glorot(seeds: Sequence[int]) -> Callable[..., tf.Tensor]:
    """Initializer of kernels [K, inputs, outputs], with a seed for each of the K."""
    initializers = [tf.keras.initializers.GlorotUniform(seed) for seed in seeds]
    return lambda shape, dtype=None: tf.stack([init(shape[1:], dtype) for init in initializers])


def _gaussian_layer() -> tf.keras.layers.Layer:
    return tfp.layers.DistributionLambda(
        lambda outputs: tfp.distributions.Independent(
            tfp.distributions.Normal(*gaussian_parameters(outputs)), 1
        ),
        convert_to_tensor_fn=tfp.distributions.Distribution.mean,
    )


def _kernel_prior(
    dtype: tf.DType, shape: Sequence[int], *_: object
) -> tfp.distributions.Distribution:
    """N(0, 2 / fan-in) for a kernel [inputs, outputs]."""
    scale = tf.fill(shape, tf.constant(np.sqrt(2.0 / shape[0]), dtype))
    normal = tfp.distributions.Normal(tf.zeros(shape, dtype), scale)
    return tfp.distributions.Independent(normal, reinterpreted_batch_ndims=len(shape))
