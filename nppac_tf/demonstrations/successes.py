"""The goal of each Adroit hand task, told from observations alone.

The rules are those of gymnasium-robotics' `AdroitHand*-v1`, and the layout of the observations is
theirs. The simulator computes the flag of a step from the state after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from nppac_tf.demonstrations.recording import RecordedEpisode

SuccessRule = Callable[[np.ndarray], np.ndarray]


def success_rule(task_name: str) -> SuccessRule | None:
    """The rule of a task: observations [..., D] -> at the goal [...], bool.

    Args:
        task_name: Such as "pen-binary", or a Gymnasium id.

    Returns:
        None where the goal cannot be told from observations, or the task has none.
    """
    return _RULES.get(task_name)


def successes(episode: RecordedEpisode, rule: SuccessRule) -> np.ndarray:
    """At the goal after each step, [T] float32; nan where the observation after it is not known.

    Args:
        episode: With observations [T, D] or [T + 1, D].
        rule: Of `success_rule`.
    """
    flags = np.full(episode.length, np.nan, np.float32)
    reached = rule(episode.states()[1 : episode.length + 1])
    flags[: len(reached)] = reached
    return flags


def _pen(observations: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(observations[..., 39:42], axis=-1)
    similarity = np.sum(observations[..., 33:36] * observations[..., 36:39], axis=-1)
    return (distance < 0.075) & (similarity > 0.95)


def _door(observations: np.ndarray) -> np.ndarray:
    return observations[..., 28] >= 1.35  # The hinge, in radians.


def _relocate(observations: np.ndarray) -> np.ndarray:
    return np.linalg.norm(observations[..., 36:39], axis=-1) < 0.1


def _hammer(observations: np.ndarray) -> np.ndarray:
    # The nail's depth; flush with the board it is 0.091 m.
    return np.abs(0.091 - observations[..., 26]) < 0.01


_RULES: Mapping[str, SuccessRule] = MappingProxyType(
    {
        name: rule
        for names, rule in (
            (("pen-binary", "AdroitHandPen-v1", "AdroitHandPenSparse-v1"), _pen),
            (("door-binary", "AdroitHandDoor-v1", "AdroitHandDoorSparse-v1"), _door),
            (
                ("relocate-binary", "AdroitHandRelocate-v1", "AdroitHandRelocateSparse-v1"),
                _relocate,
            ),
            (("hammer-binary", "AdroitHandHammer-v1", "AdroitHandHammerSparse-v1"), _hammer),
        )
        for name in names
    }
)
