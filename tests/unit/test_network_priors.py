import dataclasses
import json

import fakes
import numpy as np
import pytest
import reference
import tensorflow as tf

from nppac_tf import priors
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.export import export_policy
from nppac_tf.priors import (
    BayesianNetworkPrior,
    DropoutPrior,
    EnsemblePrior,
    GaussianNetworkPrior,
    Novelty,
    network_fitting,
)

D, P = 3, 2
SHIFT, UNIT = np.array([0.0, 10.0, -3.0]), np.array([1.0, 2.0, 0.5])
CLASSES = [GaussianNetworkPrior, EnsemblePrior, BayesianNetworkPrior, DropoutPrior]
NAMES = dict(
    zip(("gaussian_network", "ensemble", "bayesian_network", "dropout"), CLASSES, strict=True)
)
LEARNING_RATE = network_fitting._LEARNING_RATE
QUICK = PriorConfig(network_layers=(8, 6), network_epochs=2, ensemble_size=2, num_network_samples=3)


def demonstrated(num_steps=600, num_episodes=6, seed=0):
    """Actions whose noise depends on the first component of the state, in units of their own.

    The last component of the state does not vary.
    """
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(num_steps, D))
    states[:, 2] = 0.0
    mean = np.stack([np.tanh(2 * states[:, 0]), np.sin(2 * states[:, 1])], axis=1)
    actions = 5.0 + 3.0 * (mean + deviation(states) * rng.normal(size=mean.shape))
    ends = np.linspace(0, num_steps, num_episodes + 1).astype(int)[1:]
    return Demonstrations(SHIFT + UNIT * states, actions, ends)


def deviation(states):
    return np.where(states[:, :1] > 0, 0.4, 0.1)


@pytest.fixture(scope="module")
def demonstrations():
    return demonstrated()


@pytest.fixture(scope="module")
def fitted(demonstrations):
    return {cls: cls.fit(demonstrations, QUICK) for cls in CLASSES}


def queries(size=11, seed=9, spread=1.5):
    return (SHIFT + UNIT * np.random.default_rng(seed).normal(0, spread, (size, D))).astype("f")


def made_up(cls=EnsemblePrior, num_networks=4, layers=(7, 5), seed=0):
    """A prior of random weights, which no fit has tuned."""
    rng = np.random.default_rng(seed)
    arrays = {
        "observation_shift": SHIFT,
        "observation_scale": UNIT,
        "action_shift": np.array([0.3, -0.1]),
        "action_scale": np.array([0.2, 3.0]),
    }
    num_inputs = D
    for index, units in enumerate((*layers, 2 * P)):
        arrays[f"kernel_{index}"] = rng.normal(size=(num_networks, num_inputs, units))
        arrays[f"bias_{index}"] = rng.normal(size=(num_networks, units))
        num_inputs = units
    return cls.from_state({"epochs": [3], "seed": 0}, arrays)


def parameters(prior, observations):
    """Locations and deviations [K, B, P] of the networks, standardized, by NumPy."""
    arrays = {name: array.astype(np.float64) for name, array in prior.state()[1].items()}
    states = (observations - arrays["observation_shift"]) / arrays["observation_scale"]
    num_networks = len(arrays["kernel_0"])
    num_layers = sum(name.startswith("kernel") for name in arrays)
    outputs = []
    for network in range(num_networks):
        hidden = states
        for layer in range(num_layers):
            hidden = hidden @ arrays[f"kernel_{layer}"][network] + arrays[f"bias_{layer}"][network]
            if layer < num_layers - 1:
                hidden = np.maximum(hidden, 0.0)
        outputs.append(hidden)
    outputs = np.array(outputs)
    return outputs[..., :P], 1e-4 + np.logaddexp(0.0, outputs[..., P:])


def oracle(prior, observations):
    """Mean and deviation of the mixture, by the formula of Lakshminarayanan et al."""
    arrays = prior.state()[1]
    locations, scales = parameters(prior, observations)
    mean = locations.mean(axis=0)
    variance = (scales**2 + locations**2).mean(axis=0) - mean**2
    return (
        arrays["action_shift"] + arrays["action_scale"] * mean,
        arrays["action_scale"] * np.sqrt(variance),
    )


def assert_are_the_oracles(prior, statistics, observations):
    location, scale = oracle(prior, observations)
    assert statistics.location.dtype == statistics.scale.dtype == tf.float32
    np.testing.assert_allclose(statistics.location, location, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(statistics.scale, scale, rtol=2e-4)


# Prediction.


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("num_networks", "layers"), [(1, (7, 5)), (4, (7, 5)), (3, (4,))])
def test_statistics_are_the_oracles(num_networks, layers, jit_compile):
    prior = made_up(num_networks=num_networks, layers=layers)
    observations = queries()
    location, scale = oracle(prior, observations)
    assert np.ptp(location, axis=0).min() > 0.1
    assert np.ptp(scale, axis=0).min() > 0.1
    compiled = tf.function(prior.statistics, jit_compile=jit_compile)
    for statistics in (prior.statistics(observations), compiled(observations)):
        assert_are_the_oracles(prior, statistics, observations)


def constant(locations, scales):
    """A prior whose networks give K locations and deviations whatever the state; D = P = 1."""
    raw = np.log(np.expm1(np.asarray(scales) - 1e-4))
    outputs = np.stack([locations, raw], axis=1)
    units = {f"{kind}_scale": np.ones(1) for kind in ("observation", "action")}
    shifts = {f"{kind}_shift": np.zeros(1) for kind in ("observation", "action")}
    weights = {"kernel_0": np.zeros((len(outputs), 1, 2)), "bias_0": outputs}
    return EnsemblePrior.from_state({"epochs": [1], "seed": 0}, {**units, **shifts, **weights})


def test_moments_are_matched_by_hand():
    # Between networks 1, within 0.25 and 0.09.
    location, scale = constant([-1.0, 1.0], [0.5, 0.3]).statistics(tf.zeros([1, 1]))
    assert location.numpy() == pytest.approx(0.0)
    assert scale.numpy() == pytest.approx(np.sqrt(1.17), rel=1e-5)


def test_a_small_deviation_is_not_lost_beside_a_large_mean():
    _, scale = constant([3.0, 3.0], [2e-4, 2e-4]).statistics(tf.zeros([1, 1]))
    assert scale.numpy() == pytest.approx(2e-4, rel=1e-3)


def test_the_deviation_of_a_network_is_not_held_up():
    """Down to a ten thousandth of the actions' deviation: the pathology is not clipped away."""
    prior = constant([0.0], [0.5])
    settings, arrays = prior.state()
    arrays["kernel_0"][0, 0, 1] = -1.0
    prior = EnsemblePrior.from_state(settings, arrays)
    scale = prior.statistics(tf.constant([[0.0], [8.0], [100.0]])).scale.numpy()[:, 0]
    np.testing.assert_allclose(scale, [0.5, 1e-4 + 0.4999 * np.exp(-8) * 1.2974, 1e-4], rtol=1e-2)


def test_an_empty_batch_gives_an_empty_batch():
    location, scale = made_up().statistics(tf.zeros([0, D]))
    assert location.shape == scale.shape == [0, P]


# Fits.


@pytest.mark.parametrize("cls", CLASSES)
def test_a_fitted_prior_predicts_what_its_arrays_say(cls, fitted):
    prior = fitted[cls]
    assert (prior.observation_size, prior.action_size) == (D, P)
    assert prior.informative
    assert_are_the_oracles(prior, prior.statistics(queries()), queries())
    assert prior.trainable_variables == ()
    num_networks = {GaussianNetworkPrior: 1, EnsemblePrior: 2}.get(cls, 3)
    assert prior.summary == {"networks": num_networks, "epochs": 2.0}
    first, bias = prior.state()[1]["kernel_0"], prior.state()[1]["bias_2"]
    assert first.shape == (num_networks, D, 8)
    assert bias.shape == (num_networks, 2 * P)


@pytest.mark.parametrize("cls", CLASSES)
def test_it_learns(cls, demonstrations, monkeypatch):
    monkeypatch.setattr(network_fitting, "_LEARNING_RATE", 5e-3)
    config = dataclasses.replace(QUICK, network_layers=(32, 32), network_epochs=100)
    prior = cls.fit(demonstrations, config)
    new = demonstrated(seed=1)
    location, scale = (part.numpy() for part in prior.statistics(new.observations))
    achieved = reference.gaussian_log_density(new.actions, location, scale).mean()
    constant_gaussian = reference.gaussian_log_density(
        new.actions, demonstrations.actions.mean(axis=0), demonstrations.actions.std(axis=0)
    ).mean()
    states = (new.observations - SHIFT) / UNIT
    noise = 3.0 * deviation(states) * np.ones([1, P])
    best = reference.gaussian_log_density(
        new.actions, new.actions - noise * standard_normal(new, states), noise
    ).mean()
    assert constant_gaussian + 0.65 * (best - constant_gaussian) < achieved < best
    # And it knows where the demonstrator is sure of what to do.
    wide = states[:, 0] > 0.3
    narrow = states[:, 0] < -0.3
    assert np.median(scale[wide]) > 2.0 * np.median(scale[narrow])


def standard_normal(data, states):
    mean = np.stack([np.tanh(2 * states[:, 0]), np.sin(2 * states[:, 1])], axis=1)
    return (data.actions - 5.0 - 3.0 * mean) / (3.0 * deviation(states))


@pytest.mark.parametrize("cls", CLASSES)
def test_the_seed_decides_all(cls, fitted, demonstrations):
    first = fitted[cls].state()[1]
    again = cls.fit(demonstrations, QUICK).state()[1]
    other = cls.fit(demonstrations, dataclasses.replace(QUICK, prior_seed=1)).state()[1]
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)
        assert name in priors.neural._UNITS or (other[name] != array).any()


def test_a_member_of_an_ensemble_is_the_network_that_it_would_be_alone(fitted):
    single, ensemble = fitted[GaussianNetworkPrior].state()[1], fitted[EnsemblePrior].state()[1]
    for name in single.keys() - set(priors.neural._UNITS):
        np.testing.assert_allclose(ensemble[name][:1], single[name], rtol=1e-4, atol=1e-6)
        assert (ensemble[name][0] != ensemble[name][1]).any()


def test_the_ensemble_is_less_sure_where_its_members_differ(fitted):
    _, scales = parameters(fitted[EnsemblePrior], queries(spread=20.0))
    _, scale = oracle(fitted[EnsemblePrior], queries(spread=20.0))
    within = fitted[EnsemblePrior].state()[1]["action_scale"] * np.sqrt((scales**2).mean(axis=0))
    assert (scale > within).all()


# Regularizers.


def test_weight_decay_shrinks_kernels_at_its_rate(fitted, demonstrations):
    """The last component of the state says nothing: its weights have no gradient, only decay."""
    decayed = GaussianNetworkPrior.fit(demonstrations, dataclasses.replace(QUICK, weight_decay=20))
    free, shrunk = (
        prior.state()[1]["kernel_0"][0, 2] for prior in (fitted[GaussianNetworkPrior], decayed)
    )
    num_steps = 2 * (600 // 256)
    assert np.abs(free).min() > 1e-3
    np.testing.assert_allclose(shrunk, free * (1 - LEARNING_RATE * 20) ** num_steps, rtol=1e-5)


def test_the_entropy_bonus_widens_the_deviation_as_documented(monkeypatch):
    monkeypatch.setattr(network_fitting, "_LEARNING_RATE", 1e-2)
    rng = np.random.default_rng(0)
    noise = Demonstrations(np.zeros((512, 1)), rng.normal(size=(512, 1)), [512])
    config = PriorConfig(network_layers=(4,), network_epochs=250)
    plain, widened = (
        GaussianNetworkPrior.fit(noise, dataclasses.replace(config, entropy_bonus=bonus))
        .statistics(tf.zeros([1, 1]))
        .scale.numpy()
        for bonus in (0.0, 0.36)
    )
    deviation = noise.actions.std()
    assert plain == pytest.approx(deviation, rel=0.05)
    assert widened == pytest.approx(1.25 * deviation, rel=0.05)


def test_early_stopping_restores_the_best_weights():
    noise = np.random.default_rng(0).normal(size=(400, 4 + P))
    data = Demonstrations(noise[:, :4], noise[:, 4:], [100, 200, 300, 400])
    config = PriorConfig(
        network_layers=(64,),
        network_epochs=400,
        early_stopping_patience=30,
        validation_fraction=0.25,
    )
    stopped = GaussianNetworkPrior.fit(data, config)
    (epochs,) = stopped.state()[0]["epochs"]
    assert 0 < epochs < 370
    training, held_out = data.split(0.25, config.prior_seed)
    shorter, longer = (
        GaussianNetworkPrior.fit(
            training,
            dataclasses.replace(config, early_stopping_patience=0, network_epochs=number),
        )
        for number in (epochs, epochs + 30)
    )
    for name, array in stopped.state()[1].items():
        np.testing.assert_array_equal(array, shorter.state()[1][name])
    best, worse = (
        reference.gaussian_log_density(held_out.actions, *prior.statistics(held_out.observations))
        for prior in (shorter, longer)
    )
    assert np.mean(best) > np.mean(worse)


def test_each_member_keeps_its_own_best():
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, use_bias=False, input_shape=(2,))])
    (variable,) = model.trainable_variables  # [2, 1]: one row per member.
    best = network_fitting._Best(model, 2, patience=2)
    losses = [(3.0, 9.0), (1.0, 8.0), (2.0, 7.0), (2.0, 6.0), (0.0, 7.0), (0.0, 6.5)]
    done = []
    for epoch, loss in enumerate(losses, start=1):
        variable.assign([[10.0 * epoch], [10.0 * epoch + 1]])
        done.append(best.exhausted(epoch, np.array(loss)))
    # The first is done after epoch 4, and its 0.0 comes too late; the second after epoch 6.
    assert done == [False] * 5 + [True]
    np.testing.assert_array_equal(best.restore(), [2, 4])
    np.testing.assert_array_equal(variable, [[20.0], [41.0]])


def test_a_single_episode_cannot_be_held_out():
    config = dataclasses.replace(QUICK, early_stopping_patience=5)
    with pytest.raises(UserError, match="early_stopping_patience must be 0 with a single episode"):
        EnsemblePrior.fit(demonstrated(num_episodes=1), config)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_fit_that_is_not_finite_is_a_users_error(monkeypatch, epochs):
    """Seen in the loss, or, after the last update, in the weights."""
    monkeypatch.setattr(network_fitting, "_LEARNING_RATE", np.inf)
    config = dataclasses.replace(QUICK, network_epochs=epochs)
    with pytest.raises(UserError, match="stopped being finite"):
        GaussianNetworkPrior.fit(demonstrated(num_steps=200), config)


# The Bayesian network and dropout.


def test_the_kl_term_is_the_closed_form(demonstrations):
    data = network_fitting.Data(demonstrations, QUICK)
    model = network_fitting.bayesian_model(data, (8, 6), seed=0)
    model(data.states[np.newaxis, :5])
    expected = 0.0
    layers = network_fitting.dense_layers(model)
    for index, layer in enumerate(layers):
        rng = np.random.default_rng(index)
        shape = layer.kernel_posterior.event_shape
        location, raw = rng.normal(size=shape), rng.normal(size=shape)
        loc, untransformed = layer.trainable_variables[:2]
        loc.assign(location)
        untransformed.assign(raw)
        size = location.size
        expected += reference.gaussian_kl(
            location.ravel(),
            np.logaddexp(0.0, raw).ravel(),
            np.zeros(size),
            np.full(size, np.sqrt(2.0 / shape[0])),
        )
    model(data.states[np.newaxis, :5])
    assert [layer.kernel_posterior.event_shape[0] for layer in layers] == [D, 8, 6]
    assert sum(model.losses).numpy() == pytest.approx(expected / data.states.shape[0], rel=1e-4)


def test_the_weights_are_drawn_from_the_posterior(demonstrations, monkeypatch):
    known = {}

    def fit(model, *_):
        for index, layer in enumerate(network_fitting.dense_layers(model)):
            loc, untransformed, bias = layer.trainable_variables
            untransformed.assign(tf.fill(untransformed.shape, -1.0 - index))
            bias.assign(tf.fill(bias.shape, 0.1 * (index + 1)))
            known[f"kernel_{index}"] = (loc.numpy(), np.log1p(np.exp(-1.0 - index)))
            known[f"bias_{index}"] = (0.1 * (index + 1), 0.0)
        return np.array([1])

    monkeypatch.setattr(network_fitting, "maximize_likelihood", fit)
    config = dataclasses.replace(QUICK, num_network_samples=4000)
    arrays = BayesianNetworkPrior.fit(demonstrations, config).state()[1]
    for name, (mean, scale) in known.items():
        np.testing.assert_allclose(arrays[name].mean(axis=0) - mean, 0.0, atol=0.03)
        np.testing.assert_allclose(arrays[name].std(axis=0), scale, atol=0.03)


def test_each_mask_leaves_hidden_units_out(demonstrations):
    rate = 0.25
    config = dataclasses.replace(
        QUICK, network_layers=(80, 70), num_network_samples=50, dropout_rate=rate, network_epochs=1
    )
    arrays = DropoutPrior.fit(demonstrations, config).state()[1]
    for name in ("kernel_0", "bias_0", "bias_1", "bias_2"):  # No input is left out.
        np.testing.assert_array_equal(arrays[name], np.repeat(arrays[name][:1], 50, axis=0))
        assert (arrays[name] != 0).all()
    for name in ("kernel_1", "kernel_2"):
        kept = (arrays[name] != 0).all(axis=2)
        np.testing.assert_array_equal((arrays[name] != 0).any(axis=2), kept)  # Units, not weights.
        assert kept.mean() == pytest.approx(1 - rate, abs=0.04)
        assert len(np.unique(kept, axis=0)) == 50
        whole = arrays[name].max(axis=0, where=kept[..., np.newaxis], initial=-np.inf)
        np.testing.assert_array_equal(arrays[name], kept[..., np.newaxis] * whole)
        # The sum over the units kept has the size of that over all: 1 / (1 - rate) of Glorot's.
        limit = np.sqrt(6.0 / sum(whole.shape))
        assert np.abs(whole).max() == pytest.approx(limit / (1 - rate), rel=0.05)


def test_units_are_left_out_in_training(demonstrations):
    data = network_fitting.Data(demonstrations, QUICK)
    model = network_fitting.stacked_model(data, (200,), [0], dropout_rate=0.25)
    first, *_ = network_fitting.dense_layers(model)
    dropout = model.layers[model.layers.index(first) + 1]
    dropped = dropout(tf.ones([1, 50, 200]), training=True).numpy()
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert np.mean(dropped == 0.0) == pytest.approx(0.25, abs=0.02)
    states = data.states[np.newaxis]
    one, two = (model(states, training=True).mean().numpy() for _ in range(2))
    assert (one != two).any()
    still, again = (model(states, training=False).mean().numpy() for _ in range(2))
    np.testing.assert_array_equal(still, again)


# Configuration, files, cache, export.


@pytest.mark.parametrize("name", NAMES)
def test_the_cache_gives_the_prior_to_the_bit(name, fitted, tmp_path, monkeypatch):
    fits = []

    def fit(demonstrations, config):
        fits.append(config)
        return fitted[NAMES[name]]

    monkeypatch.setattr(NAMES[name], "fit", fit)
    data, config = demonstrated(), dataclasses.replace(QUICK, prior=name)
    for _ in range(2):
        prior = priors.fit_prior(data, config, tmp_path)
        assert type(prior) is NAMES[name]
        same_to_the_bit(prior, fitted[NAMES[name]])
    assert len(fits) == 1
    priors.fit_prior(data, dataclasses.replace(config, entropy_bonus=0.5), tmp_path)
    assert len(fits) == 2


def same_to_the_bit(one, other):
    for a, b in zip(one.statistics(queries()), other.statistics(queries()), strict=True):
        np.testing.assert_array_equal(a, b)
    (settings, arrays), (other_settings, other_arrays) = one.state(), other.state()
    assert settings == other_settings
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        assert array.dtype == other_arrays[name].dtype == np.float32
        np.testing.assert_array_equal(array, other_arrays[name])


def nan(array):
    return np.full_like(array, np.nan)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("kernel_1", None),
        ("bias_0", None),
        ("action_scale", None),
        ("kernel_1", nan),
        ("bias_2", nan),
        ("observation_shift", nan),
        ("kernel_0", lambda array: array[0]),
        ("kernel_0", lambda array: array[:0]),
        ("kernel_0", lambda array: np.float32(1.0)),
        ("kernel_1", lambda array: array[:2]),
        ("kernel_1", lambda array: array[:, 1:]),
        ("kernel_2", lambda array: array[..., 1:]),
        ("bias_1", lambda array: array[:, 1:]),
        ("bias_0", lambda array: np.float32(1.0)),
        ("observation_scale", lambda array: -array),
        ("action_scale", lambda array: 0 * array),
        ("action_shift", lambda array: array[:1]),
        ("action_shift", lambda array: array.astype("U")),
        ("kernel_3", lambda _: np.ones((4, 4, 4))),
        ("stranger", lambda _: np.ones(3)),
    ],
)
def test_a_file_whose_arrays_make_no_networks_is_a_users_error(tmp_path, name, change):
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


@pytest.mark.parametrize("settings", [{}, None, {"epochs": 3, "seed": 0}, {"epochs": ["x"]}])
def test_a_file_whose_settings_are_of_something_else_is_a_users_error(tmp_path, settings):
    path = tmp_path / "prior.npz"
    priors.save_prior(made_up(), path)
    with np.load(path) as file:
        arrays = dict(file)
    header = {**json.loads(str(arrays.pop("header"))), "settings": settings}
    np.savez(path, header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(UserError, match="is not a prior written by save_prior"):
        priors.load_prior(path)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_file_gives_the_class_back(cls, tmp_path):
    prior = made_up(cls)
    priors.save_prior(prior, tmp_path / "prior.npz")
    loaded = priors.load_prior(tmp_path / "prior.npz")
    assert type(loaded) is cls
    same_to_the_bit(prior, loaded)


def test_the_export_holds_the_prior_to_the_bit(fitted, demonstrations, tmp_path):
    prior = fitted[EnsemblePrior]
    config = AgentConfig(actor_layers=(8,), critic_layers=(8,))
    agent = NppacAgent.for_task(fakes.FakeTask.of(D), prior, config, seed=3)
    novelty = Novelty.calibrate(prior, demonstrations)
    export_policy(agent, tmp_path / "policy", novelty=novelty)
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    observations = tf.constant(queries())
    outputs = loaded.action_with_prior(observations)
    statistics, uncertainty = tf.function(prior.predict)(observations)
    np.testing.assert_array_equal(outputs["prior_location"], statistics.location)
    np.testing.assert_array_equal(outputs["prior_scale"], statistics.scale)
    np.testing.assert_array_equal(outputs["novelty"], novelty(uncertainty))
    np.testing.assert_allclose(
        uncertainty, np.log(oracle(prior, queries())[1]).mean(axis=1), atol=1e-4
    )
