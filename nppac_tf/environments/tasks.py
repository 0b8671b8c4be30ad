"""Tasks: environments with their sizes and bounds, looked up by name.

Glossary: D observation components, A action components.
"""

import contextlib
import dataclasses
import difflib
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from nppac_tf.config import REWARDS
from nppac_tf.environments import hand, mujoco
from nppac_tf.environments.known import KNOWN_TASKS, SuccessRule, known_task, task_name
from nppac_tf.environments.standard import (
    StandardEnvironment,
    close,
    describe,
    observation_parts,
    slices,
)
from nppac_tf.errors import UserError

_GOALS = ("achieved_goal", "desired_goal")


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """An environment with its sizes and bounds.

    Attributes:
        name: Short name such as "pen-binary", the Gymnasium id, or that of the factory.
        environment_id: Gymnasium id; the name of a task that is made by a factory.
        environment_kwargs: Keyword arguments for `gymnasium.make` or the factory.
        observation_parts: Named parts of an observation, in the order in which they are joined,
            with their spaces; see `standard.observation_parts`.
        action_low: Lower action bounds, [A] float32, finite, not below the environment's own.
        action_high: Upper action bounds, [A] float32, finite, not above the environment's own.
        horizon: Number of steps after which an episode is truncated; None if it never is.
        success_key: Entry of `info` that says whether a step is at the goal; None for the usual.
        factory: Makes the environment, in place of `gymnasium.make`.
        reward: "binary" for the environment's own, "negative" for 0 at the goal and -1 elsewhere.
    """

    name: str
    environment_id: str
    environment_kwargs: Mapping[str, Any]
    observation_parts: Mapping[str, gymnasium.Space]
    action_low: np.ndarray
    action_high: np.ndarray
    horizon: int | None
    success_key: str | None = None
    factory: Callable[..., gymnasium.Env] | None = None
    reward: str = "binary"

    @property
    def observation_keys(self) -> tuple[str, ...]:
        """Names of the parts of an observation; empty where they have none."""
        return tuple(name for name in self.observation_parts if name)

    @functools.cached_property
    def observation_size(self) -> int:
        """D, the number of observation components."""
        return sum(gymnasium.spaces.flatdim(part) for part in self.observation_parts.values())

    @functools.cached_property
    def observation_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of observations that the task declares, [D] float32 each, infinite where none."""
        bounds = []
        for side, direction in (("low", -np.inf), ("high", np.inf)):
            parts = [
                getattr(part, side).reshape(-1)
                if isinstance(part, gymnasium.spaces.Box)
                else np.full(gymnasium.spaces.flatdim(part), float(direction > 0))  # One-hot.
                for part in self.observation_parts.values()
            ]
            bounds.append(_rounded(np.concatenate(parts), direction))
        return bounds[0], bounds[1]

    @property
    def action_size(self) -> int:
        """A, the number of action components."""
        return len(self.action_low)

    @functools.cached_property
    def success_rule(self) -> SuccessRule | None:
        """Maps observations [..., D] to goal flags [...] bool; None if they do not tell."""
        known = known_task(self.name)
        if known is None or known.goal_radius is None:
            return known.success_rule if known is not None else None
        places, radius = self._goal_places(), known.goal_radius
        if places is None:
            return None
        achieved, desired = places
        return lambda observations: (
            np.linalg.norm(observations[..., achieved] - observations[..., desired], axis=-1)
            < radius
        )

    def goal_rewards(self, observations: np.ndarray) -> np.ndarray | None:
        """Computes the environment's rewards [N] for reaching observations [N, D].

        Returns:
            What `compute_reward` of a goal environment says; None if the task is another, or its
            observations lack the goals.

        Raises:
            UserError: if `compute_reward` fails.
        """
        places = self._goal_places()
        if places is None:
            return None
        achieved, desired = (
            np.asarray(observations[:, place], np.float64).reshape(-1, *space.shape)
            for place, space in zip(places, self._goal_spaces(), strict=True)
        )
        with contextlib.closing(self.make()) as environment:
            compute = getattr(environment.unwrapped, "compute_reward", None)
            if compute is None:
                return None
            try:
                rewards = [compute(*goals, {}) for goals in zip(achieved, desired, strict=True)]
                return np.array(rewards, np.float64).reshape(len(observations))
            except Exception as error:  # A user's environment can raise anything.
                message = f"task {self.name!r} failed in compute_reward: {describe(error)}"
                raise UserError(message) from error

    def _goal_places(self) -> tuple[slice, slice] | None:
        places = slices(self.observation_parts)
        if not all(name in places for name in _GOALS):
            return None
        achieved, desired = (places[name] for name in _GOALS)
        return achieved, desired

    def _goal_spaces(self) -> list[gymnasium.Space]:
        return [self.observation_parts[name] for name in _GOALS]

    def make(self, render_mode: str | None = None) -> gymnasium.Env:
        """Makes a new environment, with vectors for observations (see `StandardEnvironment`).

        Args:
            render_mode: "rgb_array" if `render()` is to return frames [H, W, 3] uint8.
        """
        kwargs = dict(self.environment_kwargs)
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        environment = _make(self.environment_id, kwargs, self.factory)
        return StandardEnvironment(
            environment,
            self.name,
            self.observation_parts,
            self.success_key,
            by_success=self.reward == "negative" and "reward" not in kwargs,
        )


def make_task(
    name: str | Callable[..., gymnasium.Env],
    reward: str = "binary",
    *,
    observation_keys: Sequence[str] = (),
    success_key: str | None = None,
) -> Task:
    """Looks up a task by its short name or by any Gymnasium id, or takes a function that makes it.

    Observations may be Box, Discrete, MultiBinary or MultiDiscrete spaces, or Dict and Tuple spaces
    of these, as those of goal environments are; they are joined to one vector. Actions must be
    bounded, one-dimensional Box spaces.

    Args:
        name: A short name of `known.KNOWN_TASKS`, such as pen-binary or fetch-push, or a Gymnasium
            id; "module:Name-v0" first imports the module that registers the id. Or a function (or
            class) that returns a new environment, or "module:function".
        reward: "binary" for the task's own reward (of hand tasks 1 per step at the goal and 0
            elsewhere), "negative" for 0 and -1, of any task that reports success.
        observation_keys: Parts of the observation to use, in this order; by default all.
        success_key: Entry of `info` that says whether a step is at the goal, where it is neither
            "success" nor "is_success".

    Raises:
        UserError: if the name is unknown, the spaces are not supported, or the task does not have
            the reward.
    """
    factory = None if isinstance(name, str) else name
    if not isinstance(name, str):
        name = getattr(name, "__name__", type(name).__name__)
    if reward not in REWARDS:
        raise UserError(f"reward must be one of {', '.join(REWARDS)}; got {reward!r}")
    known = None if factory else KNOWN_TASKS.get(task_name(name))
    name = known.name if known else name
    environment_id = known.environment_id if known else name
    is_hand_task = known is not None and known.base_id is not None
    environment_kwargs = {"reward": reward} if is_hand_task else {}

    module, colon, attribute = environment_id.rpartition(":")
    if colon and not _is_module_name(module):
        raise UserError(f"task must be a name or module:name; got {name!r}")
    try:
        if colon and attribute not in gymnasium.registry:
            found = getattr(importlib.import_module(module), attribute, None)
            factory = found if callable(found) else None
        environment = _make(environment_id, environment_kwargs, factory)
    except gymnasium.error.UnregisteredEnv as error:
        raise UserError(_unknown_task_message(name)) from error
    except ModuleNotFoundError as error:
        missing = getattr(error.__cause__ or error, "name", None)  # Gymnasium raises another one.
        if colon and missing and f"{module}.".startswith(f"{missing}."):
            raise UserError(
                f"task {name!r} must name a module that Python can import; no module {module} was "
                "found: run in its folder or install it"
            ) from error
        raise UserError(_failure_message(name, error)) from error
    except Exception as error:  # A user's environment can raise anything.
        raise UserError(_failure_message(name, error)) from error
    try:
        action_space = environment.action_space
        horizon = _time_limit(environment)
        if not colon and factory is None and environment.spec is not None:
            environment_id = environment.spec.id  # Includes the version if the name did not.
            name = task_name(environment_id)
        try:
            parts = observation_parts(environment.observation_space, observation_keys or None)
        except UserError as error:
            raise UserError(f"task {name!r}: {error}") from None
    finally:
        close(environment, name)
    if (
        not isinstance(action_space, gymnasium.spaces.Box)
        or len(action_space.shape) != 1
        or not action_space.is_bounded()
    ):
        raise UserError(
            f"task {name!r} must have a bounded, one-dimensional Box action space; "
            f"got {action_space}"
        )
    known = KNOWN_TASKS.get(name)
    if reward == "negative" and known is not None and not known.has_goal:
        raise UserError(f"reward must be 'binary' for task {name!r}, which has no goal")
    return Task(
        name=name,
        environment_id=environment_id,
        environment_kwargs=environment_kwargs,
        observation_parts=parts,
        action_low=_rounded(action_space.low, np.inf),
        action_high=_rounded(action_space.high, -np.inf),
        horizon=horizon,
        success_key=success_key,
        factory=factory,
        reward=reward,
    )


def _make(
    environment_id: str,
    environment_kwargs: Mapping[str, Any],
    factory: Callable[..., gymnasium.Env] | None,
) -> gymnasium.Env:
    mujoco.load()
    hand.register()
    with mujoco.deprecations_dropped():
        if factory is not None:
            return factory(**environment_kwargs)
        return gymnasium.make(environment_id, disable_env_checker=True, **environment_kwargs)


def _time_limit(environment: gymnasium.Env) -> int | None:
    """Steps after which a wrapper truncates an episode."""
    while isinstance(environment, gymnasium.Wrapper):
        if isinstance(environment, gymnasium.wrappers.TimeLimit):
            return environment._max_episode_steps
        environment = environment.env
    return environment.spec.max_episode_steps if environment.spec is not None else None


def _rounded(bounds: np.ndarray, direction: float) -> np.ndarray:
    """Bounds in float32, rounded in the direction of minus or plus infinity."""
    with np.errstate(over="ignore"):
        rounded = bounds.astype(np.float32)
    wrong = rounded < bounds if direction > 0 else rounded > bounds
    return np.where(wrong, np.nextafter(rounded, np.float32(direction)), rounded)


def _is_module_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _failure_message(name: str, error: Exception) -> str:
    return f"task {name!r} failed to start: {describe(error)}"


def _unknown_task_message(name: str) -> str:
    short_names = list(KNOWN_TASKS)
    by_lower_case = {known.lower(): known for known in [*gymnasium.registry, *short_names]}
    by_prefix = [short for short in short_names if name and short.startswith(name.lower())]
    module, _, bare = name.rpartition(":")
    found = difflib.get_close_matches(bare.lower(), by_lower_case, n=3)
    matches = [by_lower_case[each] for each in found]
    if module:  # Which may register them; a short name takes no module.
        matches = [f"{module}:{each}" for each in matches if each not in short_names]
    close = list(dict.fromkeys([*by_prefix, *matches]))
    suggestion = f"; did you mean {' or '.join(close)}?" if close else ""
    return (
        f"task must be one of {', '.join(short_names)}, a Gymnasium id, or module:id if a module "
        f"registers it; got {name!r}{suggestion}"
    )
