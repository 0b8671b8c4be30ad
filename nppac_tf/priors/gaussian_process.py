"""The behavioral prior: the posterior of actions given demonstrations under a Gaussian process.

With observations S [N, D], actions A [N, P], kernel k and noise variance v, all actions sharing one
kernel in units of their own (diagonal coregionalization), the posterior at a state s is

    mu0(s)    = m + k(s, S) W,                        W = K^-1 (A - m),    K = k(S, S) + v I,
    Sigma0(s) = k(s, s) - k(s, S) K^-1 k(S, s).

The mean is exact: W is solved for once (`linear_solver`). The variance is that given the
demonstration states nearest to s (`nearest_neighbors`). It is never smaller than the exact one, and
equals it where all states are neighbors. So N (D + P) numbers are kept instead of N^2. Sigma0 is
small near the demonstrations and grows back to k(s, s) away from them.

The scale is that of an action, sqrt(Sigma0 + v); the uncertainty is log sqrt(Sigma0), without the
noise. Results are float32. They are computed in float64, because the entries of W cancel; the sum
k(s, S) W in float32 where its rounding, which grows as |W|, is far below the noise.
"""

from typing import Any, Self

import numpy as np
import tensorflow as tf

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors import hyperparameters, linear_solver, nearest_neighbors
from nppac_tf.priors.base import BehavioralPrior, PriorStatistics
from nppac_tf.priors.hyperparameters import JITTER, SMALLEST_VARIANCE
from nppac_tf.priors.kernels import KERNELS

# In units of the lengthscales.
FARTHEST = 1e6
_CHUNK_ENTRIES = 2**19
# Error of k(s, S) W in float32 in units of the largest sum of |W|; measured: 4e-9 to 1e-8.
_RELATIVE_ROUNDING = 1e-8


class GaussianProcessPrior(BehavioralPrior):
    """What the exact and the sparse posterior share: units, and prediction in chunks.

    Args:
        settings: `kernel` (a name of `config.KERNELS`), and what the subclass adds.
        arrays: float64: `centers` [M, D] (scaled), `noise_variance` [], `observation_shift` and
            `observation_scale` [D], `action_shift`, `action_scale` and `held_out_floor` [P] (see
            `hyperparameters.ScaledData`), and what the subclass adds.
    """

    def __init__(self, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().__init__(arrays["centers"].shape[1], arrays["action_shift"].shape[0])
        self._settings = dict(settings)
        self._arrays = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
        self._kernel = KERNELS[settings["kernel"]]
        self._noise_variance = self._constant("noise_variance")
        self._observation_shift = self._constant("observation_shift")
        self._observation_scale = self._constant("observation_scale")
        self._action_shift = self._constant("action_shift")
        self._action_scale = self._constant("action_scale")
        self._predict = tf.function(
            self._predict_in_chunks,
            input_signature=[tf.TensorSpec([None, self.observation_size], tf.float64)],
        )

    def _constant(self, name: str, dtype: tf.DType = tf.float64) -> tf.Variable:
        return tf.Variable(self._arrays[name], trainable=False, dtype=dtype, name=name)

    def _posterior(self, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean [B, P] and variance [B] of the scaled process at scaled states [B, D]."""
        raise NotImplementedError

    def statistics(self, observations: tf.Tensor) -> PriorStatistics:
        """Location and scale [B, P] (float32) at observations [B, D], in units of actions."""
        return self.predict(observations)[0]

    def uncertainty(self, observations: tf.Tensor) -> tf.Tensor:
        """Log sqrt(Sigma0) [B] (float32) of the scaled process, without noise."""
        return self.predict(observations)[1]

    def predict(self, observations: tf.Tensor) -> tuple[PriorStatistics, tf.Tensor]:
        """`statistics` and `uncertainty` together, which share their work."""
        states = tf.cast(observations, tf.float64) - self._observation_shift
        # Far from all centers, where the kernel is 0; further off, squares would overflow.
        states = tf.clip_by_value(states / self._observation_scale, -FARTHEST, FARTHEST)
        mean, variance = self._predict(states)
        location = self._action_shift + self._action_scale * mean
        scale = self._action_scale * tf.sqrt(variance + self._noise_variance)[:, tf.newaxis]
        statistics = PriorStatistics(tf.cast(location, tf.float32), tf.cast(scale, tf.float32))
        return statistics, tf.cast(0.5 * tf.math.log(variance), tf.float32)

    def _predict_in_chunks(self, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Few states at a time, so that a chunk of the kernel matrix stays in the cache.

        All chunks have one size, which XLA asks for; the last is filled up with zeros.
        """
        most = max(1, _CHUNK_ENTRIES // len(self._arrays["centers"]))
        num_states = tf.shape(states)[0]
        num_chunks = tf.maximum(1, (num_states + most - 1) // most)
        rows = (num_states + num_chunks - 1) // num_chunks
        filled = tf.pad(states, [[0, num_chunks * rows - num_states], [0, 0]])
        chunks = tf.reshape(filled, [num_chunks, rows, self.observation_size])
        means = tf.TensorArray(
            tf.float64, num_chunks, infer_shape=False, element_shape=[None, self.action_size]
        )
        variances = tf.TensorArray(tf.float64, num_chunks, infer_shape=False, element_shape=[None])
        for index in tf.range(num_chunks):
            mean, variance = self._posterior(chunks[index])
            means = means.write(index, mean)
            variances = variances.write(index, tf.maximum(variance, SMALLEST_VARIANCE))
        return means.concat()[:num_states], variances.concat()[:num_states]

    def _scaled(self, demonstrations: Demonstrations) -> np.ndarray:
        """States [N, D] in the units of the centers."""
        shift, scale = self._arrays["observation_shift"], self._arrays["observation_scale"]
        return (demonstrations.observations.astype(np.float64) - shift) / scale

    @property
    def scale_floor(self) -> np.ndarray:
        """Scale [P] where held-out episodes are predicted best, in units of actions."""
        return self._arrays["held_out_floor"].astype(np.float32)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:  # noqa: D102
        return dict(self._settings), dict(self._arrays)

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Rebuilds a prior from what `state` returned."""
        return cls(settings, arrays)

    @property
    def summary(self) -> dict[str, float]:
        """The standard deviation of the noise, in units of the scaled process."""
        return {"noise_scale": float(np.sqrt(self._arrays["noise_variance"]))}


class GPPrior(GaussianProcessPrior):
    """The posterior given all demonstrations: exact mean, variance from the nearest states."""

    def __init__(self, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().__init__(settings, arrays)
        rounding = _RELATIVE_ROUNDING * np.abs(self._arrays["weights"]).sum(axis=0).max()
        noise_scale = np.sqrt(self._arrays["noise_variance"])
        self._compute_in(tf.float32 if rounding < 0.01 * noise_scale else tf.float64)

    def _compute_in(self, dtype: tf.DType) -> None:
        self._dtype = dtype
        self._weights = self._constant("weights", dtype)
        self._centers = self._constant("centers", dtype)

    @classmethod
    def fit(
        cls,
        demonstrations: Demonstrations,
        kernel: str = PriorConfig.kernel,
        ard: bool = PriorConfig.ard,
        lengthscale_factor: float = PriorConfig.lengthscale_factor,
        num_neighbors: int = PriorConfig.num_neighbors,
        seed: int = 0,
    ) -> Self:
        """Fits hyper-parameters and posterior to demonstrations.

        Args:
            demonstrations: N state-action pairs.
            kernel: A name of `config.KERNELS`.
            ard: Whether each dimension of the observation has a lengthscale of its own.
            lengthscale_factor: Factor on the fitted lengthscales.
            num_neighbors: k, the demonstration states that the variance is conditioned on.
            seed: Seed of the random subset that hyper-parameters are fitted to.

        Raises:
            UserError: if the fit ends in a value that is not finite.
        """
        data = hyperparameters.fit(
            demonstrations, kernel, ard, lengthscale_factor, num_neighbors, seed
        )
        solution = linear_solver.solve(
            KERNELS[kernel], data.noise_variance + JITTER, data.states, data.actions
        )
        return cls(
            {"kernel": kernel, "num_neighbors": num_neighbors, "residual": solution.residual},
            {
                "centers": data.states,
                "weights": solution.weights,
                "noise_variance": np.asarray(data.noise_variance),
                **data.units,
            },
        )

    def precise(self) -> Self:
        """The same prior with all sums in float64."""
        if self._dtype == tf.float64:
            return self
        twin = self.from_state(*self.state())
        twin._compute_in(tf.float64)
        return twin

    def _posterior(self, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        distances = nearest_neighbors.squared_distances(tf.cast(states, self._dtype), self._centers)
        mean = tf.matmul(self._kernel(distances), self._weights)
        nearest = nearest_neighbors.nearest(distances, self._settings["num_neighbors"])
        neighbors = tf.cast(tf.gather(self._centers, nearest), tf.float64)
        variance = self._variance(states, neighbors)
        return tf.cast(mean, tf.float64), variance

    def _variance(self, states: tf.Tensor, neighbors: tf.Tensor) -> tf.Tensor:
        noise_variance = self._noise_variance + JITTER
        return nearest_neighbors.condition(self._kernel, noise_variance, states, neighbors)[1]

    def held_out_uncertainty(self, demonstrations: Demonstrations, folds: np.ndarray) -> np.ndarray:
        """See `BehavioralPrior`. The neighbors of a state are those of other folds.

        Raises:
            UserError: if these are not the demonstrations that the prior was fitted to.
        """
        states, centers = self._scaled(demonstrations), self._arrays["centers"]
        if states.shape != centers.shape or not np.allclose(states, centers, atol=1e-5):
            raise UserError(
                "demonstrations must be those that the prior was fitted to, "
                f"{len(centers):,} steps; got {demonstrations.name}, {len(states):,} steps"
            )
        count = min(self._settings["num_neighbors"], len(states) - np.bincount(folds).max())
        rows = max(1, _CHUNK_ENTRIES // len(states))
        variance = np.empty(len(states))
        for start in range(0, len(states), rows):
            chunk = np.arange(start, min(start + rows, len(states)))
            neighbors = nearest_neighbors.nearest_elsewhere(centers, chunk, folds, count)
            variance[chunk] = self._variance(
                tf.constant(centers[chunk]), tf.constant(centers[neighbors])
            )
        return log_scale(variance)

    @property
    def summary(self) -> dict[str, float]:
        """Noise, as the base class has it, and the relative residual of the weights' solution."""
        return {**super().summary, "residual": float(self._settings["residual"])}


def log_scale(variance: np.ndarray) -> np.ndarray:
    """Log standard deviations [N] float32 of variances [N], kept positive."""
    return (0.5 * np.log(np.maximum(variance, SMALLEST_VARIANCE))).astype(np.float32)
