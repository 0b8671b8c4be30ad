"""TF-Agents' program of Actor and Learner, with `SacAgent` or `NppacAgent` on the pendulum.

    python examples/tf_agents/actor_learner.py --agent=nppac --root_dir=/tmp/pendulum

`--agent=sac` is what it is compared with, `--demonstrations=0` starts either without demonstrations
(N-PPAC then has a uniform prior, and is soft actor-critic). `--replay=reverb` needs dm-reverb
(`pip install "nppac-tf[reverb]"`).
"""

import argparse
import math
import os
from typing import Any

import tensorflow as tf
from pendulum import demonstrate, make_environment, make_networks
from tf_agents.agents.sac import sac_agent
from tf_agents.policies import greedy_policy, py_tf_eager_policy, random_py_policy
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.train import actor, learner, triggers
from tf_agents.train.utils import spec_utils, train_utils

import nppac_tf as nppac
from nppac_tf.agents.batch import States

LEARNING_RATE = 1e-3
BATCH_SIZE = 256
STEPS_PER_RUN = 25


def uniform_replay(data_spec: Any) -> tuple[Any, Any]:
    """TF-Agents' buffer in TensorFlow variables: an observer, and a function of the data set."""
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(data_spec, 1, max_length=100_000)

    def add(step: Any) -> None:
        buffer.add_batch(tf.nest.map_structure(lambda part: tf.expand_dims(part, 0), step))

    def dataset() -> tf.data.Dataset:
        pairs = buffer.as_dataset(sample_batch_size=BATCH_SIZE, num_steps=2).unbatch()
        # Pairs that start with the last step of an episode end in another episode.
        pairs = pairs.filter(lambda steps, _: ~steps.is_boundary()[0])
        return pairs.batch(BATCH_SIZE).prefetch(2)

    return add, dataset


def reverb_replay(data_spec: Any) -> tuple[Any, Any]:
    """The same in a server of Reverb."""
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


def make_agent(kind: str, environment: Any, prior: Any, train_step: tf.Variable) -> Any:
    """The same networks and settings for both agents; N-PPAC has a prior, and alpha is fixed."""
    observation_spec, action_spec, time_step_spec = spec_utils.get_tensor_specs(environment)
    actor_net, critic_net = make_networks(observation_spec, action_spec)
    arguments = {
        "critic_network": critic_net,
        "actor_network": actor_net,
        "actor_optimizer": tf.keras.optimizers.Adam(LEARNING_RATE),
        "critic_optimizer": tf.keras.optimizers.Adam(LEARNING_RATE),
        "alpha_optimizer": tf.keras.optimizers.Adam(LEARNING_RATE),
        "target_update_tau": 0.005,
        "gamma": 0.99,
        "train_step_counter": train_step,
    }
    if kind == "sac":
        return sac_agent.SacAgent(time_step_spec, action_spec, **arguments)
    if prior.informative:
        # The weight of the KL term, for rewards in units of 10 a step.
        weight = {"alpha_optimizer": None, "initial_log_alpha": math.log(0.1), "reward_scale": 10.0}
        arguments |= weight
    return nppac.NppacAgent(time_step_spec, action_spec, **arguments, prior=prior)


def pretrain(agent: nppac.NppacAgent, demonstrations: nppac.Demonstrations) -> None:
    """Fits the actor to the prior, so that it starts as the prior and not at random."""
    observations = tf.constant(demonstrations.observations)
    states = States.at(observations, agent.prior.statistics(observations))
    optimizer = tf.keras.optimizers.legacy.Adam(LEARNING_RATE)
    imitate = tf.function(lambda step: agent.imitate(states, tf.stack([0, step]), optimizer))
    for step in tf.range(500):
        imitate(step)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root_dir", required=True, help="Folder of checkpoints and policies.")
    parser.add_argument("--agent", choices=("nppac", "sac"), default="nppac")
    parser.add_argument("--replay", choices=("uniform", "reverb"), default="uniform")
    parser.add_argument(
        "--demonstrations", type=int, default=5, help="Episodes, which the replay holds as well."
    )
    parser.add_argument("--num_steps", type=int, default=5000, help="Of environment and training.")
    parser.add_argument("--initial_steps", type=int, default=1000, help="Before training.")
    parser.add_argument("--eval_interval", type=int, default=500)
    parser.add_argument("--eval_episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> list[tuple[int, float]]:
    """Trains; returns the curve of environment steps and evaluated returns."""
    options = parse(argv)
    tf.keras.utils.set_random_seed(options.seed)
    environment, eval_environment = make_environment(options.seed), make_environment(1000)
    train_step = train_utils.create_train_step()

    prior, steps = nppac.UniformPrior(3, 1), []
    if options.demonstrations:
        demonstrations, steps = demonstrate(options.demonstrations)
        prior = nppac.fit_prior(demonstrations)
    agent = make_agent(options.agent, environment, prior, train_step)
    add, dataset = REPLAYS[options.replay](agent.collect_data_spec)
    for step in steps:
        add(step)

    collect_policy = py_tf_eager_policy.PyTFEagerPolicy(agent.collect_policy, use_tf_function=True)
    initial_policy = collect_policy
    if options.agent == "nppac" and prior.informative:
        pretrain(agent, demonstrations)
    else:
        initial_policy = random_py_policy.RandomPyPolicy(
            environment.time_step_spec(), environment.action_spec()
        )
    actor.Actor(
        environment, initial_policy, train_step, options.initial_steps, observers=[add]
    ).run()

    saved = os.path.join(options.root_dir, learner.POLICY_SAVED_MODEL_DIR)
    agent_learner = learner.Learner(
        options.root_dir,
        train_step,
        agent,
        experience_dataset_fn=dataset,
        triggers=[
            triggers.PolicySavedModelTrigger(saved, agent, train_step, options.eval_interval),
            triggers.StepPerSecondLogTrigger(train_step, options.eval_interval),
        ],
    )
    collect_actor = actor.Actor(
        environment,
        collect_policy,
        train_step,
        STEPS_PER_RUN,
        observers=[add],
        metrics=actor.collect_metrics(10),
        summary_dir=os.path.join(options.root_dir, learner.TRAIN_DIR),
    )
    eval_actor = actor.Actor(
        eval_environment,
        py_tf_eager_policy.PyTFEagerPolicy(
            greedy_policy.GreedyPolicy(agent.policy), use_tf_function=True
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


REPLAYS = {"uniform": uniform_replay, "reverb": reverb_replay}

if __name__ == "__main__":
    main()
