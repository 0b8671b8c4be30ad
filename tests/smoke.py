"""A tiny run from end to end: train and resume by the command `nppac`, export, load.

`make smoke` runs it; .ci/run does so on the Python that the tests did not run on.
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from launching import controller_episodes

import nppac_tf as nppac
from nppac_tf.runs.directory import RunDirectory

SMALL = (
    *("--flagfile=configs/pen.flags", "--task=Pendulum-v1", "--demonstrations=expert.npz"),
    *("--actor_layers=16", "--critic_layers=16", "--num_environments=2", "--steps_per_epoch=100"),
    *("--eval_interval=100", "--eval_episodes=1", "--checkpoint_interval=100", "--batch_size=16"),
    *("--critic_warmup_steps=100", "--prior_cache=none"),
)


def run(folder: str, *arguments: str) -> None:
    """Runs `nppac`, in a folder without this repository's files."""
    command = pathlib.Path(sys.executable).with_name("nppac")
    subprocess.run([command, *arguments], cwd=folder, check=True)


def main() -> None:
    """Raises the first error."""
    with tempfile.TemporaryDirectory() as folder:
        expert = nppac.Demonstrations.from_episodes(controller_episodes(largest=2.0), name="expert")
        nppac.save_demonstrations(expert, pathlib.Path(folder) / "expert.npz")
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
