import os
import stat

import pytest

from nppac_tf import files


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_is_written_and_replaced_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "folder" / "file.bin"
    files.replace_file(path, lambda file: file.write(b"one"))
    assert path.read_bytes() == b"one"
    files.replace_file(str(path), lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file.bin"]


def test_text_is_written_as_utf_8(tmp_path):
    files.write_text(tmp_path / "text", "naïve π0\n")
    assert (tmp_path / "text").read_bytes() == "naïve π0\n".encode()


def test_the_mode_is_that_of_any_new_file(tmp_path, umask):
    files.write_text(tmp_path / "file", "text")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        files.replace_file(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
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


def test_the_old_file_can_be_read_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"new")
        assert path.read_bytes() == b"old"

    files.replace_file(path, write)
    assert path.read_bytes() == b"new"
