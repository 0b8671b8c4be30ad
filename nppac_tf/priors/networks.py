"""Parametric behavioral priors: Gaussian network, deep ensemble, Bayesian network, dropout.

Once fitted, each is a mixture of K networks with given weights, K = 1 for a single network, whose
moments are matched by one Gaussian per action component: with mu_k(s) and sigma_k(s) of network k

    mu0 = mean_k mu_k,    sigma0^2 = mean_k (sigma_k^2 + mu_k^2) - mu0^2

(Lakshminarayanan et al. 2017), so that only the fits differ, and where the K networks come from:

- `GaussianNetworkPrior`: one network, by maximum likelihood. Away from the demonstrations nothing
  holds its deviation up: it is the policy whose collapse the paper describes.
- `EnsemblePrior`: networks that differ by initial weights and the order of the data.
- `BayesianNetworkPrior`: one network's weights, drawn K times from their variational posterior.
- `DropoutPrior`: one network, of whose hidden units K random masks leave some out (Gal and
  Ghahramani 2016).

All random draws are made when fitting: a fitted prior is deterministic, and its weights are arrays.
"""

import abc
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import tensorflow as tf

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.priors import network_fitting
from nppac_tf.priors.base import BehavioralPrior, PriorStatistics
from nppac_tf.seeding import derive_seed

_UNITS = ("observation_shift", "observation_scale", "action_shift", "action_scale")


class NetworkPrior(BehavioralPrior):
    """K ReLU networks with Gaussian outputs, and the Gaussian that matches their mixture's moments.

    Args:
        settings: `epochs`, the epochs of training of each network fitted, a list; `seed`, of all
            random draws.
        arrays: float32 arrays: shift and scale of observations [D] and actions [A]; of layer i from
            0 on `kernel_i` [K, inputs, outputs] and `bias_i` [K, outputs]. The last layer gives 2 A
            outputs, as `network_fitting.gaussian_parameters` takes them.

    Raises:
        ValueError: if the arrays do not make such networks, or are not finite.
    """

    def __init__(self, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        _check(arrays)
        super().__init__(len(arrays["observation_shift"]), len(arrays["action_shift"]))
        self._epochs = [int(epochs) for epochs in settings["epochs"]]
        self._seed = int(settings["seed"])
        self._arrays = {
            name: tf.Variable(np.asarray(array, np.float32), trainable=False, name=name)
            for name, array in arrays.items()
        }
        self._num_layers = _num_layers(arrays)

    @classmethod
    @abc.abstractmethod
    def fit(cls, demonstrations: Demonstrations, config: PriorConfig | None = None) -> Self:
        """Fits to demonstrations; the same seed gives the same weights.

        Args:
            demonstrations: N state-action pairs.
            config: Layers, epochs, regularizers and seed; defaults where None. Its rescaling is for
                `fit_prior`, which wraps what this returns.

        Raises:
            UserError: if the loss stops being finite, or early stopping has no episode to hold out.
        """

    def statistics(self, observations: tf.Tensor) -> PriorStatistics:
        """Location and deviation [B, A] (float32) at observations [B, D], in units of actions."""
        arrays = self._arrays
        hidden = (observations - arrays["observation_shift"]) / arrays["observation_scale"]
        for index in range(self._num_layers):
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
        return {"epochs": list(self._epochs), "seed": self._seed}, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """The inverse of `state`."""
        return cls(settings, arrays)

    @property
    def summary(self) -> dict[str, float]:
        """The fit in a few numbers: networks in the mixture, mean epochs of training."""
        return {
            "networks": int(self._arrays["kernel_0"].shape[0]),
            "epochs": float(np.mean(self._epochs)),
        }


class GaussianNetworkPrior(NetworkPrior):
    """A network that gives location and deviation of the action, by maximum likelihood."""

    @classmethod
    def fit(cls, demonstrations: Demonstrations, config: PriorConfig | None = None) -> Self:  # noqa: D102
        return _fit_members(cls, demonstrations, config or PriorConfig(), num_members=1)


class EnsemblePrior(NetworkPrior):
    """A deep ensemble (Lakshminarayanan et al. 2017), without their adversarial examples.

    Each member is what `GaussianNetworkPrior` would be with the member's seed.
    """

    @classmethod
    def fit(cls, demonstrations: Demonstrations, config: PriorConfig | None = None) -> Self:  # noqa: D102
        config = config or PriorConfig()
        return _fit_members(cls, demonstrations, config, config.ensemble_size)


class BayesianNetworkPrior(NetworkPrior):
    """A network whose kernels have a variational posterior, at K draws from it."""

    @classmethod
    def fit(cls, demonstrations: Demonstrations, config: PriorConfig | None = None) -> Self:  # noqa: D102
        config = config or PriorConfig()
        data = network_fitting.Data(demonstrations, config)
        model = network_fitting.bayesian_model(data, config.network_layers, config.prior_seed)
        epochs = network_fitting.maximize_likelihood(model, data, config, [config.prior_seed])
        generator = np.random.default_rng(derive_seed(config.prior_seed, "weight samples"))
        weights = []
        for layer in network_fitting.dense_layers(model):
            posterior = layer.kernel_posterior
            mean, deviation = posterior.mean().numpy(), posterior.stddev().numpy()
            noise = generator.standard_normal((config.num_network_samples, *mean.shape))
            bias = np.repeat(layer.bias_posterior.mean().numpy()[np.newaxis], len(noise), axis=0)
            weights.append((mean + deviation * noise, bias))
        return _fitted(cls, data, config, epochs, weights)


class DropoutPrior(NetworkPrior):
    """A network trained with dropout of hidden units, under K fixed masks."""

    @classmethod
    def fit(cls, demonstrations: Demonstrations, config: PriorConfig | None = None) -> Self:  # noqa: D102
        config = config or PriorConfig()
        data = network_fitting.Data(demonstrations, config)
        seeds = _member_seeds(config, 1)
        model = network_fitting.stacked_model(
            data, config.network_layers, seeds, config.dropout_rate
        )
        epochs = network_fitting.maximize_likelihood(model, data, config, seeds)
        generator = np.random.default_rng(derive_seed(config.prior_seed, "masks"))
        weights = []
        for index, (kernel, bias) in enumerate(_weights(model)):
            kernels = np.repeat(kernel, config.num_network_samples, axis=0)
            if (
                index
            ):  # Leaving a unit out is as good as leaving out what the next layer makes of it.
                kept = generator.random(kernels.shape[:2]) >= config.dropout_rate
                kernels = kernels * (kept / (1.0 - config.dropout_rate))[..., np.newaxis]
            weights.append((kernels, np.repeat(bias, config.num_network_samples, axis=0)))
        return _fitted(cls, data, config, epochs, weights)


def _fit_members(
    cls: type[Any], demonstrations: Demonstrations, config: PriorConfig, num_members: int
) -> Any:
    data = network_fitting.Data(demonstrations, config)
    seeds = _member_seeds(config, num_members)
    model = network_fitting.stacked_model(data, config.network_layers, seeds)
    epochs = network_fitting.maximize_likelihood(model, data, config, seeds)
    return _fitted(cls, data, config, epochs, _weights(model))


def _member_seeds(config: PriorConfig, num_members: int) -> list[int]:
    return [derive_seed(config.prior_seed, f"member {index}") for index in range(num_members)]


def _weights(model: tf.keras.Model) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels [K, inputs, outputs] and biases [K, outputs] of a stacked model's layers."""
    return [
        (layer.kernel.numpy(), np.squeeze(layer.bias.numpy(), axis=1))
        for layer in network_fitting.dense_layers(model)
    ]


def _fitted(
    cls: type[Any],
    data: network_fitting.Data,
    config: PriorConfig,
    epochs: np.ndarray,
    weights: Iterable[tuple[np.ndarray, np.ndarray]],
) -> Any:
    arrays = {
        "observation_shift": data.observation_units.shift,
        "observation_scale": data.observation_units.scale,
        "action_shift": data.action_units.shift,
        "action_scale": data.action_units.scale,
    }
    for index, (kernels, biases) in enumerate(weights):
        arrays |= {f"kernel_{index}": kernels, f"bias_{index}": biases}
    # The last update can break what the last loss, taken before it, could not show.
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise network_fitting.not_finite()
    return cls({"epochs": epochs.tolist(), "seed": config.prior_seed}, arrays)


def _num_layers(arrays: dict[str, np.ndarray]) -> int:
    return sum(name.startswith("kernel_") for name in arrays)


def _check(arrays: dict[str, np.ndarray]) -> None:
    """Raises ValueError unless the arrays are those of a `NetworkPrior`."""
    num_layers = _num_layers(arrays)
    layers = {f"{part}_{index}" for part in ("kernel", "bias") for index in range(num_layers)}
    if not num_layers or arrays.keys() != layers | set(_UNITS):
        raise ValueError(f"arrays must be those of networks; got {', '.join(sorted(arrays))}")
    observation_size, action_size = arrays["observation_shift"].size, arrays["action_shift"].size
    wanted: dict[str, tuple[int, ...]] = {
        "observation_shift": (observation_size,),
        "observation_scale": (observation_size,),
        "action_shift": (action_size,),
        "action_scale": (action_size,),
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
