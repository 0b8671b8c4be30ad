"""Parametric behavioral priors: Gaussian network, deep ensemble, Bayesian network, dropout.

Each is a mixture of K networks with equal weights (K = 1 for a single network), whose moments are
matched by one Gaussian per action component. With mu_k(s) and sigma_k(s) of network k

    mu0 = mean_k mu_k,    sigma0^2 = mean_k (sigma_k^2 + mu_k^2) - mu0^2

(Lakshminarayanan et al. 2017). The classes differ in where the K networks come from:

- `GaussianNetworkPrior`: one network, by maximum likelihood. Nothing keeps its standard deviation
  from collapsing away from the demonstrations, which is the pathology that the paper describes.
- `EnsemblePrior`: networks that differ in initial weights and in the order of the data.
- `BayesianNetworkPrior`: one network, with K samples from the variational posterior of its weights.
- `DropoutPrior`: one network under K random masks of its hidden units (Gal and Ghahramani 2016).

All random numbers are drawn when fitting: a fitted prior is deterministic.
"""

import abc
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import tensorflow as tf

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors import network_fitting
from nppac_tf.priors.base import BehavioralPrior, PriorStatistics
from nppac_tf.seeding import derive_seed

# K of a Bayesian network and of dropout.
NUM_SAMPLES = 20

# Kernels [K, inputs, outputs] and biases [K, outputs] of each layer.
Weights = list[tuple[np.ndarray, np.ndarray]]


class NetworkPrior(BehavioralPrior):
    """K ReLU networks with Gaussian outputs, and the Gaussian that matches their mixture's moments.

    Args:
        settings: `epochs` and `seed` of the fit.
        arrays: float32 arrays: `observation_shift` and `observation_scale` [D], `action_shift` and
            `action_scale` [A], and for layer i = 0, 1, ... `kernel_i` [K, inputs, outputs] and
            `bias_i` [K, outputs]. The last layer has 2 A outputs, which
            `network_fitting.gaussian_parameters` splits.

    Raises:
        ValueError: The arrays do not make such networks, or are not finite.
    """

    def __init__(self, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        _check_arrays(arrays)
        super().__init__(len(arrays["observation_shift"]), len(arrays["action_shift"]))
        self._settings = {name: int(settings[name]) for name in ("epochs", "seed")}
        self._arrays = {
            name: tf.Variable(np.asarray(array, np.float32), trainable=False, name=name)
            for name, array in arrays.items()
        }

    @classmethod
    @abc.abstractmethod
    def fit(
        cls,
        demonstrations: Demonstrations,
        layers: Sequence[int] = PriorConfig.network_layers,
        epochs: int = PriorConfig.network_epochs,
        seed: int = 0,
    ) -> Self:
        """Fits to demonstrations; the same seed gives the same weights.

        Args:
            demonstrations: N state-action pairs.
            layers: Number of units of each hidden layer, at least one layer.
            epochs: Number of passes over the demonstrations, at least 1.
            seed: Seed of initial weights, order of the data, and samples.

        Raises:
            UserError: An argument is out of range, or the fit ends in weights that are not finite.
        """

    def statistics(self, observations: tf.Tensor) -> PriorStatistics:
        """Location and scale [B, A] (float32) at observations [B, D], in units of actions."""
        arrays = self._arrays
        hidden = (observations - arrays["observation_shift"]) / arrays["observation_scale"]
        for index in range(_num_layers(arrays)):
            if index:
                hidden = tf.nn.relu(hidden)
            hidden = tf.matmul(hidden, arrays[f"kernel_{index}"])
            hidden += arrays[f"bias_{index}"][:, tf.newaxis]
        locations, scales = network_fitting.gaussian_parameters(hidden)
        location = tf.reduce_mean(locations, axis=0)
        # The module's formula, without the cancellation of mu_k^2 and mu0^2.
        variance = tf.reduce_mean(tf.square(scales) + tf.square(locations - location), axis=0)
        return PriorStatistics(
            arrays["action_shift"] + arrays["action_scale"] * location,
            arrays["action_scale"] * tf.sqrt(variance),
        )

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:  # noqa: D102
        arrays = {name: variable.numpy() for name, variable in self._arrays.items()}
        return dict(self._settings), arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Rebuilds a prior from what `state` returned."""
        return cls(settings, arrays)

    @property
    def summary(self) -> dict[str, float]:
        """Number of networks K and of training epochs."""
        return {
            "networks": int(self._arrays["kernel_0"].shape[0]),
            "epochs": self._settings["epochs"],
        }


class EnsemblePrior(NetworkPrior):
    """A deep ensemble (Lakshminarayanan et al. 2017), without adversarial examples.

    Its first member equals `GaussianNetworkPrior` with the same seed.
    """

    @classmethod
    def fit(
        cls,
        demonstrations: Demonstrations,
        layers: Sequence[int] = PriorConfig.network_layers,
        epochs: int = PriorConfig.network_epochs,
        seed: int = 0,
        size: int = PriorConfig.ensemble_size,
    ) -> Self:
        """See `NetworkPrior.fit`; `size` is the number of networks K, at least 1."""
        _require(size >= 1, "size", "at least 1", size)
        return cls(*_fit_members(demonstrations, layers, epochs, seed, size))


class GaussianNetworkPrior(NetworkPrior):
    """One network that outputs location and scale of the action: an ensemble of size 1."""

    @classmethod
    def fit(  # noqa: D102
        cls,
        demonstrations: Demonstrations,
        layers: Sequence[int] = PriorConfig.network_layers,
        epochs: int = PriorConfig.network_epochs,
        seed: int = 0,
    ) -> Self:
        return cls(*_fit_members(demonstrations, layers, epochs, seed, size=1))


class BayesianNetworkPrior(NetworkPrior):
    """K = `NUM_SAMPLES` samples of a network whose kernels have a variational posterior."""

    @classmethod
    def fit(  # noqa: D102
        cls,
        demonstrations: Demonstrations,
        layers: Sequence[int] = PriorConfig.network_layers,
        epochs: int = PriorConfig.network_epochs,
        seed: int = 0,
    ) -> Self:
        sizes = _sizes(demonstrations, layers)
        model = network_fitting.bayesian_model(sizes, demonstrations.num_steps, seed)
        units = network_fitting.maximize_likelihood(model, demonstrations, epochs, [seed])
        samples = posterior_samples(model, NUM_SAMPLES, derive_seed(seed, "weight samples"))
        return cls({"epochs": epochs, "seed": seed}, units | _named(samples))


class DropoutPrior(NetworkPrior):
    """K = `NUM_SAMPLES` masks of a network trained with dropout of hidden units."""

    @classmethod
    def fit(
        cls,
        demonstrations: Demonstrations,
        layers: Sequence[int] = PriorConfig.network_layers,
        epochs: int = PriorConfig.network_epochs,
        seed: int = 0,
        rate: float = PriorConfig.dropout_rate,
    ) -> Self:
        """See `NetworkPrior.fit`; `rate` is the share of hidden units dropped, in [0, 1)."""
        _require(0 <= rate < 1, "rate", "in [0, 1)", rate)
        seeds = [_member_seed(seed, 0)]
        model = network_fitting.stacked_model(_sizes(demonstrations, layers), seeds, rate)
        units = network_fitting.maximize_likelihood(model, demonstrations, epochs, seeds)
        generator = np.random.default_rng(derive_seed(seed, "masks"))
        weights = []
        for index, (kernel, bias) in enumerate(_weights(model)):
            kernels = np.repeat(kernel, NUM_SAMPLES, axis=0)
            if index:  # Zeroing a row of the next layer's kernel drops the hidden unit it reads.
                kept = generator.random(kernels.shape[:2]) >= rate
                kernels = kernels * (kept / (1.0 - rate))[..., np.newaxis]
            weights.append((kernels, np.repeat(bias, NUM_SAMPLES, axis=0)))
        return cls({"epochs": epochs, "seed": seed}, units | _named(weights))


def posterior_samples(model: tf.keras.Model, count: int, seed: int) -> Weights:
    """Weights of `count` networks, sampled from the posterior of a Bayesian model."""
    generator = np.random.default_rng(seed)
    weights = []
    for layer in network_fitting.dense_layers(model):
        posterior, bias = layer.kernel_posterior, layer.bias_posterior.mean().numpy()
        mean, scale = posterior.mean().numpy(), posterior.stddev().numpy()
        noise = generator.standard_normal((count, *mean.shape))
        weights.append((mean + scale * noise, np.tile(bias, (count, 1))))
    return weights


def _fit_members(
    demonstrations: Demonstrations, layers: Sequence[int], epochs: int, seed: int, size: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fits `size` networks; returns settings and arrays of their prior."""
    seeds = [_member_seed(seed, index) for index in range(size)]
    model = network_fitting.stacked_model(_sizes(demonstrations, layers), seeds)
    units = network_fitting.maximize_likelihood(model, demonstrations, epochs, seeds)
    return {"epochs": epochs, "seed": seed}, units | _named(_weights(model))


def _weights(model: tf.keras.Model) -> Weights:
    """Weights of a stacked model."""
    return [
        (layer.kernel.numpy(), np.squeeze(layer.bias.numpy(), axis=1))
        for layer in network_fitting.dense_layers(model)
    ]


def _named(weights: Weights) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for index, (kernels, biases) in enumerate(weights):
        arrays |= {f"kernel_{index}": kernels, f"bias_{index}": biases}
    return arrays


def _sizes(demonstrations: Demonstrations, layers: Sequence[int]) -> tuple[int, ...]:
    _require(min(layers, default=0) >= 1, "layers", "positive sizes", layers)
    return demonstrations.observation_size, *layers, 2 * demonstrations.action_size


def _member_seed(seed: int, index: int) -> int:
    return derive_seed(seed, f"member {index}")


def _require(condition: bool, name: str, requirement: str, received: Any) -> None:
    if not condition:
        raise UserError(f"{name} must be {requirement}; got {received!r}")


def _num_layers(arrays: dict[str, Any]) -> int:
    return sum(name.startswith("kernel_") for name in arrays)


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError unless the arrays are those of a `NetworkPrior`."""
    num_layers = _num_layers(arrays)
    layers = {f"{part}_{index}" for part in ("kernel", "bias") for index in range(num_layers)}
    units = {"observation_shift", "observation_scale", "action_shift", "action_scale"}
    if not num_layers or arrays.keys() != layers | units:
        raise ValueError(f"arrays must be those of networks; got {', '.join(sorted(arrays))}")
    observation_size, action_size = arrays["observation_shift"].size, arrays["action_shift"].size
    wanted: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("observation_shift", "observation_scale"), (observation_size,)),
        **dict.fromkeys(("action_shift", "action_scale"), (action_size,)),
    }
    num_networks, num_inputs = len(np.atleast_1d(arrays["kernel_0"])), observation_size
    for index in range(num_layers):
        last = index == num_layers - 1
        num_outputs = 2 * action_size if last else arrays[f"bias_{index}"].size // num_networks
        wanted[f"kernel_{index}"] = (num_networks, num_inputs, num_outputs)
        wanted[f"bias_{index}"] = (num_networks, num_outputs)
        num_inputs = num_outputs
    for name, shape in wanted.items():
        array = arrays[name]
        if array.shape != shape or not array.size:
            raise ValueError(f"{name} must be {list(shape)}; got {list(array.shape)}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite numbers")
        if name.endswith("_scale") and not (array > 0).all():
            raise ValueError(f"{name} must be positive")
