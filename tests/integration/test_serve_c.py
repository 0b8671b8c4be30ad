"""The C clients of examples/serve_c compute the actions that Python does."""

import os
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from serving_agents import A, D, agent_with
from tensorflow.core.protobuf import saved_model_pb2

from nppac_tf import priors
from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.serving.portable import export_portable
from nppac_tf.serving.runtimes import load_model
from nppac_tf.serving.saved_model import export_policy

CLIENTS = pathlib.Path(__file__).parents[2] / "examples" / "serve_c"
OBSERVATIONS = np.random.default_rng(0).normal(size=(50, D)).astype(np.float32)
OBSERVATIONS[7, 1] = np.nan

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="needs gcc, to compile the C clients"
)


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(1)
    states = rng.normal(size=(60, D))
    data = Demonstrations(states, np.tanh(states[:, :A]), [30, 60])
    prior = priors.fit_prior(data, PriorConfig(num_neighbors=8))
    return agent_with(prior=prior), priors.Novelty.calibrate(prior, data)


def compile_client(name, folder, *options):
    program = folder / name
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", str(CLIENTS / f"{name}.c"), *options]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def run_client(program, model, *arguments):
    result = subprocess.run(
        [program, model, str(D), str(A), "1000", *arguments],
        input=OBSERVATIONS.tobytes(),
        capture_output=True,
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert b"50 observations: median " in result.stderr
    return np.frombuffer(result.stdout, np.float32).reshape(-1, A)


def test_the_saved_model_runs_in_c(tmp_path, scored):
    agent, novelty = scored
    export_policy(agent, tmp_path / "policy", novelty=novelty)
    library = pathlib.Path(tf.sysconfig.get_lib())
    program = compile_client(
        "saved_model_client",
        tmp_path,
        *("-I", str(library / "include")),
        *(str(library / f"libtensorflow_{part}.so.2") for part in ("cc", "framework")),
        f"-Wl,-rpath,{library}",
    )
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((tmp_path / "policy" / "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def["action_or_prior"]
    names = [signature.inputs[name].name for name in ("observation", "threshold")]
    names.append(signature.outputs["action"].name)
    actions = run_client(program, str(tmp_path / "policy"), *names)
    inputs = {"observation": OBSERVATIONS, "threshold": np.float32(0.99)}
    expected = load_model(tmp_path / "policy")("action_or_prior", inputs)["action"]
    np.testing.assert_allclose(actions, expected, atol=1e-5)


def test_the_onnx_model_runs_in_c(tmp_path, scored):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra onnx")
    pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
    headers = os.environ.get("ONNXRUNTIME_INCLUDE", "")
    if not (pathlib.Path(headers) / "onnxruntime_c_api.h").is_file():
        pytest.skip(
            "needs ONNX Runtime's C headers, which its wheel lacks: "
            "set ONNXRUNTIME_INCLUDE to their folder"
        )
    library = tmp_path / "libonnxruntime.so.1"  # The wheel has it under another name.
    shipped = pathlib.Path(runtime.__file__).parent / "capi"
    library.symlink_to(next(shipped.glob("libonnxruntime.so.*")))
    program = compile_client(
        "onnx_client", tmp_path, "-I", headers, str(library), f"-Wl,-rpath,{tmp_path}"
    )
    agent, novelty = scored
    export_portable(agent, tmp_path / "policy", "onnx", novelty=novelty)
    actions = run_client(program, str(tmp_path / "policy" / "policy.onnx"))
    inputs = {
        "observation": OBSERVATIONS,
        "noise": np.zeros((len(OBSERVATIONS), A), np.float32),
        "threshold": np.float32([0.99]),
    }
    expected = load_model(tmp_path / "policy")("policy", inputs)["action"]
    np.testing.assert_allclose(actions, expected, atol=1e-5)
