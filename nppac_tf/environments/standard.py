"""One interface to all environments: flat observations, bounded actions, a success of 0 or 1.

Everything that differs between environments is settled here, so that the rest of the package meets
vectors only. An environment that breaks Gymnasium's interface becomes a UserError that says how.

Glossary: D observation components, A action components.
"""

import math
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np

from nppac_tf.errors import UserError

SUCCESS_KEYS = ("success", "is_success")
_LARGEST = float(np.finfo(np.float32).max)
_OLD_INTERFACE = (
    "it has the interface of the old gym: return (observation, info) from reset(seed=, options=), "
    "and (observation, reward, terminated, truncated, info) from step"
)


def observation_parts(
    space: gymnasium.Space, keys: Iterable[str] | None = None
) -> dict[str, gymnasium.Space]:
    """The named parts that make up an observation, in the order of the space.

    Args:
        space: Box, Discrete, MultiBinary or MultiDiscrete, or a Dict or Tuple of such spaces, at
            any depth. Names of nested parts are joined by "/". A space that is no Dict or Tuple has
            one part, named "".
        keys: Names of the parts to keep, in the order to keep them; None for all. The name of a
            Dict stands for all its parts.

    Raises:
        UserError: for another kind of space, or a key that is not there.
    """
    parts = dict(_leaves(space, ""))
    if not parts:
        raise UserError(f"an observation must have at least one part; got {space}")
    if keys is None:
        return parts
    chosen: dict[str, gymnasium.Space] = {}
    for key in keys:
        found = {name: part for name, part in parts.items() if f"{name}/".startswith(f"{key}/")}
        if not found or not key:
            names = ", ".join(parts) if "" not in parts else "none, since they are not named"
            raise UserError(
                f"observation_keys must be among those of the task ({names}); got {key!r}"
            )
        chosen |= found
    return chosen


def _leaves(space: gymnasium.Space, name: str) -> Iterator[tuple[str, gymnasium.Space]]:
    spaces = gymnasium.spaces
    if isinstance(space, spaces.Dict | spaces.Tuple):
        items = space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in items:
            yield from _leaves(part, f"{name}/{key}" if name else str(key))
    elif isinstance(
        space, spaces.Box | spaces.Discrete | spaces.MultiBinary | spaces.MultiDiscrete
    ):
        yield name, space
    else:
        kind = type(space).__name__
        raise UserError(
            "an observation must be made of Box, Discrete, MultiBinary, MultiDiscrete, Dict or "
            f"Tuple spaces; got {kind}" + (f" in {name!r}" if name else "")
        )


def unbounded_box(shape: tuple[int, ...]) -> gymnasium.Space:
    """A space of all float32 arrays of a shape."""
    return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)


def part_sizes(parts: Mapping[str, gymnasium.Space]) -> dict[str, int]:
    """How many components of the observation each part makes up; see `observation_parts`."""
    return {name: gymnasium.spaces.flatdim(space) for name, space in parts.items()}


def flatten(observation: Any, parts: Mapping[str, gymnasium.Space]) -> np.ndarray:
    """Joins the parts of an observation to a new array [D].

    Args:
        observation: As the environment returns it.
        parts: From `observation_parts`.

    Raises:
        UserError: if a part is missing, is not made of numbers, or has another shape than its
            space.
    """
    arrays = []
    for name, space in parts.items():
        value = _find(observation, name)
        if isinstance(space, gymnasium.spaces.Box):
            value = _numbers(name, space, value)
            _require_shape(name, space, value.shape)
            arrays.append(value.reshape(-1))
        else:  # One-hot.
            arrays.append(_one_hot(name, space, value))
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def flatten_steps(observations: Any, parts: Mapping[str, gymnasium.Space]) -> np.ndarray:
    """Joins the parts of T observations, each part in one array [T, ...], to an array [T, D].

    Raises:
        UserError: as `flatten`.
    """
    arrays = []
    for name, space in parts.items():
        value = np.asarray(_find(observations, name))
        if isinstance(space, gymnasium.spaces.Box):
            _require_shape(name, space, value.shape[1:])
            arrays.append(value.reshape(len(value), -1))
        else:
            arrays.append(np.stack([gymnasium.spaces.flatten(space, step) for step in value]))
    if len({len(array) for array in arrays}) > 1:
        raise UserError("the parts of the observations must have the same number of steps")
    return np.concatenate(arrays, axis=1)


def _numbers(name: str, space: gymnasium.Space, value: Any) -> np.ndarray:
    """A new array of the values; those beyond float32 are infinite, as they are for a policy."""
    try:
        array = np.array(value)
    except ValueError:  # Of lists of several lengths.
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise UserError(f"{_part(name)} must be numbers of {space}; got {one_line(value)}")
    if array.dtype.itemsize > 4 and array.dtype.kind == "f":
        array[np.abs(array) > _LARGEST] = np.inf
    return array


def _one_hot(name: str, space: gymnasium.Space, value: Any) -> np.ndarray:
    try:
        if space.contains(value):
            return gymnasium.spaces.flatten(space, value)
    except (TypeError, ValueError):  # Of values that it cannot compare.
        pass
    raise UserError(f"{_part(name)} must be in {space}; got {one_line(value)}")


def _part(name: str) -> str:
    return f"part {name!r} of an observation" if name else "an observation"


def one_line(value: Any) -> str:
    """A short description of any value, such as what an environment returned."""
    return " ".join(repr(value).split())[:60]


def slices(parts: Mapping[str, gymnasium.Space]) -> dict[str, slice]:
    """Where `flatten` puts each part in the array [D]."""
    ends = np.cumsum([gymnasium.spaces.flatdim(part) for part in parts.values()])
    starts = [0, *ends[:-1]]
    return {name: slice(*place) for name, *place in zip(parts, starts, ends, strict=True)}


def _find(observation: Any, name: str) -> Any:
    if not name:
        return observation
    try:
        for key in name.split("/"):
            observation = observation[int(key) if isinstance(observation, tuple | list) else key]
    except (KeyError, IndexError, TypeError, ValueError):
        raise UserError(f"an observation must have the part {name!r}") from None
    return observation


def _require_shape(name: str, space: gymnasium.Space, shape: tuple[int, ...]) -> None:
    if shape != space.shape:
        raise UserError(
            f"{_part(name)} must have the shape {space.shape} of its space; got {shape}"
        )


def success_of(info: Mapping[str, Any], key: str | None = None) -> float:
    """Whether a step is at the goal: 1 or 0; nan where `info` does not say.

    Args:
        info: What the environment's step returned.
        key: Its entry; by default the first of `SUCCESS_KEYS` that is there.

    Raises:
        UserError: if the entry is not one value of 0 or 1.
    """
    names = SUCCESS_KEYS if key is None else (key,)
    name = next((name for name in names if info.get(name) is not None), None)
    if name is None:
        return float("nan")
    if info[name] is True or info[name] is False:
        return float(info[name])
    value = _number(info[name])
    if value not in (0, 1):
        raise UserError(f"info[{name!r}] must be 0 or 1, or a bool; got {one_line(info[name])}")
    return float(value == 1)


def _number(value: Any) -> float | None:
    """One number, or an array of one, as a float; None if it is something else."""
    if isinstance(value, float):
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # Of lists of several lengths.
        return None
    return float(array.item()) if array.size == 1 and array.dtype.kind in "biuf" else None


class StandardEnvironment(gymnasium.Wrapper):
    """A task's environment with vectors for observations and `info["success"]` of 0.0 or 1.0.

    - Observations are new arrays [D], joined by `flatten`.
    - Actions are cast to the type of the action space and clipped into it, in a new array, so that
      the environment may change it.
    - Rewards are floats. `info["success"]` is what `success_of` says; absent where it is nan.
    - If rewards are by success, they are 0 at the goal and -1 elsewhere. A step that does not say
      is elsewhere; an episode that never says is an error.
    - What the environment raises becomes a UserError with the place; closing never raises.
    """

    def __init__(
        self,
        environment: gymnasium.Env,
        name: str,
        parts: Mapping[str, gymnasium.Space],
        success_key: str | None = None,
        by_success: bool = False,
    ) -> None:
        super().__init__(environment)
        self._name = name
        self._parts = dict(parts)
        self._success_key = success_key
        self._by_success = by_success
        self._says = False  # Whether a step of the episode said so far if it is at the goal.
        bounds = environment.action_space
        self._dtype, self._low, self._high = bounds.dtype, bounds.low, bounds.high
        if list(self._parts) != [""] or len(environment.observation_space.shape or ()) != 1:
            size = sum(part_sizes(self._parts).values())
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)

    @property
    def spec(self) -> Any:
        """The environment's own: with it Gymnasium makes the environment without this wrapper."""
        return self.env.spec

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; see `gymnasium.Env.reset`."""
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except (UserError, FloatingPointError):
            raise
        except Exception as error:
            raise UserError(f"task {self._name!r} failed in reset: {describe(error)}") from error
        self._says = False
        return flatten(observation, self._parts), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Takes an action [A]; see `gymnasium.Env.step`."""
        action = np.asarray(action).astype(self._dtype)
        action = np.minimum(np.maximum(action, self._low), self._high)
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except (UserError, FloatingPointError):
            raise
        except Exception as error:
            raise UserError(f"task {self._name!r} failed in step: {describe(error)}") from error
        reward = self._one("reward", reward)
        terminated = self._flag("terminated", terminated)
        truncated = self._flag("truncated", truncated)
        if not isinstance(info, Mapping):
            raise UserError(f"task {self._name!r} must give a dict of info; got {one_line(info)}")
        success = success_of(info, self._success_key)
        if success == success:  # Not nan.
            info = {**info, "success": success}
        elif "success" in info:
            info = {key: value for key, value in info.items() if key != "success"}
        if self._by_success:
            reward = self._reward_by_success(success, terminated or truncated)
        return flatten(observation, self._parts), reward, terminated, truncated, info

    def _one(self, quantity: str, value: Any) -> float:
        number = _number(value)
        if number is None:
            raise UserError(f"task {self._name!r} must give one {quantity}; got {one_line(value)}")
        return number if abs(number) <= _LARGEST else math.copysign(math.inf, number)

    def _flag(self, quantity: str, value: Any) -> bool:
        if value is True or value is False:
            return value
        if (number := _number(value)) not in (0, 1):
            raise UserError(
                f"task {self._name!r} must give {quantity} as a bool; got {one_line(value)}"
            )
        return number == 1

    def _reward_by_success(self, success: float, is_last: bool) -> float:
        """0 at the goal, else -1."""
        self._says |= success == success
        if is_last and not self._says:
            raise UserError(
                f"task {self._name!r} must say in info whether a step is at the goal "
                f"({' or '.join(SUCCESS_KEYS)}, or --success_key) for --reward=negative; no step "
                "of an episode did: pass --reward=binary for its own reward"
            )
        return 0.0 if success == 1.0 else -1.0

    def close(self) -> None:
        """Frees the simulator; a failure is a warning."""
        close(self.env, self._name)


def close(environment: gymnasium.Env, name: str) -> None:
    """Closes an environment; a failure is a warning, since nothing depends on it any more."""
    try:
        environment.close()
    except Exception as error:
        warnings.warn(f"task {name!r} failed to close: {error}", stacklevel=3)


def describe(error: Exception) -> str:
    """One line: kind, message and place of what an environment raised, or what to change."""
    text = f"{type(error).__name__}: {error}"[:200]
    place = traceback.extract_tb(error.__traceback__)[-1]
    # Not where the environment's own code raised it.
    in_wrappers = place.filename == __file__ or "/gymnasium/" in place.filename
    if in_wrappers and ("values to unpack" in text or "keyword argument 'seed'" in text):
        return _OLD_INTERFACE
    return " ".join(f"{text} ({place.filename}:{place.lineno})".split())
