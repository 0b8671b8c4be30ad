"""Open-loop replay of recorded actions in the simulator.

It shows whether a data set agrees with the installed simulator, and what was recorded.

Glossary: E episodes, T steps of an episode, D observation size, A action size.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.doctor.diagnosis import candidate_tasks
from nppac_tf.doctor.findings import Simulation, SimulatorReplay
from nppac_tf.doctor.start_states import lacks_velocities, restarter
from nppac_tf.environments import Task, make_task
from nppac_tf.environments.known import tasks_of_sizes
from nppac_tf.errors import UserError

_MAX_REPLAYED = 25
_MAX_ALIGNED = 10
_IDLE_EPISODES = 5
_IDLE_STEPS = 40


def replay_in_simulator(
    task: Task,
    demonstrations: Demonstrations | Recording,
    num_episodes: int | None = None,
    on_frame: Callable[[np.ndarray], None] | None = None,
) -> SimulatorReplay:
    """Replays the actions of each episode from the state in which it began.

    See `start_states` for that state. The simulator clips actions into its bounds.

    Args:
        task: Task whose simulator is used.
        demonstrations: Demonstrations of the task's sizes.
        num_episodes: Number of episodes to replay, from the first (default: all).
        on_frame: Receives a frame [H, W, 3] uint8 at the start of each episode and after each step.

    Raises:
        UserError: The sizes differ from the task's, or the observations of the task do not
            determine the simulator's state.
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
            observation = restarter(environment, episode, task)()
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
            recorded = episode.states()[: len(reached)]
            difference = np.full(len(reached), np.nan)
            difference[: len(recorded)] = np.abs(np.stack(reached)[: len(recorded)] - recorded).max(
                axis=1
            )
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
    """Measures the replay error with the actions shifted against the observations.

    Args:
        task: Task whose simulator is used.
        demonstrations: Demonstrations of the task's sizes.
        shifts: Shifts to try, each -1, 0 or 1. Shift 1 assumes that row i holds the action taken
            one step before its observation.
        num_steps: Steps to replay in each episode.

    Returns:
        For each shift, the median over episodes of the mean absolute error of the observations.
        Aligned demonstrations have by far the smallest error at shift 0.

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
            restart = restarter(environment, episode, task)
            for shift in shifts:
                replayed = [*actions[max(shift, 0) : steps + shift]]
                if shift < 0:
                    replayed.insert(0, _missing_action(environment, restart, recorded[1], task))
                restart()
                reached = [environment.step(np.asarray(a, np.float32))[0] for a in replayed]
                difference = np.abs(np.stack(reached) - recorded[1 : steps + 1])
                errors[shift].append(float(difference.mean()))
    return {shift: float(np.median(values)) for shift, values in errors.items() if values}


def simulate(task: Task, recording: Recording) -> Simulation | None:
    """Compares the first 25 episodes of a recording with the simulator, for `diagnosis.diagnose`.

    Returns:
        None if the recording cannot be replayed: its sizes differ from the task's, values are not
        finite, or the observations of the task do not determine the simulator's state.
    """
    if not _is_replayable(task, recording):
        return None
    try:
        replay = replay_in_simulator(task, recording, _MAX_REPLAYED)
    except UserError:
        return None
    other_tasks = {
        name: _early_error(make_task(name), recording)
        for name in tasks_of_sizes((task.observation_size, task.action_size))
        if name != task.name
    }
    return Simulation(
        replay,
        alignment_errors(task, recording),
        other_tasks,
        _idle(task),
        lacks_velocities(task) and not all(e.initial_state for e in recording.episodes),
    )


def _idle(task: Task) -> np.ndarray:
    """Which observation components [D] have one value in most steps of random episodes."""
    generator = np.random.default_rng(0)
    rows = []
    with contextlib.closing(task.make()) as environment:
        for seed in range(_IDLE_EPISODES):
            rows.append(environment.reset(seed=seed)[0])
            for _ in range(_IDLE_STEPS):
                action = generator.uniform(task.action_low, task.action_high)
                observation, _, terminated, truncated, _ = environment.step(
                    action.astype(np.float32)
                )
                rows.append(observation)
                if terminated or truncated:
                    break
    values = np.stack(rows)
    return (values == np.median(values, axis=0)).mean(axis=0) > 0.5


def likeliest_task(recording: Recording, observation_keys: Sequence[str] = ()) -> Task | None:
    """Guesses the task of a recording.

    Args:
        recording: Recording to guess the task of.
        observation_keys: Parts that its observations were read with; see `load_recording`.

    Returns:
        The task named in the file; otherwise the known task of the same sizes, or, of several, the
        one whose simulator follows the first steps best. None if there is none, or no simulator
        tells them apart.
    """
    tasks = []
    for name in candidate_tasks(recording):
        with contextlib.suppress(UserError):
            tasks.append(make_task(name, observation_keys=observation_keys))
    if len(tasks) < 2:
        return tasks[0] if tasks else None
    errors = [_early_error(task, recording) for task in tasks]
    return tasks[int(np.argmin(errors))] if np.isfinite(errors).any() else None


def _early_error(task: Task, recording: Recording) -> float:
    """Error of the first steps at shift 0; infinite if the recording cannot be replayed."""
    if not _is_replayable(task, recording):
        return np.inf
    try:
        return alignment_errors(task, recording, (0,)).get(0, np.inf)
    except UserError:
        return np.inf


def _is_replayable(task: Task, recording: Recording) -> bool:
    """Whether a recording has the task's sizes, no empty episode and finite values."""
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


def _missing_action(
    environment: Any, restart: Callable[[], np.ndarray], reached: np.ndarray, task: Task
) -> np.ndarray:
    """Finds the action [A] that leads from the start to a second observation [D].

    For a recording that lacks it; by Gauss-Newton steps.
    """

    def step(action: np.ndarray) -> np.ndarray:
        restart()
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
