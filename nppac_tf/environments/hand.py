"""Hand tasks: gymnasium-robotics' `AdroitHand*-v1` with their goal flag as the only reward.

The reward is computed from `info["success"]`. Episodes never terminate; they are truncated at the
horizon.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np

from nppac_tf.environments.known import KNOWN_TASKS


def register() -> None:
    """Registers the hand tasks with Gymnasium, if they are not registered yet."""
    for task in KNOWN_TASKS.values():
        if task.base_id is not None and task.environment_id not in gymnasium.registry:
            gymnasium.register(
                id=task.environment_id,
                # Saved demonstrations contain this name, so it must not depend on this module's.
                entry_point=f"{__package__}:{SuccessRewardEnvironment.__name__}",
                max_episode_steps=task.horizon,
                kwargs={"base_id": task.base_id},
            )


class SuccessRewardEnvironment(gymnasium.Env):
    """Environment whose reward is the goal flag `info["success"]`; episodes never end.

    Attributes:
        base: The wrapped environment, without Gymnasium's wrappers.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["human", "rgb_array", "depth_array"],
        "render_fps": 100,
    }

    def __init__(self, base_id: str, reward: str = "binary", render_mode: str | None = None):
        """Makes the wrapped environment.

        Args:
            base_id: Its Gymnasium id; its time limit is removed.
            reward: "binary" for 1 at the goal and 0 elsewhere, "negative" for 0 and -1.
            render_mode: "human", "rgb_array", "depth_array", or None for no rendering.
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
        """Renders a frame in the render mode."""
        return self.base.render()

    def close(self) -> None:
        """Frees the simulator."""
        self.base.close()
