"""What others do with a policy: saved_model_cli, TF-Agents' own saver, and launch/export.py."""

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
from tf_agents.policies import greedy_policy, policy_saver
from tf_agents.trajectories import time_step as ts

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, PriorConfig
from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.export import export_policy, load_metadata
from nppac_tf.priors import Novelty, SparseGPPrior

ROOT = pathlib.Path(__file__).parents[2]
BIN = pathlib.Path(sys.executable).parent
D, A = 3, 2
OBSERVATIONS = np.random.default_rng(0).normal(size=(4, D)).astype(np.float32)
SMALL = AgentConfig(actor_layers=(8,), critic_layers=(8,))


def shell(command, folder):
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with an export in `policy`."""
    states = np.random.default_rng(1).normal(size=(20, D))
    data = Demonstrations(states, np.tanh(states[:, :A]), [10, 20])
    config = PriorConfig(num_inducing_points=6, max_fit_iterations=2)
    prior = SparseGPPrior.fit(data, config)
    agent = NppacAgent.for_task(fakes.FakeTask.of(D), prior, SMALL)
    folder = tmp_path_factory.mktemp("serving")
    export_policy(agent, folder / "policy", novelty=Novelty.calibrate(prior, data))
    return folder


# saved_model_cli.


def test_saved_model_cli_shows_every_signature(exported):
    shown = shell("saved_model_cli show --dir policy --all", exported)
    for name in load_metadata(exported / "policy")["signatures"]:
        assert f"signature_def['{name}']" in shown
    assert "inputs['threshold']" in shown
    assert "outputs['fell_back']" in shown


@pytest.mark.parametrize(
    ("signature", "others"),
    [
        ("mean_action", ""),
        ("sample_action", "seed=[1,2]"),
        ("action_or_prior", "threshold=0.5"),
        ("action_or_prior", "threshold=[0.0,1.0,0.0,1.0]"),
    ],
)
def test_saved_model_cli_runs_signatures(exported, signature, others):
    np.savez(exported / "inputs.npz", observation=OBSERVATIONS)
    flag = f" --input_exprs '{others}'" if others else ""
    shell(
        f"saved_model_cli run --dir policy --tag_set serve --signature_def {signature} "
        f"--inputs 'observation=inputs.npz[observation]'{flag} --outdir out --overwrite",
        exported,
    )
    module = tf.saved_model.load(str(exported / "policy"))
    name, _, value = others.partition("=")
    inputs = {name: tf.constant(json.loads(value))} if name else {}
    expected = module.signatures[signature](observation=tf.constant(OBSERVATIONS), **inputs)
    for output, tensor in expected.items():
        served = np.load(exported / "out" / f"{output}.npy")
        np.testing.assert_allclose(served, tensor, rtol=1e-5, atol=1e-7)


# TF-Agents' own saver.

LOADER = """
import sys
import tensorflow as tf
import tf_agents
from tf_agents.trajectories import time_step as ts
import numpy as np
path, module, observations, output = sys.argv[1:]
if module:
    __import__(module)
observations = np.load(observations)
policy = tf.saved_model.load(path)
np.save(output, policy.action(ts.restart(tf.constant(observations), len(observations))).action)
"""


@pytest.mark.parametrize(
    ("greedy", "squash", "module"),
    [(True, True, ""), (False, False, ""), (False, True, "nppac_tf.networks")],
)
def test_policy_saver_saves_and_tf_agents_loads(tmp_path, greedy, squash, module):
    config = AgentConfig((8,), (8,), squash=squash, divergence="sampled", policy_averaging=0)
    agent = NppacAgent.for_task(fakes.FakeTask.of(D), fakes.LinearPrior(D, A), config)
    scale = agent.actor_network._log_scale_layer
    scale.bias.assign(tf.fill([A], -20.0))  # The samples are the mean, or they could not be told.
    policy = greedy_policy.GreedyPolicy(agent.policy) if greedy else agent.policy
    policy_saver.PolicySaver(policy).save(str(tmp_path / "saved"))
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    arguments = [tmp_path / "saved", module, tmp_path / "observations.npy", tmp_path / "out.npy"]
    subprocess.run(
        [sys.executable, "-c", LOADER, *map(str, arguments)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    step = ts.restart(tf.constant(OBSERVATIONS), len(OBSERVATIONS))
    expected = greedy_policy.GreedyPolicy(agent.policy).action(step).action
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=5e-4)


# launch/export.py.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A short run on the pendulum, in `run`, and its export in `served/pendulum`."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    angle, speed = rng.uniform(-3, 3, 60), rng.uniform(-8, 8, 60)
    states = np.stack([np.cos(angle), np.sin(angle), speed], axis=1)
    data = Demonstrations(states, np.tanh(-states[:, 1:2]), [20, 40, 60], name="expert")
    save_demonstrations(data, folder / "expert.npz")
    shell(
        f"{sys.executable} {ROOT}/launch/train.py --task=Pendulum-v1 --demonstrations=expert.npz "
        "--num_inducing_points=10 --max_fit_iterations=2 --scale_floor=0.1 --prior_cache=none "
        "--actor_layers=8 --critic_layers=8 --num_environments=2 --steps_per_epoch=50 "
        "--eval_interval=50 --num_env_steps=50 --eval_episodes=1 --checkpoint_interval=50 "
        "--pretraining_steps=5 --critic_warmup_steps=0 --batch_size=8 --output_dir=run",
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def said(folder):
    return shell(
        f"{sys.executable} {ROOT}/launch/export.py --run=run --output=served/pendulum", folder
    )


def test_an_export_of_a_run_is_its_policy(folder, said):
    metadata = load_metadata(folder / "served" / "pendulum")
    assert metadata["task"] == "Pendulum-v1"
    assert metadata["provenance"]["demonstrations"]["name"] == "expert"
    assert metadata["novelty"]["held_out_steps"] == 60
    served, ended = (
        tf.saved_model.load(str(folder / path)) for path in ("served/pendulum", "run/policy")
    )
    expected = ended.action_with_prior(tf.constant(OBSERVATIONS))
    for name, tensor in served.action_with_prior(tf.constant(OBSERVATIONS)).items():
        np.testing.assert_array_equal(tensor, expected[name])


def test_an_export_is_measured(said):
    size, seconds = re.search(r"([\d.]+) MB, loads in ([\d.]+) s", said).groups()
    assert 0.05 < float(size) < 5
    assert 0 < float(seconds) < 60
    for signature in ("mean_action", "sample_action", "action_with_prior", "action_or_prior"):
        figures = re.search(rf"{signature} +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)", said).groups()
        assert all(0 < float(figure) < 1000 for figure in figures)


def test_the_commands_that_an_export_prints_run_as_they_stand(folder, said):
    command = said[said.index("  python -c") : said.index("With TensorFlow Serving")]
    assert "Result for output key fell_back" in shell(command, folder)
    request = said[said.index('  python -c "import json') : said.index("  curl")]
    shell(request, folder)
    content = json.loads((folder / "request.json").read_text())
    assert np.shape(content["inputs"]["observation"]) == (1, 3)
    line = re.search(r"policy = (.*)\n", said)[1]
    module = eval(line.replace("served/pendulum", str(folder / "served" / "pendulum")))
    inputs = {name: tf.constant(value) for name, value in content["inputs"].items()}
    outputs = module.signatures[content["signature_name"]](**inputs)
    assert outputs["action"].shape == [1, 1]


def test_a_run_without_its_calibration_is_calibrated(folder, said):
    expected = load_metadata(folder / "served" / "pendulum")["novelty"]
    (folder / "run" / "novelty.npz").rename(folder / "novelty.npz")
    shell(f"{sys.executable} {ROOT}/launch/export.py --run=run --output=again", folder)
    assert load_metadata(folder / "again")["novelty"] == expected
    (folder / "expert.npz").rename(folder / "elsewhere.npz")
    output = shell(f"{sys.executable} {ROOT}/launch/export.py --run=run --output=again", folder)
    assert "Exporting without the out-of-demonstration score: " in output
    assert load_metadata(folder / "again")["novelty"] is None
