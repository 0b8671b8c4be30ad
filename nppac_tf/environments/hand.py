"""The hand tasks: gymnasium-robotics' `AdroitHand*-v1`, rewarded with their goal flag alone.

The reward is made of `info["success"]`. Episodes never terminate: they truncate at the horizon.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np

from nppac_tf.environments.known import KNOWN_TASKS


def register() -> None:
    """Registers the hand tasks with Gymnasium, unless that is done."""
    for task in KNOWN_TASKS.values():
        if task.base_id is not None and task.environment_id not in gymnasium.registry:
            gymnasium.register(
                id=task.environment_id,
                # Not this module's name: files of demonstrations keep it.
                entry_point=f"{__package__}:{SuccessRewardEnvironment.__name__}",
                max_episode_steps=task.horizon,
                kwargs={"base_id": task.base_id},
            )


class SuccessRewardEnvironment(gymnasium.Env):
    """An environment with its goal flag, `info["success"]`, for a reward; it ends no episode.

    Attributes:
        base: the environment behind it, without wrappers.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["human", "rgb_array", "depth_array"],
        "render_fps": 100,
    }

    def __init__(self, base_id: str, reward: str = "binary", render_mode: str | None = None):
        """Makes the environment behind it.

        Args:
            base_id: its Gymnasium id; its own time limit is left out.
            reward: "binary" pays 1 at the goal and 0 elsewhere, "negative" 0 and -1.
            render_mode: "human", "rgb_array", "depth_array", or None to render nothing.
        """
        self.base = gymnasium.make(
            base_id, disable_env_checker=True, render_mode=render_mode
        ).unwrapped
        self.render_mode = render_mode
        self.observation_space = self.base.observation_space
        self.action_space = self.base.action_space
        self._offset = -1.0 if reward == "negative" else 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; `options["initial_state_dict"]` sets the simulator's state."""
        return self.base.reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Steps once; see `gymnasium.Env.step`."""
        observation, _, _, _, info = self.base.step(action)
        return observation, float(info["success"]) + self._offset, False, False, info

    def render(self) -> Any:
        """Renders a frame in the mode chosen at construction."""
        return self.base.render()

    def close(self) -> None:
        """Frees the simulator."""
        self.base.close()
