"""A sparse variational Gaussian process (SVGP) with the optimal q(u) at M inducing points.

With inducing points Z, L L' = k(Z, Z) and whitened q(L^-1 u) = N(q_mean, q_covariance),

    mu0(s)    = m + k(s, Z) L^-T q_mean,
    Sigma0(s) = k(s, s) - k(s, Z) L^-T (I - q_covariance) L^-1 k(Z, s).

For a Gaussian likelihood the best q(u) is known in closed form (Titsias 2009), as a sum over points
that is taken in chunks. q stays whitened: its precision is then at least the identity, so that its
factorization does not depend on how close to singular k(Z, Z) is.
"""

from typing import Any, Self

import numpy as np
import tensorflow as tf
from scipy import linalg

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.priors import hyperparameters
from nppac_tf.priors.gaussian_process import GaussianProcessPrior, log_scale
from nppac_tf.priors.hyperparameters import JITTER, ScaledData
from nppac_tf.priors.kernels import KERNELS, Kernel
from nppac_tf.priors.linear_solver import no_posterior
from nppac_tf.priors.nearest_neighbors import squared_distances

_CHUNK_ROWS = 1024


class SparseGPPrior(GaussianProcessPrior):
    """The posterior given M inducing points, with the hyper-parameters of `GPPrior`."""

    def __init__(self, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().__init__(settings, arrays)
        factor = _inducing_factor(self._kernel, self._arrays["centers"])
        inverse = linalg.solve_triangular(factor, np.eye(len(factor)), lower=True)
        explained = np.eye(len(factor)) - self._arrays["q_covariance"]
        weights = inverse.T @ self._arrays["q_mean"]
        precision = inverse.T @ explained @ inverse
        if not (np.isfinite(weights).all() and np.isfinite(precision).all()):
            raise no_posterior()
        self._centers = self._constant("centers")
        self._weights = tf.Variable(weights, trainable=False, name="weights")
        self._precision = tf.Variable(precision, trainable=False, name="precision")

    @classmethod
    def fit(
        cls,
        demonstrations: Demonstrations,
        kernel: str = PriorConfig.kernel,
        ard: bool = PriorConfig.ard,
        lengthscale_factor: float = PriorConfig.lengthscale_factor,
        num_inducing_points: int = PriorConfig.num_inducing_points,
        num_neighbors: int = PriorConfig.num_neighbors,
        seed: int = 0,
    ) -> Self:
        """Fits hyper-parameters and posterior to demonstrations.

        Args:
            demonstrations: N state-action pairs.
            kernel: A name of `config.KERNELS`.
            ard: Whether each dimension of the observation has a lengthscale of its own.
            lengthscale_factor: Factor on the fitted lengthscales.
            num_inducing_points: M; no more than N are used.
            num_neighbors: Points of other episodes that set the scale of the actions.
            seed: Seed of the random subset that hyper-parameters are fitted to.

        Raises:
            UserError: if the fit ends in a value that is not finite.
        """
        data = hyperparameters.fit(
            demonstrations, kernel, ard, lengthscale_factor, num_neighbors, seed
        )
        centers = _inducing_points(KERNELS[kernel], data.states, num_inducing_points)
        q_mean, q_covariance = _optimal_whitened_q(data, centers)
        return cls(
            {"kernel": kernel},
            {
                "centers": centers,
                "q_mean": q_mean,
                "q_covariance": q_covariance,
                "noise_variance": np.asarray(data.noise_variance),
                **data.units,
            },
        )

    def _posterior(self, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        cross = self._kernel(squared_distances(states, self._centers))
        explained = tf.reduce_sum(tf.matmul(cross, self._precision) * cross, axis=1)
        return tf.matmul(cross, self._weights), 1.0 - explained

    @property
    def weights_and_precision(self) -> tuple[np.ndarray, np.ndarray]:
        """The arrays [M, P] and [M, M] that predict mean and variance."""
        return self._weights.numpy(), self._precision.numpy()

    def held_out_uncertainty(self, demonstrations: Demonstrations, folds: np.ndarray) -> np.ndarray:
        """See `BehavioralPrior`. With q(u) optimal for the other folds; Z stays."""
        states, noise = self._scaled(demonstrations), self._arrays["noise_variance"]
        factor = _inducing_factor(self._kernel, self._arrays["centers"])
        features = _features(self._kernel, factor, self._arrays["centers"], states)
        variance = 1.0 - np.square(features).sum(axis=0)
        for fold in np.unique(folds):
            rest, held_out = features[:, folds != fold], features[:, folds == fold]
            precision = linalg.cholesky(np.eye(len(factor)) + rest @ rest.T / noise, lower=True)
            unexplained = linalg.solve_triangular(precision, held_out, lower=True)
            variance[folds == fold] += np.square(unexplained).sum(axis=0)
        return log_scale(variance)


def _inducing_points(kernel: Kernel, states: np.ndarray, size: int) -> np.ndarray:
    """At most `size` states and at least one, each of largest variance given those before it.

    The greedy choice of Burt et al. (2020), a pivoted Cholesky factorization: it spreads points
    where the process varies and never takes a duplicate (demonstrations often share their first
    state), which would make k(Z, Z) singular. Cost N size^2.
    """
    row_of = tf.function(lambda point: kernel(squared_distances(point, states))[0], autograph=False)
    variance = np.ones(len(states))
    rows = np.zeros((min(size, len(states)), len(states)))
    chosen: list[int] = []
    for index in range(len(rows)):
        pivot = int(np.argmax(variance))
        if chosen and variance[pivot] <= 10 * JITTER:
            break
        row = row_of(tf.constant(states[pivot : pivot + 1])).numpy()
        row -= rows[:index, pivot] @ rows[:index]
        rows[index] = row / np.sqrt(variance[pivot])
        variance = np.maximum(variance - rows[index] ** 2, 0.0)
        chosen.append(pivot)
    return states[chosen]


def _inducing_factor(kernel: Kernel, inducing_points: np.ndarray) -> np.ndarray:
    covariance = kernel(squared_distances(inducing_points, inducing_points)).numpy()
    covariance[np.diag_indices_from(covariance)] = 1.0 + JITTER
    try:
        return linalg.cholesky(covariance, lower=True)
    except linalg.LinAlgError:
        raise no_posterior() from None


def _features(
    kernel: Kernel, factor: np.ndarray, inducing_points: np.ndarray, states: np.ndarray
) -> np.ndarray:
    """L^-1 k(Z, S), [M, B]."""
    cross = kernel(squared_distances(inducing_points, states)).numpy()
    return linalg.solve_triangular(factor, cross, lower=True)


def _optimal_whitened_q(
    data: ScaledData, inducing_points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean [M, P] and covariance [M, M] of the optimal q(L^-1 u) (Titsias 2009, eq. 10).

    With F = L^-1 k(Z, S) / sqrt(v) and B = I + F F': q_covariance = B^-1 and
    q_mean = B^-1 F A / sqrt(v).
    """
    kernel, noise = KERNELS[data.kernel], np.sqrt(data.noise_variance)
    factor = _inducing_factor(kernel, inducing_points)
    precision = np.eye(len(factor))
    projected = np.zeros((len(factor), data.actions.shape[1]))
    for start in range(0, len(data.states), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        features = _features(kernel, factor, inducing_points, data.states[rows]) / noise
        precision += features @ features.T
        projected += features @ (data.actions[rows] / noise)
    cholesky = linalg.cho_factor(precision, lower=True)
    return linalg.cho_solve(cholesky, projected), linalg.cho_solve(cholesky, np.eye(len(factor)))
