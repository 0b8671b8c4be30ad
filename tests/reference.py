"""NumPy oracles in float64, written from the formulas and independently of the package.

Glossary: N and M points, B transitions, D inputs, A action components.
"""

import numpy as np
from scipy import stats


def kernel_matrix(
    name: str, x: np.ndarray, y: np.ndarray, variance: float, lengthscales: np.ndarray
) -> np.ndarray:
    """k(x, y) [N, M] of an ARD kernel between rows of x [N, D] and y [M, D]."""
    differences = (x[:, None, :] - y[None, :, :]) / lengthscales
    r = np.sqrt((differences**2).sum(axis=-1))
    shape = {
        "rbf": np.exp(-(r**2) / 2),
        "matern12": np.exp(-r),
        "matern32": (1 + np.sqrt(3) * r) * np.exp(-np.sqrt(3) * r),
        "matern52": (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r),
    }[name]
    return variance * shape


def gaussian_log_density(x: np.ndarray, location: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Log density [...] of a diagonal Gaussian at x [..., A]."""
    return stats.norm.logpdf(x, location, scale).sum(axis=-1)


def gaussian_kl(
    location: np.ndarray, scale: np.ndarray, prior_location: np.ndarray, prior_scale: np.ndarray
) -> np.ndarray:
    """KL of two diagonal Gaussians, by the general formula of two full covariances."""
    covariance = np.diag(np.square(scale))
    prior_covariance = np.diag(np.square(prior_scale))
    difference = prior_location - location
    inverse = np.linalg.inv(prior_covariance)
    return 0.5 * (
        np.trace(inverse @ covariance)
        + difference @ inverse @ difference
        - len(location)
        + np.linalg.slogdet(prior_covariance)[1]
        - np.linalg.slogdet(covariance)[1]
    )


def monte_carlo_kl(
    location: np.ndarray,
    scale: np.ndarray,
    prior_location: np.ndarray,
    prior_scale: np.ndarray,
    num_samples: int,
    seed: int,
) -> tuple[float, float]:
    """Estimate of the KL of two diagonal Gaussians [A], and its standard error."""
    samples = np.random.default_rng(seed).normal(location, scale, (num_samples, len(location)))
    ratios = gaussian_log_density(samples, location, scale)
    ratios -= gaussian_log_density(samples, prior_location, prior_scale)
    return ratios.mean(), ratios.std() / np.sqrt(num_samples)


def squashed_log_density(
    actions: np.ndarray, location: np.ndarray, scale: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Log density [B] at actions [B, A] of tanh(N(location, scale^2)) mapped onto [low, high]."""
    unit = 2 * (actions - low) / (high - low) - 1
    density = stats.norm.pdf(np.arctanh(unit), location, scale)
    slope = (1 - unit**2) * (high - low) / 2
    return np.log(density / slope).sum(axis=-1)


def sac_critic_loss(
    q_1: np.ndarray,
    q_2: np.ndarray,
    rewards: np.ndarray,
    discounts: np.ndarray,
    next_q_1: np.ndarray,
    next_q_2: np.ndarray,
    next_divergence: np.ndarray,
    alpha: float,
    gamma: float,
) -> float:
    """Sum of both critics' mean squared errors; all arrays [B]."""
    total = 0.0
    for b in range(len(rewards)):
        value = min(next_q_1[b], next_q_2[b]) - alpha * next_divergence[b]
        target = rewards[b] + gamma * discounts[b] * value
        total += (q_1[b] - target) ** 2 + (q_2[b] - target) ** 2
    return total / len(rewards)


def sac_actor_loss(q_1: np.ndarray, q_2: np.ndarray, divergence: np.ndarray, alpha: float) -> float:
    """Mean over [B] of alpha d - min Q."""
    return float(np.mean(alpha * divergence - np.minimum(q_1, q_2)))


def sac_alpha_loss(divergence: np.ndarray, log_alpha: float, target_kl: float) -> float:
    """Mean over [B] of log(alpha) (target - d)."""
    return float(np.mean(log_alpha * (target_kl - divergence)))
