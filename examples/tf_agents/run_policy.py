r"""Runs a saved policy with TF-Agents alone: nppac_tf need not be installed.

    python examples/tf_agents/run_policy.py --policy=runs/driver/policy

The Learner saves a policy once, when it begins, and checkpoints of its weights after that:

    python examples/tf_agents/run_policy.py --policy=runs/pendulum/policies/greedy_policy \
        --checkpoint=runs/pendulum/policies/checkpoints/policy_checkpoint_0000005000
"""

import argparse
import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # TF-Agents needs Keras 2.

import gymnasium
import numpy as np
from tf_agents.policies import policy_loader
from tf_agents.trajectories import time_step as ts


def main(argv: list[str] | None = None) -> float:
    """Returns the mean return."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", required=True, help="Folder of the policy.")
    parser.add_argument("--checkpoint", help="Folder of weights to take instead of its own.")
    parser.add_argument("--num_episodes", type=int, default=20)
    options = parser.parse_args(argv)

    policy = policy_loader.load(options.policy, options.checkpoint)
    environment = gymnasium.make("Pendulum-v1")
    returns = []
    for seed in range(options.num_episodes):
        observation, _ = environment.reset(seed=seed)
        step, total, ended = policy.action(ts.restart(observation)), 0.0, False
        while not ended:
            observation, reward, _, ended, _ = environment.step(step.action)
            step = policy.action(ts.transition(observation, np.float32(reward)), step.state)
            total += float(reward)
        returns.append(total)
    print(f"return {np.mean(returns):.1f} in {len(returns)} episodes")
    return float(np.mean(returns))


if __name__ == "__main__":
    main()
