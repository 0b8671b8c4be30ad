"""How well a Gaussian prior predicts actions that it has not seen.

Glossary: N state-action pairs, D observation components, A action components.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats


def predict(
    statistics: Callable[[Any], Any], observations: np.ndarray, batch_size: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Location and deviation of a prior, computed in batches.

    Args:
        statistics: `BehavioralPrior.statistics`, or the same compiled.
        observations: [N, D] float32.
        batch_size: Observations at a time: memory grows with it and with the prior's centers.

    Returns:
        Location and deviation, [N, A] float64 each.
    """
    batches = [
        [np.asarray(part, np.float64) for part in statistics(observations[i : i + batch_size])]
        for i in range(0, len(observations), batch_size)
    ]
    locations, scales = zip(*batches, strict=True)
    return np.concatenate(locations), np.concatenate(scales)


def log_likelihood(actions: np.ndarray, location: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Log density of each action, [N] nats, summed over its components; all [N, A]."""
    return stats.norm.logpdf(actions, location, scale).sum(axis=1)


def root_mean_squared_error(actions: np.ndarray, location: np.ndarray) -> float:
    """Of all components together, in the action's units; both [N, A]."""
    return float(np.sqrt(np.mean(np.square(actions - location, dtype=np.float64))))


def coverage(
    actions: np.ndarray, location: np.ndarray, scale: np.ndarray, levels: Sequence[float]
) -> np.ndarray:
    """Share of action components inside the central interval of each level.

    A calibrated prior covers what the level says; one that covers less is too sure of itself.

    Args:
        actions: [N, A].
        location: [N, A].
        scale: [N, A], positive.
        levels: [L], in (0, 1).

    Returns:
        [L] in [0, 1].
    """
    distance = np.abs(actions - location) / scale
    half_widths = stats.norm.ppf(0.5 + 0.5 * np.asarray(levels, np.float64))
    return (distance[..., np.newaxis] <= half_widths).mean(axis=(0, 1))


def roc_area(inside: np.ndarray, outside: np.ndarray) -> float:
    """Area under the ROC curve of a score that is to be higher outside than inside.

    Args:
        inside: [N] scores.
        outside: [M] scores.

    Returns:
        The chance that a random outside score exceeds a random inside one, ties counted as half.
    """
    ranks = stats.rankdata(np.concatenate([inside, outside]))[len(inside) :]
    exceeded = ranks.sum() - len(outside) * (len(outside) + 1) / 2
    return float(exceeded / (len(inside) * len(outside)))


def far_observations(
    observations: np.ndarray, seed: int = 0, num_deviations: float = 10.0
) -> np.ndarray:
    """States that no demonstration is near to.

    Args:
        observations: [N, D] of demonstrations.
        seed: Of the directions.
        num_deviations: How far each component is moved, up or down at random, in standard
            deviations of that component; one that does not vary stays.

    Returns:
        [N, D] float32.
    """
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=observations.shape)
    deviations = observations.std(axis=0, dtype=np.float64)
    return (observations + num_deviations * deviations * signs).astype(np.float32)
