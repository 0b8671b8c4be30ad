"""TF-Agents' program of a driver and a replay buffer in TensorFlow, with N-PPAC on the pendulum.

    python examples/tf_agents/driver.py --root_dir=/tmp/driver

The actor is the project's own: the prior plus a learned correction, so it needs no pre-training.
Started again, the program goes on from its last checkpoint. At the end it saves the policy, which
run_policy.py loads.
"""

import argparse
import math
import os

import tensorflow as tf
from pendulum import LAYERS, demonstrate, make_environment, make_networks
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import tf_py_environment
from tf_agents.eval import metric_utils
from tf_agents.metrics import tf_metrics
from tf_agents.policies import greedy_policy, policy_saver
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.utils import common

import nppac_tf as nppac
from nppac_tf.agents.actors import AnchoredActorNetwork

LEARNING_RATE = 1e-3
STEPS_PER_RUN = 25


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root_dir", required=True, help="Folder of checkpoints and policy.")
    parser.add_argument("--demonstrations", type=int, default=5, help="Episodes.")
    parser.add_argument("--num_steps", type=int, default=5000, help="Of environment and training.")
    parser.add_argument("--initial_steps", type=int, default=1000, help="Before training.")
    parser.add_argument("--eval_interval", type=int, default=1000)
    parser.add_argument("--eval_episodes", type=int, default=20)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> nppac.NppacAgent:
    """Trains and saves the policy; returns the agent."""
    options = parse(argv)
    environment, eval_environment = (
        tf_py_environment.TFPyEnvironment(make_environment(seed)) for seed in (0, 1000)
    )
    observation_spec, action_spec = environment.observation_spec(), environment.action_spec()
    demonstrations, _ = demonstrate(options.demonstrations)
    prior = nppac.fit_prior(demonstrations)
    _, critic_net = make_networks(observation_spec, action_spec)
    train_step = tf.Variable(0, dtype=tf.int64, name="train_step")
    agent = nppac.NppacAgent(
        environment.time_step_spec(),
        action_spec,
        critic_network=critic_net,
        actor_network=AnchoredActorNetwork(observation_spec, action_spec, prior.statistics, LAYERS),
        actor_optimizer=tf.keras.optimizers.Adam(LEARNING_RATE),
        critic_optimizer=tf.keras.optimizers.Adam(LEARNING_RATE),
        prior=prior,
        initial_log_alpha=math.log(0.1),
        reward_scale=10.0,
        target_update_tau=0.005,
        gamma=0.99,
        train_step_counter=train_step,
    )
    agent.initialize()

    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
        agent.collect_data_spec, environment.batch_size, max_length=100_000
    )
    metrics = [tf_metrics.EnvironmentSteps(), tf_metrics.AverageReturnMetric()]
    checkpointer = common.Checkpointer(
        os.path.join(options.root_dir, "checkpoint"),
        max_to_keep=1,
        agent=agent,
        train_step=train_step,
        buffer=buffer,
        metrics=metric_utils.MetricsGroup(metrics, "metrics"),
    )
    checkpointer.initialize_or_restore()

    def driver(num_steps: int) -> dynamic_step_driver.DynamicStepDriver:
        return dynamic_step_driver.DynamicStepDriver(
            environment, agent.collect_policy, [buffer.add_batch, *metrics], num_steps=num_steps
        )

    if not checkpointer.checkpoint_exists:
        driver(options.initial_steps).run()
    pairs = buffer.as_dataset(sample_batch_size=256, num_steps=2).unbatch()
    # Pairs that start with the last step of an episode end in another episode.
    pairs = pairs.filter(lambda steps, _: ~steps.is_boundary()[0])
    batches = iter(pairs.batch(256).prefetch(2))
    train = common.function(agent.train)
    collect_driver = driver(STEPS_PER_RUN)
    collect_driver.run = common.function(collect_driver.run)

    def evaluate() -> None:
        results = metric_utils.eager_compute(
            [tf_metrics.AverageReturnMetric(buffer_size=options.eval_episodes)],
            eval_environment,
            greedy_policy.GreedyPolicy(agent.policy),
            num_episodes=options.eval_episodes,
        )
        steps = metrics[0].result().numpy()
        print(f"{steps:7,} steps  return {results['AverageReturn'].numpy():7.1f}", flush=True)

    evaluate()
    while int(train_step) < options.num_steps:
        collect_driver.run()
        for _ in range(STEPS_PER_RUN):
            train(next(batches)[0])
        if int(train_step) % options.eval_interval == 0:
            evaluate()
            checkpointer.save(train_step)
    saver = policy_saver.PolicySaver(greedy_policy.GreedyPolicy(agent.policy))
    saver.save(os.path.join(options.root_dir, "policy"))
    return agent


if __name__ == "__main__":
    main()
