"""ONNX and TFLite models compute what the SavedModel does."""

import collections
import json
import subprocess
import sys
import types

import fakes
import numpy as np
import pytest
import tensorflow as tf
from serving_agents import A, D, agent_with

from nppac_tf import priors
from nppac_tf.config import KERNELS, PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.priors import plain
from nppac_tf.serving.policy import ServingOptions
from nppac_tf.serving.portable import export_portable
from nppac_tf.serving.runtimes import load_model, load_policy
from nppac_tf.serving.saved_model import export_policy

STEPS = 160


@pytest.fixture(scope="module")
def demonstrations():
    """Noisy, so that float32 suffices."""
    rng = np.random.default_rng(1)
    states = rng.normal(size=(STEPS, D))
    actions = np.tanh(states[:, :A]) + 0.3 * rng.normal(size=(STEPS, A))
    return Demonstrations(states, actions, [STEPS // 2, STEPS])


def queries(demonstrations, count):
    """States like the demonstrations, states between, and states far off."""
    rng = np.random.default_rng(2)
    near = demonstrations.observations[rng.integers(STEPS, size=count // 2)]
    near = near + 0.05 * rng.normal(size=near.shape)
    far = rng.normal(size=(count - len(near), D)) * rng.choice([1, 5, 50], (count - len(near), 1))
    return np.concatenate([near, far]).astype(np.float32)


# Priors in plain operations.


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float64, 1e-6), (tf.float32, 5e-5)])
def test_plain_operations_predict_as_the_prior(demonstrations, kernel, dtype, tolerance):
    prior = priors.fit_prior(demonstrations, PriorConfig(kernel=kernel, num_neighbors=20))
    states = tf.constant(queries(demonstrations, 100))
    (location, scale), uncertainty = prior.precise().predict(states)
    (plain_location, plain_scale), plain_uncertainty = plain.predict(prior, dtype)(states)
    np.testing.assert_allclose(plain_location, location, atol=tolerance)
    np.testing.assert_allclose(plain_scale, scale, atol=tolerance)
    np.testing.assert_allclose(plain_uncertainty, uncertainty, atol=tolerance)


def test_the_complement_of_a_kernel_keeps_its_small_values():
    squared = np.geomspace(1e-12, 100, 400)
    for kernel in KERNELS:
        exact = np.float64(1.0) - plain.KERNELS[kernel](tf.constant(squared, tf.float64)).numpy()
        found = plain._complement(kernel, tf.constant(squared, tf.float32)).numpy()
        trusted = exact > 1e-9  # Below, float64 cancels.
        np.testing.assert_allclose(found[trusted], exact[trusted], rtol=2e-6)


def test_plain_novelty_scores_as_the_novelty(demonstrations):
    prior = priors.fit_prior(demonstrations, PriorConfig())
    score = priors.Novelty.calibrate(prior, demonstrations)
    knots = score.curve[0]
    values = np.concatenate([knots, knots + 1e-4, [-50.0, 50.0, knots[0] - 1, knots[-1] + 1]])
    values = tf.constant(values, tf.float32)
    for dtype in (tf.float64, tf.float32):
        np.testing.assert_allclose(plain.novelty(score, dtype)(values), score(values), atol=1e-5)


# Models.


@pytest.fixture(scope="module", params=["anchored", "squashed", "sparse", "network"])
def exports(request, demonstrations, tmp_path_factory):
    """An agent's SavedModel, and a function that exports it in another format."""
    kind = {"sparse": "sparse_gp", "network": "gaussian_network"}.get(request.param, "gp")
    config = PriorConfig(kind, num_neighbors=16, num_inducing_points=20, network_epochs=2)
    prior = priors.fit_prior(demonstrations, config)
    novelty = priors.Novelty.calibrate(prior, demonstrations)
    actor = "squashed" if request.param == "squashed" else "anchored"
    agent = agent_with(actor, priors.RescaledPrior(prior, 1.0, 0.05))
    folder = tmp_path_factory.mktemp("exports")
    bounds = np.float32([-400] * D), np.float32([400] * D)
    task = types.SimpleNamespace(
        name="arm",
        reward="binary",
        observation_keys=(),
        success_key=None,
        observation_bounds=bounds,
    )
    options = ServingOptions(fallback_action=0.25, clip_high=0.9, max_action_change=0.3)
    export_policy(agent, folder / "saved_model", task, novelty, options=options)

    def export(format):
        if not (folder / format).exists():
            export_portable(agent, folder / format, format, task, novelty, {}, options)
        return load_model(folder / format), folder / format

    return load_model(folder / "saved_model"), export, request.param


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_model_equals_the_saved_model_on_10_000_states(exports, demonstrations, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX needs the extra onnx")
        pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
    saved, export, kind = exports
    model, folder = export(format)
    observations = queries(demonstrations, 10_000)
    observations[::1000, 1] = [np.nan, np.inf, -np.inf, 401, -1e30, 1e38, 0, 400, -400, 500]
    rng = np.random.default_rng(3)
    previous = rng.uniform(-1, 1, (len(observations), A)).astype(np.float32)
    previous[::7] = np.nan
    noise = rng.normal(size=(len(observations), A)).astype(np.float32)
    # Between two calibrating states that are close, the novelty is steep.
    tolerance, tolerances = 1e-5, {"novelty": 1e-4}
    if format == "tflite":
        tolerance = 2e-5
        if kind == "sparse":  # Its variance is a difference of large terms.
            tolerances = {"novelty": 2e-2}
    differences = collections.Counter()
    for start in range(0, len(observations), 1000):
        rows = slice(start, start + 1000)
        batch = {"observation": observations[rows]}
        limited = {"previous_action": previous[rows]}
        threshold = np.float32([0.5])
        found = model("policy", batch | limited | {"noise": noise[rows], "threshold": threshold})
        parameters = saved("distribution_params", batch)
        sample = parameters["location"] + parameters["scale"] * noise[rows]
        if kind == "squashed":
            sample = np.float32([0, 0.5]) + np.float32([1, 2.5]) * np.tanh(sample)
            found["alone"] = model("mean_action", batch)["action"]
        expected = {
            **saved("action_with_prior", batch),
            "mean_action": saved("mean_action", batch)["action"],
            "sampled_action": np.clip(sample, [-1, -2], [0.9, 0.9]),
            **saved("next_action", batch | limited | {"threshold": threshold[0]}),
        }
        if kind == "squashed":
            expected["alone"] = expected["mean_action"]
        assert found.keys() == expected.keys()
        # The others may fall on either side.
        decided = np.abs(expected["novelty"] - 0.5) > tolerances["novelty"]
        for name, value in expected.items():
            same = decided if name in ("action", "fell_back") else slice(None)
            ours, theirs = (np.asarray(each[same], float) for each in (found[name], value))
            np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), err_msg=name)
            difference = np.nanmax(np.abs(ours - theirs), initial=0.0)
            differences[name] = max(differences[name], difference)
    for name, difference in differences.items():
        assert difference <= tolerances.get(name, tolerance), differences
    content = json.loads((folder / "policy.json").read_text())
    assert content["fallback_action"] == [0.25, 0.25]
    assert content["clip_high"] == pytest.approx([0.9, 0.9])
    inputs = content["signatures"]["policy"]["inputs"]
    assert inputs["observation"] == {
        "shape": ["B", D],
        "dtype": "float32",
        "unit": "the environment's",
    }
    if kind in ("anchored", "squashed"):
        assert content["posterior"] == {"points": STEPS, "numbers": STEPS * (D + A)}
        assert content["rounding"]["action"] < 2e-5


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_the_greedy_policy_is_that_of_the_saved_model(exports, demonstrations, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX needs the extra onnx")
        pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
    folder = exports[1](format)[1]
    policy, expected = load_policy(folder), load_policy(folder.parent / "saved_model")
    states = queries(demonstrations, 40)
    np.testing.assert_allclose(policy(states), expected(states), atol=2e-5)
    np.testing.assert_array_equal(policy(states[0]), policy(states[:1])[0])
    with pytest.raises(UserError, match=r"observations must be \[B, 3\] or \[3\]; got \[4\]"):
        policy(np.zeros(4))


def test_onnx_has_standard_operations_only(exports):
    onnx = pytest.importorskip("onnx", reason="ONNX needs the extra onnx")
    pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
    _, folder = exports[1]("onnx")
    for file in folder.glob("*.onnx"):
        model = onnx.load(str(file))
        onnx.checker.check_model(model)
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        operations = {node.op_type for node in model.graph.node}
        assert not {"Loop", "Scan", "If"} & operations
        assert "Where" in operations  # A product with 0 would let a nan through.


def test_onnx_runs_without_tensorflow(exports):
    pytest.importorskip("onnxruntime", reason="ONNX needs the extra onnx")
    pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
    program = (
        "import sys; sys.modules['tensorflow'] = None; import numpy as np\n"
        "from nppac_tf.serving.runtimes import load_policy\n"
        f"assert load_policy(sys.argv[1])(np.zeros({D})).shape == ({A},)"
    )
    subprocess.run([sys.executable, "-c", program, exports[1]("onnx")[1]], check=True)


def test_tflite_has_built_in_operations_only(exports):
    _, folder = exports[1]("tflite")
    interpreter = tf.lite.Interpreter(str(folder / "policy.tflite"))
    names = {operation["op_name"] for operation in interpreter._get_ops_details()}
    assert not {name for name in names if name.startswith("Flex") or name == "CUSTOM"}


def test_a_folder_that_is_no_export_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    agent = agent_with(prior=fakes.LinearPrior(D, A))
    with pytest.raises(UserError, match="path must be new or an export to replace"):
        export_portable(agent, tmp_path, "tflite")
    with pytest.raises(UserError, match="format must be one of onnx, tflite"):
        export_portable(agent, tmp_path / "new", "torch")
