"""`NppacAgent` with a uniform prior is `SacAgent`, with TF-Agents' networks and experience."""

import itertools
import re

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.summary import summary_iterator
from tensorflow_probability.python.internal import samplers
from tf_agents.agents.ddpg import critic_network, critic_rnn_network
from tf_agents.agents.sac import sac_agent, tanh_normal_projection_network
from tf_agents.networks import (
    actor_distribution_network,
    actor_distribution_rnn_network,
    nest_map,
    sequential,
)
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.priors import UniformPrior

B, T = 6, 5
OBSERVATION = tensor_spec.TensorSpec([3], tf.float32, "observation")
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, [-1.0, -2.0], [1.0, 3.0], "action")
NESTED_OBSERVATION = {
    "camera": tensor_spec.TensorSpec([2, 2], tf.float32, "camera"),
    "joints": tensor_spec.TensorSpec([3], tf.float32, "joints"),
}
NESTED_ACTION = (ACTION, tensor_spec.BoundedTensorSpec([], tf.float32, -1.0, 1.0, "gripper"))


def dense(units=None):
    return tf.keras.layers.Dense(units or 8, activation=None if units else "relu")


def feed_forward(squash=True):
    projection = {}
    if squash:
        kind = tanh_normal_projection_network.TanhNormalProjectionNetwork
        projection = {"continuous_projection_net": kind}
    actor = actor_distribution_network.ActorDistributionNetwork(
        OBSERVATION, ACTION, fc_layer_params=(8,), **projection
    )
    regularizer = tf.keras.regularizers.l2(0.1)
    critics = [
        sequential.Sequential(
            [
                nest_map.NestMap((dense(), dense())),
                tf.keras.layers.Lambda(lambda parts: tf.concat(parts, axis=-1)),
                tf.keras.layers.Dense(1, kernel_regularizer=regularizer),
                tf.keras.layers.Lambda(lambda values: values[..., 0]),
            ]
        )
        if squash
        else critic_network.CriticNetwork((OBSERVATION, ACTION), joint_fc_layer_params=(8,))
        for _ in range(2)
    ]
    return OBSERVATION, ACTION, actor, critics


def unsquashed():
    return feed_forward(squash=False)


def recurrent():
    actor = actor_distribution_rnn_network.ActorDistributionRnnNetwork(
        OBSERVATION,
        ACTION,
        input_fc_layer_params=(8,),
        output_fc_layer_params=None,
        lstm_size=(4,),
        continuous_projection_net=tanh_normal_projection_network.TanhNormalProjectionNetwork,
    )
    critics = [
        critic_rnn_network.CriticRnnNetwork(
            (OBSERVATION, ACTION), joint_fc_layer_params=(8,), lstm_size=(4,)
        )
        for _ in range(2)
    ]
    return OBSERVATION, ACTION, actor, critics


def nested():
    layers = {"camera": tf.keras.layers.Flatten(), "joints": dense()}
    combiner = tf.keras.layers.Concatenate()
    actor = actor_distribution_network.ActorDistributionNetwork(
        NESTED_OBSERVATION,
        NESTED_ACTION,
        preprocessing_layers=layers,
        preprocessing_combiner=combiner,
        fc_layer_params=(8,),
    )
    action_layers = (dense(), sequential.Sequential([tf.keras.layers.Reshape([1]), dense()]))
    critics = [
        sequential.Sequential(
            [
                nest_map.NestMap((nest_map.NestMap(layers), nest_map.NestMap(action_layers))),
                nest_map.NestFlatten(),
                tf.keras.layers.Concatenate(),
                tf.keras.layers.Dense(1),
                tf.keras.layers.Lambda(lambda values: values[..., 0]),
            ]
        ).copy()
        for _ in range(2)
    ]
    return NESTED_OBSERVATION, NESTED_ACTION, actor, critics


def sizes(observation, action):
    return [
        sum(spec.shape.num_elements() for spec in tf.nest.flatten(nest))
        for nest in (observation, action)
    ]


def pair(networks, **arguments):
    """Both agents, with equal weights."""
    agents = []
    for kind in (NppacAgent, sac_agent.SacAgent):
        observation, action, actor, critics = networks()
        if kind is NppacAgent:
            prior = UniformPrior(*sizes(observation, action))
            own = {"prior": prior, "divergence": "sampled"}
        agent = kind(
            ts.time_step_spec(observation),
            action,
            critics[0],
            actor,
            *(tf.keras.optimizers.legacy.SGD(0.1) for _ in range(3)),
            critic_network_2=critics[1],
            actor_loss_weight=0.7,
            critic_loss_weight=0.4,
            alpha_loss_weight=1.3,
            target_entropy=-1.5,
            initial_log_alpha=-0.7,
            target_update_tau=0.1,
            gamma=0.9,
            reward_scale_factor=2.0,
            train_step_counter=tf.Variable(0, dtype=tf.int64),
            **(own if kind is NppacAgent else {}),
            **arguments,
        )
        agent.initialize()
        agents.append(agent)
    ours, theirs = agents
    for one, other in zip(variables_of(ours), variables_of(theirs), strict=True):
        one.assign(other)
    return ours, theirs


def variables_of(agent):
    networks = (
        agent._actor_network,
        agent._critic_network_1,
        agent._critic_network_2,
        agent._target_critic_network_1,
        agent._target_critic_network_2,
    )
    return [*itertools.chain(*(network.variables for network in networks)), agent._log_alpha]


def sampled(spec, *leading):
    """Random values of a spec; actions stay off their bounds, where densities are infinite."""
    rng = np.random.default_rng(3)

    def values(part):
        low, high = getattr(part, "minimum", -1.0), getattr(part, "maximum", 1.0)
        drawn = rng.uniform(0.95 * low, 0.95 * high, (*leading, *part.shape))
        return tf.constant(drawn, part.dtype)

    return tf.nest.map_structure(values, spec)


def a_trajectory(agent, length):
    """Episodes end within it, by termination or by the horizon."""
    steps = tf.constant([[ts.StepType.MID] * length] * B)
    if length > 2:
        steps = tf.constant([[0, 1, 1, 2, 0], [1, 2, 0, 1, 1]] * (B // 2))
    rng = np.random.default_rng(4)
    return trajectory.Trajectory(
        step_type=steps,
        observation=sampled(agent.time_step_spec.observation, B, length),
        action=sampled(agent.action_spec, B, length),
        policy_info=(),
        next_step_type=tf.roll(steps, -1, axis=1),
        reward=tf.constant(rng.normal(size=(B, length)), tf.float32),
        discount=tf.constant(rng.integers(0, 2, (B, length)), tf.float32),
    )


def a_transition(agent, length):
    """The same as a `Transition`, without the axis of time where it is of one step."""
    first, step, last = trajectory.to_transition(a_trajectory(agent, length))
    if length > 2:
        return trajectory.Transition(first, step, last)
    squeezed = tf.nest.map_structure(lambda x: tf.squeeze(x, axis=1), (first, step, last))
    return trajectory.Transition(*squeezed)


@pytest.fixture
def same_samples(monkeypatch):
    """Gives the policies of both agents, whose seeds differ, the same normal numbers."""
    noise = np.random.default_rng(5).normal(size=1000).astype(np.float32)

    def normal(shape, *_, **__):
        size = tf.reduce_prod(shape)
        return tf.reshape(tf.constant(noise)[:size], shape)

    monkeypatch.setattr(samplers, "normal", normal)


@pytest.mark.parametrize(
    ("networks", "length"),
    [(feed_forward, 2), (unsquashed, 2), (recurrent, T), (nested, 2)],
)
@pytest.mark.usefixtures("same_samples")
def test_losses_and_gradients_are_those_of_sac_agent(networks, length):
    ours, theirs = pair(networks)
    some = tf.constant(np.linspace(0.0, 2.0, B), tf.float32)
    for experience, weights in itertools.product((a_trajectory, a_transition), (None, some)):
        given = experience(theirs, length)
        before = [variable.numpy() for variable in variables_of(theirs)]
        expected = theirs.train(given, weights)
        found = ours.train(given, weights)
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-4, atol=1e-5)
        for name, loss in expected.extra._asdict().items():
            np.testing.assert_allclose(getattr(found.extra, name), loss, rtol=1e-4, atol=1e-5)
        # Plain gradient descent: the changes are the gradients, and those of the target critics.
        steps = list(zip(variables_of(ours), variables_of(theirs), before, strict=True))
        for one, other, start in steps:
            np.testing.assert_allclose(one - start, other - start, rtol=2e-3, atol=1e-6)
        assert np.mean([(other != start).numpy().any() for _, other, start in steps]) > 0.9


@pytest.mark.usefixtures("same_samples")
def test_losses_without_training_are_those_of_sac_agent():
    ours, theirs = pair(feed_forward)
    given = a_trajectory(theirs, 2)
    np.testing.assert_allclose(ours.loss(given).extra, theirs.loss(given).extra, rtol=1e-4)
    assert int(ours.train_step_counter) == 0


@pytest.mark.usefixtures("same_samples")
def test_a_weight_of_zero_masks_a_transition():
    ours, _ = pair(feed_forward)
    given = a_trajectory(ours, 2)
    keep = np.arange(B) % 2
    whole = ours.loss(given, tf.constant(keep, tf.float32)).extra
    broken = given._replace(reward=tf.where(keep[:, None] > 0, given.reward, np.inf))
    for one, other in zip(
        whole, ours.loss(broken, tf.constant(keep, tf.float32)).extra, strict=True
    ):
        np.testing.assert_array_equal(one, other)


def tags_in(folder):
    """Without the numbers that Keras counts up in the names of layers, process-wide."""
    (path,) = folder.iterdir()
    return {
        re.sub(r"_\d+(?=[/_]|$)", "", value.tag)
        for event in summary_iterator.summary_iterator(str(path))
        for value in event.summary.value
    }


def test_the_summaries_are_those_of_sac_agent_and_more(tmp_path):
    tags = []
    for agent in pair(feed_forward, debug_summaries=True, summarize_grads_and_vars=True):
        folder = tmp_path / type(agent).__name__
        with tf.summary.create_file_writer(str(folder)).as_default():
            tf.function(agent.train)(a_trajectory(agent, 2))
        tags.append(tags_in(folder))
    ours, theirs = tags
    assert len(theirs) > 20
    assert theirs <= ours
    assert "Losses/kl" in ours - theirs


def test_a_sample_near_the_bounds_has_the_right_density():
    """Where tanh is flat: from the Gaussian numbers of the same seed, in 64 bits."""
    ours, _ = pair(feed_forward)
    kernel, bias = ours.actor_network.trainable_variables[-2:]
    kernel.assign(0.1 * kernel)
    bias.assign([4.0, -4.0, 1.0, 1.0])  # Means and log deviations.
    states = ours._states(ts.restart(sampled(OBSERVATION, 500), 500))
    policy = ours.policy_distribution(states)
    seed = tf.constant([1, 2])
    actions, _, log_prob = ours._actions_and_kl(states, seed, training=False)
    gaussian = policy.input_distribution
    number = gaussian.sample(seed=seed).numpy().astype(np.float64)
    mean, deviation = (x.numpy().astype(np.float64) for x in (gaussian.mean(), gaussian.stddev()))
    half_range = (ACTION.maximum - ACTION.minimum).astype(np.float64) / 2
    slope = np.log(half_range) + 2 * (np.log(2) - np.logaddexp(number, -number))
    density = -0.5 * np.square((number - mean) / deviation) - np.log(deviation)
    expected = (density - 0.5 * np.log(2 * np.pi) - slope).sum(axis=1)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-3)
    assert np.abs(number).max() > 9  # Where float32's tanh is 1, and a copy's density wrong.
    assert np.abs(policy.log_prob(tf.identity(actions)) - expected).max() > 1


def test_experience_of_another_structure_is_refused():
    ours, _ = pair(nested)
    given = a_transition(ours, 2)
    with pytest.raises((TypeError, ValueError), match="structure"):
        ours.actor_loss(given.time_step._replace(observation=tf.zeros([B, 3])))
