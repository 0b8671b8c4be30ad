"""Fits by configuration, their cache, and files of priors."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest
from gaussian_processes import (
    CLASSES,
    D,
    P,
    assert_same_prior,
    example_demonstrations,
    fitted,
    queries,
)

from nppac_tf import priors
from nppac_tf.config import PRIORS, PriorConfig
from nppac_tf.errors import UserError
from nppac_tf.priors import (
    BayesianNetworkPrior,
    DropoutPrior,
    EnsemblePrior,
    FixedScalePrior,
    GaussianNetworkPrior,
    GPPrior,
    RescaledPrior,
    SparseGPPrior,
    UniformPrior,
)

CONFIG = PriorConfig(scale_factor=1.0, scale_floor=0.0)
CLASS_OF = {
    "gp": GPPrior,
    "sparse_gp": SparseGPPrior,
    "gaussian_network": GaussianNetworkPrior,
    "ensemble": EnsemblePrior,
    "bayesian_network": BayesianNetworkPrior,
    "dropout": DropoutPrior,
    "uniform": UniformPrior,
}


@pytest.fixture
def fits(monkeypatch):
    """Replaces the fit by an instant one; the list grows by one per fit."""
    calls, prior = [], fitted(GPPrior)

    def fit(demonstrations, **keywords):
        calls.append((demonstrations, keywords))
        return prior

    monkeypatch.setattr(GPPrior, "fit", fit)
    return calls


# Fits by configuration.


@pytest.mark.parametrize("name", PRIORS)
def test_the_configuration_names_the_class(name):
    small = {"num_inducing_points": 9, "network_epochs": 1, "network_layers": (4,)}
    config = dataclasses.replace(CONFIG, prior=name, ensemble_size=2, **small)
    prior = priors.fit_prior(example_demonstrations(), config)
    assert type(prior) is CLASS_OF[name]
    assert (prior.observation_size, prior.action_size) == (D, P)


def test_a_uniform_prior_stays_uniform_whatever_the_scale():
    for change in ({"scale_floor": 9.9, "scale_factor": 0.5}, {"fixed_scale": 0.1}):
        config = PriorConfig(prior="uniform", **change)
        assert type(priors.fit_prior(example_demonstrations(), config)) is UniformPrior


def test_the_fit_is_to_the_actions_ahead_with_the_keywords_of_the_configuration(fits):
    config = PriorConfig(
        action_lookahead=2,
        kernel="rbf",
        ard=False,
        lengthscale_factor=2.0,
        num_neighbors=9,
        prior_seed=4,
    )
    priors.fit_prior(example_demonstrations(), config)
    ((data, keywords),) = fits
    np.testing.assert_array_equal(data.actions, example_demonstrations().look_ahead(2).actions)
    assert keywords == {
        "kernel": "rbf",
        "ard": False,
        "lengthscale_factor": 2.0,
        "num_neighbors": 9,
        "seed": 4,
    }


@pytest.mark.parametrize(
    ("change", "kind", "expected"),
    [
        ({}, GPPrior, lambda scale, own: scale),
        ({"scale_floor": None}, RescaledPrior, np.maximum),
        (
            {"scale_floor": None, "scale_factor": 0.3},
            RescaledPrior,
            lambda scale, own: 0.3 * np.maximum(scale, own),
        ),
        ({"scale_floor": 0.7}, RescaledPrior, lambda scale, own: np.maximum(scale, 0.7)),
        (
            {"scale_floor": 0.7, "scale_factor": 2.0},
            RescaledPrior,
            lambda scale, own: np.maximum(2 * scale, 0.7),
        ),
        (
            {"scale_floor": None, "scale_factor": 0.3, "fixed_scale": 0.05},
            FixedScalePrior,
            lambda scale, own: np.full_like(scale, 0.05),
        ),
    ],
)
def test_the_scale_is_changed_after_the_fit_which_is_cached(fits, tmp_path, change, kind, expected):
    plain = priors.fit_prior(example_demonstrations(), CONFIG, tmp_path)
    config = dataclasses.replace(CONFIG, **change)
    prior = priors.fit_prior(example_demonstrations(), config, tmp_path)
    assert len(fits) == 1
    assert type(prior) is kind
    scale = plain.statistics(queries()).scale.numpy()
    np.testing.assert_allclose(
        prior.statistics(queries()).scale, expected(scale, plain.scale_floor), rtol=1e-6
    )


# The cache.


@pytest.mark.parametrize(
    ("change", "num_fits"),
    [
        ({}, 1),
        ({"prior_seed": 0}, 1),
        ({"kernel": "rbf"}, 2),
        ({"action_lookahead": 1}, 2),
        ({"prior_seed": 1}, 2),
    ],
)
def test_the_cache_holds_a_fit_for_each_configuration(fits, tmp_path, change, num_fits):
    config = dataclasses.replace(CONFIG, **change)
    assert not priors.cached(example_demonstrations(), config, tmp_path)
    first = priors.fit_prior(example_demonstrations(), CONFIG, tmp_path)
    second = priors.fit_prior(example_demonstrations(), config, tmp_path)
    assert priors.cached(example_demonstrations(), config, tmp_path)
    assert len(fits) == num_fits
    assert_same_prior(first, second)


def test_other_demonstrations_are_another_fit(fits, tmp_path):
    priors.fit_prior(example_demonstrations(), CONFIG, tmp_path)
    priors.fit_prior(example_demonstrations().select([0]), CONFIG, tmp_path)
    assert len(fits) == 2


def test_a_damaged_file_in_the_cache_is_replaced(fits, tmp_path):
    first = priors.fit_prior(example_demonstrations(), CONFIG, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"damaged")
    assert_same_prior(first, priors.fit_prior(example_demonstrations(), CONFIG, tmp_path))
    assert len(fits) == 2
    assert_same_prior(first, priors.load_prior(path))


def test_without_a_cache_nothing_is_written(fits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    priors.fit_prior(example_demonstrations(), CONFIG)
    assert not list(tmp_path.iterdir())
    assert priors.default_cache() == tmp_path / "nppac_tf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert priors.default_cache() == tmp_path / "home" / ".cache" / "nppac_tf"


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", no_home)
    assert priors.default_cache().parent.is_dir()


# Files.


@pytest.mark.parametrize("cls", [*CLASSES, UniformPrior])
def test_a_loaded_prior_equals_the_saved_one_to_the_bit(cls, tmp_path):
    path = tmp_path / "folder" / "prior.npz"
    prior = UniformPrior(D, P) if cls is UniformPrior else fitted(cls)
    priors.save_prior(prior, path)
    loaded = priors.load_prior(path)
    assert type(loaded) is cls
    assert_same_prior(prior, loaded)
    assert os.listdir(path.parent) == ["prior.npz"]


def test_a_rescaled_prior_is_not_saved(tmp_path):
    with pytest.raises(UserError, match="got RescaledPrior"):
        priors.save_prior(RescaledPrior(fitted(GPPrior), 2.0), tmp_path / "prior.npz")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def path(tmp_path):
    """A saved prior."""
    priors.save_prior(fitted(GPPrior), tmp_path / "prior.npz")
    return tmp_path / "prior.npz"


def rewrite(path, header=None, **arrays):
    """Replaces parts of a saved prior; an array that is None is removed."""
    with np.load(path) as file:
        content = {**file, **arrays}
    if header is not None:
        content["header"] = np.array(json.dumps({**json.loads(str(content["header"])), **header}))
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


def test_a_missing_file_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="no prior at"):
        priors.load_prior(tmp_path / "prior.npz")


def test_a_damaged_file_is_a_users_error(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"no prior", whole[: len(whole) // 2], whole[:-10]]
    for position in rng.integers(0, len(whole), 30):
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
            assert_same_prior(loaded, fitted(GPPrior))
    assert len(messages) > 15
    assert all(str(path) in message for message in messages)


@pytest.mark.parametrize(
    ("name", "array"), [("centers", None), ("weights", None), ("centers", np.zeros(5))]
)
def test_arrays_that_do_not_make_a_prior_are_a_users_error(path, name, array):
    rewrite(path, **{name: array})
    with pytest.raises(UserError, match="is not a prior"):
        priors.load_prior(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "version 0 of the format"),
        ({"class": "neural"}, "not a prior"),
        ({"settings": {"kernel": "cosine", "num_neighbors": 4, "residual": 0.0}}, "not a prior"),
        ({"settings": {}}, "not a prior"),
        ({"settings": None}, "not a prior"),
    ],
)
def test_a_header_of_something_else_is_a_users_error(path, change, message):
    rewrite(path, header=change)
    with pytest.raises(UserError, match=message):
        priors.load_prior(path)


class Malicious:
    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return os.mkdir, (self.witness,)


def test_a_pickle_in_a_file_is_refused_and_not_run(path, tmp_path):
    bomb = np.array([Malicious(tmp_path / "witness")], dtype=object)
    rewrite(path, centers=bomb)
    with pytest.raises(UserError, match="not a prior"):
        priors.load_prior(path)
    path.write_bytes(bomb.dumps())
    with pytest.raises(UserError, match="not a prior"):
        priors.load_prior(path)
    assert not (tmp_path / "witness").exists()
