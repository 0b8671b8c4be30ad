import fakes
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from nppac_tf import hardware
from nppac_tf.agents.actors import ActorNetwork, AnchoredActorNetwork, in_float32
from nppac_tf.agents.batch import Batch
from nppac_tf.agents.critics import CriticNetwork
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig

OBSERVATION_SPEC = tf.TensorSpec([3], tf.float32)
ACTION_SPEC = tensor_spec.BoundedTensorSpec([2], tf.float32, [-1.0, -2.0], [1.0, 5.0])
OBSERVATIONS = tf.random.stateless_normal([64, 3], seed=[0, 1])
ACTIONS = tf.random.stateless_normal([64, 2], seed=[0, 2])
PRIOR = fakes.LinearPrior(3, 2)


def actor_of(kind, precision):
    if kind == "anchored":
        network = AnchoredActorNetwork(
            OBSERVATION_SPEC, ACTION_SPEC, PRIOR.statistics, (64, 64), precision=precision
        )
    else:
        network = ActorNetwork(
            OBSERVATION_SPEC, ACTION_SPEC, (64, 64), kind == "squashed", precision=precision
        )
    network.create_variables()
    # The last layers may be zero at first, which no precision changes.
    for index, variable in enumerate(network.trainable_variables):
        noise = tf.random.stateless_normal(variable.shape, seed=[1, index], stddev=0.05)
        variable.assign_add(noise)
    return network


def critic_of(layer_norm, precision):
    specs = (OBSERVATION_SPEC, ACTION_SPEC)
    return CriticNetwork(specs, (64, 64), layer_norm, precision=precision)


@pytest.mark.parametrize("kind", ["squashed", "unsquashed", "anchored"])
def test_an_actor_in_bfloat16_is_nearly_the_same_with_float32_weights(kind):
    exact, coarse = (actor_of(kind, name) for name in ("float32", "bfloat16"))
    modes = [actor(OBSERVATIONS)[0].mode() for actor in (exact, coarse)]
    assert {mode.dtype for mode in modes} == {tf.float32}
    assert all(variable.dtype == tf.float32 for variable in coarse.variables)
    # bfloat16 has 8 bits: a relative error of up to 2^-9 in each factor of a product.
    assert 1e-5 < np.abs(modes[0] - modes[1]).max() < 0.05
    # Deployment is in float32, with the same weights.
    np.testing.assert_array_equal(in_float32(coarse)(OBSERVATIONS)[0].mode(), modes[0])
    assert in_float32(exact) is exact


@pytest.mark.parametrize("layer_norm", [True, False])
def test_a_critic_in_bfloat16_is_nearly_the_same(layer_norm):
    exact, coarse = (critic_of(layer_norm, name) for name in ("float32", "bfloat16"))
    values = [critic((OBSERVATIONS, ACTIONS))[0] for critic in (exact, coarse)]
    assert {value.dtype for value in values} == {tf.float32}
    assert 1e-5 < np.abs(values[0] - values[1]).max() < 0.02 * np.ptp(values[0]) + 0.01


def batch():
    rewards = tf.random.stateless_normal([64], seed=[0, 4])
    discounts = tf.constant(np.arange(64) % 3 > 0, tf.float32)
    following = tf.random.stateless_normal([64, 3], seed=[0, 3])
    statistics = (PRIOR.statistics(states) for states in (OBSERVATIONS, following))
    return Batch(OBSERVATIONS, tf.tanh(ACTIONS), rewards, discounts, following, *statistics)


@pytest.mark.parametrize("compiled", [True, False])
def test_updates_in_bfloat16_follow_those_in_float32(compiled):
    exact, coarse = (
        NppacAgent.for_task(
            fakes.FakeTask.of(),
            PRIOR,
            AgentConfig(
                actor_layers=(32, 32),
                critic_layers=(32, 32),
                precision=name,
                learning_rate=1e-2,
                reward_scale=1.0,
            ),
        )
        for name in ("float32", "bfloat16")
    )
    starts = [weights.numpy() for weights in exact.parameters]
    for agent in (exact, coarse):
        update = tf.function(agent.update, jit_compile=compiled)
        for _ in range(5):
            info = update(batch())
        assert all(loss.dtype == tf.float32 for loss in info.extra)
        assert all(np.isfinite(loss.numpy()) for loss in info.extra)
    moved = [v.numpy() - start for v, start in zip(exact.parameters, starts, strict=True)]
    apart = [(v - w).numpy() for v, w in zip(exact.parameters, coarse.parameters, strict=True)]
    norm = np.sqrt(sum(np.square(part).sum() for part in moved))
    assert norm > 0.1
    assert 0 < np.sqrt(sum(np.square(part).sum() for part in apart)) < 0.2 * norm


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
    monkeypatch.setattr(hardware, "_CPU_INFO", info)
    assert hardware.resolve_precision("auto") == expected
    assert hardware.resolve_precision("float32") == "float32"
    assert hardware.resolve_precision("bfloat16") == "bfloat16"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((9, 0), "bfloat16")])
def test_auto_asks_the_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert hardware.resolve_precision("auto") == expected
