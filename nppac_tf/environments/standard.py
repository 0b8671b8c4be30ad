"""One interface to all environments: flat observations, bounded actions, a success of 0 or 1.

Everything that differs between environments is settled here, so that the rest of the package meets
vectors only. An environment that breaks Gymnasium's interface becomes a UserError that says how.

Glossary: D observation components, A action components.
"""

import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np

from nppac_tf.errors import UserError

SUCCESS_KEYS = ("success", "is_success")
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
        UserError: if a part is missing or has another shape than its space.
    """
    arrays = []
    for name, space in parts.items():
        value = _find(observation, name)
        if isinstance(space, gymnasium.spaces.Box):
            value = np.array(value)
            _require_shape(name, space, value.shape)
            arrays.append(value.reshape(-1))
        else:  # One-hot.
            arrays.append(gymnasium.spaces.flatten(space, value))
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
        part = f"part {name!r} of an observation" if name else "an observation"
        raise UserError(f"{part} must have the shape {space.shape} of its space; got {shape}")


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
    value = np.asarray(info[name])
    if value.size != 1 or value.dtype.kind not in "biuf" or value.item() not in (0, 1):
        raise UserError(f"info[{name!r}] must be 0 or 1, or a bool; got {info[name]!r:.60}")
    return float(value.item())


class StandardEnvironment(gymnasium.Wrapper):
    """A task's environment with vectors for observations and `info["success"]` of 0.0 or 1.0.

    - Observations are new arrays [D], joined by `flatten`.
    - Actions are cast to the type of the action space and clipped into it, in a new array, so that
      the environment may change it.
    - Rewards are floats. `info["success"]` is what `success_of` says; absent where it is nan.
    - What the environment raises becomes a UserError with the place; closing never raises.
    """

    def __init__(
        self,
        environment: gymnasium.Env,
        name: str,
        parts: Mapping[str, gymnasium.Space],
        success_key: str | None = None,
    ) -> None:
        super().__init__(environment)
        self._name = name
        self._parts = dict(parts)
        self._success_key = success_key
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
        if not isinstance(reward, float):
            rewards = np.asarray(reward)
            if rewards.size != 1 or rewards.dtype.kind not in "biuf":
                raise UserError(f"task {self._name!r} must give one reward; got {reward!r:.60}")
            reward = float(rewards.item())
        success = success_of(info, self._success_key)
        if success == success:  # Not nan.
            info = {**info, "success": success}
        elif "success" in info:
            info = {key: value for key, value in info.items() if key != "success"}
        flat = flatten(observation, self._parts)
        return flat, float(reward), bool(terminated), bool(truncated), info

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
