"""Tests of replaying recorded actions in the simulator."""

import dataclasses
import itertools

import numpy as np
import pytest

from nppac_tf import environments
from nppac_tf.demonstrations import Demonstrations, load_recording
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.doctor import diagnosis, simulator_replay
from nppac_tf.doctor.simulator_replay import replay_in_simulator
from nppac_tf.errors import UserError

TASKS = ("pen-binary", "door-binary", "relocate-binary", "hammer-binary", "halfcheetah", "hopper")


def record(name, num_episodes=2, length=15):
    """Episodes of smooth random actions, with what the simulator said."""
    task = environments.make_task(name)
    environment = task.make()
    generator = np.random.default_rng(0)
    episodes, flags = [], []
    for seed in range(num_episodes):
        states = [environment.reset(seed=seed)[0]]
        targets = generator.uniform(-1, 1, (length, task.action_size))
        actions = np.stack([targets[: k + 1].mean(axis=0) for k in range(length)])
        paid, reached = [], []
        for action in actions:
            state, reward, _, _, info = environment.step(action.astype(np.float32))
            states.append(state)
            paid.append(reward)
            reached.append(info.get("success", np.nan))
        episodes.append(
            RecordedEpisode(
                np.stack(states)[:-1], actions, np.asarray(states[-1]), rewards=np.array(paid)
            )
        )
        flags.append(np.array(reached, np.float32))
    environment.close()
    recording = Recording(name, "test", tuple(episodes), tuple(range(num_episodes)))
    return task, recording, flags


@pytest.mark.parametrize("name", TASKS)
def test_a_replay_repeats_what_was_recorded(name):
    task, recording, flags = record(name)
    replay = replay_in_simulator(task, recording)
    for episode, errors, rewards, successes, recorded in zip(
        recording.episodes, replay.errors, replay.rewards, replay.successes, flags, strict=True
    ):
        assert errors.shape == (16,)
        assert errors[0] < 1e-7
        assert errors.max() < 1e-3
        np.testing.assert_allclose(rewards, episode.rewards, atol=1e-3)
        np.testing.assert_array_equal(successes, recorded)
    np.testing.assert_array_equal(replay.any_success, [f.max() for f in flags])
    np.testing.assert_allclose(replay.time_at_goal, [f.mean() for f in flags])


def test_demonstrations_are_replayed_as_recordings_are():
    task, recording, _ = record("pen-binary")
    demonstrations = Demonstrations.from_episodes(
        [(e.observations, e.actions) for e in recording.episodes]
    )
    replay = replay_in_simulator(task, demonstrations, num_episodes=1)
    assert len(replay.errors) == 1
    assert np.isnan(replay.errors[0][-1])  # After the last action nothing was recorded.
    assert np.nanmax(replay.errors[0]) < 1e-3


def test_the_recorded_state_is_used_where_it_agrees_with_the_observation():
    task, recording, _ = record("pen-binary", 1)
    environment = task.make()
    environment.reset(seed=0)
    state = environment.unwrapped.base.get_env_state()
    environment.close()
    (episode,) = recording.episodes
    moved = {key: value + 0.3 for key, value in state.items()}
    broken = state | {"qvel": state["qvel"] * np.nan}
    for initial_state in (state, moved, {"qpos": np.zeros(3)}, broken):
        changed = dataclasses.replace(
            recording, episodes=(dataclasses.replace(episode, initial_state=initial_state),)
        )
        assert replay_in_simulator(task, changed).errors[0].max() < 1e-3


@pytest.mark.parametrize("name", ["pen-binary", "door-binary", "hopper", "halfcheetah"])
def test_shifted_actions_are_found(name):
    task, recording, _ = record(name, 3)

    def shifted(rows):
        episodes = tuple(
            dataclasses.replace(e, actions=np.roll(e.actions, rows, axis=0), rewards=None)
            for e in recording.episodes
        )
        return dataclasses.replace(recording, episodes=episodes)

    for rows in (-1, 0, 1):
        data = shifted(rows)
        simulation = simulator_replay.simulate(task, data)
        assert min(simulation.alignment, key=simulation.alignment.get) == rows
        findings = {f.topic: f for f in diagnosis.diagnose(data, task, simulation)}
        assert ("shifted actions" in findings) == (rows != 0)
        if rows:
            direction = {1: "before", -1: "after"}[rows]
            assert f"one step {direction} observation i" in findings["shifted actions"].message


def test_a_frame_of_every_step_is_passed_on(monkeypatch):
    task, recording, _ = record("hopper", 2, 4)
    numbers = itertools.count()
    make = environments.Task.make

    def make_filmed(self, render_mode=None):
        assert render_mode == "rgb_array"
        environment = make(self)
        environment.render = lambda: np.full([2, 2, 3], next(numbers), np.uint8)
        return environment

    silent = replay_in_simulator(task, recording)
    monkeypatch.setattr(environments.Task, "make", make_filmed)
    frames = []
    replay = replay_in_simulator(task, recording, on_frame=frames.append)
    assert [frame[0, 0, 0] for frame in frames] == list(range(2 * 5))
    np.testing.assert_array_equal(np.stack(replay.errors), np.stack(silent.errors))


@pytest.mark.parametrize("name", ["Reacher-v5", "Pendulum-v1"])
def test_a_task_whose_observations_do_not_determine_its_state_is_refused(name):
    task, recording, _ = record(name, 1, 3)
    with pytest.raises(UserError, match=f"determine the simulator's state; got {name}"):
        replay_in_simulator(task, recording)
    assert simulator_replay.simulate(task, recording) is None


def test_what_cannot_be_replayed_is_refused():
    hopper, recording, _ = record("hopper", 1, 3)
    pen = environments.make_task("pen-binary")
    with pytest.raises(UserError, match=r"observation size 45 and action size 24 .*; got 11 and 3"):
        replay_in_simulator(pen, recording)
    assert simulator_replay.simulate(pen, recording) is None
    episode = dataclasses.replace(recording.episodes[0], actions=np.full([3, 3], np.nan))
    recording = dataclasses.replace(recording, episodes=(episode,))
    assert simulator_replay.simulate(hopper, recording) is None


def test_tasks_of_the_same_sizes_are_distinguished():
    for name, other in (("walker2d", "halfcheetah"), ("halfcheetah", "walker2d")):
        _, recording, _ = record(name)
        assert simulator_replay.likeliest_task(recording).name == name
        wrong = environments.make_task(other)
        findings = diagnosis.diagnose(recording, wrong, simulator_replay.simulate(wrong, recording))
        (finding,) = [f for f in findings if f.topic == "another task"]
        assert finding.advice == f"Pass --task={name}."


def test_an_unknown_recording_has_no_likeliest_task():
    episode = RecordedEpisode(np.zeros([3, 5]), np.zeros([3, 2]))
    recording = Recording("x", "test", (episode,), (0,))
    assert simulator_replay.likeliest_task(recording) is None
    recording = dataclasses.replace(recording, environment_id="NobodyKnows-v0")
    assert simulator_replay.likeliest_task(recording) is None


def test_the_human_pen_demonstrations_still_reach_the_goal(demos_path):
    task = environments.make_task("pen-binary")
    replay = replay_in_simulator(task, load_recording(demos_path / "pen2_sparse.npy"))
    assert replay.any_success.sum() >= 22
    assert max(errors[0] for errors in replay.errors) < 1e-4
    assert max(errors[:6].max() for errors in replay.errors) < 1e-3


def test_the_human_door_demonstrations_are_followed(demos_path):
    """Their own initial states are of another simulator's coordinates: off by half a meter."""
    task = environments.make_task("door-binary")
    replay = replay_in_simulator(task, load_recording(demos_path / "door-v0_demos.pickle"), 5)
    assert max(errors[0] for errors in replay.errors) < 1e-4
    assert max(errors[:20].max() for errors in replay.errors) < 0.02


def test_components_that_rest_in_the_task_are_known():
    """Contact forces of a body that touches nothing are zero; a hand's joints move."""
    task = environments.make_task("ant")
    generator = np.random.default_rng(0)
    recording = _recorded(task, generator.uniform(-1, 1, (12, 8)))
    simulation = simulator_replay.simulate(task, recording)
    assert not simulation.idle[:27].any()
    assert simulation.idle[27:33].all()  # The world's own.
    assert not simulation.starts_at_rest


def test_a_hand_is_replayed_from_rest_where_its_velocity_is_unknown():
    task, recording, _ = record("pen-binary", length=12)
    simulation = simulator_replay.simulate(task, recording)
    assert simulation.starts_at_rest
    assert not simulation.idle.any()


def _recorded(task, actions):
    environment = task.make()
    states = [environment.reset(seed=0)[0]]
    states += [environment.step(action.astype(np.float32))[0] for action in actions]
    environment.close()
    episode = RecordedEpisode(np.stack(states)[:-1], actions, states[-1])
    return Recording(task.name, "test", (episode,), (0,))
