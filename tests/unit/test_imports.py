"""Importing the package changes nothing outside it and is fast; launchers answer --help at once."""

import pathlib
import subprocess
import sys

import nppac_tf

ROOT = pathlib.Path(__file__).parents[2]
CHECK = """
import os, sys
environment = dict(os.environ)
import nppac_tf
assert os.environ == environment
heavy = ("tensorflow", "tf_agents", "gpflow", "gymnasium", "mujoco", "gym_notices", "ray")
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, loaded
import nppac_tf.runs.sweep.plan, nppac_tf.runs.metrics, nppac_tf.comparison.scores
assert "tensorflow" not in sys.modules
"""


def test_importing_the_package_is_light_and_changes_nothing():
    subprocess.run([sys.executable, "-c", CHECK], check=True, cwd=ROOT)


def test_every_public_name_can_be_imported():
    assert len(nppac_tf.__all__) > 30
    for name in nppac_tf.__all__:
        assert getattr(nppac_tf, name).__module__.startswith("nppac_tf")
