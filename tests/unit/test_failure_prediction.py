import fakes
import numpy as np
import pytest
import tensorflow as tf

from nppac_tf.evaluation.failure_prediction import FailurePrediction, told
from nppac_tf.evaluation.rollouts import Episodes
from nppac_tf.priors import UniformPrior


class FirstComponent(fakes.LinearPrior):
    """Unsure by the first component of the observation."""

    def uncertainty(self, observations):
        return observations[:, 0]


def episodes(starts, successes):
    """Episodes of two steps that begin at [start, 0]; what comes later misleads."""
    starts = np.asarray(starts, np.float32)
    observations = tuple(
        np.array([[start, 0.0], [-9 * start, 1.0]], np.float32) for start in starts
    )
    successes = np.asarray(successes, np.float32)
    zeros = np.zeros(len(starts), np.float32)
    return Episodes(successes, zeros, zeros, zeros, zeros.astype(int), observations)


PRIOR = FirstComponent(2, 1)


def test_a_prior_that_is_less_sure_of_what_fails():
    seen = FailurePrediction.of(PRIOR, episodes([0, 1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 0, 0, 0]))
    assert seen.auroc == 1.0
    assert seen.p_value == pytest.approx(1 / 35)  # One order of 35.
    assert seen.failures(0.5, surest=False) == (3, 4)
    assert seen.failures(0.5, surest=True) == (0, 4)
    assert seen.failures(0.01, surest=False) == (1, 1)
    assert "observation tells failures" in seen.sentence()
    assert "AUROC 1.00 (p 0.03); of the 1 episodes" in seen.sentence()
    assert seen.sentence().endswith("least sure of 1 failed, of the 4 surest 0.")


def test_the_share_of_ordered_pairs_with_ties():
    rng = np.random.default_rng(0)
    starts, failed = rng.integers(0, 5, 60), rng.random(60) < 0.3
    seen = FailurePrediction.of(PRIOR, episodes(starts, ~failed))
    pairs = np.sign(starts[failed][:, None] - starts[~failed][None, :])
    assert seen.auroc == pytest.approx(np.mean((pairs + 1) / 2))
    assert "observation does not surely tell" in seen.sentence()
    np.testing.assert_array_equal(seen.failed, failed)
    np.testing.assert_array_equal(seen.uncertainty, starts)


@pytest.mark.parametrize(
    ("prior", "successes"),
    [
        (UniformPrior(2, 1), [1, 1, 1, 0, 0, 0]),
        (PRIOR, [1, 1, 1, 1, 0, 0]),
        (PRIOR, [0, 0, 0, 0, 1, 1]),
        (PRIOR, [np.nan] * 6),
    ],
)
def test_there_may_be_nothing_to_foretell(prior, successes):
    assert FailurePrediction.of(prior, episodes(range(6), successes)) is None


def test_a_user_is_told_why_there_is_nothing_to_say():
    assert "there were 2 and 4" in told(PRIOR, episodes(range(6), [1, 1, 1, 1, 0, 0]))
    assert "uniform" in told(UniformPrior(2, 1), episodes(range(6), [1, 1, 1, 0, 0, 0]))
    assert "AUROC" in told(PRIOR, episodes(range(6), [1, 1, 1, 0, 0, 0]))


def test_a_gaussian_process_foretells_where_no_demonstration_went():
    from nppac_tf import priors
    from nppac_tf.config import PriorConfig
    from nppac_tf.demonstrations import Demonstrations

    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (80, 2)).astype(np.float32)
    data = Demonstrations(states, 0.5 * states[:, :1], [40, 80], name="near")
    prior = priors.fit_prior(data, PriorConfig(prior="exact_gp", max_fit_iterations=5))
    near, far = rng.uniform(-1, 1, 20), rng.uniform(3, 4, 5)
    seen = FailurePrediction.of(prior, episodes([*near, *far], [1] * 20 + [0] * 5))
    assert seen.auroc == 1.0
    assert seen.failures(0.2, surest=False) == (5, 5)
    assert tf.reduce_all(seen.uncertainty[20:] > seen.uncertainty[:20].max())
