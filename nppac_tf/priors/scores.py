"""Scores of the predictions of a Gaussian prior for actions that it has not seen.

Glossary: N state-action pairs, D observation components, A action components.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats


def predict(
    statistics: Callable[[Any], Any], observations: np.ndarray, batch_size: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Computes location and standard deviation of a prior in batches.

    Args:
        statistics: `BehavioralPrior.statistics`, or its `tf.function`.
        observations: [N, D] float32.
        batch_size: Observations per batch; memory grows with it.

    Returns:
        Location and standard deviation, [N, A] float64 each, in units of actions.
    """
    batches = [
        [np.asarray(part, np.float64) for part in statistics(observations[i : i + batch_size])]
        for i in range(0, len(observations), batch_size)
    ]
    locations, scales = zip(*batches, strict=True)
    return np.concatenate(locations), np.concatenate(scales)


def log_likelihood(actions: np.ndarray, location: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Log density [N] of actions [N, A], in nats, summed over components."""
    return stats.norm.logpdf(actions, location, scale).sum(axis=1)


def root_mean_squared_error(actions: np.ndarray, location: np.ndarray) -> float:
    """Root mean squared error over all components of actions [N, A], in their units."""
    return float(np.sqrt(np.mean(np.square(actions - location, dtype=np.float64))))


def coverage(
    actions: np.ndarray, location: np.ndarray, scale: np.ndarray, levels: Sequence[float]
) -> np.ndarray:
    """Share of action components inside the central prediction interval of each level.

    It equals the level for a calibrated prior, and is less for an overconfident one.

    Args:
        actions: Observed actions [N, A].
        location: Means of the predictions [N, A].
        scale: Standard deviations of the predictions [N, A], positive.
        levels: Probabilities [L] in (0, 1).

    Returns:
        Coverages [L] in [0, 1].
    """
    distance = np.abs(actions - location) / scale
    half_widths = stats.norm.ppf(0.5 + 0.5 * np.asarray(levels, np.float64))
    return (distance[..., np.newaxis] <= half_widths).mean(axis=(0, 1))


def roc_area(inside: np.ndarray, outside: np.ndarray) -> float:
    """Area under the ROC curve of a score that should be higher outside than inside.

    Args:
        inside: Scores [N].
        outside: Scores [M].

    Returns:
        Probability that a random outside score exceeds a random inside one; ties count half.
    """
    ranks = stats.rankdata(np.concatenate([inside, outside]))[len(inside) :]
    exceeded = ranks.sum() - len(outside) * (len(outside) + 1) / 2
    return float(exceeded / (len(inside) * len(outside)))


def far_observations(observations: np.ndarray, seed: int = 0, distance: float = 10.0) -> np.ndarray:
    """Moves states away from all demonstrations.

    Args:
        observations: Observations of demonstrations [N, D].
        seed: Seed of the directions.
        distance: How far each component is moved, up or down at random, in standard deviations of
            that component.

    Returns:
        [N, D] float32.
    """
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=observations.shape)
    scale = observations.std(axis=0, dtype=np.float64)
    return (observations + distance * scale * signs).astype(np.float32)
