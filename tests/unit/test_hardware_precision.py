import fakes
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from nppac_tf import precision
from nppac_tf.agents.batch import Batch
from nppac_tf.agents.networks import ActorNetwork, CriticNetwork
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig

OBSERVATION_SPEC = tf.TensorSpec([3], tf.float32)
ACTION_SPEC = tensor_spec.BoundedTensorSpec([2], tf.float32, [-1.0, -2.0], [1.0, 5.0])
OBSERVATIONS = tf.random.stateless_normal([64, 3], seed=[0, 1])
ACTIONS = tf.random.stateless_normal([64, 2], seed=[0, 2])


def agent_of(number_format, **kwargs):
    config = AgentConfig((32, 32), (32, 32), precision=number_format, **kwargs)
    return NppacAgent.for_task(fakes.FakeTask.of(), fakes.LinearPrior(3, 2), config)


def batch(agent):
    discounts = tf.constant(np.arange(64) % 3 > 0, tf.float32)
    observations = tf.random.stateless_normal([64, 3], seed=[0, 3])
    return Batch(
        OBSERVATIONS,
        tf.tanh(ACTIONS),
        tf.random.stateless_normal([64], seed=[0, 4]),
        discounts,
        observations,
        agent.prior.statistics(OBSERVATIONS),
        agent.prior.statistics(observations),
    )


@pytest.mark.parametrize("squash", [True, False])
def test_an_actor_of_bfloat16_is_nearly_the_same_and_has_its_weights_in_float32(squash):
    exact, coarse = (
        ActorNetwork(OBSERVATION_SPEC, ACTION_SPEC, (64, 64), squash, precision=name)
        for name in ("float32", "bfloat16")
    )
    modes = [actor(OBSERVATIONS)[0].mode() for actor in (exact, coarse)]
    assert {mode.dtype for mode in modes} == {tf.float32}
    assert all(variable.dtype == tf.float32 for variable in coarse.variables)
    # bfloat16 has 8 bits: a relative error of up to 2^-9 in each product's factors.
    difference = np.abs(modes[0] - modes[1])
    assert 1e-5 < difference.max() < 0.02


@pytest.mark.parametrize("layer_norm", [True, False])
def test_so_is_a_critic(layer_norm):
    exact, coarse = (
        CriticNetwork((OBSERVATION_SPEC, ACTION_SPEC), (64, 64), layer_norm, precision=name)
        for name in ("float32", "bfloat16")
    )
    values = [critic((OBSERVATIONS, ACTIONS))[0] for critic in (exact, coarse)]
    assert {value.dtype for value in values} == {tf.float32}
    assert 1e-5 < np.abs(values[0] - values[1]).max() < 0.02 * np.ptp(values[0]) + 0.01


def test_an_actor_goes_back_to_float32_with_its_weights():
    coarse = ActorNetwork(OBSERVATION_SPEC, ACTION_SPEC, (64,), precision="bfloat16", seed=1)
    coarse.create_variables()
    coarse.trainable_variables[0].assign_add(tf.ones_like(coarse.trainable_variables[0]))
    exact = coarse.in_float32()
    for one, other in zip(exact.variables, coarse.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert exact.in_float32() is exact
    kernel, bias = (v.numpy().astype(np.float64) for v in coarse.trainable_variables[:2])
    hidden = np.maximum(OBSERVATIONS.numpy().astype(np.float64) @ kernel + bias, 0.0)
    kernel, bias = (v.numpy().astype(np.float64) for v in coarse.trainable_variables[2:4])
    location = exact(OBSERVATIONS)[0].distribution.mean()
    np.testing.assert_allclose(location, hidden @ kernel + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compiled", [True, False])
def test_updates_of_bfloat16_follow_those_of_float32(compiled):
    exact, coarse = (
        agent_of(name, critic_layer_norm=True, learning_rate=1e-2)
        for name in ("float32", "bfloat16")
    )
    starts = [weights.numpy() for weights in exact.parameters]
    for agent in (exact, coarse):
        update = tf.function(agent.update, jit_compile=compiled)
        for _ in range(5):
            info = update(batch(agent))
        assert all(loss.dtype == tf.float32 for loss in info.extra)
        assert all(np.isfinite(loss.numpy()) for loss in info.extra)
    moved = [v.numpy() - start for v, start in zip(exact.parameters, starts, strict=True)]
    apart = [(v - w).numpy() for v, w in zip(exact.parameters, coarse.parameters, strict=True)]
    norm = np.sqrt(sum(np.square(part).sum() for part in moved))
    assert norm > 0.1
    assert 0 < np.sqrt(sum(np.square(part).sum() for part in apart)) < 0.2 * norm


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_named_precision_is_taken_at_its_word(name):
    assert precision.resolve(name) == name


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f", "float32"),
        ("fpu avx512f avx512_bf16", "bfloat16"),
        ("fpu amx_bf16 amx_tile", "bfloat16"),
        (None, "float32"),
    ],
)
def test_auto_asks_the_processor(tmp_path, monkeypatch, flags, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    info = tmp_path / "cpuinfo"
    if flags is not None:
        info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t: {flags}\n")
    monkeypatch.setattr(precision, "_CPU_INFO", info)
    assert precision.resolve("auto") == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((9, 0), "bfloat16")])
def test_auto_asks_the_gpu(tmp_path, monkeypatch, capability, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert precision.resolve("auto") == expected
