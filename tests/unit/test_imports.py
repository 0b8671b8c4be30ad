"""Importing the package is fast and changes nothing but a variable, for Keras 2."""

import importlib.metadata
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

import nppac_tf

ROOT = pathlib.Path(__file__).parents[2]
CHECK = """
import importlib.util, os, sys
environment = dict(os.environ)
import nppac_tf
if importlib.util.find_spec("tf_keras"):
    environment.setdefault("TF_USE_LEGACY_KERAS", "1")
assert os.environ == environment
heavy = ("tensorflow", "tf_agents", "gpflow", "gymnasium", "mujoco", "gym_notices", "ray")
loaded = [name for name in heavy if name in sys.modules]
assert not loaded, loaded
import nppac_tf.runs.sweep.plan, nppac_tf.runs.metrics, nppac_tf.comparison.scores
assert "tensorflow" not in sys.modules
"""


def test_importing_the_package_is_light_and_selects_keras_2():
    subprocess.run([sys.executable, "-c", CHECK], check=True, cwd=ROOT)


def test_what_fits_and_draws_is_imported_when_it_is_needed():
    program = (
        "import sys; import nppac_tf.priors, nppac_tf.runs.run; "
        "assert not {'gpflow', 'matplotlib.figure'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_every_public_name_can_be_imported():
    assert len(nppac_tf.__all__) > 30
    for name in nppac_tf.__all__:
        assert getattr(nppac_tf, name).__module__.startswith("nppac_tf")


@pytest.mark.parametrize("order", ["nppac_tf, tensorflow", "tensorflow, nppac_tf"])
def test_keras_is_version_2_whatever_is_imported_first(order):
    program = (
        f"import {order}; from nppac_tf.agents import layers; "
        "assert not str(getattr(tensorflow.keras, '__version__', 2)).startswith('3')"
    )
    environment = {name: os.environ[name] for name in os.environ if name != "TF_USE_LEGACY_KERAS"}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=environment)


@pytest.mark.skipif(
    importlib.metadata.version("keras") < "3", reason="this TensorFlow has Keras 2 alone"
)
def test_keras_3_is_refused_in_one_line():
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "0"}
    result = subprocess.run(
        [sys.executable, "-c", "import nppac_tf.agents"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert result.stderr.splitlines()[-1].startswith(
        "nppac_tf.errors.UserError: Keras must be version 2, of the package tf-keras; got 3."
    )
