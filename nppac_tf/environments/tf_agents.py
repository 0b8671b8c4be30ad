"""TF-Agents environments for tasks; importing this module imports TensorFlow.

Glossary: D observation components, A action components.
"""

import warnings
from typing import Any

import numpy as np

from nppac_tf.environments.stepping import clip_actions, episode_seed, require_finite
from nppac_tf.environments.tasks import Task

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from tf_agents.environments import py_environment
    from tf_agents.specs import array_spec
    from tf_agents.trajectories import time_step as ts


class GymnasiumPyEnvironment(py_environment.PyEnvironment):
    """TF-Agents environment of a task: float32 observations [D], actions [A] and rewards.

    The discount is 0 at a terminal state and 1 at a truncation. Episode k has the seed of episode k
    in the first environment of a `VectorEnvironment`.
    """

    def __init__(self, task: Task, seed: int) -> None:
        """Makes the environment without resetting it.

        Args:
            task: Task to make.
            seed: At least 0.
        """
        super().__init__(handle_auto_reset=True)
        self._task = task
        self._seed = seed
        self._environment = task.make()
        self._num_resets = 0
        self._info: dict[str, Any] = {}

    def observation_spec(self) -> array_spec.ArraySpec:
        """Spec of observations: float32 [D]."""
        return array_spec.ArraySpec((self._task.observation_size,), np.float32, "observation")

    def action_spec(self) -> array_spec.BoundedArraySpec:
        """Spec of actions: float32 [A] with the task's bounds."""
        return array_spec.BoundedArraySpec(
            (self._task.action_size,),
            np.float32,
            self._task.action_low,
            self._task.action_high,
            "action",
        )

    def get_info(self) -> dict[str, Any]:
        """Returns the `info` of the last reset or step."""
        return self._info

    def close(self) -> None:
        """Frees the simulator."""
        self._environment.close()

    def _reset(self) -> ts.TimeStep:
        seed = episode_seed(self._seed, 0, self._num_resets)
        self._num_resets += 1
        observation, self._info = self._environment.reset(seed=seed)
        return ts.restart(self._checked(observation))

    def _step(self, action: np.ndarray) -> ts.TimeStep:
        (action,) = clip_actions(np.asarray(action)[np.newaxis], self._task, 1)
        observation, reward, terminated, truncated, self._info = self._environment.step(action)
        observation = self._checked(observation)
        reward = np.float32(reward)
        require_finite("reward", np.atleast_1d(reward))
        if terminated:
            return ts.termination(observation, reward)
        if truncated:
            return ts.truncation(observation, reward, 1.0)
        return ts.transition(observation, reward)

    def _checked(self, observation: np.ndarray) -> np.ndarray:
        observation = np.asarray(observation, np.float32)
        require_finite("observation", observation[np.newaxis])
        return observation
