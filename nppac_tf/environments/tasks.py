"""Tasks: looked up by name, told by their sizes and bounds, made into environments.

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
    """An environment's name, sizes and bounds, and the way to make it.

    Attributes:
        name: the short name, such as "pen-binary", or the Gymnasium id where there is none.
        environment_id: the Gymnasium id.
        environment_kwargs: keyword arguments for `gymnasium.make`.
        observation_size: D.
        action_low: lower action bounds, [A] float32, finite.
        action_high: upper action bounds, [A] float32, finite.
        horizon: steps after which an episode is truncated; None where it is not.
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
        """Makes a new environment; its observations and rewards are Gymnasium's own, uncast.

        Args:
            render_mode: "rgb_array" for one whose `render()` gives frames [H, W, 3] uint8.
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
            one-dimensional Box actions; "module:Name-v0" imports the module that registers it.
        reward: of the hand tasks, "binary" pays 1 per step at the goal and 0 elsewhere, "negative"
            0 and -1. Other tasks keep their own reward and accept only "binary", the default.

    Raises:
        UserError: if the name is unknown, the spaces are of another kind, or the reward does not
            suit the task.
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
            f"reward must be 'binary' for a task without a success signal, {name!r}; got {reward!r}"
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
        if colon and error.name and f"{module}.".startswith(f"{error.name}."):
            raise UserError(
                f"task {name!r} must name a module that Python can import; there is no {module}: "
                "look for it in the working directory or install it"
            ) from error
        raise UserError(_unknown_task_message(name)) from error
    except Exception as error:  # An environment of the user's own can raise anything.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"task {name!r} cannot be made: {reason}") from error
    with contextlib.closing(environment):
        observation_space = environment.observation_space
        action_space = environment.action_space
        horizon = environment.spec.max_episode_steps
        if not colon:
            environment_id = environment.spec.id  # With a version, if the name had none.
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


def _unknown_task_message(name: str) -> str:
    short_names = list(KNOWN_TASKS)
    by_lower_case = {known.lower(): known for known in [*gymnasium.registry, *short_names]}
    by_prefix = [short for short in short_names if name and short.startswith(name.lower())]
    bare = name.rpartition(":")[2].lower()
    matches = difflib.get_close_matches(bare, by_lower_case, n=3)
    close = list(dict.fromkeys([*by_prefix, *(by_lower_case[match] for match in matches)]))
    suggestion = f"close to it: {', '.join(close)}; " if close else ""
    return (
        f"task must be one of {', '.join(short_names)}, a Gymnasium id, or module:id, which "
        f"imports the module that registers it; {suggestion}got {name!r}"
    )
