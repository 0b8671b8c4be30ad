"""TF-Agents' program of recurrent networks, trained on sequences; here N-PPAC.

    python examples/tf_agents/recurrent.py

Actor and critic have a memory. The prior has none: it sees one observation at a time.
"""

import argparse

import tensorflow as tf
from pendulum import batches, demonstrate, fit_prior, make_environment
from tf_agents.agents.ddpg import critic_rnn_network
from tf_agents.agents.sac import tanh_normal_projection_network
from tf_agents.drivers import dynamic_episode_driver
from tf_agents.environments import tf_py_environment
from tf_agents.metrics import tf_metrics
from tf_agents.networks import actor_distribution_rnn_network
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.utils import common

import nppac_tf as nppac


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demonstrations", type=int, default=10, help="Episodes, for the prior.")
    parser.add_argument("--num_episodes", type=int, default=50, help="Of 200 steps.")
    parser.add_argument("--updates_per_episode", type=int, default=50)
    parser.add_argument("--sequence_length", type=int, default=20)
    parser.add_argument("--units", type=int, default=64, help="Of layers and memories.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> nppac.NppacAgent:
    """Trains; returns the agent."""
    options = parse(argv)
    environment = tf_py_environment.TFPyEnvironment(make_environment(seed=0))
    observation_spec, action_spec = environment.observation_spec(), environment.action_spec()
    layers = (options.units,)
    actor_net = actor_distribution_rnn_network.ActorDistributionRnnNetwork(
        observation_spec,
        action_spec,
        input_fc_layer_params=layers,
        lstm_size=layers,
        output_fc_layer_params=layers,
        continuous_projection_net=tanh_normal_projection_network.TanhNormalProjectionNetwork,
    )
    critic_net = critic_rnn_network.CriticRnnNetwork(
        (observation_spec, action_spec),
        joint_fc_layer_params=layers,
        lstm_size=layers,
        output_fc_layer_params=layers,
    )
    agent = nppac.NppacAgent(
        environment.time_step_spec(),
        action_spec,
        critic_net,
        actor_net,
        actor_optimizer=tf.keras.optimizers.Adam(1e-3),
        critic_optimizer=tf.keras.optimizers.Adam(1e-3),
        alpha_optimizer=tf.keras.optimizers.Adam(1e-3),
        target_update_tau=0.05,
        gamma=0.99,
        reward_scale_factor=0.1,
        prior=fit_prior(demonstrate(options.demonstrations)[0]),
        target_kl=1.0,
    )
    agent.initialize()
    agent.train = common.function(agent.train)
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
        agent.collect_data_spec, environment.batch_size, max_length=100_000
    )
    average_return = tf_metrics.AverageReturnMetric(buffer_size=10)
    driver = dynamic_episode_driver.DynamicEpisodeDriver(
        environment, agent.collect_policy, [buffer.add_batch, average_return], num_episodes=1
    )
    driver.run = common.function(driver.run)
    driver.run()
    experience = iter(batches(buffer, 64, options.sequence_length + 1))
    for episode in range(1, options.num_episodes + 1):
        for _ in range(options.updates_per_episode):
            agent.train(next(experience)[0])
        driver.run()
        if episode % 10 == 0:
            print(f"{episode:5} episodes  return {average_return.result():7.1f}", flush=True)
    return agent


if __name__ == "__main__":
    main()
