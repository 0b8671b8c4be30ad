"""Hostile and broken files of demonstrations: no code runs, and one line says what is wrong."""

import contextlib
import copyreg
import gzip
import io
import json
import os
import pathlib
import pickle
import resource
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from nppac_tf.demonstrations import load_demonstrations, load_recording
from nppac_tf.demonstrations.formats import loading
from nppac_tf.errors import UserError

SENTINEL = "put the payload here"
EXTENSION_CODE = 0xEF12


class NewCanary:
    """Touches a file when it is made."""

    def __new__(cls, path):
        pathlib.Path(path).touch()
        return super().__new__(cls)


class StateCanary:
    """Touches a file when its state is set."""

    def __setstate__(self, path):
        pathlib.Path(path).touch()


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.function = function
        self.arguments = arguments

    def __reduce__(self):
        return self.function, self.arguments


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def call(function, *arguments):
    """The instructions of a call, without the frame of a pickle."""
    return pickle.dumps(Call(function, *arguments), 2)[2:-1]


PAYLOADS = {
    "os.system": lambda path: call(os.system, f"touch {path}"),
    "eval": lambda path: call(eval, f"open({path!r}, 'w')"),
    "open": lambda path: call(open, path, "w"),
    "numpy.save": lambda path: call(np.save, path, 1),
    "getattr chain": lambda path: (
        b"cbuiltins\ngetattr\n(cos\nmkdir\n" + text("__call__") + b"tR" + text(path) + b"\x85R"
    ),
    "STACK_GLOBAL": lambda path: text("os") + text("mkdir") + b"\x93" + text(path) + b"\x85R",
    "INST": lambda path: b"(" + text(path) + b"ios\nmkdir\n",
    "OBJ": lambda path: b"(cos\nmkdir\n" + text(path) + b"o",
    "NEWOBJ": lambda path: f"c{__name__}\nNewCanary\n".encode() + text(path) + b"\x85\x81",
    "NEWOBJ_EX": lambda path: f"c{__name__}\nNewCanary\n".encode() + text(path) + b"\x85}\x92",
    "BUILD": lambda path: f"c{__name__}\nStateCanary\n".encode() + b")\x81" + text(path) + b"b",
    "EXT": lambda path: b"\x83" + struct.pack("<H", EXTENSION_CODE) + text(path) + b"\x85R",
}


class ForgedArray:
    """Pickles as an array with the given content."""

    def __init__(self, content):
        self.state = (1, (1,), np.dtype("<f8"), False, content)

    def __reduce__(self):
        return np.core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state


def episode(**changes):
    return {"observations": np.zeros([2, 3]), "actions": np.zeros([2, 1])} | changes


PLACES = {
    "the whole file": SENTINEL,
    "a key": [episode() | {SENTINEL: 0}],
    "nested": [episode(agent_infos=[{}, {"deep": [{"er": (SENTINEL,)}]}])],
    "in an array": [episode(actions=ForgedArray(SENTINEL))],
}


@pytest.fixture
def extension():
    """A registered extension that pickles have used before, so that pickle caches it."""
    copyreg.add_extension("os", "mkdir", EXTENSION_CODE)
    pickle.loads(b"\x80\x02\x83" + struct.pack("<H", EXTENSION_CODE) + b".")
    yield
    copyreg.remove_extension("os", "mkdir", EXTENSION_CODE)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_hostile_pickle_runs_nothing(tmp_path, payload, place, extension):
    mark = tmp_path / "mark.npy"
    content = pickle.dumps(PLACES[place], protocol=2)
    assert content.count(text(SENTINEL)) == 1
    content = content.replace(text(SENTINEL), PAYLOADS[payload](str(mark)))
    header = npy(np.array([None], object)).partition(b"\n")[0] + b"\n"
    for name, whole in (("x.pkl", content), ("x.npy", header + content)):
        (tmp_path / name).write_bytes(whole)
        for load in (load_demonstrations, load_recording):
            with pytest.raises(UserError, match="plain containers only; refused") as error:
                load(tmp_path / name)
            assert "\n" not in str(error.value)
            assert not mark.exists()
    with contextlib.suppress(Exception):
        pickle.loads(content)
    assert mark.exists(), "the payload must be a working one"


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (b"cbuiltins\ngetattr\n.", "refused 'builtins.getattr'"),
        (b"cos\nsystem.__call__\n.", "refused 'os.system.__call__'"),
        (b"cnumpy\nndarray.tofile\n.", "refused 'numpy.ndarray.tofile'"),
        (b"\x80\x02ccollections\nOrderedDict\n]\x85R.", "refused an OrderedDict written by"),
        (b"Pmark\n.", "whole and undamaged"),
        (b"\x80\x02X\x04\x00\x00\x00markQ.", "whole and undamaged"),
    ],
)
def test_names_and_persistent_ids_are_refused_even_if_unused(tmp_path, opcodes, message):
    (tmp_path / "x.pkl").write_bytes(opcodes)
    with pytest.raises(UserError, match=message):
        load_demonstrations(tmp_path / "x.pkl")


def test_an_object_array_in_npz_is_not_unpickled(tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "x.npz").write_bytes(npz(observations=np.array([Call(os.mkdir, str(mark))])))
    with pytest.raises(UserError, match="got an array of Python objects"):
        load_demonstrations(tmp_path / "x.npz")
    assert not mark.exists()


def test_an_object_array_with_forged_flags_is_no_array_of_pointers(tmp_path):
    """NumPy believes the flags of a pickled dtype, and takes raw bytes for pointers."""
    content = pickle.dumps([episode(actions=np.zeros([1, 1], object))], 2)
    state = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t"
    assert content.count(state) == 1
    (tmp_path / "x.pkl").write_bytes(content.replace(state, state.replace(b"K?", b"K\x00")))
    with pytest.raises(UserError, match="must be numbers; got an array of type 'O8'"):
        load_demonstrations(tmp_path / "x.pkl")


@pytest.mark.parametrize("name", ["numpy\nndarray", "numpy\ndtype", "collections\nOrderedDict"])
def test_a_pickle_cannot_change_what_it_names(tmp_path, name):
    """BUILD with a pair as state sets attributes of the object below it, here of a class."""
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x80\x02c" + name.encode() + b"\nN}U\x05shapeK\x01s\x86b.")
    with pytest.raises(UserError):
        load_demonstrations(path)
    path.write_bytes(pickle.dumps([episode()]))
    assert load_demonstrations(path).num_steps == 2


def repeated(record):
    return pickle.dumps([record] * 20_000, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (repeated(episode(observations=np.zeros((300, 50)), actions=np.zeros((300, 1)))), "arrays"),
        (repeated(episode(next_observations=np.zeros((300, 50)))), "arrays are repeated"),
        (repeated(episode(init_state_dict={"qpos": np.zeros(15_000)})), "arrays are repeated"),
        (pickle.dumps([episode(observations=[np.zeros(3000)] * 30_000)], 2), "268,435,456 bytes"),
        (pickle.dumps([episode(observations=[[np.zeros(9000)] * 900] * 900)], 2), "268,435,456"),
        (b"\x80\x02cbuiltins\nbytes\n\x8a\x05\x00\x00\x00\x00\x08\x85R.", "a list of episodes"),
        (b"\x80\x02]r" + (2**31).to_bytes(4, "little") + b".", "whole and undamaged"),
        (b"\x80\x05\x96" + (2**32).to_bytes(8, "little") + b"abc.", "whole and undamaged"),
        (b"\x80\x05\x95" + (2**32).to_bytes(8, "little") + b"].", "whole and undamaged"),
    ],
    ids=[
        *("episode", "next_observations", "initial state", "array", "array in a row"),
        *("bytes", "memo", "bytearray", "frame"),
    ],
)
def test_a_small_pickle_cannot_fill_the_memory(tmp_path, content, message):
    (tmp_path / "x.pkl").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=message):
        load_demonstrations(tmp_path / "x.pkl")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # In kilobytes.
    assert grown < 700_000


def test_a_huge_pickle_is_not_read(tmp_path):
    with open(tmp_path / "x.pkl", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="a pickle must have at most 1,073,741,824 bytes"):
        load_demonstrations(tmp_path / "x.pkl")


def npz(**arrays):
    file = io.BytesIO()
    whole = {"observations": [[0.0]], "actions": [[0.0]], "episode_ends": [1]} | arrays
    np.savez_compressed(file, **{k: v for k, v in whole.items() if v is not None})
    return file.getvalue()


def npy(value):
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def zip_of(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def gigantic(shape):
    """An npy file that announces a shape and holds eight bytes."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 8


def zip_bomb():
    """A zip archive whose directory announces 2 TiB."""
    content = bytearray(npz())
    place = -1
    for _ in range(2):
        place = content.index(b"PK\x01\x02", place + 1)
        content[place + 24 : place + 28] = b"\xff\xff\xff\xff"
    return bytes(content)


def with_shape(content, shape, forged):
    assert content.count(shape) == 1
    return content.replace(shape, forged)


CYCLE = []
CYCLE.append(CYCLE)
WORDS = b"Episode rewards: 1, 2, 3\nThis is no demonstration.\n"
ONE = [episode()]
ARRAY = np.empty(1, object)
ARRAY[0] = ONE[0]

BROKEN_FILES = [
    ("x.npz", WORDS, "whole npz archive of plain arrays; got a text file"),
    ("x.npy", WORDS, "whole npy file; got a text file"),
    ("x.pkl", WORDS, "whole and undamaged; got a text file"),
    ("x.npz", b"", "got an empty file"),
    ("x.npy", b"", "got an empty file"),
    ("x.pkl", b"", "got an empty file"),
    ("x.npz", npy(np.zeros(3)), r"got an npy file: rename it to end in \.npy"),
    ("x.npy", npz(), r"got a zip archive: if NumPy wrote it, rename it to end in \.npz"),
    ("x.npz", pickle.dumps(ONE), r"got a Python pickle: rename it to end in \.pickle"),
    ("x.pickle", gzip.compress(pickle.dumps(ONE)), "got a gzip archive: unpack it first"),
    ("x.npz", b"<!DOCTYPE html><html>404</html>", "got a web page: download the file itself"),
    ("x.pickle", b"version https://git-lfs.github.com/spec/v1\noid", "got a Git LFS pointer"),
    ("x.npy", b"\x89HDF\r\n\x1a\n" + bytes(100), "got an HDF5 file"),
    ("x.npz", bytes(range(256)) * 4, "got a file of unknown type"),
    ("x.npz", b"PK\x03\x04" + bytes(100), "got a damaged or truncated file"),
    ("x.npz", npz()[:-30], "got a damaged or truncated file"),
    ("x.npz", zip_of(observations=gigantic("(10**12, 45)")), "damaged or truncated"),
    ("x.npz", zip_of(observations=gigantic("(1000000000000, 45)")), "damaged or truncated"),
    ("x.npz", zip_bomb(), "must unpack to at most 4,294,967,296 bytes"),
    ("x.npy", npy(ARRAY)[:40], "got a damaged or truncated header"),
    ("x.npy", npy(ARRAY)[:-9], "undamaged; got a damaged or truncated one"),
    ("x.npy", npy(np.zeros([2, 3])), r"object array of episodes \(AWAC\); got float64 \[2, 3\]"),
    ("x.npy", npy(np.array(episode(), object)), "the AWAC npy must hold a list of episodes"),
    ("x.pkl", pickle.dumps(ONE)[:-9], "undamaged; got a damaged or truncated one"),
    (
        "x.pkl",
        with_shape(pickle.dumps(ONE, 2), b"K\x02K\x03\x86", b"K\x09K\x03\x86"),
        "observations of episode 0 .* as much content as shape",
    ),
    *(
        ("x.npz", npz(**arrays), message)
        for arrays, message in (
            (
                {"actions": None},
                "must hold observations, actions, episode_ends; got episode_ends, ",
            ),
            ({"observations": [["a"]]}, "observations must be numbers; got <U1"),
            ({"actions": [[0.0], [0.0]]}, r"actions must be \[N, A\] to match .* got \[2, 1\]"),
            ({"observations": [[np.nan]]}, "observations must be finite in float32"),
            ({"episode_ends": [[1]]}, r"episode_ends must be \[E\] whole numbers"),
            ({"episode_ends": [2]}, "the number of steps 1; got 2"),
            ({"metadata": "{"}, "metadata must be JSON; got other text"),
            ({"metadata": "[1]"}, "metadata must be a JSON object; got list"),
        )
    ),
    *(
        ("x.pkl", pickle.dumps(value), message)
        for value, message in (
            (5, "must hold a list of episodes"),
            ({"a" * 999: 1, 3: 2}, "must hold a list of episodes"),
            (np.zeros([3, 4]), "must hold a list of episodes"),
            ([], "at least one episode; got 0"),
            ([*ONE, [1, 2]], "episode 1 must be a dict; got list"),
            ([{"\n" * 999: 1, (3,): 2}], "must hold observations, actions; got , tuple"),
            ([episode(observations=[], actions=[])], "observations of episode 0 must be"),
        )
    ),
    *(
        ("x.pkl", pickle.dumps([episode(actions=actions)]), f"actions of episode 0 {message}")
        for actions, message in (
            (None, "must be arrays or lists of numbers; got NoneType"),
            ([["1"], ["2"]], "must be arrays or lists of numbers; got str"),
            ([[[[1.0]]]], "must be arrays or lists of numbers; got list"),
            (CYCLE, "must be arrays or lists of numbers; got list"),
            ([[10**400], [0]], "must fit into float64"),
            ([[1.0], [1.0, 2.0]], r"must be rows of one width; got rows of \[1\] and \[2\]"),
            (np.array([["a"], ["b"]]), "must be numbers; got an array of type 'U1'"),
            (np.zeros(2, "f8,f8"), "must be numbers; got an array of type 'V16'"),
            (np.zeros([2, 1], complex), "must be numbers; .* type 'c16'"),
            (np.zeros([2, 1], object), "must be numbers; .* type 'O8'"),
            (np.zeros([2, 1, 1]), r"must be \[T, A\] .*; got \[2, 1, 1\]"),
            (np.zeros(2), r"must be \[T, A\] .*; got \[2\]"),
            (np.zeros([3, 1]), r"must be \[T, A\] .* \[2, 3\]; got \[3, 1\]"),
        )
    ),
    (
        "x.pkl",
        pickle.dumps([episode(observations=[{"state_observation": np.zeros(3)}, 1.0])]),
        "must each hold state_observation; got float",
    ),
    ("x.pkl", pickle.dumps([episode(observations=[{"image": 1}])]), "state_observation; got image"),
    (
        "x.pkl",
        pickle.dumps([*ONE, episode(observations=np.zeros([2, 4]))]),
        "observations of episode 1 must be 3 wide as in episode 0",
    ),
    (
        "x.pkl",
        pickle.dumps([*ONE, episode(actions=np.array([[0], [np.nan]]))]),
        r"actions must be finite .* at step 3 \(episode 1\), dimension 0",
    ),
    ("x.npy", npy(np.array([len, len], object)), "refused 'builtins.len'"),
    (
        "x.txt",
        WORDS,
        r"ending in \.npz, \.npy, \.pickle, \.pkl, \.hdf5, \.h5; got 'x\.txt': convert",
    ),
]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    BROKEN_FILES,
    ids=[f"{i}-{file[0]}" for i, file in enumerate(BROKEN_FILES)],
)
def test_a_broken_file_gives_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_demonstrations(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < len(str(path)) + 300
    # Words of libraries, for options that the reader of the line did not use.
    for word in ("allow_pickle", "Traceback", "UnpicklingError", "KeyError", "BadZipFile", "0x"):
        assert word not in line


def test_a_file_without_permission_gives_one_line(tmp_path, monkeypatch):
    """The mode of the file would not do: the superuser may read everything."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.npz").write_bytes(npz())
    monkeypatch.setattr(loading, "open", refuse, raising=False)
    with pytest.raises(UserError, match=r"x\.npz: cannot be read \(Permission denied\)"):
        load_demonstrations(tmp_path / "x.npz")


VALID = {
    "x.npz": npz(metadata=json.dumps({"task": "toy"})),
    "x.npy": npy(ARRAY),
    "x.pickle": pickle.dumps([episode(init_state_dict={"qpos": np.zeros(3)})], 2),
    "x.pkl": pickle.dumps(ONE, 5),
}


@pytest.mark.parametrize("name", VALID)
@examples(80)
@given(data=st.data())
def test_a_damaged_file_gives_an_error_or_finite_numbers(tmp_path_factory, name, data):
    content = bytearray(VALID[name])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    start = data.draw(st.integers(0, 40)) if data.draw(st.booleans()) else 0
    content = content[start : data.draw(st.integers(start, len(content)))]
    path = tmp_path_factory.getbasetemp() / f"damaged_{name}"
    path.write_bytes(content)
    try:
        demonstrations = load_demonstrations(path)
    except UserError:
        return
    assert np.isfinite(demonstrations.actions).all()
