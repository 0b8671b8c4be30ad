"""A file may name an environment of any module; nothing imports it for that."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from nppac_tf.config import RunConfig
from nppac_tf.demonstrations import Demonstrations, save_demonstrations

ROOT = pathlib.Path(__file__).parents[2]
MODULE = "import pathlib\npathlib.Path('imported').write_text('')\n"


@pytest.fixture
def place(tmp_path):
    """A folder with a module, and demonstrations, an exported policy and a run that name it."""
    (tmp_path / "harmful.py").write_text(MODULE)
    states = np.random.default_rng(0).normal(size=(20, 3))
    data = Demonstrations(states, states[:, :1], [20], metadata={"task": "harmful:Task-v0"})
    save_demonstrations(data, tmp_path / "data.npz")
    policy = tmp_path / "policy"
    (policy / "assets.extra").mkdir(parents=True)
    (policy / "saved_model.pb").write_bytes(b"")
    metadata = {"version": 1, "task": "harmful:Task-v0", "reward": None, "updates": 0}
    metadata |= {"observation_size": 3, "action_size": 1}
    (policy / "assets.extra" / "metadata.json").write_text(json.dumps(metadata))
    (tmp_path / "run").mkdir()
    run = dataclasses.asdict(RunConfig(task="harmful:Task-v0"))
    (tmp_path / "run" / "config.json").write_text(json.dumps({"config": run}))
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect_demonstrations", "--demonstrations=data.npz"),
        ("evaluate", "--demonstrations=data.npz"),
        ("evaluate", "--saved_model=policy"),
        ("evaluate", "--run=run"),
        ("export", "--run=run", "--output=exported"),
        ("collect_demonstrations", "--saved_model=policy", "--output=mine.npz"),
        ("collect_demonstrations", "--run=run", "--output=mine.npz"),
    ],
    ids=" ".join,
)
def test_a_module_that_a_file_names_is_not_imported(place, arguments):
    launcher, *flags = arguments
    result = subprocess.run(
        [sys.executable, str(ROOT / "launch" / f"{launcher}.py"), *flags],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["."])},
        capture_output=True,
        text=True,
    )
    assert not (place / "imported").exists(), result.stdout
    assert "Traceback" not in result.stderr
    if launcher != "inspect_demonstrations":  # The doctor reports what it can without a task.
        assert result.returncode == 1
        assert "--task" in result.stderr
