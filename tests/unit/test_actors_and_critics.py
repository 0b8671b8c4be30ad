import fakes
import numpy as np
import pytest
import reference
import tensorflow as tf
from tf_agents.specs import tensor_spec

from nppac_tf.agents import actors
from nppac_tf.agents.actors import ActorNetwork, AnchoredActorNetwork, SquashedGaussian
from nppac_tf.agents.batch import States
from nppac_tf.agents.critics import CriticNetwork
from nppac_tf.agents.layers import LayerNorm, ObservationStandardization
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig
from nppac_tf.priors import PriorStatistics

LOW = np.array([-1.0, -2.0], np.float32)
HIGH = np.array([1.0, 5.0], np.float32)
OBSERVATION_SPEC = tf.TensorSpec([3], tf.float32)
ACTION_SPEC = tensor_spec.BoundedTensorSpec([2], tf.float32, LOW, HIGH)
OBSERVATIONS = tf.random.stateless_normal([64, 3], seed=[0, 1])
RANGES = [(-0.01, 0.01), (-1.0, 1.0), (-50.0, 50.0), (-2.0, 5.0), (0.0, 1e-3)]


def actor(squash=False, seed=0, layers=(16,)):
    network = ActorNetwork(OBSERVATION_SPEC, ACTION_SPEC, layers, squash, seed)
    network.create_variables()
    return network


def critic(seed=0, layer_norm=False):
    network = CriticNetwork((OBSERVATION_SPEC, ACTION_SPEC), (16, 8), layer_norm, seed=seed)
    network.create_variables()
    return network


def weights_of(network):
    return [variable.numpy() for variable in network.trainable_variables]


def squashed(location, scale):
    center, half_range = (HIGH + LOW) / 2, (HIGH - LOW) / 2
    return SquashedGaussian(tf.constant(location), tf.constant(scale), center, half_range)


# An actor of its own.


@pytest.mark.parametrize("observation_scale", [1.0, 1e4])
@pytest.mark.parametrize("squash", [True, False])
def test_an_actor_stays_within_asymmetric_bounds(observation_scale, squash):
    network = actor(squash)
    distribution = network(observation_scale * OBSERVATIONS)[0]
    assert (distribution.batch_shape, distribution.event_shape) == ([64], [2])
    bounded = [distribution.mode().numpy(), distribution.mean().numpy()]
    samples = distribution.sample(50, seed=[1, 2]).numpy()
    assert np.ptp(samples[:, :, 1]) > 2
    if squash:
        bounded.append(samples)
    else:  # Samples of a Gaussian may leave the bounds.
        assert (samples > HIGH).any()
        assert (samples < LOW).any()
    for actions in bounded:
        assert (actions >= LOW).all()
        assert (actions <= HIGH).all()


@pytest.mark.parametrize("half_range", [0.01, 50.0])
@pytest.mark.parametrize("squash", [True, False])
def test_a_policy_is_the_same_up_to_the_range_of_actions(squash, half_range):
    unit, other = (
        ActorNetwork(
            OBSERVATION_SPEC,
            tensor_spec.BoundedTensorSpec([2], tf.float32, -bound, bound),
            (16,),
            squash,
        )(OBSERVATIONS)[0]
        for bound in (1.0, half_range)
    )
    quantities = [lambda d: d.mode(), lambda d: d.sample(seed=[1, 2])]
    if not squash:
        quantities.append(lambda d: d.stddev())
    for quantity in quantities:
        np.testing.assert_allclose(quantity(other), half_range * quantity(unit), rtol=1e-5)


def test_the_mode_of_the_squashed_gaussian_is_the_image_of_the_mean():
    distribution = squashed([[0.0, 0.5]], [[0.3, 0.7]])
    expected = [[0.0, 1.5 + 3.5 * np.tanh(0.5)]]
    np.testing.assert_allclose(distribution.mode(), expected, rtol=1e-6)
    np.testing.assert_allclose(distribution.mean(), expected, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_squashed_density_is_the_oracles(compiled):
    rng = np.random.default_rng(0)
    location = rng.normal(size=(200, 2)).astype(np.float32)
    scale = rng.uniform(0.1, 0.8, size=(200, 2)).astype(np.float32)

    def sample_and_log_prob():
        return squashed(location, scale).experimental_sample_and_log_prob(seed=[3, 4])

    if compiled:
        sample_and_log_prob = tf.function(sample_and_log_prob, jit_compile=True)
    actions, log_probs = sample_and_log_prob()
    by_component = squashed(location, scale).log_prob_by_component(actions)
    # atanh of a float32 action near the bounds is inaccurate; within them the densities must agree.
    unit = (actions.numpy() - LOW) / (HIGH - LOW)
    inner = ((unit > 0.02) & (unit < 0.98)).all(axis=1)
    assert inner.mean() > 0.5
    expected = reference.squashed_log_density(
        *(array[inner].astype(np.float64) for array in (actions.numpy(), location, scale)),
        LOW.astype(np.float64),
        HIGH.astype(np.float64),
    )
    for found in (log_probs.numpy(), by_component.numpy().sum(axis=1)):
        np.testing.assert_allclose(found[inner], expected, rtol=1e-4, atol=1e-3)


def test_the_density_of_a_saturated_sample_is_right_and_so_is_its_gradient():
    location = tf.Variable([[15.0, -15.0]])
    scale = 0.1 * tf.ones([1, 2])
    with tf.GradientTape() as tape:
        distribution = SquashedGaussian(location, scale, (HIGH + LOW) / 2, (HIGH - LOW) / 2)
        actions, log_prob = distribution.experimental_sample_and_log_prob(seed=[3, 4])
    np.testing.assert_allclose(actions, [[1.0, -2.0]], atol=1e-5)
    # The slope of tanh at u tends to 4 exp(-2 |u|), whose log has the gradient -2 sign(u).
    u = distribution.distribution.sample(seed=[3, 4]).numpy()
    gaussian = reference.gaussian_log_density(u, location.numpy(), scale.numpy())
    expected = gaussian - (np.log(4 * (HIGH - LOW) / 2) - 2 * np.abs(u)).sum(axis=-1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(log_prob, location), [[2.0, -2.0]], rtol=1e-4)


@pytest.mark.parametrize("squash", [True, False])
def test_samples_are_differentiable_in_the_weights(squash):
    network = actor(squash)
    with tf.GradientTape() as tape:
        actions, _ = network(tf.ones([4, 3]))[0].experimental_sample_and_log_prob(seed=[1, 2])
        total = tf.reduce_sum(tf.square(actions))
    gradients = tape.gradient(total, network.trainable_variables)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_the_log_scale_is_clipped():
    network = actor()
    for bias, expected in zip((-100.0, 100.0), np.exp(actors.LOG_SCALE_RANGE), strict=True):
        network._log_scale_layer.bias.assign([bias, bias])
        scale = network(tf.ones([2, 3]))[0].stddev() / ((HIGH - LOW) / 2)
        np.testing.assert_allclose(scale, np.full([2, 2], expected), rtol=1e-6)


# An actor that is anchored to the prior.


def anchored_agent(low, high, scale=0.3):
    """An agent, and its prior's location and scale at `OBSERVATIONS`, inside the bounds.

    The scale is a share of half the range; the second action has the range of the first, mirrored.
    """
    bounds = np.array([[low, -high], [high, -low]])
    center, half_range = bounds.mean(axis=0), np.ptp(bounds, axis=0) / 2

    class Inside(fakes.LinearPrior):
        def statistics(self, observations):
            unit = 0.98 * tf.sin(2.0 * observations[:, :2])
            return PriorStatistics(
                tf.cast(center, tf.float32) + tf.cast(half_range, tf.float32) * unit,
                tf.cast(scale * half_range, tf.float32) * tf.ones_like(unit),
            )

    task = fakes.FakeTask.of(3, *bounds)
    config = AgentConfig(actor_layers=(8,), critic_layers=(8,), learning_rate=1e-2)
    return NppacAgent.for_task(task, Inside(3, 2), config), half_range


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_an_anchored_actor_is_the_prior_until_it_learns(low, high):
    agent, half_range = anchored_agent(low, high)
    assert agent.anchored
    statistics = agent.prior.statistics(OBSERVATIONS)
    policy = agent.policy_distribution(States.at(OBSERVATIONS, statistics))
    error = (policy.mean() - statistics.location) / half_range.astype(np.float32)
    np.testing.assert_allclose(error, np.zeros([64, 2]), atol=2e-6)
    np.testing.assert_allclose(policy.stddev(), statistics.scale, rtol=1e-6)
    kl = agent.prior.kl_divergence(statistics, policy.mean(), policy.stddev())
    np.testing.assert_allclose(kl, np.zeros(64), atol=1e-6)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_a_trained_anchored_actor_keeps_its_mean_inside_the_bounds(low, high):
    agent, half_range = anchored_agent(low, high)
    network = agent.actor_network
    before = network(OBSERVATIONS)[0]
    for variable in network.trainable_variables:
        variable.assign_add(3.0 * tf.random.stateless_normal(variable.shape, [5, 6]))
    evaluated = network(OBSERVATIONS)[0]
    given = network(OBSERVATIONS, statistics=agent.prior.statistics(OBSERVATIONS))[0]
    np.testing.assert_array_equal(evaluated.mean(), given.mean())
    np.testing.assert_array_equal(evaluated.stddev(), given.stddev())
    bounds = agent.action_spec
    assert (evaluated.mean() >= bounds.minimum).numpy().all()
    assert (evaluated.mean() <= bounds.maximum).numpy().all()
    assert np.abs((evaluated.mean() - before.mean()) / half_range.astype(np.float32)).max() > 0.5
    stretch = evaluated.stddev() / before.stddev()
    assert np.ptp(stretch) > 0.1
    assert np.exp(-5.001) < np.min(stretch) < np.max(stretch) < np.exp(2.001)


def test_the_weights_of_an_anchored_actor_are_its_own_alone():
    prior = fakes.LinearPrior(3, 2)
    network = AnchoredActorNetwork(OBSERVATION_SPEC, ACTION_SPEC, prior.statistics, (8,))
    network.create_variables()
    assert not {id(v) for v in network.variables} & {id(v) for v in prior.variables}
    assert len(network.trainable_variables) == 4  # Weights and biases of two layers.


# Observations in standard units.


def test_standardization_leaves_constants_alone_and_cuts_off_what_is_far():
    agent = NppacAgent.for_task(
        fakes.FakeTask.of(), fakes.LinearPrior(3, 2), AgentConfig(actor_layers=(8,))
    )
    data = np.random.default_rng(0).normal([5.0, -3.0, 7.0], [2.0, 1e-3, 0.0], (1000, 3))
    agent.standardize(data.astype(np.float32))
    networks = [agent.actor_network, agent.deployed_actor, *agent._critics, *agent._target_critics]
    layers = [
        layer
        for network in networks
        for layer in network.submodules
        if isinstance(layer, ObservationStandardization)
    ]
    assert len(layers) == 2 + 2 * AgentConfig.num_critics
    expected = np.array(
        [
            (data[:5] - data.mean(axis=0)) / [data[:, 0].std(), data[:, 1].std(), 1.0],
            np.full((5, 3), 10.0),
        ]
    )
    for layer in layers:
        assert not layer.trainable_variables
        near, far = layer(tf.constant(data[:5], tf.float32)), layer(tf.fill([5, 3], 1e6))
        np.testing.assert_allclose(near, expected[0], atol=1e-2)
        np.testing.assert_array_equal(far, expected[1])


# Weights, critics.


@pytest.mark.parametrize("make", [lambda seed: actor(seed=seed, layers=(16, 16, 16)), critic])
def test_weights_follow_the_seed_and_layers_differ(make):
    for one, same, other in zip(*map(weights_of, (make(7), make(7), make(8))), strict=True):
        np.testing.assert_array_equal(one, same)
        assert one.ndim == 1 or (one != other).mean() > 0.9
    kernels = [w for w in weights_of(make(7)) if w.shape == (16, 16)]
    assert all((one != other).all() for one, other in zip(kernels[1:], kernels[:-1], strict=True))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_critic_is_the_plain_network_of_its_weights(layer_norm):
    network = critic(layer_norm=layer_norm)
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(5, size)).astype(np.float32) for size in (3, 2)]
    hidden = np.concatenate(inputs, axis=1)
    for layer in network._trunk:
        hidden = hidden @ layer.kernel.numpy() + layer.bias.numpy()
        if layer_norm:
            hidden = (hidden - hidden.mean(axis=1)[:, None]) / hidden.std(axis=1)[:, None]
        hidden = np.maximum(hidden, 0)
    last = network._value_layer
    values, state = network(tuple(map(tf.constant, inputs)))
    np.testing.assert_allclose(values, (hidden @ last.kernel + last.bias)[:, 0], 1e-3, 1e-4)
    assert state == ()


def test_layer_norm_and_its_gradient_equal_kerass():
    ours, theirs = LayerNorm(), tf.keras.layers.LayerNormalization(epsilon=1e-6)
    inputs = tf.Variable(3.0 + 5.0 * tf.random.stateless_normal([32, 20], seed=[0, 0]))
    gain, offset, slope = (tf.random.stateless_normal([20], seed=[0, i]) for i in (1, 2, 3))
    results = []
    for layer in (ours, theirs):
        layer.build(inputs.shape)
        layer.set_weights([gain, offset])
        with tf.GradientTape() as tape:
            outputs = layer(inputs)
            total = tf.reduce_sum(tf.sin(outputs) * slope)
        results.append([outputs, *tape.gradient(total, [inputs, *layer.trainable_variables])])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("actor", [{"actor": "anchored"}, {"actor": "network", "squash": True}])
def test_a_locked_joint_is_held_and_nothing_stops_being_finite(actor):
    task = fakes.FakeTask.of(low=(-1.0, 0.5), high=(1.0, 0.5))
    config = AgentConfig(actor_layers=(4,), critic_layers=(4,), **actor)
    agent = NppacAgent.for_task(task, fakes.LinearPrior(3, 2), config)
    observations = tf.random.stateless_normal([9, 3], seed=[0, 1])
    policy = agent.actor_network(observations, step_type=(), network_state=())[0]
    actions, log_prob = policy.experimental_sample_and_log_prob(seed=[2, 3])
    np.testing.assert_allclose(policy.mode()[:, 1], 0.5, atol=1e-5)
    assert np.isfinite(actions).all()
    assert np.isfinite(log_prob).all()
