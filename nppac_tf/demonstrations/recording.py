"""What a file of demonstrations holds, as it was recorded: more than training needs, and unchecked.

Glossary: E episodes, T steps of an episode, D observation components, A action components.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from nppac_tf.demonstrations.dataset import Demonstrations
from nppac_tf.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class RecordedEpisode:
    """One episode of a file; lengths need not agree, and values need not be finite.

    Attributes:
        observations: [T, D], those acted upon; [T + 1, D] where the file holds one more.
        actions: [T, A], before any clipping.
        final_observation: [D], the one after the last action, where the format keeps it apart.
        rewards: [T], or as many as the file holds; None where it holds none, as for the following.
        terminals: [T], whether the step ended in a terminal state.
        truncations: [T], whether the step was cut off by a time limit.
        successes: [T], the goal flag that the environment gave.
        next_observations: [T, D], the successors.
        initial_state: Arrays that put the simulator where the episode began; often empty.
    """

    observations: np.ndarray
    actions: np.ndarray
    final_observation: np.ndarray | None = None
    rewards: np.ndarray | None = None
    terminals: np.ndarray | None = None
    truncations: np.ndarray | None = None
    successes: np.ndarray | None = None
    next_observations: np.ndarray | None = None
    initial_state: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def length(self) -> int:
        """T, the number of actions."""
        return len(self.actions)

    def states(self) -> np.ndarray:
        """The first observation and the successors: [T + 1, D], or [T, D] without the last."""
        observations, steps = self.observations, self.length
        if len(observations) != steps:
            return observations
        if self.final_observation is not None:
            last = self.final_observation
        elif self.next_observations is not None and len(self.next_observations) == steps:
            last = self.next_observations[-1:]
        else:
            return observations
        last = last.reshape(1, -1)
        if last.shape[1] != observations.shape[1]:
            return observations
        return np.concatenate([observations, last])


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """A file of demonstrations as it was read.

    Attributes:
        name: A short name.
        format: What was read, such as "AWAC npy".
        episodes: Those that could be read.
        indices: [E], the place of each in the file: those that could not be read are left out.
        problems: Why the file, or episodes of it, cannot be used; one line each.
        metadata: Provenance, a mapping that JSON can hold.
        environment_id: The Gymnasium id or task name that the file gives; None where it has none.
        is_pickle: Whether reading the file the usual way would have executed what is in it.
    """

    name: str
    format: str
    episodes: tuple[RecordedEpisode, ...]
    indices: tuple[int, ...]
    problems: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment_id: str | None = None
    is_pickle: bool = False

    def demonstrations(self) -> Demonstrations:
        """Returns what training uses.

        Raises:
            UserError: There is a problem, or the episodes do not make up demonstrations; see
                `Demonstrations.from_episodes`.
        """
        if self.problems:
            raise UserError(self.problems[0])
        return Demonstrations.from_episodes(
            [(episode.observations, episode.actions) for episode in self.episodes],
            self.name,
            self.metadata,
        )
