"""Gaussian-process behavioral priors: the posterior of actions given demonstrations (GPflow).

With observations S [N, D], actions A [N, P], kernel k, constant mean m per action and noise
variance v, all actions sharing one kernel in units of their own (diagonal coregionalization), the
exact posterior at a state s is

    mu0(s)    = m + k(s, S) K^-1 (A - m),            K = k(S, S) + v I,
    Sigma0(s) = k(s, s) - k(s, S) K^-1 k(S, s),

and the sparse variational one with inducing points Z, L L' = k(Z, Z) and whitened
q(L^-1 u) = N(q_mu, q_cov)

    mu0(s)    = m + k(s, Z) L^-T q_mu,
    Sigma0(s) = k(s, s) - k(s, Z) L^-T (I - q_cov) L^-1 k(Z, s).

Both are mu0 = m + k(s, C) W and Sigma0 = k(s, s) - k(s, C) Q k(C, s) with fixed centers C, weights
W and matrix Q: what prediction costs is one kernel matrix and two products. Sigma0 falls near the
demonstrations and grows back to k(s, s) away from them. The deviation returned is that of an
action, sqrt(Sigma0 + v), or of the mean action, sqrt(Sigma0), without the observation noise. The
uncertainty is log sqrt(Sigma0), always without it.

Q is symmetric, and its entries cancel: v is often 1e-6, Sigma0 as small, and Q as large as 1 / v,
so it must stay in float64. It is kept as blocks of rows cut off at the diagonal, which halves
memory, the size of an export, and the product that costs most.

This module is the border between float64 (fitting, factors, prediction) and float32 (what leaves).
"""

import abc
import dataclasses
from typing import Any, Self

import gpflow
import numpy as np
import tensorflow as tf
from scipy import linalg

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors.base import BehavioralPrior, PriorStatistics
from nppac_tf.priors.standardization import Standardization

JITTER = 1e-6
_SMALLEST_VARIANCE = 1e-10
_BLOCK_ROWS = 128
_CHUNK_ROWS = 1024

_KERNELS = {
    "rbf": gpflow.kernels.SquaredExponential,
    "matern12": gpflow.kernels.Matern12,
    "matern32": gpflow.kernels.Matern32,
    "matern52": gpflow.kernels.Matern52,
}


class GaussianProcessPrior(BehavioralPrior):
    """What exact and sparse Gaussian-process priors share: kernel, units, prediction.

    Args:
        settings: `kernel` (a name of `config.KERNELS`) and `observation_noise` (whether the
            deviation includes the noise).
        arrays: float64 arrays: `kernel_variance` [], `lengthscales` [D], `noise_variance` [],
            `mean` [P] (of standardized actions), shift and scale of observations [D] and actions
            [P], `centers` [M, D] (standardized), and what the subclass adds.
    """

    def __init__(self, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        super().__init__(arrays["centers"].shape[1], arrays["mean"].shape[0])
        self._settings = dict(settings)
        self._arrays = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
        with gpflow.config.as_context(_float64()):
            self._kernel = _KERNELS[settings["kernel"]](
                variance=float(arrays["kernel_variance"]), lengthscales=arrays["lengthscales"]
            )
            gpflow.set_trainable(self._kernel, False)
            weights, precision = (np.asarray(factor) for factor in self._factors())
        if not (np.isfinite(weights).all() and np.isfinite(precision).all()):
            raise _no_posterior()
        self._centers = self._constant("centers")
        self._weights = tf.Variable(weights, trainable=False, name="weights")
        self._precision = _SymmetricMatrix(precision)
        self._mean = self._constant("mean")
        self._noise_variance = self._constant("noise_variance")
        self._observation_shift = self._constant("observation_shift")
        self._observation_scale = self._constant("observation_scale")
        self._action_shift = self._constant("action_shift")
        self._action_scale = self._constant("action_scale")

    def _constant(self, name: str) -> tf.Variable:
        return tf.Variable(self._arrays[name], trainable=False, name=name)

    @abc.abstractmethod
    def _factors(self) -> tuple[Any, Any]:
        """W [M, P] and Q [M, M] of the module's formulas, float64."""

    @classmethod
    @abc.abstractmethod
    def fit(cls, demonstrations: Demonstrations, config: PriorConfig | None = None) -> Self:
        """Fits hyper-parameters and posterior to demonstrations.

        Args:
            demonstrations: N state-action pairs.
            config: Kernel, sizes and seed; defaults where None. Its scale factor and floor are
                for `fit_prior`, which wraps what this returns.

        Raises:
            UserError: if the optimization ends in a value that is not finite.
        """

    def statistics(self, observations: tf.Tensor) -> PriorStatistics:
        """Location and deviation [B, P] (float32) at observations [B, D], in units of actions."""
        return self.predict(observations)[0]

    def uncertainty(self, observations: tf.Tensor) -> tf.Tensor:
        """Log sqrt(Sigma0) [B] (float32) of the standardized process, without noise."""
        return self.predict(observations)[1]

    def predict(self, observations: tf.Tensor) -> tuple[PriorStatistics, tf.Tensor]:
        """`statistics` and `uncertainty`, from one product with Q."""
        states = (tf.cast(observations, tf.float64) - self._observation_shift) / (
            self._observation_scale
        )
        mean, variance = self._posterior(states)
        uncertainty = 0.5 * tf.math.log(variance)
        if self._settings["observation_noise"]:
            variance += self._noise_variance
        location = self._action_shift + self._action_scale * (self._mean + mean)
        scale = self._action_scale * tf.sqrt(variance)[:, tf.newaxis]
        statistics = PriorStatistics(tf.cast(location, tf.float32), tf.cast(scale, tf.float32))
        return statistics, tf.cast(uncertainty, tf.float32)

    def _posterior(self, states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean less the constant [B, P] and variance [B] of the standardized process."""
        cross = self._kernel(self._centers, states)
        variance = self._kernel(states, full_cov=False) - self._precision.quadratic_form(cross)
        mean = tf.matmul(cross, self._weights, transpose_a=True)
        return mean, tf.maximum(variance, _SMALLEST_VARIANCE)

    def _standardized(self, demonstrations: Demonstrations) -> np.ndarray:
        """States [N, D] in the units of the centers."""
        observations = demonstrations.observations.astype(np.float64)
        return (observations - self._arrays["observation_shift"]) / (
            self._arrays["observation_scale"]
        )

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:  # noqa: D102
        return dict(self._settings), dict(self._arrays)

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """The inverse of `state`."""
        return cls(settings, arrays)

    @property
    def summary(self) -> dict[str, float]:
        """Noise deviation, in units of the process, and median lengthscale."""
        return {
            "noise_deviation": float(np.sqrt(self._arrays["noise_variance"])),
            "median_lengthscale": float(np.median(self._arrays["lengthscales"])),
        }


class ExactGPPrior(GaussianProcessPrior):
    """The exact posterior given all demonstrations.

    Hyper-parameters maximize the marginal likelihood of a random subset, at a cost cubic in its
    size; the posterior then conditions on every point, with one factorization.
    """

    @classmethod
    def fit(cls, demonstrations: Demonstrations, config: PriorConfig | None = None) -> Self:  # noqa: D102
        config = config or PriorConfig()
        with gpflow.config.as_context(_float64()):
            data = _Data.of(demonstrations)
            data, hyperparameters, _ = _fit(data, config)
            return cls(
                _settings(config),
                {**hyperparameters, "centers": data.states, "actions": data.actions},
            )

    @staticmethod
    def memory(num_points: int) -> int:
        """Bytes that fitting to so many points takes, roughly: K or its factor, and Q packed."""
        return 2 * 8 * num_points**2

    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        """W = K^-1 (A - m) and Q = K^-1."""
        errors = self._arrays["actions"] - self._arrays["mean"]
        centers = self._arrays["centers"]
        # In the order of LAPACK, which then works in place; by rows, for the kernel's own memory.
        covariance = np.empty((len(centers), len(centers)), order="F")
        for rows in _chunks(len(centers)):
            covariance[rows] = self._kernel(centers[rows], centers)
        covariance[np.diag_indices_from(covariance)] += (
            float(self._arrays["noise_variance"]) + JITTER
        )
        # LAPACK's own inverse of a factored matrix is three times as fast as solving for identity.
        try:
            factor, lower = linalg.cho_factor(covariance, lower=True, overwrite_a=True)
        except linalg.LinAlgError:
            raise _no_posterior() from None
        weights = linalg.cho_solve((factor, lower), errors)
        inverse, _ = linalg.lapack.dpotri(factor, lower=lower, overwrite_c=True)
        return weights, inverse

    def held_out_uncertainty(self, demonstrations: Demonstrations, folds: np.ndarray) -> np.ndarray:
        """See `BehavioralPrior`. The covariance of a fold given all else is (Q of the fold)^-1.

        (Rasmussen and Williams 2006, section 5.4.2, for several points at a time.)

        Raises:
            UserError: if these are not the demonstrations that the prior was fitted to.
        """
        states = self._standardized(demonstrations)
        centers = self._arrays["centers"]
        if states.shape != centers.shape or not np.allclose(states, centers, atol=1e-5):
            raise UserError(
                "demonstrations must be those that the prior was fitted to, "
                f"{len(centers):,} steps; got {demonstrations.name}, {len(states):,} steps"
            )
        precision = self._precision.numpy()
        variance = np.empty(len(states))
        for fold in np.unique(folds):
            held_out = np.flatnonzero(folds == fold)
            covariance = np.linalg.inv(precision[np.ix_(held_out, held_out)])
            variance[held_out] = np.diagonal(covariance)
        variance -= self._arrays["noise_variance"] + JITTER
        return _log_deviation(variance)


class SparseGPPrior(GaussianProcessPrior):
    """A sparse variational posterior (SVGP) with the optimal q(u) at M inducing points.

    Hyper-parameters are those of `ExactGPPrior`: the collapsed bound of all points (`SGPR`) gave
    deviations that were far too small on the pen. For a Gaussian likelihood the best q(u) is known
    in closed form (Titsias 2009), a sum over points that is taken in chunks. q is kept whitened,
    where its precision is at least the identity, so that its factorization does not depend on how
    near to singular Kzz is.
    """

    @classmethod
    def fit(cls, demonstrations: Demonstrations, config: PriorConfig | None = None) -> Self:  # noqa: D102
        config = config or PriorConfig()
        with gpflow.config.as_context(_float64()):
            data = _Data.of(demonstrations)
            data, hyperparameters, kernel = _fit(data, config)
            centers = data.inducing_points(kernel, config.num_inducing_points)
            q_mean, q_covariance = _optimal_whitened_q(kernel, centers, data, hyperparameters)
            return cls(
                _settings(config),
                {
                    **hyperparameters,
                    "centers": centers,
                    "q_mean": q_mean,
                    "q_covariance": q_covariance,
                },
            )

    def _factors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """W = L^-T q_mu and Q = L^-T (I - q_cov) L^-1."""
        factor = _inducing_factor(self._kernel, tf.constant(self._arrays["centers"]))
        identity = tf.eye(tf.shape(factor)[0], dtype=tf.float64)
        inverse = tf.linalg.triangular_solve(factor, identity)
        explained = identity - self._arrays["q_covariance"]
        return (
            tf.matmul(inverse, self._arrays["q_mean"], transpose_a=True),
            tf.matmul(inverse, tf.matmul(explained, inverse), transpose_a=True),
        )

    def held_out_uncertainty(self, demonstrations: Demonstrations, folds: np.ndarray) -> np.ndarray:
        """See `BehavioralPrior`. With q(u) optimal for the other folds; Z stays."""
        states = self._standardized(demonstrations)
        factor = _inducing_factor(self._kernel, tf.constant(self._arrays["centers"]))
        features = tf.linalg.triangular_solve(
            factor, self._kernel(self._arrays["centers"], states)
        ).numpy()
        noise = self._arrays["noise_variance"]
        identity = np.eye(len(features))
        variance = np.full(len(states), self._arrays["kernel_variance"])
        variance -= np.square(features).sum(axis=0)
        for fold in np.unique(folds):
            rest, held_out = features[:, folds != fold], features[:, folds == fold]
            precision = tf.linalg.cholesky(identity + rest @ rest.T / noise)
            unexplained = tf.linalg.triangular_solve(precision, tf.constant(held_out))
            variance[folds == fold] += np.square(unexplained).sum(axis=0)
        return _log_deviation(variance)


_INITIAL_NOISE = 0.01


def _no_posterior() -> UserError:
    return UserError(
        "the Gaussian process has no finite posterior: its covariance is singular; "
        "look for duplicated or badly scaled demonstrations"
    )


class _SymmetricMatrix(tf.Module):
    """A symmetric matrix Q [M, M] as rows up to the diagonal, off-diagonal blocks doubled.

    Args:
        matrix: [M, M], of which what is above the diagonal is not read.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        super().__init__(name="precision")
        self._rows = []
        for start in range(0, len(matrix), _BLOCK_ROWS):
            rows = matrix[start : start + _BLOCK_ROWS, : start + _BLOCK_ROWS].copy()
            rows[:, :start] *= 2.0
            lower = np.tril(rows[:, start:])
            rows[:, start:] = lower + np.tril(lower, -1).T
            self._rows.append(tf.Variable(rows, trainable=False, name=f"rows{start}"))

    def quadratic_form(self, vectors: tf.Tensor) -> tf.Tensor:
        """The form c' Q c [B] of each column c of `vectors` [M, B]."""
        form = tf.zeros_like(vectors[0])
        for rows in self._rows:
            size, end = rows.shape
            product = tf.matmul(rows, vectors[:end])
            form += tf.reduce_sum(product * vectors[end - size : end], axis=0)
        return form

    def numpy(self) -> np.ndarray:
        """Q."""
        size = self._rows[-1].shape[1]
        lower = np.zeros((size, size))
        for rows in self._rows:
            start = rows.shape[1] - rows.shape[0]
            lower[start : rows.shape[1], :start] = rows[:, :start].numpy() / 2.0
            lower[start : rows.shape[1], start : rows.shape[1]] = np.tril(rows[:, start:])
        return lower + np.tril(lower, -1).T


@dataclasses.dataclass(frozen=True)
class _Data:
    """Demonstrations in float64 and in units: `states` [N, D] and `actions` [N, P]."""

    states: np.ndarray
    actions: np.ndarray
    observation_units: Standardization
    action_units: Standardization

    @classmethod
    def of(cls, demonstrations: Demonstrations) -> Self:
        """Standardized."""
        observations = demonstrations.observations.astype(np.float64)
        actions = demonstrations.actions.astype(np.float64)
        units = Standardization.of(observations), Standardization.of(actions)
        return cls(units[0](observations), units[1](actions), *units)

    def rescaled(self, units: np.ndarray) -> Self:
        """With actions in other units, [P] in terms of the present ones."""
        action_units = Standardization(self.action_units.shift, self.action_units.scale * units)
        return dataclasses.replace(self, actions=self.actions / units, action_units=action_units)

    @property
    def num_inputs(self) -> int:
        """D."""
        return self.states.shape[1]

    @property
    def num_outputs(self) -> int:
        """P."""
        return self.actions.shape[1]

    def subset(self, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """At most `size` random points, in the order of the demonstrations."""
        if size >= len(self.states):
            return self.states, self.actions
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.states), size, replace=False))
        return self.states[chosen], self.actions[chosen]

    def inducing_points(self, kernel: gpflow.kernels.Kernel, size: int) -> np.ndarray:
        """At most `size` states and at least one, each of largest variance given those before it.

        The greedy choice of Burt et al. (2020), a pivoted Cholesky factorization: it spreads points
        where the process varies and never takes a duplicate (demonstrations often share their
        first state), which would make Kzz singular. Cost N size^2.
        """
        states = tf.constant(self.states)
        row_of = tf.function(lambda point: kernel(states[point : point + 1], states)[0])
        variance = kernel(states, full_cov=False).numpy()
        rows = np.zeros((min(size, len(self.states)), len(self.states)))
        chosen: list[int] = []
        for index in range(len(rows)):
            pivot = int(np.argmax(variance))
            if chosen and variance[pivot] <= 10 * JITTER:
                break
            row = row_of(tf.constant(pivot)).numpy()
            row -= rows[:index, pivot] @ rows[:index]
            rows[index] = row / np.sqrt(variance[pivot])
            variance = np.maximum(variance - rows[index] ** 2, 0.0)
            chosen.append(pivot)
        return self.states[chosen]


def _log_deviation(variance: np.ndarray) -> np.ndarray:
    return (0.5 * np.log(np.maximum(variance, _SMALLEST_VARIANCE))).astype(np.float32)


def _inducing_factor(kernel: gpflow.kernels.Kernel, inducing_points: tf.Tensor) -> tf.Tensor:
    covariance = kernel(inducing_points)
    return tf.linalg.cholesky(
        tf.linalg.set_diag(covariance, tf.linalg.diag_part(covariance) + JITTER)
    )


class _MarginalLikelihood(gpflow.Module):
    """The exact marginal likelihood of actions A [N, P] whose units and means are not given.

    Action p is m_p + u_p f_p with f_p of kernel k, of variance one, and noise variance v. Where
    L L' = k(S, S) + v I, the likelihood is greatest at

        m = (L^-1 1)' (L^-1 A) / |L^-1 1|^2,        u_p^2 = |L^-1 (A_p - m_p)|^2 / N,

    which leaves minus log p(A | S) = N sum_p log u_p + P sum_n log L_nn + constant to minimize over
    lengthscales and v. One unit for all, the actions' deviation, would say that all are as noisy.
    """

    def __init__(self, kernel: gpflow.kernels.Kernel, data: tuple[np.ndarray, np.ndarray]) -> None:
        super().__init__(name="marginal_likelihood")
        gpflow.set_trainable(kernel.variance, False)
        self.kernel = kernel
        self.noise_variance = gpflow.Parameter(
            _INITIAL_NOISE, transform=gpflow.utilities.positive(lower=JITTER)
        )
        self._states, self._actions = map(tf.constant, data)

    def training_loss(self) -> tf.Tensor:
        """Minus the log likelihood [], less a constant."""
        factor, _, units = self._solve()
        num_points, num_actions = self._actions.shape
        return num_points * tf.reduce_sum(tf.math.log(units)) + num_actions * tf.reduce_sum(
            tf.math.log(tf.linalg.diag_part(factor))
        )

    def means_and_units(self) -> tuple[np.ndarray, np.ndarray]:
        """The best m and u, [P] each, given kernel and noise; u is 1 for a constant action."""
        _, means, units = self._solve()
        varies = np.ptp(self._actions, axis=0) > 0
        return means.numpy(), np.where(varies, units.numpy(), 1.0)

    def _solve(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        covariance = self.kernel(self._states)
        diagonal = tf.linalg.diag_part(covariance) + self.noise_variance + JITTER
        factor = tf.linalg.cholesky(tf.linalg.set_diag(covariance, diagonal))
        ones = tf.linalg.triangular_solve(factor, tf.ones_like(self._actions[:, :1]))
        actions = tf.linalg.triangular_solve(factor, self._actions)
        means = tf.reduce_sum(ones * actions, axis=0) / tf.reduce_sum(tf.square(ones))
        squares = tf.reduce_mean(tf.square(actions - ones * means), axis=0)
        return factor, means, tf.sqrt(tf.maximum(squares, _SMALLEST_VARIANCE))


def _fit(
    data: _Data, config: PriorConfig
) -> tuple[_Data, dict[str, np.ndarray], gpflow.kernels.Kernel]:
    """Maximizes the marginal likelihood of a random subset.

    Returns:
        The data in the units of the fit, the hyper-parameters, and their kernel.
    """
    kernel = _initial_kernel(config.kernel, data.num_inputs)
    model = _MarginalLikelihood(
        kernel, data.subset(config.num_hyperparameter_points, config.prior_seed)
    )
    _maximize(model, config.max_fit_iterations)
    means, units = model.means_and_units()
    data = data.rescaled(units)
    hyperparameters = {
        "kernel_variance": kernel.variance.numpy(),
        "lengthscales": kernel.lengthscales.numpy(),
        "noise_variance": model.noise_variance.numpy(),
        "mean": means / units,
        "observation_shift": data.observation_units.shift,
        "observation_scale": data.observation_units.scale,
        "action_shift": data.action_units.shift,
        "action_scale": data.action_units.scale,
    }
    return data, hyperparameters, kernel


def _optimal_whitened_q(
    kernel: gpflow.kernels.Kernel,
    inducing_points: np.ndarray,
    data: "_Data",
    hyperparameters: dict[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean [M, P] and covariance [M, M] of the optimal q(L^-1 u) (Titsias 2009, eq. 10).

    With F = L^-1 k(Z, S) / sqrt(v) and B = I + F F': q_cov = B^-1, q_mu = B^-1 F (A - m) / sqrt(v).
    """
    deviation = np.sqrt(hyperparameters["noise_variance"])
    factor = _inducing_factor(kernel, tf.constant(inducing_points))
    precision = np.eye(len(inducing_points))
    projected = np.zeros((len(inducing_points), data.num_outputs))
    for rows in _chunks(len(data.states)):
        cross = kernel(inducing_points, data.states[rows])
        features = tf.linalg.triangular_solve(factor, cross).numpy() / deviation
        precision += features @ features.T
        projected += features @ ((data.actions[rows] - hyperparameters["mean"]) / deviation)
    cholesky = linalg.cho_factor(precision, lower=True)
    identity = np.eye(len(inducing_points))
    return linalg.cho_solve(cholesky, projected), linalg.cho_solve(cholesky, identity)


def _chunks(size: int) -> list[slice]:
    return [slice(start, start + _CHUNK_ROWS) for start in range(0, size, _CHUNK_ROWS)]


def _initial_kernel(name: str, num_inputs: int) -> gpflow.kernels.Kernel:
    # For standardized inputs the distance of two random points grows as the root of the dimension.
    return _KERNELS[name](variance=1.0, lengthscales=np.full(num_inputs, np.sqrt(num_inputs)))


def _settings(config: PriorConfig) -> dict[str, Any]:
    return {"kernel": config.kernel, "observation_noise": config.observation_noise}


def _float64() -> gpflow.config.Config:
    return gpflow.config.Config(float=np.float64, jitter=JITTER)


def _maximize(model: Any, max_iterations: int) -> None:
    """L-BFGS on the (bound of the) marginal likelihood; a NaN loss would else pass silently."""
    result = gpflow.optimizers.Scipy().minimize(
        model.training_loss,
        model.trainable_variables,
        options={"maxiter": max_iterations},
    )
    if not np.isfinite(result.fun) or not np.all(np.isfinite(result.x)):
        raise UserError(
            "the Gaussian process could not be fitted: its marginal likelihood is not finite "
            f"({result.message}); look for duplicated or badly scaled demonstrations"
        )
