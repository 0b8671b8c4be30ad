"""What the doctor looks at and what it says: a recording, what is known of its task, findings.

Glossary: E episodes, T steps of an episode, D observation components, A action components.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from nppac_tf.demonstrations.dataset import TaskSpaces
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.environments.known import SuccessRule, known_task

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
LENGTH_RATIO = 0.7


class DoctorTask(TaskSpaces, Protocol):
    """What the doctor asks of a task."""

    @property
    def horizon(self) -> int | None:
        """Steps after which an episode is cut off; None where it is not."""


class Replay(Protocol):
    """What the doctor asks of a replay; see `simulator_replay.SimulatorReplay`."""

    @property
    def successes(self) -> tuple[np.ndarray, ...]:
        """Of each episode [T], 1 at the goal."""

    @property
    def errors(self) -> tuple[np.ndarray, ...]:
        """Of each episode [T + 1], greatest difference from the recorded observation."""

    @property
    def rewards(self) -> tuple[np.ndarray, ...]:
        """Of each episode [T]."""


@dataclasses.dataclass(frozen=True, eq=False)
class Simulation:
    """What the simulator says to a recording.

    Attributes:
        replay: Of the recorded actions, open loop.
        alignment: Error of the first steps with the actions shifted by -1, 0, 1 rows.
        rivals: Error of the first steps in other tasks of the same sizes, by the task's name.
    """

    replay: Replay
    alignment: Mapping[int, float]
    rivals: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: "error" where the data cannot or must not be trained on as they are, "warning"
            where they will teach something else than meant, "note" for what is good to know.
        topic: What it is about, in a word or three.
        message: What was found, with figures.
        advice: What to do.
        episodes: Those concerned, as indices into the file; empty where all are.
    """

    severity: Severity
    topic: str
    message: str
    advice: str
    episodes: tuple[int, ...] = ()


def goal_flags(recording: Recording, task_name: str | None) -> list[np.ndarray] | None:
    """Goal flags after each step, of each episode [T] float32, from the observations.

    nan where the observation after a step is not known.

    Returns:
        None where the task has no rule, or the observations are not of its size.
    """
    task = known_task(task_name) if task_name is not None else None
    if task is None or task.success_rule is None:
        return None
    if any(e.observations.shape[1] != task.observation_size for e in recording.episodes):
        return None
    with np.errstate(invalid="ignore"):
        return [_goal_flags(episode, task.success_rule) for episode in recording.episodes]


def _goal_flags(episode: RecordedEpisode, rule: SuccessRule) -> np.ndarray:
    flags = np.full(episode.length, np.nan, np.float32)
    reached = rule(episode.states()[1 : episode.length + 1])
    flags[: len(reached)] = reached
    return flags


class Examination:
    """A recording with what several checks ask of it."""

    def __init__(
        self, recording: Recording, task: DoctorTask | None, simulation: Simulation | None
    ) -> None:
        self.recording = recording
        self.task = task
        self.simulation = simulation
        self.episodes = tuple(
            dataclasses.replace(
                episode,
                observations=_finite_or_nan(episode.observations),
                actions=_finite_or_nan(episode.actions),
            )
            for episode in recording.episodes
        )
        widths = {(e.observations.shape[1], e.actions.shape[1]) for e in self.episodes}
        self.is_uniform = len(widths) == 1 and all(
            e.length and len(e.observations) for e in self.episodes
        )
        self.fits = (
            self.is_uniform
            and task is not None
            and widths == {(task.observation_size, task.action_size)}
        )
        self.goals = goal_flags(recording, task.name) if task is not None and self.fits else None

    def ends_early(self) -> list[int]:
        """Positions of the episodes that end in a terminal state, away from the goal, early."""
        lengths = np.array([e.length for e in self.episodes])
        ended = [
            position
            for position in self.where(_ends_in_terminal)
            if self.goals is None or self.goals[position][-1] != 1
        ]
        horizon = self.task.horizon if self.task is not None and self.fits else None
        if horizon is not None:
            ended = [position for position in ended if lengths[position] < horizon]
        if len(ended) <= len(self.episodes) / 2:
            return ended
        # Where most end in one, the task may be to reach it: only the shortest are suspect.
        usual = np.median(lengths)
        return [position for position in ended if lengths[position] < LENGTH_RATIO * usual]

    def named(self, positions: Iterable[int]) -> tuple[int, ...]:
        """Indices into the file, of positions in `episodes`."""
        return tuple(self.recording.indices[position] for position in positions)

    def where(self, holds: Callable[[RecordedEpisode], bool]) -> list[int]:
        """Positions of the episodes of which something holds."""
        return [position for position, episode in enumerate(self.episodes) if holds(episode)]


def _finite_or_nan(values: np.ndarray) -> np.ndarray:
    """float64, with nan for what is not finite in float32, in which training computes."""
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(np.asarray(values, np.float32))
    return np.where(is_finite, np.asarray(values, np.float64), np.nan)


def joined(episodes: Sequence[RecordedEpisode], label: str) -> np.ndarray:
    """All rows of observations or actions, [N, ...] float64."""
    return np.concatenate([np.asarray(getattr(e, label), np.float64) for e in episodes])


def _ends_in_terminal(episode: RecordedEpisode) -> bool:
    return (
        episode.terminals is not None
        and len(episode.terminals) > 0
        and (bool(episode.terminals[-1] > 0.5))
    )


def count(positions: Sequence[int] | Mapping[int, int], episodes: Sequence[object]) -> str:
    """How many of the episodes, in words."""
    return f"{len(positions)} of {len(episodes)} episodes"


def dimensions(mask: np.ndarray) -> str:
    """The dimensions that a mask [K] picks, in words."""
    indices = np.flatnonzero(mask)
    noun = "dimension" if len(indices) == 1 else "dimensions"
    return f"{noun} {listed(indices)}"


def listed(values: Iterable[float]) -> str:
    """The first few numbers, in words."""
    items = [number(float(value)) for value in values]
    return ", ".join(items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "")


def number(value: float) -> str:
    """A number with as many digits as a reader wants."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"
