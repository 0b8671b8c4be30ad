import numpy as np
import pytest
import reference
import tensorflow as tf
from tf_agents.specs import tensor_spec

from nppac_tf.agents import networks
from nppac_tf.agents.networks import ActorNetwork, CriticNetwork, LayerNorm, SquashedGaussian

LOW = np.array([-1.0, -2.0], np.float32)
HIGH = np.array([1.0, 5.0], np.float32)
OBSERVATION_SPEC = tf.TensorSpec([3], tf.float32)
ACTION_SPEC = tensor_spec.BoundedTensorSpec([2], tf.float32, LOW, HIGH)


def actor(observation_scale=1.0, **kwargs):
    """An actor, and its distribution at 64 observations."""
    network = ActorNetwork(OBSERVATION_SPEC, ACTION_SPEC, layers=(16,), **kwargs)
    observations = observation_scale * tf.random.stateless_normal([64, 3], seed=[0, 1])
    return network, network(observations)[0]


def critic(seed=0, layer_norm=False):
    network = CriticNetwork((OBSERVATION_SPEC, ACTION_SPEC), (16, 8), layer_norm, seed=seed)
    network.create_variables()
    return network


def weights_of(network):
    return [variable.numpy() for variable in network.trainable_variables]


def squashed(location, scale):
    center, half_range = (HIGH + LOW) / 2, (HIGH - LOW) / 2
    return SquashedGaussian(tf.constant(location), tf.constant(scale), center, half_range)


@pytest.mark.parametrize("observation_scale", [1.0, 1e4])
def test_a_squashed_actor_stays_within_asymmetric_bounds(observation_scale):
    _, distribution = actor(observation_scale, squash=True)
    samples = distribution.sample(50, seed=[1, 2]).numpy()
    assert samples.shape == (50, 64, 2)
    assert (samples >= LOW).all()
    assert (samples <= HIGH).all()
    assert np.ptp(samples[:, :, 1]) > 2
    assert (distribution.mode() >= LOW).numpy().all()
    assert (distribution.mode() <= HIGH).numpy().all()


def test_the_mean_of_a_gaussian_actor_stays_within_bounds_but_not_its_samples():
    _, distribution = actor(1e4, squash=False)
    np.testing.assert_allclose(np.min(distribution.mean(), axis=0), LOW)
    np.testing.assert_allclose(np.max(distribution.mean(), axis=0), HIGH)
    samples = distribution.sample(50, seed=[1, 2]).numpy()
    assert (samples > HIGH).any()
    assert (samples < LOW).any()


@pytest.mark.parametrize("squash", [True, False])
def test_an_actor_is_a_batch_of_distributions_over_actions(squash):
    network, distribution = actor(squash=squash)
    assert distribution.batch_shape == [64]
    assert distribution.event_shape == [2]
    # Two layers for a hidden one, location, and log scale: weights and biases.
    assert len(network.trainable_variables) == 6
    assert all(variable.trainable for variable in network.variables)


@pytest.mark.parametrize("squash", [True, False])
def test_a_fresh_actor_acts_near_the_middle_of_the_bounds(squash):
    _, distribution = actor(squash=squash)
    offset = (distribution.mode() - (LOW + HIGH) / 2) / ((HIGH - LOW) / 2)
    assert np.abs(offset).max() < 0.5
    assert np.abs(offset).max() > 0


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
    # atanh of a float32 action near the bounds is inaccurate; within them the densities must agree.
    unit = (actions.numpy() - LOW) / (HIGH - LOW)
    inner = ((unit > 0.02) & (unit < 0.98)).all(axis=1)
    assert inner.mean() > 0.5
    expected = reference.squashed_log_density(
        *(array[inner].astype(np.float64) for array in (actions.numpy(), location, scale)),
        LOW.astype(np.float64),
        HIGH.astype(np.float64),
    )
    np.testing.assert_allclose(log_probs.numpy()[inner], expected, rtol=1e-4, atol=1e-4)


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
    network = ActorNetwork(OBSERVATION_SPEC, ACTION_SPEC, layers=(16,), squash=squash)
    with tf.GradientTape() as tape:
        distribution, _ = network(tf.ones([4, 3]))
        actions, _ = distribution.experimental_sample_and_log_prob(seed=[1, 2])
        total = tf.reduce_sum(tf.square(actions))
    gradients = tape.gradient(total, network.trainable_variables)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_the_log_scale_is_clipped():
    network, _ = actor(squash=False)
    low, high = networks.LOG_SCALE_RANGE
    for bias, expected in ((-100.0, np.exp(low)), (100.0, np.exp(high))):
        network._log_scale_layer.bias.assign([bias, bias])
        scale = network(tf.ones([2, 3]))[0].stddev()
        np.testing.assert_allclose(scale, np.full([2, 2], expected), rtol=1e-6)


@pytest.mark.parametrize("make", [lambda seed: actor(seed=seed)[0], critic])
def test_weights_follow_the_seed(make):
    for one, same, other in zip(*map(weights_of, (make(7), make(7), make(8))), strict=True):
        np.testing.assert_array_equal(one, same)
        assert one.ndim == 1 or (one != other).mean() > 0.9


def test_layers_of_one_network_differ():
    network = ActorNetwork(OBSERVATION_SPEC, ACTION_SPEC, layers=(16, 16, 16))
    network.create_variables()
    kernels = [w for w in weights_of(network) if w.shape == (16, 16)]
    assert len(kernels) == 2
    assert (kernels[0] != kernels[1]).all()


def test_a_critic_gives_one_value_per_row():
    network = critic()
    values, state = network((tf.ones([5, 3]), tf.ones([5, 2])))
    assert values.shape == [5]
    assert state == ()


def test_a_critic_is_the_plain_network_of_its_weights():
    network = critic()
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))
    w1, b1, w2, b2, w3, b3 = weights_of(network)
    hidden = np.maximum(np.concatenate([observations, actions], axis=1) @ w1 + b1, 0)
    hidden = np.maximum(hidden @ w2 + b2, 0)
    values, _ = network((tf.constant(observations, tf.float32), tf.constant(actions, tf.float32)))
    np.testing.assert_allclose(values, (hidden @ w3 + b3)[:, 0], rtol=1e-4, atol=1e-6)


def test_layer_normalization_comes_before_the_rectifier():
    network = critic(layer_norm=True)
    assert len(network.trainable_variables) == 10
    # With a negative gain the rectifier passes what lies below the mean.
    inputs = (tf.ones([5, 3]), tf.ones([5, 2]))
    for norm in network._norms:
        norm.gain.assign(tf.zeros_like(norm.gain))
        norm.offset.assign(-tf.ones_like(norm.offset))
    np.testing.assert_array_equal(network(inputs)[0], np.zeros(5))


def test_layer_norm_equals_kerass():
    ours, theirs = LayerNorm(), tf.keras.layers.LayerNormalization(epsilon=1e-6)
    inputs = 3.0 + 5.0 * tf.random.stateless_normal([32, 20], seed=[0, 0])
    gain = tf.random.stateless_normal([20], seed=[0, 1])
    offset = tf.random.stateless_normal([20], seed=[0, 2])
    for layer in (ours, theirs):
        layer.build(inputs.shape)
        layer.set_weights([gain, offset])
    np.testing.assert_allclose(ours(inputs), theirs(inputs), rtol=1e-4, atol=1e-5)
