import numpy as np
import pytest
import reference
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nppac_tf import divergences

SIZE = 3
locations = hnp.arrays(np.float64, SIZE, elements=st.floats(-3, 3))
scales = hnp.arrays(np.float64, SIZE, elements=st.floats(0.05, 4))
quick = settings(max_examples=50)


@quick
@given(locations, locations, scales)
def test_log_density_is_the_oracles(x, location, scale):
    expected = reference.gaussian_log_density(x, location, scale)
    actual = divergences.gaussian_log_prob(*map(tf.constant, (x, location, scale)))
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


@quick
@given(locations, scales, locations, scales)
def test_kl_is_the_oracles_and_not_negative(location, scale, prior_location, prior_scale):
    arguments = (location, scale, prior_location, prior_scale)
    actual = divergences.gaussian_kl(*map(tf.constant, arguments))
    np.testing.assert_allclose(actual, reference.gaussian_kl(*arguments), rtol=1e-9, atol=1e-9)
    assert actual >= -1e-12


@quick
@given(locations, scales, st.integers(0, 2 * SIZE - 1), st.sampled_from([-0.1, 0.1]))
def test_kl_is_zero_only_for_equal_distributions(location, scale, index, change):
    location, scale = tf.constant(location), tf.constant(scale)
    assert divergences.gaussian_kl(location, scale, location, scale) == 0
    changes = change * np.eye(2 * SIZE)[index]
    other = location + changes[:SIZE], scale * (1 + changes[SIZE:])
    assert divergences.gaussian_kl(location, scale, *other) > 1e-5


def test_kl_is_the_mean_of_the_log_ratio():
    arguments = [np.array(a) for a in ([0.5, -1.0], [0.4, 1.2], [0.0, -0.7], [0.6, 0.8])]
    estimate, error = reference.monte_carlo_kl(*arguments, num_samples=200_000, seed=0)
    actual = divergences.gaussian_kl(*map(tf.constant, arguments))
    assert abs(actual - estimate) < 4 * error
    assert error < 0.01


def test_kl_is_taken_from_the_first_to_the_second():
    zero, one, two = (tf.constant([float(value)]) for value in range(3))
    # KL(N(0, 1) || N(0, 4)) = log 2 + 1/8 - 1/2, and the other way 2 - log 2 - 1/2.
    narrow_to_wide = float(divergences.gaussian_kl(zero, one, zero, two))
    wide_to_narrow = float(divergences.gaussian_kl(zero, two, zero, one))
    assert narrow_to_wide == pytest.approx(np.log(2) - 0.375, rel=1e-5)
    assert wide_to_narrow == pytest.approx(1.5 - np.log(2), rel=1e-5)


@quick
@given(scales)
def test_entropy_is_minus_the_mean_log_density(scale):
    # E[(x - m)^2 / s^2] = 1, so the entropy is minus the log density at m + s.
    scale = tf.constant(scale)
    expected = -divergences.gaussian_log_prob(scale, tf.zeros_like(scale), scale)
    np.testing.assert_allclose(divergences.gaussian_entropy(scale), expected, rtol=1e-12)


def test_sums_run_over_the_last_axis_only():
    ones = tf.ones([4, 5, SIZE])
    assert divergences.gaussian_log_prob(ones, ones, ones).shape == [4, 5]
    assert divergences.gaussian_kl(ones, ones, ones, ones).shape == [4, 5]
    assert divergences.gaussian_entropy(ones).shape == [4, 5]
