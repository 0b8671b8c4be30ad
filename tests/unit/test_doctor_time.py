"""What the doctor finds in the course of time: frames, frozen values, glitches, starts."""

import dataclasses
import itertools

import numpy as np
import pytest
from toy_recordings import LENGTH, SIZES, check, find, make_episode, make_recording, make_task

from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.doctor import diagnosis
from nppac_tf.doctor.findings import SimulatorReplay


def topics(recording, **arguments):
    return {finding.topic for finding in diagnosis.diagnose(recording, **arguments)}


def with_timestamps(change=lambda times, number: times, **changes):
    """The sound recording with timestamps of 20 frames per second, changed in each episode."""
    times = np.arange(LENGTH) / 20
    episodes = [
        dataclasses.replace(make_episode(seed), timestamps=change(times.copy(), seed))
        for seed in range(8)
    ]
    return make_recording(episodes, **changes)


# Frames.


def test_even_timestamps_of_the_stated_rate_are_sound():
    jitter = np.random.default_rng(0).uniform(-0.01, 0.01, LENGTH)
    for change in (
        lambda t, _: t,
        lambda t, _: (5 + t).astype(np.float32),
        lambda t, _: t + jitter,
    ):
        recording = with_timestamps(change, metadata={"fps": 20})
        assert diagnosis.diagnose(recording, make_task()) == []


def test_finds_dropped_frames():
    def drop(times, number):
        return times + 3 / 20 * (np.arange(LENGTH) >= 30) if number in (2, 5) else times

    finding = find(with_timestamps(drop), "dropped frames")
    check(finding, "warning: dropped frames: .* 2 of 8 episodes lack frames, 6 in all")
    assert finding.episodes == (2, 5)


def test_finds_timestamps_that_do_not_increase():
    def repeat(times, number):
        times[30] = times[29]
        return times

    check(find(with_timestamps(repeat), "timestamps"), "warning: timestamps: .* 8 of 8 .* not incr")


def test_finds_another_rate_than_stated():
    finding = find(with_timestamps(metadata={"fps": 30}), "frame rate")
    check(finding, "warning: frame rate: the file states 30 frames per second, its timestamps 20")


# Frozen values.


def with_observations(change, position=3):
    """The sound recording, where one episode has nothing but changed observations and actions."""
    episodes = [make_episode(seed) for seed in range(8)]
    observations = episodes[position].observations.copy()
    change(observations)
    episodes[position] = RecordedEpisode(observations, episodes[position].actions)
    return make_recording(episodes)


def test_finds_dimensions_that_freeze_together():
    def freeze(observations):
        observations[20:40, 2:5] = observations[20, 2:5]

    finding = find(with_observations(freeze), "frozen dimensions")
    check(finding, r"warning: .* in 1 of 8 episodes, .* first of them, dimensions 2, 3, 4$")
    assert finding.episodes == (3,)


@pytest.mark.parametrize("columns", [slice(2, 3), slice(0, 0)])
def test_a_joint_at_its_limit_is_not_frozen(columns):
    def freeze(observations):
        observations[20:40, columns] = observations[20, columns]

    assert "frozen dimensions" not in topics(with_observations(freeze))


def test_a_robot_that_rests_is_not_frozen():
    """A state in coarse steps stays the same while the actions hardly change."""
    episodes = []
    for seed in range(8):
        episode = make_episode(seed)
        pause = np.clip(np.arange(LENGTH) - 20, 0, None) - np.clip(np.arange(LENGTH) - 40, 0, None)
        moment = np.arange(LENGTH) - pause  # From 20 to 40, no time passes.
        noise = 1e-4 * np.random.default_rng(seed).normal(size=episode.actions.shape)
        episodes.append(
            RecordedEpisode(episode.observations[moment], episode.actions[moment] + noise)
        )
    assert not {"frozen state", "repeated steps"} & topics(make_recording(episodes))


# Glitches.


@pytest.mark.parametrize("field", ["observations", "actions"])
def test_finds_a_value_that_jumps_for_one_step(field):
    episodes = [make_episode(seed) for seed in range(8)]
    values = getattr(episodes[3], field).copy()
    values[30, 1] += 2.0
    episodes[3] = dataclasses.replace(episodes[3], **{field: values, "next_observations": None})
    finding = find(make_recording(episodes), "glitches", make_task(bound=5.0))
    check(finding, f"warning: glitches: 1 values? of the {field} in 1 of 8 .* step 30 of episode 3")
    assert finding.message.endswith("dimension 1")


def test_steps_and_noise_are_no_glitches():
    """A gripper opens and closes, and a sensor is noisy."""
    generator = np.random.default_rng(0)
    episodes = []
    for seed in range(8):
        episode = make_episode(seed)
        observations, actions = episode.observations.copy(), episode.actions.copy()
        observations[:, 1] = generator.normal(size=LENGTH)
        actions[:, 2] = np.sign(np.sin(np.arange(LENGTH) / 7 + seed))
        episodes.append(RecordedEpisode(observations, actions))
    assert "glitches" not in topics(make_recording(episodes))


# Starts.


def cut_from(episodes, start=10):
    return [
        RecordedEpisode(episode.observations[start:], episode.actions[start:])
        for episode in episodes
    ]


def test_finds_episodes_that_begin_in_motion():
    resting = [make_episode(seed) for seed in range(8)]
    recording = make_recording([*cut_from(resting[:3]), *resting[3:]])
    finding = find(recording, "in motion")
    check(finding, "note: in motion: 3 of 8 episodes begin in motion")
    assert finding.episodes == (0, 1, 2)
    assert "in motion" not in topics(make_recording(resting))


def observed_velocities(velocity):
    """A point that is pushed: positions and velocities, from a start with the given velocity."""
    generator = np.random.default_rng(0)
    episodes = []
    for _ in range(8):
        position, speed = generator.normal(size=2), velocity * generator.choice([-1, 1], 2)
        rows, actions = [], []
        target = generator.normal(size=2)
        for _ in range(LENGTH):
            action = np.clip(2 * (target - position) - speed, -1, 1)
            rows.append([*position, *speed])
            actions.append(action)
            position, speed = position + 0.1 * speed, speed + 0.2 * action
            if generator.random() < 0.1:
                target = generator.normal(size=2)
        episodes.append(RecordedEpisode(np.array(rows), np.array(actions)))
    return make_recording(episodes)


@pytest.mark.parametrize(("velocity", "moving"), [(0.0, False), (1.5, True)])
def test_observed_velocities_tell_whether_an_episode_begins_in_motion(velocity, moving):
    assert ("in motion" in topics(observed_velocities(velocity))) == moving


def test_parts_of_one_recording_are_told_apart_from_resets():
    """Flags that cut one long recording are no failures, however short a part is."""
    long = make_episode(0, 8 * LENGTH)
    cuts = [0, 60, 80, 140, 200, 260, 330, 390, 480]
    parts = [
        RecordedEpisode(
            long.observations[start:end],
            long.actions[start:end],
            terminals=np.arange(start, end) == end - 1,
        )
        for start, end in itertools.pairwise(cuts)
    ]
    recording = make_recording(parts)
    check(find(recording, "continuous"), "note: continuous: 7 of 8 .* no reset is between them")
    assert "fails early" not in topics(recording)
    shuffled = make_recording([parts[k] for k in (5, 0, 3, 7, 2, 6, 1, 4)])
    assert "fails early" in topics(shuffled)
    assert "continuous" not in topics(shuffled)


# The simulator is not blamed for starts in motion.


def simulation(errors, starts_at_rest=True):
    replay = SimulatorReplay(
        tuple(np.full(LENGTH, np.nan, np.float32) for _ in errors),
        tuple(np.full(LENGTH + 1, error) for error in errors),
        tuple(np.zeros(LENGTH, np.float32) for _ in errors),
    )
    return diagnosis.Simulation(replay, {}, starts_at_rest=starts_at_rest)


def replayed(moving, errors, **arguments):
    episodes = [make_episode(seed, 2 * LENGTH) for seed in range(8)]
    episodes = [
        *cut_from(episodes[:moving]),
        *(RecordedEpisode(e.observations[:LENGTH], e.actions[:LENGTH]) for e in episodes[moving:]),
    ]
    return find(make_recording(episodes), "simulator", None, simulation(errors, **arguments))


def test_a_start_in_motion_that_the_replay_cannot_have_is_not_the_simulators_fault():
    finding = replayed(6, [1.0] * 6 + [1e-6] * 2)
    check(finding, "note: simulator: 6 of 8 episodes begin in motion, but the replay must start at")
    assert finding.episodes == tuple(range(6))
    check(replayed(2, [1.0] * 2 + [1e-6] * 6), "note: simulator: .* next 5 by at most 1e-06")


def test_other_differences_are_the_simulators():
    check(replayed(2, [1.0] * 8), "warning: simulator: .* differ by 1 ")
    check(replayed(6, [1.0] * 8, starts_at_rest=False), "warning: simulator: .* differ by 1 ")


def test_contacts_that_do_not_occur_in_the_task_are_rightly_constant():
    episodes = [
        dataclasses.replace(
            e,
            observations=e.observations * [1, 1, 0, 0, 1, 1],
            **dict.fromkeys(("next_observations", "final_observation")),
        )
        for e in map(make_episode, range(8))
    ]
    recording = make_recording(episodes)
    check(find(recording, "constant observations"), "note: .* dimensions 2, 3 of the observations")
    idle = np.arange(SIZES[0]) == 2
    known = dataclasses.replace(simulation([1e-6] * 8), idle=idle)
    finding = find(recording, "constant observations", None, known)
    check(finding, "note: .* dimension 3 of the observations never changes")
    known = dataclasses.replace(known, idle=np.isin(np.arange(SIZES[0]), (2, 3)))
    assert "constant observations" not in topics(recording, task=make_task(), simulation=known)
