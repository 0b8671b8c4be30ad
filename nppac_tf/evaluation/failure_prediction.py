"""Tests whether the prior's uncertainty predicts which episodes fail.

Exploration around the prior seldom finds the goal from states that no demonstration visited. There
the prior is uncertain, so its uncertainty at an episode's first observation can predict the outcome
before anything has moved.
"""

from typing import NamedTuple, Self

import numpy as np
import tensorflow as tf
from scipy import stats

from nppac_tf.evaluation.episodes import Episodes
from nppac_tf.priors import BehavioralPrior, scores

_SIGNIFICANT = 0.05
_FEWEST = 3  # Failures, and successes: with fewer the ranks mean nothing.


def describe(prior: BehavioralPrior, episodes: Episodes) -> str:
    """Returns `FailurePrediction.sentence`, or the reason why there is no prediction."""
    prediction = FailurePrediction.of(prior, episodes)
    if prediction is not None:
        return prediction.sentence()
    if not prior.informative:
        return "A uniform prior has no uncertainty that could predict failures."
    failed, reached = ((episodes.any_success == outcome).sum() for outcome in (0, 1))
    return (
        f"Failures: {failed}, successes: {reached}. With {_FEWEST} of each or more, a test says "
        "whether the prior's uncertainty predicts failures."
    )


class FailurePrediction(NamedTuple):
    """Uncertainty of the prior at the first observations of E episodes, and their outcomes.

    Attributes:
        uncertainty: [E] float32, `BehavioralPrior.uncertainty`, larger if less certain.
        failed: [E] bool, True if the goal was never reached.
        auroc: In [0, 1], fraction of pairs of a failure and a success in which the prior was more
            uncertain about the failure; 0.5 is chance.
        p_value: In [0, 1], one-sided p-value of the Mann-Whitney U test.
    """

    uncertainty: np.ndarray
    failed: np.ndarray
    auroc: float
    p_value: float

    @classmethod
    def of(cls, prior: BehavioralPrior, episodes: Episodes) -> Self | None:
        """Computes the prediction.

        Args:
            prior: Prior that the policy was trained with.
            episodes: Recorded episodes of the policy.

        Returns:
            None if the prior is not informative, or there are fewer than three failures or
            successes.
        """
        failed = episodes.any_success == 0
        reached = episodes.any_success == 1
        if not prior.informative or min(failed.sum(), reached.sum()) < _FEWEST:
            return None
        first = np.stack([observations[0] for observations in episodes.observations])
        uncertainty = prior.uncertainty(tf.constant(first)).numpy()
        test = stats.mannwhitneyu(uncertainty[failed], uncertainty[reached], alternative="greater")
        auroc = scores.roc_area(uncertainty[reached], uncertainty[failed])
        return cls(uncertainty, failed, auroc, float(test.pvalue))

    def sentence(self) -> str:
        """Describes the prediction in words."""
        most, least = self.failures(0.1, certain=False), self.failures(0.5, certain=True)
        verb = "predicts" if self.p_value < _SIGNIFICANT else "does not significantly predict"
        return (
            f"The prior's uncertainty at the first observation {verb} failures: AUROC "
            f"{self.auroc:.2f} (p {self.p_value:.1g}). Failed: {most[0]} of the {most[1]} most "
            f"uncertain episodes, {least[0]} of the {least[1]} most certain."
        )

    def failures(self, fraction: float, certain: bool) -> tuple[int, int]:
        """Counts failures among the most certain or the most uncertain episodes.

        Args:
            fraction: Fraction of the episodes to consider, in (0, 1].
            certain: Whether to consider the most certain episodes, or the most uncertain.

        Returns:
            The number of failures, and the number of episodes considered.
        """
        number = max(1, round(fraction * len(self.failed)))
        order = np.argsort(self.uncertainty, kind="stable")
        chosen = order[:number] if certain else order[len(order) - number :]
        return int(self.failed[chosen].sum()), number
