"""Tests of reading and writing demonstrations, hostile and damaged files among them."""

import collections
import io
import os
import pathlib
import pickle
import subprocess
import sys
import tracemalloc
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nppac_tf.demonstrations import Demonstrations, load_demonstrations, save_demonstrations
from nppac_tf.demonstrations.formats import loading
from nppac_tf.errors import UserError

LENGTHS = (3, 2)


def make_arrays(lengths=LENGTHS, observation_size=4, action_size=2, dtype=np.float64):
    """Random (observations, actions) pairs of the given lengths."""
    generator = np.random.default_rng(0)
    return [
        (
            generator.normal(size=(n, observation_size)).astype(dtype),
            generator.normal(size=(n, action_size)).astype(dtype),
        )
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
    np.testing.assert_array_equal(
        demonstrations.observations, np.concatenate([o for o, _ in arrays]).astype(np.float32)
    )
    np.testing.assert_array_equal(
        demonstrations.actions, np.concatenate([a for _, a in arrays]).astype(np.float32)
    )
    np.testing.assert_array_equal(
        demonstrations.episode_ends, np.cumsum([len(a) for _, a in arrays])
    )


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
    path = write_npy(tmp_path / "pen.npy", awac_records(arrays))
    demonstrations = load_demonstrations(str(path))
    assert_holds(demonstrations, arrays)
    assert demonstrations.name == "pen"
    assert demonstrations.metadata == {"format": "AWAC npy", "source": "pen.npy"}


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", ">f4", "<f2", "<i8", ">i4", "u1"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_rebuilds_arrays_of_every_numeric_type(tmp_path, dtype, protocol):
    arrays = [(np.arange(12).reshape(3, 4).astype(dtype), np.ones([3, 1]).astype(dtype))]
    path = write_pickle(tmp_path / "x.pkl", dapg_records(arrays), protocol)
    assert_holds(load_demonstrations(path), arrays)


@pytest.mark.parametrize("protocol", [3, 5])
def test_rebuilds_column_major_arrays(tmp_path, protocol):
    arrays = [(np.asfortranarray(o), a[::1]) for o, a in make_arrays()]
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
    rows, columns = array.shape
    content = array.astype("<f8").tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"K%cK%c\x86" % (rows, columns)
        + b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        + b"K\x00tb\x89"
        + b"T"
        + len(content).to_bytes(4, "little")
        + content
        + b"tb"
    )


def test_reads_pickles_of_python_2(tmp_path):
    arrays = make_arrays([3])
    observations, actions = arrays[0]
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


def test_reads_plain_lists_and_other_plain_containers(tmp_path):
    arrays = make_arrays()
    records = tuple(
        collections.OrderedDict(
            observations=[list(row) for row in observations.tolist()],
            actions=[[np.float64(value) for value in row] for row in actions],
            extras={"set": {1, 2}, "frozen": frozenset([3]), "complex": 1j, "bytes": b"\xff"},
        )
        for observations, actions in arrays
    )
    assert_holds(load_demonstrations(write_pickle(tmp_path / "x.pkl", records, 2)), arrays)


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


def one_too_many_actions(arrays):
    return [(o[:-1], a) for o, a in arrays]


def two_too_few_actions(arrays):
    return [(o, a[:-2]) for o, a in arrays]


def narrower_second_episode(arrays):
    return [arrays[0], (arrays[1][0][:, :3], arrays[1][1])]


def flat_actions(arrays):
    return [(o, a[:, 0]) for o, a in arrays]


def not_a_number(arrays):
    arrays[1][1][0, 1] = np.nan
    return arrays


MISMATCHES = pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_too_many_actions, r"actions of episode 0 .* observations \[2, 4\]; got \[3, 2\]"),
        (two_too_few_actions, r"actions of episode 0 .* observations \[3, 4\]; got \[1, 2\]"),
        (narrower_second_episode, "observations of episode 1 must be 4 wide as in episode 0"),
        (not_a_number, r"actions must be finite .* at step 3 \(episode 1\), dimension 1"),
    ],
)


@MISMATCHES
def test_refuses_dapg_episodes_that_do_not_match(tmp_path, change, message):
    path = write_pickle(tmp_path / "x.pickle", dapg_records(change(make_arrays())))
    with pytest.raises(UserError, match=message):
        load_demonstrations(path)


@MISMATCHES
def test_refuses_awac_episodes_that_do_not_match(tmp_path, change, message):
    path = write_npy(tmp_path / "x.npy", awac_records(change(make_arrays())))
    with pytest.raises(UserError, match=message):
        load_demonstrations(path)


def test_refuses_flat_actions(tmp_path):
    path = write_pickle(tmp_path / "x.pickle", dapg_records(flat_actions(make_arrays())))
    with pytest.raises(UserError, match=r"actions of episode 0 must be \[T, A\] .*; got \[3\]"):
        load_demonstrations(path)


OK = {"observations": np.zeros([2, 3]), "actions": np.zeros([2, 1])}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"observations": [], "actions": []}, "must hold a list of episodes"),
        (np.zeros([3, 4]), "must hold a list of episodes"),
        (5, "must hold a list of episodes"),
        ([], "at least one episode; got 0"),
        ([OK, [1, 2]], "episode 1 must be a dict; got list"),
        ([{"states": 1, "actions": 2}], "episode 0 must hold .*; got actions, states"),
        ([OK | {"actions": None}], "actions of episode 0 must be arrays or lists .*; got NoneType"),
        ([OK | {"actions": "12"}], "actions of episode 0 must be arrays or lists .*; got str"),
        ([OK | {"actions": [["1"], ["2"]]}], "actions of episode 0 must be .*; got str"),
        ([OK | {"actions": [[[[1.0]]]]}], "actions of episode 0 must be .*; got list"),
        ([OK | {"actions": [[10**400], [0]]}], "actions of episode 0 must fit into float64"),
        (
            [OK | {"actions": [[1.0], [1.0, 2.0]]}],
            r"rows of one width; got rows of \[1\] and \[2\]",
        ),
        (
            [OK | {"actions": np.array([["a"], ["b"]])}],
            "must be numbers; got an array of type 'U1'",
        ),
        ([OK | {"actions": np.zeros(2, "f8,f8")}], "must be numbers; got an array of type 'V16'"),
        ([OK | {"actions": np.zeros([2, 1], complex)}], "must be numbers; .* type 'c16'"),
        ([OK | {"actions": np.zeros([2, 1], object)}], "must be numbers; .* type 'O8'"),
        ([OK | {"actions": np.zeros([2, 1, 1])}], r"must be \[T, A\] .*; got \[2, 1, 1\]"),
        ([OK | {"observations": [{"image": 1}]}], "must each hold state_observation; got image"),
        (
            [OK | {"observations": [{"state_observation": np.zeros(3)}, 1.0]}],
            "must each hold state_observation; got float",
        ),
        ([{"observations": [], "actions": []}], "observations of episode 0 must be"),
        (
            [{"observations": np.zeros([0, 3]), "actions": np.zeros([0, 1])}],
            "episode 0 must hold at least one step",
        ),
    ],
)
def test_refuses_pickles_of_another_structure(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        load_demonstrations(write_pickle(tmp_path / "x.pkl", value))


def test_refuses_lists_that_hold_themselves(tmp_path):
    rows = []
    rows.append(rows)
    with pytest.raises(UserError, match="actions of episode 0 must be arrays or lists"):
        load_demonstrations(write_pickle(tmp_path / "x.pkl", [OK | {"actions": rows}]))


def test_refuses_an_npy_file_that_holds_one_dict_of_all_steps(tmp_path):
    np.save(tmp_path / "x.npy", OK, allow_pickle=True)
    with pytest.raises(UserError, match="the AWAC npy must hold a list of episodes"):
        load_demonstrations(tmp_path / "x.npy")


def test_refuses_a_plain_numeric_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros([5, 4]))
    with pytest.raises(UserError, match=r"an object array .* \(AWAC\); got float64 \[5, 4\]"):
        load_demonstrations(tmp_path / "x.npy")


class Payload:
    """What a hostile pickle holds: loading it the usual way calls `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.function = function
        self.arguments = arguments

    def __reduce__(self):
        return self.function, self.arguments


def touch(path):
    pathlib.Path(path).touch()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("function", "arguments", "refused"),
    [
        (open, ("{mark}", "w"), "io.open|_io.open"),
        (os.system, ("touch {mark}",), "posix.system|nt.system"),
        (os.mkdir, ("{mark}",), "posix.mkdir|nt.mkdir"),
        (eval, ("open({mark!r}, 'w')",), "builtins.eval|__builtin__.eval"),
        (np.save, ("{mark}", 1), "numpy.save"),
    ],
)
def test_refuses_pickles_that_would_run_code(tmp_path, function, arguments, refused, protocol):
    mark = tmp_path / "mark.npy"
    arguments = [x.format(mark=str(mark)) if isinstance(x, str) else x for x in arguments]
    records = [OK | {"extras": [Payload(function, *arguments)]}]
    path = write_pickle(tmp_path / "evil.pickle", records, protocol)
    with pytest.raises(
        UserError, match=rf"arrays and plain containers only; refused '({refused})'"
    ):
        load_demonstrations(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists(), "the payload must be a working one"


def test_refuses_npy_files_that_would_run_code(tmp_path):
    mark = tmp_path / "mark"
    path = write_npy(tmp_path / "evil.npy", [Payload(os.mkdir, str(mark))])
    with pytest.raises(UserError, match=r"refused '(posix|nt)\.mkdir'"):
        load_demonstrations(path)
    assert not mark.exists()
    np.load(path, allow_pickle=True)
    assert mark.exists(), "the payload must be a working one"


def test_refuses_npz_files_that_would_run_code(tmp_path):
    mark = tmp_path / "mark"
    path = tmp_path / "evil.npz"
    np.savez(
        path,
        observations=np.array([Payload(os.mkdir, str(mark))]),
        actions=np.zeros([1, 1]),
        episode_ends=[1],
    )
    with pytest.raises(UserError, match="npz archive of plain arrays"):
        load_demonstrations(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "opcodes", [b"cbuiltins\ngetattr\n.", b"cos\nsystem.__call__\n.", b"cbuiltins\nprint\n."]
)
def test_refuses_names_whether_called_or_not(tmp_path, opcodes):
    path = tmp_path / "x.pkl"
    path.write_bytes(opcodes)
    with pytest.raises(UserError, match="refused"):
        load_demonstrations(path)


def test_refuses_an_object_type_that_passes_for_plain_bytes(tmp_path):
    """NumPy believes a type's pickled flags: without NPY_LIST_PICKLE it copies raw pointers."""
    content = pickle.dumps([OK | {"actions": np.zeros([1, 1], object)}], 2)
    state = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t"
    assert content.count(state) == 1
    path = tmp_path / "x.pkl"
    path.write_bytes(content.replace(state, state.replace(b"K?", b"K\x00")))
    with pytest.raises(UserError, match="must be numbers; got an array of type 'O8'"):
        load_demonstrations(path)


@pytest.mark.parametrize(
    "class_of", ["cnumpy\nndarray\n", "ccollections\nOrderedDict\n", "cnumpy\ndtype\n"]
)
def test_a_pickle_cannot_change_what_it_is_given(tmp_path, class_of):
    """BUILD with a pair as state sets attributes of the object below it, here of a class."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02" + class_of.encode() + b"N}U\x05shapeK\x01s\x86b.")
    with pytest.raises(UserError, match=r"whole and undamaged|got a damaged one"):
        load_demonstrations(path)
    arrays = make_arrays()
    assert_holds(load_demonstrations(write_pickle(path, dapg_records(arrays))), arrays)


def test_refuses_arrays_with_less_content_than_shape(tmp_path):
    content = pickle.dumps([OK], 2)
    shape = b"K\x02K\x03\x86"
    assert content.count(shape) == 1
    path = tmp_path / "x.pkl"
    path.write_bytes(content.replace(shape, b"K\x09K\x03\x86"))
    with pytest.raises(UserError, match=r"observations of episode 0 .* as much content as shape"):
        load_demonstrations(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02]r" + (2**31).to_bytes(4, "little") + b".", "at least one episode; got 0"),
        (b"\x80\x05\x96" + (2**32).to_bytes(8, "little") + b"abc.", "whole and undamaged"),
        (b"\x80\x05\x95" + (2**32).to_bytes(8, "little") + b"].", "at least one episode; got 0"),
    ],
    ids=["memo", "bytearray", "frame"],
)
def test_great_sizes_in_a_small_file_cost_no_memory(tmp_path, content, message):
    """In C, unpickling the first fills 32 GB: an array of pointers up to twice the index."""
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message):
            load_demonstrations(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20


def small_files():
    """One small valid file of each format: suffix -> content."""
    arrays = make_arrays([2], 1, 1)
    npy = io.BytesIO()
    np.save(npy, np.array(awac_records(arrays), object), allow_pickle=True)
    npz = io.BytesIO()
    np.savez(npz, observations=[[0.0]], actions=[[0.0]], episode_ends=[1], metadata='{"a": 1}')
    return {
        ".npy": npy.getvalue(),
        ".npz": npz.getvalue(),
        ".pickle": pickle.dumps(dapg_records(arrays), 3),
        ".pkl": pickle.dumps(dapg_records(arrays), 5),
    }


SUFFIXES = pytest.mark.parametrize("suffix", [".npy", ".npz", ".pickle", ".pkl"])


@SUFFIXES
def test_refuses_truncated_files_wherever_they_end(tmp_path, suffix):
    content = small_files()[suffix]
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    load_demonstrations(path)
    for length in range(0, len(content), 5):
        path.write_bytes(content[:length])
        with pytest.raises(UserError) as caught:
            load_demonstrations(path)
        assert "\n" not in str(caught.value)


@SUFFIXES
@settings(max_examples=100)
@given(data=st.data())
def test_damaged_files_raise_nothing_but_user_errors(tmp_path_factory, suffix, data):
    content = bytearray(small_files()[suffix])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(content)
    try:
        demonstrations = load_demonstrations(path)
    except UserError:
        return
    assert np.isfinite(demonstrations.observations).all()


def test_names_the_file_in_errors(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"")
    with pytest.raises(UserError) as caught:
        load_demonstrations(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.npz", "absent.npz: cannot be read \\(No such file or directory\\)"),
        ("folder.npy", "folder.npy: a folder of demonstrations must be a whole Minari data set"),
        (
            "x.hdf5",
            "ending in .npz, .npy, .pickle, .pkl; got 'x.hdf5': see Demonstrations.from_episodes",
        ),
        ("x\0.npz", "without null characters"),
        ("x" * 300 + ".npz", "cannot be read \\(File name too long\\)"),
        ("x", "did you mean minari:"),
    ],
)
def test_refuses_sources_that_are_no_files_of_ours(tmp_path, name, message):
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UserError, match=message):
        load_demonstrations(tmp_path / name)


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=10),
    metadata=st.dictionaries(
        st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(max_size=5))
    ),
)
@settings(max_examples=30)
def test_what_is_saved_is_loaded(tmp_path_factory, lengths, name, metadata):
    path = tmp_path_factory.getbasetemp() / "saved.npz"
    demonstrations = Demonstrations.from_episodes(make_arrays(lengths), name, metadata)
    save_demonstrations(demonstrations, path)
    loaded = load_demonstrations(path)
    assert loaded.fingerprint() == demonstrations.fingerprint()
    assert loaded.name == name
    assert loaded.metadata == metadata
    assert loaded.notices == ()


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_else(tmp_path):
    demonstrations = Demonstrations.from_episodes(make_arrays(), metadata={"b": 1, "a": 2})
    path = tmp_path / "x.npz"
    save_demonstrations(demonstrations, path)
    first = path.read_bytes()
    save_demonstrations(demonstrations, path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_save_keeps_the_former_file(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    demonstrations = Demonstrations.from_episodes(make_arrays())
    save_demonstrations(demonstrations, path)
    before = path.read_bytes()

    def fail(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading.np, "savez_compressed", fail)
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


def test_saving_makes_the_folder(tmp_path):
    saved = Demonstrations.from_episodes(make_arrays())
    save_demonstrations(saved, tmp_path / "new" / "folder" / "x.npz")
    loaded = load_demonstrations(tmp_path / "new" / "folder" / "x.npz")
    assert loaded.fingerprint() == saved.fingerprint()


def test_npz_needs_no_metadata_nor_name(tmp_path):
    np.savez(tmp_path / "mine.npz", observations=[[1.0]], actions=[[2.0]], episode_ends=[1])
    demonstrations = load_demonstrations(tmp_path / "mine.npz")
    assert demonstrations.name == "mine"
    assert demonstrations.metadata == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": None}, "must hold observations, actions, episode_ends; got episode_ends, ob"),
        ({"metadata": "{"}, "metadata must be JSON"),
        ({"metadata": "[1]"}, "metadata must be a JSON object; got list"),
        ({"episode_ends": [2]}, "the number of steps 1; got 2"),
        ({"observations": ["a"]}, "observations must be numbers"),
    ],
)
def test_refuses_npz_files_of_another_structure(tmp_path, change, message):
    arrays = {"observations": [[1.0]], "actions": [[2.0]], "episode_ends": [1]} | change
    np.savez(tmp_path / "x.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(UserError, match=message):
        load_demonstrations(tmp_path / "x.npz")


def test_embedded_demonstrations_are_found_by_name(tmp_path, monkeypatch):
    arrays = make_arrays()
    for name in ("walk", "run"):
        save_demonstrations(
            Demonstrations.from_episodes(arrays, name=name), tmp_path / f"{name}.npz"
        )
    (tmp_path / "LICENSE").touch()
    monkeypatch.setattr(loading, "_embedded_files", lambda: list(tmp_path.iterdir()))
    demonstrations = load_demonstrations("embedded:walk")
    assert_holds(demonstrations, arrays)
    assert demonstrations.name == "walk"
    with pytest.raises(
        UserError, match=r"embedded demonstrations must be one of: run, walk; got '\.\./walk'"
    ):
        load_demonstrations("embedded:../walk")


def test_embedded_demonstrations_of_the_package_load():
    for file in loading._embedded_files():
        if file.name.endswith(".npz"):
            demonstrations = load_demonstrations(f"embedded:{file.name.removesuffix('.npz')}")
            assert demonstrations.num_episodes >= 1
    with pytest.raises(UserError, match=r"embedded demonstrations must be one of: .*; got 'no'"):
        load_demonstrations("embedded:no")


def make_task(observation_size, action_size):
    bound = np.ones(action_size, np.float32)
    return types.SimpleNamespace(
        name="toy",
        observation_size=observation_size,
        action_size=action_size,
        action_low=-bound,
        action_high=bound,
    )


def test_loading_for_a_task_conforms(tmp_path):
    path = write_pickle(tmp_path / "x.pkl", [OK | {"actions": np.array([[1.5], [0.0]])}])
    demonstrations = load_demonstrations(path, make_task(3, 1))
    np.testing.assert_array_equal(demonstrations.actions, [[1], [0]])
    assert "clipped 1 of 2 action values" in demonstrations.notices[0]
    with pytest.raises(UserError, match="observation size 4"):
        load_demonstrations(path, make_task(4, 1))


def test_importing_does_not_import_tensorflow():
    program = (
        "import sys; import nppac_tf.demonstrations; "
        "print(sorted({'tensorflow', 'gymnasium', 'mujoco'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"


def test_reads_the_human_pen_demonstrations(demos_path):
    demonstrations = load_demonstrations(demos_path / "pen2_sparse.npy", make_task(45, 24))
    np.testing.assert_array_equal(demonstrations.episode_ends, np.arange(1, 26) * 199)
    near = np.linalg.norm(demonstrations.observations[:, 39:42], axis=1) < 0.075
    aligned = (
        np.sum(demonstrations.observations[:, 33:36] * demonstrations.observations[:, 36:39], 1)
        > 0.95
    )
    at_goal = np.array([part.sum() for part in np.split(near & aligned, 25)])
    assert at_goal.min() == 79
    assert at_goal.max() == 187


def test_reads_the_human_door_demonstrations(demos_path):
    path = demos_path / "door-v0_demos.pickle"
    raw = load_demonstrations(path)
    lengths = np.diff(raw.episode_ends, prepend=0)
    assert (raw.num_episodes, lengths.min(), lengths.max()) == (25, 223, 300)
    assert (raw.observation_size, raw.action_size) == (39, 28)
    np.testing.assert_allclose([raw.actions.min(), raw.actions.max()], [-1.28, 1.37], atol=0.005)
    clipped = load_demonstrations(path, make_task(39, 28))
    assert np.abs(clipped.actions).max() == 1
    assert len(clipped.notices) == 1
    assert "by 0.366 at most" in clipped.notices[0]


@pytest.mark.parametrize("name", ["pen2_sparse.npy", "door-v0_demos.pickle"])
def test_human_demonstrations_survive_saving_and_agree_with_numpy(demos_path, tmp_path, name):
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
