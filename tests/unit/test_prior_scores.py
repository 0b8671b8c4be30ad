import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from nppac_tf.priors import PriorStatistics, scores


def test_log_likelihood_by_hand():
    # log N(1; 0, 1) + log N(4; 2, 2) = (-1/2 - log sqrt(2 pi)) + (-1/2 - log 2 - log sqrt(2 pi))
    actions = np.array([[1.0, 4.0], [0.0, 2.0]])
    location = np.array([[0.0, 2.0], [0.0, 2.0]])
    scale = np.array([[1.0, 2.0], [1.0, 2.0]])
    constant = -math.log(2 * math.pi) - math.log(2)
    np.testing.assert_allclose(
        scores.log_likelihood(actions, location, scale), [constant - 1, constant]
    )


def test_root_mean_squared_error_by_hand():
    # Errors 3, 4, 0, 0: sqrt(25 / 4).
    actions = np.array([[3.0, 0.0], [1.0, 1.0]], np.float32)
    location = np.array([[0.0, 4.0], [1.0, 1.0]])
    assert scores.root_mean_squared_error(actions, location) == pytest.approx(2.5)


def test_coverage_by_hand():
    # The 50, 90 and 99 % intervals reach 0.674, 1.645 and 2.576 deviations.
    deviations = np.array([[0.6, -0.7], [1.6, -1.7], [2.5, -2.6], [0.0, -0.1]])
    location, scale = np.full((4, 2), 5.0), np.full((4, 2), 3.0)
    covered = scores.coverage(location + scale * deviations, location, scale, (0.5, 0.9, 0.99))
    np.testing.assert_allclose(covered, [3 / 8, 5 / 8, 7 / 8])


@given(st.integers(0, 1000), st.floats(0.1, 10.0))
def test_coverage_of_a_calibrated_prior_is_its_level(seed, scale):
    rng = np.random.default_rng(seed)
    location, scales = rng.normal(size=(2000, 2)), np.full((2000, 2), scale)
    actions = rng.normal(location, scales)
    covered = scores.coverage(actions, location, scales, (0.5, 0.9))
    np.testing.assert_allclose(covered, [0.5, 0.9], atol=0.05)


def test_far_observations_are_far():
    rng = np.random.default_rng(0)
    observations = rng.normal(3.0, [1.0, 20.0, 0.0], size=(500, 3)).astype(np.float32)
    far = scores.far_observations(observations, seed=1, num_deviations=10.0)
    moved = np.abs(far - observations) / observations.std(axis=0).clip(1e-9)
    np.testing.assert_allclose(moved[:, :2], 10.0, rtol=1e-4)
    assert (far[:, 2] == observations[:, 2]).all()
    assert far.dtype == np.float32
    assert set(np.sign(far - observations)[:, 0]) == {-1.0, 1.0}
    np.testing.assert_array_equal(far, scores.far_observations(observations, seed=1))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_prediction_in_batches_is_prediction(batch_size):
    observations = np.arange(14, dtype=np.float32).reshape(7, 2)
    sizes = []

    def statistics(states):
        sizes.append(len(states))
        location = tf.convert_to_tensor(states)[:, :1]
        return PriorStatistics(location, 2 * location)

    location, scale = scores.predict(statistics, observations, batch_size)
    np.testing.assert_array_equal(location, observations[:, :1])
    np.testing.assert_array_equal(scale, 2 * observations[:, :1])
    assert max(sizes) <= batch_size
    assert sum(sizes) == 7
