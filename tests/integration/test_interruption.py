"""A run that is killed or stopped at random moments ends as if it had not been interrupted."""

import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.environments import make_task
from nppac_tf.training import checkpoints

ROOT = pathlib.Path(__file__).parents[2]
# Three environments, epochs of 20 steps in each and episodes of 200: most checkpoints fall into the
# middle of an episode.
FLAGS = (
    "--task=Pendulum-v1",
    "--prior_cache=none",
    "--actor_layers=16",
    "--critic_layers=16",
    "--target_kl=1.0",
    "--batch_size=32",
    "--pretraining_steps=1000",
    "--num_environments=3",
    "--steps_per_epoch=60",
    "--critic_warmup_steps=120",
    "--eval_interval=120",
    "--eval_episodes=3",
    "--checkpoint_interval=120",
    "--num_env_steps=1200",
)


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    path = tmp_path_factory.mktemp("demonstrations") / "pendulum.npz"
    task, episodes = make_task("Pendulum-v1"), []
    environment = task.make()
    for seed in range(2):
        (observation, _), observations, actions = environment.reset(seed=seed), [], []
        for _ in range(40):
            action = np.clip(-2 * observation[1:2] - 0.5 * observation[2:], -2, 2)
            observations.append(observation)
            actions.append(action)
            observation, *_ = environment.step(action)
        episodes.append((observations, actions))
    environment.close()
    save_demonstrations(Demonstrations.from_episodes(episodes), path)
    return path


def start(folder, demonstrations):
    """Starts or resumes the run, as a job does that restarts after each preemption."""
    program = [sys.executable, "launch/train.py", *FLAGS, "--resume"]
    return subprocess.Popen(
        [*program, f"--demonstrations={demonstrations}", f"--output_dir={folder}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder, demonstrations):
    process = start(folder, demonstrations)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, ""), output + errors


def outcome(folder):
    """Reads the table, the replay and every variable of the last checkpoint."""
    path = checkpoints.latest(folder / "checkpoints")
    reader = tf.train.load_checkpoint(str(path / "variables"))
    variables = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    variables.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
    return (folder / "metrics.csv").read_text(), np.load(path / "replay.npy"), variables


def assert_same(one, other):
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1], other[1])
    assert one[2].keys() == other[2].keys()
    assert len(one[2]) > 50  # weights, and the optimizers' moments
    for name, value in one[2].items():
        if not name.startswith("save_counter"):
            np.testing.assert_array_equal(value, other[2][name], err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(demonstrations, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    started = time.monotonic()
    finish(folder, demonstrations)
    return outcome(folder), time.monotonic() - started


@pytest.mark.parametrize(
    ("number", "interruptions", "seed"),
    [
        pytest.param(signal.SIGKILL, 1, 0, id="killed"),
        pytest.param(signal.SIGTERM, 1, 1, id="stopped"),
        *(
            pytest.param(signal.SIGKILL, 5, seed, id=f"killed-{seed}", marks=pytest.mark.slow)
            for seed in range(2, 6)
        ),
        *(
            pytest.param(signal.SIGTERM, 1, seed, id=f"stopped-{seed}", marks=pytest.mark.slow)
            for seed in range(6, 16)
        ),
    ],
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    uninterrupted, demonstrations, tmp_path, number, interruptions, seed
):
    expected, seconds = uninterrupted
    moments = random.Random(seed)
    interrupted = runs = 0
    while interrupted < interruptions:
        folder, finished = tmp_path / f"run{runs}", False
        while interrupted < interruptions and not finished:
            finished = interrupt(start(folder, demonstrations), number, moments.uniform(1, seconds))
            interrupted += not finished
        finish(folder, demonstrations)
        assert_same(outcome(folder), expected)
        runs += 1


def interrupt(process, number, seconds):
    """Sends a signal after a while; returns whether the process had finished before."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode in (0, -number, 128 + number), errors
    if process.returncode == 128 + number:
        start = r"stopped by SIGTERM; resume with: \S+ launch/train.py --resume"
        assert re.match(start, errors)
        assert len(errors.splitlines()) == 1
    return process.returncode == 0
