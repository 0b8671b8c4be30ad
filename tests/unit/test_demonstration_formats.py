"""Tests of reading valid files of demonstrations, and of saving them."""

import collections
import dataclasses
import pathlib
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nppac_tf.demonstrations import Demonstrations, load_demonstrations, save_demonstrations
from nppac_tf.errors import UserError


def make_arrays(lengths=(3, 2), observation_size=4, action_size=2):
    """Random (observations, actions) pairs of the given lengths."""
    generator = np.random.default_rng(0)
    return [
        (generator.normal(size=(n, observation_size)), generator.normal(size=(n, action_size)))
        for n in lengths
    ]


def dapg_records(arrays):
    return [
        {
            "observations": observations,
            "actions": actions,
            "rewards": np.zeros(len(actions)),
            "init_state_dict": {"qpos": np.zeros(30), "door_body_pos": np.zeros(3)},
        }
        for observations, actions in arrays
    ]


def awac_records(arrays):
    return [
        {
            "observations": [{"state_observation": row} for row in observations],
            "actions": list(actions),
            "rewards": [np.float64(0)] * (len(actions) + 1),
            "next_observations": [{"state_observation": row} for row in observations],
            "terminals": [np.array([False])] * len(actions),
            "agent_infos": [{}] * len(actions),
            "env_infos": [{"goal_achieved": np.bool_(False)}] * len(actions),
        }
        for observations, actions in arrays
    ]


def write_pickle(path, value, protocol=3):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def write_npy(path, value):
    np.save(path, np.array(value, dtype=object), allow_pickle=True)
    return path


def assert_holds(demonstrations, arrays):
    for field, expected in (
        ("observations", np.concatenate([o for o, _ in arrays]).astype(np.float32)),
        ("actions", np.concatenate([a for _, a in arrays]).astype(np.float32)),
        ("episode_ends", np.cumsum([len(a) for _, a in arrays])),
    ):
        np.testing.assert_array_equal(getattr(demonstrations, field), expected)


@pytest.mark.parametrize("suffix", [".pickle", ".pkl"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_reads_dapg_pickles_of_every_protocol(tmp_path, suffix, protocol):
    arrays = make_arrays()
    path = write_pickle(tmp_path / f"door{suffix}", dapg_records(arrays), protocol)
    demonstrations = load_demonstrations(path)
    assert_holds(demonstrations, arrays)
    assert demonstrations.name == "door"
    assert demonstrations.metadata == {"format": "DAPG pickle", "source": path.name}
    assert demonstrations.notices == ()


def test_reads_awac_npy(tmp_path):
    arrays = make_arrays()
    demonstrations = load_demonstrations(str(write_npy(tmp_path / "p.npy", awac_records(arrays))))
    assert_holds(demonstrations, arrays)
    assert demonstrations.metadata == {"format": "AWAC npy", "source": "p.npy"}


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f4", "<f2", "<i8", ">i4", "u1"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_rebuilds_arrays_of_every_numeric_type_and_order(tmp_path, dtype, protocol):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    for observations in (values, np.asfortranarray(values)):
        arrays = [(observations, np.ones([3, 1], dtype))]
        path = write_pickle(tmp_path / "x.pkl", dapg_records(arrays), protocol)
        assert_holds(load_demonstrations(path), arrays)


@pytest.mark.parametrize("protocol", [2, 3])
def test_reads_pickles_of_numpy_2(tmp_path, protocol):
    arrays = make_arrays()
    content = pickle.dumps(dapg_records(arrays), protocol)
    assert b"cnumpy.core." in content
    path = tmp_path / "x.pkl"
    path.write_bytes(content.replace(b"cnumpy.core.", b"cnumpy._core."))
    assert_holds(load_demonstrations(path), arrays)


def python_2_array(array):
    """The instructions by which Python 2 rebuilds a float64 matrix (protocol 2)."""
    content = array.astype("<f8").tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"K%cK%c\x86" % array.shape
        + b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        + b"K\x00tb\x89T"
        + len(content).to_bytes(4, "little")
        + content
        + b"tb"
    )


def test_reads_pickles_of_python_2(tmp_path):
    ((observations, actions),) = arrays = make_arrays([3])
    assert max(observations.tobytes()) > 127
    path = tmp_path / "x.pickle"
    path.write_bytes(
        b"\x80\x02](}(U\x0cobservations"
        + python_2_array(observations)
        + b"U\x07actions"
        + python_2_array(actions)
        + b"ue."
    )
    assert_holds(load_demonstrations(path), arrays)


@pytest.mark.parametrize("protocol", [2, 5])
def test_reads_plain_containers(tmp_path, protocol):
    arrays = make_arrays()
    records = tuple(
        collections.OrderedDict(
            observations=[list(row) for row in observations.tolist()],
            actions=[[np.float64(value) for value in row] for row in actions],
            extras={"set": {1, 2}, "frozen": frozenset([3]), "complex": 1j, "bytes": b"\xff"},
            defaults=collections.defaultdict(list, a=[1]),
        )
        for observations, actions in arrays
    )
    assert_holds(load_demonstrations(write_pickle(tmp_path / "x.pkl", records, protocol)), arrays)


def test_drops_a_last_observation_without_action(tmp_path):
    arrays = make_arrays()
    longer = [(np.vstack([o, o[-1:]]), a) for o, a in arrays]
    for path in (
        write_pickle(tmp_path / "x.pkl", dapg_records(longer)),
        write_npy(tmp_path / "x.npy", awac_records(longer)),
    ):
        demonstrations = load_demonstrations(path)
        assert_holds(demonstrations, arrays)
        assert demonstrations.notices == (
            "dropped the last observation of 2 of 2 episodes: no action follows it",
        )


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10),
    metadata=st.dictionaries(
        st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(max_size=5))
    ),
)
@settings(max_examples=30)
def test_saved_demonstrations_are_loaded(tmp_path_factory, lengths, name, metadata):
    path = tmp_path_factory.getbasetemp() / "new" / "folder" / "saved.npz"
    demonstrations = Demonstrations.from_episodes(make_arrays(lengths), name, metadata)
    save_demonstrations(demonstrations, path)
    loaded = load_demonstrations(path)
    assert loaded.fingerprint() == demonstrations.fingerprint()
    assert (loaded.name, loaded.metadata, loaded.notices) == (name, metadata, ())
    first = path.read_bytes()
    save_demonstrations(loaded, path)
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


def test_outcomes_are_saved(tmp_path):
    outcomes = {"rewards": [0.5, 1, 2], "successes": [0, 0, 1], "terminated": [False, True]}
    data = dataclasses.replace(Demonstrations.from_episodes(make_arrays([1, 2])), **outcomes)
    save_demonstrations(data, tmp_path / "x.npz")
    loaded = load_demonstrations(tmp_path / "x.npz")
    for name, values in outcomes.items():
        assert getattr(loaded, name).tolist() == values
    np.savez(tmp_path / "y.npz", **dict(np.load(tmp_path / "x.npz")) | {"rewards": np.zeros(2)})
    with pytest.raises(UserError, match=r"y.npz: rewards must be \[3\] numbers"):
        load_demonstrations(tmp_path / "y.npz")


def test_a_failed_save_keeps_the_existing_file(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    demonstrations = Demonstrations.from_episodes(make_arrays())
    save_demonstrations(demonstrations, path)
    before = path.read_bytes()

    def fail(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(UserError, match=r"path must be writable; .* \(No space left on device\)"):
        save_demonstrations(demonstrations.select([0]), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.npy", "path must end in .npz"), ("file/x.npz", "path must be writable")],
)
def test_refuses_paths_it_cannot_save_to(tmp_path, name, message):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=message):
        save_demonstrations(Demonstrations.from_episodes(make_arrays()), tmp_path / name)


def test_npz_needs_no_metadata_nor_name(tmp_path):
    np.savez(tmp_path / "mine.npz", observations=[[1.0]], actions=[[2.0]], episode_ends=[1])
    demonstrations = load_demonstrations(tmp_path / "mine.npz")
    assert (demonstrations.name, demonstrations.metadata) == ("mine", {})


@pytest.mark.parametrize(("name", "steps"), [("pen", 2500), ("door", 5000)])
def test_embedded_demonstrations_load(name, steps):
    demonstrations = load_demonstrations(f"embedded:{name}")
    assert (demonstrations.num_episodes, demonstrations.num_steps) == (25, steps)


def make_task(observation_size, action_size, name="toy"):
    bound = np.ones(action_size, np.float32)
    return types.SimpleNamespace(
        name=name,
        observation_size=observation_size,
        action_size=action_size,
        action_low=-bound,
        action_high=bound,
    )


def test_loading_for_a_task_clips_actions(tmp_path):
    arrays = [(np.zeros([2, 3]), np.array([[1.5], [0.0]]))]
    path = write_pickle(tmp_path / "x.pkl", dapg_records(arrays))
    demonstrations = load_demonstrations(path, make_task(3, 1))
    np.testing.assert_array_equal(demonstrations.actions, [[1], [0]])
    assert "clipped 1 of 2 action values" in demonstrations.notices[0]


@pytest.mark.parametrize(
    ("source", "task", "message"),
    [
        ("embedded:pen", make_task(46, 24), "observation size 46 .* toy; got 45 and 24; did you"),
        ("embedded:pen", make_task(39, 28, "door-binary"), "of pen-binary: pass --task=pen-binary"),
        (
            "embedded:pen",
            make_task(3, 3, "Hopper-v4"),
            "must be of Hopper-v4; got those of pen-binary",
        ),
        ("embedded:walk", None, "embedded demonstrations must be one of: door, pen; got 'walk'"),
        ("embedded:../pen", None, "must be one of: door, pen; got '../pen'"),
        ("absent.npz", None, r"absent.npz: cannot be read \(No such file or directory\)"),
        (
            "x.parquet",
            None,
            r"\.hdf5, \.h5; got 'x.parquet': convert .*Demonstrations.from_episodes",
        ),
        ("x\0.npz", None, "without null characters"),
        ("x" * 300 + ".npz", None, r"cannot be read \(File name too long\)"),
        ("pen/human-v2", None, "did you mean minari:pen/human-v2"),
    ],
)
def test_refuses_other_tasks_and_sources(source, task, message):
    with pytest.raises(UserError, match=message) as error:
        load_demonstrations(source, task)
    assert str(error.value).startswith(f"{source}: ")


def test_importing_does_not_import_tensorflow():
    program = "import sys, nppac_tf.demonstrations; sys.exit('tensorflow' in sys.modules)"
    subprocess.run(
        [sys.executable, "-c", program], cwd=pathlib.Path(__file__).parents[2], check=True
    )


def test_reads_the_human_door_demonstrations(demos_path):
    path = demos_path / "door-v0_demos.pickle"
    raw = load_demonstrations(path)
    lengths = np.diff(raw.episode_ends, prepend=0)
    assert (raw.num_episodes, lengths.min(), lengths.max()) == (25, 223, 300)
    clipped = load_demonstrations(path, make_task(39, 28))
    assert np.abs(clipped.actions).max() == 1
    (notice,) = clipped.notices
    assert "by 0.366 at most" in notice


@pytest.mark.parametrize("name", ["pen2_sparse.npy", "door-v0_demos.pickle"])
def test_human_demonstrations_equal_those_that_numpy_loads(demos_path, tmp_path, name):
    demonstrations = load_demonstrations(demos_path / name)
    records = np.load(demos_path / name, allow_pickle=True)
    assert_holds(
        demonstrations,
        [
            (
                np.array([o["state_observation"] if isinstance(o, dict) else o for o in states]),
                np.array(actions),
            )
            for states, actions in ((r["observations"], r["actions"]) for r in records)
        ],
    )
    save_demonstrations(demonstrations, tmp_path / "x.npz")
    loaded = load_demonstrations(tmp_path / "x.npz")
    assert loaded.fingerprint() == demonstrations.fingerprint()
    assert loaded.metadata["source"] == name
