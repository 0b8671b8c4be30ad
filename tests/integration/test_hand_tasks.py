"""Configurations of hand tasks without bundled demonstrations: a run of each on scripted ones."""

import contextlib
import csv
import os
import pathlib

import numpy as np
import pytest
from launching import Launchers

from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.environments import VectorEnvironment, make_task

ROOT = pathlib.Path(__file__).parents[2]
QUICK = (
    "--num_inducing_points=20",
    "--actor_layers=32",
    "--critic_layers=32",
    "--num_environments=2",
    "--pretraining_steps=20",
    "--critic_warmup_steps=100",
    "--steps_per_epoch=100",
    "--num_env_steps=200",
    "--eval_interval=200",
    "--eval_episodes=1",
    "--batch_size=32",
    "--prior_cache=none",
)


def scripted_demonstrations(task, num_episodes=3, num_steps=60):
    """Simulated episodes in which every joint swings slowly."""
    generator = np.random.default_rng(0)
    episodes = []
    with contextlib.closing(VectorEnvironment(task, 1, seed=0)) as environment:
        for _ in range(num_episodes):
            phase = generator.uniform(0, 2 * np.pi, task.action_size)
            observations, actions = [], []
            for step in range(num_steps):
                action = 0.3 * np.sin(2 * np.pi * step / num_steps + phase)
                observations.append(environment.observations[0])
                actions.append(action)
                environment.step(action[None].astype(np.float32))
            episodes.append((np.array(observations), np.array(actions)))
    return Demonstrations.from_episodes(episodes, name="scripted")


@pytest.mark.parametrize("name", ["relocate", pytest.param("hammer", marks=pytest.mark.slow)])
def test_a_hand_task_trains_on_scripted_demonstrations(tmp_path, name):
    task = make_task(f"{name}-binary")
    save_demonstrations(scripted_demonstrations(task), tmp_path / "mine.npz")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    outcome = Launchers(tmp_path).run(
        "train",
        f"--flagfile=configs/{name}_human.flags",
        "--demonstrations=mine.npz",
        *QUICK,
        "--output_dir=run",
    )
    assert outcome.code == 0, outcome.errors
    with open(tmp_path / "run" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["env_steps"]) for row in rows] == [0, 200]
    assert all(np.isfinite(float(rows[-1][column])) for column in ("train/kl", "train/q_value"))
    assert os.listdir(tmp_path / "run" / "policy")
