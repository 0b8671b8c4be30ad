import fakes
import numpy as np
import pytest
import reference
import tensorflow as tf

from nppac_tf.demonstrations import Demonstrations, load_demonstrations
from nppac_tf.environments import make_task
from nppac_tf.errors import UserError
from nppac_tf.evaluation import rollouts
from nppac_tf.priors import (
    GPPrior,
    Novelty,
    RescaledPrior,
    SparseGPPrior,
    UniformPrior,
    load_novelty,
    save_novelty,
)
from nppac_tf.priors.scores import roc_area

CLASSES = [GPPrior, SparseGPPrior]


def episodes(num_episodes, seed=0, length=20):
    """Noisy walks in the plane and noisy actions."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(num_episodes):
        states = rng.normal(size=2) + np.cumsum(0.1 * rng.normal(size=(length, 2)), axis=0)
        pairs.append((states, np.sin(states) + 0.05 * rng.normal(size=(length, 2))))
    return Demonstrations.from_episodes(pairs)


def fit(cls, demonstrations, num_inducing_points=25, num_neighbors=30):
    size = {"num_inducing_points": num_inducing_points} if cls is SparseGPPrior else {}
    return cls.fit(demonstrations, num_neighbors=num_neighbors, **size)


@pytest.fixture(scope="module")
def demonstrations():
    return episodes(10)


@pytest.fixture(scope="module")
def fitted(demonstrations):
    return {cls: fit(cls, demonstrations, num_neighbors=200) for cls in CLASSES}


# The score.


def test_the_score_is_the_share_of_less_uncertain_held_out_states():
    novelty = Novelty(np.array([3.0, 1.0, 2.0, 5.0]), num_folds=2)
    scores = novelty(tf.constant([1.0, 2.0, 3.0, 5.0, 1.5, 2.25, 4.0]))
    assert scores.dtype == tf.float32
    np.testing.assert_allclose(scores, [0.2, 0.4, 0.6, 0.8, 0.3, 0.45, 0.7], rtol=1e-6)
    tied = Novelty(np.array([1.0, 1.0, 1.0, 2.0]), num_folds=2)
    np.testing.assert_allclose(tied(tf.constant([1.0, 1.5, 2.0])), [0.6, 0.7, 0.8], rtol=1e-6)
    for shape in ([], [0], [2, 3]):
        assert novelty(tf.ones(shape)).shape == shape


@pytest.mark.parametrize(
    "held_out", [[1.0, 2.0, 3.0], np.full(3, 7.0), np.random.default_rng(0).normal(size=5000)]
)
def test_the_score_increases_everywhere(held_out):
    novelty = Novelty(np.asarray(held_out), num_folds=2)
    scores = novelty(tf.linspace(-20.0, 20.0, 401)).numpy()
    assert (np.diff(scores) > 0).all()
    assert 0 < scores.min() < scores.max() < 1
    assert 0 <= novelty(tf.constant(-1e30)) < 1e-20
    assert novelty(tf.constant(1e30)) == 1


@pytest.mark.parametrize("bad", [np.zeros(0), np.zeros((2, 2)), np.array([1.0, np.nan])])
def test_uncertainties_must_be_finite_and_one_dimensional(bad):
    with pytest.raises(ValueError, match=r"uncertainties must be finite numbers \[N\]"):
        Novelty(bad, num_folds=2)


# Held-out states.


def held_out_variance(prior, states, held_out):
    """Variance of the process at held-out states given the others, from the formulas."""
    settings, arrays = prior.state()

    def kernel(x, y):
        return reference.kernel_matrix(settings["kernel"], x, y, 1.0, np.ones(2))

    states = (states - arrays["observation_shift"]) / arrays["observation_scale"]
    seen, queries, noise = states[~held_out], states[held_out], arrays["noise_variance"]
    if isinstance(prior, GPPrior):
        known = kernel(seen, seen) + (noise + 1e-6) * np.eye(len(seen))
        cross = kernel(queries, seen)
        return 1.0 - np.einsum("bn,nb->b", cross, np.linalg.solve(known, cross.T))
    # Titsias 2009, eq. 6.
    inducing = kernel(arrays["centers"], arrays["centers"]) + 1e-6 * np.eye(len(arrays["centers"]))
    features, cross = kernel(arrays["centers"], seen), kernel(queries, arrays["centers"])
    posterior = np.linalg.inv(inducing + features @ features.T / noise)
    return 1.0 - np.einsum("bm,mn,bn->b", cross, np.linalg.inv(inducing) - posterior, cross)


@pytest.mark.parametrize("cls", CLASSES)
def test_held_out_uncertainty_is_that_of_a_posterior_without_the_fold(cls, fitted, demonstrations):
    folds = np.repeat([2, 0, 1, 3, 0, 4, 2, 1, 3, 4], 20)
    held_out = fitted[cls].held_out_uncertainty(demonstrations, folds)
    assert held_out.dtype == np.float32
    states = demonstrations.observations
    for fold in range(5):
        variance = held_out_variance(fitted[cls], states, folds == fold)
        np.testing.assert_allclose(held_out[folds == fold], 0.5 * np.log(variance), atol=1e-3)
    seen = fitted[cls].uncertainty(tf.constant(states))
    assert np.median(held_out) > np.median(seen) + 0.2


def test_a_gaussian_process_holds_out_only_what_it_was_fitted_to(fitted, demonstrations):
    for other in (demonstrations.select([0, 1]), episodes(10, seed=1)):
        with pytest.raises(UserError, match="must be those that the prior was fitted to"):
            Novelty.calibrate(fitted[GPPrior], other)


# Calibration.


@pytest.mark.parametrize("cls", CLASSES)
def test_a_threshold_flags_its_share_of_new_demonstrations(cls):
    scores = []
    for seed in range(3):  # Steps of one episode are alike: many short episodes say more.
        data = episodes(150, seed=10 + seed, length=3)
        prior = fit(cls, data, num_inducing_points=150)
        novelty = Novelty.calibrate(prior, data, num_folds=50)
        new = episodes(400, seed=50 + seed, length=3).observations
        scores.append(novelty(prior.uncertainty(tf.constant(new))).numpy())
    for threshold, tolerance in ((0.5, 0.1), (0.8, 0.05), (0.9, 0.03)):
        flagged = np.mean(np.concatenate(scores) > threshold)
        assert flagged == pytest.approx(1 - threshold, abs=tolerance)


@pytest.mark.parametrize("cls", CLASSES)
def test_far_states_are_novel_whatever_the_scale_of_the_prior(cls, fitted, demonstrations):
    rescaled = RescaledPrior(fitted[cls], 0.3, 0.5)
    far = tf.constant(demonstrations.observations + 100)
    one, other = (
        Novelty.calibrate(prior, demonstrations)(prior.uncertainty(far)).numpy()
        for prior in (fitted[cls], rescaled)
    )
    assert one.min() > 0.99
    np.testing.assert_array_equal(one, other)


class RecordingPrior(fakes.LinearPrior):
    """Keeps the folds that it is given."""

    def held_out_uncertainty(self, demonstrations, folds):
        self.folds = folds
        return super().held_out_uncertainty(demonstrations, folds)


def test_folds_are_whole_episodes_in_an_order_of_the_seed(demonstrations):
    prior, folds = RecordingPrior(2, 2), []
    for seed in (0, 0, 1):
        assert Novelty.calibrate(prior, demonstrations, seed=seed).num_folds == 5
        folds.append(prior.folds.reshape(10, 20))
    first, again, other = folds
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first == first[:, :1]).all()
    assert np.bincount(first[:, 0]).tolist() == [2, 2, 2, 2, 2]
    assert Novelty.calibrate(prior, demonstrations.select([0, 1, 2])).num_folds == 3
    Novelty.calibrate(prior, demonstrations.select([0]))
    assert prior.folds.tolist() == np.repeat(range(5), 4).tolist()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("num_steps", [1, 20])
def test_one_episode_can_be_calibrated(cls, num_steps):
    data = episodes(1, length=num_steps)
    prior = fit(cls, data)
    novelty = Novelty.calibrate(prior, data)
    assert novelty.summary["held_out_steps"] == num_steps
    assert np.isfinite(novelty(prior.uncertainty(tf.zeros([3, 2])))).all()


def test_what_cannot_be_calibrated_is_a_users_error(demonstrations):
    with pytest.raises(UserError, match="prior must be fitted to demonstrations"):
        Novelty.calibrate(UniformPrior(2, 2), demonstrations)
    with pytest.raises(UserError, match="num_folds must be at least 2; got 1"):
        Novelty.calibrate(fakes.LinearPrior(2, 2), demonstrations, num_folds=1)


# Files.


def test_a_loaded_novelty_equals_the_saved_one(tmp_path, demonstrations):
    novelty = Novelty.calibrate(fakes.LinearPrior(2, 2), demonstrations)
    save_novelty(novelty, tmp_path / "new" / "novelty.npz")
    loaded = load_novelty(tmp_path / "new" / "novelty.npz")
    values = tf.linspace(-9.0, 3.0, 100)
    np.testing.assert_array_equal(loaded(values), novelty(values))
    assert loaded.summary == novelty.summary


def test_another_file_is_a_users_error(tmp_path):
    path = tmp_path / "novelty.npz"
    with pytest.raises(UserError, match="no calibrated novelty at"):
        load_novelty(path)
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not a file written by save_novelty"):
        load_novelty(path)
    header = np.array('{"version": 0, "settings": {}}')
    np.savez(path, header=header, uncertainties=np.ones(3))
    with pytest.raises(UserError, match="has format version 0"):
        load_novelty(path)


# Demonstrations against a random policy.


def areas(prior, data, task):
    """ROC areas of held-out states against those of uniform actions: of all, and after step 10."""
    rng, visited = np.random.default_rng(0), []

    def policy(observations):
        visited.append(np.array(observations, np.float32))
        size = (len(observations), task.action_size)
        return rng.uniform(task.action_low, task.action_high, size).astype(np.float32)

    rollouts.evaluate(policy, task, 10, seed=7)
    novelty = Novelty.calibrate(prior, data)
    score = tf.function(lambda observations: novelty(prior.uncertainty(observations)))
    held_out = novelty(tf.constant(novelty.state()[1]["uncertainties"])).numpy()
    outside = np.stack([score(tf.constant(states)).numpy() for states in visited])
    return roc_area(held_out, outside.ravel()), roc_area(held_out, outside[10:].ravel())


def test_a_random_policy_leaves_the_demonstrations():
    task = make_task("pen-binary")
    data = load_demonstrations("embedded:pen", task).select(range(4))
    everywhere, later = areas(SparseGPPrior.fit(data, num_inducing_points=100), data, task)
    assert everywhere >= 0.95
    assert later >= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("cls", CLASSES)
def test_a_random_policy_leaves_human_demonstrations(cls, demos_path):
    task = make_task("pen-binary")
    data = load_demonstrations(str(demos_path / "pen2_sparse.npy"), task)
    everywhere, later = areas(cls.fit(data), data, task)
    assert everywhere >= 0.95
    assert later >= 0.98
