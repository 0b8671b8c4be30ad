"""What Gaussian-process priors predict, beside oracles written from the formulas."""

import gpflow
import numpy as np
import pytest
import reference
import tensorflow as tf
from gaussian_processes import (
    CLASSES,
    D,
    P,
    example_demonstrations,
    fitted_examples,
    made_up,
    queries,
)

from nppac_tf.config import KERNELS
from nppac_tf.priors import ExactGPPrior, SparseGPPrior
from nppac_tf.priors.gaussian_process import JITTER, _SymmetricMatrix


@pytest.fixture
def demonstrations():
    return example_demonstrations()


@pytest.fixture
def fitted():
    return fitted_examples()


def oracle(prior, states):
    """The standardized posterior at standardized states, from `prior.state()`."""
    settings, arrays = prior.state()
    hyperparameters = (arrays["kernel_variance"], arrays["lengthscales"])
    if isinstance(prior, ExactGPPrior):
        return reference.exact_posterior(
            settings["kernel"],
            arrays["centers"],
            arrays["actions"] - arrays["mean"],
            states,
            *hyperparameters,
            arrays["noise_variance"] + JITTER,
        )
    return reference.sparse_posterior(
        settings["kernel"], arrays["centers"], *q_of_u(prior), states, *hyperparameters, JITTER
    )


def q_of_u(prior):
    """Mean and covariance of the process at the inducing points: the prior keeps them whitened."""
    settings, arrays = prior.state()
    return reference.unwhiten(
        settings["kernel"],
        arrays["centers"],
        arrays["q_mean"],
        arrays["q_covariance"],
        arrays["kernel_variance"],
        arrays["lengthscales"],
        JITTER,
    )


def oracle_statistics(prior, observations):
    settings, arrays = prior.state()
    states = (observations - arrays["observation_shift"]) / arrays["observation_scale"]
    mean, variance = oracle(prior, states)
    if settings["observation_noise"]:
        variance = variance + arrays["noise_variance"]
    location = arrays["action_shift"] + arrays["action_scale"] * (arrays["mean"] + mean)
    return location, np.sqrt(variance)[:, np.newaxis] * arrays["action_scale"]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("cls", CLASSES)
def test_the_posterior_is_the_oracles(cls, kernel):
    prior = made_up(cls, kernel)
    states = queries()
    mean, variance = prior._posterior(tf.constant(states))
    expected_mean, expected_variance = oracle(prior, states)
    assert mean.dtype == variance.dtype == tf.float64
    assert np.ptp(expected_variance) > 0.1
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("observation_noise", [True, False])
@pytest.mark.parametrize("cls", CLASSES)
def test_the_statistics_are_the_oracles_in_the_actions_units(cls, observation_noise):
    prior = made_up(cls, "matern52", observation_noise)
    observations = queries().astype(np.float32)
    location, scale = prior.statistics(tf.constant(observations))
    expected_location, expected_scale = oracle_statistics(prior, observations)
    assert location.dtype == scale.dtype == tf.float32
    np.testing.assert_allclose(location, expected_location, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scale, expected_scale, rtol=1e-5)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_fitted_posterior_is_the_oracles(cls, fitted, demonstrations):
    prior = fitted[cls]
    observations = demonstrations.observations[::7] + np.float32(0.1)
    expected_location, expected_scale = oracle_statistics(prior, observations.astype(np.float64))
    location, scale = prior.statistics(tf.constant(observations))
    np.testing.assert_allclose(location, expected_location, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(scale, expected_scale, rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_sparse_posterior_is_gpflows(kernel):
    prior = made_up(SparseGPPrior, kernel)
    _, arrays = prior.state()
    kernels = {
        "rbf": gpflow.kernels.RBF,
        "matern12": gpflow.kernels.Matern12,
        "matern32": gpflow.kernels.Matern32,
        "matern52": gpflow.kernels.Matern52,
    }
    q_mean, q_covariance = q_of_u(prior)
    model = gpflow.models.SVGP(
        kernels[kernel](arrays["kernel_variance"], arrays["lengthscales"]),
        gpflow.likelihoods.Gaussian(arrays["noise_variance"]),
        arrays["centers"],
        mean_function=gpflow.functions.Constant(arrays["mean"]),
        num_latent_gps=P,
        q_mu=q_mean,
        q_sqrt=np.stack([np.linalg.cholesky(q_covariance)] * P),
        whiten=False,
    )
    states = queries()
    expected_mean, expected_variance = model.predict_f(states)
    mean, variance = prior._posterior(tf.constant(states))
    np.testing.assert_allclose(mean + arrays["mean"], expected_mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, expected_variance[:, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cls", CLASSES)
def test_without_noise_the_deviation_is_the_functions(cls):
    with_noise = made_up(cls, "rbf", observation_noise=True)
    without = made_up(cls, "rbf", observation_noise=False)
    observations = tf.constant(queries(), tf.float32)
    _, arrays = without.state()
    difference = with_noise.statistics(observations).scale ** 2
    difference -= without.statistics(observations).scale ** 2
    expected = arrays["noise_variance"] * arrays["action_scale"] ** 2
    np.testing.assert_allclose(difference, np.tile(expected, (25, 1)), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("observation_noise", [True, False])
@pytest.mark.parametrize("cls", CLASSES)
def test_the_uncertainty_is_the_log_deviation_of_the_function(cls, observation_noise):
    prior = made_up(cls, "matern52", observation_noise)
    observations = queries().astype(np.float32)
    _, arrays = prior.state()
    states = (observations - arrays["observation_shift"]) / arrays["observation_scale"]
    _, variance = oracle(prior, states)
    uncertainty = prior.uncertainty(tf.constant(observations))
    assert uncertainty.dtype == tf.float32
    np.testing.assert_allclose(uncertainty, 0.5 * np.log(variance), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 127, 128, 300])
def test_a_symmetric_matrix_kept_by_half_is_the_whole(size):
    rng = np.random.default_rng(size)
    matrix = rng.normal(size=(size, size))
    matrix += matrix.T
    halved = _SymmetricMatrix(matrix)
    vectors = rng.normal(size=(size, 7))
    expected = np.einsum("ib,ij,jb->b", vectors, matrix, vectors)
    np.testing.assert_allclose(halved.quadratic_form(tf.constant(vectors)), expected, rtol=1e-9)
    np.testing.assert_array_equal(halved.numpy(), matrix)
    if size == 300:
        kept = sum(variable.shape.num_elements() for variable in halved.variables)
        assert kept < 0.75 * size**2


def test_a_posterior_over_more_points_than_a_block_is_the_oracles():
    prior = made_up(ExactGPPrior, "matern32", num_centers=200)
    states = queries()
    mean, variance = prior._posterior(tf.constant(states))
    expected_mean, expected_variance = oracle(prior, states)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, expected_variance, rtol=1e-6, atol=1e-6)


def test_a_noiseless_process_without_noise_keeps_a_positive_deviation():
    prior = made_up(ExactGPPrior, "rbf", observation_noise=False)
    settings, arrays = prior.state()
    prior = ExactGPPrior.from_state(settings, {**arrays, "noise_variance": np.array(0.0)})
    states = arrays["centers"] * arrays["observation_scale"] + arrays["observation_shift"]
    scale = prior.statistics(tf.constant(states, tf.float32)).scale
    assert np.isfinite(scale).all()
    assert (scale > 0).numpy().all()


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("cls", CLASSES)
def test_compiled_statistics_are_the_eager_ones(cls, jit_compile):
    prior = made_up(cls, "matern32")
    observations = tf.constant(queries(), tf.float32)
    compiled = tf.function(prior.statistics, jit_compile=jit_compile)(observations)
    for one, other in zip(compiled, prior.statistics(observations), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_distribution_is_a_batch_of_gaussians_over_actions(cls):
    prior = made_up(cls, "matern12")
    observations = tf.constant(queries(), tf.float32)
    distribution = prior.distribution(observations)
    assert distribution.batch_shape == [25]
    assert distribution.event_shape == [P]
    statistics = prior.statistics(observations)
    np.testing.assert_allclose(distribution.mean(), statistics.location)
    np.testing.assert_allclose(distribution.stddev(), statistics.scale)
    actions = tf.ones([25, P])
    np.testing.assert_allclose(
        prior.log_prob(statistics, actions), distribution.log_prob(actions), rtol=1e-4
    )
    location, scale = tf.zeros([25, P]), 0.3 * tf.ones([25, P])
    expected = [
        reference.gaussian_kl(*(np.asarray(a, np.float64) for a in row))
        for row in zip(location, scale, *statistics, strict=True)
    ]
    np.testing.assert_allclose(
        prior.kl_divergence(statistics, location, scale), expected, rtol=1e-4
    )


@pytest.mark.parametrize("cls", CLASSES)
def test_nothing_in_a_prior_is_trainable(cls):
    prior = made_up(cls, "matern12")
    assert prior.observation_size == D
    assert prior.action_size == P
    assert not prior.trainable_variables
    assert set(prior.summary) == {"noise_deviation", "median_lengthscale"}
