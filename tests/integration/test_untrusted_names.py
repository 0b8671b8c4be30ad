"""A file may name an environment of any module; no launcher imports it for that reason."""

import json

import numpy as np
import pytest
from launching import Launchers

from nppac_tf.config import RunConfig
from nppac_tf.demonstrations import Demonstrations, save_demonstrations

MODULE = "import pathlib\npathlib.Path('imported').write_text('')\n"


@pytest.fixture(scope="module")
def launchers(tmp_path_factory):
    """A folder with a module, and demonstrations, an exported policy and a run that name it."""
    folder = tmp_path_factory.mktemp("untrusted")
    (folder / "harmful.py").write_text(MODULE)
    states = np.random.default_rng(0).normal(size=(20, 3))
    data = Demonstrations(states, states[:, :1], [20], metadata={"task": "harmful:Task-v0"})
    save_demonstrations(data, folder / "data.npz")
    assets = folder / "policy" / "assets.extra"
    assets.mkdir(parents=True)
    (folder / "policy" / "saved_model.pb").write_bytes(b"")
    metadata = {"version": 1, "task": "harmful:Task-v0", "reward": None, "updates": 0}
    metadata |= {"observation_size": 3, "action_size": 1}
    (assets / "metadata.json").write_text(json.dumps(metadata))
    (folder / "run").mkdir()
    content = {"config": RunConfig(task="harmful:Task-v0").to_dict()}
    (folder / "run" / "config.json").write_text(json.dumps(content))
    return Launchers(folder)


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect_demonstrations", "--demonstrations=data.npz"),
        ("evaluate", "--demonstrations=data.npz"),
        ("evaluate", "--saved_model=policy"),
        ("evaluate", "--run=run"),
        ("evaluate", "--run=run", "--task=Pendulum-v1"),
        ("export", "--run=run", "--output=exported"),
        ("collect_demonstrations", "--saved_model=policy", "--output=mine.npz"),
    ],
    ids=" ".join,
)
def test_a_module_that_a_file_names_is_not_imported(launchers, arguments):
    outcome = launchers.run(*arguments)
    assert not (launchers.folder / "imported").exists(), outcome
    assert "Traceback" not in outcome.errors
    if arguments[0] != "inspect_demonstrations":  # It reports what it can without a task.
        assert outcome.code == 1
        assert "--task" in outcome.errors
