import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from nppac_tf.priors import PriorStatistics, scores


def test_log_likelihood_and_error_are_those_of_normal_distributions():
    rng = np.random.default_rng(0)
    actions, location = rng.normal(size=(2, 7, 3))
    scale = rng.uniform(0.1, 3.0, size=(7, 3))
    expected = [
        stats.multivariate_normal(m, np.diag(s**2)) for m, s in zip(location, scale, strict=True)
    ]
    np.testing.assert_allclose(
        scores.log_likelihood(actions, location, scale),
        [normal.logpdf(action) for normal, action in zip(expected, actions, strict=True)],
    )
    # Errors 3, 4, 0, 0: sqrt(25 / 4).
    error = scores.root_mean_squared_error(np.array([[3.0, 0], [1, 1]]), np.array([[0, 4], [1, 1]]))
    assert error == pytest.approx(2.5)


def test_coverage_counts_components_inside_the_intervals():
    # The 50, 90 and 99 % intervals reach 0.674, 1.645 and 2.576 standard deviations.
    distances = np.array([[0.6, -0.7], [1.6, -1.7], [2.5, -2.6], [0.0, -0.1]])
    location, scale = np.full((4, 2), 5.0), np.full((4, 2), 3.0)
    covered = scores.coverage(location + scale * distances, location, scale, (0.5, 0.9, 0.99))
    np.testing.assert_allclose(covered, [3 / 8, 5 / 8, 7 / 8])


def test_the_roc_area_counts_ordered_pairs_and_half_of_the_ties():
    assert scores.roc_area(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert scores.roc_area(np.array([1.0, 3.0]), np.array([2.0, 3.0])) == (1 + 0 + 1 + 0.5) / 4


def test_far_observations_are_far():
    rng = np.random.default_rng(0)
    observations = rng.normal(3.0, [1.0, 20.0, 0.0], size=(500, 3)).astype(np.float32)
    far = scores.far_observations(observations, seed=1, distance=10.0)
    moved = (far - observations) / observations.std(axis=0).clip(1e-9)
    np.testing.assert_allclose(np.abs(moved), np.tile([10.0, 10.0, 0.0], (500, 1)), rtol=1e-4)
    assert set(np.sign(moved[:, 0])) == {-1.0, 1.0}
    np.testing.assert_array_equal(far, scores.far_observations(observations, seed=1))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_prediction_in_batches_equals_prediction(batch_size):
    observations = np.arange(14, dtype=np.float32).reshape(7, 2)

    def statistics(states):
        assert len(states) <= batch_size
        location = tf.convert_to_tensor(states)[:, :1]
        return PriorStatistics(location, 2 * location)

    location, scale = scores.predict(statistics, observations, batch_size)
    np.testing.assert_array_equal(location, observations[:, :1])
    np.testing.assert_array_equal(scale, 2 * observations[:, :1])
