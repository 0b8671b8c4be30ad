"""TF-Agents' recurrent program: actor and critic with a memory, for a pendulum without its speed.

    python examples/tf_agents/recurrent.py

The prior is uniform, so `NppacAgent` is soft actor-critic here: a prior of demonstrations sees one
observation at a time, and this one does not say which way the pendulum moves.
"""

import argparse

import tensorflow as tf
from pendulum import make_environment
from tf_agents.agents.ddpg import critic_rnn_network
from tf_agents.agents.sac import tanh_normal_projection_network
from tf_agents.drivers import dynamic_episode_driver
from tf_agents.environments import tf_py_environment, wrappers
from tf_agents.metrics import tf_metrics
from tf_agents.networks import actor_distribution_rnn_network
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.utils import common

import nppac_tf as nppac

LEARNING_RATE = 3e-4


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_episodes", type=int, default=100, help="Of 200 steps.")
    parser.add_argument("--updates_per_episode", type=int, default=50)
    parser.add_argument("--sequence_length", type=int, default=20)
    parser.add_argument("--units", type=int, default=64, help="Of layers and memories.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> nppac.NppacAgent:
    """Trains; returns the agent."""
    options = parse(argv)
    environment = tf_py_environment.TFPyEnvironment(
        wrappers.ObservationFilterWrapper(make_environment(seed=0), idx=[0, 1])
    )
    observation_spec, action_spec = environment.observation_spec(), environment.action_spec()
    actor_net = actor_distribution_rnn_network.ActorDistributionRnnNetwork(
        observation_spec,
        action_spec,
        input_fc_layer_params=(options.units,),
        lstm_size=(options.units,),
        output_fc_layer_params=(options.units,),
        continuous_projection_net=tanh_normal_projection_network.TanhNormalProjectionNetwork,
    )
    critic_net = critic_rnn_network.CriticRnnNetwork(
        (observation_spec, action_spec),
        joint_fc_layer_params=(options.units,),
        lstm_size=(options.units,),
        output_fc_layer_params=(options.units,),
    )
    agent = nppac.NppacAgent(
        environment.time_step_spec(),
        action_spec,
        critic_network=critic_net,
        actor_network=actor_net,
        actor_optimizer=tf.keras.optimizers.Adam(LEARNING_RATE),
        critic_optimizer=tf.keras.optimizers.Adam(LEARNING_RATE),
        alpha_optimizer=tf.keras.optimizers.Adam(LEARNING_RATE),
        prior=nppac.UniformPrior(observation_size=2, action_size=1),
        target_update_tau=0.05,
        gamma=0.99,
        reward_scale_factor=0.1,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    agent.initialize()

    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
        agent.collect_data_spec, environment.batch_size, max_length=100_000
    )
    average_return = tf_metrics.AverageReturnMetric(buffer_size=10)
    driver = dynamic_episode_driver.DynamicEpisodeDriver(
        environment, agent.collect_policy, [buffer.add_batch, average_return], num_episodes=1
    )
    driver.run = common.function(driver.run)
    sequences = buffer.as_dataset(
        sample_batch_size=64, num_steps=options.sequence_length + 1
    ).unbatch()
    # Sequences that reach into another episode are dropped.
    sequences = sequences.filter(lambda steps, _: ~tf.reduce_any(steps.is_boundary()[:-1]))
    train = common.function(agent.train)
    batches = None
    for episode in range(1, options.num_episodes + 1):
        driver.run()
        batches = batches or iter(sequences.batch(64).prefetch(2))
        for _ in range(options.updates_per_episode):
            train(next(batches)[0])
        if episode % 10 == 0:
            print(f"{episode:5} episodes  return {average_return.result():7.1f}", flush=True)
    return agent


if __name__ == "__main__":
    main()
