"""C5: one factor on a Gaussian process's deviation, so that its intervals cover what they say.

Whole episodes are left out in turn, and the exact posterior is conditioned on the rest with the
hyper-parameters kept, which costs one factorization a fold. The factor at level p is the p-quantile
of the errors in units of the deviation, over the normal's: with it the central p interval covers a
share p of the left-out action components.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from nppac_tf.claims.c2_deviations import LEVELS, predictor
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors import scores
from nppac_tf.priors.gaussian_process import ExactGPPrior

LEVEL = 0.9


@dataclasses.dataclass(frozen=True, eq=False)
class Recalibration:
    """A factor found on left-out folds, and what it does on episodes that no fit has seen.

    Attributes:
        factor: Of the deviation, noise included.
        num_folds: On which it was found.
        folds_before: [L] coverage of `LEVELS` on the folds, without the factor.
        episodes: [E] coverage of the 90 % interval in each left-out episode of the folds.
        held_out_episodes: The same of the held-out episodes; without the factor, as above.
        before: [L] on held-out episodes, without the factor.
        after: [L] with it.
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

    def numbers(self) -> dict[str, Any]:
        """For c5.json."""
        return {"levels": LEVELS, "fitted_at_level": LEVEL, **dataclasses.asdict(self)}


def recalibrate(
    prior: ExactGPPrior,
    fitted: Demonstrations,
    held_out: Demonstrations,
    num_folds: int = 5,
    seed: int = 0,
) -> Recalibration:
    """Finds the factor and tries it.

    Args:
        prior: Fitted to `fitted`, with noise.
        fitted: Of E episodes; no more folds than E.
        held_out: Other episodes.
        num_folds: At least 2.
        seed: Of the folds.

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
    """By what the deviation is to be multiplied for the central interval to cover its level.

    Args:
        errors: [N, A] in units of the deviation.
        level: In (0, 1).
    """
    return float(np.quantile(np.abs(errors), level) / stats.norm.ppf(0.5 + 0.5 * level))


def fold_errors(prior: ExactGPPrior, fitted: Demonstrations, folds: np.ndarray) -> np.ndarray:
    """Errors of left-out actions in units of the deviation, [N, A].

    Args:
        prior: Fitted to `fitted`, with noise.
        fitted: N steps.
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
    """Of errors in units of the deviation, [L]."""
    return scores.coverage(errors, np.zeros(1), np.ones(1), levels)


def _coverage_by_episode(errors: np.ndarray, demonstrations: Demonstrations) -> np.ndarray:
    parts = np.split(errors, demonstrations.episode_ends[:-1])
    return np.array([_coverage(part, [LEVEL])[0] for part in parts])
