"""Runs a policy that PolicySaver wrote, with TF-Agents alone: nppac_tf need not be installed.

python examples/tf_agents/run_policy.py --policy=/tmp/driver/policy
"""

import argparse

import gymnasium
import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as ts


def main(argv: list[str] | None = None) -> float:
    """Returns the mean return."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", required=True, help="Folder of the policy.")
    parser.add_argument("--num_episodes", type=int, default=20)
    options = parser.parse_args(argv)

    policy = tf.saved_model.load(options.policy)
    environment = gymnasium.make("Pendulum-v1")
    returns = []
    for seed in range(options.num_episodes):
        observation, _ = environment.reset(seed=1000 + seed)
        time_step = ts.restart(tf.constant(observation[np.newaxis]), batch_size=1)
        state = policy.get_initial_state(batch_size=1)
        total, ended = 0.0, False
        while not ended:
            step = policy.action(time_step, state)
            state = step.state
            observation, reward, _, ended, _ = environment.step(step.action[0].numpy())
            total += float(reward)
            rewards = tf.constant([reward], tf.float32)
            time_step = ts.transition(tf.constant(observation[np.newaxis]), rewards)
        returns.append(total)
    print(f"return {np.mean(returns):.1f} in {len(returns)} episodes")
    return float(np.mean(returns))


if __name__ == "__main__":
    main()
