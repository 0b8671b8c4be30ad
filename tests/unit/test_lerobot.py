"""LeRobot data sets: every version's layout, partial downloads, and damaged files."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_recordings import assert_error_or_numbers, damage

from examples import examples
from nppac_tf.demonstrations import load_demonstrations, load_recording
from nppac_tf.errors import UserError

LENGTHS = (4, 3, 5)
ALL = range(3)
V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
NAMES = {"observation.state": ["x", "y", "z"], "action": ["dx", "dy"]}
TASK = "put the cube into the box"


def frames(episode):
    """Columns of one episode, whose values are its number, the frame and the dimension."""
    length = LENGTHS[episode]
    steps = np.arange(length)[:, np.newaxis]
    return {
        "observation.state": 100 * episode + 10 * steps + np.arange(3),
        "action": -(100 * episode + 10 * steps + np.arange(2)),
        "timestamp": np.arange(length) / 20,
        "frame_index": np.arange(length),
        "episode_index": np.full(length, episode),
        "index": sum(LENGTHS[:episode]) + np.arange(length),
        "task_index": np.zeros(length, np.int64),
    }


def joined(episodes):
    tables = [frames(episode) for episode in episodes]
    return {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}


def column(values):
    values = np.asarray(values)
    if values.ndim == 1:
        return pa.array(values.astype(np.float32) if values.dtype.kind == "f" else values)
    flat = pa.array(values.astype(np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def write_parquet(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {k: v if isinstance(v, pa.Array) else column(v) for k, v in columns.items()}
    pq.write_table(pa.table(made), path)


def write_info(folder, version, data_path, **changes):
    features = {k: {"dtype": "float32", "shape": [len(v)], "names": v} for k, v in NAMES.items()}
    features["observation.images.top"] = {"dtype": "video", "shape": [8, 8, 3], "names": None}
    info = {
        "codebase_version": version,
        "robot_type": "toy_arm",
        "fps": 20,
        "total_episodes": len(LENGTHS),
        "data_path": data_path,
        "features": features,
    }
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    (folder / "meta" / "info.json").write_text(json.dumps(info | changes))


def write_v2(folder, version="v2.1", episodes=ALL, **changes):
    write_info(folder, version, V2, **changes)
    for episode in episodes:
        write_parquet(folder / f"data/chunk-000/episode_{episode:06d}.parquet", frames(episode))
    row = {"task_index": 0, "task": TASK}
    (folder / "meta" / "tasks.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def write_v3(folder, columns=None, text_column="task", **changes):
    write_info(folder, **{"version": "v3.0", "data_path": V3} | changes)
    columns = joined(ALL) if columns is None else columns
    write_parquet(folder / "data/chunk-000/file-000.parquet", columns)
    tasks = {"task_index": [0, 1], text_column: [TASK, "another"]}
    pq.write_table(pa.table(tasks), folder / "meta" / "tasks.parquet")
    return folder


def expected(name):
    return joined(ALL)[name]


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_v2(folder, "v2.0"),
        lambda folder: write_v2(folder, "v2.1"),
        write_v3,
        lambda folder: write_v3(folder, text_column="__index_level_0__"),
    ],
)
def test_every_version_is_read(tmp_path, write):
    recording = load_recording(write(tmp_path))
    assert [episode.length for episode in recording.episodes] == list(LENGTHS)
    assert recording.indices == (0, 1, 2)
    assert recording.notices == ()
    demonstrations = recording.demonstrations()
    np.testing.assert_array_equal(demonstrations.observations, expected("observation.state"))
    np.testing.assert_array_equal(demonstrations.actions, expected("action"))
    np.testing.assert_allclose(recording.episodes[1].timestamps, [0, 0.05, 0.1])
    assert recording.episodes[0].rewards is None
    assert recording.episodes[0].final_observation is None


def test_what_the_data_set_says_of_itself_is_kept(tmp_path):
    metadata = load_demonstrations(write_v3(tmp_path / "set")).metadata
    assert metadata == {
        "format": "LeRobot",
        "source": "set",
        "version": "v3.0",
        "fps": 20,
        "robot": "toy_arm",
        "tasks": [TASK],
        "observation_names": ["x", "y", "z"],
        "action_names": ["dx", "dy"],
    }


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        ([["x", "y", "z"]], ["x", "y", "z"]),
        ({"motors": ["x", "y"], "other": ["z"]}, ["x", "y", "z"]),
        (["x"], None),
        (None, None),
    ],
)
def test_names_may_be_nested_or_not_fit(tmp_path, names, kept):
    features = {"observation.state": {"names": names}, "action": {"names": None}}
    metadata = load_recording(write_v3(tmp_path, features=features)).metadata
    assert metadata.get("observation_names") == kept
    assert "action_names" not in metadata


def test_rows_are_sorted_by_episode_and_frame_whatever_their_order(tmp_path):
    columns = joined(ALL)
    order = np.random.default_rng(0).permutation(sum(LENGTHS))
    write_v3(tmp_path, {key: values[order] for key, values in columns.items()})
    actions = load_demonstrations(tmp_path).actions
    np.testing.assert_array_equal(actions, expected("action"))


def test_the_files_count_and_not_the_version(tmp_path):
    write_v2(tmp_path, "v3.0")
    assert load_demonstrations(tmp_path).num_episodes == 3
    write_info(tmp_path, "v3.0", V3)  # The pattern of a layout that the files do not have.
    assert load_demonstrations(f"lerobot:{tmp_path}").num_episodes == 3
    write_info(tmp_path, "v3.0", "../{episode_index}.parquet")
    assert load_demonstrations(tmp_path).num_episodes == 3


def test_files_beside_those_of_the_pattern_are_left_alone(tmp_path):
    write_v2(tmp_path)
    write_v3(tmp_path)
    assert load_demonstrations(tmp_path).num_steps == sum(LENGTHS)


def test_of_a_partial_download_the_present_episodes_are_read_with_a_notice(tmp_path):
    demonstrations = load_demonstrations(write_v2(tmp_path, episodes=[0, 2]))
    np.testing.assert_array_equal(demonstrations.actions, joined([0, 2])["action"])
    (notice,) = demonstrations.notices
    assert notice.startswith("2 episodes are there where meta/info.json announces 3")
    assert load_recording(tmp_path).indices == (0, 2)


@pytest.mark.parametrize(
    ("make", "width"),
    [
        (lambda values: pa.array(values.astype(float).tolist()), 3),
        (lambda values: pa.array(values.tolist(), pa.large_list(pa.int64())), 3),
        (lambda values: pa.array(values[:, 0]), 1),
    ],
)
def test_columns_may_be_lists_or_numbers(tmp_path, make, width):
    columns = joined(ALL)
    columns["observation.state"] = make(columns["observation.state"])
    observations = load_demonstrations(write_v3(tmp_path, columns)).observations
    np.testing.assert_array_equal(observations, expected("observation.state")[:, :width])


def test_keys_choose_and_order_features(tmp_path):
    columns = joined(ALL)
    columns["observation.environment_state"] = columns["action"] + 0.5
    columns["observation.effort"] = columns["timestamp"]
    recording = load_recording(write_v3(tmp_path, columns))
    assert recording.metadata["observation_keys"] == [
        "observation.state",
        "observation.environment_state",
    ]
    named = ["x", "y", "z", *(f"environment_state[{k}]" for k in range(2))]
    assert recording.metadata["observation_names"] == named
    assert recording.episodes[0].observations.shape[1] == 5
    first = load_recording(tmp_path, ["effort", "observation.state"]).episodes[0]
    np.testing.assert_allclose(first.observations[1], [0.05, 10, 11, 12])
    with pytest.raises(UserError, match=r"among state, .*effort; got tilt"):
        load_recording(tmp_path, ["tilt"])


def test_keys_do_not_apply_to_a_single_vector(tmp_path):
    recording = load_recording(write_v3(tmp_path), ["observation", "desired_goal"])
    assert recording.episodes[0].observations.shape[1] == 3


def test_rewards_and_successes_are_read_where_they_are(tmp_path):
    columns = joined(ALL)
    columns["next.reward"] = columns["timestamp"]
    columns["next.success"] = columns["frame_index"] > 2
    columns["next.done"] = columns["frame_index"] > 1
    episode = load_recording(write_v3(tmp_path, columns)).episodes[0]
    np.testing.assert_array_equal(episode.successes, [False, False, False, True])
    np.testing.assert_allclose(episode.rewards, [0, 0.05, 0.1, 0.15])
    assert episode.terminals is None  # next.done is any end.


def remove(key):
    return lambda columns: columns.pop(key)


def set_column(key, make):
    return lambda columns: columns.update({key: make(columns[key])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("action"), "file-000.parquet must hold numbers in action; got episode_index"),
        (remove("episode_index"), "must hold numbers in episode_index"),
        (remove("observation.state"), "must hold vectors such as observation.state; got action"),
        (
            set_column("action", lambda v: pa.array([[1.0, 2.0]] * 11 + [[1.0]])),
            "action of file-000.parquet must be lists of one length",
        ),
        (
            set_column("action", lambda v: pa.array([None] + [[1.0, 2.0]] * 11)),
            "action of file-000.parquet must have a value in every frame; got 1 without",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, change, message):
    columns = joined(ALL)
    change(columns)
    with pytest.raises(UserError, match=message):
        load_recording(write_v3(tmp_path, columns))


def test_a_missing_number_is_found_by_training(tmp_path):
    columns = joined(ALL)
    columns["action"] = pa.array([[1.0, None]] * 12)
    with pytest.raises(UserError, match="actions must be finite"):
        load_demonstrations(write_v3(tmp_path, columns))


def test_frames_that_two_files_hold_are_a_problem_of_their_episode(tmp_path):
    write_v2(tmp_path)
    write_parquet(tmp_path / "data/chunk-000/episode_000009.parquet", frames(1))
    recording = load_recording(tmp_path)
    assert recording.indices == (0, 2)
    (problem,) = recording.problems
    assert problem == "episode 1 must have each frame once; got frame 0 more than once"


def test_files_of_another_size_are_a_problem_of_theirs(tmp_path):
    write_v2(tmp_path)
    columns = frames(1) | {"action": np.zeros((LENGTHS[1], 4))}
    write_parquet(tmp_path / "data/chunk-000/episode_000001.parquet", columns)
    recording = load_recording(tmp_path)
    assert recording.indices == (0, 2)
    assert recording.problems[0].startswith("action must be 2 wide in all files; got 4 in episode_")


def test_a_pointer_to_a_file_says_how_to_fetch_it(tmp_path):
    write_v2(tmp_path)
    pointer = tmp_path / "data/chunk-000/episode_000001.parquet"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match=r"episode_000001.parquet must be .* git lfs pull"):
        load_demonstrations(tmp_path)
    assert len(load_recording(tmp_path).episodes) == 2


def test_json_lines_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "episode_0.jsonl").write_text("{}")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(json.dumps({"features": {}}))
    with pytest.raises(UserError, match=r"must be parquet files; got JSON lines"):
        load_recording(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "meta/info.json must be JSON"),
        ("[]", "must describe the features of a LeRobot data set"),
        ('{"features": {}}', "must hold at least one of its data files in data/; got none"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(tmp_path, text, message):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text(text)
    with pytest.raises(UserError, match=message):
        load_recording(tmp_path)


def test_another_folder_is_refused_with_a_hint(tmp_path):
    write_v3(tmp_path / "inside")
    with pytest.raises(UserError, match=r"LeRobot .*; did you mean .*inside\?"):
        load_recording(tmp_path)


@examples(60)
@given(data=st.data())
def test_damaged_files_are_a_users_error(tmp_path, data):
    write_v3(tmp_path)
    name = data.draw(
        st.sampled_from(["data/chunk-000/file-000.parquet", "meta/info.json", "meta/tasks.parquet"])
    )
    damage(tmp_path / name, data)
    assert_error_or_numbers(tmp_path)
