"""Recordings: the unchecked content of a demonstration file, with more than training needs.

Glossary: E episodes, T steps of an episode, D observation size, A action size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np

from nppac_tf.demonstrations.dataset import Demonstrations
from nppac_tf.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class RecordedEpisode:
    """One episode of a file. Lengths may disagree, and values may not be finite.

    Attributes:
        observations: [T, D], before each action; [T + 1, D] if the file holds one more.
        actions: [T, A], before any clipping.
        final_observation: [D], after the last action, if the format stores it separately.
        rewards: [T], or as many as the file holds. None if absent, as for the following.
        terminals: [T], whether the step ended in a terminal state.
        truncations: [T], whether a time limit cut the episode off at the step.
        successes: [T], goal flags of the environment.
        next_observations: [T, D], after each action.
        timestamps: [T] seconds, when each observation was made.
        succeeded: Whether the file counts the episode as a success; None if it does not say.
        task: The task in words; empty if the file does not say.
        initial_state: Arrays that set the simulator to the start of the episode; often empty.
    """

    observations: np.ndarray
    actions: np.ndarray
    final_observation: np.ndarray | None = None
    rewards: np.ndarray | None = None
    terminals: np.ndarray | None = None
    truncations: np.ndarray | None = None
    successes: np.ndarray | None = None
    next_observations: np.ndarray | None = None
    timestamps: np.ndarray | None = None
    succeeded: bool | None = None
    task: str = ""
    initial_state: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def length(self) -> int:
        """T, the number of actions."""
        return len(self.actions)

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take, in bytes."""
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]
        values += self.initial_state.values()
        return sum(value.nbytes for value in values if isinstance(value, np.ndarray))

    def states(self) -> np.ndarray:
        """Returns the first observation and all successors: [T + 1, D], or [T, D]."""
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
    """The content of a demonstration file.

    Attributes:
        name: Short name.
        format: Format of the file, such as "AWAC npy".
        episodes: Readable episodes.
        indices: [E], position of each episode in the file, where unreadable ones count too.
        problems: Reasons why the file, or some of its episodes, cannot be used; one line each.
        metadata: Provenance and what the file says of itself, a JSON-serializable mapping. Names of
            dimensions are in "observation_names" [D] and "action_names" [A], frames per second in
            "fps", the texts of tasks in "tasks".
        environment_id: Gymnasium id or task name stored in the file; None if there is none.
        is_pickle: Whether the file is a pickle, which runs code if loaded the usual way.
        notices: What reading left out, one line each.
    """

    name: str
    format: str
    episodes: tuple[RecordedEpisode, ...]
    indices: tuple[int, ...]
    problems: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    environment_id: str | None = None
    is_pickle: bool = False
    notices: tuple[str, ...] = ()

    def names(self, field: Literal["observations", "actions"]) -> list[str] | None:
        """Names of the dimensions of observations [D] or actions [A]; None if they are unknown."""
        names = self.metadata.get(f"{field.removesuffix('s')}_names")
        sizes = {getattr(episode, field).shape[1] for episode in self.episodes}
        if not isinstance(names, list) or sizes != {len(names)}:
            return None
        return names if all(isinstance(name, str) for name in names) else None

    def select(self, indices: Collection[int]) -> Recording:
        """Returns a recording of some of the episodes, in the order of the file.

        Args:
            indices: Positions in the file, of which each must be in `self.indices`.

        Raises:
            UserError: An episode is not there, or none is left.
        """
        missing = sorted(set(indices) - set(self.indices))
        if missing or not indices:
            raise UserError(
                f"episodes must be of the {len(self.indices)} in {self.name}, numbered from 0; got "
                f"{missing[0] if missing else 'none'}"
            )
        kept = [row for row, index in enumerate(self.indices) if index in indices]
        metadata, outcomes = dict(self.metadata), self.metadata.get("episodes")
        if isinstance(outcomes, list) and len(outcomes) == len(self.episodes):
            metadata["episodes"] = [outcomes[row] for row in kept]
        return dataclasses.replace(
            self,
            episodes=tuple(self.episodes[row] for row in kept),
            indices=tuple(self.indices[row] for row in kept),
            metadata=metadata,
        )

    def demonstrations(self) -> Demonstrations:
        """Returns the part that training uses.

        Raises:
            UserError: The recording has problems, or see `Demonstrations.from_episodes`.
        """
        if self.problems:
            raise UserError(self.problems[0])
        failed = sum(episode.succeeded is False for episode in self.episodes)
        notices = list(self.notices)
        if failed:
            notices.append(f"{failed} of {len(self.episodes)} episodes are marked as failed")
        data = Demonstrations.from_episodes(
            [(episode.observations, episode.actions) for episode in self.episodes],
            self.name,
            self.metadata,
            notices,
        )
        successes, terminals = self._joined("successes"), self._joined("terminals")
        if successes is not None and not np.isin(successes, (0, 1)).all():
            successes = None
        return dataclasses.replace(
            data,
            rewards=self._joined("rewards"),
            successes=successes,
            terminated=None if terminals is None else terminals[data.episode_ends - 1] > 0.5,
        )

    def _joined(self, field: str) -> np.ndarray | None:
        """One finite number for each step of all episodes, [N]; None if they are not there."""
        columns = [getattr(episode, field) for episode in self.episodes]
        for column, episode in zip(columns, self.episodes, strict=True):
            if np.shape(column) != (episode.length,) or column.dtype.kind not in "biuf":
                return None
        joined = np.concatenate(columns).astype(np.float32)
        return joined if np.isfinite(joined).all() else None


def dimension_names(sizes: Mapping[str, int]) -> list[str]:
    """Names the dimensions of joined parts, such as ["gripper", "position[0]", "position[1]"].

    Args:
        sizes: Number of dimensions of each part, by its name.
    """
    return [
        name if size == 1 else f"{name}[{index}]"
        for name, size in sizes.items()
        for index in range(size)
    ]
