"""Recordings saved in other formats: values come back, and a LeRobot folder is laid out as v3.0."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from toy_recordings import make_episode, make_recording

from nppac_tf.demonstrations import load_demonstrations, load_recording
from nppac_tf.demonstrations.formats import lerobot_writer, saving
from nppac_tf.errors import UserError

LENGTHS = (7, 1, 12, 4)
NAMES = {
    "observation_names": [f"joint {k}" for k in range(6)],
    "action_names": [f"motor {k}" for k in range(3)],
}
OUTPUTS = ("mine.npz", "minari:toy/mine-v0", "lerobot:mine")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def recording(**metadata):
    episodes = [make_episode(seed, length) for seed, length in enumerate(LENGTHS)]
    return make_recording(episodes, metadata={"fps": 20, **NAMES, **metadata})


def bare(steps=5):
    """A recording of observations and actions alone."""
    episode = make_episode(0, steps)
    return make_recording([type(episode)(episode.observations, episode.actions)])


def assert_same_data(one, other):
    assert one.fingerprint() == other.fingerprint()  # Values in float32, and ends of episodes.


@pytest.mark.parametrize("first", OUTPUTS)
@pytest.mark.parametrize("second", OUTPUTS)
def test_data_survive_two_conversions(first, second):
    original = recording()
    saving.save_recording(original, first)
    again = second.replace("mine", "again")
    saving.save_recording(load_recording(first), again)
    found = load_recording(again)
    assert_same_data(found.demonstrations(), original.demonstrations())
    assert found.names("observations") == NAMES["observation_names"]
    assert found.names("actions") == NAMES["action_names"]
    assert found.metadata["fps"] == 20


def test_minari_keeps_rewards_ends_and_final_observations():
    original = recording()
    _, notices = saving.save_recording(original, OUTPUTS[1])
    assert notices == []
    for was, now in zip(original.episodes, load_recording(OUTPUTS[1]).episodes, strict=True):
        for field in ("rewards", "terminals", "truncations", "final_observation"):
            np.testing.assert_allclose(getattr(now, field), getattr(was, field), rtol=1e-6)


@pytest.mark.parametrize("output", OUTPUTS[1:])
def test_rewards_and_successes_are_kept(output):
    episodes = [
        dataclasses.replace(episode, successes=np.arange(episode.length) > 2)
        for episode in recording().episodes
    ]
    saving.save_recording(dataclasses.replace(recording(), episodes=tuple(episodes)), output)
    for was, now in zip(episodes, load_recording(output).episodes, strict=True):
        np.testing.assert_array_equal(now.successes, was.successes)
        np.testing.assert_allclose(now.rewards, was.rewards, rtol=1e-6)


def test_what_minari_needs_and_nobody_knows_is_made_up_and_said():
    _, notices = saving.save_recording(bare(), OUTPUTS[1])
    assert [notice.partition(", ")[0] for notice in notices] == ["in 1 of 1 episodes"] * 2
    (episode,) = load_recording(OUTPUTS[1]).episodes
    np.testing.assert_array_equal(episode.final_observation, episode.observations[-1])
    assert episode.rewards is None  # All nan in the file.
    assert not episode.terminals.any()
    assert episode.truncations.tolist() == [False] * 4 + [True]


def test_a_longer_array_of_observations_gives_the_final_one():
    episode = make_episode(0, 5)
    states = episode.states()
    longer = type(episode)(states, episode.actions)
    saving.save_recording(make_recording([longer]), OUTPUTS[1])
    (found,) = load_recording(OUTPUTS[1]).episodes
    np.testing.assert_array_equal(found.final_observation, states[-1].astype(np.float32))
    assert found.length == 5


@pytest.mark.parametrize("output", OUTPUTS[:2])
def test_the_environments_name_is_kept(output):
    saving.save_recording(dataclasses.replace(recording(), environment_id="Hopper-v5"), output)
    assert load_recording(output).environment_id == "Hopper-v5"


def test_tasks_and_timestamps_are_kept_by_lerobot():
    tasks = ("pour", "stir", "pour", "")
    episodes = [
        dataclasses.replace(episode, task=task, timestamps=3 + np.arange(episode.length) ** 1.5)
        for episode, task in zip(recording().episodes, tasks, strict=True)
    ]
    saving.save_recording(make_recording(episodes), OUTPUTS[2], fps=12.5)
    found = load_recording(OUTPUTS[2])
    assert [episode.task for episode in found.episodes] == list(tasks)
    assert found.metadata["tasks"] == ["pour", "stir"]
    assert found.metadata["fps"] == 12.5
    np.testing.assert_allclose(found.episodes[2].timestamps, episodes[2].timestamps, rtol=1e-6)


# The layout of LeRobot v3.0.


@pytest.fixture
def layout(place, monkeypatch, tmp_path):
    """A folder of two data files, with everything in it."""
    monkeypatch.setattr(lerobot_writer, "_FILE_MEGABYTES", 500e-6)
    saving.save_recording(recording(robot="toy_arm"), OUTPUTS[2])
    return tmp_path / "mine"


def read_json(path):
    return json.loads(path.read_text())


def rows(path):
    return pq.read_table(path).to_pylist()


def test_info_describes_the_data(layout):
    info = read_json(layout / "meta" / "info.json")
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, 24, 1)
    assert (info["fps"], info["robot_type"], info["splits"]) == (20, "toy_arm", {"train": "0:4"})
    features = info["features"]
    assert features["observation.state"]["names"] == NAMES["observation_names"]
    assert features["action"] == {"dtype": "float32", "shape": [3], "names": NAMES["action_names"]}
    assert features["index"] == {"dtype": "int64", "shape": [1], "names": None}
    files = sorted((layout / "data").rglob("*.parquet"))
    assert len(files) == 2
    for number, file in enumerate(files):
        assert file == layout / info["data_path"].format(chunk_index=0, file_index=number)
        schema = pq.read_schema(file)
        assert set(schema.names) == features.keys()
        for name, feature in features.items():
            kind, (size,) = schema.field(name).type, feature["shape"]
            assert size == 1 or kind.list_size == size
            expected = {"float32": "float", "int64": "int64"}[feature["dtype"]]
            assert str(kind if size == 1 else kind.value_type) == expected


def test_episodes_say_where_their_frames_are(layout):
    episodes = rows(layout / "meta/episodes/chunk-000/file-000.parquet")
    assert [episode["length"] for episode in episodes] == list(LENGTHS)
    for number, episode in enumerate(episodes):
        file = f"data/chunk-000/file-{episode['data/file_index']:03d}.parquet"
        frames = [row for row in rows(layout / file) if row["episode_index"] == number]
        indices = [row["index"] for row in frames]
        assert indices == list(range(episode["dataset_from_index"], episode["dataset_to_index"]))
        assert [row["frame_index"] for row in frames] == list(range(episode["length"]))
        times = np.arange(episode["length"]) / 20
        np.testing.assert_allclose([row["timestamp"] for row in frames], times, rtol=1e-6)
        actions = np.array([row["action"] for row in frames], np.float64)
        np.testing.assert_allclose(episode["stats/action/mean"], actions.mean(axis=0))
        np.testing.assert_allclose(episode["stats/action/max"], actions.max(axis=0))
        assert episode["stats/action/count"] == [episode["length"]]
    assert episodes[-1]["dataset_to_index"] == sum(LENGTHS)


def test_each_episode_is_a_row_group(layout):
    files = sorted((layout / "data").rglob("*.parquet"))
    groups = [pq.ParquetFile(file).metadata for file in files]
    lengths = [m.row_group(k).num_rows for m in groups for k in range(m.num_row_groups)]
    assert lengths == list(LENGTHS)


def test_statistics_are_those_of_all_frames(layout):
    statistics = read_json(layout / "meta" / "stats.json")
    observations = recording().demonstrations().observations.astype(np.float64)
    found = statistics["observation.state"]
    assert found["count"] == [24]
    for name, values in {
        "min": observations.min(axis=0),
        "max": observations.max(axis=0),
        "mean": observations.mean(axis=0),
        "std": observations.std(axis=0),
        "q50": np.median(observations, axis=0),
        "q01": np.quantile(observations, 0.01, axis=0),
    }.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_the_text_of_a_task_is_the_index_of_its_table(layout):
    table = pq.read_table(layout / "meta" / "tasks.parquet")
    assert table.schema.pandas_metadata["index_columns"] == ["task"]
    assert table.to_pydict() == {"task_index": [0], "task": [""]}


def test_a_feature_of_one_number_is_a_plain_column(place, tmp_path):
    episode = make_episode(0, 4, (1, 1))
    saving.save_recording(make_recording([episode]), OUTPUTS[2], fps=10)
    schema = pq.read_schema(tmp_path / "mine/data/chunk-000/file-000.parquet")
    assert str(schema.field("action").type) == "float"
    assert load_demonstrations("mine").action_size == 1


# Refusals.


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("mine.hdf5", "output must be a file that ends in .npz, minari:ID or lerobot:FOLDER"),
        ("minari:mine", "must have an id such as pen/mine-v0"),
        ("lerobot:full", "must be a folder that is new or empty; got full"),
    ],
)
def test_outputs_that_cannot_be_written_are_refused(output, message, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match=message):
        saving.check_output(output)
    with pytest.raises(UserError, match=message):
        saving.save_recording(recording(), output)


@pytest.mark.parametrize("fps", [None, 0, -1, "fast"])
def test_lerobot_needs_the_steps_per_second(fps):
    with pytest.raises(UserError, match="fps must be a positive number of steps per second"):
        saving.save_recording(dataclasses.replace(recording(), metadata={"fps": fps}), OUTPUTS[2])


def test_a_recording_with_problems_is_refused():
    broken = dataclasses.replace(recording(), problems=("episode 3 is damaged",))
    with pytest.raises(UserError, match="episode 3 is damaged"):
        saving.save_recording(broken, OUTPUTS[2])


def test_nothing_remains_of_a_folder_that_could_not_be_written(monkeypatch, tmp_path):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lerobot_writer, "_info", fail)
    with pytest.raises(UserError, match="No space left on device"):
        saving.save_recording(recording(), OUTPUTS[2])
    assert list(tmp_path.iterdir()) == []
