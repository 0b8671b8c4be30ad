"""Tests of reading and writing Minari data sets, of hostile and damaged ones too."""

import json
import logging
import pathlib
import shutil
import sys
import warnings

import gymnasium
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nppac_tf import environments
from nppac_tf.demonstrations import load_demonstrations, load_recording
from nppac_tf.demonstrations.formats import minari as minari_data
from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import minari

ID = "toy/walk-v0"
SIZES = (4, 2)


class ToyEnvironment(gymnasium.Env):
    """What `minari_data.write` asks of an environment."""

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
    return minari_data.write(
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
    # No test may reach for the network: what is asked of it fails as it does without one.
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    return folder


def change_metadata(folder, **changes):
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))


def test_what_is_written_is_read_by_minari(root):
    folder = write()
    assert folder == root / ID
    dataset = minari.load_dataset(ID)
    assert (dataset.total_episodes, dataset.total_steps) == (2, 5)
    assert dataset.observation_space == ToyEnvironment.observation_space
    assert dataset.action_space == ToyEnvironment.action_space
    assert dataset.storage.metadata["provenance"] == {"seed": 7}
    for written, read in zip(make_episodes(), dataset, strict=True):
        np.testing.assert_array_equal(read.observations[:-1], written.observations)
        np.testing.assert_array_equal(read.observations[-1], written.final_observation)
        np.testing.assert_array_equal(read.actions, written.actions)
        np.testing.assert_array_equal(read.rewards, written.rewards)
        np.testing.assert_array_equal(read.terminations, written.terminals)
        np.testing.assert_array_equal(read.truncations, written.truncations)
    assert minari.list_local_datasets().keys() == {ID}
    assert minari.namespace.list_local_namespaces() == ["toy"]


def test_what_minari_writes_is_read(root):
    """Written by Minari's collector's own means, with infos, options and a Python list here."""
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
    for source in (f"minari:{ID}", root / ID, f"minari:{root / ID}"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            demonstrations = load_demonstrations(source)
        np.testing.assert_array_equal(
            demonstrations.observations, np.concatenate([e.observations for e in episodes])
        )
        np.testing.assert_array_equal(
            demonstrations.actions, np.concatenate([e.actions for e in episodes])
        )
        np.testing.assert_array_equal(demonstrations.episode_ends, [3, 5])
        assert demonstrations.notices == ()
        assert demonstrations.name == ID
        assert demonstrations.metadata["source"] == ID
    recording = load_recording(f"minari:{ID}")
    np.testing.assert_array_equal(recording.episodes[0].initial_state["qpos"], [0, 1, 2])
    np.testing.assert_array_equal(recording.episodes[1].states()[-1], episodes[1].final_observation)
    assert recording.environment_id is None


def test_the_environment_is_written_and_can_be_made_again(root):
    task = environments.make_task("pen-binary")
    environment = task.make()
    size, actions = task.observation_size, np.zeros([2, task.action_size], np.float32)
    episode = RecordedEpisode(
        np.zeros([2, size], np.float32),
        actions,
        np.zeros(size, np.float32),
        rewards=np.zeros(2),
        terminals=np.zeros(2, np.bool_),
        truncations=np.array([False, True]),
    )
    write("pen/mine-v0", [episode], environment)
    environment.close()
    assert load_recording("minari:pen/mine-v0").environment_id == task.environment_id
    again = minari.load_dataset("pen/mine-v0").recover_environment()
    assert again.spec.id == task.environment_id
    again.close()


def test_writing_twice_keeps_the_first(root):
    folder = write()
    before = (folder / "data" / "main_data.hdf5").read_bytes()
    with pytest.raises(UserError, match=r"must not exist yet; got 'toy/walk-v0', .* next version"):
        write(episodes=make_episodes([9]))
    assert (folder / "data" / "main_data.hdf5").read_bytes() == before
    write("toy/walk-v1", make_episodes([9]))
    assert load_demonstrations("minari:toy/walk-v1").num_steps == 9


def test_a_failed_write_leaves_nothing(root, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("h5py.Group.create_dataset", fail)
    with pytest.raises(UserError, match=r"writable; .* \(No space left on device\)"):
        write()
    assert [path for path in root.rglob("*") if path.is_file()] == []
    monkeypatch.undo()


def test_an_interrupted_write_leaves_nothing(root, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("minari.utils.create_dataset_from_buffers", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("name", ["walk", "toy/walk", "../walk-v0", "/walk-v0", "", "a b-v0"])
def test_refuses_ids_that_minari_would_not_read_back(root, name):
    with pytest.raises(UserError, match=r"named as in pen/mine-v0, with a version"):
        write(name)


def test_an_absent_data_set_names_close_ones(root, monkeypatch):
    monkeypatch.setattr(minari, "download_dataset", download_failing(ImportError()))
    write()
    write("other/thing-v3")
    with pytest.raises(UserError) as error:
        load_demonstrations("minari:toy/wlak-v0")
    assert str(error.value) == (
        f"minari:toy/wlak-v0: there is no such data set in {root} (MINARI_DATASETS_PATH names "
        "another folder), and it could not be downloaded (downloading needs the package "
        "huggingface_hub); close to it here: toy/walk-v0"
    )


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
        (ConnectionError("Max retries\nexceeded"), "no connection to the server, ConnectionError"),
        (ValueError("The dataset version, toy/walk-v9, doesn't exist"), "toy/walk-v9, doesn't"),
    ],
)
def test_a_failed_download_is_one_line(root, monkeypatch, capfd, error, reason):
    monkeypatch.setattr(minari, "download_dataset", download_failing(error))
    with pytest.raises(UserError, match=reason) as caught:
        load_demonstrations("minari:toy/walk-v9")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_absent_data_set_is_downloaded_once(root, monkeypatch):
    asked = []

    def download(dataset_id):
        asked.append(dataset_id)
        write(dataset_id)

    monkeypatch.setattr(minari, "download_dataset", download)
    for _ in range(2):
        assert load_demonstrations("minari:D4RL/toy/human-v2").num_steps == 5
    assert asked == ["D4RL/toy/human-v2"]


def dict_space(**subspaces):
    return json.dumps({"type": "Dict", "subspaces": subspaces})


def box(*shape):
    return json.dumps({"type": "Box", "dtype": "float64", "shape": shape, "low": 0, "high": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minari_version": "0.9.1"}, r"written by Minari 0\.4\.0 to .*; got '0\.9\.1': take"),
        ({"minari_version": ["a"]}, "got list"),
        ({"minari_version": None}, "got None"),
        ({"data_format": "arrow"}, "must be in Minari's hdf5 format; got 'arrow'"),
        ({"total_episodes": 0}, "total_episodes must be at least 1; got 0"),
        ({"total_episodes": 3}, "must hold the 3 episodes that the metadata announce; got 2"),
        ({"total_episodes": 10**15}, "must hold the 1000000000000000 episodes"),
        ({"total_episodes": "2"}, "total_episodes must be at least 1; got '2'"),
        (
            {"observation_space": dict_space(observation={}, achieved_goal={}, desired_goal={})},
            "a one-dimensional Box; got a Dict of observation, achieved_goal, desired_goal: join",
        ),
        ({"observation_space": box(64, 64, 3)}, r"Box; got 'Box', shape \[64, 64, 3\]"),
        ({"observation_space": box()}, r"one-dimensional Box; got 'Box', shape \[\]"),
        ({"observation_space": box(10**15)}, r"must be \[T, 1000000000000000\], as the metadata"),
        ({"action_space": json.dumps({"type": "Discrete", "n": 3})}, "Box; got 'Discrete', shape"),
        ({"action_space": box(3)}, r"actions of episode 0 must be \[T, 3\], .*; got \[3, 2\]"),
        ({"action_space": "{"}, "must describe the action_space as Minari does"),
        ({"action_space": "[" * 10**5}, "must describe the action_space as Minari does"),
        ({"observation_space": 5}, "must describe the observation_space as Minari does"),
    ],
)
def test_refuses_metadata_that_it_cannot_use(root, changes, message):
    folder = write()
    change_metadata(folder, **changes)
    with pytest.raises(UserError, match=message) as error:
        load_demonstrations(folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(folder)) + 400


def test_the_environment_of_a_data_set_is_never_made(root, tmp_path, monkeypatch):
    """Where spaces are missing, Minari itself makes it, which calls whatever it names."""
    mark = tmp_path / "mark"
    specification = {
        "id": "Evil-v0",
        "entry_point": "os:mkdir",
        "kwargs": {"path": str(mark)},
        "additional_wrappers": [],
    }
    folder = write()
    change_metadata(folder, env_spec=json.dumps(specification))
    assert load_demonstrations(folder).num_steps == 5
    change_metadata(folder, observation_space=None)
    with pytest.raises(UserError, match="must describe the observation_space"):
        load_demonstrations(folder)
    assert not mark.exists()
    with pytest.raises(Exception, match=r".*"):
        minari.load_dataset(ID)
    assert mark.exists(), "the payload must be a working one"


def open_file(folder):
    return h5py.File(folder / "data" / "main_data.hdf5", "a")


def replace(file, **options):
    group = file["episode_1"]
    del group["actions"]
    group.create_dataset("actions", **options)


def link_out(file):
    del file["episode_1/actions"]
    file["episode_1/actions"] = h5py.ExternalLink("/etc/passwd", "/")


def store_outside(file):
    group = file["episode_1"]
    del group["actions"]
    group.create_dataset("actions", (2, 2), "f8", external=[("/etc/passwd", 0, 32)])


def drop(key):
    def change(file):
        del file[key]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("episode_1/actions"), "must hold actions of episode 1; got none"),
        (drop("episode_1/terminations"), "must hold terminations of episode 1; got none"),
        (drop("episode_0"), "must hold the 2 episodes that the metadata announce; got 1"),
        (lambda f: f.move("episode_1", "second"), "must hold episode 1; got none"),
        (link_out, "must hold actions of episode 1; got none"),
        (store_outside, "actions of episode 1 must be an array in the file"),
        (lambda f: replace(f, shape=(2, 2), dtype="V8"), "must be arrays of numbers"),
        (lambda f: replace(f, data=["a", "b"]), "must be arrays of numbers; got object"),
        (lambda f: replace(f, data=0.5), "must be arrays of numbers"),
        (lambda f: replace(f, data=np.zeros([4, 2])), r"to match .* \[3, 4\]; got \[4, 2\]"),
        (lambda f: replace(f, data=np.full([2, 2], np.nan)), "actions must be finite"),
        (
            lambda f: replace(f, shape=(10**13, 2), dtype="f8", chunks=(10**4, 2)),
            "must be stored whole; got \\[10000000000000, 2\\] announced",
        ),
        (
            lambda f: replace(f, shape=(10**8, 2), dtype="f8", chunks=(10**4, 2)),
            "must be stored whole",
        ),
    ],
)
def test_refuses_episodes_that_it_cannot_use(root, change, message):
    folder = write()
    with open_file(folder) as file:
        change(file)
    with pytest.raises(UserError, match=message) as error:
        load_demonstrations(folder)
    assert "\n" not in str(error.value)


def test_a_cycle_of_groups_is_refused(root):
    folder = write()
    with open_file(folder) as file:
        del file["episode_1/actions"]
        file["episode_1/actions"] = file["episode_1"]
    with pytest.raises(UserError, match="must be an array in the file; got something else"):
        load_demonstrations(folder)


def test_a_recording_keeps_the_episodes_that_are_whole(root):
    folder = write()
    with open_file(folder) as file:
        del file["episode_0/actions"]
    recording = load_recording(folder)
    assert recording.indices == (1,)
    assert recording.problems == ("the data set must hold actions of episode 0; got none",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("main_data.hdf5", b"", "must be a whole HDF5 file of Minari's"),
        ("main_data.hdf5", b"words", "must be a whole HDF5 file of Minari's"),
        ("main_data.hdf5", None, "whole Minari data set; got .* without data/main_data.hdf5"),
        ("metadata.json", b"", "metadata.json must be JSON; got a damaged file"),
        ("metadata.json", b"[1]", "metadata.json must be a JSON object; got list"),
        ("metadata.json", b"[" * 10**5, "metadata.json must be JSON; got a damaged file"),
        ("metadata.json", b"\xff\xfe", "metadata.json must be JSON; got a damaged file"),
        ("metadata.json", None, "whole Minari data set; got .* without data/metadata.json"),
    ],
)
def test_refuses_broken_files(root, name, content, message):
    folder = write()
    path = folder / "data" / name
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


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_data_give_a_user_error_or_numbers(pristine, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    shutil.copytree(pristine, folder, dirs_exist_ok=True)
    path = folder / "data" / data.draw(st.sampled_from(["main_data.hdf5", "metadata.json"]))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        demonstrations = load_demonstrations(folder)
    except UserError:
        return
    assert np.isfinite(demonstrations.observations).all()


@pytest.mark.parametrize(
    ("name", "steps"), [("halfcheetah/tqc-noisy-v0", 15_000), ("walker2d/tqc-noisy-v0", 13_572)]
)
def test_reads_published_data_sets_as_minari_does(demos_path, monkeypatch, name, steps):
    folder: pathlib.Path = demos_path / "minari"
    if not folder.is_dir():
        pytest.skip("needs the Minari data sets among the demonstrations")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    demonstrations = load_demonstrations(f"minari:{name}")
    dataset = minari.load_dataset(name)
    assert demonstrations.num_steps == steps == dataset.total_steps
    for (observations, actions), episode in zip(demonstrations.episodes(), dataset, strict=True):
        np.testing.assert_array_equal(observations, episode.observations[:-1].astype(np.float32))
        np.testing.assert_array_equal(actions, episode.actions)
    assert demonstrations.notices == ()
