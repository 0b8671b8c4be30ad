"""Tasks: environments with their sizes and bounds, looked up by name.

Glossary: D observation components, A action components.
"""

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
from nppac_tf.environments.known import KNOWN_TASKS, known_task
from nppac_tf.environments.standard import (
    StandardEnvironment,
    close,
    describe,
    observation_parts,
)
from nppac_tf.errors import UserError


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

    @property
    def observation_keys(self) -> tuple[str, ...]:
        """Names of the parts of an observation; empty where they have none."""
        return tuple(name for name in self.observation_parts if name)

    @functools.cached_property
    def observation_size(self) -> int:
        """D, the number of observation components."""
        return sum(gymnasium.spaces.flatdim(part) for part in self.observation_parts.values())

    @property
    def action_size(self) -> int:
        """A, the number of action components."""
        return len(self.action_low)

    def make(self, render_mode: str | None = None) -> gymnasium.Env:
        """Makes a new environment, with vectors for observations (see `StandardEnvironment`).

        Args:
            render_mode: "rgb_array" if `render()` is to return frames [H, W, 3] uint8.
        """
        kwargs = dict(self.environment_kwargs)
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        environment = _make(self.environment_id, kwargs, self.factory)
        return StandardEnvironment(environment, self.name, self.observation_parts, self.success_key)


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
        name: pen-binary, door-binary, relocate-binary, hammer-binary, halfcheetah, ant, walker2d,
            hopper, or a Gymnasium id; "module:Name-v0" first imports the module that registers the
            id. Or a function (or class) that returns a new environment, or "module:function".
        reward: For hand tasks "binary" (1 per step at the goal, 0 elsewhere) or "negative" (0 and
            -1). Other tasks keep their own reward and accept only the default.
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
    named = None if factory else known_task(name)
    known = named if named is not None and name in (named.name, named.environment_id) else None
    if known is not None:
        name = known.name
    if known is not None and known.base_id is not None:
        environment_id = known.environment_id
        environment_kwargs = {"reward": reward}
    elif reward != "binary":
        raise UserError(
            f"reward must be 'binary' for task {name!r}, which is not a hand task; got {reward!r}"
        )
    else:
        environment_id = known.environment_id if known else name
        environment_kwargs = {}

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
    return Task(
        name=name,
        environment_id=environment_id,
        environment_kwargs=environment_kwargs,
        observation_parts=parts,
        action_low=_inward(action_space.low, np.inf),
        action_high=_inward(action_space.high, -np.inf),
        horizon=horizon,
        success_key=success_key,
        factory=factory,
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


def _inward(bounds: np.ndarray, direction: float) -> np.ndarray:
    """Bounds [A] in float32, rounded toward the inside of the space."""
    rounded = bounds.astype(np.float32)
    outside = rounded < bounds if direction > 0 else rounded > bounds
    return np.where(outside, np.nextafter(rounded, np.float32(direction)), rounded)


def _is_module_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _failure_message(name: str, error: Exception) -> str:
    return f"task {name!r} failed to start: {describe(error)}"


def _unknown_task_message(name: str) -> str:
    short_names = list(KNOWN_TASKS)
    by_lower_case = {known.lower(): known for known in [*gymnasium.registry, *short_names]}
    by_prefix = [short for short in short_names if name and short.startswith(name.lower())]
    bare = name.rpartition(":")[2].lower()
    matches = difflib.get_close_matches(bare, by_lower_case, n=3)
    close = list(dict.fromkeys([*by_prefix, *(by_lower_case[match] for match in matches)]))
    suggestion = f"; did you mean {' or '.join(close)}?" if close else ""
    return (
        f"task must be one of {', '.join(short_names)}, a Gymnasium id, or module:id if a module "
        f"registers it; got {name!r}{suggestion}"
    )
