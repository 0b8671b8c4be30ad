import dataclasses
import itertools
import json

import numpy as np
import pytest
import reference
import tensorflow as tf

from nppac_tf import priors
from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors import (
    BayesianNetworkPrior,
    DropoutPrior,
    EnsemblePrior,
    GaussianNetworkPrior,
    network_fitting,
    networks,
)

D, P = 3, 2
SHIFT, UNIT = np.array([0.0, 10.0, -3.0]), np.array([1.0, 2.0, 0.5])
CLASSES = {
    "gaussian_network": GaussianNetworkPrior,
    "ensemble": EnsemblePrior,
    "bayesian_network": BayesianNetworkPrior,
    "dropout": DropoutPrior,
}
NUM_NETWORKS = {"gaussian_network": 1, "ensemble": 2}
QUICK = PriorConfig(network_layers=(8, 6), network_epochs=2, ensemble_size=2)


def fit(name, demonstrations, layers=QUICK.network_layers, epochs=QUICK.network_epochs, seed=0):
    size = {"size": QUICK.ensemble_size} if name == "ensemble" else {}
    return CLASSES[name].fit(demonstrations, layers=layers, epochs=epochs, seed=seed, **size)


def demonstrated(num_steps=600, seed=0):
    """Actions, in units of their own, whose noise depends on the first component of the state.

    The last component of the state does not vary.
    """
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(num_steps, D))
    states[:, 2] = 0.0
    location, scale = demonstrator(states)
    actions = location + scale * rng.normal(size=location.shape)
    ends = [num_steps // 3, num_steps]
    return Demonstrations(SHIFT + UNIT * states, actions, ends)


def demonstrator(states):
    """Location and scale [N, P] of the actions."""
    location = np.stack([np.tanh(2 * states[:, 0]), np.sin(2 * states[:, 1])], axis=1)
    scale = np.where(states[:, :1] > 0, 0.4, 0.1) * np.ones([1, P])
    return 5.0 + 3.0 * location, 3.0 * scale


@pytest.fixture(scope="module")
def demonstrations():
    return demonstrated()


@pytest.fixture(scope="module")
def fitted(demonstrations):
    return {name: fit(name, demonstrations) for name in CLASSES}


def queries(size=11, seed=9):
    return (SHIFT + UNIT * np.random.default_rng(seed).normal(0, 1.5, (size, D))).astype("f")


def made_up(num_networks=4, layers=(7, 5)):
    """A prior of random weights."""
    rng = np.random.default_rng(0)
    arrays = {
        "observation_shift": SHIFT,
        "observation_scale": UNIT,
        "action_shift": np.array([0.3, -0.1]),
        "action_scale": np.array([0.2, 3.0]),
    }
    sizes = (D, *layers, 2 * P)
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        arrays[f"kernel_{index}"] = rng.normal(size=(num_networks, inputs, outputs))
        arrays[f"bias_{index}"] = rng.normal(size=(num_networks, outputs))
    return EnsemblePrior.from_state({"epochs": 3, "seed": 0}, arrays)


def assert_equals_the_oracle(prior, statistics, observations):
    """The mixture's moments by the formula of Lakshminarayanan et al., one network at a time."""
    arrays = {name: array.astype(np.float64) for name, array in prior.state()[1].items()}
    num_layers = sum(name.startswith("kernel") for name in arrays)
    means, squares = [], []
    for network in range(len(arrays["kernel_0"])):
        hidden = (observations - arrays["observation_shift"]) / arrays["observation_scale"]
        for layer in range(num_layers):
            hidden = np.maximum(hidden, 0.0) if layer else hidden
            hidden = hidden @ arrays[f"kernel_{layer}"][network] + arrays[f"bias_{layer}"][network]
        means.append(hidden[:, :P])
        squares.append((1e-4 + np.logaddexp(0.0, hidden[:, P:])) ** 2 + hidden[:, :P] ** 2)
    mean = np.mean(means, axis=0)
    location = arrays["action_shift"] + arrays["action_scale"] * mean
    scale = arrays["action_scale"] * np.sqrt(np.mean(squares, axis=0) - mean**2)
    assert statistics.location.dtype == statistics.scale.dtype == tf.float32
    np.testing.assert_allclose(statistics.location, location, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(statistics.scale, scale, rtol=2e-4)


# Prediction.


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("num_networks", "layers"), [(1, (7, 5)), (4, (7, 5)), (3, (4,))])
def test_statistics_equal_the_oracle(num_networks, layers, jit_compile):
    prior = made_up(num_networks, layers)
    statistics = tf.function(prior.statistics, jit_compile=jit_compile)
    assert_equals_the_oracle(prior, statistics(queries()), queries())
    assert statistics(tf.zeros([0, D])).scale.shape == [0, P]


def test_small_scales_are_kept():
    """Neither rounding, beside a large mean, nor clipping hides a collapse."""
    settings, arrays = made_up(num_networks=2, layers=()).state()
    arrays["kernel_0"][:] = 0.0
    arrays["bias_0"][:] = [3.0, 3.0, -9.0, -200.0]
    scale = EnsemblePrior.from_state(settings, arrays).statistics(queries(1)).scale
    expected = [1e-4 + np.log1p(np.exp(-9.0)), 1e-4]
    np.testing.assert_allclose(scale / arrays["action_scale"], [expected], rtol=1e-3)


# Fits.


@pytest.mark.parametrize("name", CLASSES)
def test_a_fitted_prior_predicts_what_its_arrays_say(name, fitted):
    prior = fitted[name]
    assert_equals_the_oracle(prior, prior.statistics(queries()), queries())
    num_networks = NUM_NETWORKS.get(name, networks.NUM_SAMPLES)
    assert prior.summary == {"networks": num_networks, "epochs": 2}
    assert prior.state()[1]["kernel_0"].shape == (num_networks, D, 8)


@pytest.mark.parametrize("name", CLASSES)
def test_it_learns_location_and_scale(name):
    demonstrations, new = demonstrated(3000), demonstrated(seed=1)
    prior = fit(name, demonstrations, layers=(32, 32), epochs=80)
    states = (new.observations - SHIFT) / UNIT
    baseline, achieved, best = (
        reference.gaussian_log_density(new.actions, location, scale).mean()
        for location, scale in (
            (demonstrations.actions.mean(axis=0), demonstrations.actions.std(axis=0)),
            (part.numpy() for part in prior.statistics(new.observations)),
            demonstrator(states),
        )
    )
    assert baseline + 0.65 * (best - baseline) < achieved < best
    scale = prior.statistics(new.observations).scale.numpy()
    assert np.median(scale[states[:, 0] > 0.3]) > 2.0 * np.median(scale[states[:, 0] < -0.3])


@pytest.mark.parametrize("name", CLASSES)
def test_another_seed_gives_other_weights(name, fitted, demonstrations):
    first, other = fitted[name].state()[1], fit(name, demonstrations, seed=1).state()[1]
    for array in (array for array in first if array.startswith(("kernel", "bias"))):
        assert (other[array] != first[array]).any()


def test_the_first_member_of_an_ensemble_equals_a_single_network(fitted):
    single, ensemble = fitted["gaussian_network"].state()[1], fitted["ensemble"].state()[1]
    for name in (name for name in single if name.startswith(("kernel", "bias"))):
        np.testing.assert_allclose(ensemble[name][:1], single[name], rtol=1e-4, atol=1e-6)
        assert (ensemble[name][0] != ensemble[name][1]).any()


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("gaussian_network", {"epochs": 0}, "epochs must be at least 1; got 0"),
        ("bayesian_network", {"layers": (8, 0)}, r"layers must be positive sizes; got \(8, 0\)"),
        ("ensemble", {"size": 0}, "size must be at least 1; got 0"),
        ("dropout", {"rate": 1.0}, r"rate must be in \[0, 1\); got 1.0"),
    ],
)
def test_an_argument_out_of_range_is_a_users_error(name, wrong, message, demonstrations):
    with pytest.raises(UserError, match=message):
        CLASSES[name].fit(demonstrations, **wrong)


def test_a_fit_that_is_not_finite_is_a_users_error(demonstrations):
    model = network_fitting.stacked_model((D, 4, 2 * P), seeds=[0])
    network_fitting.dense_layers(model)[0].bias.assign(np.full((1, 1, 4), np.nan))
    with pytest.raises(UserError, match="its weights are not finite"):
        network_fitting.maximize_likelihood(model, demonstrations, epochs=1, seeds=[0])


# The Bayesian network and dropout.


@pytest.fixture
def posterior():
    """A Bayesian model, and location and scale of the posterior of each of its kernels."""
    model = network_fitting.bayesian_model((D, 8, 6, 2 * P), num_steps=600, seed=0)
    rng, moments = np.random.default_rng(0), []
    for layer in network_fitting.dense_layers(model):
        location, raw_scale, bias = layer.trainable_variables
        for variable in (location, raw_scale):
            variable.assign(rng.normal(size=variable.shape))
        bias.assign(rng.normal(size=bias.shape))
        moments.append((location.numpy(), np.logaddexp(0.0, raw_scale.numpy()), bias.numpy()))
    return model, moments


def test_the_kl_term_equals_the_closed_form(posterior):
    model, moments = posterior
    model(tf.zeros([1, 5, D]))
    expected = sum(
        reference.gaussian_kl(
            location.ravel(),
            scale.ravel(),
            np.zeros(location.size),
            np.full(location.size, np.sqrt(2.0 / len(location))),
        )
        for location, scale, _ in moments
    )
    assert sum(model.losses).numpy() == pytest.approx(expected / 600, rel=1e-4)


def test_weights_are_sampled_from_the_posterior(posterior):
    model, moments = posterior
    samples = networks.posterior_samples(model, count=4000, seed=0)
    for (kernels, biases), (location, scale, bias) in zip(samples, moments, strict=True):
        np.testing.assert_allclose((kernels.mean(axis=0) - location) / scale, 0.0, atol=0.07)
        np.testing.assert_allclose(kernels.std(axis=0) / scale, 1.0, atol=0.05)
        np.testing.assert_array_equal(biases, np.tile(bias, (4000, 1)))


def test_each_mask_drops_hidden_units(demonstrations):
    rate = 0.25
    prior = DropoutPrior.fit(demonstrations, layers=(80, 70), epochs=1, rate=rate)
    arrays = prior.state()[1]
    for name in ("kernel_0", "bias_0", "bias_1", "bias_2"):  # Inputs are not dropped.
        assert (arrays[name] == arrays[name][0]).all()
    for name in ("kernel_1", "kernel_2"):
        kept = (arrays[name] != 0).all(axis=2)
        np.testing.assert_array_equal((arrays[name] != 0).any(axis=2), kept)  # Whole units.
        assert kept.mean() == pytest.approx(1 - rate, abs=0.04)
        assert len(np.unique(kept, axis=0)) == networks.NUM_SAMPLES
        # What is kept is scaled up by 1 / (1 - rate), here from Glorot's initial weights.
        limit = np.sqrt(6.0 / sum(arrays[name].shape[1:]))
        assert np.abs(arrays[name]).max() == pytest.approx(limit / (1 - rate), rel=0.05)


def test_training_drops_units_and_prediction_does_not():
    model = network_fitting.stacked_model((D, 200, 2 * P), [0], dropout_rate=0.25)
    states = tf.ones([1, 5, D])
    for training in (True, False):
        one, two = (model(states, training=training).mean().numpy() for _ in range(2))
        assert (one != two).any() == training


# Configuration, files, export.


@pytest.mark.parametrize("name", CLASSES)
def test_a_configured_fit_equals_the_fit_and_its_cached_copy(
    name, fitted, demonstrations, tmp_path
):
    for _ in range(2):
        config = dataclasses.replace(QUICK, prior=name).unscaled()
        prior = priors.fit_prior(demonstrations, config, tmp_path)
        assert type(prior) is CLASSES[name]
        assert prior.state()[0] == fitted[name].state()[0]
        for array, expected in zip(
            prior.statistics(queries()), fitted[name].statistics(queries()), strict=True
        ):
            np.testing.assert_array_equal(array, expected)
    assert len(list(tmp_path.iterdir())) == 1


def with_settings(settings):
    return lambda header: np.array(json.dumps({**json.loads(str(header)), "settings": settings}))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("action_scale", None),
        ("kernel_1", lambda array: np.nan * array),
        ("kernel_0", lambda array: array[0]),
        ("kernel_0", lambda array: array[:0]),
        ("kernel_1", lambda array: array[:2]),
        ("kernel_2", lambda array: array[..., 1:]),
        ("bias_0", lambda array: np.float32(1.0)),
        ("observation_scale", lambda array: -array),
        ("action_shift", lambda array: array.astype("U")),
        ("kernel_3", lambda _: np.ones((4, 4, 4))),
        ("header", with_settings({})),
        ("header", with_settings({"epochs": ["x"], "seed": 0})),
    ],
)
def test_a_file_of_something_else_is_a_users_error(tmp_path, name, change):
    path = tmp_path / "prior.npz"
    priors.save_prior(made_up(), path)
    with np.load(path) as file:
        arrays = dict(file)
    before = arrays.pop(name, None)
    if change is not None:
        arrays[name] = change(before)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"prior\.npz is not a prior written by save_prior"):
        priors.load_prior(path)


def test_an_exported_prior_equals_the_prior(tmp_path):
    prior = made_up()
    prior.serve = tf.function(prior.statistics, [tf.TensorSpec([None, D])])
    tf.saved_model.save(prior, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for exported, expected in zip(loaded.serve(queries()), prior.serve(queries()), strict=True):
        np.testing.assert_array_equal(exported, expected)
