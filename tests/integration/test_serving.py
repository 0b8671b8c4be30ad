"""Policies outside this package: saved_model_cli, TF-Agents' PolicySaver, and launch/export.py."""

import json
import os
import pathlib
import re
import subprocess
import sys

import fakes
import numpy as np
import pytest
import tensorflow as tf
from launching import Launchers
from tf_agents.policies import greedy_policy, policy_saver
from tf_agents.trajectories import time_step as ts

from nppac_tf import priors
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, PriorConfig
from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.serving.metadata import load_metadata
from nppac_tf.serving.runtimes import load_policy
from nppac_tf.serving.saved_model import export_policy

BIN = pathlib.Path(sys.executable).parent
SERVED = "served/pendulum"
D, A = 3, 2
OBSERVATIONS = np.random.default_rng(0).normal(size=(4, D)).astype(np.float32)


def shell(command, folder):
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def agent_with(prior, **config):
    config = AgentConfig(actor_layers=(8,), critic_layers=(8,), **config)
    return NppacAgent.for_task(fakes.FakeTask.of(D), prior, config)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with an export in `policy`."""
    states = np.random.default_rng(1).normal(size=(20, D))
    data = Demonstrations(states, np.tanh(states[:, :A]), [10, 20])
    prior = priors.fit_prior(data, PriorConfig())
    folder = tmp_path_factory.mktemp("serving")
    novelty = priors.Novelty.calibrate(prior, data)
    export_policy(agent_with(prior), folder / "policy", novelty=novelty)
    return folder


def test_saved_model_cli_shows_every_signature(exported):
    shown = shell("saved_model_cli show --dir policy --all", exported)
    for name in load_metadata(exported / "policy")["signatures"]:
        assert f"signature_def['{name}']" in shown
    assert "inputs['threshold']" in shown
    assert "outputs['fell_back']" in shown


@pytest.mark.parametrize(
    ("signature", "name", "value"),
    [
        ("sample_action", "seed", [1, 2]),
        ("action_or_prior", "threshold", 0.5),
        ("action_or_prior", "threshold", [0.0, 1.0, 0.0, 1.0]),
    ],
)
def test_saved_model_cli_runs_signatures(exported, signature, name, value):
    np.savez(exported / "inputs.npz", observation=OBSERVATIONS)
    shell(
        f"saved_model_cli run --dir policy --tag_set serve --signature_def {signature} "
        "--inputs 'observation=inputs.npz[observation]' "
        f"--input_exprs '{name}={value}' --outdir out --overwrite",
        exported,
    )
    module = tf.saved_model.load(str(exported / "policy"))
    inputs = {"observation": tf.constant(OBSERVATIONS), name: tf.constant(value)}
    for output, tensor in module.signatures[signature](**inputs).items():
        served = np.load(exported / "out" / f"{output}.npy")
        np.testing.assert_allclose(served, tensor, rtol=1e-5, atol=1e-6)


LOADER = """
import sys
import numpy as np
import tensorflow as tf
import tf_agents
from tf_agents.trajectories import time_step as ts
path, module, observations, output = sys.argv[1:]
if module:
    __import__(module)
observations = np.load(observations)
policy = tf.saved_model.load(path)
np.save(output, policy.action(ts.restart(tf.constant(observations), len(observations))).action)
"""


@pytest.mark.parametrize(
    ("config", "greedy", "module"),
    [
        ({"actor": "anchored"}, True, ""),
        ({"actor": "anchored"}, False, ""),
        ({"actor": "network"}, True, ""),
        ({"actor": "network"}, False, "nppac_tf.agents.actors"),
        ({"actor": "network", "squash": False}, False, ""),
    ],
)
def test_policy_saver_saves_and_tf_agents_loads(tmp_path, config, greedy, module):
    agent = agent_with(fakes.LinearPrior(D, A), **config)
    policy = greedy_policy.GreedyPolicy(agent.policy) if greedy else agent.policy
    policy_saver.PolicySaver(policy).save(str(tmp_path / "saved"))
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    arguments = [tmp_path / "saved", module, tmp_path / "observations.npy", tmp_path / "out.npy"]
    subprocess.run(
        [sys.executable, "-c", LOADER, *map(str, arguments)], check=True, capture_output=True
    )
    actions = np.load(tmp_path / "out.npy")
    step = ts.restart(tf.constant(OBSERVATIONS), len(OBSERVATIONS))
    expected = greedy_policy.GreedyPolicy(agent.policy).action(step).action
    if greedy:
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)
    else:  # Samples; their distribution is tested with the agent.
        assert actions.shape == expected.shape
        assert (actions != expected.numpy()).any()


@pytest.fixture(scope="module")
def launchers(tmp_path_factory):
    """A folder with a short run on the pendulum, in `run`."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    angle, speed = rng.uniform(-3, 3, 60), rng.uniform(-8, 8, 60)
    states = np.stack([np.cos(angle), np.sin(angle), speed], axis=1)
    data = Demonstrations(states, np.tanh(-states[:, 1:2]), [20, 40, 60], name="expert")
    save_demonstrations(data, folder / "expert.npz")
    launchers = Launchers(folder)
    outcome = launchers.run(
        "train",
        *("--task=Pendulum-v1", "--demonstrations=expert.npz", "--prior_cache=none"),
        *("--actor_layers=8", "--critic_layers=8", "--num_environments=2", "--batch_size=8"),
        *("--num_env_steps=50", "--steps_per_epoch=50", "--eval_interval=50", "--eval_episodes=1"),
        *("--checkpoint_interval=50", "--critic_warmup_steps=0", "--output_dir=run"),
    )
    assert outcome.code == 0, outcome.errors
    return launchers


@pytest.fixture(scope="module")
def said(launchers):
    outcome = launchers.run("export", "--run=run", f"--output={SERVED}")
    assert outcome.code == 0, outcome.errors
    return outcome.output


def test_an_export_of_a_run_is_its_policy_and_is_measured(launchers, said):
    metadata = load_metadata(launchers.folder / SERVED)
    assert metadata["task"] == "Pendulum-v1"
    assert metadata["provenance"]["demonstrations"]["name"] == "expert"
    assert metadata["novelty"]["held_out_steps"] == 60
    served, ended = (
        tf.saved_model.load(str(launchers.folder / path)) for path in (SERVED, "run/policy")
    )
    expected = ended.action_with_prior(tf.constant(OBSERVATIONS))
    for name, tensor in served.action_with_prior(tf.constant(OBSERVATIONS)).items():
        np.testing.assert_array_equal(tensor, expected[name])
    size, seconds = re.search(r"([\d.]+) MB, loads in ([\d.]+) s", said).groups()
    assert 0.05 < float(size) < 5
    assert 0 < float(seconds) < 60
    for signature in ("mean_action", "sample_action", "action_with_prior", "action_or_prior"):
        assert re.search(rf"{signature}( +[\d.]+){{4}}", said)


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_an_export_in_another_format_acts_as_the_run(launchers, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX needs the extra onnx")
        pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
    limits = ("--clip_high=0.5", "--fallback_action=-1", "--max_action_change=0.5")
    arguments = ("--run=run", f"--output={format}", f"--format={format}", *limits)
    outcome = launchers.run("export", *arguments)
    assert outcome.code == 0, outcome.errors
    assert "Gemm" not in outcome.errors  # tf2onnx has a remark.
    assert "The model carries the prior: 60 points, 240 numbers" in outcome.output
    assert re.search(r"policy( +[\d.]+){4}", outcome.output)
    content = json.loads((launchers.folder / format / "policy.json").read_text())
    assert (content["format"], content["task"], content["updates"]) == (format, "Pendulum-v1", 50)
    assert (content["clip_high"], content["fallback_action"]) == ([0.5], [-1.0])
    assert content["provenance"]["demonstrations"]["name"] == "expert"
    states = np.random.default_rng(3).uniform(-1, 1, (40, D)).astype(np.float32)
    ours, theirs = (load_policy(launchers.folder / path)(states) for path in (format, "run/policy"))
    assert (theirs > 0.5).any()
    np.testing.assert_allclose(ours, np.minimum(theirs, 0.5), atol=2e-3)
    outcome = launchers.run("evaluate", f"--saved_model={format}", "--num_episodes=1")
    assert outcome.code == 0, outcome.errors
    assert re.search(r"return +-[\d.,]+", outcome.output)


def test_an_unknown_format_is_one_line(launchers):
    outcome = launchers.run("export", "--run=run", "--output=x", "--format=torch")
    assert outcome.code == 1
    assert outcome.errors == (
        "error: --format must be one of savedmodel, onnx, tflite; got 'torch'\n"
    )


def test_the_printed_commands_run_as_they_stand(launchers, said):
    folder = launchers.folder
    command = said[said.index("  python -c") : said.index("Over HTTP")]
    assert f"launch/serve.py --model={SERVED}" in said
    assert "Result for output key fell_back" in shell(command, folder)
    request = said[said.index('  python -c "import json') : said.index("  curl")]
    shell(request, folder)
    content = json.loads((folder / "request.json").read_text())
    line = re.search(r"policy = (.*)\n", said)[1]
    module = eval(line.replace(SERVED, str(folder / SERVED)))
    inputs = {name: tf.constant(value) for name, value in content["inputs"].items()}
    outputs = module.signatures[content["signature_name"]](**inputs)
    assert outputs["action"].shape == [1, 1]


def test_a_run_without_its_calibration_is_calibrated(launchers, said):
    folder = launchers.folder
    expected = load_metadata(folder / SERVED)["novelty"]
    (folder / "run" / "novelty.npz").rename(folder / "novelty.npz")
    launchers.run("export", "--run=run", "--output=again")
    assert load_metadata(folder / "again")["novelty"] == expected
    (folder / "expert.npz").rename(folder / "elsewhere.npz")
    outcome = launchers.run("export", "--run=run", "--output=again")
    assert "Exporting without the out-of-demonstration score: " in outcome.output
    assert load_metadata(folder / "again")["novelty"] is None
