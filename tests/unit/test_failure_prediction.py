import fakes
import numpy as np
import pytest

from nppac_tf.evaluation.episodes import Episodes
from nppac_tf.evaluation.failure_prediction import FailurePrediction, describe
from nppac_tf.priors import UniformPrior


class FirstComponent(fakes.LinearPrior):
    """Its uncertainty is the first component of the observation."""

    def uncertainty(self, observations):
        return observations[:, 0]


PRIOR = FirstComponent(2, 1)


def episodes(starts, successes):
    """Episodes of two steps that begin at [start, 0]; the second observation misleads."""
    starts, successes = np.float32(starts), np.float32(successes)
    observations = tuple(np.float32([[start, 0], [-9 * start, 1]]) for start in starts)
    zeros = np.zeros(len(starts), np.float32)
    integers = zeros.astype(int)
    return Episodes(successes, zeros, zeros, zeros, integers, zeros > 0, 100, observations)


def test_perfect_prediction():
    prediction = FailurePrediction.of(PRIOR, episodes(range(7), [1, 1, 1, 1, 0, 0, 0]))
    assert prediction.auroc == 1.0
    assert prediction.p_value == pytest.approx(1 / 35)  # One order of 35.
    assert prediction.failures(0.5, certain=False) == (3, 4)
    assert prediction.failures(0.5, certain=True) == (0, 4)
    assert prediction.failures(0.01, certain=False) == (1, 1)
    assert prediction.sentence() == (
        "The prior's uncertainty at the first observation predicts failures: AUROC 1.00 (p 0.03). "
        "Failed: 1 of the 1 most uncertain episodes, 0 of the 4 most certain."
    )


def test_auroc_is_the_share_of_ordered_pairs_with_ties():
    rng = np.random.default_rng(0)
    starts, failed = rng.integers(0, 5, 60), rng.random(60) < 0.3
    prediction = FailurePrediction.of(PRIOR, episodes(starts, ~failed))
    pairs = np.sign(starts[failed][:, None] - starts[~failed][None, :])
    assert prediction.auroc == pytest.approx(np.mean((pairs + 1) / 2))
    assert "does not significantly predict" in prediction.sentence()


@pytest.mark.parametrize(
    ("prior", "successes", "reason"),
    [
        (UniformPrior(2, 1), [1, 1, 1, 0, 0, 0], "uniform prior has no uncertainty"),
        (PRIOR, [1, 1, 1, 1, 0, 0], "Failures: 2, successes: 4. With 3 of each or more"),
        (PRIOR, [0, 0, 0, 0, 1, 1], "Failures: 4, successes: 2"),
        (PRIOR, [np.nan] * 6, "Failures: 0, successes: 0"),
    ],
)
def test_without_a_prediction_the_reason_is_given(prior, successes, reason):
    assert FailurePrediction.of(prior, episodes(range(6), successes)) is None
    assert reason in describe(prior, episodes(range(6), successes))
