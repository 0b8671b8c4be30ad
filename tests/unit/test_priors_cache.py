"""Fitting as a configuration asks: which class, and the cache."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from gaussian_processes import (
    QUICK,
    D,
    P,
    example_demonstrations,
    made_up,
    queries,
    same_to_the_bit,
)

from nppac_tf import priors
from nppac_tf.config import PriorConfig
from nppac_tf.errors import UserError
from nppac_tf.priors import ExactGPPrior, FixedScalePrior, RescaledPrior, UniformPrior


@pytest.fixture
def demonstrations():
    return example_demonstrations()


@pytest.fixture
def fits(monkeypatch):
    """Replaces the exact fit by an instant one; the list grows by one per fit."""
    calls = []

    def fit(demonstrations, config):
        calls.append((demonstrations, config))
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
        {"action_lookahead": 1},
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


def test_the_fit_is_to_the_actions_ahead(fits, demonstrations):
    priors.fit_prior(demonstrations, dataclasses.replace(QUICK, action_lookahead=2))
    np.testing.assert_array_equal(fits[0][0].actions, demonstrations.look_ahead(2).actions)


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
        ("gp", 10_000, "exact_gp", "exact Gaussian process on all 10,000 points, since 10,000 "
         "points are at most 10,000"),
        ("gp", 10_001, "sparse_gp", "sparse Gaussian process with 500 inducing points, since "
         "10,001 points are more than 10,000"),
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


def test_the_default_cache_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert priors.default_cache() == tmp_path / "nppac_tf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert priors.default_cache() == tmp_path / "home" / ".cache" / "nppac_tf"
