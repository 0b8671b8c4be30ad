"""What the programs of this folder share: the pendulum, its demonstrator, and TF-Agents' networks.

The demonstrator is a controller written by hand: it pumps energy into the pendulum until that can
reach the top, and holds it there.
"""

from typing import Any

import numpy as np
from tf_agents.agents.ddpg import critic_network
from tf_agents.agents.sac import tanh_normal_projection_network
from tf_agents.networks import actor_distribution_network
from tf_agents.policies import py_policy
from tf_agents.train import actor
from tf_agents.train.utils import train_utils
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

import nppac_tf as nppac
from nppac_tf.environments import GymnasiumPyEnvironment

LAYERS = (256, 256)
NOISE = np.random.default_rng(0)


def make_environment(seed: int) -> GymnasiumPyEnvironment:
    """Gymnasium's pendulum as a TF-Agents environment; a return of -200 counts as solved."""
    return GymnasiumPyEnvironment(nppac.make_task("Pendulum-v1"), seed)


class SwingUpPolicy(py_policy.PyPolicy):
    """Torque that brings the energy to that of the upright pendulum and holds it there.

    Its hand is not steady: of 100 episodes the mean return is -145.
    """

    def _action(
        self, time_step: ts.TimeStep, policy_state: Any = (), seed: Any = None
    ) -> policy_step.PolicyStep:
        cosine, sine, speed = time_step.observation
        angle = np.arctan2(sine, cosine)
        energy = speed**2 / 6 + 5 * cosine  # 5 at rest at the top.
        torque = -10 * angle - 3 * speed if abs(angle) < 0.8 else (5 - energy) * speed
        torque = np.clip(torque, -2, 2) + NOISE.normal(scale=0.3)
        return policy_step.PolicyStep(np.clip([torque], -2, 2).astype(np.float32))


def demonstrate(num_episodes: int) -> tuple[nppac.Demonstrations, list[trajectory.Trajectory]]:
    """Episodes of the demonstrator, and their steps as a replay buffer takes them."""
    environment = make_environment(seed=7)
    steps: list[trajectory.Trajectory] = []
    metrics = actor.eval_metrics(num_episodes)
    actor.Actor(
        environment,
        SwingUpPolicy(environment.time_step_spec(), environment.action_spec()),
        train_utils.create_train_step(),
        episodes_per_run=num_episodes,
        observers=[steps.append],
        metrics=metrics,
    ).run()
    print(f"Demonstrator: return {metrics[0].result():.0f} in {num_episodes} episodes")
    episodes: list[list[trajectory.Trajectory]] = [[]]
    for step in steps:
        episodes[-1].append(step)
        if step.is_boundary():  # From the last step of an episode to the first of the next.
            episodes[-1].pop()
            episodes.append([])
    pairs = (
        (np.array([step.observation for step in each]), np.array([step.action for step in each]))
        for each in episodes
        if each
    )
    return nppac.Demonstrations.from_episodes(pairs, name="swing-up"), steps


def make_networks(observation_spec: Any, action_spec: Any) -> tuple[Any, Any]:
    """The actor and the critic of TF-Agents' example for SacAgent."""
    actor_net = actor_distribution_network.ActorDistributionNetwork(
        observation_spec,
        action_spec,
        fc_layer_params=LAYERS,
        continuous_projection_net=tanh_normal_projection_network.TanhNormalProjectionNetwork,
    )
    critic_net = critic_network.CriticNetwork(
        (observation_spec, action_spec),
        joint_fc_layer_params=LAYERS,
        kernel_initializer="glorot_uniform",
        last_kernel_initializer="glorot_uniform",
    )
    return actor_net, critic_net
