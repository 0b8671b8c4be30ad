"""Making tasks has no side effects: MuJoCo's warnings, output, files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nppac_tf import environments
from nppac_tf.environments import make_task
from nppac_tf.environments.known import KNOWN_TASKS


def test_making_a_task_keeps_mujocos_warning_handler():
    import mujoco

    def handler(message):
        pass

    mujoco.set_mju_user_warning(handler)
    try:
        make_task("halfcheetah")
        assert mujoco.get_mju_user_warning() is handler
    finally:
        mujoco.set_mju_user_warning(None)


IMPORT = """
import sys, nppac_tf.environments
assert not {"mujoco", "gymnasium_robotics", "tensorflow"} & set(sys.modules)
"""
MAKE = f"""
from nppac_tf.environments import make_task
for name in {list(KNOWN_TASKS)}:
    environment = make_task(name).make()
    environment.reset(seed=0)
    environment.step(environment.action_space.sample())
    environment.close()
"""
UNSTABLE = """
import numpy as np
from nppac_tf.environments import make_task
environment = make_task("halfcheetah").make()
environment.reset(seed=0)
environment.step(np.full(6, np.nan))
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [(IMPORT, ""), (MAKE, ""), (UNSTABLE, "simulation is unstable")],
    ids=["import", "make", "unstable"],
)
def test_environments_are_quiet_and_leave_no_file(tmp_path, program, said):
    root = Path(environments.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert said in result.stdout
    assert bool(result.stdout) == bool(said)
    assert not list(tmp_path.iterdir())
