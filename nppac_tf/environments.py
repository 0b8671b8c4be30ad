"""Tasks, vectorized stepping, and the TF-Agents adapter; the one door to Gymnasium and MuJoCo.

Glossary: B environments in a batch, D observation components, A action components.

The hand tasks are gymnasium-robotics' `AdroitHand*-v1` with the reward replaced by the goal flag
`info["success"]`. They never terminate: they truncate at the horizon.

Importing this module imports neither MuJoCo, nor gymnasium-robotics, nor TensorFlow: the first task
made imports the former two, the first look at `GymnasiumPyEnvironment` the latter.
"""

import contextlib
import dataclasses
import difflib
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np

from nppac_tf.errors import UserError

REWARDS = ("binary", "negative")


class _HandTask(NamedTuple):
    environment_id: str
    base_id: str
    horizon: int


_HAND_TASKS = {
    "pen-binary": _HandTask("nppac_tf/PenBinary-v0", "AdroitHandPen-v1", 100),
    "door-binary": _HandTask("nppac_tf/DoorBinary-v0", "AdroitHandDoor-v1", 200),
    "relocate-binary": _HandTask("nppac_tf/RelocateBinary-v0", "AdroitHandRelocate-v1", 200),
    "hammer-binary": _HandTask("nppac_tf/HammerBinary-v0", "AdroitHandHammer-v1", 200),
}
_HAND_NAMES = {hand_task.environment_id: name for name, hand_task in _HAND_TASKS.items()}
_LOCOMOTION_IDS = {
    "halfcheetah": "HalfCheetah-v5",
    "ant": "Ant-v5",
    "walker2d": "Walker2d-v5",
    "hopper": "Hopper-v5",
}


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
    name = _HAND_NAMES.get(name, name)
    if name in _HAND_TASKS:
        environment_id = _HAND_TASKS[name].environment_id
        environment_kwargs = {"reward": reward}
    elif reward != "binary":
        raise UserError(
            f"reward must be 'binary' for a task without a success signal, {name!r}; got {reward!r}"
        )
    else:
        environment_id = _LOCOMOTION_IDS.get(name, name)
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


def episode_seed(seed: int, *key: int) -> int:
    """Derives an episode's seed, in [0, 2³²), from a run's seed and the episode's place in it.

    Raises:
        UserError: if the seed is negative.
    """
    if seed < 0:
        raise UserError(f"seed must be at least 0; got {seed}")
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


def clip_actions(actions: np.ndarray, task: Task, num_environments: int) -> np.ndarray:
    """Checks a batch of actions and clips it into the task's bounds.

    Args:
        actions: [B, A], in the environment's units.
        task: gives A and the bounds.
        num_environments: B.

    Returns:
        A new array [B, A] float32.

    Raises:
        UserError: if the shape is not [B, A].
        FloatingPointError: if an action is not finite.
    """
    actions = np.asarray(actions, dtype=np.float32)
    expected_shape = (num_environments, task.action_size)
    if actions.shape != expected_shape:
        raise UserError(
            f"actions must be [B, A] = {list(expected_shape)} for task {task.name!r}; "
            f"got {list(actions.shape)}"
        )
    require_finite("action", actions)
    return np.minimum(np.maximum(actions, task.action_low), task.action_high)


def require_finite(quantity: str, values: np.ndarray) -> None:
    """Raises FloatingPointError, naming the rows, unless all values [B] or [B, K] are finite."""
    finite = np.isfinite(values)
    if not finite.all():
        rows = np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))
        raise FloatingPointError(
            f"{quantity} must be finite; got nan or infinity in environment "
            f"{', '.join(map(str, rows))} of {len(values)}"
        )


class Step(NamedTuple):
    """One step of B environments.

    Attributes:
        next_observations: [B, D] float32, the true successors, at an episode's end too.
        rewards: [B] float32.
        terminations: [B] bool, the episode ended in a terminal state.
        truncations: [B] bool, the episode was cut off; the successor state is not terminal.
        successes: [B] float32, 1 at the goal, 0 elsewhere, nan where the environment does not tell.
    """

    next_observations: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    successes: np.ndarray


class VectorEnvironment:
    """B environments of one task, stepped together in this process; each resets itself at its end.

    Every episode is reset with a seed of its own, derived from the run's seed, the environment's
    index and the episode's index: the same actions always give the same run. So its state is saved
    as the seeds and the actions of the episodes underway, and restored by doing them again: exact
    in any simulator that repeats itself, and no simulator is looked into.

    Arrays handed out are never written to again.
    """

    def __init__(self, task: Task, num_environments: int, seed: int) -> None:
        """Makes the environments and starts the first episode of each.

        Args:
            task: what to make.
            num_environments: B, at least 1.
            seed: at least 0.

        Raises:
            UserError: if num_environments or seed is out of range.
        """
        if num_environments < 1:
            raise UserError(f"num_environments must be at least 1; got {num_environments}")
        self._task = task
        self._seed = seed
        self._environments = [task.make() for _ in range(num_environments)]
        self._episode_counts = np.zeros(num_environments, np.int64)
        self._episode_indices = np.zeros(num_environments, np.int64)
        self._actions: list[list[np.ndarray]] = [[] for _ in range(num_environments)]
        self._observations = self._reset(range(num_environments))

    @property
    def num_environments(self) -> int:
        """B."""
        return len(self._environments)

    @property
    def observations(self) -> np.ndarray:
        """Current observations, [B, D] float32: a new episode's first where one has just ended."""
        return self._observations

    @property
    def episode_counts(self) -> np.ndarray:
        """Episodes finished by each environment, [B] int64."""
        return self._episode_counts.copy()

    def step(self, actions: np.ndarray) -> Step:
        """Steps every environment once, and starts the next episode in those whose episode ended.

        Args:
            actions: [B, A], clipped into the task's bounds.

        Raises:
            UserError: if the shape is not [B, A].
            FloatingPointError: if an action, an observation or a reward is not finite; after the
                latter two the environments must not be stepped again.
        """
        batch_size = self.num_environments
        actions = clip_actions(actions, self._task, batch_size)
        next_observations = np.empty((batch_size, self._task.observation_size), np.float32)
        rewards = np.empty(batch_size, np.float32)
        terminations = np.empty(batch_size, np.bool_)
        truncations = np.empty(batch_size, np.bool_)
        successes = np.empty(batch_size, np.float32)
        for i, environment in enumerate(self._environments):
            next_observations[i], rewards[i], terminations[i], truncations[i], info = (
                environment.step(actions[i])
            )
            successes[i] = info.get("success", np.nan)
            self._actions[i].append(actions[i])
        require_finite("observation", next_observations)
        require_finite("reward", rewards)

        self._observations = next_observations
        ended = np.flatnonzero(terminations | truncations)
        if ended.size:
            self._episode_counts[ended] += 1
            self._episode_indices[ended] += 1
            self._observations = next_observations.copy()
            self._observations[ended] = self._reset(ended)
        return Step(next_observations, rewards, terminations, truncations, successes)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs.

        Returns:
            "episode_counts" and "episode_indices" [B] int64, "observations" [B, D] float32, and
            "actions", for each environment those of its episode underway, [T, A] float32.
        """
        none = np.empty((0, self._task.action_size), np.float32)
        return {
            "episode_counts": self._episode_counts.copy(),
            "episode_indices": self._episode_indices.copy(),
            "observations": self._observations.copy(),
            "actions": [np.stack(taken) if taken else none for taken in self._actions],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> list[int]:
        """Goes on from a saved state, in the middle of episodes too.

        Args:
            state: of `state_dict`, from as many environments with the same seed.

        Returns:
            The environments that do not repeat themselves: the saved actions led them to another
            observation, and they begin their next episode. Empty for a deterministic simulator.

        Raises:
            UserError: if the state is of another number of environments.
        """
        if len(state["actions"]) != self.num_environments:
            raise UserError(
                f"state must be of {self.num_environments} environments; "
                f"got {len(state['actions'])}"
            )
        self._episode_counts = np.array(state["episode_counts"], np.int64)
        self._episode_indices = np.array(state["episode_indices"], np.int64)
        observations = self._reset(range(self.num_environments))
        unrepeated = []
        for i, actions in enumerate(state["actions"]):
            ended = False
            for action in actions:
                observations[i], _, terminated, truncated, _ = self._environments[i].step(action)
                ended = terminated or truncated
                if ended:
                    break
            self._actions[i] = list(actions)
            if ended or not np.array_equal(observations[i], state["observations"][i]):
                unrepeated.append(i)
                self._episode_indices[i] += 1
                (observations[i],) = self._reset([i])
        self._observations = observations
        return unrepeated

    def close(self) -> None:
        """Frees the simulators."""
        for environment in self._environments:
            environment.close()

    def _reset(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        observations = np.empty((len(indices), self._task.observation_size), np.float32)
        for row, i in enumerate(indices):
            seed = episode_seed(self._seed, int(i), int(self._episode_indices[i]))
            observations[row], _ = self._environments[i].reset(seed=seed)
            self._actions[i] = []
        require_finite("observation", observations)
        return observations


class SuccessRewardEnvironment(gymnasium.Env):
    """An environment with its goal flag, `info["success"]`, for a reward; it ends no episode.

    Attributes:
        base: the environment behind it, without wrappers.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": ["human", "rgb_array", "depth_array"],
        "render_fps": 100,
    }

    def __init__(self, base_id: str, reward: str = "binary", render_mode: str | None = None):
        """Makes the environment behind it.

        Args:
            base_id: its Gymnasium id; its own time limit is left out.
            reward: "binary" pays 1 at the goal and 0 elsewhere, "negative" 0 and -1.
            render_mode: "human", "rgb_array", "depth_array", or None to render nothing.
        """
        self.base = gymnasium.make(
            base_id, disable_env_checker=True, render_mode=render_mode
        ).unwrapped
        self.render_mode = render_mode
        self.observation_space = self.base.observation_space
        self.action_space = self.base.action_space
        self._offset = -1.0 if reward == "negative" else 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; `options["initial_state_dict"]` sets the simulator's state."""
        return self.base.reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Steps once; see `gymnasium.Env.step`."""
        observation, _, _, _, info = self.base.step(action)
        return observation, float(info["success"]) + self._offset, False, False, info

    def render(self) -> Any:
        """Renders a frame in the mode chosen at construction."""
        return self.base.render()

    def close(self) -> None:
        """Frees the simulator."""
        self.base.close()


def _make(environment_id: str, environment_kwargs: Mapping[str, Any]) -> gymnasium.Env:
    _register()
    with _mujoco_deprecations_dropped():
        return gymnasium.make(environment_id, disable_env_checker=True, **environment_kwargs)


def _register() -> None:
    """Registers the hand tasks and gymnasium-robotics' environments, unless that is done."""
    _import_robotics()
    for hand_task in _HAND_TASKS.values():
        if hand_task.environment_id not in gymnasium.registry:
            gymnasium.register(
                id=hand_task.environment_id,
                entry_point=f"{__name__}:{SuccessRewardEnvironment.__name__}",
                max_episode_steps=hand_task.horizon,
                kwargs={"base_id": hand_task.base_id},
            )


@functools.cache
def _import_robotics() -> None:
    """Imports gymnasium-robotics without its notice, and keeps MuJoCo from writing MUJOCO_LOG.TXT.

    The notice concerns dense rewards, which no task here uses. MuJoCo still warns on stderr.
    """
    import farama_notifications
    import mujoco

    notice = farama_notifications.notifications.pop("gymnasium_robotics", None)
    try:
        import gymnasium_robotics
    finally:
        if notice is not None:
            farama_notifications.notifications["gymnasium_robotics"] = notice
    gymnasium.register_envs(gymnasium_robotics)
    log_config = mujoco.MjLogConfig.get()
    log_config.logto_file = False
    mujoco.MjLogConfig.set(log_config)


@contextlib.contextmanager
def _mujoco_deprecations_dropped() -> Iterator[None]:
    """Drops MuJoCo's remarks on deprecated attributes in the environments' own model files."""
    import mujoco

    def warn(message: str) -> None:
        if "is deprecated and will be removed" not in message:
            warnings.warn(message, stacklevel=2)

    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(warn)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


def _is_module_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _unknown_task_message(name: str) -> str:
    short_names = [*_HAND_TASKS, *_LOCOMOTION_IDS]
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


@functools.cache
def _py_environment_class() -> type:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from tf_agents.environments import py_environment
        from tf_agents.specs import array_spec
        from tf_agents.trajectories import time_step as ts

    class GymnasiumPyEnvironment(py_environment.PyEnvironment):
        """A task as a TF-Agents environment: float32 observations [D], rewards and actions [A].

        A terminal state gives discount 0; a truncated episode ends with discount 1. Episode k has
        the seed of episode k in the first environment of a `VectorEnvironment`.
        """

        def __init__(self, task: Task, seed: int) -> None:
            """Makes the environment; nothing is reset yet.

            Args:
                task: what to make.
                seed: at least 0.
            """
            super().__init__(handle_auto_reset=True)
            self._task = task
            self._seed = seed
            self._environment = task.make()
            self._num_resets = 0
            self._info: dict[str, Any] = {}

        def observation_spec(self) -> array_spec.ArraySpec:
            return array_spec.ArraySpec((self._task.observation_size,), np.float32, "observation")

        def action_spec(self) -> array_spec.BoundedArraySpec:
            return array_spec.BoundedArraySpec(
                (self._task.action_size,),
                np.float32,
                self._task.action_low,
                self._task.action_high,
                "action",
            )

        def get_info(self) -> dict[str, Any]:
            """The `info` of the last reset or step."""
            return self._info

        def close(self) -> None:
            self._environment.close()

        def _reset(self) -> ts.TimeStep:
            seed = episode_seed(self._seed, 0, self._num_resets)
            self._num_resets += 1
            observation, self._info = self._environment.reset(seed=seed)
            return ts.restart(self._checked(observation))

        def _step(self, action: np.ndarray) -> ts.TimeStep:
            (action,) = clip_actions(np.asarray(action)[np.newaxis], self._task, 1)
            observation, reward, terminated, truncated, self._info = self._environment.step(action)
            observation = self._checked(observation)
            reward = np.float32(reward)
            require_finite("reward", reward[np.newaxis])
            if terminated:
                return ts.termination(observation, reward)
            if truncated:
                return ts.truncation(observation, reward, 1.0)
            return ts.transition(observation, reward)

        def _checked(self, observation: np.ndarray) -> np.ndarray:
            observation = np.asarray(observation, np.float32)
            require_finite("observation", observation[np.newaxis])
            return observation

    GymnasiumPyEnvironment.__qualname__ = GymnasiumPyEnvironment.__name__
    return GymnasiumPyEnvironment


def __getattr__(name: str) -> Any:
    if name == "GymnasiumPyEnvironment":
        return _py_environment_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
