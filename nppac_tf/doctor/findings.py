"""Input and output of the checks: an examination of a recording, and findings.

Glossary: E episodes, T steps of an episode, D observation size, A action size.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from nppac_tf.demonstrations.dataset import TaskSpaces
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.environments.known import SuccessRule

Field = Literal["observations", "actions"]
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
FIELDS: tuple[Field, ...] = ("observations", "actions")
# Factors between units of one quantity.
UNIT_FACTORS = {
    180 / np.pi: "degrees for radians",
    100.0: "centimeters for meters",
    1e3: "millimeters for meters",
}
SHORT_RATIO = 0.7  # An episode below this fraction of the median length is short.


class DoctorTask(TaskSpaces, Protocol):
    """The properties of a task that the doctor needs."""

    @property
    def horizon(self) -> int | None:
        """Steps after which an episode is truncated; None for no limit."""

    @property
    def success_rule(self) -> SuccessRule | None:
        """Maps observations [..., D] to goal flags [...] bool; None if they do not tell."""


@dataclasses.dataclass(frozen=True, eq=False)
class SimulatorReplay:
    """Result of replaying the actions of E episodes in the simulator.

    Attributes:
        successes: For each episode [T] float32, 1 at the goal, nan if the task has no goal.
        errors: For each episode [T + 1] float64, the largest absolute difference of an observation
            component from the recorded one, before the first step and after each; nan where no
            observation was recorded.
        rewards: For each episode [T] float32, rewards of the simulator.
    """

    successes: tuple[np.ndarray, ...]
    errors: tuple[np.ndarray, ...]
    rewards: tuple[np.ndarray, ...]

    @property
    def any_success(self) -> np.ndarray:
        """[E] float32, 1 if the episode reached the goal; nan if the task has no goal."""
        return np.array([steps.max() for steps in self.successes], np.float32)

    @property
    def time_at_goal(self) -> np.ndarray:
        """[E] float32 in [0, 1], fraction of the episode's steps at the goal."""
        return np.array([steps.mean() for steps in self.successes], np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Simulation:
    """Comparison of a recording with the simulator.

    Attributes:
        replay: Open-loop replay of the recorded actions.
        alignment: Error of the first steps with the actions shifted by -1, 0 and 1 rows.
        other_tasks: Error of the first steps in other tasks of the same sizes, by task name.
        idle: [D], whether an observation component stays the same in most steps of the task itself,
            as contact forces do; None if unknown.
        starts_at_rest: Whether the replay starts at rest because neither the file nor the
            observations say how fast.
    """

    replay: SimulatorReplay
    alignment: Mapping[int, float]
    other_tasks: Mapping[str, float] = dataclasses.field(default_factory=dict)
    idle: np.ndarray | None = None
    starts_at_rest: bool = False


@dataclasses.dataclass(frozen=True)
class Finding:
    """One result of the examination.

    Attributes:
        severity: "error" if the data cannot be trained on, "warning" if they would teach something
            unintended, "note" for other facts.
        topic: Subject, in one to three words.
        message: What was found, with numbers.
        advice: What to do.
        episodes: Indices of the affected episodes in the file; empty for all.
    """

    severity: Severity
    topic: str
    message: str
    advice: str
    episodes: tuple[int, ...] = ()


def goal_flags(recording: Recording, task: DoctorTask) -> list[np.ndarray] | None:
    """Computes goal flags from the observations, by the task's success rule.

    Returns:
        For each episode [T] float32, 1 if the state after the step is at the goal, nan if that
        state is unknown. None if the task has no success rule or other observations.
    """
    rule = task.success_rule
    if rule is None:
        return None
    if any(e.observations.shape[1] != task.observation_size for e in recording.episodes):
        return None
    with np.errstate(invalid="ignore"):
        return [_goal_flags(episode, rule) for episode in recording.episodes]


def _goal_flags(episode: RecordedEpisode, rule: SuccessRule) -> np.ndarray:
    flags = np.full(episode.length, np.nan, np.float32)
    reached = rule(episode.states()[1 : episode.length + 1])
    flags[: len(reached)] = reached
    return flags


class Examination:
    """A recording, its task and its simulation, with what several checks need.

    Attributes:
        recording: The recording.
        task: The intended task, or None.
        simulation: The comparison with the simulator, or None.
        episodes: The episodes in float64, with nan for values that are not finite in float32.
        is_uniform: Whether all episodes are non-empty and of the same sizes.
        is_finite: Whether they are, and all values are finite.
        fits: Whether these are the sizes of the task.
        goals: Goal flags of each episode; see `goal_flags`.
    """

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
        self.is_finite = self.is_uniform and not any(
            np.isnan(values).any() for e in self.episodes for values in (e.observations, e.actions)
        )
        self.fits = (
            self.is_uniform
            and task is not None
            and widths == {(task.observation_size, task.action_size)}
        )
        self.goals = goal_flags(recording, task) if task is not None and self.fits else None

    def failures(self) -> list[int]:
        """Positions of the episodes that end early in a terminal state, away from the goal.

        An unknown flag at the last step does not count as away from the goal.
        """
        lengths = np.array([e.length for e in self.episodes])
        ended = [
            position
            for position in self.where(_ends_in_terminal)
            if self.goals is None or self.goals[position][-1] == 0
        ]
        horizon = self.task.horizon if self.task is not None and self.fits else None
        if self.is_continuous:
            return []
        if horizon is not None:
            ended = [position for position in ended if lengths[position] < horizon]
        if len(ended) <= len(self.episodes) / 2:
            return ended
        # If most episodes end so, the terminal state may be the goal: only short ones are suspect.
        median = np.median(lengths)
        return [position for position in ended if lengths[position] < SHORT_RATIO * median]

    @functools.cached_property
    def is_continuous(self) -> bool:
        """Whether most episodes begin where the one before ends: flags cut them, not resets."""
        episodes = self.episodes
        if not self.is_finite or len(episodes) < 3:
            return False
        rows = [episode.observations[: episode.length] for episode in episodes]
        scale = np.concatenate(rows).std(axis=0)
        if not scale.any():
            return False
        rows = [row[:, scale > 0] / scale[scale > 0] for row in rows]
        steps = np.concatenate([np.square(np.diff(row, axis=0)).mean(axis=1) for row in rows])
        gaps = [
            np.square(after[0] - before[-1]).mean() for before, after in itertools.pairwise(rows)
        ]
        return bool(len(steps) and np.median(gaps) <= np.quantile(steps, 0.95))

    def file_indices(self, positions: Iterable[int]) -> tuple[int, ...]:
        """Converts positions in `episodes` to indices into the file."""
        return tuple(self.recording.indices[position] for position in positions)

    def describe_dimensions(self, field: Field, indices: Sequence[int] | np.ndarray) -> str:
        """Names dimensions of observations or actions, or gives their numbers."""
        names = self.recording.names(field)
        shown: list[float | str] = [
            int(index) if names is None else names[index] for index in indices
        ]
        return f"{'dimension' if len(shown) == 1 else 'dimensions'} {format_list(shown)}"

    def where(self, condition: Callable[[RecordedEpisode], bool]) -> list[int]:
        """Positions of the episodes that meet a condition."""
        return [position for position, episode in enumerate(self.episodes) if condition(episode)]


def concatenate(episodes: Sequence[RecordedEpisode], field: str) -> np.ndarray:
    """Joins the observations or actions of all episodes, [N, ...] float64."""
    return np.concatenate([np.asarray(getattr(e, field), np.float64) for e in episodes])


def format_count(positions: Sequence[int] | Mapping[int, int], episodes: Sequence[object]) -> str:
    """Formats how many episodes are affected."""
    return f"{len(positions)} of {len(episodes)} episodes"


def format_list(values: Iterable[float | str]) -> str:
    """Formats the first eight numbers or names."""
    items = [value if isinstance(value, str) else format_number(float(value)) for value in values]
    return ", ".join(items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "")


def format_number(value: float) -> str:
    """Formats a whole number exactly, any other with three digits."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"


def _finite_or_nan(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        is_finite = np.isfinite(np.asarray(values, np.float32))
    return np.where(is_finite, np.asarray(values, np.float64), np.nan)


def _ends_in_terminal(episode: RecordedEpisode) -> bool:
    terminals = episode.terminals
    return terminals is not None and len(terminals) > 0 and bool(terminals[-1] > 0.5)
