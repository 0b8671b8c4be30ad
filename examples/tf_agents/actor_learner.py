"""TF-Agents' program of Actor and Learner on the pendulum; with a prior it is N-PPAC.

    python examples/tf_agents/actor_learner.py --root_dir=runs/pendulum

`--agent=sac` trains `SacAgent`, with the same networks, settings and replay. `--replay=reverb`
needs dm-reverb, for TensorFlow 2.15: `pip install dm-reverb==0.14.0`.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from pendulum import batches, demonstrate, fit_prior, make_environment, make_networks
from tf_agents.agents.sac import sac_agent
from tf_agents.environments import batched_py_environment
from tf_agents.policies import greedy_policy, py_tf_eager_policy, random_py_policy
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.train import actor, learner, triggers
from tf_agents.train.utils import spec_utils, train_utils
from tf_agents.utils import nest_utils

import nppac_tf as nppac

BATCH_SIZE = 128
STEPS_PER_RUN = 25
Replay = tuple[Callable[[Any], None], Callable[[], tf.data.Dataset]]


def uniform_replay(data_spec: Any) -> Replay:
    """A buffer of TensorFlow variables: what adds a step, and what makes the data set of pairs."""
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(data_spec, 1, max_length=100_000)
    return (
        lambda step: buffer.add_batch(nest_utils.batch_nested_array(step)),
        lambda: batches(buffer, BATCH_SIZE),
    )


def reverb_replay(data_spec: Any) -> Replay:
    """The same on a Reverb server."""
    import reverb
    from tf_agents.replay_buffers import reverb_replay_buffer, reverb_utils

    table = reverb.Table(
        "uniform",
        max_size=100_000,
        sampler=reverb.selectors.Uniform(),
        remover=reverb.selectors.Fifo(),
        rate_limiter=reverb.rate_limiters.MinSize(1),
    )
    buffer = reverb_replay_buffer.ReverbReplayBuffer(
        data_spec, sequence_length=2, table_name=table.name, local_server=reverb.Server([table])
    )
    add = reverb_utils.ReverbAddTrajectoryObserver(
        buffer.py_client, table.name, sequence_length=2, stride_length=1
    )
    return add, lambda: buffer.as_dataset(BATCH_SIZE, num_steps=2).prefetch(2)


def make_agent(environment: Any, train_step: tf.Variable, prior: Any) -> sac_agent.SacAgent:
    """`NppacAgent` or, without a prior, `SacAgent`."""
    observation_spec, action_spec, time_step_spec = spec_utils.get_tensor_specs(environment)
    actor_net, critic_net = make_networks(observation_spec, action_spec)
    arguments = {
        "critic_network": critic_net,
        "actor_network": actor_net,
        "actor_optimizer": tf.keras.optimizers.Adam(1e-3),
        "critic_optimizer": tf.keras.optimizers.Adam(1e-3),
        "alpha_optimizer": tf.keras.optimizers.Adam(1e-3),
        "target_update_tau": 0.005,
        "gamma": 0.99,
        "reward_scale_factor": 0.1,
        "train_step_counter": train_step,
    }
    if prior is None:
        return sac_agent.SacAgent(time_step_spec, action_spec, **arguments)
    return nppac.NppacAgent(time_step_spec, action_spec, **arguments, prior=prior, target_kl=1.0)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root_dir", required=True, help="New folder of checkpoints and policies.")
    parser.add_argument("--agent", choices=("nppac", "sac"), default="nppac")
    parser.add_argument("--replay", choices=("uniform", "reverb"), default="uniform")
    parser.add_argument(
        "--demonstrations", type=int, default=10, help="Episodes in the replay and for the prior."
    )
    parser.add_argument("--num_steps", type=int, default=4000, help="Of environment and training.")
    parser.add_argument("--initial_steps", type=int, default=1000, help="At random, before these.")
    parser.add_argument("--eval_interval", type=int, default=500)
    parser.add_argument("--eval_episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> list[tuple[int, float]]:
    """Trains; returns the curve: steps of the environment, and returns in evaluation."""
    options = parse(argv)
    tf.keras.utils.set_random_seed(options.seed)
    environment = make_environment(options.seed)
    train_step = train_utils.create_train_step()

    demonstrations, steps = demonstrate(options.demonstrations, options.seed)
    prior = fit_prior(demonstrations) if options.agent == "nppac" else None
    agent = make_agent(environment, train_step, prior)

    add, dataset = {"uniform": uniform_replay, "reverb": reverb_replay}[options.replay](
        agent.collect_data_spec
    )
    for step in steps:
        add(step)
    random_policy = random_py_policy.RandomPyPolicy(
        environment.time_step_spec(), environment.action_spec(), seed=options.seed
    )
    actor.Actor(
        environment, random_policy, train_step, options.initial_steps, observers=[add]
    ).run()

    saved = os.path.join(options.root_dir, learner.POLICY_SAVED_MODEL_DIR)
    agent_learner = learner.Learner(
        options.root_dir,
        train_step,
        agent,
        dataset,
        triggers=[
            triggers.PolicySavedModelTrigger(saved, agent, train_step, options.eval_interval),
            triggers.StepPerSecondLogTrigger(train_step, options.eval_interval),
        ],
    )
    collect_actor = actor.Actor(
        environment,
        py_tf_eager_policy.PyTFEagerPolicy(agent.collect_policy, use_tf_function=True),
        train_step,
        STEPS_PER_RUN,
        observers=[add],
        metrics=actor.collect_metrics(10),
        summary_dir=os.path.join(options.root_dir, learner.TRAIN_DIR),
    )
    eval_actor = actor.Actor(
        batched_py_environment.BatchedPyEnvironment(
            [make_environment(1000 + index) for index in range(options.eval_episodes)],
            multithreading=False,
        ),
        py_tf_eager_policy.PyTFEagerPolicy(
            greedy_policy.GreedyPolicy(agent.policy), use_tf_function=True, batch_time_steps=False
        ),
        train_step,
        episodes_per_run=options.eval_episodes,
        metrics=actor.eval_metrics(options.eval_episodes),
    )

    curve = []
    for done in range(0, options.num_steps + 1, STEPS_PER_RUN):
        if done:
            collect_actor.run()
            agent_learner.run(iterations=STEPS_PER_RUN)
        if done % options.eval_interval == 0:
            eval_actor.run()
            curve.append((options.initial_steps + done, eval_actor.metrics[0].result()))
            print(f"{curve[-1][0]:7,} steps  return {curve[-1][1]:7.1f}", flush=True)
    return curve


if __name__ == "__main__":
    main()
