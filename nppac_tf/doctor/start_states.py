"""Start states: setting a simulator to where a recorded episode began.

If the file stores the state, it is used. Otherwise the state is computed from the first
observation; what the observation lacks (the hand's velocity, how far a robot has run) is zero.

Glossary: D observation size.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.environments import Task
from nppac_tf.environments.known import known_task
from nppac_tf.errors import UserError

Observe = Callable[[], np.ndarray]


def restarter(environment: Any, episode: RecordedEpisode, task: Task) -> Observe:
    """Returns a function that restarts an episode in an environment.

    Args:
        environment: Environment of the task.
        episode: Recorded episode.
        task: The task.

    Returns:
        A function without arguments that sets the environment to the start of the episode and
        returns its observation [D].

    Raises:
        UserError: The observations of the task do not determine the simulator's state.
    """
    environment.reset(seed=0)
    simulator = getattr(environment.unwrapped, "base", environment.unwrapped)
    first = np.asarray(episode.observations[0], np.float64)
    known = known_task(task.name)
    if known is not None and known.name in _HAND_STATES:
        return _hand_restarter(environment, simulator, first, episode.initial_state, known.name)
    if not hasattr(simulator, "set_state"):
        raise UserError(_undetermined(task))
    positions, velocities = _locomotion_state(simulator, first, task)

    def restart() -> np.ndarray:
        environment.reset(seed=0)
        simulator.set_state(positions, velocities)
        return np.asarray(simulator._get_obs())

    return restart


def lacks_velocities(task: Task) -> bool:
    """Whether the observations of a task do not say how fast the robot moves, as the hand's."""
    known = known_task(task.name)
    return known is not None and known.name in _HAND_STATES


def _hand_restarter(
    environment: Any,
    simulator: Any,
    first: np.ndarray,
    recorded: Mapping[str, np.ndarray],
    task_name: str,
) -> Observe:
    spaces = simulator._state_space.spaces
    state = {
        key: np.asarray(recorded[key], np.float64).reshape(-1) for key in spaces if key in recorded
    }
    is_complete = state.keys() == spaces.keys() and all(
        state[key].shape == spaces[key].shape and np.isfinite(state[key]).all() for key in state
    )

    def restart(candidate: Mapping[str, np.ndarray]) -> np.ndarray:
        options = {"initial_state_dict": candidate}
        return np.asarray(environment.reset(seed=0, options=options)[0])

    # A recorded state may use the coordinates of another simulator: the observation decides.
    candidates = ([state] if is_complete else []) + [_hand_state(simulator, first, task_name)]
    best = min(candidates, key=lambda candidate: np.abs(restart(candidate) - first).max())
    return lambda: restart(best)


def _hand_state(simulator: Any, first: np.ndarray, task_name: str) -> dict[str, np.ndarray]:
    """Computes the state of a hand task from a first observation [D], at rest.

    Quantities that the observation holds only relative to others are found by comparing it with the
    simulator's observation: the difference of two positions is the translation to apply.
    """
    state = {key: np.array(value) for key, value in simulator.get_env_state().items()}
    state = {key: state[key] for key in simulator._state_space.spaces}
    state["qpos"][:], state["qvel"][:] = simulator.init_qpos, 0.0

    def observe() -> np.ndarray:
        simulator.set_env_state(state)
        return np.asarray(simulator._get_obs())

    _HAND_STATES[task_name](state, first, observe)
    return state


def _set_pen(state: dict[str, np.ndarray], first: np.ndarray, observe: Observe) -> None:
    # Observation: hand 24, pen position, velocity 6, axis, target axis, and differences.
    qpos = state["qpos"]
    qpos[:24] = first[:24]
    state["qvel"][24:] = first[27:33]
    state["desired_orien"] = np.array([1.0, 0.0, 0.0, 0.0])
    qpos[24:27] += first[24:27] - observe()[24:27]
    state["desired_orien"] = _rotation(observe()[36:39], first[36:39])
    qpos[27:30] = _pen_tilt(observe, qpos, first[33:36])


def _set_door(state: dict[str, np.ndarray], first: np.ndarray, observe: Observe) -> None:
    # Observation: hand without its first joint 27, latch, hinge, palm, handle, and differences.
    qpos = state["qpos"]
    qpos[1:28], qpos[29], qpos[28] = first[:27], first[27], first[28]
    reference = observe()
    qpos[0] = 1.0
    axis = observe()[29:32] - reference[29:32]
    qpos[0] = (first[29:32] - reference[29:32]) @ axis / (axis @ axis)
    state["door_body_pos"] += first[32:35] - reference[32:35]


def _set_relocate(state: dict[str, np.ndarray], first: np.ndarray, observe: Observe) -> None:
    # Observation: hand 30, palm - object, palm - target, object - target.
    state["qpos"][:30] = first[:30]
    reference = observe()
    state["obj_pos"] -= first[30:33] - reference[30:33]
    state["target_pos"] -= first[33:36] - reference[33:36]


def _set_hammer(state: dict[str, np.ndarray], first: np.ndarray, observe: Observe) -> None:
    # Observation: hand 26, nail, velocity 6, palm, hammer, its rotation, nail's head, impact.
    qpos = state["qpos"]
    qpos[:27] = first[:27]
    state["qvel"][-6:] = first[27:33]
    reference = observe()
    qpos[27:30] += first[36:39] - reference[36:39]
    qpos[30:33] += first[39:42] - reference[39:42]
    state["board_pos"] += first[42:45] - reference[42:45]


_HAND_STATES: Mapping[str, Callable[[dict[str, np.ndarray], np.ndarray, Observe], None]] = {
    "pen-binary": _set_pen,
    "door-binary": _set_door,
    "relocate-binary": _set_relocate,
    "hammer-binary": _set_hammer,
}


def _rotation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the unit quaternion [4], scalar first, that rotates one direction [3] to another."""
    source, target = (v / max(float(np.linalg.norm(v)), 1e-12) for v in (source, target))
    quaternion = np.concatenate([[1.0 + source @ target], np.cross(source, target)])
    norm = float(np.linalg.norm(quaternion))
    return quaternion / norm if norm > 1e-6 else np.array([0.0, 1.0, 0.0, 0.0])


def _pen_tilt(observe: Observe, qpos: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Returns the hinge angles [3] that point the pen along an axis [3], by Gauss-Newton steps."""
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
    """Returns positions and velocities from an observation that consists of them.

    The observation is `qpos[k:]` followed by `qvel`, where the k missing components say how far the
    robot has moved.

    Raises:
        UserError: The observations of the task have another form.
    """
    num_positions, num_velocities = simulator.model.nq, simulator.model.nv
    for missing in (1, 2, 0):
        size = num_positions - missing + num_velocities
        if size > len(first):
            continue
        positions = np.zeros(num_positions)
        positions[missing:] = first[: num_positions - missing]
        velocities = first[num_positions - missing : size].copy()
        simulator.set_state(positions, velocities)
        observation = np.asarray(simulator._get_obs())
        if observation.shape == first.shape and np.allclose(
            observation[:size], first[:size], atol=1e-3
        ):
            return positions, velocities
    raise UserError(_undetermined(task))


def _undetermined(task: Task) -> str:
    return (
        "replaying needs a task whose observations determine the simulator's state; "
        f"got {task.name}, whose observations do not"
    )
