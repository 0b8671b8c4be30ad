"""Hyper-parameters of a Gaussian process over demonstrations: kernel, noise, and units of actions.

Lengthscales and noise maximize the marginal likelihood of a random subset of the points (GPflow).
The scale of each action is then set by predictions of held-out episodes: people differ from episode
to episode by more than neighboring steps of one episode differ, and a marginal likelihood, which
sees all episodes at once, is too sure of itself.
"""

import dataclasses
from typing import Any

import gpflow
import numpy as np
import tensorflow as tf

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors import nearest_neighbors
from nppac_tf.priors.kernels import KERNELS
from nppac_tf.priors.standardization import Standardization

JITTER = 1e-6
SMALLEST_VARIANCE = 1e-10
_NUM_POINTS = 1000
_NUM_COARSE_POINTS = 500
_MAX_ITERATIONS = 100
_MAX_COARSE_ITERATIONS = 60
_MAX_FINE_ITERATIONS = 30
_INITIAL_NOISE = 0.01
_SMALLEST_INITIAL_NOISE = 2 * JITTER
_CHUNK_ROWS = 100
_FLOOR_QUANTILE = 0.1

_GPFLOW_KERNELS = {
    "rbf": gpflow.kernels.SquaredExponential,
    "matern12": gpflow.kernels.Matern12,
    "matern32": gpflow.kernels.Matern32,
    "matern52": gpflow.kernels.Matern52,
}


@dataclasses.dataclass(frozen=True)
class ScaledData:
    """Demonstrations in the units of a process of mean 0, variance 1 and lengthscale 1.

    With x = (s - observation_shift) / observation_scale, an action is
    action_shift + action_scale (f(x) + noise), of the same kernel and noise for all its components.

    Attributes:
        kernel: A name of `config.KERNELS`.
        noise_variance: Noise variance of the scaled actions.
        states: x, [N, D] float64.
        actions: [N, P] float64.
        units: `observation_shift` and `observation_scale` [D], `action_shift` and `action_scale`
            [P], and `held_out_floor` [P], float64. The last is the standard deviation of actions,
            in their own units, where held-out episodes are predicted best (the `_FLOOR_QUANTILE`
            of their states): no state of a new episode is known better than that.
    """

    kernel: str
    noise_variance: float
    states: np.ndarray
    actions: np.ndarray
    units: dict[str, np.ndarray]


def fit(
    demonstrations: Demonstrations,
    kernel: str,
    ard: bool,
    lengthscale_factor: float,
    num_neighbors: int,
    seed: int = 0,
) -> ScaledData:
    """Fits the hyper-parameters.

    Args:
        demonstrations: N state-action pairs.
        kernel: A name of `config.KERNELS`.
        ard: Whether each dimension of the observation has a lengthscale of its own. 1,000 points
            do not always determine them: on the door the prior's success then depends on the seed.
        lengthscale_factor: Factor on the lengthscales that maximize the likelihood. One-step
            accuracy says little about what a mean does in closed loop, where a smoother one can
            keep its balance (`configs/walker2d.flags`).
        num_neighbors: Points of other episodes that predict a held-out action.
        seed: Seed of the random subsets.

    Raises:
        UserError: if the optimization ends in a value that is not finite.
    """
    rng = np.random.default_rng(seed)
    observation_units = Standardization.of(demonstrations.observations)
    action_units = Standardization.of(demonstrations.actions)
    states = observation_units(demonstrations.observations)
    actions = action_units(demonstrations.actions)
    with gpflow.config.as_context(gpflow.config.Config(float=np.float64, jitter=JITTER)):
        chosen = _without_repetitions(_subset(len(states), rng), states, actions)
        model = _most_likely(kernel, ard, states[chosen], actions[chosen])
        means, units = model.means_and_units()
        lengthscales = lengthscale_factor * model.kernel.lengthscales.numpy()
        noise_variance = float(model.noise_variance.numpy())
    states, actions = states / lengthscales, (actions - means) / units
    factors, variance_floor = _hold_out(
        kernel, noise_variance, states, actions, episodes(demonstrations), num_neighbors, rng
    )
    action_scale = action_units.scale * units * factors
    return ScaledData(
        kernel,
        noise_variance,
        states,
        actions / factors,
        {
            "observation_shift": observation_units.shift,
            "observation_scale": observation_units.scale * lengthscales,
            "action_shift": action_units.shift + action_units.scale * means,
            "action_scale": action_scale,
            "held_out_floor": action_scale * np.sqrt(variance_floor + noise_variance),
        },
    )


def episodes(demonstrations: Demonstrations) -> np.ndarray:
    """The index of each step's episode, [N] int."""
    lengths = np.diff(demonstrations.episode_ends, prepend=0)
    return np.repeat(np.arange(len(lengths)), lengths)


def _subset(size: int, rng: np.random.Generator) -> np.ndarray:
    """At most `_NUM_POINTS` of `size` points at random, in order."""
    return np.sort(rng.choice(size, min(size, _NUM_POINTS), replace=False))


def _without_repetitions(rows: np.ndarray, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Leaves out rows whose state and action another has: they would tell of no noise at all."""
    pairs = np.concatenate([states, actions], axis=1)[rows]
    return rows[np.sort(np.unique(pairs, axis=0, return_index=True)[1])]


def _hold_out(
    kernel: str,
    noise_variance: float,
    states: np.ndarray,
    actions: np.ndarray,
    episode: np.ndarray,
    num_neighbors: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Predicts a random subset of the points from their nearest neighbors in other episodes.

    Returns:
        The factor [P] on the scale of each action that gives the standardized errors a mean square
        of 1 (1 for a constant action), and a low quantile of the posterior variance. A single
        episode leaves nothing to hold out: then these are 1 and 0.
    """
    num_episodes = episode[-1] + 1
    if num_episodes == 1:
        return np.ones(actions.shape[1]), 0.0
    squares, variances = [], []
    chosen = _subset(len(states), rng)
    largest = len(states) - np.bincount(episode).max()
    for start in range(0, len(chosen), _CHUNK_ROWS):
        rows = chosen[start : start + _CHUNK_ROWS]
        neighbors = nearest_neighbors.nearest_elsewhere(
            states, rows, episode, min(num_neighbors, largest)
        )
        weights, variance = nearest_neighbors.condition(
            KERNELS[kernel],
            tf.constant(noise_variance + JITTER, tf.float64),
            tf.constant(states[rows]),
            tf.constant(states[neighbors]),
        )
        means = np.einsum("bk,bkp->bp", weights.numpy(), actions[neighbors])
        errors = actions[rows] - means
        squares.append(errors**2 / (variance.numpy() + noise_variance)[:, np.newaxis])
        variances.append(variance.numpy())
    floor = np.quantile(np.concatenate(variances), _FLOOR_QUANTILE)
    factors = np.sqrt(np.concatenate(squares).mean(axis=0))
    return np.where(factors > 0, factors, 1.0), max(float(floor), 0.0)


class _MarginalLikelihood(gpflow.Module):
    """The exact marginal likelihood of actions A [N, P] whose units and means are free.

    Action p is m_p + u_p f_p with f_p of kernel k, of variance one, and noise variance v. Where
    L L' = k(S, S) + v I, the likelihood is greatest at

        m = (L^-1 1)' (L^-1 A) / |L^-1 1|^2,        u_p^2 = |L^-1 (A_p - m_p)|^2 / N,

    which leaves minus log p(A | S) = N sum_p log u_p + P sum_n log L_nn + constant to minimize over
    lengthscales and v. One unit for all actions would make all of them equally noisy. A constant
    action tells nothing of them, and is left out: its share of log L_nn would only ask for the
    longest lengthscales.
    """

    def __init__(self, kernel: str, ard: bool, states: np.ndarray, actions: np.ndarray) -> None:
        super().__init__(name="marginal_likelihood")
        num_inputs = states.shape[1]
        # The distance of two random standardized points grows as the root of the dimension.
        lengthscales = np.full(num_inputs if ard else (), np.sqrt(num_inputs))
        self.kernel = _GPFLOW_KERNELS[kernel](variance=1.0, lengthscales=lengthscales)
        gpflow.set_trainable(self.kernel.variance, False)
        self.noise_variance = gpflow.Parameter(
            _INITIAL_NOISE, transform=gpflow.utilities.positive(lower=JITTER)
        )
        self._states, self._actions = tf.constant(states), tf.constant(actions)
        self._varies = np.ptp(actions, axis=0) > 0
        self._varying_actions = tf.constant(actions[:, self._varies])

    def training_loss(self) -> tf.Tensor:
        """Minus the log likelihood [], less a constant."""
        return _minus_log_likelihood(self._covariance(), self._varying_actions)

    def start_from(self, other: "_MarginalLikelihood") -> None:
        """Takes kernel and noise of another fit; a shared lengthscale is that of each dimension."""
        lengthscales = other.kernel.lengthscales.numpy()
        self.kernel.lengthscales.assign(
            np.broadcast_to(lengthscales, self.kernel.lengthscales.shape)
        )
        # From its lower bound, where its transform ends, the noise could not rise again.
        self.noise_variance.assign(max(other.noise_variance.numpy(), _SMALLEST_INITIAL_NOISE))

    def means_and_units(self) -> tuple[np.ndarray, np.ndarray]:
        """The best m and u, [P] each, given kernel and noise; u is 1 for a constant action."""
        means, squares = _best_mean(tf.linalg.cholesky(self._covariance()), self._actions)
        units = np.sqrt(np.maximum(squares.numpy(), SMALLEST_VARIANCE))
        return means.numpy(), np.where(self._varies, units, 1.0)

    def _covariance(self) -> tf.Tensor:
        covariance = self.kernel(self._states)
        diagonal = tf.linalg.diag_part(covariance) + self.noise_variance + JITTER
        return tf.linalg.set_diag(covariance, diagonal)


def _best_mean(factor: tf.Tensor, actions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Means m and squares u^2, [P], of actions [N, P] of covariance L L' with L [N, N]."""
    ones = tf.linalg.triangular_solve(factor, tf.ones_like(actions[:, :1]))
    whitened = tf.linalg.triangular_solve(factor, actions)
    means = tf.reduce_sum(ones * whitened, axis=0) / tf.reduce_sum(tf.square(ones))
    return means, tf.reduce_mean(tf.square(whitened - ones * means), axis=0)


@tf.custom_gradient
def _minus_log_likelihood(covariance: tf.Tensor, actions: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """The loss of `_MarginalLikelihood` [] at a covariance K [N, N] of actions [N, P].

    With the residuals r_p = (A_p - m_p) / u_p, its gradient is (P K^-1 - sum_p b_p b_p') / 2 with
    b_p = K^-1 r_p, since m and u are at their best. Differentiating through the Cholesky factor
    takes four times as long.
    """
    factor = tf.linalg.cholesky(covariance)
    means, squares = _best_mean(factor, actions)
    units = tf.sqrt(tf.maximum(squares, SMALLEST_VARIANCE))
    num_points, num_actions = actions.shape
    loss = num_points * tf.reduce_sum(tf.math.log(units))
    loss += num_actions * tf.reduce_sum(tf.math.log(tf.linalg.diag_part(factor)))

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        inverse = tf.linalg.cholesky_solve(factor, tf.eye(num_points, dtype=factor.dtype))
        residuals = tf.where(squares > SMALLEST_VARIANCE, (actions - means) / units, 0.0)
        solved = tf.matmul(inverse, residuals)
        outer = tf.matmul(solved, solved, transpose_b=True)
        return 0.5 * upstream * (num_actions * inverse - outer), None

    return loss, gradient


def _most_likely(
    kernel: str, ard: bool, states: np.ndarray, actions: np.ndarray
) -> _MarginalLikelihood:
    """Maximizes the marginal likelihood: of half the points, and from there that of all.

    On six tasks of `docs/results.md` the log likelihood is within 0.2 % (Ant; the others 0.02 %)
    of that of 100 iterations with all points, in half the time.
    """
    every = len(states) // _NUM_COARSE_POINTS
    if every < 2:
        return _from_standard_start(kernel, ard, states, actions, _MAX_ITERATIONS)
    few = states[::every], actions[::every]
    coarse = _from_standard_start(kernel, ard, *few, _MAX_COARSE_ITERATIONS)
    model = _MarginalLikelihood(kernel, ard, states, actions)
    model.start_from(coarse)
    _maximize(model, _MAX_FINE_ITERATIONS)
    return model


def _from_standard_start(
    kernel: str, ard: bool, states: np.ndarray, actions: np.ndarray, max_iterations: int
) -> _MarginalLikelihood:
    """Maximizes the marginal likelihood from the lengthscales that standardized states suggest.

    With one lengthscale per dimension, L-BFGS can leave the region of good fits in its first steps,
    as on a script's actions, and end below its start. Then it starts again from the best shared
    lengthscale, or that is the fit.
    """
    model = _MarginalLikelihood(kernel, ard, states, actions)
    if _maximize(model, max_iterations) or not ard:
        return model
    shared = _MarginalLikelihood(kernel, False, states, actions)
    _maximize(shared, max_iterations)
    model.start_from(shared)
    if not _maximize(model, max_iterations):
        model.start_from(shared)
    return model


def _maximize(model: _MarginalLikelihood, max_iterations: int) -> bool:
    """Runs L-BFGS on the marginal likelihood and checks the result, which may be NaN silently.

    Where a trial step has a NaN, as with actions almost without noise, it ends at the step before.

    Returns:
        Whether the likelihood is at least that of the start.
    """
    before = model.training_loss().numpy()
    result = gpflow.optimizers.Scipy().minimize(
        model.training_loss, model.trainable_variables, options={"maxiter": max_iterations}
    )
    after = model.training_loss().numpy()
    if not np.isfinite(after) or not np.all(np.isfinite(result.x)):
        raise UserError(
            "the Gaussian process could not be fitted because its marginal likelihood is not "
            f"finite ({result.message}): remove duplicated demonstrations and check the units of "
            "each dimension"
        )
    return bool(after <= before)
