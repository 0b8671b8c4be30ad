"""Tests of reading and writing Minari data sets, hostile and damaged ones included."""

import contextlib
import json
import logging
import shutil
import sys
import warnings
from unittest import mock

import gymnasium
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_recordings import assert_error_or_numbers, damage

from examples import examples
from nppac_tf import environments
from nppac_tf.demonstrations import Demonstrations, load_demonstrations, load_recording
from nppac_tf.demonstrations.formats import minari_writer
from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import minari

ID = "toy/walk-v0"
SIZES = (4, 2)


class ToyEnvironment(gymnasium.Env):
    """What `minari_writer.write` needs of an environment."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (SIZES[0],), np.float64)
    action_space = gymnasium.spaces.Box(-1, 1, (SIZES[1],), np.float32)


def make_episodes(lengths=(3, 2)):
    generator = np.random.default_rng(0)
    return [
        RecordedEpisode(
            generator.normal(size=(n, SIZES[0])).astype(np.float32),
            generator.uniform(-1, 1, (n, SIZES[1])).astype(np.float32),
            generator.normal(size=SIZES[0]).astype(np.float32),
            rewards=np.arange(n, dtype=np.float32),
            terminals=np.arange(n) == n - 1,
            truncations=np.zeros(n, np.bool_),
        )
        for n in lengths
    ]


def write(dataset_id=ID, episodes=None, environment=None):
    return minari_writer.write(
        dataset_id,
        make_episodes() if episodes is None else episodes,
        environment or ToyEnvironment(),
        algorithm_name="chance",
        description="Two steps here, three there.",
        provenance={"seed": 7},
    )


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "datasets"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    # No test may use the network: downloads fail as they do without one.
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    return folder


def change_metadata(folder, **changes):
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))


def test_minari_reads_what_is_written(root):
    assert write() == root / ID
    dataset = minari.load_dataset(ID)
    assert dataset.observation_space == ToyEnvironment.observation_space
    assert dataset.action_space == ToyEnvironment.action_space
    assert dataset.storage.metadata["provenance"] == {"seed": 7}
    for written, read in zip(make_episodes(), dataset, strict=True):
        np.testing.assert_array_equal(read.observations, written.states())
        for field, value in (
            ("actions", written.actions),
            ("rewards", written.rewards),
            ("terminations", written.terminals),
            ("truncations", written.truncations),
        ):
            np.testing.assert_array_equal(getattr(read, field), value)
    assert minari.list_local_datasets().keys() == {ID}
    assert minari.namespace.list_local_namespaces() == ["toy"]


def test_what_minari_writes_is_read(root):
    from minari.data_collector import EpisodeBuffer

    episodes = make_episodes()
    buffers = [
        EpisodeBuffer(
            options={"initial_state_dict": {"qpos": np.arange(3.0), "name": "start"}},
            observations=list(np.concatenate([e.observations, e.final_observation[None]])),
            actions=list(e.actions),
            rewards=list(e.rewards),
            terminations=list(e.terminals),
            truncations=list(e.truncations),
            infos={"image": np.zeros([e.length + 1, 3]), "deep": {"er": np.ones(e.length + 1)}},
        )
        for e in episodes
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            ID,
            buffers,
            observation_space=ToyEnvironment.observation_space,
            action_space=ToyEnvironment.action_space,
        )
    expected = Demonstrations.from_episodes([(e.observations, e.actions) for e in episodes])
    for source in (f"minari:{ID}", root / ID, f"minari:{root / ID}"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            demonstrations = load_demonstrations(source)
        assert demonstrations.fingerprint() == expected.fingerprint()
        assert (demonstrations.name, demonstrations.notices) == (ID, ())
        assert demonstrations.metadata["source"] == ID
    recording = load_recording(f"minari:{ID}")
    np.testing.assert_array_equal(recording.episodes[0].initial_state["qpos"], [0, 1, 2])
    np.testing.assert_array_equal(recording.episodes[1].states()[-1], episodes[1].final_observation)
    assert recording.environment_id is None


def test_the_environment_is_stored_and_recovered(root):
    task = environments.make_task("hopper")
    with contextlib.closing(task.make()) as environment:
        states = np.zeros([3, task.observation_size])
        episode = RecordedEpisode(
            states[:2],
            np.zeros([2, task.action_size]),
            states[2],
            rewards=np.zeros(2),
            terminals=np.zeros(2),
            truncations=np.arange(2),
        )
        write("hopper/mine-v0", [episode], environment)
    assert load_recording("minari:hopper/mine-v0").environment_id == "Hopper-v5"
    with contextlib.closing(
        minari.load_dataset("hopper/mine-v0").recover_environment()
    ) as recovered:
        assert recovered.spec.id == "Hopper-v5"


def test_an_existing_data_set_is_not_replaced(root):
    folder = write()
    before = (folder / "data" / "main_data.hdf5").read_bytes()
    with pytest.raises(UserError, match=r"must not exist yet; got 'toy/walk-v0', .* version"):
        write(episodes=make_episodes([9]))
    assert (folder / "data" / "main_data.hdf5").read_bytes() == before


def test_a_failed_write_leaves_nothing(root, monkeypatch):
    full = OSError(28, "No space left on device")
    for error, raised, message in (
        (full, UserError, r"must be writable; .* \(No space left on device\)"),
        (KeyboardInterrupt, KeyboardInterrupt, None),
    ):
        monkeypatch.setattr("h5py.Group.create_dataset", mock.Mock(side_effect=error))
        with pytest.raises(raised, match=message):
            write()
        assert not (root / ID).exists()


@pytest.mark.parametrize("name", ["walk", "toy/walk", "../walk-v0", "/walk-v0", "", "a b-v0"])
def test_refuses_ids_that_minari_cannot_read(root, name):
    with pytest.raises(UserError, match=r"an id such as pen/mine-v0, with a version"):
        write(name)
    if not name.startswith((".", "/")):
        with pytest.raises(UserError, match=r"an id such as D4RL/pen/human-v2; got"):
            load_demonstrations(f"minari:{name}")


def download_failing(error):
    def download(dataset_id):
        print("Downloading ...")
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 4s")
        warnings.warn("recommend", stacklevel=1)
        raise error

    return download


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError(), "downloading needs the package huggingface_hub"),
        (ConnectionError("Max retries\nexceeded"), "no connection to the server, ConnectionError"),
        (ValueError("The dataset version, toy/wlak-v9, doesn't exist"), "toy/wlak-v9, doesn't"),
    ],
)
def test_a_failed_download_is_one_line(root, monkeypatch, capfd, error, reason):
    write()
    monkeypatch.setattr(minari, "download_dataset", download_failing(error))
    with pytest.raises(UserError, match=f"{reason}.*; similar ones there: toy/walk-v0") as caught:
        load_demonstrations("minari:toy/wlak-v0")
    assert str(caught.value).startswith(
        f"minari:toy/wlak-v0: there is no such data set in {root} (set MINARI_DATASETS_PATH"
    )
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_data_set_is_downloaded_once(root, monkeypatch):
    asked = []

    def download(dataset_id):
        asked.append(dataset_id)
        write(dataset_id)

    monkeypatch.setattr(minari, "download_dataset", download)
    for _ in range(2):
        assert load_demonstrations("minari:D4RL/toy/human-v2").num_steps == 5
    assert asked == ["D4RL/toy/human-v2"]


def box(*shape):
    low, high = np.zeros(shape).tolist(), np.ones(shape).tolist()
    return json.dumps({"type": "Box", "dtype": "float64", "shape": shape, "low": low, "high": high})


HUGE_BOX = json.dumps({"type": "Box", "dtype": "f8", "shape": [10**15], "low": 0, "high": 1})
DISCRETE = json.dumps({"type": "Discrete", "dtype": "int64", "n": 3, "start": 0})
DICT = json.dumps({"type": "Dict", "subspaces": {"goal": json.loads(box(2))}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minari_version": "0.9.1"}, r"written by Minari 0\.4\.0 to .*; got '0\.9\.1': use"),
        ({"minari_version": ["a"]}, r"got \['a'\]"),
        ({"data_format": "zarr"}, "in Minari's hdf5, arrow or parquet format; got 'zarr'"),
        ({"data_format": "arrow"}, "data must hold 2 episodes, as metadata.json says; got 0"),
        ({"dataset_id": None}, "must hold dataset_id as text; got None"),
        ({"total_episodes": 0}, "total_episodes must be at least 1; got 0"),
        ({"total_episodes": 3}, "must hold 3 episodes, as metadata.json says; got 2"),
        ({"total_episodes": 10**15}, "must hold 1000000000000000 episodes"),
        ({"observation_space": DICT}, "episode 0 must be whole"),
        ({"observation_space": box(2, 2, 3)}, r"must have the shape \(2, 2, 3\) of its space"),
        ({"observation_space": HUGE_BOX}, "metadata.json must be as Minari writes it"),
        ({"action_space": DISCRETE}, r"a one-dimensional Box; got Discrete\(3\)"),
        ({"action_space": box(3)}, r"actions of episode 0 must be \[T, 3\], .*; got \[3, 2\]"),
        ({"action_space": "[" * 10**5}, "metadata.json must be as Minari writes it"),
        ({"action_space": '{"type": "New"}'}, "metadata.json must be as Minari writes it"),
        ({"observation_space": 5}, "must hold observation_space as text; got 5"),
        ({"env_spec": "words"}, "metadata.json must be as Minari writes it"),
    ],
)
def test_refuses_metadata_that_it_cannot_use(root, changes, message):
    folder = write()
    change_metadata(folder, **changes)
    with pytest.raises(UserError, match=message) as error:
        load_demonstrations(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(folder)) + 400


@pytest.mark.parametrize("missing", [{}, {"observation_space": None}, {"action_space": None}])
def test_the_environment_of_a_data_set_is_never_made(root, tmp_path, missing):
    """Minari makes it if spaces are missing, which calls whatever the data set names."""
    mark = tmp_path / "mark"
    specification = {
        "id": "Evil-v0",
        "entry_point": "os:mkdir",
        "kwargs": {"path": str(mark)},
        "additional_wrappers": [],
    }
    folder = write()
    change_metadata(folder, env_spec=json.dumps(specification), **missing)
    if missing:
        with pytest.raises(UserError, match=r"must hold .*_space as text; got None"):
            load_demonstrations(folder)
    else:
        assert load_demonstrations(folder).num_steps == 5
    assert not mark.exists()
    with pytest.raises(Exception, match=r".*"):
        minari.load_dataset(ID).recover_environment()
    assert mark.exists(), "the payload must be a working one"


def replace(**options):
    def change(file):
        del file["episode_1/actions"]
        file["episode_1"].create_dataset("actions", **options)

    return change


def link(target):
    def change(file):
        del file["episode_1/actions"]
        file["episode_1/actions"] = target

    return change


def drop(key):
    def change(file):
        del file[key]

    return change


def make_cycle(file):
    link(file["episode_1"])(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("episode_1/actions"), "episode 1 must be whole; .*object 'actions' doesn't exist"),
        (drop("episode_1/terminations"), "episode 1 must be whole; .*'terminations'"),
        (drop("episode_0"), "must hold 2 episodes, as metadata.json says; got 1"),
        (lambda f: f.move("episode_1", "second"), "episode 1 must be whole"),
        (make_cycle, "episode 1 must be whole"),
        (link(h5py.ExternalLink("/etc/passwd", "/")), "all data itself; got a link to another"),
        (link(h5py.SoftLink("/episode_0/actions")), "all data itself; got a link to another file"),
        (
            replace(shape=(2, 2), dtype="f8", external=[("/etc/passwd", 0, 32)]),
            "all data itself; got a link to another file",
        ),
        (replace(shape=(2, 2), dtype="V8"), "actions of episode 1 must be numbers"),
        (replace(data=["a", "b"]), "actions of episode 1 must be numbers; got object"),
        (replace(data=0.5), r"actions of episode 1 must be \[T, 2\]"),
        (replace(data=np.zeros([4, 2])), r"to match .* \[3, 4\]; got \[4, 2\]"),
        (replace(data=np.full([2, 2], np.nan)), "actions must be finite"),
        (replace(shape=(10**13, 2), dtype="f8", chunks=(10**4, 2)), "at most 4 GiB"),
        (replace(shape=(10**8, 2), dtype="f8", chunks=(10**4, 2)), "than its file can hold"),
    ],
)
def test_refuses_data_that_it_cannot_use(root, change, message):
    folder = write()
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        change(file)
    with pytest.raises(UserError, match=message) as error:
        load_demonstrations(folder)
    assert "\n" not in str(error.value)


def test_one_array_linked_many_times_cannot_fill_the_memory(root):
    folder = write()
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        replace(shape=(50_000, 2), dtype="f8", chunks=(10**4, 2))(file)
        for index in range(2, 200):
            file[f"episode_{index}"] = file["episode_1"]
    change_metadata(folder, total_episodes=200)
    with pytest.raises(UserError, match="than its file can hold"):
        load_demonstrations(folder)


def test_a_recording_keeps_the_episodes_that_are_whole(root):
    folder = write()
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        del file["episode_0/actions"]
    recording = load_recording(folder)
    assert recording.indices == (1,)
    assert len(recording.problems) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("main_data.hdf5", b"", "must be a whole HDF5 file written by Minari"),
        ("main_data.hdf5", b"words", "must be a whole HDF5 file written by Minari"),
        ("main_data.hdf5", None, "whole Minari data set; got .* without data/main_data.hdf5"),
        ("metadata.json", b"", "metadata.json must be JSON; got a damaged file"),
        ("metadata.json", b"[1]", "metadata.json must be a JSON object; got list"),
        ("metadata.json", b"[" * 10**5, "metadata.json must be JSON; got a damaged file"),
        ("metadata.json", b"\xff\xfe", "metadata.json must be JSON; got a damaged file"),
        ("metadata.json", None, "whole Minari data set; got .* without data/metadata.json"),
    ],
)
def test_refuses_broken_files(root, name, content, message):
    path = write() / "data" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_demonstrations(f"minari:{ID}")
    assert "\n" not in str(error.value)


def test_a_folder_variable_that_names_a_file_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file" / "in"))
    with pytest.raises(UserError, match="MINARI_DATASETS_PATH must name a folder"):
        load_demonstrations("minari:toy/walk-v0")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("minari")))
        return write()


@examples(150)
@given(data=st.data())
def test_damaged_data_give_a_user_error_or_numbers(pristine, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    shutil.copytree(pristine, folder, dirs_exist_ok=True)
    path = folder / "data" / data.draw(st.sampled_from(["main_data.hdf5", "metadata.json"]))
    damage(path, data)
    assert_error_or_numbers(folder)


def test_reads_a_published_data_set_as_minari_does(demos_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(demos_path / "minari"))
    demonstrations = load_demonstrations("minari:walker2d/tqc-noisy-v0")
    expected = Demonstrations.from_episodes(
        (e.observations, e.actions) for e in minari.load_dataset("walker2d/tqc-noisy-v0")
    )
    assert demonstrations.fingerprint() == expected.fingerprint()
    assert demonstrations.num_steps == 13_572
