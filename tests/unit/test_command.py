"""The command `nppac`, and what a wheel holds."""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import zipfile

import pytest
from common import parsing, program

from nppac_tf import command

ROOT = pathlib.Path(__file__).parents[2]
LAUNCHERS = sorted(path.stem for path in (ROOT / "launch").glob("*.py"))


def nppac(*arguments, folder):
    code = "from nppac_tf import command; command.main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_every_launcher_with_its_purpose(tmp_path):
    for arguments in ((), ("--help",)):
        result = nppac(*arguments, folder=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        usage, _, *lines = result.stdout.splitlines()
        assert "nppac COMMAND" in usage
        names = [line.split()[0] for line in lines]
        assert names == sorted(map(command.name_of, LAUNCHERS))
        assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize("name", ["train", "doctor", "fit-prior", "fit_prior"])
def test_it_is_the_launcher_and_calls_itself_so(tmp_path, name):
    result = nppac(name, "--help", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"nppac {name.replace('-', '_')} " in result.stdout
    assert "launch/" not in result.stdout
    assert "--[no]debug" in result.stdout


def test_errors_are_one_line(tmp_path):
    result = nppac("trian", folder=tmp_path)
    assert (result.returncode, result.stderr) == (
        1,
        "error: unknown command 'trian'; nppac --help lists all\n",
    )
    result = nppac("train", "--flagfile=configs/none.flags", folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "error: --flagfile=configs/none.flags does not exist\n"


def test_flagfiles_are_found_from_everywhere(tmp_path):
    result = nppac("train", "--flagfile=configs/pen.flags", "--seed=x", folder=tmp_path)
    assert result.stderr == "error: --seed must be an integer; got 'x'\n"


def test_a_printed_command_is_of_the_command(monkeypatch):
    monkeypatch.setattr(command, "running", True)
    monkeypatch.setattr(sys, "argv", ["/somewhere/launch/train.py"])
    assert program.command("--run=a b", launcher="evaluate") == "nppac evaluate '--run=a b'"
    assert shlex.split(program.command("--resume")) == ["nppac", "train", "--resume"]
    text = "fit one with launch/fit_prior.py, or python launch/train.py"
    assert parsing.as_typed(text) == "fit one with nppac fit_prior, or nppac train"
    monkeypatch.setattr(command, "running", False)
    assert parsing.as_typed(text) == text


def test_a_wheel_has_launchers_flagfiles_and_data(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("nppac_tf", "launch", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if name.startswith("nppac_tf/")}
    expected = {
        *(str(path.relative_to(ROOT)) for path in (ROOT / "nppac_tf").rglob("*")),
        *(f"nppac_tf/{path.relative_to(ROOT)}" for path in (ROOT / "launch").rglob("*.py")),
        *(f"nppac_tf/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.flags")),
    }
    assert names == {n for n in expected if not (ROOT / n).is_dir() and "__pycache__" not in n}
