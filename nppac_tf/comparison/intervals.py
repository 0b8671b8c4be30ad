"""Interquartile means over runs, with bootstrap intervals.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS
2021.
"""

from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
REPETITIONS = 2000


class Estimate(NamedTuple):
    """Interquartile means of K quantities over runs.

    Attributes:
        value: [K].
        low: [K], lower end of the interval; nan for a single run.
        high: [K], upper end of the interval; nan for a single run.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def estimate(values: np.ndarray) -> Estimate:
    """Computes interquartile means with 95 % percentile bootstrap intervals.

    Runs are resampled as a whole, so the K quantities of a run stay together. The random generator
    has a fixed seed: equal values give equal intervals.

    Args:
        values: [runs, K]. A column with a nan has neither a value nor an interval.
    """
    values = np.asarray(values, np.float64)
    mean = _interquartile_mean(values)
    if len(values) == 1 or not len(mean):
        none = np.full_like(mean, np.nan)
        return Estimate(mean, none, none)
    rng = np.random.default_rng(0)
    rows = rng.integers(len(values), size=(len(values), REPETITIONS))
    # One column at a time: [runs, REPETITIONS] numbers in memory.
    means = np.stack([_interquartile_mean(column[rows]) for column in values.T])
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail], axis=1)
    return Estimate(mean, low, high)


def _interquartile_mean(values: np.ndarray) -> np.ndarray:
    """[runs, K] -> [K]; nan for a column with a nan."""
    cut = len(values) // 4
    middle = np.sort(values, axis=0)[cut : len(values) - cut]
    return np.where(np.isnan(values).any(axis=0), np.nan, middle.mean(axis=0))
