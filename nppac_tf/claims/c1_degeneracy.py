"""C1: KL(q || p) is finite only if q is absolutely continuous with respect to p.

q = N(0, 1) is compared with two families of p that start at q and degenerate:

- narrowing: p = N(0, s^2), s -> 0. KL = log s + 1 / (2 s^2) - 1/2 grows as s^-2 and is infinite in
  the limit, a point mass.
- vanishing: p = e q + (1 - e) q(. | |a| <= 1), e -> 0, which removes mass where q has it. With
  Z = P(|a| <= 1), p / q is e + (1 - e) / Z inside and e outside, so that
  KL = -Z log(e + (1 - e) / Z) - (1 - Z) log e grows as log(1 / e) and is infinite at e = 0.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy import integrate, stats

from nppac_tf.claims import drawing
from nppac_tf.claims.common import Table
from nppac_tf.divergences import gaussian_kl

EDGE = 1.0
_REACH = 12.0
_DRAWN = (0, 1, 2, 4, 6)


@dataclasses.dataclass(frozen=True, eq=False)
class Degeneracy:
    """Densities and KL divergences (nats) of both families.

    Attributes:
        actions: [X] points of the densities.
        density: [X] density of q.
        scales: [K] standard deviations s of the narrowing family, decreasing from 1.
        narrowing: [K, X] densities of the narrowing family.
        narrowing_kl: [K] KL divergences in closed form.
        narrowing_integrated: [K] the same by numerical integration.
        leaks: [L] weights e of the vanishing family, decreasing from 1 to 0.
        vanishing: [L, X] densities of the vanishing family.
        vanishing_kl: [L] KL divergences in closed form; the last is infinite.
        vanishing_integrated: [L] the same by numerical integration.
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
        """Content of c1.json."""
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
        """Content of c1.csv: one row per p."""
        rows = [
            (family, *row)
            for family, columns in (
                ("narrowing", (self.scales, self.narrowing_kl, self.narrowing_integrated)),
                ("vanishing", (self.leaks, self.vanishing_kl, self.vanishing_integrated)),
            )
            for row in zip(*columns, strict=True)
        ]
        return ("family", "scale_or_leak", "kl_nats", "kl_integrated_nats"), rows

    def figure(self) -> Figure:
        """Densities of q and of each family of p, and their KL divergences."""
        result = drawing.new_figure((7.6, 5.8), "KL(q‖p) runs from 0 to ∞ as p loses mass q has")
        panels: dict[str, Any] = result.subplot_mosaic(
            [["narrowing", "vanishing"], ["divergence", "divergence"]]
        )
        left, middle, right = (panels[name] for name in ("narrowing", "vanishing", "divergence"))
        self._draw_densities(
            left, self.narrowing, self.narrowing_kl, self.scales, "s", "Blues", _DRAWN
        )
        left.set(ylim=(0, 2.6), ylabel="density")
        left.set_title("narrowing p = N(0, s²)", fontsize="small")
        shown = (*_DRAWN, len(self.leaks) - 1)
        self._draw_densities(
            middle, self.vanishing, self.vanishing_kl, self.leaks, "e", "Oranges", shown
        )
        middle.set(ylim=(0, 0.85))
        middle.set_title(f"p keeps a share e beyond |a| = {EDGE:g}", fontsize="small")
        for parameters, exact, integrated, color, label in (
            (
                self.scales,
                self.narrowing_kl,
                self.narrowing_integrated,
                "#0072B2",
                "narrowing: ∝ 1/s²",
            ),
            (
                self.leaks,
                self.vanishing_kl,
                self.vanishing_integrated,
                "#D55E00",
                "vanishing: ∝ log 1/e,\n∞ at e = 0",
            ),
        ):
            drawn = (parameters > 0) & (parameters < 1)
            right.loglog(parameters[drawn], exact[drawn], color=color, label=label)
            right.loglog(parameters[drawn], integrated[drawn], "o", color=color, markersize=4)
        right.invert_xaxis()
        right.set(xlabel="s or e (→ 0)", ylabel="KL(q‖p) (nats)")
        right.set_title("lines: closed form; dots: integrated", fontsize="small")
        right.legend(fontsize="x-small", frameon=False)
        return drawing.finish(result)

    def _draw_densities(
        self,
        axis: Any,
        densities: np.ndarray,
        divergences: np.ndarray,
        parameters: np.ndarray,
        symbol: str,
        palette: str,
        shown: tuple[int, ...],
    ) -> None:
        colors = matplotlib.colormaps[palette](np.linspace(0.4, 1.0, len(_DRAWN) + 1))
        for index, color in zip(shown, colors, strict=False):
            kl = "∞" if np.isinf(divergences[index]) else f"{divergences[index]:.2f}"
            label = f"{symbol} = {parameters[index]:.2g}: KL {kl}"
            axis.plot(self.actions, densities[index], color=color, linewidth=1.6, label=label)
        axis.plot(self.actions, self.density, color="black", linestyle="--", linewidth=1.5)
        axis.annotate("q", (1.55, 0.13), fontsize="medium")
        axis.set_xlim(-3.2, 6.5)  # Room for the legend.
        axis.set_xlabel("action a (standard deviations of q)")
        axis.legend(fontsize="x-small", frameon=False, loc="upper right", handlelength=1.0)


def measure_degeneracy(num_scales: int = 13, smallest_scale: float = 1e-3) -> Degeneracy:
    """Computes KL(q || p) as p degenerates, in closed form and by numerical integration.

    Args:
        num_scales: Number K of narrowing p, and of vanishing p with mass outside; at least 7.
        smallest_scale: Smallest s, in standard deviations of q, and smallest e above 0.
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
            [integrated_kl(functools.partial(stats.norm.logpdf, scale=s)) for s in scales]
        ),
        leaks=leaks,
        vanishing=np.exp([_log_vanishing(actions, leak) for leak in leaks]),
        vanishing_kl=vanishing_kl + 0.0,  # Turns -0 into 0.
        vanishing_integrated=np.array(
            [integrated_kl(functools.partial(_log_vanishing, leak=e)) for e in leaks]
        ),
    )


def _log_vanishing(actions: np.ndarray, leak: float) -> np.ndarray:
    inside_mass = stats.norm.cdf(EDGE) - stats.norm.cdf(-EDGE)
    with np.errstate(divide="ignore"):
        ratio = np.log(leak + (1 - leak) / inside_mass * (np.abs(actions) <= EDGE))
    return stats.norm.logpdf(actions) + ratio


def integrated_kl(log_p: Callable[[np.ndarray], np.ndarray]) -> float:
    """Integrates KL(N(0, 1) || p) (nats) by Simpson's rule over [-12, 12].

    Args:
        log_p: Log density of p at actions [X]; may be discontinuous only at +-EDGE.

    Returns:
        A value of at least 0; infinite if q has mass where p has none.
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
