"""Predictions of priors and novelty in operations that other runtimes have, such as ONNX's.

There are no loops, no factorizations, no variables, and one precision. Priors made of networks
need no other form. A Gaussian process computes its variance given the k nearest states by
elimination, written out for k columns.

With g = 1 - k(s, S) and C = Cov(f(S) - f(s) + noise), elimination of [C, 1, g] leaves
a = 1' C^-1 1, b = 1' C^-1 g and e = g' C^-1 g, and

    Sigma0(s) = 1 / (a + (1 - b)^2 / (1 - e)).

It equals k(s, s) - k(s, S) K^-1 k(S, s), but near the demonstrations, where the entries of K are
all about 1, those of C are small, so that their differences survive in float32.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from nppac_tf.priors.base import BehavioralPrior, PriorStatistics, WrappedPrior
from nppac_tf.priors.gaussian_process import FARTHEST, GaussianProcessPrior, GPPrior
from nppac_tf.priors.hyperparameters import JITTER, SMALLEST_VARIANCE
from nppac_tf.priors.kernels import KERNELS
from nppac_tf.priors.nearest_neighbors import squared_distances
from nppac_tf.priors.novelty import Novelty

_UNITS = ("observation_shift", "observation_scale", "action_shift", "action_scale")

Predict = Callable[[tf.Tensor], tuple[PriorStatistics, tf.Tensor]]


def predict(prior: BehavioralPrior, dtype: tf.DType = tf.float64) -> Predict:
    """A function that equals `prior.predict` for batches that fit into memory.

    Args:
        prior: Any prior but a uniform one.
        dtype: Precision of a Gaussian process; others compute in float32.
    """
    if isinstance(prior, WrappedPrior):
        change, inner = prior._change, predict(prior.prior, dtype)

        def changed(observations: tf.Tensor) -> tuple[PriorStatistics, tf.Tensor]:
            statistics, uncertainty = inner(observations)
            return change(*statistics), uncertainty

        return changed
    if isinstance(prior, GaussianProcessPrior):
        return _gaussian_process(prior, dtype)
    return prior.predict


def novelty(score: Novelty, dtype: tf.DType = tf.float64) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function that equals `score` for uncertainties [B]."""
    knots, levels, unit = (_constant(values, dtype) for values in score.curve)

    def scores(uncertainty: tf.Tensor) -> tf.Tensor:
        uncertainty = tf.cast(uncertainty, dtype)
        above = tf.reduce_sum(tf.cast(knots <= uncertainty[:, tf.newaxis], tf.int32), axis=1)
        left, right = tf.maximum(above - 1, 0), tf.minimum(above, len(knots) - 1)
        start, level = tf.gather(knots, left), tf.gather(levels, left)
        width = tf.gather(knots, right) - start
        width = tf.where(width > 0.0, width, 1.0)
        shortfall = tf.maximum(knots[0] - uncertainty, 0.0) / unit
        excess = tf.maximum(uncertainty - knots[-1], 0.0) / unit
        fraction = tf.maximum(uncertainty - start, 0.0) / width
        result = level + fraction * (tf.gather(levels, right) - level)
        result = result / (1.0 + shortfall)
        return tf.cast(1.0 - (1.0 - result) / (1.0 + excess), tf.float32)

    return scores


def _gaussian_process(prior: GaussianProcessPrior, dtype: tf.DType) -> Predict:
    settings, arrays = prior.state()
    units = {name: _constant(arrays[name], dtype) for name in _UNITS}
    noise_variance = float(arrays["noise_variance"])
    posterior = (_exact if isinstance(prior, GPPrior) else _sparse)(prior, settings, arrays, dtype)

    def statistics(observations: tf.Tensor) -> tuple[PriorStatistics, tf.Tensor]:
        states = tf.cast(observations, dtype) - units["observation_shift"]
        states = states / units["observation_scale"]
        states = tf.maximum(tf.minimum(states, FARTHEST), -FARTHEST)
        mean, variance = posterior(states)
        variance = tf.maximum(variance, SMALLEST_VARIANCE)
        location = units["action_shift"] + units["action_scale"] * mean
        scale = units["action_scale"] * tf.sqrt(variance + noise_variance)[:, tf.newaxis]
        uncertainty = tf.cast(0.5 * tf.math.log(variance), tf.float32)
        return PriorStatistics(
            tf.cast(location, tf.float32), tf.cast(scale, tf.float32)
        ), uncertainty

    return statistics


def _exact(prior: Any, settings: Any, arrays: Any, dtype: tf.DType) -> Callable[..., Any]:
    kernel, count = KERNELS[settings["kernel"]], settings["num_neighbors"]
    # [D, N], the one form in which a model holds them.
    centers = _constant(arrays["centers"].T, dtype)
    weights = _constant(arrays["weights"], dtype)
    count = min(count, len(arrays["centers"]))
    center_norms = _constant(np.square(arrays["centers"]).sum(axis=1), dtype)
    noise_variance = float(arrays["noise_variance"]) + JITTER

    def posterior(states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        norms = tf.reduce_sum(tf.square(states), axis=1, keepdims=True)
        products = tf.matmul(2.0 * states, centers)
        closeness = tf.minimum(products - center_norms - norms, 0.0)  # Minus squared distances.
        mean = tf.matmul(kernel(-closeness), weights)
        if not count:
            return mean, tf.ones_like(norms[:, 0])
        nearest = tf.math.top_k(closeness, count, sorted=False).indices
        neighbors = tf.transpose(tf.gather(centers, nearest, axis=1), [1, 2, 0])
        offsets = neighbors - states[:, tf.newaxis]
        return mean, _variance(settings["kernel"], noise_variance, offsets, count)

    return posterior


def _sparse(prior: Any, settings: Any, arrays: Any, dtype: tf.DType) -> Callable[..., Any]:
    kernel, centers = KERNELS[settings["kernel"]], _constant(arrays["centers"], dtype)
    weights, precision = (_constant(values, dtype) for values in prior.weights_and_precision)

    def posterior(states: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        cross = kernel(squared_distances(states, tf.constant(centers)))
        explained = tf.reduce_sum(tf.matmul(cross, precision) * cross, axis=1)
        return tf.matmul(cross, weights), 1.0 - explained

    return posterior


def _variance(kernel: str, noise_variance: float, offsets: tf.Tensor, count: int) -> tf.Tensor:
    """Variance [B] of the process given noisy values at k neighbors, at offsets [B, k, D]."""
    squares = tf.reduce_sum(tf.square(offsets), axis=2)
    products = tf.matmul(offsets, offsets, transpose_b=True)
    between = squares[:, :, tf.newaxis] + squares[:, tf.newaxis] - 2.0 * products
    gaps, identity = _complement(kernel, squares), _constant(np.eye(count), offsets.dtype)
    covariance = (
        gaps[:, :, tf.newaxis]
        + gaps[:, tf.newaxis]
        - _complement(kernel, tf.maximum(between, 0.0) * (1.0 - identity))
    )
    covariance += noise_variance * identity
    columns = tf.stack([tf.ones_like(gaps), gaps], axis=1)
    zeros = tf.zeros_like(columns[:, :, :2])
    upper = tf.concat([covariance, tf.transpose(columns, [0, 2, 1])], axis=2)
    matrix = tf.concat([upper, tf.concat([columns, zeros], axis=2)], axis=1)
    for size in range(count + 1, 1, -1):
        first, rest = tf.split(matrix, [1, size], axis=1)
        pivot, row = tf.split(first, [1, size], axis=2)
        column, block = tf.split(rest, [1, size], axis=2)
        matrix = block - column * (row / pivot)
    ones, cross, gap = -matrix[:, 0, 0], -matrix[:, 0, 1], -matrix[:, 1, 1]
    return 1.0 / (ones + tf.square(1.0 - cross) / (1.0 - gap))


def _complement(kernel: str, squared: tf.Tensor) -> tf.Tensor:
    """1 - k, with a small relative error in float32.

    k is a polynomial p(r) times exp(-r). So 1 - k = exp(-r) (exp(r) - p(r)), and for small r the
    difference is a sum of positive terms, a few of which suffice.
    """
    if squared.dtype == tf.float64:
        return 1.0 - KERNELS[kernel](squared)
    nu, terms = _SERIES[kernel]
    r = 0.5 * squared if nu is None else math.sqrt(nu) * tf.sqrt(squared)
    near = tf.minimum(r, 1.0)
    total = tf.zeros_like(r) + terms[-1]
    for term in terms[-2::-1]:
        total = total * near + term
    return tf.where(r < 1.0, tf.exp(-near) * total, 1.0 - KERNELS[kernel](squared))


def _series(nu: float | None, *polynomial: float) -> tuple[float | None, list[float]]:
    """Coefficients of exp(r) - p(r) by powers of r, enough for float32 at r <= 1."""
    terms = [1.0 / math.factorial(power) for power in range(12)]
    return nu, [
        term - (polynomial[power] if power < len(polynomial) else 0.0)
        for power, term in enumerate(terms)
    ]


_SERIES = {
    "rbf": _series(None, 1.0),
    "matern12": _series(1.0, 1.0),
    "matern32": _series(3.0, 1.0, 1.0),
    "matern52": _series(5.0, 1.0, 1.0, 1.0 / 3.0),
}


def _constant(values: Any, dtype: tf.DType) -> np.ndarray:
    """An array, which becomes a constant of the graph that uses it."""
    return np.asarray(values, dtype.as_numpy_dtype)
