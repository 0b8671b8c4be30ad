"""The measured claims against closed forms, numerical integration and NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf
from fakes import FakeTask, LinearPrior, point_demonstrations, point_task
from scipy import stats

from nppac_tf import claims, divergences
from nppac_tf.agents.batch import Batch
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.claims import (
    c1_degeneracy,
    c2_predictive_scale,
    c4_gradients,
    c5_calibration,
    predictions,
)
from nppac_tf.config import AgentConfig, PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.priors import FixedScalePrior, PriorStatistics
from nppac_tf.priors.base import BehavioralPrior
from nppac_tf.priors.fitting import fit_prior
from nppac_tf.priors.standardization import Standardization


class DistancePrior(BehavioralPrior):
    """Location 0; the scale is 0.1 times one plus the distance from the origin."""

    def statistics(self, observations):
        scale = 0.1 * (1.0 + tf.norm(observations, axis=-1, keepdims=True))
        location = tf.zeros([tf.shape(observations)[0], self.action_size])
        return PriorStatistics(location, scale + tf.zeros_like(location))

    def state(self):
        raise NotImplementedError


def noisy_demonstrations(num_episodes=6, length=15):
    """Episodes in three dimensions, the last constant, whose actions are smooth plus noise."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(num_episodes):
        states = np.cumsum(rng.normal(size=(length, 3)), axis=0) * [0.3, 0.1, 0.0]
        actions = np.stack([np.sin(states[:, 0]), 3 * states[:, 1]], axis=1)
        episodes.append((states, actions + 0.05 * rng.normal(size=actions.shape)))
    return Demonstrations.from_episodes(episodes, name="noisy")


# C1


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.03])
def test_integrated_kl_of_gaussians_is_the_closed_form(scale):
    integrated = c1_degeneracy.integrated_kl(lambda a: stats.norm.logpdf(a, 0.0, scale))
    by_hand = math.log(scale) + 1 / (2 * scale**2) - 0.5
    assert integrated == pytest.approx(by_hand, rel=1e-6, abs=1e-9)


def test_both_families_agree_with_integration_and_grow_without_bound():
    result = claims.measure_degeneracy(num_scales=7)
    for exact, integrated in (
        (result.narrowing_kl, result.narrowing_integrated),
        (result.vanishing_kl, result.vanishing_integrated),
    ):
        np.testing.assert_allclose(exact, integrated, rtol=1e-4, atol=1e-6)
        assert exact[0] == pytest.approx(0.0, abs=1e-9)
        assert (np.diff(exact) > 0).all()
    assert np.isinf(result.vanishing_kl[-1])
    assert np.isfinite(result.vanishing_kl[:-1]).all()
    for density in (*result.narrowing[:3], *result.vanishing):
        assert np.trapz(density, result.actions) == pytest.approx(1.0, abs=5e-3)


# C2


def test_principal_components_are_those_of_the_singular_value_decomposition():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5))
    directions, explained = c2_predictive_scale.principal_components(states, 2)
    _, singular, rows = np.linalg.svd(states - states.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(directions * rows[:2], axis=1)), 1.0)
    np.testing.assert_allclose(explained, (singular**2 / np.sum(singular**2))[:2])
    assert all(direction[np.abs(direction).argmax()] > 0 for direction in directions)


def test_the_scale_at_a_state_is_a_geometric_mean():
    prediction = predictions.Prediction(
        np.zeros((2, 2)), np.array([[1.0, 4.0], [2.0, 8.0]]), np.array([[9.0, 1.0], [1.0, 1.0]])
    )
    bands = c2_predictive_scale.quantile_bands(prediction, groups=2)
    np.testing.assert_allclose(bands.mean, [[2.0, 4.0]] * 3)
    np.testing.assert_allclose(bands.action, [[3.0, 1.0]] * 3)


def test_a_gaussian_process_has_two_scales_and_a_network_one():
    fitted = noisy_demonstrations()
    prior = fit_prior(fitted, PriorConfig(prior="gp").unscaled())
    prediction = predictions.predictor(prior)(fitted.observations)
    _, arrays = prior.state()
    unit = arrays["action_scale"]
    log_scale = prior.uncertainty(tf.constant(fitted.observations)).numpy()
    np.testing.assert_allclose(prediction.mean_scale, np.exp(log_scale)[:, None] * unit, rtol=1e-4)
    noise = np.square(unit) * arrays["noise_variance"]
    np.testing.assert_allclose(
        np.square(prediction.action_scale) - np.square(prediction.mean_scale),
        np.broadcast_to(noise, prediction.location.shape),
        rtol=1e-2,
    )
    prediction = predictions.predictor(LinearPrior(3, 2, scale=0.7))(np.zeros((600, 3)))
    assert prediction.location.shape == (600, 2)  # More than a batch.
    np.testing.assert_allclose(prediction.mean_scale, 0.7)
    np.testing.assert_array_equal(prediction.mean_scale, prediction.action_scale)


@pytest.fixture(scope="module")
def measured():
    fitted, held_out = noisy_demonstrations().split(0.34, 0)
    priors = {"gaussian_network": LinearPrior(3, 2, scale=0.2), "gp": DistancePrior(3, 2)}
    arguments = (priors, fitted, held_out)
    scales = claims.measure_predictive_scales(*arguments, num_states=50, grid_size=8)
    return scales, claims.measure_calibration(priors, held_out), fitted, held_out


def test_a_constant_scale_is_constant_and_another_grows_with_distance(measured):
    result, _, fitted, _ = measured
    for bands in result.places["gaussian_network"].values():
        np.testing.assert_allclose(bands.mean, 0.2, rtol=1e-6)
    np.testing.assert_allclose(result.plane.scales["gaussian_network"], 0.2, rtol=1e-6)
    assert (np.diff(result.away["gp"].mean[1][4:]) > 0).all()
    assert set(result.ratios("gp")) == {"fitted", "held_out", "midpoints", "far"}
    known = 0.1 * (1 + np.linalg.norm(fitted.observations, axis=1))
    ends = result.lines["gp"].mean[:, [0, -1]]
    assert known.min() - 1e-6 <= ends.min() <= ends.max() <= known.max() + 1e-6
    # Ten standard deviations in each of two dimensions; the third is constant.
    spread = np.linalg.norm(10 * fitted.observations.std(axis=0))
    assert 0.5 * spread < result.away["gp"].mean[1, -1] / 0.1 - 1 < 1.6 * spread
    aims = result.numbers()["aims"]
    assert aims["network_stays_within_twice_its_value_on_data"] == {"far": True}
    assert aims["gp_rises_tenfold"] == {"far": result.ratios("gp")["far"] >= 10}


def test_lines_join_different_episodes():
    data = noisy_demonstrations()
    first, second = c2_predictive_scale.episode_pairs(data, 40, np.random.default_rng(0))
    episode = {tuple(s): i for i, (states, _) in enumerate(data.episodes()) for s in states}
    assert all(episode[tuple(a)] != episode[tuple(b)] for a, b in zip(first, second, strict=True))


def test_the_plane_passes_through_the_demonstrations():
    data = noisy_demonstrations()
    units = Standardization.of(data.observations)
    plane, grid = c2_predictive_scale.principal_plane(data, units, 6)
    directions, _ = c2_predictive_scale.principal_components(units(data.observations), 2)
    points = np.stack(np.meshgrid(plane.x, plane.y), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(units(grid) @ directions.T, points, atol=1e-9)
    np.testing.assert_allclose(grid[:, 2], data.observations[0, 2], atol=1e-6)
    trajectory = units(next(data.episodes())[0]) @ directions.T
    np.testing.assert_allclose(plane.trajectories[0], trajectory)


def test_states_are_visited_by_the_prior_and_at_random():
    with point_task(horizon=12) as task:
        data, _ = point_demonstrations(task, 3, speed=0.5, noise=0.1)
        result = claims.measure_predictive_scales(
            {"gaussian_network": DistancePrior(2, 2)}, data, data, task, 50, 2, 4
        )
        assert {"own", "random"} <= set(result.places["gaussian_network"])

        def still(states):
            return predictions.Prediction(0.0 * states, *[1e-6 + 0.0 * states] * 2)

        visited = c2_predictive_scale.visited_states(task, still, 2, seed=0)
        random = c2_predictive_scale.visited_states(task, None, 2, seed=0)
    assert visited.shape == (24, 2)
    np.testing.assert_allclose(visited[0], visited[11], atol=1e-3)
    assert np.abs(random[0] - random[11]).max() > 1e-2
    np.testing.assert_array_equal(random[0], visited[0])


# C5


def test_held_out_actions_are_covered_as_by_hand(measured):
    _, result, _, held_out = measured
    errors = held_out.actions - held_out.observations.mean(1)[:, None] - 0.3
    accuracy = result.accuracy["gaussian_network"]
    for level, covered in zip(c5_calibration.LEVELS, accuracy.coverage, strict=True):
        inside = np.abs(errors) <= 0.2 * stats.norm.ppf(0.5 + level / 2)
        assert covered == pytest.approx(inside.mean(), abs=1e-6)
    np.testing.assert_array_equal(accuracy.coverage, accuracy.mean_coverage)
    assert result.episodes["gaussian_network"].mean() == pytest.approx(accuracy.coverage[1])


# C4


def test_the_gradient_of_the_kl_by_hand_and_by_differentiation():
    # (1 - 0.5) / 0.1^2 = 50 and 0.2^2 / 0.1^2 - 1 = 3.
    arguments = [tf.constant([[value]]) for value in (1.0, math.log(0.2), 0.5, 0.1)]
    location, log_scale, prior_location, prior_scale = arguments
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        kl = divergences.gaussian_kl(location, tf.exp(log_scale), prior_location, prior_scale)
    by_tape = tape.gradient(kl, [location, log_scale])
    found = c4_gradients.kl_output_gradient(*(np.array([[x]]) for x in (1.0, 0.2, 0.5, 0.1)))
    np.testing.assert_allclose(np.ravel(found), [50.0, 3.0])
    np.testing.assert_allclose(np.ravel(by_tape), [50.0, 3.0], rtol=1e-5)


@pytest.mark.parametrize("slope", [-2.0, -1.0, 0.5])
def test_the_slope_of_a_power_law(slope):
    x = np.geomspace(1e-4, 10, 20)
    assert c4_gradients.power_law(x, 7.0 * x**slope) == pytest.approx(slope)


def test_where_a_regime_ends():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert c4_gradients.largest_while(x, np.array([True, True, False, True])) == 2.0
    assert math.isnan(c4_gradients.largest_while(x, np.array([False, True, True, True])))


def test_gradients_grow_with_slope_minus_two_and_are_those_of_an_update():
    states = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    prior = LinearPrior(3, 2, offset=0.3)
    result = claims.measure_gradient_growth(
        prior, states, FakeTask.of(), np.geomspace(1e-3, 30.0, 12)
    )
    numbers = result.numbers()
    assert numbers["aim_slope_is_minus_2_within_0.1"]
    assert numbers["slope"] == pytest.approx(-2.0, abs=0.1)
    np.testing.assert_allclose(result.closed_form, result.differentiated, rtol=1e-3)
    for norms in result.actors.values():
        assert (np.diff(norms.prior[:8]) < 0).all()
        np.testing.assert_allclose(norms.q, norms.q[0], rtol=1e-5)

    config = AgentConfig(
        actor="network", divergence="closed_form", temperature=0.1, reward_scale=1.0
    )
    agent = NppacAgent.for_task(FakeTask.of(), prior, config)
    statistics = FixedScalePrior(prior, float(result.scales[0])).statistics(tf.constant(states))
    zeros = tf.zeros(len(states))
    batch = Batch(states, tf.zeros([len(states), 2]), zeros, zeros, states, statistics, statistics)
    info = agent.update(batch, learn_policy=False).extra
    # The Q term has other samples, but is negligible beside the KL term here.
    norm = result.actors["gaussian_closed_form"].total[0]
    assert float(info.actor_gradient_norm) == pytest.approx(norm, rel=1e-3)


# C9


class Homing(LinearPrior):
    """Heads for the origin at the speed of `offset`."""

    def statistics(self, observations):
        location = -self.offset * observations / tf.norm(observations, axis=-1, keepdims=True)
        return PriorStatistics(location, tf.fill(tf.shape(location), 0.1))


def test_priors_of_few_demonstrations_act_from_the_same_starts():
    drawn = []

    def fit(part, name):
        drawn.append((name, part.num_episodes, part.fingerprint()))
        return Homing(2, 2, offset=part.num_episodes / 6)

    with point_task(horizon=30) as task:
        data = point_demonstrations(task, num_episodes=6, speed=1.0, noise=0.0)[0]
        result = claims.measure_few_demonstrations(
            data, task, fit, ["gp", "dropout"], counts=(6, 1, 4, 15), num_subsets=2, num_episodes=3
        )
    assert result.counts == (1, 4, 6)
    assert [(name, size) for name, size, _ in drawn] == [
        (name, size) for name in ("gp", "dropout") for size in (1, 1, 4, 4, 6)
    ]
    assert len({fingerprint for *_, fingerprint in drawn}) == 5
    values = result.values["gp"]
    assert values.shape == (3, 2, 3)
    assert (np.diff(values.mean(axis=(1, 2))) > 0).all()  # Who is faster is at the goal for longer.
    np.testing.assert_array_equal(values[:, 0], values[:, 1])
    np.testing.assert_array_equal(values, result.values["dropout"])
    rows = result.table()[1]
    assert len(rows) == 12
    assert rows[0] == ("gp", 1, 0, values[0, 0].mean(), np.median(values[0, 0]))
    assert result.numbers()["mean_by_subset"]["gp"].shape == (3, 2)
    assert f"{values[-1].mean():,.3g} from 6 demonstrations" in result.finding()
    assert result.figure().axes[0].get_ylabel() == "B, time at goal of the prior's mean"
