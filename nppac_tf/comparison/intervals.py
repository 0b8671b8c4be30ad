"""Interquartile means over runs, with bootstrap intervals: the only door to rliable.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS
2021.
"""

from typing import NamedTuple

import numpy as np
from rliable import library
from scipy import stats

CONFIDENCE = 0.95
REPETITIONS = 2000


class Estimate(NamedTuple):
    """Interquartile means of several quantities over runs.

    Attributes:
        value: [K].
        low: [K], lower end of the interval; nan for a single run, which has none.
        high: [K], its upper end.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def estimate(values: np.ndarray) -> Estimate:
    """Interquartile means with 95 % percentile intervals of the stratified bootstrap over runs.

    With a single task there is a single stratum. The same values give the same intervals.

    Args:
        values: [runs, K]; a column with a nan has none.
    """
    values = np.asarray(values, np.float64)
    if len(values) == 1 or not values.shape[1]:
        none = np.full(values.shape[1], np.nan)
        return Estimate(_interquartile_means(values[:, None]), none, none)
    # rliable 1.2 draws from NumPy's global generator, whatever random_state it is given.
    state = np.random.get_state()
    try:
        np.random.seed(0)
        points, intervals = library.get_interval_estimates(
            {"": values[:, None]},
            _interquartile_means,
            reps=REPETITIONS,
            confidence_interval_size=CONFIDENCE,
        )
    finally:
        np.random.set_state(state)
    low, high = intervals[""]
    return Estimate(points[""], low, high)


def _interquartile_means(scores: np.ndarray) -> np.ndarray:
    """`rliable.metrics.aggregate_iqm` of each column: [runs, tasks, K] -> [K]."""
    return stats.trim_mean(scores.reshape(-1, scores.shape[-1]), 0.25, axis=0)
