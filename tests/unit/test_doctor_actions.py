"""What the doctor finds in actions: targets or changes, other units, and shifted rows."""

import dataclasses

import numpy as np
import pytest
from toy_recordings import check, find, make_recording, make_task

from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.doctor import diagnosis

STEPS = 80
TASK = make_task(sizes=(3, 3), horizon=STEPS)


def topics(recording, task=TASK):
    return {finding.topic for finding in diagnosis.diagnose(recording, task)}


def follow(seed, reach=0.8):
    """An arm of three joints that follows targets; its states, and the targets."""
    generator = np.random.default_rng(seed)
    time = np.arange(STEPS)[:, np.newaxis] / 20
    time = time + 0.3 * np.expm1(-time / 0.3)  # Starts at rest.
    rates, phases = generator.uniform(1, 2, 3), generator.uniform(-1, 1, 3)
    targets = reach * np.sin(rates * time + phases)
    states = [targets[0]]
    for target in targets:
        states.append(states[-1] + 0.8 * (target - states[-1]))
    return np.array(states), targets


def record(make_actions, scale=1.0, reach=0.8):
    """Eight episodes, with actions made of states [T + 1, 3] and targets [T, 3]."""
    episodes = []
    for seed in range(8):
        states, targets = follow(seed, reach)
        actions = make_actions(states, targets)
        episodes.append(RecordedEpisode(scale * states[:-1], actions, scale * states[-1]))
    return make_recording(episodes)


def as_targets(_, targets):
    return targets


def as_changes(states, targets):
    return targets - states[:-1]


TARGETS, CHANGES = record(as_targets), record(as_changes)


def test_says_what_the_actions_are():
    check(
        find(TARGETS, "action targets", TASK), "note: .* dimensions 0, 1, 2 .* near the next state"
    )
    small = make_task(sizes=(3, 3), horizon=STEPS, bound=0.2)
    check(find(CHANGES, "action changes", small), "note: .* near the change of the state")
    names = {"action_names": ["hip", "knee", "foot"]}
    named = dataclasses.replace(TARGETS, metadata=names)
    assert "dimensions hip, knee, foot of" in find(named, "action targets", TASK).message


def test_finds_targets_where_the_task_takes_changes():
    small = make_task(sizes=(3, 3), horizon=STEPS, bound=0.1)
    finding = find(TARGETS, "action targets", small)
    check(finding, r"warning: .*, but \d+% of the states are outside the bounds of toy")
    assert finding.advice.startswith("Subtract the state")


def test_finds_changes_where_the_task_takes_targets():
    finding = find(CHANGES, "action changes", TASK)
    check(finding, r"warning: .*, but they use .*% of the bounds of toy, which fit the states")
    assert finding.advice.startswith("Add the state")


def test_finds_episodes_of_the_other_kind():
    mixed = [*TARGETS.episodes[:6], *CHANGES.episodes[6:]]
    finding = find(make_recording(mixed), "mixed actions", TASK)
    check(finding, "warning: mixed actions: the actions of 2 of 8 episodes are near the change")
    assert finding.episodes == (6, 7)
    assert not {"mixed actions"} & (topics(TARGETS) | topics(CHANGES))


@pytest.mark.parametrize("scale", [180 / np.pi, np.pi / 180, 1000.0])
def test_finds_actions_in_other_units_than_the_state(scale):
    recording = record(lambda _, targets: scale * targets)
    bound = make_task(sizes=(3, 3), horizon=STEPS, bound=2 * scale)
    expected = (
        f"warning: mixed units: dimensions 0, 1, 2 of the actions are about {scale:.3g} times"
    )
    check(find(recording, "mixed units", bound), expected.replace("1e+03", "1,000"))


def test_torques_are_neither_targets_nor_changes():
    generator = np.random.default_rng(0)
    episodes = [
        RecordedEpisode(states[:-1], generator.uniform(-1, 1, (STEPS, 3)), states[-1])
        for states, _ in map(follow, range(8))
    ]
    assert not {"action targets", "action changes", "mixed units"} & topics(
        make_recording(episodes)
    )
    velocities = record(lambda states, _: 42.0 * np.diff(states, axis=0))
    assert "mixed units" not in topics(velocities)


# Shifted rows.


def push(seed, noise, steps=120):
    """A point that is pushed to the origin by a controller with some noise of its own."""
    generator = np.random.default_rng(seed)
    position, velocity = generator.normal(size=2), np.zeros(2)
    rows, actions = [], []
    for _ in range(steps):
        rows.append([*position, *velocity])
        action = -position - 1.5 * velocity + noise * generator.normal(size=2)
        actions.append(np.clip(action, -1, 1))
        velocity = velocity + 0.1 * actions[-1]
        position = position + 0.1 * velocity
    return np.array(rows), np.array(actions)


def shifted(shift, noise=0.2):
    """Row i holds observation i + shift and action i."""
    episodes = []
    for seed in range(8):
        rows, actions = push(seed, noise)
        if shift >= 0:
            rows, actions = rows[shift:], actions[: len(actions) - shift]
        else:
            rows, actions = rows[:shift], actions[-shift:]
        episodes.append(RecordedEpisode(rows, actions))
    return make_recording(episodes)


POINT = make_task(sizes=(4, 2), horizon=None)


@pytest.mark.parametrize(
    ("shift", "message", "advice"),
    [
        (1, "stand 1 row after the observation", "Pair observation i with the action in row i + 1"),
        (
            2,
            "stand 2 rows after the observation",
            "Pair observation i with the action in row i + 2",
        ),
        (-1, "change the state 1 row later", "pair observation i + 1 with the action in row i"),
        (-3, "change the state 3 rows later", "pair observation i + 3 with the action in row i"),
    ],
)
def test_finds_shifted_rows(shift, message, advice):
    finding = find(shifted(shift), "shifted actions", POINT)
    check(finding, f"warning: shifted actions: an action seems to {message}")
    assert advice in finding.advice


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.2, 1.0])
def test_rows_that_belong_together_are_not_shifted(noise):
    assert "shifted actions" not in topics(shifted(0, noise), POINT)


def test_the_simulators_word_counts_more():
    replay = diagnosis.Simulation(None, {0: 1e-6, 1: 1.0, -1: 1.0})
    recording = shifted(1)
    examined = diagnosis.diagnose(
        recording, POINT, dataclasses.replace(replay, replay=_perfect_replay(recording))
    )
    assert "shifted actions" not in {finding.topic for finding in examined}


def _perfect_replay(recording):
    from nppac_tf.doctor.findings import SimulatorReplay

    return SimulatorReplay(
        tuple(np.full(e.length, np.nan, np.float32) for e in recording.episodes),
        tuple(np.full(e.length + 1, 1e-9) for e in recording.episodes),
        tuple(np.zeros(e.length, np.float32) for e in recording.episodes),
    )
