"""C1: KL(q || p) is finite only where q is absolutely continuous with respect to p.

q = N(0, 1) is compared with two families of p that begin at q itself and degenerate:

- narrowing: p = N(0, s^2), s -> 0. KL = log s + 1 / (2 s^2) - 1/2 grows as s^-2, and is infinite
  in the limit, a point mass.
- vanishing: p = e q + (1 - e) q(. | |a| <= 1), e -> 0, which takes mass from where q has it. With
  Z = P(|a| <= 1), p / q is e + (1 - e) / Z inside and e outside, so that
  KL = -Z log(e + (1 - e) / Z) - (1 - Z) log e grows as log(1 / e), and is infinite at e = 0.
"""

import dataclasses
from typing import Any

import numpy as np
from scipy import integrate, stats

from nppac_tf.claims.writing import Table
from nppac_tf.divergences import gaussian_kl

EDGE = 1.0
_REACH = 12.0


@dataclasses.dataclass(frozen=True, eq=False)
class Degeneracy:
    """Densities and divergences, in nats, of both families.

    Attributes:
        actions: [X], where densities are given.
        density: [X] of q.
        scales: [K] deviations s of the narrowing family, falling from 1.
        narrowing: [K, X] its densities.
        narrowing_kl: [K] in closed form.
        narrowing_integrated: [K] by numerical integration.
        leaks: [L] weights e of the vanishing family, falling from 1 to 0.
        vanishing: [L, X] its densities.
        vanishing_kl: [L] in closed form, the last infinite.
        vanishing_integrated: [L] by numerical integration.
    """

    actions: np.ndarray
    density: np.ndarray
    scales: np.ndarray
    narrowing: np.ndarray
    narrowing_kl: np.ndarray
    narrowing_integrated: np.ndarray
    leaks: np.ndarray
    vanishing: np.ndarray
    vanishing_kl: np.ndarray
    vanishing_integrated: np.ndarray

    def numbers(self) -> dict[str, Any]:
        """For c1.json."""
        exact = np.concatenate([self.narrowing_kl, self.vanishing_kl])
        integrated = np.concatenate([self.narrowing_integrated, self.vanishing_integrated])
        finite = np.isfinite(exact)
        scale = np.maximum(np.abs(exact[finite]), 1.0)
        return {
            "narrowing": {"scale": self.scales, "kl_nats": self.narrowing_kl},
            "vanishing": {"leak": self.leaks, "kl_nats": self.vanishing_kl},
            "largest_relative_error_of_integration": float(
                np.max(np.abs(exact[finite] - integrated[finite]) / scale)
            ),
            "infinite_where_mass_vanishes": bool(np.isinf(exact[-1]) and np.isinf(integrated[-1])),
        }

    def table(self) -> Table:
        """For c1.csv: a row per p."""
        rows = [
            (family, *row)
            for family, columns in (
                ("narrowing", (self.scales, self.narrowing_kl, self.narrowing_integrated)),
                ("vanishing", (self.leaks, self.vanishing_kl, self.vanishing_integrated)),
            )
            for row in zip(*columns, strict=True)
        ]
        return ("family", "scale_or_leak", "kl_nats", "kl_integrated_nats"), rows


def measure_degeneracy(num_scales: int = 13, smallest_scale: float = 1e-3) -> Degeneracy:
    """KL(q || p) as p degenerates, in closed form and by numerical integration.

    Args:
        num_scales: K, and L - 1.
        smallest_scale: Of the narrowing family, in units of q's deviation, and the least leak that
            is not 0.
    """
    actions = np.linspace(-3.5, 3.5, 701)
    scales = np.geomspace(1.0, smallest_scale, num_scales)
    leaks = np.append(scales, 0.0)
    ones, zeros = np.ones([num_scales, 1]), np.zeros([num_scales, 1])
    inside_mass = stats.norm.cdf(EDGE) - stats.norm.cdf(-EDGE)
    with np.errstate(divide="ignore"):
        vanishing_kl = -inside_mass * np.log(leaks + (1 - leaks) / inside_mass) - (
            1 - inside_mass
        ) * np.log(leaks)
    return Degeneracy(
        actions=actions,
        density=stats.norm.pdf(actions),
        scales=scales,
        narrowing=stats.norm.pdf(actions, 0.0, scales[:, np.newaxis]),
        narrowing_kl=gaussian_kl(zeros, ones, zeros, scales[:, np.newaxis]).numpy(),
        narrowing_integrated=np.array(
            [integrated_kl(lambda a, s=s: stats.norm.logpdf(a, 0.0, s)) for s in scales]
        ),
        leaks=leaks,
        vanishing=np.exp([_log_vanishing(actions, leak) for leak in leaks]),
        vanishing_kl=vanishing_kl + 0.0,  # Without the sign of -0.
        vanishing_integrated=np.array(
            [integrated_kl(lambda a, e=e: _log_vanishing(a, e)) for e in leaks]
        ),
    )


def _log_vanishing(actions: np.ndarray, leak: float) -> np.ndarray:
    inside_mass = stats.norm.cdf(EDGE) - stats.norm.cdf(-EDGE)
    with np.errstate(divide="ignore"):
        ratio = np.log(leak + (1 - leak) / inside_mass * (np.abs(actions) <= EDGE))
    return stats.norm.logpdf(actions) + ratio


def integrated_kl(log_p: Any) -> float:
    """KL(N(0, 1) || p) in nats by Simpson's rule on 12 deviations either side.

    Args:
        log_p: Log density of p, a function of actions [X]; it may jump at +-EDGE alone.

    Returns:
        At least 0; infinite where p has no mass and q has.
    """
    total = 0.0
    inner = np.nextafter(EDGE, 0.0), np.nextafter(EDGE, np.inf)
    for low, high in ((-_REACH, -inner[1]), (-inner[0], inner[0]), (inner[1], _REACH)):
        actions = np.linspace(low, high, 4001)
        log_q = stats.norm.logpdf(actions)
        log_ratio = log_q - log_p(actions)
        if np.isinf(log_ratio).any():
            return float("inf")
        total += float(integrate.simpson(np.exp(log_q) * log_ratio, x=actions))
    return total
