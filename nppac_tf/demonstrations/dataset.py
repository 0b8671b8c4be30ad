"""The data set of expert demonstrations: state-action pairs in whole episodes.

Glossary: N steps, E episodes, T steps of an episode, D observation size, A action size.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nppac_tf.errors import UserError


class TaskSpaces(Protocol):
    """The properties of a task that `Demonstrations.conform` needs."""

    @property
    def name(self) -> str:
        """Name of the task, for messages."""

    @property
    def observation_size(self) -> int:
        """D, the number of observation components."""

    @property
    def action_size(self) -> int:
        """A, the number of action components."""

    @property
    def action_low(self) -> np.ndarray:
        """Lower action bounds [A]."""

    @property
    def action_high(self) -> np.ndarray:
        """Upper action bounds [A]."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Demonstrations:
    """N state-action pairs of E episodes, checked on construction and read-only after it.

    Attributes:
        observations: [N, D] float32.
        actions: [N, A] float32, in the environment's units.
        episode_ends: [E] int64, the exclusive end index of each episode; the last is N.
        name: Short name for messages and figures.
        metadata: Provenance, a JSON-serializable mapping.
        notices: Changes made in loading, one line each.
        rewards: [N] float32, recorded after each action; None if unknown, as for the following.
        successes: [N] float32, 1 if the state after the action was at the goal, else 0.
        terminated: [E] bool, whether the episode ended in a terminal state.

    Raises:
        UserError: The shapes do not match, a value is not finite, there is no episode or an empty
            one, or `metadata` is not JSON-serializable.
    """

    observations: np.ndarray
    actions: np.ndarray
    episode_ends: np.ndarray
    name: str = "demonstrations"
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notices: tuple[str, ...] = ()
    rewards: np.ndarray | None = None
    successes: np.ndarray | None = None
    terminated: np.ndarray | None = None

    def __post_init__(self) -> None:
        observations = as_matrix(self.observations, "observations", "[N, D]")
        steps = len(observations)
        actions = as_matrix(
            self.actions, "actions", f"[N, A] to match observations {_shape(observations)}"
        )
        if len(actions) != steps:
            raise UserError(
                f"actions must be [N, A] to match observations {_shape(observations)}; "
                f"got {_shape(actions)}"
            )
        ends = as_episode_ends(self.episode_ends, steps)
        _check_finite(observations, "observations", ends)
        _check_finite(actions, "actions", ends)
        arrays = {"observations": observations, "actions": actions, "episode_ends": ends}
        for field in ("rewards", "successes", "terminated"):
            if getattr(self, field) is not None:
                length = len(ends) if field == "terminated" else steps
                arrays[field] = as_column(getattr(self, field), field, length)
                if field != "rewards":
                    _check_flags(arrays[field], field)
        if self.terminated is not None:
            arrays["terminated"] = arrays["terminated"] > 0
        for field, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        object.__setattr__(self, "metadata", _as_json_object(self.metadata))
        object.__setattr__(self, "notices", tuple(self.notices))

    @classmethod
    def from_episodes(
        cls,
        episodes: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]],
        name: str = "demonstrations",
        metadata: Mapping[str, Any] | None = None,
        notices: Sequence[str] = (),
    ) -> Demonstrations:
        """Joins episodes, which may differ in length.

        Args:
            episodes: Pairs of observations [T, D] and actions [T, A]. Observations may also be
                [T + 1, D]; the last one, which no action follows, is dropped, with a notice.
            name: See the class.
            metadata: See the class.
            notices: Earlier notices, kept before those of joining.

        Raises:
            UserError: There is no episode, an episode is empty, its observations and actions do
                not match, or its widths differ from those of the first episode.
        """
        observations: list[np.ndarray] = []
        actions: list[np.ndarray] = []
        trimmed = 0
        for index, episode in enumerate(episodes):
            if len(episode) != 2:
                raise UserError(
                    f"episode {index} must be a pair of observations and actions; got "
                    f"{len(episode)} items: for stacked arrays, pass zip(observations, actions)"
                )
            states, controls = episode
            label = f"of episode {index}"
            states = as_matrix(states, f"observations {label}", "[T, D]")
            controls = as_matrix(
                controls, f"actions {label}", f"[T, A] to match observations {_shape(states)}"
            )
            if len(states) == len(controls) + 1:
                states = states[:-1]
                trimmed += 1
            if len(states) != len(controls):
                raise UserError(
                    f"actions {label} must be [T, A] to match observations {_shape(states)}; "
                    f"got {_shape(controls)}"
                )
            if not len(states):
                raise UserError(f"episode {index} must hold at least one step; got 0")
            observations.append(states)
            actions.append(controls)
            for kind, arrays in (("observations", observations), ("actions", actions)):
                if arrays[-1].shape[1] != arrays[0].shape[1]:
                    raise UserError(
                        f"{kind} {label} must be {arrays[0].shape[1]} wide as in episode 0; "
                        f"got {arrays[-1].shape[1]}"
                    )
        if not observations:
            raise UserError("demonstrations must hold at least one episode; got 0")
        found = [*notices]
        if trimmed:
            found.append(
                f"dropped the last observation of {trimmed} of {len(observations)} episodes: "
                "no action follows it"
            )
        return cls(
            np.concatenate(observations),
            np.concatenate(actions),
            np.cumsum([len(states) for states in observations]),
            name,
            {} if metadata is None else metadata,
            tuple(found),
        )

    def __repr__(self) -> str:
        return (
            f"Demonstrations({self.name!r}: {self.num_episodes} episodes, {self.num_steps} steps, "
            f"observation size {self.observation_size}, action size {self.action_size})"
        )

    @property
    def num_steps(self) -> int:
        """N, the number of state-action pairs in all episodes."""
        return len(self.observations)

    @property
    def num_episodes(self) -> int:
        """E, the number of episodes."""
        return len(self.episode_ends)

    @property
    def observation_size(self) -> int:
        """D, the number of observation components."""
        return self.observations.shape[1]

    @property
    def action_size(self) -> int:
        """A, the number of action components."""
        return self.actions.shape[1]

    @property
    def mean_return(self) -> float | None:
        """Mean over the episodes of their recorded rewards' sum; None without rewards."""
        return None if self.rewards is None else float(self.rewards.sum() / self.num_episodes)

    def episodes(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the observations [T, D] and actions [T, A] of each episode as read-only views."""
        start = 0
        for end in self.episode_ends:
            yield self.observations[start:end], self.actions[start:end]
            start = end

    def select(self, episode_indices: Sequence[int] | np.ndarray) -> Demonstrations:
        """Returns the given episodes in the given order; an index may occur more than once.

        Args:
            episode_indices: At least one index, each in [0, E).

        Raises:
            UserError: The indices are not whole numbers in range, or there are none.
        """
        indices = np.asarray(episode_indices)
        if indices.ndim != 1 or not indices.size or indices.dtype.kind not in "iu":
            raise UserError(
                "episode_indices must be a list of at least one whole number; "
                f"got {episode_indices!r}"
            )
        outside = indices[(indices < 0) | (indices >= self.num_episodes)]
        if outside.size:
            raise UserError(
                f"episode_indices must be in [0, {self.num_episodes}); got {outside[0]}"
            )
        starts = np.concatenate([[0], self.episode_ends[:-1]])
        lengths = (self.episode_ends - starts)[indices]
        rows = np.concatenate(
            [np.arange(starts[index], self.episode_ends[index]) for index in indices]
        )
        return dataclasses.replace(
            self,
            observations=self.observations[rows],
            actions=self.actions[rows],
            episode_ends=np.cumsum(lengths),
            rewards=None if self.rewards is None else self.rewards[rows],
            successes=None if self.successes is None else self.successes[rows],
            terminated=None if self.terminated is None else self.terminated[indices],
        )

    def look_ahead(self, steps: int) -> Demonstrations:
        """Pairs each observation with the action taken `steps` later in its episode.

        The last action of an episode is repeated past its end. If actions are targets of position
        controllers, as in the Adroit hand tasks, a policy that imitates the result takes the same
        path faster.

        Args:
            steps: Number of steps to look ahead, at least 0.

        Raises:
            UserError: steps is negative.
        """
        if steps < 0:
            raise UserError(f"steps must be at least 0; got {steps}")
        starts = np.concatenate([[0], self.episode_ends[:-1]])
        last = np.repeat(self.episode_ends - 1, self.episode_ends - starts)
        ahead = np.minimum(np.arange(self.num_steps) + steps, last)
        return dataclasses.replace(self, actions=self.actions[ahead])

    def split(self, held_out_fraction: float, seed: int) -> tuple[Demonstrations, Demonstrations]:
        """Holds out a random fraction of the episodes: at least one, and not all.

        Args:
            held_out_fraction: Fraction of the episodes to hold out, in (0, 1).
            seed: Seed of the random choice.

        Returns:
            Training and held-out demonstrations, both in the original order of episodes.

        Raises:
            UserError: The fraction is out of range, or there are fewer than two episodes.
        """
        if not 0 < held_out_fraction < 1:
            raise UserError(f"held_out_fraction must be in (0, 1); got {held_out_fraction}")
        if self.num_episodes < 2:
            raise UserError(f"split needs at least two episodes; got {self.num_episodes}")
        count = round(held_out_fraction * self.num_episodes)
        count = min(max(count, 1), self.num_episodes - 1)
        order = np.random.default_rng(seed).permutation(self.num_episodes)
        return self.select(np.sort(order[count:])), self.select(np.sort(order[:count]))

    def conform(self, task: TaskSpaces) -> Demonstrations:
        """Checks the sizes against a task and clips actions into its bounds.

        Args:
            task: Task with the sizes and action bounds to conform to.

        Returns:
            These demonstrations if no action was clipped; otherwise clipped ones with a notice.

        Raises:
            UserError: The sizes differ from those of the task.
        """
        sizes = (self.observation_size, self.action_size)
        if sizes != (task.observation_size, task.action_size):
            raise UserError(
                f"demonstrations {self.name} must have observation size {task.observation_size} "
                f"and action size {task.action_size} for task {task.name}; "
                f"got {sizes[0]} and {sizes[1]}"
            )
        low, high = (np.asarray(b, np.float32) for b in (task.action_low, task.action_high))
        clipped = np.clip(self.actions, low, high)
        excess = np.abs(self.actions - clipped)
        if not excess.any():
            return self
        outside = excess > 0
        notice = (
            f"clipped {outside.sum():,} of {outside.size:,} action values "
            f"(in {outside.any(axis=1).sum():,} of {self.num_steps:,} steps) "
            f"into the bounds of {task.name}, by {excess.max():.3g} at most"
        )
        return dataclasses.replace(self, actions=clipped, notices=(*self.notices, notice))

    def fingerprint(self) -> str:
        """Returns the SHA-256 (hex) of the three arrays and their shapes."""
        digest = hashlib.sha256()
        for array, dtype in (
            (self.observations, "<f4"),
            (self.actions, "<f4"),
            (self.episode_ends, "<i8"),
        ):
            digest.update(f"{dtype}{array.shape}".encode())
            digest.update(array.astype(dtype, copy=False).tobytes())
        return digest.hexdigest()


def _shape(array: np.ndarray) -> str:
    return str(list(array.shape))


def as_matrix(values: npt.ArrayLike, label: str, requirement: str) -> np.ndarray:
    """Copies `values` to a float32 matrix [rows, columns] with at least one column."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{label} must be {requirement}; got rows of several lengths") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{label} must be numbers; got {array.dtype}")
    if array.ndim != 2 or not array.shape[1]:
        raise UserError(f"{label} must be {requirement}; got {_shape(array)}")
    with np.errstate(over="ignore"):
        return np.array(array, dtype=np.float32, order="C")


def as_column(values: npt.ArrayLike, label: str, length: int) -> np.ndarray:
    """Copies `values` to a float32 vector [length] of finite numbers."""
    array = np.array(values)
    if array.shape != (length,) or array.dtype.kind not in "biuf":
        raise UserError(
            f"{label} must be [{length}] numbers to match observations and episode_ends; "
            f"got {_shape(array)} of {array.dtype}"
        )
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{label} must be finite in float32; got {(~np.isfinite(array)).sum()} not")
    return array


def _check_flags(array: np.ndarray, label: str) -> None:
    others = array[~np.isin(array, (0, 1))]
    if others.size:
        raise UserError(f"{label} must be 0 or 1; got {others[0]:.6g}")


def as_episode_ends(values: npt.ArrayLike, steps: int) -> np.ndarray:
    """Checks and copies the exclusive end indices [E] of episodes with `steps` steps in all."""
    ends = np.asarray(values)
    if ends.ndim != 1 or (ends.size and ends.dtype.kind not in "iu"):
        raise UserError(
            f"episode_ends must be [E] whole numbers; got {_shape(ends)} of {ends.dtype}"
        )
    if not ends.size:
        raise UserError("demonstrations must hold at least one episode; got 0")
    ends = np.array(ends, dtype=np.int64)
    lengths = np.diff(ends, prepend=0)
    if (lengths <= 0).any():
        first = int(np.argmax(lengths <= 0))
        raise UserError(
            "episode_ends must start above 0 and increase, so that no episode is empty; "
            f"got {ends[first]} for episode {first}"
        )
    if ends[-1] != steps:
        raise UserError(f"episode_ends must end in the number of steps {steps}; got {ends[-1]}")
    return ends


def _check_finite(array: np.ndarray, label: str, ends: np.ndarray) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        step, dimension = np.argwhere(bad)[0]
        episode = int(np.searchsorted(ends, step, side="right"))
        raise UserError(
            f"{label} must be finite in float32; got {bad.sum():,} values that are not, the first "
            f"({array[step, dimension]}) at step {step} (episode {episode}), dimension {dimension}"
        )


def _as_json_object(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Copies `metadata` through JSON, so that saving and loading does not change it."""
    try:
        return json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"metadata must be JSON-serializable; got {error}") from error
