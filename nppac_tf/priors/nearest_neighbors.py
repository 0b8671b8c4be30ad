"""Nearest demonstration states in the kernel's metric, and conditioning on them alone.

A Gaussian process conditioned on a subset of its data never has a smaller variance than conditioned
on all of it. So the variance given the k nearest points is an upper bound on the exact one, and at
a cost of k^3 a good one (Vecchia 1988; Datta et al. 2016).

Notation: states are scaled by the kernel's lengthscales. B states, N centers, D components, P
actions, k neighbors.
"""

import numpy as np
import tensorflow as tf

from nppac_tf.priors.kernels import Kernel

_GROUP = 16


def squared_distances(states: tf.Tensor, centers: tf.Tensor) -> tf.Tensor:
    """Squared Euclidean distances [..., B, N] of states [..., B, D] from centers [..., N, D]."""
    products = tf.matmul(states, centers, transpose_b=True)
    norms = tf.reduce_sum(tf.square(states), axis=-1)[..., tf.newaxis]
    center_norms = tf.reduce_sum(tf.square(centers), axis=-1)[..., tf.newaxis, :]
    return tf.maximum(norms + center_norms - 2.0 * products, 0.0)


def nearest(distances: tf.Tensor, count: int) -> tf.Tensor:
    """Columns [B, k] of the smallest distances in each row, in any order; k = min(count, N).

    The k smallest lie in the k groups of columns whose own smallest are smallest: looking for these
    groups first, and then inside them, is faster than one search over all columns.

    Args:
        distances: [B, N].
        count: At least 0.
    """
    num_centers = distances.shape[1]
    count = min(count, num_centers)
    num_groups = -(-num_centers // _GROUP)
    if not count or num_groups <= 2 * count:
        return tf.math.top_k(-distances, count, sorted=False).indices
    padding = num_groups * _GROUP - num_centers
    padded = tf.pad(
        distances, [[0, 0], [0, padding]], constant_values=distances.dtype.as_numpy_dtype("inf")
    )
    grouped = tf.reshape(padded, [-1, num_groups, _GROUP])
    groups = tf.math.top_k(-tf.reduce_min(grouped, axis=2), count, sorted=False).indices
    candidates = tf.reshape(tf.gather(grouped, groups, batch_dims=1), [-1, count * _GROUP])
    columns = tf.reshape(groups[..., tf.newaxis] * _GROUP + tf.range(_GROUP), [-1, count * _GROUP])
    inside = tf.math.top_k(-candidates, count, sorted=False).indices
    return tf.gather(columns, inside, batch_dims=1)


def condition(
    kernel: Kernel,
    noise_variance: tf.Tensor,
    states: tf.Tensor,
    neighbors: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Conditions the process at each state on its own neighbors.

    Args:
        kernel: One of `kernels.KERNELS`.
        noise_variance: [], of the values at the neighbors.
        states: [B, D].
        neighbors: [B, k, D].

    Returns:
        Weights [B, k], whose product with the neighbors' values is the posterior mean, and the
        posterior variance [B].
    """
    # Differences, not products, for these: where a state is a center, its distance is exactly 0.
    cross = kernel(tf.reduce_sum(tf.square(neighbors - states[:, tf.newaxis]), axis=-1))
    covariance = kernel(squared_distances(neighbors, neighbors))
    covariance = tf.linalg.set_diag(
        covariance, tf.fill(tf.shape(cross), tf.constant(1.0, cross.dtype) + noise_variance)
    )
    factor = tf.linalg.cholesky(covariance)
    weights = tf.linalg.cholesky_solve(factor, cross[..., tf.newaxis])[..., 0]
    return weights, 1.0 - tf.reduce_sum(weights * cross, axis=-1)


def nearest_elsewhere(
    states: np.ndarray, rows: np.ndarray, group: np.ndarray, count: int
) -> np.ndarray:
    """For some of the states, the nearest states of other groups.

    Args:
        states: [N, D].
        rows: Which states, [B] int.
        group: Group of each state, [N] int.
        count: k, at most the states outside any of the groups.

    Returns:
        Rows of `states`, [B, k] int.
    """
    distances = squared_distances(tf.constant(states[rows]), tf.constant(states))
    own = tf.constant(group[rows][:, np.newaxis] == group)
    infinity = tf.constant(np.inf, distances.dtype)
    return nearest(tf.where(own, infinity, distances), count).numpy()
