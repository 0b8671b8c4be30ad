"""TF-Agents' program of a driver and a buffer, with checkpoints and a saved policy; here N-PPAC.

    python examples/tf_agents/driver.py --root_dir=runs/driver

Started again, it goes on from its last checkpoint. run_policy.py runs the policy that it saves.
"""

import argparse
import os

import tensorflow as tf
from pendulum import batches, demonstrate, fit_prior, make_environment, make_networks
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import tf_py_environment
from tf_agents.eval import metric_utils
from tf_agents.metrics import tf_metrics
from tf_agents.policies import greedy_policy, policy_saver
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.utils import common

import nppac_tf as nppac

STEPS_PER_RUN = 25


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root_dir", required=True, help="Folder of checkpoints and policy.")
    parser.add_argument("--demonstrations", type=int, default=10, help="Episodes, for the prior.")
    parser.add_argument("--num_steps", type=int, default=4000, help="Of environment and training.")
    parser.add_argument("--initial_steps", type=int, default=1000, help="Before these.")
    parser.add_argument("--eval_interval", type=int, default=500)
    parser.add_argument("--eval_episodes", type=int, default=10)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> nppac.NppacAgent:
    """Trains and saves the policy; returns the agent."""
    options = parse(argv)
    environment = tf_py_environment.TFPyEnvironment(make_environment(seed=0))
    eval_environment = tf_py_environment.TFPyEnvironment(make_environment(seed=1000))
    actor_net, critic_net = make_networks(environment.observation_spec(), environment.action_spec())
    train_step = tf.Variable(0, dtype=tf.int64)
    agent = nppac.NppacAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        critic_net,
        actor_net,
        actor_optimizer=tf.keras.optimizers.Adam(1e-3),
        critic_optimizer=tf.keras.optimizers.Adam(1e-3),
        alpha_optimizer=tf.keras.optimizers.Adam(1e-3),
        target_update_tau=0.005,
        gamma=0.99,
        reward_scale_factor=0.1,
        train_step_counter=train_step,
        prior=fit_prior(demonstrate(options.demonstrations)[0]),
        target_kl=1.0,
    )
    agent.initialize()
    agent.train = common.function(agent.train)
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
        agent.collect_data_spec, environment.batch_size, max_length=100_000
    )
    checkpointer = common.Checkpointer(
        os.path.join(options.root_dir, "checkpoint"),
        max_to_keep=1,
        agent=agent,
        buffer=buffer,
        train_step=train_step,
    )
    checkpointer.initialize_or_restore()

    driver = dynamic_step_driver.DynamicStepDriver(
        environment, agent.collect_policy, [buffer.add_batch], num_steps=STEPS_PER_RUN
    )
    driver.run = common.function(driver.run)
    if not checkpointer.checkpoint_exists:
        for _ in range(options.initial_steps // STEPS_PER_RUN):
            driver.run()
    experience = iter(batches(buffer, batch_size=128))
    policy = greedy_policy.GreedyPolicy(agent.policy)
    while train_step < options.num_steps:
        driver.run()
        for _ in range(STEPS_PER_RUN):
            agent.train(next(experience)[0])
        if train_step % options.eval_interval == 0:
            average = tf_metrics.AverageReturnMetric(buffer_size=options.eval_episodes)
            metric_utils.eager_compute(
                [average], eval_environment, policy, num_episodes=options.eval_episodes
            )
            print(f"{int(train_step):7,} steps  return {average.result():7.1f}", flush=True)
            checkpointer.save(train_step)
    policy_saver.PolicySaver(policy).save(os.path.join(options.root_dir, "policy"))
    return agent


if __name__ == "__main__":
    main()
