"""Hyper-parameters of a Gaussian process over demonstrations: kernel, noise, and units of actions.

Lengthscales and noise maximize the marginal likelihood of a random subset of the points (GPflow).
The scale of each action is then set by predictions of held-out episodes: people differ from episode
to episode by more than neighboring steps of one episode differ, and a marginal likelihood, which
sees all episodes at once, is too sure of itself.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.priors import nearest_neighbors
from nppac_tf.priors.kernels import KERNELS
from nppac_tf.priors.standardization import Standardization

JITTER = 1e-6
SMALLEST_VARIANCE = 1e-10
_NUM_POINTS = 1000
_CHUNK_ROWS = 100
_FLOOR_QUANTILE = 0.1


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
    from nppac_tf.priors import marginal_likelihood  # Imports GPflow, which takes seconds.

    rng = np.random.default_rng(seed)
    observation_units = Standardization.of(demonstrations.observations)
    action_units = Standardization.of(demonstrations.actions)
    states = observation_units(demonstrations.observations)
    actions = action_units(demonstrations.actions)
    chosen = _without_repetitions(_subset(len(states), rng), states, actions)
    found = marginal_likelihood.most_likely(kernel, ard, states[chosen], actions[chosen])
    lengthscales, noise_variance = lengthscale_factor * found.lengthscales, found.noise_variance
    states, actions = states / lengthscales, (actions - found.means) / found.units
    factors, variance_floor = _hold_out(
        kernel, noise_variance, states, actions, episodes(demonstrations), num_neighbors, rng
    )
    action_scale = action_units.scale * found.units * factors
    return ScaledData(
        kernel,
        noise_variance,
        states,
        actions / factors,
        {
            "observation_shift": observation_units.shift,
            "observation_scale": observation_units.scale * lengthscales,
            "action_shift": action_units.shift + action_units.scale * found.means,
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
