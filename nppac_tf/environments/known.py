"""Table of the tasks that have a short name: ids, sizes, horizons and success rules.

Success rules and the layout of the observations are those of gymnasium-robotics. The simulator
computes the flag of a step from the state after the step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SuccessRule = Callable[[np.ndarray], np.ndarray]


class KnownTask(NamedTuple):
    """Facts about one task.

    Attributes:
        name: Its short name, such as "pen-binary".
        environment_id: Its Gymnasium id.
        observation_size: D.
        action_size: A.
        horizon: Steps after which an episode is truncated.
        base_id: For a hand task, the Gymnasium id of the environment without the binary reward.
        success_rule: Maps observations [..., D] to goal flags [...] bool; None if the goal cannot
            be computed from observations, or is computed by `goal_radius`.
        goal_radius: For a goal environment, the distance between achieved and desired goal below
            which a step is at the goal, in meters.
    """

    name: str
    environment_id: str
    observation_size: int
    action_size: int
    horizon: int
    base_id: str | None = None
    success_rule: SuccessRule | None = None
    goal_radius: float | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """D and A."""
        return self.observation_size, self.action_size

    @property
    def has_goal(self) -> bool:
        """Whether steps can be at a goal."""
        return self.success_rule is not None or self.goal_radius is not None


def _pen(observations: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(observations[..., 39:42], axis=-1)
    similarity = np.sum(observations[..., 33:36] * observations[..., 36:39], axis=-1)
    return (distance < 0.075) & (similarity > 0.95)


def _door(observations: np.ndarray) -> np.ndarray:
    return observations[..., 28] >= 1.35  # Angle of the hinge in radians.


def _relocate(observations: np.ndarray) -> np.ndarray:
    return np.linalg.norm(observations[..., 36:39], axis=-1) < 0.1


def _hammer(observations: np.ndarray) -> np.ndarray:
    # Depth of the nail in meters; 0.091 is flush with the board.
    return np.abs(0.091 - observations[..., 26]) < 0.01


KNOWN_TASKS = {
    task.name: task
    for task in (
        KnownTask("pen-binary", "nppac_tf/PenBinary-v0", 45, 24, 100, "AdroitHandPen-v1", _pen),
        KnownTask("door-binary", "nppac_tf/DoorBinary-v0", 39, 28, 200, "AdroitHandDoor-v1", _door),
        KnownTask(
            "relocate-binary",
            "nppac_tf/RelocateBinary-v0",
            39,
            30,
            200,
            "AdroitHandRelocate-v1",
            _relocate,
        ),
        KnownTask(
            "hammer-binary", "nppac_tf/HammerBinary-v0", 46, 26, 200, "AdroitHandHammer-v1", _hammer
        ),
        KnownTask("halfcheetah", "HalfCheetah-v5", 17, 6, 1000),
        KnownTask("walker2d", "Walker2d-v5", 17, 6, 1000),
        KnownTask("ant", "Ant-v5", 105, 8, 1000),
        KnownTask("hopper", "Hopper-v5", 11, 3, 1000),
        KnownTask("fetch-reach", "FetchReach-v4", 16, 4, 50, goal_radius=0.05),
        KnownTask("fetch-push", "FetchPush-v4", 31, 4, 50, goal_radius=0.05),
        KnownTask("fetch-slide", "FetchSlide-v4", 31, 4, 50, goal_radius=0.05),
        KnownTask("fetch-pick-and-place", "FetchPickAndPlace-v4", 31, 4, 50, goal_radius=0.05),
        KnownTask("pointmaze-umaze", "PointMaze_UMaze-v3", 8, 2, 300, goal_radius=0.45),
        KnownTask("pointmaze-medium", "PointMaze_Medium-v3", 8, 2, 600, goal_radius=0.45),
        KnownTask("pointmaze-large", "PointMaze_Large-v3", 8, 2, 800, goal_radius=0.45),
    )
}


def known_task(name: str) -> KnownTask | None:
    """Finds a task by its short name, or by its Gymnasium id of any version; None if unknown."""
    return KNOWN_TASKS.get(name) or _BY_STEM.get(_stem(name))


def task_name(name: str) -> str:
    """The short name of a task called by its short name or Gymnasium id; other names as they are.

    Another version of an environment is another task.
    """
    known = known_task(name)
    return known.name if known and name in (known.name, known.environment_id) else name


def tasks_of_sizes(sizes: tuple[int, int] | None) -> list[str]:
    """Short names of the known tasks with these sizes of observations and actions."""
    return [task.name for task in KNOWN_TASKS.values() if task.sizes == sizes]


def _stem(environment_id: str) -> str:
    """Gymnasium id in lower case, without version; a "Sparse" variant is the same task."""
    return environment_id.rpartition("-v")[0].lower().removesuffix("sparse")


_BY_STEM = {
    _stem(environment_id): task
    for task in KNOWN_TASKS.values()
    for environment_id in (task.environment_id, task.base_id)
    if environment_id is not None
}
