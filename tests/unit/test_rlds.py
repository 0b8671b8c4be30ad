"""RLDS data sets, which TensorFlow Datasets reads where it is installed."""

import json
import pathlib
import sys

import numpy as np
import pytest

from nppac_tf.demonstrations import load_demonstrations, load_recording
from nppac_tf.errors import UserError

LENGTHS = (4, 6)
OWN = "tensorflow_datasets.core.features"


@pytest.fixture(scope="module")
def tfds():
    pytest.importorskip(
        "importlib_resources", reason="writing RLDS for tests needs the package importlib-resources"
    )
    reason = "RLDS needs the optional package tensorflow-datasets"
    return pytest.importorskip("tensorflow_datasets", reason=reason)


def steps_of(number, length, marks_last, parts):
    steps = []
    for step in range(length):
        observation = {"state": np.full(3, 10 * number + step, np.float32)}
        if parts:
            observation |= {
                "effort": np.float32(step),
                "image": np.full((4, 4, 3), step, np.uint8),
            }
        steps.append(
            {
                "observation": observation,
                "action": np.full(2, -step, np.float32),
                "reward": np.float32(step),
                "is_first": step == 0,
                "is_last": marks_last and step == length - 1,
                "is_terminal": marks_last and step == length - 1 and number == 0,
                "language_instruction": f"task {number}",
            }
        )
    return steps


def write(tfds, folder, marks_last=True, parts=True):
    """Writes two episodes; returns the folder of the version."""
    features = tfds.features
    observation = {"state": features.Tensor(shape=(3,), dtype=np.float32)}
    if parts:
        observation |= {
            "effort": features.Scalar(dtype=np.float32),
            "image": features.Image(shape=(4, 4, 3)),
        }
    flags = {name: features.Scalar(dtype=np.bool_) for name in ("is_first", "is_last")}
    description = features.FeaturesDict(
        {
            "steps": features.Dataset(
                {
                    "observation": observation,
                    "action": features.Tensor(shape=(2,), dtype=np.float32),
                    "reward": features.Scalar(dtype=np.float32),
                    "is_terminal": features.Scalar(dtype=np.bool_),
                    "language_instruction": features.Text(),
                    **flags,
                }
            )
        }
    )
    records = [
        (number, {"steps": steps_of(number, length, marks_last, parts)})
        for number, length in enumerate(LENGTHS)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="toy_arm",
        version="1.2.0",
        features=description,
        split_datasets={"train": records},
        data_dir=folder,
        disable_shuffling=True,
    )
    return pathlib.Path(folder) / "toy_arm" / "1.2.0"


def test_the_last_step_holds_only_an_observation(tfds, tmp_path):
    recording = load_recording(write(tfds, tmp_path))
    assert [episode.length for episode in recording.episodes] == [3, 5]
    first, second = recording.episodes
    np.testing.assert_array_equal(second.states()[:, 0], np.arange(10, 16))
    np.testing.assert_array_equal(second.actions[:, 1], -np.arange(5))
    np.testing.assert_array_equal(second.rewards, np.arange(5))
    assert first.terminals.tolist() == [False, False, True]
    assert not second.terminals.any()


def test_all_steps_count_where_none_is_marked_as_last(tfds, tmp_path):
    recording = load_recording(write(tfds, tmp_path, marks_last=False))
    assert [episode.length for episode in recording.episodes] == list(LENGTHS)
    assert recording.episodes[0].final_observation is None
    np.testing.assert_array_equal(recording.episodes[0].actions[:, 0], -np.arange(4))


def test_a_split_is_named_after_the_folder(tfds, tmp_path):
    folder = write(tfds, tmp_path)
    assert len(load_recording(f"{folder}:train").episodes) == 2
    with pytest.raises(UserError, match="the split must be one of train; got 'val'"):
        load_recording(f"{folder}:val")


def test_what_the_data_set_says_of_itself_is_kept(tfds, tmp_path):
    recording = load_recording(write(tfds, tmp_path, parts=False))
    assert recording.metadata == {
        "format": "RLDS",
        "source": "toy_arm/1.2.0",
        "version": "1.2.0",
        "split": "train",
        "tasks": ["task 0", "task 1"],
    }
    assert recording.episodes[1].task == "task 1"


def test_keys_choose_and_order_vectors(tfds, tmp_path):
    folder = write(tfds, tmp_path)
    assert load_demonstrations(folder).observation_size == 3
    recording = load_recording(folder, ["effort", "state"])
    np.testing.assert_array_equal(recording.episodes[1].observations[2], [2, 12, 12, 12])
    assert recording.names("observations") == ["effort", "state[0]", "state[1]", "state[2]"]
    with pytest.raises(UserError, match="must be among effort, state; got image"):
        load_recording(folder, ["image"])


def test_missing_and_damaged_files_are_a_users_error(tfds, tmp_path):
    folder = write(tfds, tmp_path)
    (record,) = folder.glob("*.tfrecord*")
    record.write_bytes(record.read_bytes()[:40])
    with pytest.raises(UserError, match="the files of split train must be there and whole"):
        load_recording(folder)
    record.unlink()
    with pytest.raises(UserError, match="the files of split train must be there and whole"):
        load_recording(folder)


def test_a_folder_above_is_refused_with_a_hint(tfds, tmp_path):
    write(tfds, tmp_path)
    with pytest.raises(UserError, match=r"did you mean .*toy_arm/1.2.0\?"):
        load_recording(tmp_path / "toy_arm")


# Without TensorFlow Datasets.


def write_descriptions(folder, name=f"{OWN}.features_dict.FeaturesDict"):
    (folder / "features.json").write_text(json.dumps({"pythonClassName": name}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install tensorflow-datasets .* 'protobuf<\d+'"):
        load_recording(write_descriptions(tmp_path))


@pytest.mark.parametrize(
    "description",
    [
        {"pythonClassName": "canary.Feature"},
        {"python_class_name": "canary.Feature"},
        {"type": "canary.Feature"},
        {"pythonClassName": f"{OWN}.x", "inner": [{"pythonClassName": "canary.Feature"}]},
        {"pythonClassName": ["canary.Feature"]},
        {},
    ],
)
def test_a_description_imports_no_module(tmp_path, monkeypatch, description):
    (tmp_path / "canary.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    write_descriptions(tmp_path)
    (tmp_path / "features.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="must name features of TensorFlow Datasets only; got"):
        load_recording(tmp_path)


def test_a_damaged_description_is_a_users_error(tmp_path):
    write_descriptions(tmp_path)
    (tmp_path / "features.json").write_text("{")
    with pytest.raises(UserError, match=r"features.json must be JSON; got a damaged file"):
        load_recording(tmp_path)
