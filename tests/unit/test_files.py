import io
import os
import stat
import zipfile

import numpy as np
import pytest

from nppac_tf import files
from nppac_tf.errors import UserError


def test_a_file_is_written_and_replaced_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    for text in ("one", "naïve π0\n"):
        files.write_text(path, text)
        assert path.read_bytes() == text.encode()
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_the_mode_is_that_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        files.write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        assert path.read_bytes() == b"old"
        raise error

    with pytest.raises(type(error)):
        files.replace_file(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.fstat(fd)), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("rename"), replace(*paths)))
    files.write_text(tmp_path / "file", "text")
    written, rename, folder = events
    assert stat.S_ISREG(written.st_mode)
    assert written.st_size == len("text")
    assert rename == "rename"
    assert stat.S_ISDIR(folder.st_mode)


def test_an_archive_of_arrays_is_read_without_unpickling():
    arrays = {"a": np.arange(3), "b": np.array(["text"])}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    np.testing.assert_equal(files.read_arrays(file), arrays)
    np.savez(file := io.BytesIO(), a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        files.read_arrays(file)


def test_an_archive_that_unpacks_to_too_much_is_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"")
        archive.getinfo("a.npy").file_size = 2**32 + 1
    with pytest.raises(UserError, match="at most 4,294,967,296 bytes; got 4,294,967,297"):
        files.read_arrays(file)


@pytest.mark.parametrize(
    ("text", "name"),
    [("pen-binary", "pen-binary"), ("my.module:Env-v0", "my.module_Env-v0"), ("../=x", "_=x")],
)
def test_folder_names_are_safe(text, name):
    assert files.folder_name(text) == name


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.npz", ["a.npz"]),
        ("a.npz,minari:D4RL/pen/human-v2", ["a.npz", "minari:D4RL/pen/human-v2"]),
        ("x,y.npz", ["x,y.npz"]),
        ("a.npz,x,y.npz,none", ["a.npz", "x,y.npz", "none"]),
        ("x,z.npz", ["x", "z.npz"]),
        ("", [""]),
        ("a.npz,", ["a.npz", ""]),
    ],
)
def test_names_are_split_at_commas_but_those_of_files_are_not(tmp_path, monkeypatch, text, names):
    monkeypatch.chdir(tmp_path)
    for name in ("a.npz", "x,y.npz"):
        (tmp_path / name).touch()
    assert files.split_names(text) == names


def test_names_of_files_become_whole_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x,y.npz").touch()
    absolute = files.absolute_names("x,y.npz,embedded:pen,x,y.npz:train")
    assert absolute == f"{tmp_path}/x,y.npz,embedded:pen,{tmp_path}/x,y.npz:train"
    monkeypatch.chdir("/")
    assert files.absolute_names(absolute) == absolute
