"""Tasks: environments with their sizes and bounds, looked up by name.

Glossary: D observation components, A action components.
"""

import contextlib
import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from nppac_tf.config import REWARDS
from nppac_tf.environments import hand, mujoco
from nppac_tf.environments.known import KNOWN_TASKS, known_task
from nppac_tf.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """An environment with its sizes and bounds.

    Attributes:
        name: Short name such as "pen-binary", or the Gymnasium id if there is none.
        environment_id: Gymnasium id.
        environment_kwargs: Keyword arguments for `gymnasium.make`.
        observation_size: D.
        action_low: Lower action bounds, [A] float32, finite.
        action_high: Upper action bounds, [A] float32, finite.
        horizon: Number of steps after which an episode is truncated; None if it never is.
    """

    name: str
    environment_id: str
    environment_kwargs: Mapping[str, Any]
    observation_size: int
    action_low: np.ndarray
    action_high: np.ndarray
    horizon: int | None

    @property
    def action_size(self) -> int:
        """A, the number of action components."""
        return len(self.action_low)

    def make(self, render_mode: str | None = None) -> gymnasium.Env:
        """Makes a new environment, whose observations and rewards are not cast to float32.

        Args:
            render_mode: "rgb_array" if `render()` is to return frames [H, W, 3] uint8.
        """
        kwargs = dict(self.environment_kwargs)
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        return _make(self.environment_id, kwargs)


def make_task(name: str, reward: str = "binary") -> Task:
    """Looks up a task by its short name or by any Gymnasium id.

    Args:
        name: pen-binary, door-binary, relocate-binary, hammer-binary, halfcheetah, ant, walker2d,
            hopper, or a Gymnasium id with one-dimensional Box observations and bounded,
            one-dimensional Box actions. "module:Name-v0" first imports the module that registers
            the id.
        reward: For hand tasks "binary" (1 per step at the goal, 0 elsewhere) or "negative" (0 and
            -1). Other tasks keep their own reward and accept only the default.

    Raises:
        UserError: if the name is unknown, the spaces are not supported, or the task does not have
            the reward.
    """
    if reward not in REWARDS:
        raise UserError(f"reward must be one of {', '.join(REWARDS)}; got {reward!r}")
    named = known_task(name)
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

    module, colon, _ = environment_id.rpartition(":")
    if colon and not _is_module_name(module):
        raise UserError(f"task must be a name or module:name; got {name!r}")
    try:
        environment = _make(environment_id, environment_kwargs)
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
    with contextlib.closing(environment):
        observation_space = environment.observation_space
        action_space = environment.action_space
        horizon = environment.spec.max_episode_steps
        if not colon:
            environment_id = environment.spec.id  # Includes the version if the name did not.
    if not isinstance(observation_space, gymnasium.spaces.Box) or len(observation_space.shape) != 1:
        raise UserError(
            f"task {name!r} must have a one-dimensional Box observation space; "
            f"got {observation_space}"
        )
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
        observation_size=observation_space.shape[0],
        action_low=action_space.low.astype(np.float32),
        action_high=action_space.high.astype(np.float32),
        horizon=horizon,
    )


def _make(environment_id: str, environment_kwargs: Mapping[str, Any]) -> gymnasium.Env:
    mujoco.load()
    hand.register()
    with mujoco.deprecations_dropped():
        return gymnasium.make(environment_id, disable_env_checker=True, **environment_kwargs)


def _is_module_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _failure_message(name: str, error: Exception) -> str:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"task {name!r} failed to start: {reason}"


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
