"""The launchers as a user runs them, on a small task: train, resume, evaluate, collect, fit."""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import imageio_ffmpeg
import numpy as np
import pytest
import tensorflow as tf
from launching import LAUNCH, Launchers, controller_episodes

from nppac_tf.demonstrations import Demonstrations, load_demonstrations, save_demonstrations
from nppac_tf.environments import make_task
from nppac_tf.priors import load_prior
from nppac_tf.runs.directory import RunDirectory
from nppac_tf.serving.metadata import load_metadata

SMALL = (
    "--task=Pendulum-v1",
    "--demonstrations=expert.npz",
    "--scale_floor=0.1",
    "--actor_layers=16",
    "--critic_layers=16",
    "--num_environments=2",
    "--steps_per_epoch=100",
    "--eval_interval=100",
    "--eval_episodes=2",
    "--checkpoint_interval=100",
    "--pretraining_steps=50",
    "--critic_warmup_steps=0",
    "--batch_size=16",
    "--prior_cache=none",
)
THREADS = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


@pytest.fixture(scope="module")
def launchers(tmp_path_factory):
    """Launchers in a folder with four episodes of a controller; some actions leave the bounds."""
    folder = tmp_path_factory.mktemp("launchers")
    episodes = controller_episodes(largest=2.5)
    save_demonstrations(Demonstrations.from_episodes(episodes, "expert"), folder / "expert.npz")
    return Launchers(folder)


def start(folder, *arguments):
    """Starts train.py in a process of its own, as a user does."""
    return subprocess.Popen(
        [sys.executable, str(LAUNCH / "train.py"), *SMALL, *arguments],
        cwd=folder,
        env={**os.environ, **THREADS},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores interrupts, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="module")
def run(launchers):
    """The folder of a run of two epochs, and its output."""
    process = start(launchers.folder, "--num_env_steps=200", "--output_dir=run")
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    return launchers.folder / "run", output


def succeed(launchers, name, *arguments, **options):
    outcome = launchers.run(name, *arguments, **options)
    assert (outcome.code, outcome.errors) == (0, "")
    assert "\x1b" not in outcome.output
    return outcome.output


def test_training_reports_its_progress_and_results(run):
    path, output = run
    lines = output.splitlines()
    assert "expert: 4 episodes, 120 steps" in lines
    assert any(line.startswith("clipped") for line in lines)
    assert sum(" steps  return " in line for line in lines) == 3
    assert len(lines) < 35
    for name in ("metrics.csv", "figures/learning_curve.png", "policy"):
        assert f"run/{name}" in lines
        assert (path / name).exists()
    assert list((path / "tensorboard").iterdir())
    rows = RunDirectory(path).rows()
    assert [(row["env_steps"], row["updates"]) for row in rows] == [(0, 0), (100, 100), (200, 200)]
    assert rows[0]["eval/return"] != rows[-1]["eval/return"]
    assert rows[-1]["train/prior_scale"] >= 0.1 - 1e-6
    content = json.loads((path / "config.json").read_text())
    assert content["prior"]["class"].endswith("GPPrior")


def test_a_run_ends_with_commands_that_run(launchers, run):
    words = [shlex.split(line) for line in run[1].splitlines() if " --run=" in line]
    assert [pathlib.Path(path).stem for _, path, *_ in words] == ["evaluate", "evaluate", "export"]
    for _, path, *arguments in words:
        arguments = [each for each in arguments if not each.startswith("--num_episodes")]
        few = ["--num_episodes=2"] if "evaluate" in path else []
        succeed(launchers, pathlib.Path(path).stem, *arguments, *few)
    assert (run[0] / "policy.mp4").stat().st_size > 1000
    assert (run[0] / "exported").is_dir()


def test_a_cached_prior_is_said_to_be(launchers):
    arguments = (*SMALL[:-1], "--num_env_steps=0", "--prior_cache=cached")
    outputs = [succeed(launchers, "train", *arguments, f"--output_dir={name}") for name in "ab"]
    assert "Fitting the prior ..." in outputs[0]
    assert "Prior gp: read from cached" in outputs[1]


def test_a_run_with_other_settings_is_not_resumed(launchers, run):
    before = (run[0] / "metrics.csv").read_text()
    outcome = launchers.run("train", "--resume", "--batch_size=8", "--output_dir=run", quick=True)
    assert outcome.code == 1
    assert outcome.errors == "error: batch_size must be 16 to resume run; got 8\n"
    assert (run[0] / "metrics.csv").read_text() == before


def test_a_run_is_made_longer(launchers, run):
    longer = launchers.folder / "longer"
    shutil.copytree(run[0], longer)
    output = succeed(launchers, "train", "--resume", "--output_dir=longer", "--num_env_steps=300")
    assert "Pre-training" not in output
    rows = RunDirectory(longer).rows()
    np.testing.assert_equal(rows[:-1], RunDirectory(run[0]).rows())
    assert (rows[-1]["env_steps"], rows[-1]["updates"]) == (300, 300)
    assert RunDirectory(longer).config().training.num_env_steps == 300
    assert load_metadata(longer / "policy")["updates"] == 300


def test_an_interrupt_ends_a_run_in_one_line(launchers):
    process = start(launchers.folder, "--num_env_steps=1000000", "--output_dir=stopped")
    try:
        deadline = time.monotonic() + 200
        while len(RunDirectory(launchers.folder / "stopped").rows()) < 2:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    python, rest = errors.split("; resume with: ")[1].split(" ", 1)
    assert errors.startswith("stopped by SIGINT; ")
    assert python in ("python", sys.executable)
    assert rest == f"{LAUNCH / 'train.py'} --resume --output_dir=stopped\n"


@pytest.mark.parametrize(("name", "frames"), [("a.mp4", 402), ("a.gif", 201)])
def test_a_run_is_evaluated_and_filmed(launchers, run, name, frames):
    arguments = ("--run=run", "--num_episodes=3", f"--video=videos/{name}", "--video_episodes=2")
    lines = succeed(launchers, "evaluate", *arguments).splitlines()
    assert "run after 200 steps on Pendulum-v1, seed 1000" in lines
    (line,) = (line for line in lines if line.startswith("return"))
    mean, low, high = (float(word.strip("[],").replace(",", "")) for word in line.split()[1:])
    assert low <= mean <= high < 0
    assert not any("any-time success" in line for line in lines)
    assert lines[-1] == f"videos/{name}"
    video = str(launchers.folder / "videos" / name)
    count, seconds = imageio_ffmpeg.count_frames_and_secs(video)
    assert count == frames
    assert seconds == pytest.approx(402 / 30, rel=0.15)  # Pendulum has 30 frames per second.
    reader = imageio_ffmpeg.read_frames(video, pix_fmt="rgb24")
    next(reader)
    assert len(set(reader)) > 20  # It moves.


def test_a_missing_graphics_library_is_one_line(launchers):
    program = [sys.executable, str(LAUNCH / "evaluate.py"), "--demonstrations=embedded:pen"]
    result = subprocess.run(
        [*program, "--video=b.mp4"],
        cwd=launchers.folder,
        env={**os.environ, "MUJOCO_GL": "nonsense"},
        capture_output=True,
        text=True,
    )
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    assert line.startswith("error: MuJoCo cannot draw with MUJOCO_GL=nonsense (")
    assert not (launchers.folder / "b.mp4").exists()


def test_demonstrations_are_collected_from_an_exported_policy(launchers, run):
    arguments = ("--saved_model=run/policy", "--num_episodes=2", "--noonly_successful")
    succeed(launchers, "collect_demonstrations", *arguments, "--output=collected.npz")
    recorded = load_demonstrations(launchers.folder / "collected.npz")
    assert (recorded.num_episodes, recorded.num_steps) == (2, 400)
    assert recorded.successes is None
    assert recorded.rewards.max() < 0
    assert not recorded.terminated.any()
    policy = tf.saved_model.load(str(run[0] / "policy"))
    np.testing.assert_allclose(
        policy.mean_action(recorded.observations), recorded.actions, rtol=1e-4, atol=1e-4
    )
    assert recorded.metadata["task"] == "Pendulum-v1"
    assert recorded.metadata["policy"]["updates"] == 200
    assert [episode["seed"] for episode in recorded.metadata["episodes"]] == [2000, 2000]
    assert str(launchers.folder) not in json.dumps(recorded.metadata)


def test_demonstrations_are_collected_from_a_function(launchers):
    (launchers.folder / "scripted.py").write_text(
        "def reach(observations):\n"
        "    actions = 10 * (observations[:, 3:6] - observations[:, :3])\n"
        "    return [[*action, 0.0] for action in actions.clip(-1, 1)]\n"
    )
    arguments = ("--function=scripted:reach", "--task=FetchReach-v4", "--num_episodes=2")
    output = succeed(launchers, "collect_demonstrations", *arguments, "--output=reach.npz")
    assert "scripted:reach on fetch-reach: kept 2 of 2 episodes, 100 steps" in output
    recorded = load_demonstrations(launchers.folder / "reach.npz", make_task("fetch-reach"))
    np.testing.assert_array_equal(recorded.rewards, recorded.successes - 1)
    assert recorded.metadata["policy"] == {"function": "scripted:reach"}
    output = succeed(launchers, "evaluate", *arguments)
    assert re.search(r"A, any-time success +1.000 ", output)
    for name in ("scripted:absent", "absent:reach", "scripted"):
        outcome = launchers.run("evaluate", f"--function={name}", "--task=fetch-reach")
        assert outcome.code == 1
        assert outcome.errors.startswith("error: --function must be module:function, of a module ")
        assert len(outcome.errors.splitlines()) == 1


def test_demonstrations_are_collected_into_a_minari_data_set(launchers, run, monkeypatch):
    folder = {"MINARI_DATASETS_PATH": str(launchers.folder / "minari")}
    arguments = (
        *("collect_demonstrations", "--saved_model=run/policy", "--output=minari:toy/mine-v0"),
        *("--num_episodes=2", "--noonly_successful"),
    )
    succeed(launchers, *arguments, environment=folder)
    monkeypatch.setenv(*next(iter(folder.items())))
    recorded = load_demonstrations("minari:toy/mine-v0")
    assert (recorded.num_episodes, recorded.num_steps) == (2, 400)
    again = launchers.run(*arguments, environment=folder)
    assert again.code == 1
    assert "toy/mine-v0" in again.errors


def test_a_prior_is_fitted_scored_saved_and_evaluated(launchers):
    output = succeed(
        launchers,
        "fit_prior",
        *("--task=Pendulum-v1", "--demonstrations=expert.npz"),
        *("--num_episodes=2", "--output=prior.npz"),
    )
    for line in ("held-out log likelihood", "coverage of the 99% interval", "\nreturn "):
        assert line in output
    assert "3 episodes fitted, 1 held out" in output
    assert load_prior(launchers.folder / "prior.npz").action_size == 1
    arguments = ("--prior_file=prior.npz", "--task=Pendulum-v1", "--num_episodes=2")
    output = succeed(launchers, "evaluate", *arguments)
    assert "\nprior mean on Pendulum-v1, seed 1000\n\n2 episodes " in output


def test_settings_of_a_prior_are_searched_in_the_simulator(launchers, tmp_path):
    given = ("--task=Pendulum-v1", "--demonstrations=expert.npz", "--num_episodes=10")
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    outcome = launchers.run("fit_prior", *given, "--search", environment=cache)
    assert (outcome.code, outcome.errors) == (0, "")
    lines = outcome.output.splitlines()
    candidates = [line for line in lines if " episodes  " in line and "±" in line]
    assert len(candidates) in (12, 13)  # The settings as given may be among the three best.
    assert sum("as given" in line for line in candidates) == 2
    assert any(line.startswith("9 priors, ") for line in lines)
    (advice,) = (line for line in lines if "clearly better" in line or line.startswith("Pass "))
    assert len(list(tmp_path.rglob("gp-*.npz"))) == 9
    if advice.startswith("Pass "):  # The printed flags are those of a candidate.
        assert any(line.endswith(advice.split(": ")[1]) for line in candidates)


def test_a_prior_is_fitted_where_there_is_no_simulator(launchers):
    output = succeed(
        launchers,
        "fit_prior",
        *("--task=none", "--demonstrations=expert.npz", "--prior=gaussian_network"),
        *("--network_epochs=2", "--output=network.npz"),
    )
    assert "gaussian_network on expert, 3 episodes fitted, 1 held out" in output
    assert "\nreturn " not in output
    assert load_prior(launchers.folder / "network.npz").action_size == 1
