"""What all priors share; the uniform prior, and those that change another's statistics."""

import fakes
import numpy as np
import pytest
import tensorflow as tf
from gaussian_processes import CLASSES, D, N, P, example_demonstrations, fitted, queries

from nppac_tf.priors import (
    BoundedPrior,
    FixedScalePrior,
    GPPrior,
    PriorStatistics,
    RescaledPrior,
    UniformPrior,
)

# How each wrapper changes location and scale.
WRAPPERS = {
    "factor": (lambda prior: RescaledPrior(prior, 0.5), lambda m, s: (m, 0.5 * s)),
    "floor": (
        lambda prior: RescaledPrior(prior, 0.5, [0.2, 0.4]),
        lambda m, s: (m, np.maximum(0.5 * s, [0.2, 0.4])),
    ),
    "fixed": (
        lambda prior: FixedScalePrior(prior, 0.02),
        lambda m, s: (m, np.full(s.shape, 0.02, np.float32)),
    ),
    "bounded": (
        lambda prior: BoundedPrior(prior, [4.0, 5.0], 5.5),
        lambda m, s: (np.clip(m, [4.0, 5.0], 5.5), s),
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("cls", CLASSES)
def test_a_wrapper_changes_the_statistics_and_keeps_the_uncertainty(cls, name):
    prior, (wrap, change) = fitted(cls), WRAPPERS[name]
    wrapped = wrap(prior)
    plain = [part.numpy() for part in prior.statistics(queries())]
    expected = change(*plain)
    assert any((one != other).any() for one, other in zip(plain, expected, strict=True))
    statistics, uncertainty = wrapped.predict(queries())
    compiled = tf.function(wrapped.statistics)(queries())
    for found in (statistics, compiled, wrapped.statistics(queries())):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
    for found in (uncertainty, wrapped.uncertainty(queries())):
        np.testing.assert_allclose(found, prior.uncertainty(queries()), rtol=1e-6)
    data, folds = example_demonstrations(), np.arange(N) // 10 % 3
    np.testing.assert_array_equal(
        wrapped.held_out_uncertainty(data, folds), prior.held_out_uncertainty(data, folds)
    )
    assert (wrapped.observation_size, wrapped.action_size) == (D, P)
    with pytest.raises(ValueError, match="must have a scale to change; got UniformPrior"):
        wrap(UniformPrior(D, P))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: RescaledPrior(p, 0.0), "factor must be positive and floor at least 0"),
        (lambda p: RescaledPrior(p, -1.0), "factor must be positive and floor at least 0"),
        (lambda p: RescaledPrior(p, floor=-0.1), "factor must be positive and floor at least 0"),
        (lambda p: RescaledPrior(p, floor=[0.1, -0.1]), "floor at least 0"),
        (lambda p: FixedScalePrior(p, 0.0), "scale must be positive and finite; got 0.0"),
        (lambda p: FixedScalePrior(p, float("inf")), "scale must be positive and finite"),
        (lambda p: FixedScalePrior(p, float("nan")), "scale must be positive and finite"),
    ],
)
def test_scales_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(fitted(GPPrior))


def test_by_default_the_uncertainty_is_the_mean_log_scale():
    class Wide(fakes.LinearPrior):
        def statistics(self, observations):
            scale = tf.stack([tf.fill([2], 2.0), tf.constant([8.0, 0.5])], axis=1)
            return PriorStatistics(tf.zeros([2, 2]), scale)

    statistics, uncertainty = Wide(D, 2).predict(tf.zeros([2, D]))
    np.testing.assert_allclose(uncertainty, [np.log(4.0), 0.0], atol=1e-6)
    assert statistics._fields == ("location", "scale")


def test_the_uniform_prior_has_log_density_zero_and_minus_the_entropy_for_a_divergence():
    prior = UniformPrior(D, P)
    statistics = prior.statistics(tf.ones([5, D]))
    assert statistics.location.shape == statistics.scale.shape == [5, P]
    np.testing.assert_array_equal(prior.log_prob(statistics, tf.ones([5, P])), np.zeros(5))
    kl = prior.kl_divergence(statistics, tf.ones([5, P]), 0.5 * tf.ones([5, P]))
    entropy = P * (0.5 * np.log(2 * np.pi * np.e) + np.log(0.5))
    np.testing.assert_allclose(kl, -entropy * np.ones(5), rtol=1e-6)
    with pytest.raises(NotImplementedError):
        prior.distribution(tf.ones([5, D]))
