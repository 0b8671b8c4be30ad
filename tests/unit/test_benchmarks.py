"""Benchmarks: the count of operations, and that the work that is timed is done."""

import resource
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import __main__ as main
from benchmarks import figures, gpu_check, measuring, prior_costs, updates
from benchmarks.shapes import CHUNK, SHAPES, TEMPERATURE, Shape
from nppac_tf.config import PriorConfig

TINY = Shape(3, 2, 8, (5, 4), (6,), squash=True)


def test_operations_of_an_update_by_hand():
    # Actor 3-5-4-4: products of 15, 20 and 16. Critic 5-6-1: 30 and 6.
    critics = 51 + 2 * 36 + 2 * 36 + 2 * 36 + 2 * 6
    actor = 51 + 2 * 36 + 2 * (6 + 2 * 6) + 51 + (20 + 16)
    assert TINY.update_flops == 2 * 8 * (critics + actor)
    assert SHAPES["B"].update_flops == 2 * 1024 * 1_813_248


def test_a_rate_counts_whole_chunks(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])

    def chunk():
        now[0] += 0.4
        return 10

    assert measuring.rate(chunk, 1.0) == pytest.approx(25.0)  # Three chunks in 1.2 s.


def test_peers_run_without_the_packages_of_the_project():
    program = "import sys, benchmarks.peers; print(sorted(sys.modules))"
    command = [sys.executable, "-c", program]
    modules = subprocess.run(
        command, cwd=measuring.ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "'nppac_tf'" not in modules
    assert "'tensorflow'" not in modules


def test_a_failed_measurement_gives_its_last_error():
    with pytest.raises(RuntimeError, match=r"^peers --contender=none failed: .*invalid choice"):
        measuring.measure("peers", "--contender=none")


def test_the_summary_of_a_shape():
    rates = {
        "uniform_float32": [2.2, 4.4, 8.8],
        "nppac_float32": [2.0, 4.0, 8.0],
        "limit_float32": [10.0, 30.0, 20.0],
        "limit_bfloat16": [20.0, 20.0, 20.0],
    }
    results = main.summarize("A", rates) | main.summarize("B", rates)
    assert results["prior_overhead/A"] == pytest.approx(0.1)
    assert results["updates_per_second/A/limit_float32"] == 20.0
    assert results["updates_per_second/A/spread/limit_float32"] == [10.0, 30.0]
    assert len(figures.draw_updates(results).axes) == 2


def test_a_chunk_of_the_project_is_its_updates():
    agent = updates.project_agent(TINY, updates.StandardNormalPrior(3, 2), "float32")
    before = [weights.numpy() for weights in agent.parameters[:-1]]
    chunk = updates.project_updates(agent, updates.filled_replay(TINY, 20), TINY.batch_size)
    assert chunk() == CHUNK
    assert int(agent.train_step_counter) == 2 * CHUNK  # One chunk to compile.
    for old, new in zip(before, agent.parameters[:-1], strict=True):
        assert not np.array_equal(old, new)


def test_a_chunk_of_tf_agents_is_its_updates():
    agent = updates.stock_agent(TINY)
    before = [weights.numpy() for weights in agent._actor_network.trainable_variables]
    chunk = updates.stock_updates(agent, updates.filled_replay(TINY, 20), TINY.batch_size)
    assert chunk() == CHUNK
    for old, new in zip(before, agent._actor_network.trainable_variables, strict=True):
        assert not np.array_equal(old, new)
    assert float(agent._log_alpha) == pytest.approx(np.log(TEMPERATURE))


@pytest.mark.parametrize(("squash", "heads"), [(True, [(4, 4)]), (False, 2 * [(4, 2)])])
def test_the_layers_of_tf_agents(squash, heads):
    """Location and scale are one product for a squashed actor, and two for another."""
    agent = updates.stock_agent(Shape(3, 2, 8, (5, 4), (6,), squash))
    weights = agent._actor_network.trainable_variables
    shapes = [tuple(weight.shape) for weight in weights if len(weight.shape) == 2]
    assert sorted(shapes) == sorted([(3, 5), (5, 4), *heads])


@pytest.mark.parametrize("contender", ["limit_float32", "limit_bfloat16"])
def test_a_chunk_of_products_is_counted_in_updates(contender):
    chunk = updates.contender_updates(contender, TINY)
    operations = chunk() * TINY.update_flops
    assert operations % (200 * 2 * 8 * 6 * 6) == pytest.approx(0.0)


def test_the_costs_of_a_prior():
    config = PriorConfig(prior="sparse_gp", num_inducing_points=5)
    costs = prior_costs.measure_prior(config, 100, 3, 2, seconds=0.01)
    assert all(value > 0 for value in costs.values())
    assert costs["prior_mb"] < costs["export_mb"] < costs["peak_memory_mb"]
    peak = prior_costs.peak_memory()
    # Measured afterwards, and the kernel counts pages of threads late.
    assert 1e8 < peak <= 1.01 * 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = prior_costs.synthetic_demonstrations(230, 4, 3)
    assert (data.num_steps, data.num_episodes, data.action_size) == (230, 3, 3)
    assert np.abs(data.actions).max() <= 1.0


def test_the_check_of_a_gpu_compares_with_the_cpu(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "SHAPES", {"A": TINY})
    monkeypatch.setattr(gpu_check, "rate", lambda chunk, _: chunk())
    monkeypatch.setattr(gpu_check, "_NUM_TRANSITIONS", 100)
    monkeypatch.setattr(gpu_check, "_TOLERANCE", 1.0)
    assert gpu_check.check("CPU")
    compared, *timed = capsys.readouterr().out.splitlines()
    assert compared.startswith("shape A: losses differ from the CPU's by at most ")
    assert [line.partition(":")[0] for line in timed] == ["shape A, float32", "shape A, bfloat16"]
    monkeypatch.setattr(gpu_check, "_TOLERANCE", -1.0)
    assert not gpu_check.check("CPU")


def test_the_check_of_a_gpu_needs_none(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check.tf.config, "list_logical_devices", lambda _: [])
    gpu_check.main()
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("No GPU that TensorFlow sees: nothing checked.")
