"""A tiny run from end to end: train and resume by the command `nppac`, export, load.

`make smoke` runs it; .ci/run does so on the Python that the tests did not run on.
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import nppac_tf as nppac
from nppac_tf.runs.directory import RunDirectory

SMALL = (
    *("--flagfile=configs/pen.flags", "--task=Pendulum-v1", "--demonstrations=expert.npz"),
    *("--actor_layers=16", "--critic_layers=16", "--num_environments=2", "--steps_per_epoch=100"),
    *("--eval_interval=100", "--eval_episodes=1", "--checkpoint_interval=100", "--batch_size=16"),
    *("--critic_warmup_steps=100", "--prior_cache=none"),
)


def demonstrations() -> nppac.Demonstrations:
    """Four short episodes of a controller."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(4):
        angle, speed = rng.uniform(-3, 3, 30), rng.uniform(-8, 8, 30)
        states = np.stack([np.cos(angle), np.sin(angle), speed], axis=1)
        actions = -2 * states[:, 1:2] - 0.3 * states[:, 2:] + 0.05 * rng.normal(size=(30, 1))
        episodes.append((states, np.clip(actions, -2, 2)))
    return nppac.Demonstrations.from_episodes(episodes, name="expert")


def run(folder: str, *arguments: str) -> None:
    """Runs `nppac`, in a folder without this repository's files."""
    command = pathlib.Path(sys.executable).with_name("nppac")
    subprocess.run([command, *arguments], cwd=folder, check=True)


def main() -> None:
    """Raises the first error."""
    with tempfile.TemporaryDirectory() as folder:
        nppac.save_demonstrations(demonstrations(), pathlib.Path(folder) / "expert.npz")
        run(folder, "train", *SMALL, "--num_env_steps=200", "--output_dir=run")
        run(folder, "train", "--resume", "--output_dir=run", "--num_env_steps=300")
        agent, task = RunDirectory(pathlib.Path(folder) / "run").load_agent()
        nppac.export_policy(agent, pathlib.Path(folder) / "exported", task)
        act = nppac.load_policy(pathlib.Path(folder) / "exported")
        actions = act(np.zeros((2, 3), np.float32))
        assert np.shape(actions) == (2, 1)
        assert np.isfinite(actions).all()
    print("smoke: passed")


if __name__ == "__main__":
    main()
