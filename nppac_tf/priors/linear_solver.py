"""Solves (K + v I) W = Y for the kernel matrix K of many points, exactly or to a stated residual.

Up to `LARGEST_FACTORIZATION` points by a Cholesky factorization. Beyond, by conjugate gradients on
blocks of K that are computed when needed, so that memory grows as the number of points. They are
preconditioned by a Nystroem approximation of K on a random subset (Rudi et al. 2017; Gardner et al.
2018), run in float32, and refined in float64 until the true residual is small.
"""

import itertools
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy import linalg

from nppac_tf import hardware
from nppac_tf.errors import UserError
from nppac_tf.priors.kernels import Kernel
from nppac_tf.priors.nearest_neighbors import squared_distances

LARGEST_FACTORIZATION = 16_000
TOLERANCE = 1e-3
_NUM_LANDMARKS = 2_000
_BLOCK_ENTRIES = 2**22
_TILE_ROWS = 2**11
_MAX_ITERATIONS = 60
_MAX_REFINEMENTS = 4


# From vectors [N, P] to vectors [N, P].
Product = Callable[[np.ndarray], np.ndarray]


class Solution(NamedTuple):
    """W [N, P] float64, and the residual |Y - (K + v I) W| / |Y|, largest over the columns."""

    weights: np.ndarray
    residual: float


def solve(
    kernel: Kernel,
    noise_variance: float,
    points: np.ndarray,
    values: np.ndarray,
    largest_factorization: int = LARGEST_FACTORIZATION,
    num_landmarks: int = _NUM_LANDMARKS,
) -> Solution:
    """Solves for the weights of a Gaussian process's posterior mean.

    Args:
        kernel: One of `kernels.KERNELS`.
        noise_variance: v, positive.
        points: [N, D] float64, scaled by the lengthscales.
        values: Y [N, P] float64.
        largest_factorization: Points up to which K is factorized, in 8 N^2 bytes.
        num_landmarks: Points of the preconditioner's subset; no more than N are used.

    Raises:
        UserError: if K is singular, or conjugate gradients do not reach `TOLERANCE`.
    """
    if len(points) <= largest_factorization:
        solution = _factorize(kernel, noise_variance, points, values)
    else:
        solution = _iterate(kernel, noise_variance, points, values, num_landmarks)
    if not np.isfinite(solution.weights).all():
        raise no_posterior()
    return solution


def no_posterior() -> UserError:
    """The error of a covariance that cannot be factorized."""
    return UserError(
        "the Gaussian process has no finite posterior because its covariance is singular: "
        "remove duplicated demonstrations and check the units of each dimension"
    )


def _factorize(
    kernel: Kernel,
    noise_variance: float,
    points: np.ndarray,
    values: np.ndarray,
) -> Solution:
    size = len(points)
    covariance = np.empty((size, size), order="F")  # In LAPACK's order, which then works in place.
    block_of = tf.function(
        lambda rows: kernel(squared_distances(rows, points)),
        input_signature=[tf.TensorSpec([None, points.shape[1]], tf.float64)],
        autograph=False,
    )
    step = max(1, _BLOCK_ENTRIES // size)
    for start in range(0, size, step):
        covariance[start : start + step] = block_of(tf.constant(points[start : start + step]))
    covariance[np.diag_indices(size)] = 1.0 + noise_variance
    try:
        factor = linalg.cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
    except linalg.LinAlgError:
        raise no_posterior() from None
    return Solution(linalg.cho_solve(factor, values), 0.0)


def _iterate(
    kernel: Kernel,
    noise_variance: float,
    points: np.ndarray,
    values: np.ndarray,
    num_landmarks: int,
) -> Solution:
    """Refines float32 solutions with residuals of float64."""
    precondition = _nystroem(kernel, noise_variance, points, num_landmarks)
    product = _product(kernel, noise_variance, points, np.float32)
    exact_product = _product(kernel, noise_variance, points, np.float64)
    norms = np.maximum(np.linalg.norm(values, axis=0), np.finfo(np.float64).tiny)
    weights, residuals, error = np.zeros_like(values), values, 1.0
    for _ in range(_MAX_REFINEMENTS):
        wanted = 0.5 * TOLERANCE / error
        weights = weights + _conjugate_gradients(product, precondition, residuals, wanted)
        residuals = values - exact_product(weights)
        error = float((np.linalg.norm(residuals, axis=0) / norms).max())
        if error <= TOLERANCE:
            return Solution(weights, error)
    raise UserError(
        f"the Gaussian process of {len(points):,} points was not solved to a residual of "
        f"{TOLERANCE:g}; it is at {error:.2g}: use fewer demonstrations or --prior=sparse_gp"
    )


def _conjugate_gradients(
    product: Product, precondition: Product, values: np.ndarray, tolerance: float
) -> np.ndarray:
    """Preconditioned conjugate gradients, all columns side by side, to a relative residual."""
    tiny = np.finfo(np.float64).tiny
    norms = np.maximum(np.linalg.norm(values, axis=0), tiny)
    weights, residuals = np.zeros_like(values), values.copy()
    steps = precondition(residuals)
    directions = steps.copy()
    inner = (residuals * steps).sum(axis=0)
    for _ in range(_MAX_ITERATIONS):
        products = product(directions)
        curvature = (directions * products).sum(axis=0)
        rates = np.divide(inner, curvature, out=np.zeros_like(inner), where=curvature > tiny)
        weights += rates * directions
        residuals -= rates * products
        if (np.linalg.norm(residuals, axis=0) / norms).max() <= tolerance:
            break
        steps = precondition(residuals)
        previous, inner = inner, (residuals * steps).sum(axis=0)
        # Where rounding leaves nothing positive to divide by, the directions start again.
        ratio = np.divide(inner, previous, out=np.zeros_like(inner), where=previous > tiny)
        directions = steps + ratio * directions
    return weights


def _product(kernel: Kernel, noise_variance: float, points: np.ndarray, dtype: type) -> Product:
    """V -> (K + v I) V, [N, P] float64, with tiles of K of a data type.

    K is symmetric: a tile above the diagonal serves both of its places.
    """
    starts = range(0, len(points), _TILE_ROWS)
    tiles = [tf.constant(points[start : start + _TILE_ROWS], dtype) for start in starts]
    pairs = list(itertools.combinations_with_replacement(range(len(tiles)), 2))

    # XLA makes one pass of the kernel's, three times as fast.
    @tf.function(reduce_retracing=True, autograph=False, jit_compile=True)
    def products_of_tile(
        rows: tf.Tensor, columns: tf.Tensor, of_rows: tf.Tensor, of_columns: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        tile = kernel(squared_distances(rows, columns))
        return tf.matmul(tile, of_columns), tf.matmul(tile, of_rows, transpose_a=True)

    def product(values: np.ndarray) -> np.ndarray:
        parts = [tf.constant(values[start : start + _TILE_ROWS], dtype) for start in starts]

        def products(pair: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            i, j = pair
            right, left = products_of_tile(tiles[i], tiles[j], parts[i], parts[j])
            return right.numpy(), left.numpy()

        result = noise_variance * values
        with futures.ThreadPoolExecutor(hardware.parallel_operations()) as pool:
            for (i, j), (right, left) in zip(pairs, pool.map(products, pairs), strict=True):
                result[starts[i] : starts[i] + _TILE_ROWS] += right
                if i != j:
                    result[starts[j] : starts[j] + _TILE_ROWS] += left
        return result

    return product


def _nystroem(kernel: Kernel, noise_variance: float, points: np.ndarray, size: int) -> Product:
    """Applies (F'F + v I)^-1 with F'F near K: F = L^-1 k(Z, S), L L' = k(Z, Z) for a subset Z.

    By Woodbury's identity that is (V - F' (v I + F F')^-1 F V) / v, with F [M, N] in float32.
    """
    size = min(size, len(points))
    chosen = np.random.default_rng(0).choice(len(points), size, replace=False)
    landmarks = tf.constant(points[chosen])
    covariance = kernel(squared_distances(landmarks, landmarks))
    diagonal = tf.fill([size], tf.constant(1.0 + 1e-6, tf.float64))
    factor = tf.linalg.cholesky(tf.linalg.set_diag(covariance, diagonal))
    features = np.empty((size, len(points)), np.float32)
    gram = np.zeros((size, size))
    step = _BLOCK_ENTRIES // size
    for start in range(0, len(points), step):
        cross = kernel(squared_distances(landmarks, tf.constant(points[start : start + step])))
        block = tf.linalg.triangular_solve(factor, cross).numpy()
        features[:, start : start + step] = block
        gram += block @ block.T
    gram[np.diag_indices_from(gram)] += noise_variance
    inner = linalg.cho_factor(gram, lower=True)

    def precondition(values: np.ndarray) -> np.ndarray:
        projected = linalg.cho_solve(inner, features @ values.astype(np.float32))
        return (values - features.T @ projected.astype(np.float32)) / noise_variance

    return precondition
