import json
import os
import subprocess
import sys

import fakes
import numpy as np
import pytest
import tensorflow as tf

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.evaluation import rollouts
from nppac_tf.export import export_policy, load_metadata, load_policy
from nppac_tf.priors import Novelty, RescaledPrior, SparseGPPrior, UniformPrior

D, A = 3, 2
LOW, HIGH = np.array([-1.0, -2.0]), np.array([1.0, 3.0])
OBSERVATIONS = np.random.default_rng(0).normal(size=(7, D)).astype(np.float32)

# A server that has TensorFlow and NumPy, and nothing of this project.
READER = """
import sys
import numpy as np
import tensorflow as tf
path, observations, output = sys.argv[1:]
module = tf.saved_model.load(path)
observation = tf.constant(np.load(observations))
serve = module.signatures["serving_default"]
np.savez(
    output,
    mean=module.mean_action(observation),
    served=serve(observation=observation)["action"],
    sampled=module.sample_action(observation, [1, 2]),
    **module.signatures["distribution_params"](observation=observation),
    **{f"prior/{k}": v for k, v in module.action_with_prior(observation).items()},
    **{f"safe/{k}": v for k, v in module.action_or_prior(observation, 0.5).items()},
)
heavy = {"tf_agents", "tensorflow_probability", "gpflow", "nppac_tf", "gymnasium"}
print(*sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""


def agent_with(squash=True, prior=None):
    config = AgentConfig(
        actor_layers=(8, 8),
        critic_layers=(8,),
        squash=squash,
        divergence="sampled",
        policy_averaging=0,
    )
    prior = prior or fakes.LinearPrior(D, A)
    return NppacAgent.for_task(fakes.FakeTask.of(D), prior, config, seed=3)


@pytest.fixture(scope="module")
def demonstrations():
    states = np.random.default_rng(1).normal(size=(20, D))
    return Demonstrations(states, 4 * np.tanh(states[:, :A]), [10, 20])


@pytest.fixture(scope="module")
def gaussian_process(demonstrations):
    config = PriorConfig(num_inducing_points=6, max_fit_iterations=2)
    return SparseGPPrior.fit(demonstrations, config)


@pytest.fixture(scope="module")
def novelty(gaussian_process, demonstrations):
    return Novelty.calibrate(gaussian_process, demonstrations)


@pytest.fixture(scope="module")
def module(gaussian_process, novelty, tmp_path_factory):
    """An export, loaded."""
    path = tmp_path_factory.mktemp("export") / "policy"
    export_policy(agent_with(prior=gaussian_process), path, novelty=novelty)
    return tf.saved_model.load(str(path))


@pytest.mark.parametrize("squash", [True, False])
def test_the_export_is_the_policy(tmp_path, squash):
    agent = agent_with(squash)
    export_policy(agent, tmp_path / "policy")
    expected = rollouts.as_policy_function(agent.policy)(OBSERVATIONS)
    actions = load_policy(tmp_path / "policy")(OBSERVATIONS)
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(actions, expected)


def test_what_is_exported_is_the_average_of_an_averaging_agent(tmp_path):
    config = AgentConfig(actor_layers=(8, 8), critic_layers=(8,), policy_averaging=10)
    agent = NppacAgent.for_task(fakes.FakeTask.of(D), fakes.LinearPrior(D, A), config, seed=3)
    before = rollouts.as_policy_function(agent.policy)(OBSERVATIONS)
    agent.actor_network.variables[0].assign_add(tf.ones_like(agent.actor_network.variables[0]))
    export_policy(agent, tmp_path / "policy")
    np.testing.assert_array_equal(load_policy(tmp_path / "policy")(OBSERVATIONS), before)


def test_it_serves_with_tensorflow_alone(tmp_path, gaussian_process, novelty):
    agent = agent_with(prior=RescaledPrior(gaussian_process, 1.0, 0.1))
    export_policy(agent, tmp_path / "policy", novelty=novelty)
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    paths = [str(tmp_path / name) for name in ("policy", "observations.npy", "output.npz")]
    result = subprocess.run(
        [sys.executable, "-c", READER, *paths], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
    expected = rollouts.as_policy_function(agent.policy)(OBSERVATIONS)
    statistics = agent.prior.statistics(tf.constant(OBSERVATIONS))
    with np.load(tmp_path / "output.npz") as output:
        np.testing.assert_array_equal(output["mean"], expected)
        np.testing.assert_array_equal(output["served"], expected)
        assert output["sampled"].shape == (len(OBSERVATIONS), A)
        np.testing.assert_array_equal(output["prior/action"], expected)
        np.testing.assert_allclose(output["prior/prior_location"], statistics.location, rtol=1e-6)
        np.testing.assert_allclose(output["prior/prior_scale"], statistics.scale, rtol=1e-6)
        scores = novelty(agent.prior.uncertainty(tf.constant(OBSERVATIONS)))
        np.testing.assert_allclose(output["prior/novelty"], scores, rtol=1e-5)
        np.testing.assert_array_equal(output["safe/fell_back"], output["prior/novelty"] > 0.5)
        # Of the Gaussian before tanh and bounds, which give the mean action.
        squashed = (HIGH + LOW) / 2 + (HIGH - LOW) / 2 * np.tanh(output["location"])
        np.testing.assert_allclose(squashed, expected, rtol=1e-5)
        assert (output["scale"] > 0).all()


def test_samples_are_those_of_the_policy(tmp_path):
    agent = agent_with(squash=False)
    export_policy(agent, tmp_path / "policy")
    module = tf.saved_model.load(str(tmp_path / "policy"))
    observation = tf.zeros([2000, D])
    parameters = module.distribution_params(observation)
    samples = module.sample_action(observation, [1, 2]).numpy()
    np.testing.assert_array_equal(samples, module.sample_action(observation, [1, 2]))
    assert (samples != module.sample_action(observation, [1, 3]).numpy()).any()
    assert (samples >= LOW).all()
    assert (samples <= HIGH).all()
    inside = (samples > LOW).all(axis=1) & (samples < HIGH).all(axis=1)
    standardized = ((samples - parameters["location"]) / parameters["scale"]).numpy()[inside]
    assert np.abs(standardized.mean(axis=0)).max() < 0.15
    np.testing.assert_allclose(standardized.std(axis=0), 1.0, atol=0.15)


def test_an_unsquashed_sample_is_clipped(tmp_path):
    agent = agent_with(squash=False)
    agent.actor_network._log_scale_layer.bias.assign([2.0, 2.0])
    export_policy(agent, tmp_path / "policy")
    module = tf.saved_model.load(str(tmp_path / "policy"))
    samples = module.sample_action(tf.zeros([100, D]), [1, 2]).numpy()
    assert (samples == LOW.astype(np.float32)).any()
    assert samples.max(axis=0) == pytest.approx(HIGH)


def test_where_the_state_is_novel_the_prior_acts(module):
    observation = tf.constant(5 * OBSERVATIONS)
    parts = {k: v.numpy() for k, v in module.action_with_prior(observation).items()}
    scores = parts["novelty"]
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (np.diff(np.sort(scores)) > 0).all()
    prior_action = np.clip(parts["prior_location"], LOW.astype("f"), HIGH.astype("f"))
    assert (prior_action != parts["prior_location"]).any()
    for threshold in (0.0, float(np.median(scores)), 1.0):
        outputs = module.action_or_prior(observation, threshold)
        fell_back = scores > threshold
        assert outputs["fell_back"].dtype == tf.bool
        np.testing.assert_array_equal(outputs["fell_back"], fell_back)
        expected = np.where(fell_back[:, np.newaxis], prior_action, parts["action"])
        np.testing.assert_array_equal(outputs["action"], expected)
        np.testing.assert_array_equal(outputs["novelty"], scores)
    assert module.action_or_prior(observation, 0.0)["fell_back"].numpy().all()


def test_a_threshold_may_be_one_of_each_observation(module):
    observation = tf.constant(OBSERVATIONS)
    thresholds = tf.constant([0.0, 1.0] * 3 + [0.0])
    outputs = module.signatures["action_or_prior"](observation=observation, threshold=thresholds)
    assert outputs["fell_back"].numpy().tolist() == [True, False] * 3 + [True]
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        module.action_or_prior(observation, thresholds[:, tf.newaxis])


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_any_batch_size_is_served(module, size):
    inputs = {"observation": tf.zeros([size, D])}
    extra = {"sample_action": {"seed": tf.constant([1, 2])}}
    extra["action_or_prior"] = {"threshold": tf.constant(0.5)}
    assert len(module.signatures) == 6
    for name, signature in module.signatures.items():
        for output in signature(**inputs, **extra.get(name, {})).values():
            assert output.shape[0] == size


def test_a_uniform_prior_serves_no_prior_and_no_novelty(tmp_path, novelty):
    agent = agent_with(prior=UniformPrior(D, A))
    with pytest.raises(UserError, match="novelty must be None with a uniform prior"):
        export_policy(agent, tmp_path / "policy", novelty=novelty)
    export_policy(agent, tmp_path / "policy")
    module = tf.saved_model.load(str(tmp_path / "policy"))
    expected = {"serving_default", "mean_action", "sample_action", "distribution_params"}
    assert set(module.signatures) == expected
    assert load_metadata(tmp_path / "policy")["signatures"] == sorted(expected)


def test_without_a_calibration_the_prior_is_served_without_a_score(tmp_path, gaussian_process):
    export_policy(agent_with(prior=gaussian_process), tmp_path / "policy")
    module = tf.saved_model.load(str(tmp_path / "policy"))
    assert "action_or_prior" not in module.signatures
    outputs = module.action_with_prior(tf.constant(OBSERVATIONS))
    assert set(outputs) == {"action", "prior_location", "prior_scale"}


def test_observations_of_another_shape_are_a_users_error(tmp_path):
    export_policy(agent_with(), tmp_path / "policy")
    policy = load_policy(tmp_path / "policy")
    single = policy(OBSERVATIONS[0].astype(np.float64))
    np.testing.assert_array_equal(single, policy(OBSERVATIONS[:1])[0])
    assert policy(np.zeros((0, D))).shape == (0, A)
    for shape in ([], [2], [2, 4], [1, 2, 3]):
        with pytest.raises(UserError, match=r"observations must be \[B, 3\] or \[3\]; got \["):
            policy(np.zeros(shape))


def test_an_export_does_not_change_with_the_agent(tmp_path):
    agent = agent_with()
    export_policy(agent, tmp_path / "policy")
    policy = load_policy(tmp_path / "policy")
    before = policy(OBSERVATIONS)
    for variable in agent.actor_network.variables:
        variable.assign_add(tf.ones_like(variable))
    np.testing.assert_array_equal(policy(OBSERVATIONS), before)
    export_policy(agent, tmp_path / "policy")
    assert (load_policy(tmp_path / "policy")(OBSERVATIONS) != before).any()
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_metadata(tmp_path):
    export_policy(agent_with(), tmp_path / "policy")
    metadata = load_metadata(tmp_path / "policy")
    assert metadata["action_low"] == LOW.tolist()
    assert metadata["action_high"] == HIGH.tolist()
    assert (metadata["observation_size"], metadata["action_size"]) == (D, A)
    assert metadata["prior"] == "LinearPrior"
    assert metadata["task"] is None
    assert metadata["updates"] == 0
    assert metadata["novelty"] is None
    assert metadata["provenance"] == {}
    assert metadata["versions"]["tensorflow"] == tf.__version__


def test_metadata_says_where_the_policy_comes_from(tmp_path, gaussian_process, novelty):
    provenance = {"demonstrations": {"name": "pen", "fingerprint": "b54d"}}
    agent = agent_with(prior=gaussian_process)
    export_policy(agent, tmp_path / "policy", novelty=novelty, provenance=provenance)
    metadata = load_metadata(tmp_path / "policy")
    assert metadata["provenance"] == provenance
    assert metadata["novelty"] == novelty.summary
    assert "action_or_prior" in metadata["signatures"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_replacement_leaves_the_earlier_export(tmp_path, monkeypatch, failing):
    export_policy(agent_with(), tmp_path / "policy", provenance={"version": "earlier"})
    rename, calls = os.rename, []

    def fail(*paths):
        calls.append(paths)
        if len(calls) == failing:
            raise OSError("no such luck")
        rename(*paths)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="no such luck"):
        export_policy(agent_with(), tmp_path / "policy", provenance={"version": "new"})
    assert load_metadata(tmp_path / "policy")["provenance"] == {"version": "earlier"}
    assert load_policy(tmp_path / "policy")(OBSERVATIONS).shape == (7, A)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_something_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="path must be new or an exported policy"):
        export_policy(agent_with(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_what_is_no_export_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no exported policy at .*nowhere"):
        load_policy(tmp_path / "nowhere")
    metadata = tmp_path / "assets.extra" / "metadata.json"
    metadata.parent.mkdir()
    metadata.write_text(json.dumps({"version": 0}))
    with pytest.raises(UserError, match="version 0 of the format"):
        load_policy(tmp_path)
    whole = {"version": 1, "task": None, "reward": None, "updates": 0}
    whole |= {"observation_size": D, "action_size": A}
    for name in ("task", "updates", "observation_size"):
        metadata.write_text(json.dumps({key: whole[key] for key in whole if key != name}))
        with pytest.raises(UserError, match=f"is not an exported policy: .* has no {name}"):
            load_policy(tmp_path)
    metadata.write_text("[]")
    with pytest.raises(UserError, match="is not an exported policy"):
        load_policy(tmp_path)
    metadata.write_text(json.dumps(whole))
    with pytest.raises(UserError, match="not a whole exported policy"):
        load_policy(tmp_path)
