"""What these programs share: the pendulum, demonstrations of it, and TF-Agents' networks."""

from typing import Any

import nppac_tf as nppac  # First: it selects Keras 2, for TF-Agents.

# isort: split
import numpy as np
import tensorflow as tf
from tf_agents.agents.ddpg import critic_network
from tf_agents.agents.sac import tanh_normal_projection_network
from tf_agents.drivers import py_driver
from tf_agents.networks import actor_distribution_network
from tf_agents.policies import py_policy
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from nppac_tf.environments import GymnasiumPyEnvironment

LAYERS = (128, 128)


def make_environment(seed: int) -> GymnasiumPyEnvironment:
    """Gymnasium's pendulum as a TF-Agents environment; a return of -200 counts as solved."""
    return GymnasiumPyEnvironment(nppac.make_task("Pendulum-v1"), seed)


class SwingUpPolicy(py_policy.PyPolicy):
    """An expert with an unsteady hand: swings the pendulum up by its energy, then holds it."""

    def __init__(self, environment: GymnasiumPyEnvironment, seed: int) -> None:
        super().__init__(environment.time_step_spec(), environment.action_spec())
        self._noise = np.random.default_rng(seed)

    def _action(
        self, time_step: ts.TimeStep, policy_state: Any = (), seed: Any = None
    ) -> policy_step.PolicyStep:
        cosine, sine, speed = time_step.observation
        angle = np.arctan2(sine, cosine)
        energy = speed**2 / 6 + 5 * cosine  # 5 at rest at the top.
        torque = -10 * angle - 3 * speed if abs(angle) < 0.8 else (5 - energy) * speed
        torque = np.clip(torque, -2, 2) + self._noise.normal(scale=0.3)
        return policy_step.PolicyStep(np.clip([torque], -2, 2).astype(np.float32))


def demonstrate(
    num_episodes: int, seed: int = 0
) -> tuple[nppac.Demonstrations, list[trajectory.Trajectory]]:
    """Episodes of the expert, and the same as steps for a replay buffer."""
    environment = make_environment(10_000 + seed)
    expert = SwingUpPolicy(environment, seed)
    steps: list[trajectory.Trajectory] = []
    driver = py_driver.PyDriver(environment, expert, [steps.append], max_episodes=num_episodes)
    driver.run(environment.reset())
    print(f"Expert: return {sum(step.reward for step in steps) / num_episodes:.0f}")
    inside = [step for step in steps if not step.is_boundary()]  # Those have no action.
    observations = np.stack([step.observation for step in inside]).reshape(num_episodes, -1, 3)
    actions = np.stack([step.action for step in inside]).reshape(num_episodes, -1, 1)
    episodes = zip(observations, actions, strict=True)
    return nppac.Demonstrations.from_episodes(episodes, name="swing-up"), steps


def fit_prior(demonstrations: nppac.Demonstrations) -> nppac.BehavioralPrior:
    """A Gaussian process with all the spread of the demonstrator.

    Of few neighbors, since it is evaluated in each update.
    """
    config = nppac.PriorConfig(num_neighbors=16, scale_factor=1.0)
    return nppac.fit_prior(demonstrations, config)


def batches(buffer: Any, batch_size: int, num_steps: int = 2) -> tf.data.Dataset:
    """Sequences [B, num_steps] from a buffer of TF-Agents, B at most the batch size.

    Those that go on into another episode, whose next states are wrong, are left out.
    """

    def within(steps: trajectory.Trajectory, info: Any) -> tuple[trajectory.Trajectory, Any]:
        keep = ~tf.reduce_any(steps.is_boundary()[:, :-1], axis=1)
        return tf.nest.map_structure(lambda part: tf.boolean_mask(part, keep), (steps, info))

    dataset = buffer.as_dataset(sample_batch_size=batch_size, num_steps=num_steps)
    return dataset.map(within).prefetch(2)


def make_networks(observation_spec: Any, action_spec: Any) -> tuple[Any, Any]:
    """TF-Agents' usual actor and critic of soft actor-critic."""
    actor_net = actor_distribution_network.ActorDistributionNetwork(
        observation_spec,
        action_spec,
        fc_layer_params=LAYERS,
        continuous_projection_net=tanh_normal_projection_network.TanhNormalProjectionNetwork,
    )
    critic_net = critic_network.CriticNetwork(
        (observation_spec, action_spec), joint_fc_layer_params=LAYERS
    )
    return actor_net, critic_net
