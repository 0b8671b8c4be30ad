"""The doctor: goals, rewards, and what the simulator shows."""

import dataclasses

import numpy as np
import pytest
from toy_recordings import (
    LENGTH,
    check,
    find,
    make_episode,
    make_recording,
    make_task,
    with_episode,
)

from nppac_tf import environments
from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.doctor import diagnosis
from nppac_tf.doctor.findings import SimulatorReplay
from nppac_tf.environments.known import KNOWN_TASKS


@pytest.mark.parametrize("name", ["pen-binary", "door-binary", "relocate-binary", "hammer-binary"])
def test_the_success_rule_agrees_with_the_simulator(name):
    """From states on both sides of each threshold, set in the simulator itself."""
    task = environments.make_task(name)
    environment = task.make()
    simulator = environment.unwrapped.base
    rule = KNOWN_TASKS[name].success_rule
    generator = np.random.default_rng(0)
    environment.reset(seed=0)
    start = simulator.get_env_state()
    start = {key: start[key] for key in simulator._state_space.spaces}
    computed, flags = [], []
    for _ in range(60):
        state = {key: np.array(value) for key, value in start.items()}
        if name == "pen-binary":
            turn = np.array([1.0, 0.0, 1.0, 0.0]) + generator.uniform(-0.15, 0.15, 4)
            state["desired_orien"] = turn / np.linalg.norm(turn)
            state["qpos"][24:27] += generator.uniform(-0.08, 0.08, 3)
        elif name == "door-binary":
            state["qpos"][28] = generator.uniform(1.2, 1.5)
        elif name == "relocate-binary":
            state["target_pos"] = state["obj_pos"] + generator.uniform(-0.1, 0.1, 3)
        else:
            state["qpos"][26] = generator.uniform(0.07, 0.09)
        environment.reset(seed=0, options={"initial_state_dict": state})
        observation, _, _, _, info = environment.step(np.zeros(task.action_size, np.float32))
        computed.append(bool(rule(observation)))
        flags.append(bool(info["success"]))
    environment.close()
    assert computed == flags
    assert 5 < sum(flags) < 55


def test_a_goal_counts_after_the_step_and_is_unknown_without_the_last_state():
    states = np.zeros([4, 39])
    states[2:, 28] = 1.5
    actions = np.zeros([3, 28])
    episodes = [
        RecordedEpisode(states[:3], actions, states[3]),
        RecordedEpisode(states, actions),
        RecordedEpisode(states[:3], actions),
    ]
    flags = diagnosis.goal_flags(make_recording(episodes), make_task("door-binary", (39, 28)))
    np.testing.assert_array_equal(flags, [[0, 1, 1], [0, 1, 1], [0, 1, np.nan]])


def door_recording(reach=lambda seed: True, **changes):
    """Doors that open over their episode, and pay by being open."""
    episodes = []
    for seed in range(8):
        episode = make_episode(seed, sizes=(39, 28))
        states = np.concatenate([episode.observations, episode.final_observation[None]])
        states[:, 28] = np.linspace(0, 1.6 if reach(seed) else 1.2, LENGTH + 1)
        paid = np.where(states[1:, 28] >= 1.35, 10.0, -0.1)
        episodes.append(
            dataclasses.replace(
                episode,
                observations=states[:-1],
                final_observation=states[-1],
                next_observations=None,
                **{"rewards": paid} | {key: make(paid) for key, make in changes.items()},
            )
        )
    return make_recording(episodes)


DOOR = make_task("door-binary", (39, 28))


def test_finds_missed_and_late_goals_and_wrong_flags():
    assert diagnosis.diagnose(door_recording(successes=lambda paid: paid > 0), DOOR) == []
    missed = door_recording(reach=lambda seed: seed not in (2, 5))
    assert find(missed, "no success", DOOR).episodes == (2, 5)
    hasty = make_task("door-binary", (39, 28), horizon=40)
    assert find(door_recording(), "late success", hasty).episodes == tuple(range(8))
    flagged = door_recording(successes=lambda paid: np.zeros(LENGTH))
    assert find(flagged, "success flags", DOOR).episodes == tuple(range(8))


def test_finds_episodes_that_the_file_marks_as_failed():
    assert find(with_episode(3, succeeded=False), "marked as failed").episodes == (3,)
    never = with_episode(2, successes=np.zeros(LENGTH, np.bool_))
    check(find(never, "marked as failed"), "warning: .* marks 1 of 8 episodes as failed")
    for changes in ({"succeeded": True}, {"successes": np.arange(LENGTH) == 9}):
        assert not diagnosis.diagnose(with_episode(0, **changes), make_task())


@pytest.mark.parametrize(
    "rewards",
    [
        lambda paid: paid,
        lambda paid: np.append(-0.1, paid),
        lambda paid: np.append(paid[1:], 10.0),
        lambda paid: paid - 1,
        lambda paid: paid + np.random.default_rng(0).normal(size=LENGTH),
    ],
    ids=["as paid", "one more", "of the state before", "shifted", "dense"],
)
def test_rewards_that_follow_the_goal_are_accepted(rewards):
    findings = diagnosis.diagnose(door_recording(rewards=rewards), DOOR)
    assert "rewards" not in {finding.topic for finding in findings}


@pytest.mark.parametrize(
    "rewards", [lambda paid: -paid, lambda paid: np.random.default_rng(0).normal(size=LENGTH)]
)
def test_rewards_that_do_not_follow_the_goal_are_found(rewards):
    finding = find(door_recording(rewards=rewards), "rewards", DOOR)
    check(finding, "warning: rewards: .* of the pairs instead of 100%")
    assert finding.episodes == ()


def test_episodes_without_reward_for_the_goal_are_found():
    episodes = list(door_recording().episodes)
    for position in (1, 4):
        episodes[position] = dataclasses.replace(episodes[position], rewards=np.full(LENGTH, -0.1))
    finding = find(make_recording(episodes), "rewards", DOOR)
    check(finding, "warning: rewards: .* 2 of 8 episodes reach the goal without any reward")
    assert finding.episodes == (1, 4)


def make_simulation(error=1e-9, alignment=None, other_tasks=None, episodes=8, reward=None):
    recording = make_recording()
    replay = SimulatorReplay(
        successes=tuple(np.full(LENGTH, np.nan) for _ in range(episodes)),
        errors=tuple(np.full(LENGTH + 1, error) for _ in range(episodes)),
        rewards=tuple(
            e.rewards if reward is None else np.full(LENGTH, reward)
            for e in recording.episodes[:episodes]
        ),
    )
    return diagnosis.Simulation(replay, alignment or {-1: 1.0, 0: error, 1: 1.0}, other_tasks or {})


@pytest.mark.parametrize(
    ("expected", "simulation"),
    [
        ("note: simulator: .* the next 5 by at most 1e-09", make_simulation()),
        ("warning: simulator: .* observations differ by 0.5", make_simulation(0.5)),
        (
            "error: shifted actions: .* one step before observation i",
            make_simulation(0.5, {-1: 0.6, 0: 0.5, 1: 0.01}),
        ),
        (
            "error: shifted actions: .* one step after observation i",
            make_simulation(0.5, {-1: 0.01, 0: 0.5, 1: 0.6}),
        ),
        (
            "error: another task: the simulator of hopper reproduces",
            make_simulation(0.5, {-1: 0.01, 0: 0.5, 1: 0.6}, {"ant": 0.4, "hopper": 0.001}),
        ),
        ("warning: rewards: 8 of 8 .* other rewards than toy", make_simulation(reward=7.0)),
    ],
)
def test_reports_what_the_simulator_shows(expected, simulation):
    check(find(make_recording(), expected.split(": ")[1], simulation=simulation), expected)


def test_an_unknown_flag_at_the_last_step_is_no_failure():
    """Doors that open in the last step; without the state after it, nobody knows."""
    known = []
    for seed in range(8):
        states = np.concatenate([make_episode(seed, sizes=(39, 28)).states()])
        states[:, 28] = 0.0
        states[-1, 28] = 1.5 if seed < 4 else 0.0
        ends = np.arange(LENGTH) == LENGTH - 1
        known.append(
            RecordedEpisode(
                states[:-1],
                make_episode(seed, sizes=(39, 28)).actions,
                states[-1],
                terminals=ends if seed < 5 else ~ends & False,
            )
        )
    unknown = [dataclasses.replace(episode, final_observation=None) for episode in known]
    task = make_task("door-binary", (39, 28), horizon=2 * LENGTH)
    assert find(make_recording(known), "fails early", task).episodes == (4,)
    found = {finding.topic for finding in diagnosis.diagnose(make_recording(unknown), task)}
    assert "fails early" not in found
