"""The agent with the drivers and replay buffers of TF-Agents."""

import fakes
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.ddpg import critic_network
from tf_agents.drivers import dynamic_episode_driver, dynamic_step_driver
from tf_agents.environments import tf_py_environment
from tf_agents.networks import actor_distribution_network
from tf_agents.policies import greedy_policy, policy_loader, py_tf_eager_policy
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.train import actor, learner, triggers
from tf_agents.train.utils import train_utils
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import nest_utils

from nppac_tf.agents.actors import ActorNetwork, AnchoredActorNetwork
from nppac_tf.agents.critics import CriticNetwork
from nppac_tf.agents.nppac import NppacAgent, NppacLossInfo
from nppac_tf.config import AgentConfig
from nppac_tf.environments import GymnasiumPyEnvironment

HORIZON = 8


@pytest.fixture
def environment():
    with fakes.point_task(HORIZON) as task:
        yield tf_py_environment.TFPyEnvironment(GymnasiumPyEnvironment(task, seed=0))


def networks_of(kind, environment):
    specs = environment.observation_spec(), environment.action_spec()
    if kind == "TF-Agents'":
        return (
            actor_distribution_network.ActorDistributionNetwork(*specs, fc_layer_params=(8,)),
            critic_network.CriticNetwork(specs, joint_fc_layer_params=(8,)),
        )
    actor = ActorNetwork(*specs, layers=(8,), squash=kind == "squashed")
    return actor, CriticNetwork(specs, layers=(8,), layer_norm=False)


def trained(agent, environment, driver_class, **driver_arguments):
    """Collects, trains five times, and returns the losses."""
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
        agent.collect_data_spec, environment.batch_size, max_length=100
    )
    driver = driver_class(environment, agent.collect_policy, [buffer.add_batch], **driver_arguments)
    driver.run()
    dataset = iter(buffer.as_dataset(sample_batch_size=16, num_steps=2))
    return [agent.train(next(dataset)[0]) for _ in range(5)]


@pytest.mark.parametrize("kind", ["squashed", "Gaussian", "TF-Agents'"])
def test_collect_and_train(environment, kind):
    actor, critic = networks_of(kind, environment)

    def adam():
        return tf.keras.optimizers.Adam(1e-2)

    agent = NppacAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        critic,
        actor,
        adam(),
        adam(),
        adam(),
        prior=fakes.LinearPrior(2, 2),
        target_kl=1.0,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    agent.initialize()
    variables = [
        *actor.trainable_variables,
        *critic.trainable_variables,
        *agent._critic_network_2.trainable_variables,
        *agent._target_critic_network_1.trainable_variables,
        agent._log_alpha,
    ]
    before = [variable.numpy() for variable in variables]
    losses = trained(agent, environment, dynamic_step_driver.DynamicStepDriver, num_steps=30)
    for loss in losses:
        assert isinstance(loss.extra, NppacLossInfo)
        assert np.isfinite(loss.loss)
        assert np.isfinite(loss.extra).all()
    assert int(agent.train_step_counter) == 5
    for variable, value in zip(variables, before, strict=True):
        assert (variable.numpy() != value).any()

    greedy = greedy_policy.GreedyPolicy(agent.policy)
    actions = [greedy.action(environment.current_time_step()).action for _ in range(2)]
    np.testing.assert_array_equal(*actions)


def test_an_anchored_actor_with_actor_and_learner(environment, tmp_path):
    prior = fakes.LinearPrior(2, 2)
    specs = environment.observation_spec(), environment.action_spec()
    train_step = train_utils.create_train_step()
    agent = NppacAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        CriticNetwork(specs, layers=(8,), layer_norm=False),
        AnchoredActorNetwork(*specs, prior.statistics, layers=(8,)),
        *(tf.keras.optimizers.Adam(1e-2) for _ in range(3)),
        prior=prior,
        target_kl=1.0,
        train_step_counter=train_step,
    )
    observations = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    step = ts.restart(tf.constant(observations), 4)
    policy = greedy_policy.GreedyPolicy(agent.policy)
    location = np.clip(prior.statistics(observations).location, -0.99, 0.99)
    np.testing.assert_allclose(policy.action(step).action, location, atol=1e-5)

    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
        agent.collect_data_spec, batch_size=1, max_length=100
    )
    collect_actor = actor.Actor(
        environment.pyenv.envs[0],
        py_tf_eager_policy.PyTFEagerPolicy(agent.collect_policy, use_tf_function=True),
        train_step,
        steps_per_run=20,
        observers=[lambda each: buffer.add_batch(nest_utils.batch_nested_array(each))],
    )
    collect_actor.run()
    agent_learner = learner.Learner(
        str(tmp_path),
        train_step,
        agent,
        lambda: buffer.as_dataset(sample_batch_size=16, num_steps=2),
        triggers=[
            triggers.PolicySavedModelTrigger(str(tmp_path / "policies"), agent, train_step, 5)
        ],
    )
    loss = agent_learner.run(iterations=5)
    assert int(train_step) == 5
    assert np.isfinite(loss.loss)
    learned = policy.action(step).action
    assert np.abs(learned - location).max() > 1e-3
    # What was saved has what it needs of the prior.
    prior.offset.assign(5.0)
    checkpoint = tmp_path / "policies/checkpoints/policy_checkpoint_0000000005"
    saved = policy_loader.load(str(tmp_path / "policies/greedy_policy"), str(checkpoint))
    actions = [saved.action(ts.restart(each)).action for each in observations]
    np.testing.assert_allclose(actions, learned, rtol=1e-4, atol=1e-5)


def test_collect_and_train_an_agent_of_a_task(environment):
    with fakes.point_task(HORIZON + 1) as task:
        agent = NppacAgent.for_task(
            task, fakes.LinearPrior(2, 2), AgentConfig(actor_layers=(8,), critic_layers=(8,))
        )
    losses = trained(
        agent, environment, dynamic_episode_driver.DynamicEpisodeDriver, num_episodes=3
    )
    assert np.isfinite([loss.loss for loss in losses]).all()
