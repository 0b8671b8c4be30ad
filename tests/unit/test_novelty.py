import dataclasses

import fakes
import numpy as np
import pytest
import tensorflow as tf

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations, load_demonstrations
from nppac_tf.environments import make_task
from nppac_tf.errors import UserError
from nppac_tf.evaluation import rollouts
from nppac_tf.priors import (
    ExactGPPrior,
    Novelty,
    RescaledPrior,
    SparseGPPrior,
    UniformPrior,
    load_novelty,
    save_novelty,
)
from nppac_tf.priors.scores import roc_area

CLASSES = [ExactGPPrior, SparseGPPrior]
QUICK = PriorConfig(num_inducing_points=25, num_hyperparameter_points=60, max_fit_iterations=10)


def episodes(num_episodes, seed=0, length=20):
    """Noisy walks in the plane and noisy actions."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(num_episodes):
        states = rng.normal(size=2) + np.cumsum(0.1 * rng.normal(size=(length, 2)), axis=0)
        pairs.append((states, np.sin(states) + 0.05 * rng.normal(size=(length, 2))))
    return Demonstrations.from_episodes(pairs)


@pytest.fixture(scope="module")
def demonstrations():
    return episodes(10)


@pytest.fixture(scope="module")
def fitted(demonstrations):
    return {cls: cls.fit(demonstrations, QUICK) for cls in CLASSES}


# The score.


def test_a_score_is_the_share_of_held_out_states_that_are_less_uncertain():
    novelty = Novelty(np.array([3.0, 1.0, 2.0, 5.0]), num_folds=2)
    scores = novelty(tf.constant([1.0, 2.0, 3.0, 5.0]))
    assert scores.dtype == tf.float32
    np.testing.assert_allclose(scores, [0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(novelty(tf.constant([1.5, 2.25, 4.0])), [0.3, 0.45, 0.7], rtol=1e-6)


def test_beyond_the_held_out_states_the_score_goes_on():
    uncertainties = np.array([1.0, 2.0, 3.0])
    novelty = Novelty(uncertainties, num_folds=2)
    unit = uncertainties.std()
    np.testing.assert_allclose(
        novelty(tf.constant([3 + unit, 3 + 4 * unit, 1 - unit], tf.float32)),
        [1 - 0.25 / 2, 1 - 0.25 / 5, 0.25 / 2],
        rtol=1e-6,
    )
    assert 0 <= novelty(tf.constant(-1e30)) < 1e-20
    assert novelty(tf.constant(1e30)) == 1


def test_it_rises_well_beyond_the_held_out_states():
    novelty = Novelty(np.random.default_rng(0).normal(size=5000), num_folds=5)
    scores = novelty(tf.linspace(-20.0, 20.0, 401)).numpy()
    assert (np.diff(scores) > 0).all()
    assert scores.min() > 0
    assert scores.max() < 1


def test_ties_share_the_score_of_the_last_of_them():
    novelty = Novelty(np.array([1.0, 1.0, 1.0, 2.0]), num_folds=2)
    np.testing.assert_allclose(novelty(tf.constant([1.0, 1.5, 2.0])), [0.6, 0.7, 0.8], rtol=1e-6)
    alike = Novelty(np.full(3, 7.0), num_folds=2)
    np.testing.assert_allclose(alike(tf.constant([7.0])), [0.75])
    assert alike(tf.constant(6.9)) < 0.75 < alike(tf.constant(7.1))


def test_any_shape_has_a_score():
    novelty = Novelty(np.array([1.0, 2.0]), num_folds=2)
    for shape in ([], [0], [3], [2, 3]):
        assert novelty(tf.ones(shape)).shape == shape


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 2)), np.array([1.0, np.nan])])
def test_uncertainties_that_make_no_scale_are_refused(bad):
    with pytest.raises(ValueError, match=r"uncertainties must be finite numbers \[N\]"):
        Novelty(bad, num_folds=2)


# What is left out.


def refitted(prior, demonstrations, steps):
    """The posterior given some steps alone, from the same hyper-parameters, the long way."""
    settings, arrays = prior.state()
    states = demonstrations.observations[steps].astype(np.float64) - arrays["observation_shift"]
    states /= arrays["observation_scale"]
    actions = demonstrations.actions[steps].astype(np.float64) - arrays["action_shift"]
    actions /= arrays["action_scale"]
    if isinstance(prior, ExactGPPrior):
        return ExactGPPrior(settings, {**arrays, "centers": states, "actions": actions})
    kernel, centers = prior._kernel, arrays["centers"]
    k_zz = kernel(centers).numpy() + 1e-6 * np.eye(len(centers))
    k_zs = kernel(centers, states).numpy()
    noise = arrays["noise_variance"]
    inverse = np.linalg.inv(np.linalg.cholesky(k_zz))
    features = inverse @ k_zs
    whitened = np.linalg.inv(np.eye(len(centers)) + features @ features.T / noise)
    return SparseGPPrior(settings, {**arrays, "q_covariance": whitened})


@pytest.mark.parametrize("cls", CLASSES)
def test_held_out_uncertainty_is_that_of_a_posterior_without_the_fold(cls, fitted, demonstrations):
    prior = fitted[cls]
    folds = np.repeat([2, 0, 1, 1, 0, 2, 2, 1, 0, 0], 20)
    held_out = prior.held_out_uncertainty(demonstrations, folds)
    assert held_out.dtype == np.float32
    for fold in range(3):
        without = refitted(prior, demonstrations, folds != fold)
        states = tf.constant(demonstrations.observations[folds == fold])
        np.testing.assert_allclose(held_out[folds == fold], without.uncertainty(states), atol=1e-3)
    seen = prior.uncertainty(tf.constant(demonstrations.observations))
    assert np.median(held_out) > np.median(seen) + 0.2


def test_an_exact_prior_leaves_out_only_what_it_was_fitted_to(fitted, demonstrations):
    prior = fitted[ExactGPPrior]
    for other in (demonstrations.select([0, 1]), episodes(10, seed=1)):
        with pytest.raises(UserError, match="must be those that the prior was fitted to"):
            Novelty.calibrate(prior, other)


def test_a_prior_that_leaves_nothing_out_is_taken_at_its_word(demonstrations):
    class Distance(fakes.LinearPrior):
        def uncertainty(self, observations):
            return tf.norm(observations, axis=-1)

    novelty = Novelty.calibrate(Distance(2, 2), demonstrations)
    expected = np.sort(np.linalg.norm(demonstrations.observations, axis=1))
    np.testing.assert_allclose(novelty.state()[1]["uncertainties"], expected, rtol=1e-6)


# Calibration.


@pytest.mark.parametrize("cls", CLASSES)
def test_a_threshold_flags_its_share_of_new_demonstrations(cls):
    scores = []
    for seed in range(3):  # Steps of one episode are much alike: few long ones would say little.
        data = episodes(150, seed=10 + seed, length=3)
        prior = cls.fit(data, QUICK)
        novelty = Novelty.calibrate(prior, data, num_folds=10)
        new = episodes(400, seed=50 + seed, length=3).observations
        scores.append(novelty(prior.uncertainty(tf.constant(new))).numpy())
    for threshold, tolerance in ((0.5, 0.1), (0.8, 0.05), (0.9, 0.03)):
        flagged = np.mean(np.concatenate(scores) > threshold)
        assert flagged == pytest.approx(1 - threshold, abs=tolerance)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_threshold_flags_its_share_of_the_held_out_states(cls, fitted, demonstrations):
    novelty = Novelty.calibrate(fitted[cls], demonstrations)
    scores = novelty(tf.constant(novelty.state()[1]["uncertainties"])).numpy()
    for threshold in (0.1, 0.5, 0.9, 0.95):
        assert np.mean(scores > threshold) == pytest.approx(1 - threshold, abs=0.01)


@pytest.mark.parametrize("cls", CLASSES)
def test_far_states_are_novel(cls, fitted, demonstrations):
    novelty = Novelty.calibrate(fitted[cls], demonstrations)
    far = demonstrations.observations + 100
    assert novelty(fitted[cls].uncertainty(tf.constant(far))).numpy().min() > 0.99


def test_rescaling_changes_no_score(fitted, demonstrations):
    for prior in fitted.values():
        rescaled = RescaledPrior(prior, 0.3, 0.5)
        states = tf.constant(demonstrations.observations)
        one = Novelty.calibrate(prior, demonstrations)(prior.uncertainty(states))
        other = Novelty.calibrate(rescaled, demonstrations)(rescaled.uncertainty(states))
        np.testing.assert_array_equal(one, other)


def test_folds_are_whole_episodes_of_a_seed(demonstrations, monkeypatch):
    given = []

    def keep(self, data, folds):
        given.append(folds)
        return np.arange(len(folds), dtype=np.float32)

    monkeypatch.setattr(fakes.LinearPrior, "held_out_uncertainty", keep, raising=False)
    prior = fakes.LinearPrior(2, 2)
    for seed in (0, 0, 1):
        assert Novelty.calibrate(prior, demonstrations, seed=seed).num_folds == 5
    first, again, other = (folds.reshape(10, 20) for folds in given)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first == first[:, :1]).all()
    assert np.bincount(first[:, 0]).tolist() == [2, 2, 2, 2, 2]
    assert Novelty.calibrate(prior, demonstrations.select([0, 1, 2])).num_folds == 3
    Novelty.calibrate(prior, demonstrations.select([0]))
    assert given[-1].tolist() == np.repeat(range(5), 4).tolist()


@pytest.mark.parametrize("cls", CLASSES)
def test_one_episode_and_even_one_step_can_be_calibrated(cls, demonstrations):
    for data in (
        demonstrations.select([0]),
        Demonstrations(demonstrations.observations[:1], demonstrations.actions[:1], [1]),
    ):
        prior = cls.fit(data, dataclasses.replace(QUICK, max_fit_iterations=2))
        novelty = Novelty.calibrate(prior, data)
        assert novelty.summary["held_out_steps"] == data.num_steps
        assert np.isfinite(novelty(prior.uncertainty(tf.zeros([3, 2])))).all()


def test_what_cannot_be_calibrated_is_a_users_error(demonstrations, fitted):
    with pytest.raises(UserError, match="prior must be fitted to demonstrations"):
        Novelty.calibrate(UniformPrior(2, 2), demonstrations)
    with pytest.raises(UserError, match="num_folds must be at least 2; got 1"):
        Novelty.calibrate(fitted[ExactGPPrior], demonstrations, num_folds=1)


# Files.


def test_a_loaded_novelty_is_the_saved_one(tmp_path, fitted, demonstrations):
    novelty = Novelty.calibrate(fitted[SparseGPPrior], demonstrations)
    save_novelty(novelty, tmp_path / "new" / "novelty.npz")
    loaded = load_novelty(tmp_path / "new" / "novelty.npz")
    values = tf.linspace(-9.0, 3.0, 100)
    np.testing.assert_array_equal(loaded(values), novelty(values))
    assert loaded.summary == novelty.summary
    assert loaded.summary["folds"] == 5


def test_what_is_no_novelty_is_a_users_error(tmp_path):
    path = tmp_path / "novelty.npz"
    with pytest.raises(UserError, match="no calibrated novelty at"):
        load_novelty(path)
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not a file written by save_novelty"):
        load_novelty(path)
    header = np.array('{"version": 0, "settings": {}}')
    np.savez(path, header=header, uncertainties=np.ones(3))
    with pytest.raises(UserError, match="version 0 of the format"):
        load_novelty(path)


# Demonstrations against a random policy.


def random_states(task, num_episodes=10):
    """[T, N, D] of a policy of uniform actions."""
    rng = np.random.default_rng(0)
    seen = []

    def policy(observations):
        seen.append(np.array(observations, np.float32))
        size = (len(observations), task.action_size)
        return rng.uniform(task.action_low, task.action_high, size).astype(np.float32)

    rollouts.evaluate(policy, task, num_episodes, seed=7)
    return np.stack(seen)


def areas(prior, data, states):
    """The ROC area of held-out demonstration states against random ones, all and after step 10."""
    novelty = Novelty.calibrate(prior, data)
    held_out = novelty(tf.constant(novelty.state()[1]["uncertainties"])).numpy()
    score = tf.function(lambda observations: novelty(prior.uncertainty(observations)))
    outside = np.stack([score(tf.constant(step)).numpy() for step in states])
    return roc_area(held_out, outside.ravel()), roc_area(held_out, outside[10:].ravel())


def test_the_area_counts_pairs_in_order_and_half_of_the_ties():
    assert roc_area(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert roc_area(np.array([1.0, 3.0]), np.array([2.0, 3.0])) == (1 + 0 + 1 + 0.5) / 4


def test_a_random_policy_leaves_the_demonstrations():
    task = make_task("pen-binary")
    data = load_demonstrations("embedded:pen", task)
    prior = SparseGPPrior.fit(data, PriorConfig(num_inducing_points=100, max_fit_iterations=5))
    everywhere, later = areas(prior, data, random_states(task))
    assert everywhere >= 0.95
    assert later >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("cls", CLASSES)
def test_a_random_policy_leaves_human_demonstrations(cls, demos_path):
    task = make_task("pen-binary")
    data = load_demonstrations(str(demos_path / "pen2_sparse.npy"), task)
    prior = cls.fit(data, PriorConfig(num_inducing_points=300, max_fit_iterations=60))
    everywhere, later = areas(prior, data, random_states(task))
    assert everywhere >= 0.95
    assert later >= 0.98
