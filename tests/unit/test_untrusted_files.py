"""Files of demonstrations that are hostile or broken: nothing runs, and one line says why."""

import contextlib
import copyreg
import gzip
import io
import json
import pathlib
import pickle
import resource
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


PAYLOADS = {
    "REDUCE": lambda path: b"cos\nmkdir\n" + text(path) + b"\x85R",
    "STACK_GLOBAL": lambda path: text("os") + text("mkdir") + b"\x93" + text(path) + b"\x85R",
    "dotted GLOBAL": lambda path: b"cbuiltins\nopen\n" + text(path) + text("w") + b"\x86R",
    "INST": lambda path: b"(" + text(path) + b"ios\nmkdir\n",
    "OBJ": lambda path: b"(cos\nmkdir\n" + text(path) + b"o",
    "NEWOBJ": lambda path: f"c{__name__}\nNewCanary\n".encode() + text(path) + b"\x85\x81",
    "NEWOBJ_EX": lambda path: f"c{__name__}\nNewCanary\n".encode() + text(path) + b"\x85}\x92",
    "BUILD": lambda path: f"c{__name__}\nStateCanary\n)\x81".encode("latin1") + text(path) + b"b",
    "EXT": lambda path: b"\x83" + struct.pack("<H", EXTENSION_CODE) + text(path) + b"\x85R",
}


class ForgedArray:
    """Pickles like an array whose state holds anything."""

    def __init__(self, shape=(1,), dtype=None, content=b"\0" * 8):
        self.state = (1, shape, np.dtype("<f8") if dtype is None else dtype, False, content)

    def __reduce__(self):
        return np.core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), self.state


class ForgedType:
    """Pickles like a dtype whose state holds anything."""

    def __reduce__(self):
        return np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, SENTINEL)


def episode(**changes):
    return {"observations": np.zeros([2, 3]), "actions": np.zeros([2, 1])} | changes


PLACES = {
    "the whole file": SENTINEL,
    "an episode": [episode(), SENTINEL],
    "a key": [episode() | {SENTINEL: 0}],
    "observations": [episode(observations=SENTINEL)],
    "an observation": [episode(observations=[np.zeros(3), SENTINEL])],
    "state_observation": [episode(observations=[{"state_observation": SENTINEL}])],
    "actions": [episode(actions=SENTINEL)],
    "a number of an action": [episode(actions=[[0.0], [SENTINEL]])],
    "rewards": [episode(rewards=SENTINEL)],
    "next_observations": [episode(next_observations=[{"state_observation": SENTINEL}])],
    "terminals": [episode(terminals=[SENTINEL])],
    "init_state_dict": [episode(init_state_dict=SENTINEL)],
    "qpos": [episode(init_state_dict={"qpos": SENTINEL})],
    "env_infos": [episode(env_infos=[{"goal_achieved": SENTINEL}])],
    "agent_infos": [episode(agent_infos=[{}, {"deep": [{"er": (SENTINEL,)}]}])],
    "a field unheard of": [episode(extras=SENTINEL)],
    "shape of an array": [episode(actions=ForgedArray(shape=SENTINEL))],
    "type of an array": [episode(actions=ForgedArray(dtype=SENTINEL))],
    "content of an array": [episode(actions=ForgedArray(content=SENTINEL))],
    "state of a type": [episode(actions=ForgedArray(dtype=ForgedType()))],
}


def hostile_pickle(place, payload, path):
    """A pickle that runs the payload on the path when it is loaded the usual way."""
    content = pickle.dumps(PLACES[place], protocol=2)
    assert content.count(text(SENTINEL)) == 1
    return content.replace(text(SENTINEL), PAYLOADS[payload](str(path)))


@pytest.fixture
def extension():
    """A registered extension that pickles have used before, so that pickle knows it by heart."""
    copyreg.add_extension("os", "mkdir", EXTENSION_CODE)
    pickle.loads(b"\x80\x02\x83" + struct.pack("<H", EXTENSION_CODE) + b".")
    yield
    copyreg.remove_extension("os", "mkdir", EXTENSION_CODE)
    copyreg.clear_extension_cache()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_pickle_executes_nothing_wherever_it_holds_what(tmp_path, payload, place, extension):
    mark = tmp_path / "mark"
    content = hostile_pickle(place, payload, mark)
    npy = io.BytesIO()
    np.save(npy, np.array([None], object), allow_pickle=True)
    header = npy.getvalue()[: npy.getvalue().index(b"\n") + 1]
    for name, whole in (("x.pkl", content), ("x.pickle", content), ("x.npy", header + content)):
        (tmp_path / name).write_bytes(whole)
        for load in (load_demonstrations, load_recording):
            with pytest.raises(
                UserError, match="arrays and plain containers only; refused"
            ) as error:
                load(tmp_path / name)
            assert "\n" not in str(error.value)
            assert not mark.exists()
    with contextlib.suppress(Exception):
        pickle.loads(content)
    assert mark.exists(), "the payload must be a working one"


@pytest.mark.parametrize("opcodes", [b"Pmark\n.", b"\x80\x02X\x04\x00\x00\x00markQ."])
def test_a_persistent_id_is_refused(tmp_path, opcodes):
    (tmp_path / "x.pkl").write_bytes(opcodes)
    with pytest.raises(UserError, match="whole and undamaged"):
        load_demonstrations(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.",
        b"\x80\x04\x8f()" + b"\x85" * 300_000 + b"\x90.",
    ],
    ids=["key of a dict", "item of a set"],
)
def test_tuples_in_tuples_do_not_crash(tmp_path, opcodes):
    """Hashing them recurs in C without a limit; a crash would take this process along."""
    (tmp_path / "x.pkl").write_bytes(opcodes)
    program = (
        "import sys; from nppac_tf.demonstrations import load_demonstrations\n"
        "try: load_demonstrations(sys.argv[1])\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "x.pkl"],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "nested too deeply" in done.stdout


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x80\x02cbuiltins\nbytes\n\x8a\x05\x00\x00\x00\x00\x08\x85R.",
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x08\x85R.",
        b"\x80\x02c_codecs\nencode\n\x8a\x05\x00\x00\x00\x00\x08\x85R.",
        b"\x80\x02cbuiltins\nbytes\n}X\x01\x00\x00\x00aK\x01sb.",
    ],
)
def test_bytes_are_not_made_of_numbers(tmp_path, opcodes):
    """`bytes(n)` would allocate n bytes."""
    (tmp_path / "x.pkl").write_bytes(opcodes)
    with pytest.raises(UserError, match="damaged"):
        load_demonstrations(tmp_path / "x.pkl")


def test_a_list_that_stands_in_itself_many_times_is_refused(tmp_path):
    row = [0.0] * 20_000
    value = [{"observations": [row] * 20_000, "actions": [[0.0]]}]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, 2))
    with pytest.raises(UserError, match="must be at most 33,554,432 numbers"):
        load_demonstrations(tmp_path / "x.pkl")


def repeated_episode():
    record = {"observations": np.zeros((300, 50)), "actions": np.zeros((300, 10))}
    return pickle.dumps([record] * 20_000, 2)


def repeated_array():
    return pickle.dumps([{"observations": [np.zeros(3000)] * 30_000, "actions": [[0.0]]}], 2)


def copied_list():
    """A list of 100,000 numbers, and three bytes for each of a thousand copies of it."""
    numbers = b"]q\x00(" + b"K\x00" * 100_000 + b"e"
    copies = b"cbuiltins\nlist\nq\x01(" + b"h\x01h\x00\x85R" * 1000 + b"l"
    return b"\x80\x02" + numbers + copies + b"."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (repeated_episode(), "got episodes repeated over"),
        (repeated_array(), "must be at most 33,554,432 numbers"),
        (copied_list(), "got containers copied over"),
    ],
    ids=["episode", "array", "list"],
)
def test_a_small_pickle_cannot_fill_the_memory(tmp_path, content, message):
    (tmp_path / "x.pkl").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=message):
        load_demonstrations(tmp_path / "x.pkl")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # in kilobytes
    assert grown < 400_000


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
    place = content.index(b"PK\x01\x02")
    content[place + 24 : place + 28] = b"\xff\xff\xff\xff"
    place = content.index(b"PK\x01\x02", place + 4)
    content[place + 24 : place + 28] = b"\xff\xff\xff\xff"
    return bytes(content)


WORDS = b"Episode rewards: 1, 2, 3\nThis is no demonstration.\n"
ONE = [episode()]
ARRAY = np.empty(1, object)
ARRAY[0] = ONE[0]

BROKEN = [
    ("x.npz", WORDS, "whole npz archive of plain arrays; got a text file"),
    ("x.npy", WORDS, "whole npy file; got a text file"),
    ("x.pkl", WORDS, "whole and undamaged; got a text file"),
    ("x.pickle", b'{"observations": [[1, 2]]}', "whole and undamaged; got a text file"),
    ("x.npz", b"", "got an empty file"),
    ("x.npy", b"", "got an empty file"),
    ("x.pkl", b"", "got an empty file"),
    ("x.npz", npy(np.zeros(3)), r"got an npy file: give it a name that ends in \.npy"),
    ("x.npy", npz(), r"got a zip archive: if NumPy wrote it, give it a name that ends in \.npz"),
    ("x.pkl", npz(), r"got a zip archive"),
    ("x.pkl", npy(ARRAY), r"got an npy file: give it a name that ends in \.npy"),
    ("x.npz", pickle.dumps(ONE), r"got a Python pickle: give it a name that ends in \.pickle"),
    ("x.npy", pickle.dumps(ONE), r"got a Python pickle: give it a name that ends in \.pickle"),
    ("x.pickle", gzip.compress(pickle.dumps(ONE)), "got a gzip archive: unpack it first"),
    ("x.npz", b"<!DOCTYPE html><html>404</html>", "got a web page: download the file itself"),
    (
        "x.pickle",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3682022\n",
        "got a Git LFS pointer",
    ),
    ("x.npy", b"\x89HDF\r\n\x1a\n" + bytes(100), "got an HDF5 file"),
    ("x.npz", bytes(range(256)) * 4, "got something else"),
    ("x.npz", b"PK\x03\x04" + bytes(100), "got a damaged or cut-off file"),
    ("x.npz", npz()[:-30], "got a damaged or cut-off file"),
    ("x.npy", npy(ARRAY)[:40], "got a damaged or cut-off header"),
    ("x.npy", npy(ARRAY)[:-9], "undamaged; got a damaged or cut-off one"),
    ("x.pkl", pickle.dumps(ONE)[:-9], "undamaged; got a damaged or cut-off one"),
    ("x.npz", npz(actions=np.array([{}, 1], object)), "got an array of Python objects"),
    ("x.npz", npz(actions=None), "must hold observations, actions, episode_ends; got"),
    ("x.npz", npz(observations=[["a"]]), "observations must be numbers; got <U1"),
    ("x.npz", npz(actions=[[0.0], [0.0]]), r"actions must be \[N, A\] to match .* got \[2, 1\]"),
    ("x.npz", npz(observations=[[np.nan]]), "observations must be finite in float32"),
    ("x.npz", npz(episode_ends=[[1]]), r"episode_ends must be \[E\] whole numbers"),
    ("x.npz", npz(metadata="{"), "metadata must be JSON; got a text that is not"),
    (
        "x.npz",
        zip_of(observations=gigantic("(10**12, 45)"), actions=npy(np.zeros([1, 1]))),
        "damaged or cut-off",
    ),
    (
        "x.npz",
        zip_of(observations=gigantic("(1000000000000, 45)"), actions=npy(np.zeros([1, 1]))),
        "damaged or cut-off",
    ),
    ("x.npz", zip_bomb(), "must unpack to at most 4,294,967,296 bytes"),
    ("x.npy", gigantic("(2, 3)"), r"an object array of episodes \(AWAC\); got float64 \[2, 3\]"),
    (
        "x.pkl",
        pickle.dumps([episode(actions=[[0.0], [0.0, 1.0]])]),
        r"actions of episode 0 must be rows of one width; got rows of \[1\] and \[2\]",
    ),
    ("x.pkl", pickle.dumps({"a" * 999: 1, 3: 2}), "must hold a list of episodes"),
    ("x.pkl", pickle.dumps([{"\n" * 999: 1, (3,): 2}]), "observations, actions; got , tuple"),
    ("x.txt", WORDS, r"ending in \.npz, \.npy, \.pickle, \.pkl; got 'x\.txt': see"),
]


@pytest.mark.parametrize(
    ("name", "content", "message"), BROKEN, ids=[f"{i}-{b[0]}" for i, b in enumerate(BROKEN)]
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
    # The words of libraries: options of functions that the reader of the line did not call.
    for word in ("allow_pickle", "Traceback", "UnpicklingError", "KeyError", "BadZipFile", "0x"):
        assert word not in line


def test_a_file_without_permission_gives_one_line(tmp_path, monkeypatch):
    """Refused here, and not by its mode, since the superuser may read everything."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "x.npz"
    path.write_bytes(npz())
    monkeypatch.setattr(loading, "open", refuse, raising=False)
    with pytest.raises(UserError, match=r"x\.npz: cannot be read \(Permission denied\)"):
        load_demonstrations(path)


VALID = {
    "x.npz": npz(metadata=json.dumps({"task": "toy"})),
    "x.npy": npy(ARRAY),
    "x.pickle": pickle.dumps([episode(init_state_dict={"qpos": np.zeros(3)})], 2),
    "x.pkl": pickle.dumps(ONE, 5),
}


@pytest.mark.parametrize("name", VALID)
@settings(max_examples=60)
@given(data=st.data())
def test_a_file_cut_and_scribbled_on_gives_a_user_error_or_numbers(tmp_path_factory, name, data):
    content = bytearray(VALID[name])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    start = data.draw(st.integers(0, 40)) if data.draw(st.booleans()) else 0
    content = content[start : data.draw(st.integers(start, len(content)))]
    path = tmp_path_factory.getbasetemp() / f"scribbled_{name}"
    path.write_bytes(content)
    try:
        demonstrations = load_demonstrations(path)
    except UserError:
        return
    assert np.isfinite(demonstrations.actions).all()
