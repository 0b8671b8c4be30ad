"""Maximum likelihood for networks that give Gaussian actions (Keras, TFP's probabilistic layers).

A model maps standardized states [K, B, D] to a distribution over standardized actions [K, B, A]; K
members, each with states of its own, are trained side by side in one graph and never meet: their
losses are added, and Adam goes by single weights. Per member and step the loss is

    -log p(a | s) - c H[p(. | s)] + KL / N,

with the entropy bonus c, and the divergence of the weights' posterior from their prior where the
model has one. For a given residual the bonus moves the optimal deviation from |residual| to
|residual| / sqrt(1 - c): c must be below 1.

Glossary: N states, D observation components, A action components, K members, B batch.
"""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors.standardization import Standardization
from nppac_tf.seeding import derive_seed

# Added to the deviation, in units of standardized actions, for log densities that are finite in
# float32. A network fitted without regularization does come down to it far from its data.
SMALLEST_SCALE = 1e-4

_BATCH_SIZE = 256
_LEARNING_RATE = 1e-3
_FIRST_POSTERIOR_SCALE = -5.0  # Before softplus: 0.007.


class Data:
    """Standardized demonstrations, and the share of their episodes held out for early stopping.

    Attributes:
        states: [N, D] float32, fitted to.
        actions: [N, A] float32.
        held_out: States and actions of the held-out episodes; None without early stopping.
        observation_units: Of the fitted observations.
        action_units: Of the fitted actions.

    Raises:
        UserError: if an episode is to be held out and there is but one.
    """

    def __init__(self, demonstrations: Demonstrations, config: PriorConfig) -> None:
        fitted, held_out = demonstrations, None
        if config.early_stopping_patience:
            if demonstrations.num_episodes < 2:
                raise UserError(
                    "early_stopping_patience must be 0 with a single episode, of which none can be "
                    f"held out; got {config.early_stopping_patience}"
                )
            fitted, held_out = demonstrations.split(config.validation_fraction, config.prior_seed)
        self.observation_units = Standardization.of(fitted.observations)
        self.action_units = Standardization.of(fitted.actions)
        self.states, self.actions = self._standardized(fitted)
        self.held_out = None if held_out is None else self._standardized(held_out)

    def _standardized(self, demonstrations: Demonstrations) -> tuple[np.ndarray, np.ndarray]:
        return (
            self.observation_units(demonstrations.observations).astype(np.float32),
            self.action_units(demonstrations.actions).astype(np.float32),
        )


def gaussian_parameters(outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Location and deviation [..., A] from what a network's last layer gives, [..., 2 A]."""
    location, raw_scale = tf.split(outputs, 2, axis=-1)
    return location, SMALLEST_SCALE + tf.nn.softplus(raw_scale)


def stacked_model(
    data: Data, layers: Sequence[int], seeds: Sequence[int], dropout_rate: float = 0.0
) -> tf.keras.Model:
    """K Gaussian networks side by side, as batched products.

    Args:
        data: Gives the sizes.
        layers: Units of the hidden ReLU layers.
        seeds: [K], one per member.
        dropout_rate: Share of hidden units that each training step leaves out.
    """
    num_members = len(seeds)
    states = hidden = tf.keras.Input(batch_shape=(num_members, None, data.states.shape[1]))
    for index, units in enumerate(layers):
        hidden = _stacked_dense(units, seeds, index, "relu")(hidden)
        if dropout_rate:
            dropout_seed = derive_seed(seeds[0], f"dropout {index}")
            hidden = tf.keras.layers.Dropout(dropout_rate, seed=dropout_seed)(hidden)
    outputs = _stacked_dense(2 * data.actions.shape[1], seeds, len(layers))(hidden)
    return tf.keras.Model(states, _gaussian_layer()(outputs))


def bayesian_model(data: Data, layers: Sequence[int], seed: int) -> tf.keras.Model:
    """A network with a Gaussian posterior over its kernels (Blundell et al. 2015), K = 1.

    Each call draws the kernels anew, with the reparameterization of Kingma and Welling (2014).

    The prior of a kernel is N(0, 2 / fan-in), under which hidden units keep the inputs' size
    whatever the width; biases are points. `losses` holds KL / N of each layer.
    """
    num_steps, num_inputs = data.states.shape
    states = hidden = tf.keras.Input(batch_shape=(1, None, num_inputs))
    sizes = (*layers, 2 * data.actions.shape[1])
    for index, units in enumerate(sizes):
        layer = tfp.layers.DenseReparameterization(
            units,
            activation="relu" if index < len(layers) else None,
            kernel_posterior_fn=tfp.layers.default_mean_field_normal_fn(
                loc_initializer=tf.keras.initializers.GlorotUniform(
                    derive_seed(seed, f"kernel {index}")
                ),
                untransformed_scale_initializer=tf.keras.initializers.Constant(
                    _FIRST_POSTERIOR_SCALE
                ),
            ),
            bias_posterior_fn=tfp.layers.default_mean_field_normal_fn(
                is_singular=True, loc_initializer="zeros"
            ),
            kernel_posterior_tensor_fn=_Sampler(derive_seed(seed, f"noise {index}")),
            kernel_prior_fn=_kernel_prior,
            kernel_divergence_fn=lambda q, p, _: tfp.distributions.kl_divergence(q, p) / num_steps,
        )
        with warnings.catch_warnings():  # TFP adds weights in a way that Keras is giving up.
            warnings.filterwarnings("ignore", "`layer.add_variable` is deprecated")
            hidden = layer(hidden)
    return tf.keras.Model(states, _gaussian_layer()(hidden))


def dense_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """The layers of a model that have weights, from the first to the last."""
    return [layer for layer in model.layers if layer.trainable_variables]


def maximize_likelihood(
    model: tf.keras.Model, data: Data, config: PriorConfig, seeds: Sequence[int]
) -> np.ndarray:
    """Trains a model in place, and restores each member's best weights if it stops early.

    Args:
        model: Of K members.
        data: To fit to.
        config: Epochs, weight decay, entropy bonus, patience.
        seeds: [K], of the order in which each member sees the data.

    Returns:
        [K] int, the epochs of training that each member's weights have had.

    Raises:
        UserError: if the loss stops being finite.
    """
    trainer = _Trainer(model, data, config)
    generators = [np.random.default_rng(derive_seed(seed, "order")) for seed in seeds]
    best = _Best(model, len(seeds), config.early_stopping_patience)
    for epoch in range(1, config.network_epochs + 1):
        orders = np.stack([generator.permutation(len(data.states)) for generator in generators])
        loss = trainer.epoch(trainer.batches(orders)).numpy()
        if not np.isfinite(loss).all():
            raise not_finite()
        if data.held_out is not None:
            held_out_loss = trainer.negative_log_likelihood(*data.held_out).numpy()
            if best.exhausted(epoch, held_out_loss):
                break
    if data.held_out is None:
        return np.full(len(seeds), config.network_epochs)
    return best.restore()


def not_finite() -> UserError:
    """For a fit that diverged."""
    return UserError(
        "the network could not be fitted: its loss stopped being finite; look for badly scaled "
        "demonstrations, or give fewer --network_epochs"
    )


class _Trainer:
    """The compiled parts of a fit: one epoch of Adam, and the loss on held-out episodes."""

    def __init__(self, model: tf.keras.Model, data: Data, config: PriorConfig) -> None:
        self._model = model
        self._config = config
        self._states, self._actions = tf.constant(data.states), tf.constant(data.actions)
        self._batch_size = min(_BATCH_SIZE, len(data.states))
        # Decoupled (Loshchilov and Hutter 2019); a kernel that has a prior is drawn to it instead.
        decayed = config.weight_decay if not model.losses else 0.0
        self._optimizer = tf.keras.optimizers.Adam(
            _LEARNING_RATE, weight_decay=decayed or None, jit_compile=False
        )
        self._optimizer.exclude_from_weight_decay(var_names=["bias"])
        self._optimizer.build(model.trainable_variables)
        self.epoch = tf.function(self._epoch)
        self.negative_log_likelihood = tf.function(self._negative_log_likelihood)

    def batches(self, orders: np.ndarray) -> tf.Tensor:
        """Orders [K, N] cut into whole batches [steps, K, B]; the rest waits for another epoch."""
        num_steps = orders.shape[1] // self._batch_size
        whole = orders[:, : num_steps * self._batch_size]
        batches = whole.reshape(len(orders), num_steps, self._batch_size).swapaxes(0, 1)
        return tf.constant(batches, tf.int32)

    def _epoch(self, batches: tf.Tensor) -> tf.Tensor:
        """One pass; the mean loss [K]."""
        total = tf.zeros([self._model.input_shape[0]])
        for indices in batches:
            with tf.GradientTape() as tape:
                states, actions = (
                    tf.gather(self._states, indices),
                    tf.gather(self._actions, indices),
                )
                policy = self._model(states, training=True)
                losses = tf.reduce_mean(
                    -policy.log_prob(actions) - self._config.entropy_bonus * policy.entropy(),
                    axis=1,
                ) + tf.add_n([*self._model.losses, 0.0])
                loss = tf.reduce_sum(losses)
            variables = self._model.trainable_variables
            self._optimizer.apply_gradients(
                zip(tape.gradient(loss, variables), variables, strict=True)
            )
            total += losses
        return total / tf.cast(tf.shape(batches)[0], tf.float32)

    def _negative_log_likelihood(self, states: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        """Mean over states [N, D] and actions [N, A] that all members share; [K]."""
        shape = [self._model.input_shape[0], *states.shape]
        policy = self._model(tf.broadcast_to(states, shape), training=False)
        return -tf.reduce_mean(policy.log_prob(actions), axis=1)


class _Best:
    """The weights with which each member did best on held-out episodes.

    A member whose loss has not fallen for `patience` epochs is done: what it would do later does
    not count, so that training members together changes none of them.
    """

    def __init__(self, model: tf.keras.Model, num_members: int, patience: int) -> None:
        self._variables = model.trainable_variables
        self._patience = patience
        self._loss = np.full(num_members, np.inf)
        self._epoch = np.zeros(num_members, int)
        self._weights = [variable.numpy() for variable in self._variables]

    def exhausted(self, epoch: int, loss: np.ndarray) -> bool:
        """Notes the loss [K] after an epoch; whether all members are done."""
        better = (loss < self._loss) & (epoch - self._epoch <= self._patience)
        self._loss = np.where(better, loss, self._loss)
        self._epoch = np.where(better, epoch, self._epoch)
        if better.any():
            for index, variable in enumerate(self._variables):
                rows = better.reshape([-1] + [1] * (len(variable.shape) - 1))
                self._weights[index] = np.where(rows, variable.numpy(), self._weights[index])
        return bool((epoch - self._epoch >= self._patience).all())

    def restore(self) -> np.ndarray:
        """Gives the model its best weights; the epochs [K] they were reached in."""
        for variable, weights in zip(self._variables, self._weights, strict=True):
            variable.assign(weights)
        return self._epoch


class _Sampler(tf.Module):
    """Draws from a kernel's posterior, another time at each call, the same in each fit of a seed.

    Generators with a state of their own are raced for by a loop's parallel iterations.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(name="sampler")
        self._seed = seed
        self._num_drawn = tf.Variable(0, trainable=False, dtype=tf.int64)

    def __call__(self, posterior: tfp.distributions.Distribution) -> tf.Tensor:
        num_drawn = tf.cast(self._num_drawn.assign_add(1), tf.int32)
        return posterior.sample(seed=tf.stack([self._seed, num_drawn]))


@dataclasses.dataclass(frozen=True)
class _StackedInitializer:
    """Glorot's initial weights [K, inputs, outputs], drawn for each member from its own seed."""

    seeds: tuple[int, ...]

    def __call__(self, shape: Sequence[int], dtype: tf.DType | None = None) -> tf.Tensor:
        return tf.stack(
            [tf.keras.initializers.GlorotUniform(seed)(shape[1:], dtype) for seed in self.seeds]
        )


def _stacked_dense(
    units: int, seeds: Sequence[int], index: int, activation: str | None = None
) -> tf.keras.layers.Layer:
    """A dense layer per member: [K, B, inputs] -> [K, B, units]."""
    return tf.keras.layers.EinsumDense(
        "kbi,kio->kbo",
        output_shape=(None, units),
        bias_axes="ko",
        activation=activation,
        kernel_initializer=_StackedInitializer(
            tuple(derive_seed(seed, f"kernel {index}") for seed in seeds)
        ),
    )


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
    """N(0, 2 / fan-in) for a kernel [inputs, outputs] (He et al. 2015)."""
    scale = tf.fill(shape, tf.constant(np.sqrt(2.0 / shape[0]), dtype))
    normal = tfp.distributions.Normal(tf.zeros(shape, dtype), scale)
    return tfp.distributions.Independent(normal, reinterpreted_batch_ndims=len(shape))
