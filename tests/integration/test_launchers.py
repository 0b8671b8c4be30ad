"""The launchers as a user runs them, on a small task: train, resume, evaluate, collect, fit."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import imageio_ffmpeg
import numpy as np
import pytest
import tensorflow as tf

from nppac_tf.demonstrations import Demonstrations, load_demonstrations, save_demonstrations
from nppac_tf.export import load_metadata
from nppac_tf.priors import ExactGPPrior, load_prior
from nppac_tf.runs.directory import RunDirectory

ROOT = pathlib.Path(__file__).parents[2]
PRIOR = ("--num_inducing_points=20", "--max_fit_iterations=3")
SMALL = (
    "--task=Pendulum-v1",
    *PRIOR,
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


def command(name, *arguments):
    return [sys.executable, str(ROOT / "launch" / f"{name}.py"), *map(str, arguments)]


def launch(name, *arguments, code=0):
    """Runs a launcher; returns its output and errors, after checking for traces of neither."""
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    result = subprocess.run(
        command(name, *arguments), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stdout
    return result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("launchers")


@pytest.fixture(scope="module")
def expert(folder):
    """A file of four episodes of a controller; some of its actions leave the bounds."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(4):
        angle, speed = rng.uniform(-3, 3, 30), rng.uniform(-8, 8, 30)
        states = np.stack([np.cos(angle), np.sin(angle), speed], axis=1)
        actions = -2 * states[:, 1:2] - 0.3 * states[:, 2:] + 0.05 * rng.normal(size=(30, 1))
        episodes.append((states, np.clip(actions, -2.5, 2.5)))
    path = folder / "expert.npz"
    save_demonstrations(Demonstrations.from_episodes(episodes, name="expert"), path)
    return path


@pytest.fixture(scope="module")
def run(folder, expert):
    """A run of two epochs, and what it said."""
    path = folder / "run"
    output, errors = launch(
        "train",
        *SMALL,
        f"--demonstrations={expert}",
        "--num_env_steps=200",
        f"--output_dir={path}",
    )
    assert errors == ""
    return path, output


def test_training_says_how_it_goes_and_where_the_results_are(run):
    path, output = run
    lines = output.splitlines()
    assert "expert: 4 episodes, 120 steps" in lines
    assert any(line.startswith("clipped") for line in lines)
    assert sum(" steps  return " in line for line in lines) == 3
    assert len(lines) < 30
    for name in ("metrics.csv", "figures/learning_curve.png", "policy"):
        assert str(path / name) in lines
        assert (path / name).exists()
    assert list((path / "tensorboard").iterdir())


def test_training_learned_and_wrote_it_down(run):
    path, _ = run
    rows = RunDirectory(path).rows()
    assert [(row["env_steps"], row["updates"]) for row in rows] == [(0, 0), (100, 100), (200, 200)]
    assert rows[0]["eval/return"] != rows[-1]["eval/return"]
    assert rows[-1]["train/prior_scale"] >= 0.1 - 1e-6
    content = json.loads((path / "config.json").read_text())
    assert content["prior"]["class"] == "ExactGPPrior"
    assert content["prior"]["noise_deviation"] > 0


def test_a_refused_run_is_left_alone(run):
    path, _ = run
    before = (path / "metrics.csv").read_text()
    _, errors = launch("train", "--resume", "--batch_size=8", f"--output_dir={path}", code=1)
    assert errors == f"error: batch_size must be 16 to resume {path}; got 8\n"
    assert (path / "metrics.csv").read_text() == before


def test_a_run_is_evaluated(run):
    path, _ = run
    output, _ = launch("evaluate", f"--run={path}", "--num_episodes=3")
    assert output.startswith("run on Pendulum-v1, 3 episodes, seed 0\n")
    (line,) = (line for line in output.splitlines() if line.strip().startswith("return"))
    mean, low, high = (float(word.strip("[],").replace(",", "")) for word in line.split()[1:])
    assert low <= mean <= high < 0
    assert "any-time success" not in output
    assert "foretold" not in output


@pytest.mark.parametrize(("name", "frames"), [("a.mp4", 402), ("a.gif", 201)])
def test_a_video_shows_the_first_episodes(run, folder, name, frames):
    path, _ = run
    video = folder / "videos" / name
    arguments = (f"--run={path}", "--num_episodes=3", f"--video={video}", "--video_episodes=2")
    output, errors = launch("evaluate", *arguments)
    assert errors == ""
    assert output.splitlines()[-1] == str(video)
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert count == frames
    assert seconds == pytest.approx(402 / 30, rel=0.15)  # Pendulum's 30 frames per second.
    reader = imageio_ffmpeg.read_frames(str(video), pix_fmt="rgb24")
    next(reader)
    assert len(set(reader)) > 20  # It moves.


def test_a_missing_graphics_library_is_one_line(folder, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    video = folder / "b.mp4"
    _, errors = launch("evaluate", "--demonstrations=embedded:pen", f"--video={video}", code=1)
    (line,) = errors.splitlines()
    assert line.startswith("error: MuJoCo cannot draw with MUJOCO_GL=nonsense (")
    assert "libegl1" in line
    assert not video.exists()


def test_demonstrations_are_collected_from_an_exported_policy(run, folder):
    path, _ = run
    output = folder / "collected.npz"
    arguments = (f"--saved_model={path / 'policy'}", f"--output={output}", "--num_episodes=2")
    launch("collect_demonstrations", *arguments, "--noonly_successful")
    recorded = load_demonstrations(output)
    assert (recorded.num_episodes, recorded.num_steps) == (2, 400)
    policy = tf.saved_model.load(str(path / "policy"))
    np.testing.assert_allclose(
        policy.mean_action(recorded.observations), recorded.actions, rtol=1e-4, atol=1e-5
    )
    assert recorded.metadata["task"] == "Pendulum-v1"
    assert recorded.metadata["policy"]["updates"] == 200
    assert [episode["seed"] for episode in recorded.metadata["episodes"]] == [1000, 1000]
    assert str(folder) not in json.dumps(recorded.metadata)


def test_demonstrations_are_collected_into_a_minari_data_set(run, folder, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    path, _ = run
    arguments = (f"--saved_model={path / 'policy'}", "--output=minari:toy/mine-v0")
    launch("collect_demonstrations", *arguments, "--num_episodes=2", "--noonly_successful")
    recorded = load_demonstrations("minari:toy/mine-v0")
    assert (recorded.num_episodes, recorded.num_steps) == (2, 400)
    _, errors = launch("collect_demonstrations", *arguments, "--noonly_successful", code=1)
    assert "must not exist yet" in errors


def test_a_prior_is_fitted_judged_saved_and_evaluated(folder, expert):
    path = folder / "prior.npz"
    output, _ = launch(
        "fit_prior",
        "--task=Pendulum-v1",
        f"--demonstrations={expert}",
        *PRIOR,
        "--scale_floor=0.5",
        "--num_episodes=2",
        f"--output={path}",
    )
    for line in ("held-out log likelihood", "coverage of the 99% interval", "\n  return  "):
        assert line in output
    assert "3 episodes fitted, 1 held out" in output
    assert isinstance(load_prior(path), ExactGPPrior)
    output, _ = launch("evaluate", f"--prior_file={path}", "--task=Pendulum-v1", "--num_episodes=2")
    assert output.startswith("prior mean on Pendulum-v1, 2 episodes")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_a_run_in_one_line(folder, expert, name, code):
    path = folder / f"stopped_by_{name}"
    arguments = (*SMALL, f"--demonstrations={expert}", f"--output_dir={path}")
    process = subprocess.Popen(
        command("train", *arguments, "--num_env_steps=1000000"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores interrupts, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while len(RunDirectory(path).rows()) < 2:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.Signals[name])
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert errors == (
        f"error: stopped by {name}; go on with: python {command('train')[1]} --resume "
        f"--output_dir={path}\n"
    )


def test_a_run_is_made_longer(run, folder):
    path, _ = run
    longer = folder / "longer"
    shutil.copytree(path, longer)
    output, errors = launch("train", "--resume", f"--output_dir={longer}", "--num_env_steps=300")
    assert errors == ""
    assert "Pre-training" not in output
    assert "Going on from step 200 of 300" in output
    rows = RunDirectory(longer).rows()
    np.testing.assert_equal(rows[:-1], RunDirectory(path).rows())
    assert (rows[-1]["env_steps"], rows[-1]["updates"]) == (300, 300)
    assert RunDirectory(longer).config().training.num_env_steps == 300
    assert load_metadata(longer / "policy")["updates"] == 300
