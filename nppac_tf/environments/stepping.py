"""Seeds of episodes, and checks of actions, observations and rewards.

Glossary: B environments in a batch, A action components.
"""

import numpy as np

from nppac_tf.environments.tasks import Task
from nppac_tf.errors import UserError


def episode_seed(seed: int, *key: int) -> int:
    """Derives the seed of an episode, in [0, 2³¹), from a seed and the episode's indices.

    Simulators with seeds of 32 bits and a sign take no larger one.

    Raises:
        UserError: if the seed is negative.
    """
    if seed < 0:
        raise UserError(f"seed must be at least 0; got {seed}")
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0]) & 0x7FFFFFFF


def clip_actions(actions: np.ndarray, task: Task, num_environments: int) -> np.ndarray:
    """Checks a batch of actions and clips it to the task's bounds.

    Args:
        actions: [B, A], in the environment's units.
        task: Task with A action components and the bounds.
        num_environments: B.

    Returns:
        A new array [B, A] float32.

    Raises:
        UserError: if the shape is not [B, A].
        FloatingPointError: if an action is not finite.
    """
    actions = np.asarray(actions, dtype=np.float32)
    expected_shape = (num_environments, task.action_size)
    if actions.shape != expected_shape:
        raise UserError(
            f"actions must be [B, A] = {list(expected_shape)} for task {task.name!r}; "
            f"got {list(actions.shape)}"
        )
    require_finite("action", actions)
    return np.minimum(np.maximum(actions, task.action_low), task.action_high)


def require_finite(quantity: str, values: np.ndarray) -> None:
    """Raises FloatingPointError if values [B] or [B, K] are not all finite, and lists the rows."""
    finite = np.isfinite(values)
    if not finite.all():
        rows = np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))
        raise FloatingPointError(
            f"{quantity} must be finite; got nan or infinity in environment "
            f"{', '.join(map(str, rows))} of {len(values)}"
        )
