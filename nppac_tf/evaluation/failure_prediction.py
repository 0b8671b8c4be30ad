"""Whether the prior says beforehand which episodes will fail.

Where no demonstration went, nobody showed the agent the way, and exploring around the prior seldom
finds it. The prior is unsure there: its uncertainty at an episode's first observation, before
anything has moved, can be held against how the episode ended.
"""

from typing import NamedTuple, Self

import numpy as np
import tensorflow as tf
from scipy import stats

from nppac_tf.evaluation.rollouts import Episodes
from nppac_tf.priors import BehavioralPrior, scores

_SIGNIFICANT = 0.05
_FEWEST = 3  # Failures, and successes: with fewer the ranks say nothing.


def told(prior: BehavioralPrior, episodes: Episodes) -> str:
    """What a user is told: `FailurePrediction.sentence`, or why there is nothing to say."""
    seen = FailurePrediction.of(prior, episodes)
    if seen is not None:
        return seen.sentence()
    if not prior.informative:
        return "A uniform prior foretells nothing."
    failed, reached = ((episodes.any_success == outcome).sum() for outcome in (0, 1))
    return (
        "Whether the prior's uncertainty foretold failures cannot be said: that takes "
        f"{_FEWEST} failures and {_FEWEST} successes, and there were {failed} and {reached}."
    )


class FailurePrediction(NamedTuple):
    """The prior's uncertainty at the first observations of E episodes, and how they ended.

    Attributes:
        uncertainty: [E] float32, `BehavioralPrior.uncertainty`, greater for less sure.
        failed: [E] bool, whether the goal was never reached.
        auroc: in [0, 1], the share of pairs of a failure and a success in which the prior was less
            sure of the failure; 0.5 is chance.
        p_value: in [0, 1], of as large an `auroc` by chance (Mann and Whitney's test).
    """

    uncertainty: np.ndarray
    failed: np.ndarray
    auroc: float
    p_value: float

    @classmethod
    def of(cls, prior: BehavioralPrior, episodes: Episodes) -> Self | None:
        """None of a prior that is not informative, or with under three failures or successes.

        Args:
            prior: pi0 that the policy was trained with.
            episodes: Of the policy, recorded.
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
        """What a user is told of it."""
        unsure, sure = self.failures(0.1, surest=False), self.failures(0.5, surest=True)
        told = "tells" if self.p_value < _SIGNIFICANT else "does not surely tell"
        return (
            f"The prior's uncertainty at the first observation {told} failures from successes: "
            f"AUROC {self.auroc:.2f} (p {self.p_value:.1g}); of the {unsure[1]} episodes that it "
            f"was least sure of {unsure[0]} failed, of the {sure[1]} surest {sure[0]}."
        )

    def failures(self, share: float, surest: bool) -> tuple[int, int]:
        """Failures among the surest or least sure episodes, and how many these are.

        Args:
            share: Of the episodes, in (0, 1].
            surest: Which end.
        """
        number = max(1, round(share * len(self.failed)))
        order = np.argsort(self.uncertainty, kind="stable")
        chosen = order[:number] if surest else order[len(order) - number :]
        return int(self.failed[chosen].sum()), number
