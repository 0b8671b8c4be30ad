import dataclasses
import json
import os
import stat

import fakes
import gpflow
import numpy as np
import pytest
import reference
import tensorflow as tf

from nppac_tf import priors
from nppac_tf.config import KERNELS, PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors import (
    ExactGPPrior,
    FixedScalePrior,
    PriorStatistics,
    RescaledPrior,
    SparseGPPrior,
    UniformPrior,
    gaussian_process,
)
from nppac_tf.priors.gaussian_process import JITTER, _SymmetricMatrix

D, P = 3, 2
NOISE = 0.1
CLASSES = [ExactGPPrior, SparseGPPrior]
QUICK = PriorConfig(num_inducing_points=60, num_hyperparameter_points=60, max_fit_iterations=15)


def demonstrated(observations, seed=0):
    """Actions of a smooth function of the observations, with noise of deviation NOISE.

    They are in other units than 1, and most observations give a low first action, so that the
    constant mean of the process is not that of the data.
    """
    noise = NOISE * np.random.default_rng(seed).normal(size=(len(observations), P))
    first = np.tanh(3 * observations[:, 0] - 2)
    second = np.sin(2 * observations[:, 1]) + 0.5 * observations[:, 2]
    return 5.0 + 3.0 * (np.stack([first, second], axis=1) + noise)


@pytest.fixture(scope="module")
def demonstrations():
    rng = np.random.default_rng(1)
    observations = np.concatenate([rng.normal(0, 0.3, (80, D)), rng.normal(1, 1, (20, D))])
    observations = observations * [1.0, 2.0, 0.5] + [0.0, 10.0, -3.0]
    actions = demonstrated((observations - [0.0, 10.0, -3.0]) / [1.0, 2.0, 0.5])
    return Demonstrations.from_episodes(
        [(observations[:50], actions[:50]), (observations[50:], actions[50:])]
    )


@pytest.fixture(scope="module")
def fitted(demonstrations):
    return {cls: cls.fit(demonstrations, QUICK) for cls in CLASSES}


def made_up(cls, kernel, observation_noise=True, seed=0, num_centers=40):
    """A prior of random parameters, which no fit has tuned."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_centers, D))
    arrays = {
        "kernel_variance": np.array(1.7),
        "lengthscales": np.array([0.8, 1.5, 2.5]),
        "noise_variance": np.array(0.05),
        "mean": np.array([0.4, -0.9]),
        "observation_shift": np.array([1.0, -2.0, 0.0]),
        "observation_scale": np.array([2.0, 0.5, 1.0]),
        "action_shift": np.array([0.3, -0.1]),
        "action_scale": np.array([0.2, 3.0]),
        "centers": centers,
    }
    if cls is ExactGPPrior:
        arrays["actions"] = rng.normal(size=(num_centers, P))
    else:
        root = 0.2 * rng.normal(size=(num_centers, num_centers))
        arrays["q_mean"] = rng.normal(size=(num_centers, P))
        arrays["q_covariance"] = 0.05 * np.eye(num_centers) + root @ root.T
    settings = {"kernel": kernel, "observation_noise": observation_noise}
    return cls.from_state(settings, arrays)


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


def queries(size=25, seed=9):
    return np.random.default_rng(seed).normal(0, 1.5, size=(size, D))


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


def test_the_sparse_prior_with_all_points_inducing_is_the_exact_one(demonstrations):
    size = len_of(demonstrations)
    # A rough kernel, for which no point is superfluous.
    config = dataclasses.replace(QUICK, kernel="matern12", num_inducing_points=size)
    sparse, exact = (
        SparseGPPrior.fit(demonstrations, config),
        ExactGPPrior.fit(demonstrations, config),
    )
    _, arrays = sparse.state()
    assert len(arrays["centers"]) == size
    assert np.abs(arrays["mean"]).max() > 0.02  # or an error in its handling would not show
    observations = tf.constant(demonstrations.observations + np.float32(0.05))
    for one, other in zip(
        sparse.statistics(observations), exact.statistics(observations), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_superfluous_points_do_not_become_inducing_points(demonstrations):
    twice = Demonstrations.from_episodes(
        2 * [(demonstrations.observations, demonstrations.actions)]
    )
    config = dataclasses.replace(QUICK, num_inducing_points=2 * len_of(demonstrations))
    _, arrays = SparseGPPrior.fit(twice, config).state()
    assert len(arrays["centers"]) <= len_of(demonstrations)


def len_of(demonstrations):
    return len(demonstrations.observations)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_fit_finds_function_and_noise(cls, fitted, demonstrations):
    prior = fitted[cls]
    location, scale = prior.statistics(tf.constant(demonstrations.observations))
    standard_error = np.std(location - demonstrations.actions, axis=0)
    np.testing.assert_allclose(standard_error, 3 * NOISE, rtol=0.35)
    np.testing.assert_allclose(np.mean(scale, axis=0), 3 * NOISE, rtol=0.5)
    unit = prior.state()[1]["action_scale"].mean()
    assert prior.summary["noise_deviation"] == pytest.approx(3 * NOISE / unit, rel=0.35)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_deviation_is_small_at_demonstrations_and_the_kernels_far_away(
    cls, fitted, demonstrations
):
    prior = fitted[cls]
    _, arrays = prior.state()
    far = tf.constant(demonstrations.observations[:5] + np.float32(1e4))
    location, scale = prior.statistics(far)
    total = np.sqrt(arrays["kernel_variance"] + arrays["noise_variance"])
    expected = arrays["action_shift"] + arrays["action_scale"] * arrays["mean"]
    np.testing.assert_allclose(scale, np.tile(total * arrays["action_scale"], (5, 1)), rtol=1e-5)
    np.testing.assert_allclose(location, np.tile(expected, (5, 1)), rtol=1e-5)
    near = prior.statistics(tf.constant(demonstrations.observations)).scale
    assert np.median(near) < 0.35 * np.min(scale)


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
    assert set(prior.summary) == {"noise_deviation", "kernel_deviation", "median_lengthscale"}


def test_the_exact_prior_knows_points_on_which_it_was_not_tuned(demonstrations):
    config = PriorConfig(num_hyperparameter_points=15, max_fit_iterations=3)
    arrays = ExactGPPrior.fit(demonstrations, config).state()[1]
    assert len(arrays["centers"]) == len(arrays["actions"]) == len_of(demonstrations)


def test_the_sparse_prior_has_as_many_inducing_points_as_asked(demonstrations):
    config = PriorConfig(num_inducing_points=12, max_fit_iterations=3)
    centers = SparseGPPrior.fit(demonstrations, config).state()[1]["centers"]
    assert centers.shape == (12, D)
    assert len(np.unique(centers, axis=0)) == 12


@pytest.mark.parametrize("cls", CLASSES)
def test_the_same_fit_twice_is_the_same(cls, fitted, demonstrations):
    again = cls.fit(demonstrations, QUICK).state()[1]
    for name, array in fitted[cls].state()[1].items():
        np.testing.assert_allclose(again[name], array, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cls", CLASSES)
def test_duplicated_states_and_a_constant_dimension_do_not_break_a_fit(cls, demonstrations):
    observations = np.repeat(demonstrations.observations[:30], 3, axis=0)
    observations[:, 2] = 7.0
    actions = np.repeat(demonstrations.actions[:30], 3, axis=0)
    actions[:, 1] = -2.0
    degenerate = Demonstrations.from_episodes([(observations, actions)])
    prior = cls.fit(degenerate, dataclasses.replace(QUICK, max_fit_iterations=10))
    if cls is SparseGPPrior:
        centers = prior.state()[1]["centers"]
        assert len(np.unique(centers, axis=0)) == len(centers) <= 30
    location, scale = prior.statistics(tf.constant(observations))
    assert (scale > 0).numpy().all()
    np.testing.assert_allclose(location[:, 1], actions[:, 1], atol=1e-3)
    error = np.std(location[:, 0] - actions[:, 0])
    assert error < 0.7 * np.std(actions[:, 0])


def test_a_fit_that_is_not_finite_is_a_users_error(demonstrations, monkeypatch):
    class Result:
        fun, x, message = np.nan, np.zeros(2), "ABNORMAL"

    monkeypatch.setattr(gpflow.optimizers.Scipy, "minimize", lambda *_, **__: Result)
    for cls in CLASSES:
        with pytest.raises(UserError, match="not finite"):
            cls.fit(demonstrations, QUICK)


def test_the_global_configuration_of_gpflow_is_left_alone(demonstrations):
    with gpflow.config.as_context(gpflow.config.Config(float=np.float32, jitter=1e-3)):
        prior = SparseGPPrior.fit(demonstrations, dataclasses.replace(QUICK, max_fit_iterations=2))
        assert gpflow.config.default_float() == np.float32
        assert gpflow.config.default_jitter() == 1e-3
    assert prior.state()[1]["q_mean"].dtype == np.float64


@pytest.mark.parametrize("cls", CLASSES)
def test_gpflows_global_float32_breaks_neither_loading_nor_predicting(cls, fitted, demonstrations):
    observations = tf.constant(queries(), tf.float32)
    folds = np.arange(len_of(demonstrations)) % 3
    expected = fitted[cls].predict(observations)
    held_out = fitted[cls].held_out_uncertainty(demonstrations, folds)
    before = gpflow.config.config()
    gpflow.config.set_default_float(np.float32)
    gpflow.config.set_default_jitter(1e-3)
    try:
        loaded = cls.from_state(*fitted[cls].state())
        statistics, uncertainty = loaded.predict(observations)
        np.testing.assert_array_equal(statistics.scale, expected[0].scale)
        np.testing.assert_array_equal(uncertainty, expected[1])
        np.testing.assert_array_equal(loaded.held_out_uncertainty(demonstrations, folds), held_out)
    finally:
        gpflow.config.set_config(before)


# The uniform and the rescaled prior.


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


# Files and cache.


def same_to_the_bit(one, other):
    observations = tf.constant(queries(), tf.float32)
    for a, b in zip(one.statistics(observations), other.statistics(observations), strict=True):
        np.testing.assert_array_equal(a, b)
    settings, arrays = one.state()
    other_settings, other_arrays = other.state()
    assert settings == other_settings
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        assert array.dtype == other_arrays[name].dtype
        np.testing.assert_array_equal(array, other_arrays[name])


@pytest.mark.parametrize("cls", CLASSES)
def test_a_loaded_prior_is_the_saved_one_to_the_bit(cls, fitted, tmp_path):
    path = tmp_path / "folder" / "prior.npz"
    priors.save_prior(fitted[cls], path)
    loaded = priors.load_prior(path)
    assert type(loaded) is cls
    same_to_the_bit(fitted[cls], loaded)
    assert os.listdir(path.parent) == ["prior.npz"]


def test_the_file_of_a_prior_is_for_all_whom_the_umask_lets_read(tmp_path):
    before = os.umask(0o022)
    try:
        priors.save_prior(UniformPrior(D, P), tmp_path / "prior.npz")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "prior.npz").stat().st_mode) == 0o644


def test_a_uniform_prior_can_be_saved(tmp_path):
    priors.save_prior(UniformPrior(D, P), tmp_path / "prior.npz")
    loaded = priors.load_prior(tmp_path / "prior.npz")
    assert isinstance(loaded, UniformPrior)
    assert (loaded.observation_size, loaded.action_size) == (D, P)


def test_a_rescaled_prior_is_not_saved(fitted, tmp_path):
    with pytest.raises(UserError, match="got RescaledPrior"):
        priors.save_prior(RescaledPrior(fitted[ExactGPPrior], 2.0), tmp_path / "prior.npz")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "prior.npz"
    priors.save_prior(made_up(ExactGPPrior, "rbf"), path)
    before = path.read_bytes()

    def broken(file, **_):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="no space left"):
        priors.save_prior(made_up(ExactGPPrior, "rbf", seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["prior.npz"]


def test_a_missing_file_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="no prior at"):
        priors.load_prior(tmp_path / "prior.npz")


def test_a_damaged_file_is_a_users_error(tmp_path):
    path = tmp_path / "prior.npz"
    priors.save_prior(made_up(ExactGPPrior, "rbf"), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"no prior", whole[: len(whole) // 2], whole[:-10]]
    for position in rng.integers(0, len(whole), 60):
        copy = bytearray(whole)
        copy[position] ^= 1 << rng.integers(8)
        damaged.append(bytes(copy))
    messages = []
    for content in damaged:
        path.write_bytes(content)
        try:
            loaded = priors.load_prior(path)
        except UserError as error:
            messages.append(str(error))
        else:  # What was changed says nothing, such as a member's date.
            same_to_the_bit(loaded, made_up(ExactGPPrior, "rbf"))
    assert len(messages) > 30
    assert all(str(path) in message for message in messages)


@pytest.mark.parametrize("broken", ["centers", "actions", "lengthscales"])
@pytest.mark.parametrize("how", ["missing", "nan", "shape"])
def test_a_file_whose_arrays_do_not_make_a_prior_is_a_users_error(tmp_path, broken, how):
    path = tmp_path / "prior.npz"
    priors.save_prior(made_up(ExactGPPrior, "rbf"), path)
    with np.load(path) as file:
        arrays = dict(file)
    if how == "missing":
        del arrays[broken]
    elif how == "nan":
        arrays[broken] = np.full_like(arrays[broken], np.nan)
    else:
        arrays[broken] = np.zeros(5)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"not a prior|no finite posterior"):
        priors.load_prior(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "version 0 of the format"),
        ({"class": "neural"}, "not a prior"),
        ({"settings": {"kernel": "cosine", "observation_noise": True}}, "not a prior"),
        ({"settings": {}}, "not a prior"),
        ({"settings": None}, "not a prior"),
    ],
)
def test_a_header_of_something_else_is_a_users_error(tmp_path, change, message):
    path = tmp_path / "prior.npz"
    priors.save_prior(made_up(SparseGPPrior, "rbf"), path)
    with np.load(path) as file:
        arrays = dict(file)
    header = {**json.loads(str(arrays.pop("header"))), **change}
    np.savez(path, header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(UserError, match=message):
        priors.load_prior(path)


class Malicious:
    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return os.mkdir, (self.witness,)


def test_a_pickle_in_a_file_is_refused_and_not_run(tmp_path):
    path, witness = tmp_path / "prior.npz", tmp_path / "witness"
    priors.save_prior(made_up(ExactGPPrior, "rbf"), path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["centers"] = np.array([Malicious(witness)], dtype=object)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="not a prior"):
        priors.load_prior(path)
    path.write_bytes(np.array([Malicious(witness)], dtype=object).dumps())
    with pytest.raises(UserError, match="not a prior"):
        priors.load_prior(path)
    assert not witness.exists()


@pytest.fixture
def fits(monkeypatch):
    """Replaces the exact fit by an instant one; the list grows by one per fit."""
    calls = []

    def fit(demonstrations, config):
        calls.append(config)
        return made_up(ExactGPPrior, config.kernel, config.observation_noise)

    monkeypatch.setattr(ExactGPPrior, "fit", fit)
    return calls


def test_the_cache_spares_a_second_fit(fits, demonstrations, tmp_path):
    first = priors.fit_prior(demonstrations, QUICK, tmp_path)
    second = priors.fit_prior(demonstrations, QUICK, tmp_path)
    assert len(fits) == 1
    same_to_the_bit(first, second)


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "rbf"},
        {"num_inducing_points": 61},
        {"max_fit_iterations": 16},
        {"observation_noise": False},
        {"prior_seed": 1},
    ],
)
def test_another_configuration_is_another_fit(fits, demonstrations, tmp_path, change):
    priors.fit_prior(demonstrations, QUICK, tmp_path)
    priors.fit_prior(demonstrations, dataclasses.replace(QUICK, **change), tmp_path)
    assert len(fits) == 2


def test_other_demonstrations_are_another_fit(fits, demonstrations, tmp_path):
    priors.fit_prior(demonstrations, QUICK, tmp_path)
    priors.fit_prior(demonstrations.select([0]), QUICK, tmp_path)
    assert len(fits) == 2


def test_a_rescaling_uses_the_same_fit(fits, demonstrations, tmp_path):
    plain = priors.fit_prior(demonstrations, QUICK, tmp_path)
    config = dataclasses.replace(QUICK, scale_factor=2.0, scale_floor=0.7)
    rescaled = priors.fit_prior(demonstrations, config, tmp_path)
    assert len(fits) == 1
    assert isinstance(rescaled, RescaledPrior)
    observations = tf.constant(queries(), tf.float32)
    expected = np.maximum(2.0 * plain.statistics(observations).scale, 0.7)
    np.testing.assert_allclose(rescaled.statistics(observations).scale, expected)


def test_a_fixed_scale_uses_the_same_fit(fits, demonstrations, tmp_path):
    priors.fit_prior(demonstrations, QUICK, tmp_path)
    config = dataclasses.replace(QUICK, fixed_scale=0.05)
    fixed = priors.fit_prior(demonstrations, config, tmp_path)
    assert len(fits) == 1
    assert isinstance(fixed, FixedScalePrior)
    scale = fixed.statistics(tf.constant(queries(), tf.float32)).scale
    np.testing.assert_array_equal(scale, np.full([25, P], 0.05, np.float32))


@pytest.mark.parametrize("change", [{"scale_floor": 0.1}, {"scale_factor": 0.5}])
def test_either_rescaling_alone_wraps_the_prior(fits, demonstrations, change):
    config = dataclasses.replace(QUICK, **change)
    assert isinstance(priors.fit_prior(demonstrations, config), RescaledPrior)
    assert isinstance(priors.fit_prior(demonstrations, QUICK), ExactGPPrior)


def test_a_damaged_file_in_the_cache_is_replaced(fits, demonstrations, tmp_path):
    first = priors.fit_prior(demonstrations, QUICK, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"damaged")
    same_to_the_bit(first, priors.fit_prior(demonstrations, QUICK, tmp_path))
    assert len(fits) == 2
    same_to_the_bit(first, priors.load_prior(path))


def test_without_a_cache_nothing_is_written(fits, demonstrations, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    priors.fit_prior(demonstrations, QUICK)
    assert not list(tmp_path.iterdir())


def test_the_configuration_names_the_class(demonstrations):
    config = PriorConfig(prior="uniform")
    uniform = priors.fit_prior(demonstrations, config)
    assert isinstance(uniform, UniformPrior)
    assert (uniform.observation_size, uniform.action_size) == (D, P)
    exact = PriorConfig(prior="exact_gp", num_hyperparameter_points=10, max_fit_iterations=1)
    assert isinstance(priors.fit_prior(demonstrations, exact), ExactGPPrior)


@pytest.mark.parametrize(
    ("prior", "num_points", "name", "line"),
    [
        ("gp", 5000, "exact_gp", "exact Gaussian process on all 5,000 points, since 5,000 points "
         "are at most 5,000"),
        ("gp", 5001, "sparse_gp", "sparse Gaussian process with 500 inducing points, since 5,001 "
         "points are more than 5,000"),
        ("exact_gp", 5001, "exact_gp", "exact Gaussian process on all 5,001 points, as asked"),
        ("sparse_gp", 90, "sparse_gp", "sparse Gaussian process with 90 inducing points, as asked"),
        ("gaussian_network", 90, "gaussian_network", "gaussian network, as asked"),
    ],
)  # fmt: skip
def test_the_number_of_points_decides_between_exact_and_sparse(prior, num_points, name, line):
    assert priors.chosen_class(PriorConfig(prior=prior), num_points) == (name, line)


def test_an_exact_process_that_outgrows_the_memory_is_a_users_error(monkeypatch):
    monkeypatch.setattr(priors.files, "_memory", lambda: 8e9)
    with pytest.raises(UserError, match=r"of 50,000 points takes 40 GB of memory, and there are 8"):
        priors.chosen_class(PriorConfig(prior="exact_gp"), 50_000)


def test_by_default_few_demonstrations_are_fitted_exactly(fits, demonstrations, tmp_path):
    assert isinstance(priors.fit_prior(demonstrations, QUICK, tmp_path), ExactGPPrior)
    priors.fit_prior(demonstrations, dataclasses.replace(QUICK, prior="exact_gp"), tmp_path)
    assert len(fits) == 1


@pytest.mark.parametrize("cls", CLASSES)
def test_a_fit_in_chunks_is_the_fit_in_one(cls, fitted, demonstrations, monkeypatch):
    monkeypatch.setattr(gaussian_process, "_CHUNK_ROWS", 7)
    chunked = cls.fit(demonstrations, QUICK)
    observations = tf.constant(demonstrations.observations[::9])
    for mine, other in zip(
        chunked.statistics(observations), fitted[cls].statistics(observations), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-4)


def test_the_default_cache_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert priors.default_cache() == tmp_path / "nppac_tf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert priors.default_cache() == tmp_path / "home" / ".cache" / "nppac_tf"


def test_statistics_are_a_pair_of_location_and_scale():
    assert PriorStatistics._fields == ("location", "scale")
