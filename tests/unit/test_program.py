"""What surrounds every launcher: streams, signals, and commands that are printed."""

import os
import shlex
import signal
import subprocess
import sys

import pytest
from common import program
from launching import LAUNCH


def test_a_printed_command_runs_as_it_is_pasted(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/my programs/train.py", "--seed=1"])
    words = shlex.split(program.command("--resume", "--output_dir=first try"))
    assert words[0] in ("python", sys.executable)
    assert words[1:] == ["/my programs/train.py", "--resume", "--output_dir=first try"]
    other = shlex.split(program.command("--run=first try", launcher="evaluate"))
    assert other[1:] == ["/my programs/evaluate.py", "--run=first try"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_are_recorded(name):
    with program.stop_on_signals() as stop:
        os.kill(os.getpid(), signal.Signals[name])
        assert stop.requested == name


def test_an_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with program.stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.requested is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(tmp_path, closed):
    code = (
        "import sys; from common import program; program._open_closed_streams(); "
        "file = open('written', 'w'); print('a'); print('b', file=sys.stderr); "
        "sys.stdout.flush(); file.write(str(file.fileno()))"
    )
    command = f"{shlex.join([sys.executable, '-c', code])} {closed}"
    paths = os.pathsep.join([str(LAUNCH), str(LAUNCH.parent)])
    environment = os.environ | {"PYTHONPATH": paths}
    subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True)
    assert int((tmp_path / "written").read_text()) > 2
