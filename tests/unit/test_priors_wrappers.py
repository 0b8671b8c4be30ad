"""What all priors share; the uniform prior, and those that change another's deviation."""

import fakes
import numpy as np
import pytest
import tensorflow as tf
from gaussian_processes import (
    CLASSES,
    D,
    P,
    example_demonstrations,
    fitted_examples,
    len_of,
    made_up,
    queries,
)

from nppac_tf import priors
from nppac_tf.config import PriorConfig
from nppac_tf.priors import (
    ExactGPPrior,
    FixedScalePrior,
    PriorStatistics,
    RescaledPrior,
    SparseGPPrior,
    UniformPrior,
)


@pytest.fixture
def demonstrations():
    return example_demonstrations()


@pytest.fixture
def fitted():
    return fitted_examples()


@pytest.mark.parametrize("factor", [1.0, 0.3])
@pytest.mark.parametrize("cls", [*CLASSES, None])
def test_a_prediction_is_statistics_and_uncertainty(cls, factor):
    prior = made_up(cls, "rbf") if cls else fakes.LinearPrior(D, P)
    prior = RescaledPrior(prior, factor, 0.2) if factor != 1 else prior
    observations = tf.constant(queries(), tf.float32)
    statistics, uncertainty = prior.predict(observations)
    for one, other in zip(statistics, prior.statistics(observations), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(uncertainty, prior.uncertainty(observations))
    assert uncertainty.shape == [25]


def test_by_default_the_uncertainty_is_the_mean_log_deviation():
    class Wide(fakes.LinearPrior):
        def statistics(self, observations):
            scale = tf.stack([tf.fill([2], 2.0), tf.constant([8.0, 0.5])], axis=1)
            return PriorStatistics(tf.zeros([2, 2]), scale)

    uncertainty = Wide(D, 2).uncertainty(tf.zeros([2, D]))
    np.testing.assert_allclose(uncertainty, [np.log(4.0), 0.0], atol=1e-6)


def test_the_uniform_prior_has_log_density_zero_and_minus_the_entropy_for_a_divergence():
    prior = UniformPrior(D, P)
    statistics = prior.statistics(tf.ones([5, D]))
    assert statistics.location.shape == statistics.scale.shape == [5, P]
    np.testing.assert_array_equal(prior.log_prob(statistics, tf.ones([5, P])), np.zeros(5))
    scale = 0.5 * np.ones([5, P])
    kl = prior.kl_divergence(statistics, tf.ones([5, P]), tf.constant(scale, tf.float32))
    entropy = P * (0.5 * np.log(2 * np.pi * np.e) + np.log(0.5))
    np.testing.assert_allclose(kl, -entropy * np.ones(5), rtol=1e-6)
    with pytest.raises(NotImplementedError):
        prior.distribution(tf.ones([5, D]))


def test_a_rescaled_prior_multiplies_then_floors_the_deviation():
    prior = made_up(ExactGPPrior, "matern52")
    observations = tf.constant(queries(), tf.float32)
    location, scale = prior.statistics(observations)
    floor = float(np.median(scale))
    rescaled = RescaledPrior(prior, factor=0.5, floor=floor)
    statistics = rescaled.statistics(observations)
    np.testing.assert_array_equal(statistics.location, location)
    np.testing.assert_allclose(statistics.scale, np.maximum(0.5 * scale, floor), rtol=1e-6)
    assert 0 < np.mean(statistics.scale.numpy() == floor) < 1
    np.testing.assert_allclose(rescaled.distribution(observations).stddev(), statistics.scale)
    assert (rescaled.observation_size, rescaled.action_size) == (D, P)


@pytest.mark.parametrize("arguments", [{"factor": 0.0}, {"factor": -1.0}, {"floor": -0.1}])
def test_a_rescaling_out_of_range_is_refused(arguments, fitted):
    with pytest.raises(ValueError, match="factor must be positive and floor at least 0"):
        RescaledPrior(fitted[ExactGPPrior], **arguments)


def test_a_uniform_prior_has_nothing_to_rescale(demonstrations):
    with pytest.raises(ValueError, match="prior must have a deviation to rescale"):
        RescaledPrior(UniformPrior(D, P), factor=0.5)
    config = PriorConfig(prior="uniform", scale_factor=0.3, scale_floor=0.05)
    prior = priors.fit_prior(demonstrations, config)
    actions = tf.constant(np.random.default_rng(0).normal(size=[4, P]), tf.float32)
    statistics = prior.statistics(tf.zeros([4, D]))
    np.testing.assert_array_equal(prior.log_prob(statistics, actions), np.zeros(4))


def test_a_fixed_scale_keeps_the_location_alone(fitted, demonstrations):
    prior = fitted[SparseGPPrior]
    observations = tf.constant(queries(), tf.float32)
    fixed = FixedScalePrior(prior, 0.02)
    folds = np.arange(len_of(demonstrations)) % 3
    for statistics in (fixed.statistics(observations), fixed.predict(observations)[0]):
        np.testing.assert_array_equal(statistics.location, prior.statistics(observations).location)
        np.testing.assert_array_equal(statistics.scale, np.full([25, P], 0.02, np.float32))
    for uncertainty in (fixed.uncertainty(observations), fixed.predict(observations)[1]):
        np.testing.assert_array_equal(uncertainty, prior.uncertainty(observations))
    np.testing.assert_array_equal(
        fixed.held_out_uncertainty(demonstrations, folds),
        prior.held_out_uncertainty(demonstrations, folds),
    )
    compiled = tf.function(fixed.statistics, jit_compile=True)(observations)
    np.testing.assert_array_equal(compiled.scale, np.full([25, P], 0.02, np.float32))


@pytest.mark.parametrize("scale", [0.0, -0.1, float("inf"), float("nan")])
def test_a_fixed_scale_out_of_range_is_refused(scale, fitted):
    with pytest.raises(ValueError, match="scale must be positive and finite"):
        FixedScalePrior(fitted[ExactGPPrior], scale)


def test_a_uniform_prior_has_no_scale_to_fix():
    with pytest.raises(ValueError, match="prior must have a deviation to rescale"):
        FixedScalePrior(UniformPrior(D, P), 0.1)
    uniform = UniformPrior(D, P)
    assert priors.rescale(uniform, PriorConfig(prior="uniform", fixed_scale=0.1)) is uniform


def test_statistics_are_a_pair_of_location_and_scale():
    assert PriorStatistics._fields == ("location", "scale")
