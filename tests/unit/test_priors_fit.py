"""Fits of Gaussian-process priors to demonstrations."""

import gpflow
import numpy as np
import pytest
import reference
import tensorflow as tf
from gaussian_processes import (
    CLASSES,
    NOISE,
    D,
    N,
    example_demonstrations,
    fitted,
    queries,
)
from scipy import stats

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors import GPPrior, SparseGPPrior, hyperparameters, marginal_likelihood, scores


@pytest.mark.parametrize("cls", CLASSES)
def test_a_fit_finds_function_and_noise(cls):
    data = example_demonstrations()
    location, scale = fitted(cls).statistics(tf.constant(data.observations))
    error = np.std(location - data.actions, axis=0)
    np.testing.assert_allclose(error, 3 * NOISE, rtol=0.35)
    np.testing.assert_allclose(np.mean(scale, axis=0), 3 * NOISE, rtol=0.5)
    unit = fitted(cls).state()[1]["action_scale"].mean()
    assert fitted(cls).summary["noise_scale"] == pytest.approx(3 * NOISE / unit, rel=0.35)


def test_the_likelihood_is_that_of_one_process_per_action_in_its_best_units():
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(12, 2)), rng.normal(size=(12, 3)) * [1.0, 0.1, 5.0] + 0.5
    with gpflow.config.as_context(gpflow.config.Config(float=np.float64)):
        model = marginal_likelihood._MarginalLikelihood("matern32", True, states, actions)
        model.kernel.lengthscales.assign([0.8, 1.7])
        model.noise_variance.assign(0.04)
        loss, (means, units) = model.training_loss().numpy(), model.means_and_units()
    covariance = reference.kernel_matrix("matern32", states, states, 1.0, np.array([0.8, 1.7]))
    covariance += (0.04 + hyperparameters.JITTER) * np.eye(12)

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


def test_the_gradient_of_the_likelihood_is_that_of_differences():
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(12, 2)), rng.normal(size=(12, 4))
    states[1] = states[0]
    actions = actions * [1.0, 0.1, 0.0, 1e-7] + 0.5  # One constant, one below the floor.
    with gpflow.config.as_context(gpflow.config.Config(float=np.float64)):
        model = marginal_likelihood._MarginalLikelihood("matern52", True, states, actions)
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            loss = model.training_loss()
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            for direction in np.eye(variable.shape.num_elements()).reshape(-1, *variable.shape):
                losses = []
                for step in (-1e-5, 2e-5):
                    variable.assign_add(step * direction)
                    losses.append(model.training_loss().numpy())
                variable.assign_sub(1e-5 * direction)
                slope = (losses[1] - losses[0]) / 2e-5
                assert slope == pytest.approx(np.sum(gradient * direction), rel=1e-6)


@pytest.mark.parametrize("varying", [2, 0])
def test_a_constant_action_does_not_change_the_likelihood(varying):
    rng = np.random.default_rng(0)
    states, actions = rng.normal(size=(12, 2)), rng.normal(size=(12, varying))
    losses = []
    with gpflow.config.as_context(gpflow.config.Config(float=np.float64)):
        for given in (actions, np.c_[actions, np.full(12, 0.3)]):
            model = marginal_likelihood._MarginalLikelihood("matern52", True, states, given)
            losses.append(model.training_loss().numpy())
            model.kernel.lengthscales.assign([3.0, 5.0])
            losses.append(model.training_loss().numpy())
    assert losses[:2] == pytest.approx(losses[2:])
    assert (losses[0] == losses[1]) == (varying == 0)


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_an_optimization_that_ends_below_its_start_is_not_the_fit(monkeypatch, failures):
    maximize, losses = marginal_likelihood._maximize, []

    def fail_at_first(model, max_iterations):
        is_ard = model.kernel.lengthscales.shape != ()
        if is_ard and len(losses) < failures:
            model.kernel.lengthscales.assign(np.full(D, 1e-4))
            losses.append(model.training_loss().numpy())
            return False
        return maximize(model, max_iterations)

    monkeypatch.setattr(marginal_likelihood, "_maximize", fail_at_first)
    data = example_demonstrations()
    states, actions = data.observations.astype(float), data.actions.astype(float)
    with gpflow.config.as_context(gpflow.config.Config(float=np.float64)):
        model = marginal_likelihood._most_likely("matern52", True, states, actions)
        is_shared = np.ptp(model.kernel.lengthscales.numpy()) == 0
        assert is_shared == (failures == 2)
        assert all(model.training_loss().numpy() < loss - 10 for loss in losses)


def test_a_fit_that_begins_with_a_part_of_the_points_is_that_of_all():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(1000, 2))
    actions = np.sin(states / [0.5, 2.0]) + 0.1 * rng.normal(size=(1000, 2))
    with gpflow.config.as_context(gpflow.config.Config(float=np.float64)):
        fit = marginal_likelihood._most_likely("matern52", True, states, actions)
        at_once = marginal_likelihood._MarginalLikelihood("matern52", True, states, actions)
        marginal_likelihood._maximize(at_once, 100)
        best = at_once.training_loss().numpy()
        assert fit.training_loss().numpy() == pytest.approx(best, abs=0.1)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_lengthscale_factor_makes_the_mean_smoother(cls):
    plain, smooth = fitted(cls), fitted(cls, lengthscale_factor=3.0)
    arrays, smoothed = plain.state()[1], smooth.state()[1]
    np.testing.assert_allclose(
        smoothed["observation_scale"], 3.0 * arrays["observation_scale"], rtol=1e-12
    )
    # Far from the demonstrations the smoother process still knows something.
    far = queries() + tf.constant([2.0, 0.0, 0.0])
    assert np.all(smooth.uncertainty(far) < plain.uncertainty(far))


@pytest.mark.parametrize("cls", CLASSES)
def test_without_ard_all_dimensions_share_a_lengthscale(cls):
    scale = fitted(cls, ard=False).state()[1]["observation_scale"]
    deviation = example_demonstrations().observations.std(axis=0)
    np.testing.assert_allclose(scale / deviation, (scale / deviation)[0], rtol=1e-6)
    assert np.ptp(fitted(cls).state()[1]["observation_scale"] / deviation) > 0.1


def offset_episodes(num_episodes, seed):
    """Episodes whose actions differ by an offset, as those of people do."""
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(num_episodes):
        states = rng.normal(size=2) + np.cumsum(0.1 * rng.normal(size=(8, 2)), axis=0)
        actions = np.sin(states) + 0.3 * rng.normal(size=2) + 0.05 * rng.normal(size=(8, 2))
        pairs.append((states, actions))
    return Demonstrations.from_episodes(pairs)


@pytest.mark.parametrize("cls", CLASSES)
def test_intervals_cover_the_actions_of_new_episodes(cls):
    data, new = offset_episodes(40, seed=0), offset_episodes(200, seed=1000)

    def coverage(demonstrations):
        keywords = {"num_inducing_points": 60} if cls is SparseGPPrior else {}
        prior = cls.fit(demonstrations, **keywords)
        predictions = scores.predict(prior.statistics, new.observations)
        return float(scores.coverage(new.actions, *predictions, [0.9])[0])

    assert 0.85 <= coverage(data) <= 0.95
    # One episode leaves nothing to hold out: what remains is the marginal likelihood's scale.
    alone = Demonstrations(data.observations, data.actions, [data.num_steps])
    assert coverage(alone) < 0.8


def test_an_action_that_varies_slowly_has_a_smaller_scale_than_one_that_varies_fast():
    """Though both vary as much."""
    states = np.linspace(0, 1, 80)[:, None]
    slow, fast = np.sin(3 * states), np.sin(60 * states)
    actions = np.concatenate([slow / slow.std(), fast / fast.std()], axis=1)
    prior = GPPrior.fit(Demonstrations.from_episodes([(states, actions)]), kernel="matern12")
    scale = prior.statistics(tf.constant(states, tf.float32)).scale
    assert (4 * scale[:, 0] < scale[:, 1]).numpy().all()


def test_all_points_are_conditioned_on_and_inducing_points_are_as_many_as_asked():
    assert fitted(GPPrior).state()[1]["centers"].shape == (N, D)
    centers = fitted(SparseGPPrior, num_inducing_points=12).state()[1]["centers"]
    assert np.unique(centers, axis=0).shape == (12, D)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_same_fit_twice_is_the_same(cls):
    again = fitted.__wrapped__(cls).state()[1]
    for name, array in fitted(cls).state()[1].items():
        np.testing.assert_allclose(again[name], array, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cls", CLASSES)
def test_duplicated_states_and_a_constant_dimension_do_not_break_a_fit(cls):
    data = example_demonstrations()
    observations, actions = (
        np.repeat(array[:30], 3, axis=0) for array in (data.observations, data.actions)
    )
    observations[:, 2], actions[:, 1] = 7.0, -2.0
    prior = cls.fit(Demonstrations(observations, actions, [45, 90]))
    if cls is SparseGPPrior:
        centers = prior.state()[1]["centers"]
        assert len(np.unique(centers, axis=0)) == len(centers) <= 30
    location, scale = prior.statistics(tf.constant(observations))
    assert (scale > 0).numpy().all()
    np.testing.assert_allclose(location[:, 1], actions[:, 1], atol=1e-3)
    assert np.std(location[:, 0] - actions[:, 0]) < 0.7 * np.std(actions[:, 0])


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("num_steps", [1, 2])
def test_one_or_two_points_can_be_fitted(cls, num_steps):
    data = Demonstrations(np.eye(2)[:num_steps], np.eye(2)[:num_steps], np.arange(num_steps) + 1)
    prior = cls.fit(data)
    location, scale = prior.statistics(tf.constant(data.observations))
    np.testing.assert_allclose(location, data.actions, atol=0.3)
    assert np.isfinite(scale).all()


@pytest.mark.parametrize("cls", CLASSES)
def test_unknown_keywords_are_refused(cls):
    with pytest.raises(TypeError, match="observation_noise"):
        cls.fit(example_demonstrations(), observation_noise=False)


def test_a_fit_that_is_not_finite_is_a_users_error(monkeypatch):
    class Result:
        fun, x, message = np.nan, np.full(2, np.nan), "ABNORMAL"

    monkeypatch.setattr(gpflow.optimizers.Scipy, "minimize", lambda *_, **__: Result)
    for cls in CLASSES:
        with pytest.raises(UserError, match="not finite"):
            cls.fit(example_demonstrations())


def test_gpflows_global_configuration_is_neither_changed_nor_needed():
    before = gpflow.config.config()
    gpflow.config.set_config(gpflow.config.Config(float=np.float32, jitter=1e-3))
    try:
        for cls in CLASSES:
            prior = fitted.__wrapped__(cls)
            loaded = cls.from_state(*fitted(cls).state())
            np.testing.assert_array_equal(
                loaded.statistics(queries()).scale, fitted(cls).statistics(queries()).scale
            )
            np.testing.assert_allclose(
                prior.statistics(queries()).scale, loaded.statistics(queries()).scale, rtol=1e-5
            )
        assert gpflow.config.default_float() == np.float32
        assert gpflow.config.default_jitter() == 1e-3
    finally:
        gpflow.config.set_config(before)
