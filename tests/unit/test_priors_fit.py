"""Fits of Gaussian-process priors to demonstrations."""

import dataclasses

import gpflow
import numpy as np
import pytest
import reference
import tensorflow as tf
from gaussian_processes import (
    CLASSES,
    NOISE,
    QUICK,
    D,
    example_demonstrations,
    fitted_examples,
    len_of,
    queries,
)
from scipy import stats

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors import ExactGPPrior, SparseGPPrior, gaussian_process


@pytest.fixture
def demonstrations():
    return example_demonstrations()


@pytest.fixture
def fitted():
    return fitted_examples()


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


@pytest.mark.parametrize("cls", CLASSES)
def test_a_fit_finds_function_and_noise(cls, fitted, demonstrations):
    prior = fitted[cls]
    location, scale = prior.statistics(tf.constant(demonstrations.observations))
    standard_error = np.std(location - demonstrations.actions, axis=0)
    np.testing.assert_allclose(standard_error, 3 * NOISE, rtol=0.35)
    np.testing.assert_allclose(np.mean(scale, axis=0), 3 * NOISE, rtol=0.5)
    unit = prior.state()[1]["action_scale"].mean()
    assert prior.summary["noise_deviation"] == pytest.approx(3 * NOISE / unit, rel=0.35)


def test_the_likelihood_is_that_of_one_process_per_action_in_its_best_units():
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(12, 2)), rng.normal(size=(12, 3)) * [1.0, 0.1, 5.0] + 0.5
    lengthscales, noise = np.array([0.8, 1.7]), 0.04
    kernel = gpflow.kernels.Matern32(1.0, lengthscales)
    with gpflow.config.as_context(gpflow.config.Config(float=np.float64)):
        model = gaussian_process._MarginalLikelihood(kernel, (states, actions))
        model.noise_variance.assign(noise)
        loss, (means, units) = model.training_loss().numpy(), model.means_and_units()
    covariance = reference.kernel_matrix("matern32", states, states, 1.0, lengthscales)
    covariance += (noise + gaussian_process.JITTER) * np.eye(12)

    def log_likelihood(means, units):
        return sum(
            stats.multivariate_normal.logpdf(a, np.full(12, m), u**2 * covariance)
            for a, m, u in zip(actions.T, means, units, strict=True)
        )

    best = log_likelihood(means, units)
    assert -loss - 12 * 3 / 2 * (1 + np.log(2 * np.pi)) == pytest.approx(best, rel=1e-9)
    for factor in (0.97, 1.03):
        assert log_likelihood(means * factor, units) < best
        assert log_likelihood(means, units * factor) < best


def test_an_action_that_varies_slowly_has_a_smaller_deviation_than_one_that_varies_fast():
    """Though both vary as much."""
    states = np.linspace(0, 1, 80)[:, None]
    slow, fast = np.sin(3 * states), np.sin(60 * states)
    actions = np.concatenate([slow / slow.std(), fast / fast.std()], axis=1)
    demonstrations = Demonstrations.from_episodes([(states, actions)])
    prior = ExactGPPrior.fit(demonstrations, dataclasses.replace(QUICK, kernel="matern12"))
    scale = prior.statistics(tf.constant(demonstrations.observations)).scale
    assert (4 * scale[:, 0] < scale[:, 1]).numpy().all()


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


@pytest.mark.parametrize("cls", CLASSES)
def test_a_fit_in_chunks_is_the_fit_in_one(cls, fitted, demonstrations, monkeypatch):
    monkeypatch.setattr(gaussian_process, "_CHUNK_ROWS", 7)
    chunked = cls.fit(demonstrations, QUICK)
    observations = tf.constant(demonstrations.observations[::9])
    for mine, other in zip(
        chunked.statistics(observations), fitted[cls].statistics(observations), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-4)
