import os
import subprocess
import sys
import types

import fakes
import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from serving_agents import ACTORS, HIGH, LOW, A, D, agent_with

from nppac_tf import priors
from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.evaluation import rollouts
from nppac_tf.serving.policy import ServingOptions
from nppac_tf.serving.saved_model import export_policy, load_metadata, load_policy

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


def batched(module):
    """Signatures for batches."""
    signatures = module.signatures.items()
    return [(name, signature) for name, signature in signatures if "_single" not in name]


@pytest.fixture(scope="module")
def demonstrations():
    states = np.random.default_rng(1).normal(size=(20, D))
    return Demonstrations(states, 4 * np.tanh(states[:, :A]), [10, 20])


@pytest.fixture(scope="module", params=["gp", "sparse_gp"])
def gaussian_process(request, demonstrations):
    return priors.fit_prior(demonstrations, PriorConfig(request.param, num_inducing_points=6))


@pytest.fixture(scope="module")
def novelty(gaussian_process, demonstrations):
    return priors.Novelty.calibrate(gaussian_process, demonstrations)


@pytest.fixture(scope="module")
def module(gaussian_process, novelty, tmp_path_factory):
    """A loaded export."""
    path = tmp_path_factory.mktemp("export") / "policy"
    export_policy(agent_with(prior=gaussian_process), path, novelty=novelty)
    return tf.saved_model.load(str(path))


# The policy.


@pytest.mark.parametrize("actor", ACTORS)
def test_the_export_is_the_deployed_policy_and_stays_as_it_is(tmp_path, actor):
    agent = agent_with(actor)
    expected = rollouts.as_policy_function(agent.policy)(OBSERVATIONS)
    export_policy(agent, tmp_path / "policy")
    policy = load_policy(tmp_path / "policy")
    assert policy(OBSERVATIONS).dtype == np.float32
    np.testing.assert_allclose(policy(OBSERVATIONS), expected, rtol=1e-6)
    for variable in agent.deployed_actor.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    np.testing.assert_allclose(policy(OBSERVATIONS), expected, rtol=1e-6)
    export_policy(agent, tmp_path / "policy")
    assert (load_policy(tmp_path / "policy")(OBSERVATIONS) != expected).any()
    assert os.listdir(tmp_path) == ["policy"]


def test_it_serves_with_tensorflow_alone(tmp_path, gaussian_process, novelty):
    agent = agent_with(prior=priors.RescaledPrior(gaussian_process, 1.0, 0.1))
    export_policy(agent, tmp_path / "policy", novelty=novelty)
    np.save(tmp_path / "observations.npy", OBSERVATIONS)
    paths = [str(tmp_path / name) for name in ("policy", "observations.npy", "output.npz")]
    result = subprocess.run(
        [sys.executable, "-c", READER, *paths], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
    expected = rollouts.as_policy_function(agent.policy)(OBSERVATIONS)
    statistics = agent.prior.statistics(tf.constant(OBSERVATIONS))
    scores = novelty(agent.prior.uncertainty(tf.constant(OBSERVATIONS)))
    with np.load(tmp_path / "output.npz") as output:
        for name in ("mean", "served", "prior/action"):
            np.testing.assert_allclose(output[name], expected, rtol=1e-5, atol=1e-6)
        assert output["sampled"].shape == (len(OBSERVATIONS), A)
        np.testing.assert_allclose(output["prior/prior_location"], statistics.location, rtol=1e-5)
        np.testing.assert_allclose(output["prior/prior_scale"], statistics.scale, rtol=1e-5)
        np.testing.assert_allclose(output["prior/novelty"], scores, rtol=1e-5)
        np.testing.assert_array_equal(output["safe/fell_back"], output["prior/novelty"] > 0.5)
        np.testing.assert_allclose(output["location"], expected, rtol=1e-5, atol=1e-6)
        assert (output["scale"] > 0).all()


@pytest.mark.parametrize("actor", ACTORS)
def test_samples_are_those_of_the_distribution_within_the_bounds(tmp_path, actor):
    export_policy(agent_with(actor, fakes.LinearPrior(D, A, scale=0.9)), tmp_path / "policy")
    module = tf.saved_model.load(str(tmp_path / "policy"))
    observation = tf.zeros([2000, D])
    parameters = module.distribution_params(observation)
    samples = module.sample_action(observation, [1, 2]).numpy()
    np.testing.assert_array_equal(samples, module.sample_action(observation, [1, 2]))
    assert (samples != module.sample_action(observation, [1, 3]).numpy()).any()
    location, scale = (parameters[name][0].numpy() for name in ("location", "scale"))
    center, half_range = (HIGH + LOW) / 2, (HIGH - LOW) / 2
    mean, gaussian = location, samples
    if actor == "squashed":
        mean = center + half_range * np.tanh(location)
        gaussian = np.arctanh(np.clip((samples - center) / half_range, -0.9999, 0.9999))
    else:
        assert (np.abs(samples - center) == half_range).any()  # Clipped.
    assert (np.abs(samples - center) <= half_range).all()
    np.testing.assert_allclose(module.mean_action(observation)[0], mean, rtol=1e-5)
    # Clipping does not move the middle quantiles: +-0.2533 standard deviations from the median.
    low, median, high = np.quantile(gaussian, [0.4, 0.5, 0.6], axis=0)
    np.testing.assert_allclose(median, location, atol=0.1 * scale.max())
    np.testing.assert_allclose(high - low, 0.5067 * scale, rtol=0.25)


# The prior and the score.


def test_the_prior_acts_where_the_state_is_novel(module):
    observation = tf.constant(5 * OBSERVATIONS)
    parts = {k: v.numpy() for k, v in module.action_with_prior(observation).items()}
    scores = parts["novelty"]
    assert ((scores >= 0) & (scores <= 1)).all()
    prior_action = np.clip(parts["prior_location"], LOW, HIGH)
    for threshold in (0.0, float(np.median(scores)), 1.0):
        outputs = module.action_or_prior(observation, threshold)
        fell_back = scores > threshold
        assert outputs["fell_back"].dtype == tf.bool
        np.testing.assert_array_equal(outputs["fell_back"], fell_back)
        expected = np.where(fell_back[:, np.newaxis], prior_action, parts["action"])
        np.testing.assert_array_equal(outputs["action"], expected)
        np.testing.assert_array_equal(outputs["novelty"], scores)
    assert module.action_or_prior(observation, 0.0)["fell_back"].numpy().all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_observation_that_is_not_finite_never_becomes_an_action(module, value):
    """And does not change the actions for the other observations of the batch."""
    broken = OBSERVATIONS.copy()
    broken[[1, 4], [0, 2]] = value
    rows = np.isin(np.arange(len(broken)), (1, 4))
    extra = {
        "sample_action": {"seed": tf.constant([1, 2])},
        "action_or_prior": {"threshold": tf.constant(1.0)},
    }
    for name, signature in batched(module):
        outputs = signature(observation=tf.constant(broken), **extra.get(name, {}))
        expected = signature(observation=tf.constant(OBSERVATIONS), **extra.get(name, {}))
        for key, output in outputs.items():
            np.testing.assert_allclose(output[~rows], expected[key][~rows], rtol=1e-5, atol=1e-6)
            action = 0.0 if name == "action_or_prior" else np.nan  # The declared fallback.
            expected_value = {"novelty": 1.0, "fell_back": True, "action": action}.get(key, np.nan)
            np.testing.assert_array_equal(output[rows], np.full_like(output[rows], expected_value))


# Limits.


@pytest.fixture(scope="module")
def scored(demonstrations):
    """A prior and its novelty."""
    prior = priors.fit_prior(demonstrations, PriorConfig())
    return prior, priors.Novelty.calibrate(prior, demonstrations)


@pytest.fixture(scope="module")
def limited(scored, tmp_path_factory):
    """An export with every limit, of a task with bounds and named parts."""
    spaces = gymnasium.spaces
    task = types.SimpleNamespace(
        observation_keys=("arm/pos", "threshold"),
        observation_parts={
            "arm/pos": spaces.Box(-5.0, 5.0, (2,), np.float64),
            "threshold": spaces.Box(-np.inf, np.inf, (1,), np.float32),
        },
        observation_bounds=(np.float32([-5, -5, -np.inf]), np.float32([5, 5, np.inf])),
        name="arm",
        reward="binary",
        success_key=None,
    )
    path = tmp_path_factory.mktemp("limited") / "policy"
    options = ServingOptions(np.nan, -0.5, [0.5, 9.0], [0.1, 0.2])
    agent = agent_with(prior=scored[0])
    export_policy(agent, path, task, scored[1], options=options)
    return path, tf.saved_model.load(str(path))


def test_actions_stay_within_declared_limits(limited, scored):
    path, module = limited
    metadata = load_metadata(path)
    assert metadata["clip_low"] == [-0.5, -0.5]
    assert metadata["clip_high"] == [0.5, 3.0]
    assert metadata["fallback_action"] == [None, None]
    assert metadata["observation_low"] == [-5.0, -5.0, None]
    assert metadata["observation_parts"] == {"arm/pos": 2, "threshold": 1}
    np.testing.assert_allclose(metadata["max_action_change"], [0.1, 0.2])
    free = np.clip(
        rollouts.as_policy_function(agent_with(prior=scored[0]).policy)(OBSERVATIONS),
        [-0.5, -0.5],
        [0.5, 3.0],
    )
    np.testing.assert_allclose(module.mean_action(tf.constant(OBSERVATIONS)), free, rtol=1e-5)
    previous = np.zeros_like(free)
    previous[0] = np.nan
    action = module.next_action(tf.constant(OBSERVATIONS), previous, 1.0)["action"].numpy()
    expected = np.clip(free, [-0.1, -0.2], [0.1, 0.2])
    assert (expected != free).any()
    expected[0] = free[0]
    np.testing.assert_allclose(action, expected, rtol=1e-5)


def test_an_observation_that_the_task_does_not_declare_is_unusable(limited):
    _, module = limited
    broken = OBSERVATIONS.copy()
    broken[2, 1] = np.nextafter(np.float32(5), np.float32(6))
    rows = np.arange(len(broken)) == 2
    outputs = module.action_or_prior(tf.constant(broken), 1.0)
    assert (np.isnan(outputs["action"]).any(axis=1) == rows).all()
    np.testing.assert_array_equal(outputs["fell_back"], rows)
    assert outputs["novelty"][2] == 1.0
    assert np.isnan(module.mean_action(tf.constant(broken))).any(axis=1).tolist() == rows.tolist()


def test_no_finite_observation_or_threshold_gives_an_action_that_is_not(module):
    for size in (1e6, 1e20, 3e38):
        outputs = module.action_or_prior(
            tf.constant(np.float32(size) * np.sign(OBSERVATIONS)), 0.99
        )
        assert np.isfinite(outputs["action"]).all()
        assert (outputs["novelty"].numpy() > 0.9).all()
    outputs = module.action_or_prior(tf.constant(OBSERVATIONS), np.nan)
    assert outputs["fell_back"].numpy().all()


def test_single_observations_and_named_parts(limited):
    _, module = limited
    batch = tf.constant(OBSERVATIONS)
    previous = tf.zeros([len(OBSERVATIONS), A])
    extra = {
        "sample_action": {"seed": tf.constant([1, 2])},
        "action_or_prior": {"threshold": tf.constant(0.5)},
        "next_action": {"threshold": tf.constant(0.5), "previous_action": previous},
    }
    for name in ("mean_action", "action_with_prior", "action_or_prior", "next_action"):
        inputs = extra.get(name, {})
        expected = module.signatures[name](observation=batch, **inputs)
        # A part whose name is that of an input.
        third = "part_threshold" if "threshold" in inputs else "threshold"
        parts = {"arm_pos": batch[:, :2], third: batch[:, 2:]}
        outputs = module.signatures[f"{name}_parts"](**parts, **inputs)
        single = dict(inputs)
        if "previous_action" in single:
            single["previous_action"] = previous[0]
        first = module.signatures[f"{name}_single"](observation=batch[0], **single)
        for key, value in expected.items():
            np.testing.assert_array_equal(outputs[key], value)
            np.testing.assert_allclose(first[key], value[0], rtol=1e-5, atol=1e-6)
    assert module.signatures["sample_action_single"](
        observation=batch[0], **extra["sample_action"]
    )["action"].shape == [A]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"clip_low": [0, 0, 0]}, "clip_low must be one number or 2"),
        ({"clip_low": 2.0}, "clip_low must be at most clip_high"),
        ({"max_action_change": 0.0}, "max_action_change must be positive"),
    ],
)
def test_limits_out_of_range_are_refused(tmp_path, scored, options, complaint):
    agent = agent_with(prior=scored[0])
    with pytest.raises(UserError, match=complaint):
        export_policy(agent, tmp_path / "p", novelty=scored[1], options=ServingOptions(**options))
    with pytest.raises(UserError, match="max_action_change must be None without"):
        export_policy(agent, tmp_path / "p", options=ServingOptions(max_action_change=1.0))


# Batches.


def test_a_threshold_may_be_given_per_observation(module):
    observation = tf.constant(OBSERVATIONS)
    thresholds = tf.constant([0.0, 1.0] * 3 + [0.0])
    outputs = module.signatures["action_or_prior"](observation=observation, threshold=thresholds)
    assert outputs["fell_back"].numpy().tolist() == [True, False] * 3 + [True]
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        module.action_or_prior(observation, thresholds[:, tf.newaxis])


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_any_batch_size_is_served(module, size):
    inputs = {"observation": tf.zeros([size, D])}
    extra = {
        "sample_action": {"seed": tf.constant([1, 2])},
        "action_or_prior": {"threshold": tf.constant(0.5)},
    }
    assert len(module.signatures) == 11
    for name, signature in batched(module):
        for output in signature(**inputs, **extra.get(name, {})).values():
            assert output.shape[0] == size


def test_without_a_prior_or_a_calibration_there_are_fewer_signatures(tmp_path, module):
    export_policy(agent_with(), tmp_path / "unscored")
    unscored = tf.saved_model.load(str(tmp_path / "unscored"))
    assert dict(batched(module)).keys() - set(unscored.signatures) == {"action_or_prior"}
    outputs = unscored.action_with_prior(tf.constant(OBSERVATIONS))
    assert set(outputs) == {"action", "prior_location", "prior_scale"}
    export_policy(agent_with(prior=priors.UniformPrior(D, A)), tmp_path / "uniform")
    expected = ["distribution_params", "mean_action", "sample_action", "serving_default"]
    uniform = tf.saved_model.load(str(tmp_path / "uniform"))
    assert sorted(name for name, _ in batched(uniform)) == expected
    assert load_metadata(tmp_path / "uniform")["signatures"] == sorted(uniform.signatures)


def test_a_novelty_needs_an_informative_prior(tmp_path, novelty):
    with pytest.raises(UserError, match="novelty must be None with a uniform prior"):
        export_policy(agent_with(prior=priors.UniformPrior(D, A)), tmp_path / "p", novelty=novelty)


# Loading, metadata and files.


def test_observations_of_another_shape_are_a_users_error(tmp_path):
    export_policy(agent_with(), tmp_path / "policy")
    policy = load_policy(tmp_path / "policy")
    single = policy(OBSERVATIONS[0].astype(np.float64))
    np.testing.assert_array_equal(single, policy(OBSERVATIONS[:1])[0])
    assert policy(np.zeros((0, D))).shape == (0, A)
    for shape in ([], [2], [2, 4], [1, 2, 3]):
        with pytest.raises(UserError, match=r"observations must be \[B, 3\] or \[3\]; got \["):
            policy(np.zeros(shape))


def test_metadata(tmp_path, gaussian_process, novelty):
    agent = agent_with(prior=priors.RescaledPrior(gaussian_process, 2.0, 0.1))
    provenance = {"demonstrations": {"name": "pen", "fingerprint": "b54d"}}
    export_policy(agent, tmp_path / "policy", novelty=novelty, provenance=provenance)
    metadata = load_metadata(tmp_path / "policy")
    assert "action_or_prior" in metadata.pop("signatures")
    assert metadata.pop("prior") in ("GPPrior", "SparseGPPrior")  # Not a wrapper.
    assert metadata.pop("versions")["tensorflow"] == tf.__version__
    assert metadata == {
        "version": 1,
        "task": None,
        "reward": None,
        "observation_keys": [],
        "success_key": None,
        "observation_size": D,
        "action_size": A,
        "action_low": LOW.tolist(),
        "action_high": HIGH.tolist(),
        "observation_parts": {},
        "observation_low": [None] * D,
        "observation_high": [None] * D,
        "clip_low": LOW.tolist(),
        "clip_high": HIGH.tolist(),
        "fallback_action": [0.0, 0.0],
        "max_action_change": None,
        "novelty": novelty.summary,
        "updates": 0,
        "provenance": provenance,
    }
