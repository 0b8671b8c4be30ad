"""C5: whether a prior's intervals cover held-out actions as often as they claim.

A Gaussian process can be recalibrated by one factor on its scale. Whole episodes are left out in
turn, and the exact posterior is conditioned on the rest with the same hyper-parameters, which costs
one factorization per fold. The factor at level p is the p-quantile of the absolute errors in units
of the scale, divided by that of the normal: with it the central p interval covers a share p of the
left-out action components.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from nppac_tf.claims import drawing
from nppac_tf.claims.common import Table
from nppac_tf.claims.drawing import CLASSES
from nppac_tf.claims.predictions import predictor
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors import scores
from nppac_tf.priors.base import BehavioralPrior
from nppac_tf.priors.gaussian_process import ExactGPPrior

LEVELS = (0.5, 0.9, 0.99)
LEVEL = 0.9


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
class Recalibration:
    """A factor fitted on left-out folds, and its effect on episodes that no fit has seen.

    Attributes:
        factor: Factor on the scale, noise included.
        num_folds: Number of folds it was fitted on.
        folds_before: [L] coverage of `LEVELS` on the folds, without the factor.
        episodes: [E] coverage of the 90 % interval in each left-out episode, without the factor.
        held_out_episodes: The same for each held-out episode.
        before: [L] coverage on held-out episodes, without the factor.
        after: [L] coverage on held-out episodes, with it.
        log_likelihoods: Nats per held-out action, without and with the factor.
    """

    factor: float
    num_folds: int
    folds_before: np.ndarray
    episodes: np.ndarray
    held_out_episodes: np.ndarray
    before: np.ndarray
    after: np.ndarray
    log_likelihoods: tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration of several prior classes on held-out episodes.

    Attributes:
        accuracy: Accuracy by class.
        recalibration: Of the exact Gaussian process; None if it was not measured.
    """

    accuracy: dict[str, Accuracy]
    recalibration: Recalibration | None

    def numbers(self) -> dict[str, Any]:
        """Content of c5.json."""
        aims = {
            f"{name}_90_percent_interval_covers_85_to_95": bool(0.85 <= a.coverage[1] <= 0.95)
            for name, a in self.accuracy.items()
            if name.endswith("_gp")
        }
        classes = {
            name: {
                "levels": LEVELS,
                "coverage": a.coverage,
                "coverage_without_noise": a.mean_coverage,
                "log_likelihood_nats": a.log_likelihood,
                "log_likelihood_without_noise_nats": a.mean_log_likelihood,
                "root_mean_squared_error": a.error,
            }
            for name, a in self.accuracy.items()
        }
        result = {"aims": aims, "classes": classes}
        if self.recalibration is not None:
            about = {"levels": LEVELS, "fitted_at_level": LEVEL}
            result["recalibration"] = about | dataclasses.asdict(self.recalibration)
        return result

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
            for name in ("exact_gp", "gaussian_network")
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
        bars: list[tuple[np.ndarray, dict[str, Any]]] = [
            (a.coverage, {"label": CLASSES[name][0], "color": CLASSES[name][1]})
            for name, a in self.accuracy.items()
        ]
        if self.recalibration is not None:
            label = f"exact GP, scale × {self.recalibration.factor:.2f}"
            hatched = {"color": "white", "edgecolor": CLASSES["exact_gp"][1], "hatch": "////"}
            bars.append((self.recalibration.after, {"label": label, **hatched}))
        positions = np.arange(len(LEVELS), dtype=np.float64)
        width = 0.8 / len(bars)
        for index, (coverage, style) in enumerate(bars):
            at = positions + (index - (len(bars) - 1) / 2) * width
            axis.bar(at, coverage, 0.9 * width, **style)
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
    priors: Mapping[str, BehavioralPrior],
    fitted: Demonstrations,
    held_out: Demonstrations,
    seed: int = 0,
) -> Calibration:
    """Measures calibration on held-out episodes, and recalibrates an exact Gaussian process.

    Args:
        priors: Unscaled priors by class, fitted to `fitted`.
        fitted: Demonstrations that the priors were fitted to.
        held_out: Other demonstrations of the same task.
        seed: Seed of the folds. There is no recalibration for a single fitted episode.
    """
    accuracy = {}
    for name, prior in priors.items():
        location, mean_scale, action_scale = predictor(prior)(held_out.observations)
        actions = held_out.actions
        accuracy[name] = Accuracy(
            scores.coverage(actions, location, action_scale, LEVELS),
            scores.coverage(actions, location, mean_scale, LEVELS),
            float(scores.log_likelihood(actions, location, action_scale).mean()),
            float(scores.log_likelihood(actions, location, mean_scale).mean()),
            scores.root_mean_squared_error(actions, location),
        )
    exact = priors.get("exact_gp")
    recalibration = None
    if isinstance(exact, ExactGPPrior) and fitted.num_episodes > 1:
        recalibration = recalibrate(exact, fitted, held_out, seed=seed)
    return Calibration(accuracy, recalibration)


def recalibrate(
    prior: ExactGPPrior,
    fitted: Demonstrations,
    held_out: Demonstrations,
    num_folds: int = 5,
    seed: int = 0,
) -> Recalibration:
    """Fits the factor on left-out episodes and evaluates it on held-out ones.

    Args:
        prior: Prior fitted to `fitted`.
        fitted: Demonstrations with E >= 2 episodes.
        held_out: Other demonstrations of the same task.
        num_folds: Number of folds, at least 2; reduced to E if larger.
        seed: Seed of the folds.

    Raises:
        UserError: for fewer than two episodes, or demonstrations that are not the prior's.
    """
    if fitted.num_episodes < 2:
        raise UserError(f"fitted must hold at least two episodes; got {fitted.num_episodes}")
    folds = np.arange(fitted.num_episodes) % min(num_folds, fitted.num_episodes)
    folds = np.repeat(
        np.random.default_rng(seed).permutation(folds), np.diff(fitted.episode_ends, prepend=0)
    )
    errors = fold_errors(prior, fitted, folds)
    factor = scale_factor(errors, LEVEL)
    location, _, scale = predictor(prior)(held_out.observations)
    held_out_errors = (held_out.actions - location) / scale
    return Recalibration(
        factor=factor,
        num_folds=int(folds.max()) + 1,
        folds_before=_coverage(errors, LEVELS),
        episodes=_coverage_by_episode(errors, fitted),
        held_out_episodes=_coverage_by_episode(held_out_errors, held_out),
        before=_coverage(held_out_errors, LEVELS),
        after=_coverage(held_out_errors / factor, LEVELS),
        log_likelihoods=(
            float(scores.log_likelihood(held_out.actions, location, scale).mean()),
            float(scores.log_likelihood(held_out.actions, location, factor * scale).mean()),
        ),
    )


def scale_factor(errors: np.ndarray, level: float) -> float:
    """Factor on the scale with which the central interval covers its level.

    Args:
        errors: [N, A] errors in units of the scale.
        level: Level in (0, 1).
    """
    return float(np.quantile(np.abs(errors), level) / stats.norm.ppf(0.5 + 0.5 * level))


def fold_errors(prior: ExactGPPrior, fitted: Demonstrations, folds: np.ndarray) -> np.ndarray:
    """Computes the errors of left-out actions in units of the scale, [N, A].

    Args:
        prior: Prior fitted to `fitted`.
        fitted: Demonstrations of N steps.
        folds: [N] int, the fold of each step.

    Raises:
        UserError: if the prior was fitted to other demonstrations.
    """
    settings, arrays = prior.state()
    if len(arrays["centers"]) != fitted.num_steps:
        raise UserError(
            "fitted must be the demonstrations of the prior, "
            f"{len(arrays['centers']):,} steps; got {fitted.num_steps:,}"
        )
    errors = np.empty(fitted.actions.shape)
    for fold in np.unique(folds):
        rest, left_out = folds != fold, folds == fold
        parts = {"centers": arrays["centers"][rest], "actions": arrays["actions"][rest]}
        conditioned = ExactGPPrior.from_state(settings, {**arrays, **parts})
        location, _, scale = predictor(conditioned)(fitted.observations[left_out])
        errors[left_out] = (fitted.actions[left_out] - location) / scale
    return errors


def _coverage(errors: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Coverage [L], given errors in units of the scale."""
    return scores.coverage(errors, np.zeros(1), np.ones(1), levels)


def _coverage_by_episode(errors: np.ndarray, demonstrations: Demonstrations) -> np.ndarray:
    parts = np.split(errors, demonstrations.episode_ends[:-1])
    return np.array([_coverage(part, [LEVEL])[0] for part in parts])
