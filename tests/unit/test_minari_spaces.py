"""Minari data sets of other spaces and environments than a registered one of vectors."""

import warnings

import gymnasium
import numpy as np
import pytest

from nppac_tf.demonstrations import load_recording
from nppac_tf.demonstrations.formats import minari_writer
from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import minari
    from minari.data_collector import EpisodeBuffer

ID = "toy/walk-v0"
T, D, A = 3, 4, 2


class ToyEnvironment(gymnasium.Env):
    """Spaces alone."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (D,), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (A,), np.float32)


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def test_an_environment_that_was_registered_by_its_class_is_written():
    gymnasium.register("Toy-v0", ToyEnvironment, max_episode_steps=5)
    try:
        environment = gymnasium.make("Toy-v0", disable_env_checker=True)
        steps = np.arange(T)
        episode = RecordedEpisode(
            np.zeros((T, D)),
            np.zeros((T, A)),
            np.zeros(D),
            rewards=np.zeros(T),
            terminals=steps < 0,
            truncations=steps == T - 1,
        )
        minari_writer.write(ID, [episode], environment, "none", "One episode.", {})
        assert minari.load_dataset(ID).observation_space == ToyEnvironment.observation_space
        assert load_recording(f"minari:{ID}").demonstrations().num_steps == T
    finally:
        gymnasium.registry.pop("Toy-v0")


def test_named_parts_are_joined_in_the_order_of_space_or_keys():
    class Goals(ToyEnvironment):
        observation_space = gymnasium.spaces.Dict(
            {
                "state": gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float64),
                "goal": gymnasium.spaces.Dict({"grid": gymnasium.spaces.Box(-9, 9, (2, 1))}),
            }
        )

    state, grid = np.arange(8.0).reshape(4, 2), -np.arange(8.0, dtype=np.float32).reshape(4, 2, 1)
    buffer = EpisodeBuffer(
        observations={"state": state, "goal": {"grid": grid}},
        actions=np.zeros((3, A), np.float32),
        rewards=np.zeros(3),
        terminations=np.zeros(3, np.bool_),
        truncations=np.arange(3) == 2,
        infos={"is_success": np.array([0.0, 0.0, 1.0, 0.0])},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(ID, [buffer], env=Goals())
    recording = load_recording(f"minari:{ID}")
    (episode,) = recording.episodes
    np.testing.assert_array_equal(episode.states(), np.hstack([grid[..., 0], state]))
    np.testing.assert_array_equal(episode.successes, [False, True, False])
    assert recording.metadata["observation_keys"] == ["goal/grid", "state"]
    (episode,) = load_recording(f"minari:{ID}", ["state", "goal"]).episodes
    np.testing.assert_array_equal(episode.states(), np.hstack([state, grid[..., 0]]))
    with pytest.raises(UserError, match=r"\(goal/grid, state\); got 'velocity'"):
        load_recording(f"minari:{ID}", ["velocity"])
