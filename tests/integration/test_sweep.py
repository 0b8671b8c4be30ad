"""Sweeps through Ray: with a killed worker the results equal those of single runs."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from launching import LAUNCH, Launchers

from nppac_tf import hardware
from nppac_tf.config import RunConfig
from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.runs.directory import RunDirectory
from nppac_tf.runs.sweep import cluster
from nppac_tf.training import checkpoints

# A point that must reach the origin. The first process that makes 220 steps creates the file
# "killed" and dies, as if out of memory. If the file exists, no process dies.
MODULE = """
import os
import pathlib
import signal

import gymnasium
import numpy as np


class Reach(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    steps_of_this_process = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1.0, 1.0, 2)
        return self.position.astype(np.float32), {}

    def step(self, action):
        Reach.steps_of_this_process += 1
        if Reach.steps_of_this_process == 220:
            try:
                pathlib.Path("killed").touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        self.position = self.position + 0.2 * np.asarray(action)
        success = bool(np.linalg.norm(self.position) < 0.5)
        return self.position.astype(np.float32), float(success), False, False, {"success": success}


gymnasium.register("Reach-v0", Reach, max_episode_steps=20)
"""
# There are 40 steps of evaluation before the first epoch, and 40 of training and 40 of evaluation
# in each of the five epochs: step 220 is in the third, after two checkpoints.
FLAGFILES = {
    "base.flags": """
--task=reach_module:Reach-v0
--demonstrations=reach.npz
--prior=uniform
--actor_layers=16
--critic_layers=16
--batch_size=16
--num_environments=2
--steps_per_epoch=40
--eval_interval=40
--eval_episodes=2
--checkpoint_interval=40
--critic_warmup_steps=0
--num_env_steps=200
""",
    "near.flags": "--temperature=1.0\n",
    "far.flags": "--temperature=0.01\n",
}
RUNS = ("near/seed1", "far/seed1")
SWEEP = ("--flagfile=base.flags", "--flagfiles=near.flags,far.flags", "--seeds=1")


def make_place(folder, killed):
    folder.mkdir()
    (folder / "reach_module.py").write_text(MODULE)
    for name, content in FLAGFILES.items():
        (folder / name).write_text(content)
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(4):
        position, observations, actions = rng.uniform(-1, 1, 2), [], []
        for _ in range(10):
            observations.append(position)
            actions.append(np.clip(-2 * position, -1, 1))
            position = position + 0.2 * actions[-1]
        episodes.append((observations, actions))
    save_demonstrations(Demonstrations.from_episodes(episodes), folder / "reach.npz")
    if killed:
        (folder / "killed").touch()
    return folder


@pytest.fixture
def place(tmp_path):
    return make_place(tmp_path / "sweep", killed=False)


def run_alone(place, run):
    """Trains a run by launch/train.py with the environment of a worker."""
    method, seed = run.split("/seed")
    subprocess.run(
        [
            *(sys.executable, str(LAUNCH / "train.py"), "--flagfile=base.flags"),
            *(f"--flagfile={method}.flags", f"--seed={seed}"),
            f"--output_dir=runs/{run}",
        ],
        cwd=place,
        env={**os.environ, **cluster.environment(1)},
        check=True,
        stdout=subprocess.DEVNULL,
    )


def start(place, *arguments):
    program = [sys.executable, str(LAUNCH / "sweep.py"), *SWEEP, "--output_dir=runs", *arguments]
    return subprocess.Popen(
        program,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background ignores interrupts, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process):
    """Exit code, lines of output, and what stands on standard error."""
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, output.splitlines(), errors


def newest_checkpoint(run):
    return max(int(path.name.rpartition("-")[2]) for path in run.glob("checkpoints/*"))


def test_a_sweep_with_a_killed_worker_ends_as_single_runs(place, tmp_path):
    code, lines, errors = finish(start(place))
    assert (code, errors) == (0, ""), lines
    assert (place / "killed").exists()
    (death,) = (line for line in lines if "died" in line)
    dead, message = death.split(maxsplit=1)
    assert message == "its worker died: retry 1"
    assert sum(line.endswith(" done") for line in lines) == len(RUNS)
    assert sum(" steps  A " in line for line in lines) == 6 * len(RUNS)  # None is shown twice.
    running = [index for index, line in enumerate(lines) if line.endswith(" running")]
    ended = [index for index, line in enumerate(lines) if re.search(r" (done$|its worker)", line)]
    both_at_once = running[1] < ended[0]
    assert both_at_once == (hardware.available_cores() > 1)
    table = [line.split()[:2] for line in lines if re.match(r" +(near|far) ", line)]
    assert table == [["near", "1"], ["far", "1"]]
    assert lines[-1] == "python launch/report.py runs --output_dir=runs/report"

    alone = make_place(tmp_path / "alone", killed=True)
    run_alone(alone, dead)
    run, single = place / "runs" / dead, alone / "runs" / dead
    assert (run / "metrics.csv").read_bytes() == (single / "metrics.csv").read_bytes()
    assert RunDirectory(run).provenance() == RunDirectory(single).provenance()
    # The retry saved its first checkpoint again; a restart would have saved three more.
    assert newest_checkpoint(run) == newest_checkpoint(single) + 1

    # The same command again has nothing to do, and needs neither Ray nor TensorFlow for that.
    times = [path.stat().st_mtime_ns for path in sorted(place.glob("runs/*/*/*"))]
    again = Launchers(place).run("sweep", *SWEEP, "--output_dir=runs", quick=True)
    assert (again.code, again.errors) == (0, "")
    assert "2 of them are complete" in again.output
    assert again.output.splitlines()[-8:] == lines[-8:]
    assert times == [path.stat().st_mtime_ns for path in sorted(place.glob("runs/*/*/*"))]


def test_an_interrupt_stops_each_run_with_a_checkpoint(place):
    (place / "killed").touch()
    process = start(place, "--num_env_steps=1000000")
    deadline = time.monotonic() + 200
    while not any(len(RunDirectory(place / "runs" / run).rows()) > 1 for run in RUNS):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does it on Ctrl-C.
    code, lines, errors = finish(process)
    assert (code, errors) == (130, "stopped by SIGINT; the same command resumes\n")
    assert "Stopping: each run saves a checkpoint (Ctrl-C ends at once)" in lines
    assert sum(line.endswith(" stopped") for line in lines) == len(RUNS)
    # A run that has only started has nothing to save, and is ended at once.
    for run in (run for run in RUNS if len(RunDirectory(place / "runs" / run).rows()) > 1):
        newest = checkpoints.latest(place / "runs" / run / "checkpoints")
        state = checkpoints.read_state(newest)["loop"]
        log = (place / "runs" / run / "log.txt").read_text()
        assert log.endswith("Stopped; the same command resumes\n")
        written = RunDirectory(place / "runs" / run).rows()
        assert [row["updates"] for row in state["rows"]] == [row["updates"] for row in written]


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory):
    """Launchers in a folder with a run of another configuration."""
    place = make_place(tmp_path_factory.mktemp("mistakes") / "place", killed=True)
    (place / "wrong.flags").write_text("\n--temprature=1\n")
    config = RunConfig(task="Pendulum-v1").to_dict()
    (place / "runs/far/seed1").mkdir(parents=True)
    (place / "runs/far/seed1/config.json").write_text(
        json.dumps({"config": config, "demonstrations": {"fingerprint": "0"}})
    )
    return Launchers(place)


@pytest.mark.parametrize(
    ("argument", "culprits"),
    [
        ("--flagfiles=", ["--flagfiles must name one or more flagfiles"]),
        ("--flagfiles=near.flags,", ["--flagfiles must be of FILE"]),
        ("--flagfiles=neer.flags", ["neer.flags", "near.flags?"]),
        ("--flagfiles=near.flags,wrong.flags", ["wrong.flags:2", "mean --temperature"]),
        ("--flagfiles=near.flags,far.flags+near.flags", ["--flagfiles has 'near' twice"]),
        ("--flagfiles=my/own=near.flags", ["method's name", "'my/own'"]),
        ("--sede=1", ["unknown flag --sede", "did you mean --seed?"]),
        ("--seeds=0,x", ["--seeds must be integers", "'0,x'"]),
        ("--seeds=1,01", ["--seeds must be different numbers; got 1,01"]),
        ("--seed=1", ["--seed has no effect in a sweep"]),
        ("--cpus_per_run=100000", ["--cpus_per_run must be at most", "got 100000"]),
        ("--temperature=-1", ["near: temperature must be positive", "-1"]),
        ("--task=Pendulm-v1", ["near: ", "Pendulum-v1"]),
        ("--demonstrations=raech.npz", ["near: ", "raech.npz"]),
        ("--output_dir=base.flags", ["--output_dir=base.flags", "is not a folder"]),
        ("--output_dir=runs", ["task must be 'Pendulum-v1' to resume runs/far/seed1"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_found_before_anything_starts(mistakes, argument, culprits):
    outcome = mistakes.run("sweep", *SWEEP, argument, quick=True)
    assert (outcome.code, outcome.output) == (1, "")
    (line,) = outcome.errors.splitlines()
    assert line.startswith("error: ")
    for culprit in culprits:
        assert culprit in line
    assert not list(mistakes.folder.glob("runs/near/*"))


def test_a_missing_cluster_is_an_error_in_one_line(place):
    code, _, errors = finish(start(place, "--address=auto"))
    assert code == 1
    (line,) = errors.splitlines()
    assert line.startswith("error: --address must be that of a running Ray cluster; got 'auto' (")
