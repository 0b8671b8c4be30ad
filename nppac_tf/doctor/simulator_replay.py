"""Replaying recorded actions in the simulator, open loop.

It tells whether a data set and today's simulator agree, and shows what was recorded.

Glossary: E episodes, T steps of an episode, D observation components, A action components.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.doctor import diagnosis
from nppac_tf.environments import Task, make_task
from nppac_tf.environments.known import tasks_of_sizes
from nppac_tf.errors import UserError

_MAX_EPISODES = 25  # Enough to tell, and of great data sets a small part.
_MAX_ALIGNED = 10


@dataclasses.dataclass(frozen=True, eq=False)
class SimulatorReplay:
    """What replaying E episodes came to; T is an episode's number of actions.

    Attributes:
        successes: Of each episode [T] float32, 1 at the goal; nan where the task has no goal.
        errors: Of each episode [T + 1] float64, the greatest absolute difference of an observation
            component from the recorded one, before the first step and after each; nan where none
            was recorded.
        rewards: Of each episode [T] float32, as the simulator pays now.
    """

    successes: tuple[np.ndarray, ...]
    errors: tuple[np.ndarray, ...]
    rewards: tuple[np.ndarray, ...]

    @property
    def any_success(self) -> np.ndarray:
        """[E] float32, 1 where the goal was reached; nan where the task has no goal."""
        return np.array([steps.max() for steps in self.successes], np.float32)

    @property
    def time_at_goal(self) -> np.ndarray:
        """[E] float32 in [0, 1], share of the episode's steps at the goal."""
        return np.array([steps.mean() for steps in self.successes], np.float32)


def replay_in_simulator(
    task: Task,
    demonstrations: Demonstrations | Recording,
    num_episodes: int | None = None,
    on_frame: Callable[[np.ndarray], None] | None = None,
) -> SimulatorReplay:
    """Replays the actions of each episode from where it began.

    The simulator is put into the recorded state where the file has it; else into the state that the
    first observation tells. What it does not tell (a hand's velocity, how far a cheetah has run)
    is zero. The simulator clips actions into its bounds.

    Args:
        task: Where to replay.
        demonstrations: Of the task's sizes.
        num_episodes: Only the first so many; all where None.
        on_frame: Is given a frame [H, W, 3] uint8 of the start of each episode and of every step.

    Raises:
        UserError: The sizes are not the task's, or its simulator cannot be put into a state.
    """
    episodes = _episodes(demonstrations)[:num_episodes]
    for index, episode in enumerate(episodes):
        sizes = (episode.observations.shape[1], episode.actions.shape[1])
        if sizes != (task.observation_size, task.action_size):
            raise UserError(
                f"episode {index} must have observation size {task.observation_size} and action "
                f"size {task.action_size} for task {task.name}; got {sizes[0]} and {sizes[1]}"
            )
    successes, errors, rewards = [], [], []
    environment = task.make(None if on_frame is None else "rgb_array")
    with contextlib.closing(environment):
        for episode in episodes:
            recorded = episode.states()
            observation = _beginning(environment, episode, task)()
            if on_frame is not None:
                on_frame(np.asarray(environment.render()))
            flags, paid, reached = [], [], [observation]
            for action in episode.actions:
                observation, reward, _, _, info = environment.step(np.asarray(action, np.float32))
                if on_frame is not None:
                    on_frame(np.asarray(environment.render()))
                flags.append(float(info.get("success", np.nan)))
                paid.append(reward)
                reached.append(observation)
            difference = np.full(len(reached), np.nan)
            known = min(len(recorded), len(reached))
            difference[:known] = np.abs(np.stack(reached)[:known] - recorded[:known]).max(axis=1)
            successes.append(np.array(flags, np.float32))
            errors.append(difference)
            rewards.append(np.array(paid, np.float32))
    return SimulatorReplay(tuple(successes), tuple(errors), tuple(rewards))


def alignment_errors(
    task: Task,
    demonstrations: Demonstrations | Recording,
    shifts: Sequence[int] = (-1, 0, 1),
    num_steps: int = 5,
) -> dict[int, float]:
    """How far replaying leads astray if each row's action is taken to belong to another row.

    Args:
        task: Where to replay.
        demonstrations: Of the task's sizes.
        shifts: Of the actions against the observations, each -1, 0 or 1. Shift 1 means that row i
            holds the action that was taken one step before its observation.
        num_steps: Steps to replay of each episode, from its start.

    Returns:
        By shift, the median over episodes of the mean absolute error of the observations. Aligned
        demonstrations have their least error, by far, at 0.

    Raises:
        UserError: See `replay_in_simulator`.
    """
    errors: dict[int, list[float]] = {shift: [] for shift in shifts}
    with contextlib.closing(task.make()) as environment:
        for episode in _episodes(demonstrations)[:_MAX_ALIGNED]:
            recorded, actions = episode.states(), episode.actions
            steps = min(num_steps, len(actions) - 1, len(recorded) - 1)
            if steps < 2:
                continue
            begin = _beginning(environment, episode, task)
            for shift in shifts:
                replayed = [*actions[max(shift, 0) : steps + shift]]
                if shift < 0:
                    replayed.insert(0, _missing_action(environment, begin, recorded[1], task))
                begin()
                reached = [environment.step(np.asarray(a, np.float32))[0] for a in replayed]
                difference = np.abs(np.stack(reached) - recorded[1 : steps + 1])
                errors[shift].append(float(difference.mean()))
    return {shift: float(np.median(values)) for shift, values in errors.items() if values}


def _missing_action(
    environment: Any, begin: Callable[[], np.ndarray], reached: np.ndarray, task: Task
) -> np.ndarray:
    """The action [A] that leads from where an episode began to a second observation [D].

    Found by Gauss-Newton steps, for a recording that lost it.
    """

    def step(action: np.ndarray) -> np.ndarray:
        begin()
        return np.asarray(environment.step(action.astype(np.float32))[0])

    middle = (task.action_low + task.action_high) / 2
    span = np.asarray(task.action_high - task.action_low, np.float64)
    action = np.asarray(middle, np.float64)
    for _ in range(3):
        here = step(action)
        jacobian = np.empty((len(here), len(action)))
        for column, width in enumerate(0.02 * span):
            changed = action.copy()
            changed[column] += -width if action[column] > middle[column] else width
            jacobian[:, column] = (step(changed) - here) / (changed - action)[column]
        change, *_ = np.linalg.lstsq(jacobian, reached - here, rcond=1e-6)
        action = np.clip(action + change, task.action_low, task.action_high)
    return action


def simulate(task: Task, recording: Recording) -> diagnosis.Simulation | None:
    """Asks the simulator what `doctor.diagnose` may tell from it, of the first 25 episodes.

    Returns:
        None where the recording cannot be replayed: its sizes are not the task's, values are not
        finite, or the observations do not tell where to begin.
    """
    if not _is_sound(task, recording):
        return None
    try:
        replay = replay_in_simulator(task, recording, _MAX_EPISODES)
    except UserError:
        return None
    rivals = {}
    for name in tasks_of_sizes((task.observation_size, task.action_size)):
        if name != task.name:
            rivals[name] = _early_error(make_task(name), recording)
    return diagnosis.Simulation(replay, alignment_errors(task, recording), rivals)


def likeliest_task(recording: Recording) -> Task | None:
    """The task that a recording seems to be of; None where no known task has its sizes.

    Where several tasks have them, the one whose simulator follows the first steps best.
    """
    tasks = []
    for name in diagnosis.candidate_tasks(recording):
        with contextlib.suppress(UserError):
            tasks.append(make_task(name))
    if len(tasks) < 2 or not all(_is_sound(task, recording) for task in tasks):
        return tasks[0] if tasks else None
    return min(tasks, key=lambda task: _early_error(task, recording))


def _early_error(task: Task, recording: Recording) -> float:
    return alignment_errors(task, recording, (0,)).get(0, np.inf)


def _is_sound(task: Task, recording: Recording) -> bool:
    """Whether a recording is of a task's sizes, and finite."""
    sizes = (task.observation_size, task.action_size)
    return bool(recording.episodes) and all(
        episode.length > 0
        and len(episode.observations) > 0
        and (episode.observations.shape[1], episode.actions.shape[1]) == sizes
        and np.isfinite(episode.observations).all()
        and np.isfinite(episode.actions).all()
        for episode in recording.episodes
    )


def _episodes(demonstrations: Demonstrations | Recording) -> list[RecordedEpisode]:
    if isinstance(demonstrations, Recording):
        return list(demonstrations.episodes)
    return [RecordedEpisode(*episode) for episode in demonstrations.episodes()]


def _beginning(environment: Any, episode: RecordedEpisode, task: Task) -> Callable[[], np.ndarray]:
    """Returns what puts an environment where an episode began, and gives its observation [D]."""
    environment.reset(seed=0)
    simulator = getattr(environment.unwrapped, "base", environment.unwrapped)
    first = np.asarray(episode.observations[0], np.float64)
    if hasattr(simulator, "set_env_state"):
        return _hand_beginning(environment, simulator, first, episode.initial_state)
    if not hasattr(simulator, "set_state"):
        raise UserError(_untold(task))
    positions, velocities = _locomotion_state(simulator, first, task)

    def begin() -> np.ndarray:
        environment.reset(seed=0)
        simulator.set_state(positions, velocities)
        return np.asarray(simulator._get_obs())

    return begin


def _hand_beginning(
    environment: Any, simulator: Any, first: np.ndarray, recorded: Mapping[str, np.ndarray]
) -> Callable[[], np.ndarray]:
    spaces = simulator._state_space.spaces
    state = {
        key: np.asarray(recorded[key], np.float64).reshape(-1) for key in spaces if key in recorded
    }
    complete = state.keys() == spaces.keys() and all(
        state[key].shape == spaces[key].shape and np.isfinite(state[key]).all() for key in state
    )

    def begin(candidate: Mapping[str, np.ndarray]) -> np.ndarray:
        options = {"initial_state_dict": candidate}
        return np.asarray(environment.reset(seed=0, options=options)[0])

    # A recorded state may be of a simulator with other coordinates: the observation decides.
    candidates = ([state] if complete else []) + [_hand_state(simulator, first)]
    best = min(candidates, key=lambda candidate: np.abs(begin(candidate) - first).max())
    return functools.partial(begin, best)


def _hand_state(simulator: Any, first: np.ndarray) -> dict[str, np.ndarray]:
    """The state that a first observation [D] tells, at rest.

    Everything that the observation does not hold directly is found by comparing positions with the
    simulator's: they differ by translations, and a translation is corrected in one go.
    """
    state = {key: np.array(value) for key, value in simulator.get_env_state().items()}
    state = {key: state[key] for key in simulator._state_space.spaces}
    qpos, qvel = state["qpos"], state["qvel"]
    qpos[:], qvel[:] = simulator.init_qpos, 0.0

    def observe() -> np.ndarray:
        simulator.set_env_state(state)
        return np.asarray(simulator._get_obs())

    if "desired_orien" in state:  # Pen: hand 24, position, velocity, axis, target's axis.
        qpos[:24] = first[:24]
        qvel[24:] = first[27:33]
        state["desired_orien"] = np.array([1.0, 0.0, 0.0, 0.0])
        qpos[24:27] += first[24:27] - observe()[24:27]
        state["desired_orien"] = _rotation(observe()[36:39], first[36:39])
        qpos[27:30] = _tilt(observe, qpos, first[33:36])
    elif (
        "door_body_pos" in state
    ):  # Door: hand without its first joint, latch, hinge, palm, handle.
        qpos[1:28], qpos[29], qpos[28] = first[:27], first[27], first[28]
        reference = observe()
        qpos[0] = 1.0
        axis = observe()[29:32] - reference[29:32]
        qpos[0] = (first[29:32] - reference[29:32]) @ axis / (axis @ axis)
        state["door_body_pos"] += first[32:35] - reference[32:35]
    elif "obj_pos" in state:  # Relocate: hand 30, palm - object, palm - target, object - target.
        qpos[:30] = first[:30]
        reference = observe()
        state["obj_pos"] -= first[30:33] - reference[30:33]
        state["target_pos"] -= first[33:36] - reference[33:36]
    else:  # Hammer: hand 26 and nail, velocity 6, palm, hammer, its rotation, nail's head, impact.
        qpos[:27] = first[:27]
        qvel[-6:] = first[27:33]
        reference = observe()
        qpos[27:30] += first[36:39] - reference[36:39]
        qpos[30:33] += first[39:42] - reference[39:42]
        state["board_pos"] += first[42:45] - reference[42:45]
    return state


def _rotation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The unit quaternion [4], scalar first, that turns one direction [3] into another."""
    source, target = (v / max(float(np.linalg.norm(v)), 1e-12) for v in (source, target))
    quaternion = np.concatenate([[1.0 + source @ target], np.cross(source, target)])
    norm = float(np.linalg.norm(quaternion))
    return quaternion / norm if norm > 1e-6 else np.array([0.0, 1.0, 0.0, 0.0])


def _tilt(observe: Callable[[], np.ndarray], qpos: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Hinge angles [3] of the pen that point it along an axis [3], by Gauss-Newton steps."""
    angles = np.zeros(3)
    for _ in range(20):
        qpos[27:30] = angles
        here = observe()[33:36]
        jacobian = np.empty((3, 3))
        for column in range(3):
            qpos[27:30] = angles
            qpos[27 + column] += 1e-5
            jacobian[:, column] = (observe()[33:36] - here) / 1e-5
        step, *_ = np.linalg.lstsq(jacobian, axis - here, rcond=1e-6)
        angles += np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < 1e-9:
            break
    return angles


def _locomotion_state(
    simulator: Any, first: np.ndarray, task: Task
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities, from an observation that is made of them.

    That is `qpos[k:]`, then `qvel`, where k components say how far the robot has come.

    Raises:
        UserError: The task's observations are not so.
    """
    num_positions, num_velocities = simulator.model.nq, simulator.model.nv
    for left_out in (1, 2, 0):
        told = num_positions - left_out + num_velocities
        if told > len(first):
            continue
        positions = np.zeros(num_positions)
        positions[left_out:] = first[: num_positions - left_out]
        velocities = first[num_positions - left_out : told].copy()
        simulator.set_state(positions, velocities)
        observation = np.asarray(simulator._get_obs())
        if observation.shape == first.shape and np.allclose(
            observation[:told], first[:told], atol=1e-3
        ):
            return positions, velocities
    raise UserError(_untold(task))


def _untold(task: Task) -> str:
    return (
        f"replaying needs a task whose state its observations tell; got {task.name}, whose state "
        "they do not"
    )
