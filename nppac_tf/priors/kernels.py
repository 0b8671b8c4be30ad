"""Stationary kernels of unit variance as functions of squared scaled distance, in any precision.

They equal GPflow's kernels of the same names, which fit the hyper-parameters.
Predictions and solvers call these with blocks of distances.
"""

import math
from collections.abc import Callable

import tensorflow as tf

Kernel = Callable[[tf.Tensor], tf.Tensor]


def _rbf(squared: tf.Tensor) -> tf.Tensor:
    return tf.exp(-0.5 * squared)


def _matern12(squared: tf.Tensor) -> tf.Tensor:
    return tf.exp(-tf.sqrt(squared))


def _matern32(squared: tf.Tensor) -> tf.Tensor:
    distance = math.sqrt(3.0) * tf.sqrt(squared)
    return (1.0 + distance) * tf.exp(-distance)


def _matern52(squared: tf.Tensor) -> tf.Tensor:
    distance = math.sqrt(5.0) * tf.sqrt(squared)
    return (1.0 + distance + (5.0 / 3.0) * squared) * tf.exp(-distance)


# Squared distances, at least 0 and scaled by the lengthscales, to covariances; by `config.KERNELS`.
KERNELS: dict[str, Kernel] = {
    "rbf": _rbf,
    "matern12": _matern12,
    "matern32": _matern32,
    "matern52": _matern52,
}
