"""C4, Proposition 1: the gradient of the KL term grows as 1 / sigma0^2 as sigma0 -> 0.

For a Gaussian policy N(mu, sigma^2) and prior N(mu0, sigma0^2), per action component,

    KL            = log(sigma0 / sigma) + (sigma^2 + (mu - mu0)^2) / (2 sigma0^2) - 1/2
    d KL / d mu        = (mu - mu0) / sigma0^2
    d KL / d log sigma = sigma^2 / sigma0^2 - 1

and by the chain rule the gradient of every weight of the actor is a sum of these. The squashed
actor has no closed form; for a sample a = tanh(u), d(-log pi0) / da = (a - mu0) / sigma0^2 is of
the same order.
The policy stays fixed while sigma0 decreases. If it follows the prior, with (mu - mu0) / sigma0 and
sigma / sigma0 bounded, the gradient does not grow like this.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from nppac_tf import divergences
from nppac_tf.agents.batch import States
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.claims import drawing
from nppac_tf.claims.common import Table
from nppac_tf.config import AgentConfig
from nppac_tf.priors.base import BehavioralPrior, FixedScalePrior

DECADES = 3.0
TOLERANCE = 0.1
_PAPER = AgentConfig(
    actor="network",
    squash=False,
    divergence="sampled",
    critic_layer_norm=False,
    num_critics=2,
    reward_scale=1.0,
)
_ACTORS: Mapping[str, AgentConfig] = {
    "gaussian_closed_form": dataclasses.replace(_PAPER, divergence="closed_form"),
    "gaussian_sampled": _PAPER,
    "squashed_sampled": dataclasses.replace(_PAPER, squash=True),
}
_MARKERS = {
    "gaussian_closed_form": ("Gaussian, KL in closed form", "#0072B2", "o"),
    "gaussian_sampled": ("Gaussian, sampled KL", "#E69F00", "s"),
    "squashed_sampled": ("squashed, sampled KL", "#009E73", "^"),
}


class GradientNorms(NamedTuple):
    """Norms [K] of the actor's gradient: of the KL term, the Q term, and their sum."""

    prior: np.ndarray
    q: np.ndarray
    total: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class GradientGrowth:
    """Growth of the actor's gradient as the prior's scale decreases.

    Attributes:
        scales: [K] scales sigma0, increasing, in units of the action.
        closed_form: [K] root mean square over states of the norm of dKL / d(mu, log sigma).
        differentiated: [K] the same by automatic differentiation of `divergences.gaussian_kl`.
        actors: Gradients for the weights of `NppacAgent`'s actor, by kind of actor.
        temperature: Factor alpha of the KL term.
    """

    scales: np.ndarray
    closed_form: np.ndarray
    differentiated: np.ndarray
    actors: dict[str, GradientNorms]
    temperature: float

    def numbers(self) -> dict[str, Any]:
        """Content of c4.json; `slope` is the total gradient's slope that is farthest from -2."""
        fits = {
            "closed_form": self._fit(self.closed_form),
            **{
                f"{actor}.{part}": self._fit(getattr(norms, part))
                for actor, norms in self.actors.items()
                for part in ("prior", "total")
            },
        }
        slopes = [fits[f"{actor}.total"]["slope"] for actor in self.actors]
        slope = max(slopes, key=lambda value: abs(value + 2.0))
        return {
            "slope": slope,
            "aim_slope_is_minus_2_within_0.1": abs(slope + 2.0) <= TOLERANCE,
            "fitted_from_sigma0": self.scales[0],
            "fitted_to_sigma0": self.scales[0] * 10**DECADES,
            "temperature": self.temperature,
            "fits": fits,
            "q_gradient_norm": {actor: float(n.q[0]) for actor, n in self.actors.items()},
            "sigma0_below_which_prior_exceeds_q": {
                actor: largest_while(self.scales, norms.prior > norms.q)
                for actor, norms in self.actors.items()
            },
            "largest_relative_error_of_closed_form": float(
                np.max(np.abs(self.differentiated / self.closed_form - 1.0))
            ),
        }

    def _fit(self, norms: np.ndarray) -> dict[str, float]:
        chosen = self.scales <= self.scales[0] * 10**DECADES * (1 + 1e-6)
        local = np.diff(np.log(norms)) / np.diff(np.log(self.scales))
        return {
            "slope": power_law(self.scales[chosen], norms[chosen]),
            "regime_begins_at_sigma0": largest_while(
                self.scales[1:], np.abs(local + 2.0) <= TOLERANCE
            ),
        }

    def table(self) -> Table:
        """Content of c4.csv: one row per sigma0."""
        columns = {
            "sigma0": self.scales,
            "output_closed_form": self.closed_form,
            "output_differentiated": self.differentiated,
            **{
                f"{actor}.{part}": norms
                for actor, parts in self.actors.items()
                for part, norms in parts._asdict().items()
            },
        }
        return tuple(columns), list(zip(*columns.values(), strict=True))

    def figure(self) -> Figure:
        """Gradient norms over the prior's scale, on logarithmic axes."""
        slope = drawing.signed(f"{self.numbers()['slope']:.2f}")
        title = f"The actor's gradient grows as σ₀⁻² (slope {slope} on logarithmic axes)"
        result = drawing.new_figure((8.6, 4.0), title)
        left, right = result.subplots(1, 2)
        scales = self.scales
        left.loglog(scales, self.closed_form, color="#34495E", label="closed form")
        left.loglog(
            scales, self.differentiated, "o", color="#D55E00", markersize=4, label="differentiated"
        )
        left.set_title("KL's gradient for the policy's mean and log scale", fontsize="small")
        left.set_ylabel("gradient norm (RMS over states)")
        for actor, norms in self.actors.items():
            label, color, marker = _MARKERS[actor]
            size, fill = (8, "none") if marker == "o" else (4, "full")
            right.loglog(
                scales,
                norms.total,
                marker,
                color=color,
                markersize=size,
                fillstyle=fill,
                label=label,
            )
            right.loglog(scales, norms.prior, color=color, linewidth=1.2)
            right.loglog(scales, norms.q, color=color, linewidth=1.0, linestyle=":")
        right.set_title(
            "for all weights of NppacAgent's actor\n"
            f"(dots: whole objective, α = {self.temperature:g}; line: KL term; dotted: Q term)",
            fontsize="small",
        )
        right.set_ylabel("gradient norm")
        fitted = scales <= scales[0] * 10**DECADES * (1 + 1e-6)
        for axis, reference in (
            (left, self.closed_form),
            (right, self.actors["gaussian_sampled"].prior),
        ):
            guide = 8.0 * reference[0] * (scales / scales[0]) ** -2.0
            axis.loglog(scales[fitted], guide[fitted], color="black", linestyle="--", linewidth=1)
            middle = fitted.sum() // 2
            axis.annotate(
                "slope −2",
                (scales[middle], guide[middle]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize="small",
            )
            axis.set_xlabel("prior's scale σ₀ (units of the action)")
            axis.legend(fontsize="small", frameon=False)
        return drawing.finish(result)


def power_law(x: np.ndarray, y: np.ndarray) -> float:
    """Fits the slope of log y over log x by least squares; x and y are [K] and positive."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def largest_while(x: np.ndarray, condition: np.ndarray) -> float:
    """The largest of increasing x [K] up to which the condition [K] always holds; nan if none."""
    holds = np.logical_and.accumulate(condition)
    return float(x[holds][-1]) if holds.any() else float("nan")


def kl_output_gradient(
    location: np.ndarray, scale: np.ndarray, prior_location: np.ndarray, prior_scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients [B, A] of the KL with respect to mu and log sigma; all arguments are [B, A]."""
    variance = np.square(prior_scale)
    return (location - prior_location) / variance, np.square(scale) / variance - 1.0


def measure_gradient_growth(
    prior: BehavioralPrior,
    observations: np.ndarray,
    task: Any,
    scales: np.ndarray | None = None,
    temperature: float = 0.1,
    seed: int = 0,
) -> GradientGrowth:
    """Measures gradients of a new agent's actor, with the prior's scale set to constants.

    Args:
        prior: Prior that gives mu0.
        observations: [B, D] batch of states.
        task: Object with `observation_size`, `action_low` and `action_high`.
        scales: [K] scales, increasing over more than three decades; 1e-4 to 10 if None.
        temperature: Factor alpha of the KL term.
        seed: Seed of the agent's weights and of the samples.
    """
    if scales is None:
        scales = np.geomspace(1e-4, 10.0, 26)
    states = tf.constant(observations, tf.float32)
    statistics = [FixedScalePrior(prior, float(s)).statistics(states) for s in scales]
    actors = {}
    outputs: Any = None
    for name, config in _ACTORS.items():
        agent = NppacAgent.for_task(
            task, prior, dataclasses.replace(config, temperature=temperature), seed
        )
        gradient_parts = tf.function(agent.gradient_parts, autograph=False)
        norms = []
        for constant in statistics:
            prior_part, q_part = gradient_parts(States.at(states, constant), tf.constant([seed, 0]))
            total = [a + b for a, b in zip(prior_part, q_part, strict=True)]
            norms.append(
                [float(tf.linalg.global_norm(part)) for part in (prior_part, q_part, total)]
            )
        actors[name] = GradientNorms(*np.array(norms).T)
        if config.divergence == "closed_form":
            policy, _ = agent.actor_network(states, step_type=(), network_state=())
            outputs = policy.mean(), policy.stddev()

    location, scale = outputs
    closed_form, differentiated = [], []
    for constant in statistics:
        gradient = kl_output_gradient(*(np.asarray(x, np.float64) for x in (*outputs, *constant)))
        closed_form.append(_rms_norm(gradient))
        log_scale = tf.math.log(scale)
        with tf.GradientTape() as tape:
            tape.watch([location, log_scale])
            kl = divergences.gaussian_kl(location, tf.exp(log_scale), *constant)
        differentiated.append(_rms_norm(tape.gradient(kl, [location, log_scale])))
    return GradientGrowth(
        np.asarray(scales), np.array(closed_form), np.array(differentiated), actors, temperature
    )


def _rms_norm(gradient: Any) -> float:
    """Root mean square over states of the norm of gradients [B, A]."""
    return float(np.sqrt(sum(np.square(np.asarray(g)).sum(axis=1) for g in gradient).mean()))
