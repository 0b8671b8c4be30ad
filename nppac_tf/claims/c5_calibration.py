"""C5: whether a prior's intervals cover held-out actions as often as they claim."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nppac_tf.claims import drawing
from nppac_tf.claims.common import Table
from nppac_tf.claims.drawing import CLASSES
from nppac_tf.claims.predictions import predictor
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.priors import scores
from nppac_tf.priors.base import BehavioralPrior

LEVELS = (0.5, 0.9, 0.99)


class Accuracy(NamedTuple):
    """How well a prior predicts held-out actions.

    Attributes:
        coverage: [L] shares of action components within the central intervals of `LEVELS`.
        mean_coverage: [L] the same without a Gaussian process's noise.
        log_likelihood: Nats per action, noise included.
        mean_log_likelihood: Nats per action, without noise.
        error: Root mean squared error, in units of the action.
    """

    coverage: np.ndarray
    mean_coverage: np.ndarray
    log_likelihood: float
    mean_log_likelihood: float
    error: float


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration of several prior classes on held-out episodes.

    Attributes:
        accuracy: Accuracy by class.
        episodes: By class, coverage of the 90 % interval in each held-out episode, [E].
    """

    accuracy: dict[str, Accuracy]
    episodes: dict[str, np.ndarray]

    def numbers(self) -> dict[str, Any]:
        """Content of c5.json."""
        aims = {
            f"{name}_90_percent_interval_covers_85_to_95": bool(0.85 <= a.coverage[1] <= 0.95)
            for name, a in self.accuracy.items()
            if name.endswith("gp")
        }
        classes = {
            name: {
                "levels": LEVELS,
                "coverage": a.coverage,
                "coverage_without_noise": a.mean_coverage,
                "coverage_0.9_by_episode": self.episodes[name],
                "log_likelihood_nats": a.log_likelihood,
                "log_likelihood_without_noise_nats": a.mean_log_likelihood,
                "root_mean_squared_error": a.error,
            }
            for name, a in self.accuracy.items()
        }
        return {"aims": aims, "classes": classes}

    def table(self) -> Table:
        """Content of c5.csv: one row per class."""
        columns = ("prior", *(f"coverage_{level:g}" for level in LEVELS))
        without = (f"without_noise_coverage_{level:g}" for level in LEVELS)
        rows = [
            (name, *a.coverage, *a.mean_coverage, a.log_likelihood, a.mean_log_likelihood, a.error)
            for name, a in self.accuracy.items()
        ]
        ends = ("log_likelihood", "without_noise_log_likelihood", "root_mean_squared_error")
        return (*columns, *without, *ends), rows

    def figure(self, title: str) -> Figure:
        """Coverage of held-out actions and their log likelihood, by class."""
        covered = [
            f"{CLASSES[name][0]} {self.accuracy[name].coverage[1]:.0%}"
            for name in ("gp", "gaussian_network")
            if name in self.accuracy
        ]
        result = drawing.new_figure(
            (8.6, 3.8), f"{title}: a 90% interval covers {', '.join(covered)}"
        )
        left, right = result.subplots(1, 2, width_ratios=(1.6, 1.0))
        self._draw_coverage(left)
        self._draw_likelihoods(right)
        return drawing.finish(result, left, columns=4)

    def _draw_coverage(self, axis: Axes) -> None:
        positions = np.arange(len(LEVELS), dtype=np.float64)
        width = 0.8 / len(self.accuracy)
        for index, (name, accuracy) in enumerate(self.accuracy.items()):
            at = positions + (index - (len(self.accuracy) - 1) / 2) * width
            label, color = CLASSES[name]
            axis.bar(at, accuracy.coverage, 0.9 * width, color=color, label=label)
        for position, level in zip(positions, LEVELS, strict=True):
            axis.plot([position - 0.45, position + 0.45], [level] * 2, color="black", linewidth=1.5)
        axis.set_xticks(positions, [f"{level:.0%} interval" for level in LEVELS])
        axis.set_ylim(0, 1.02)
        axis.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
        axis.set_ylabel("held-out action components\nwithin the interval")
        axis.set_title("Coverage; black: nominal", fontsize="small")

    def _draw_likelihoods(self, axis: Axes) -> None:
        labels, colors = zip(*(CLASSES[name] for name in self.accuracy), strict=True)
        values = [a.log_likelihood for a in self.accuracy.values()]
        axis.barh(range(len(values)), values, color=colors, height=0.7)
        for index, value in enumerate(values):
            text = drawing.signed(f" {value:,.1f} ")
            axis.annotate(text, (max(value, 0.0), index), va="center", ha="left", fontsize="small")
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(labels)), labels, fontsize="small")
        axis.invert_yaxis()
        axis.margins(x=0.2)
        if min(values) < -200:
            axis.set_xscale("symlog", linthresh=100)
            axis.set_xticks([-10_000, -1000, -100, 0, 100])
            axis.set_xlim(3 * min(values), 1000)
            axis.minorticks_off()
        axis.set_xlabel("log likelihood (nats)")
        axis.set_title("Log likelihood of a held-out action", fontsize="small")


def measure_calibration(
    priors: Mapping[str, BehavioralPrior], held_out: Demonstrations
) -> Calibration:
    """Measures how well priors predict held-out episodes.

    Args:
        priors: Unscaled priors by class.
        held_out: Demonstrations of the same task that the priors were not fitted to.
    """
    actions, accuracy, episodes = held_out.actions, {}, {}
    for name, prior in priors.items():
        location, mean_scale, action_scale = predictor(prior)(held_out.observations)
        accuracy[name] = Accuracy(
            scores.coverage(actions, location, action_scale, LEVELS),
            scores.coverage(actions, location, mean_scale, LEVELS),
            float(scores.log_likelihood(actions, location, action_scale).mean()),
            float(scores.log_likelihood(actions, location, mean_scale).mean()),
            scores.root_mean_squared_error(actions, location),
        )
        errors = np.split((actions - location) / action_scale, held_out.episode_ends[:-1])
        shares = [scores.coverage(part, np.zeros(1), np.ones(1), LEVELS[1:2])[0] for part in errors]
        episodes[name] = np.array(shares)
    return Calibration(accuracy, episodes)
