"""Benchmarks: the count of operations, processes asked in turn, and that what is timed is done."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import figures, machine, profile, serving, startup, suite, workers
from benchmarks.shapes import SHAPES, Shape
from nppac_tf.config import PriorConfig
from nppac_tf.errors import UserError

TINY = Shape(3, 2, 8, (5, 4), (6,), squash=True)
CPU_INFO = """processor\t: 0
model name\t: Maker's Model 7
flags\t\t: fpu avx2 avx512_bf16 amx_tile avx512_bf16_like

processor\t: 1
model name\t: another
flags\t\t: amx_bf16
"""


def test_operations_of_an_update_by_hand():
    # Actor 3-5-4-4: products of 15, 20 and 16. Critic 5-6-1: 30 and 6.
    critics = 51 + 2 * 36 + 2 * 36 + 2 * 36 + 2 * 6
    actor = 51 + 2 * 36 + 2 * (6 + 2 * 6) + 51 + (20 + 16)
    assert TINY.update_flops == 2 * 8 * (critics + actor)


def test_operations_of_the_benchmark_shapes():
    assert SHAPES["A"].update_flops == 2 * 256 * 1_127_168
    assert SHAPES["B"].update_flops == 2 * 1024 * 1_813_248


def test_rate_counts_whole_chunks(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(serving.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(serving.time, "process_time", lambda: 1.5 * now[0])

    def chunk():
        now[0] += 0.4
        return 10

    answer = serving.rate(chunk, 1.0)  # Three chunks, 1.2 s.
    assert answer["rate"] == pytest.approx(25.0)
    assert answer["cores"] == pytest.approx(1.5)


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """Makes workers of a module that notes in a file who did a chunk."""
    monkeypatch.setattr(workers, "_HERE", tmp_path)
    (tmp_path / "serving.py").write_bytes(open(serving.__file__, "rb").read())  # noqa: SIM115
    (tmp_path / "fake.py").write_text(
        "import time\n"
        "def prepare(settings):\n"
        "    print('noise that is no answer')\n"
        "    if settings.get('fails'):\n"
        "        raise RuntimeError('no such thing')\n"
        "    def chunk():\n"
        "        open(settings['log'], 'a').write(settings['name'])\n"
        "        time.sleep(0.02)\n"
        "        return settings['units']\n"
        "    return {'name': settings['name']}, chunk if settings['units'] else None\n"
    )
    log = tmp_path / "log"
    log.touch()

    def make(name, units=1, **settings):
        about = {"name": name, "units": units, "log": str(log), **settings}
        return workers.Worker(name, "fake", about, threads=1)

    make.log = log
    return make


def test_workers_are_asked_in_turn(worker):
    told = []
    with workers.ready([worker("a", 1), worker("b", 100)]) as said:
        assert said == [{"name": "a"}, {"name": "b"}]
        contenders = [worker("c", 1), worker("d", 100)]
        with workers.ready(contenders):
            rounds = workers.race(contenders, 2, 0.01, told.append)
    assert worker.log.read_text() == "cdcdcd"  # A warm-up and two rounds.
    assert told == ["round 1 of 2", "round 2 of 2"]
    assert all(len(answers) == 2 for answers in rounds.values())
    rates = {name: workers.summary(answers) for name, answers in rounds.items()}
    for rate in rates.values():
        assert rate.lowest <= rate.median <= rate.highest
    assert 20 < rates["d"].median / rates["c"].median < 500
    assert all(item._process.returncode == 0 for item in contenders)


def test_a_failed_worker_is_told_in_one_line(worker):
    with (
        pytest.raises(UserError, match=r"benchmark of bad failed \(code 1\): .*no such thing$"),
        workers.ready([worker("good"), worker("bad", fails=True)]),
    ):
        pass


def test_a_measurement_made_once(worker):
    with worker("once", 0) as process:
        assert process.answer() == {"name": "once"}


def test_the_median_and_its_spread():
    rounds = [{"rate": rate, "cores": cores} for rate, cores in ((9, 3), (1, 1), (2, 2))]
    assert workers.summary(rounds) == (2, 1, 9, 2)


def test_more_threads_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    with pytest.raises(UserError, match="threads must be at most 2; got 3"):
        workers.restrict(3)


def test_threads_are_restricted_to_as_many_cores():
    """In a process of its own, since it is for good."""
    program = (
        "import os; from nppac_tf.benchmarks import workers; workers.restrict(1); "
        "print(len(os.sched_getaffinity(0)), workers.available_cores())"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=workers.ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1", "1"]


def test_the_parts_that_measure_memory_are_light():
    """A worker's peak memory on Linux is never below that of the process that began it."""
    program = "import sys, nppac_tf.benchmarks.suite; print('tensorflow' in sys.modules)"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=workers.ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_a_processor_is_described_by_its_first_core():
    assert machine.processor(CPU_INFO) == (
        "Maker's Model 7",
        ["avx2", "avx512_bf16", "amx_tile"],
    )


def test_the_machine_is_not_named():
    text = json.dumps(machine.describe())
    assert machine.platform.node() not in text
    assert str(workers.ROOT) not in text


@pytest.fixture
def measures(monkeypatch):
    """A suite whose processes are replaced by rates that are known."""

    class Known:
        def __init__(self, name, *_):
            self.name = name

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def answer(self):
            return {"versions": {"peers/jax": "1"}} if self.name == "sbx" else {}

    def race(contenders, repeats, seconds, tell):
        rates = {"products_float32": 5.7711e9, "products_bfloat16": 11.5422e9}
        rates |= {"uniform_float32": 4.4}
        return {
            item.name: [{"rate": rates.get(item.name, 4.0) * k, "cores": 1.0} for k in (1, 0.5, 2)]
            for item in contenders
        }

    def measure(module, settings, threads):
        if module == "profile":
            return {"products": 0.9, "rest": 0.1}
        if module == "end_to_end":
            return {"steps_per_second": 7.0}
        return {"fit_seconds": 1e-3 * settings["num_points"]}

    for name, replacement in (("Worker", Known), ("race", race), ("measure", measure)):
        monkeypatch.setattr(suite, name, replacement)
    told = []
    made = suite.Suite(2, 3, 0.1, 2000, (100, 20_000), PriorConfig(), told.append)
    return made, told


def test_the_keys_of_updates(measures, tmp_path):
    results = measures[0].updates(tmp_path)
    assert results.pop("peers/jax") == "1"
    names = (
        *("nppac_float32", "nppac_bfloat16", "uniform_float32", "tf_agents", "sbx", "sb3"),
        *("limit_float32", "limit_bfloat16", "fill_10000", "fill_1000000"),
    )
    assert results.pop("prior_overhead/A") == pytest.approx(0.1)
    assert results.pop("prior_overhead/B") == pytest.approx(0.1)
    assert results.keys() == {
        f"{prefix}{name}"
        for shape in "AB"
        for name in names
        for prefix in (
            f"updates_per_second/{shape}/",
            f"updates_per_second/{shape}/spread/",
            f"cores_used/{shape}/",
        )
    }
    assert results["updates_per_second/A/sb3"] == 4.0
    assert results["updates_per_second/A/spread/sb3"] == [2.0, 8.0]
    # 5.7711e9 / (2 * 256 * 1127168) = 10 updates; their spread is divided likewise.
    assert results["updates_per_second/A/limit_float32"] == pytest.approx(10.0, rel=1e-4)
    assert results["updates_per_second/A/spread/limit_bfloat16"] == pytest.approx(
        [10.0, 40.0], rel=1e-4
    )
    assert not {key for key in measures[0].updates(None) if "sb" in key}


def test_an_exact_prior_is_not_fitted_to_too_many_points(measures):
    made, told = measures
    assert made.priors() == {
        "prior/exact_gp/100/fit_seconds": 0.1,
        "prior/sparse_gp/100/fit_seconds": 0.1,
        "prior/sparse_gp/20000/fit_seconds": 20.0,
    }
    assert "exact_gp: not with more than 10,000 points" in told
    assert made.training() == {
        "env_steps_per_second/pen-binary/float32": 7.0,
        "env_steps_per_second/pen-binary/bfloat16": 7.0,
    }
    assert made.profile()["profile/B/products"] == 0.9


def test_the_table_has_each_figure_with_its_spread(measures):
    results = measures[0].updates(None)
    rows = {row[0]: row[1:] for row in suite.rows(results)}
    assert len(rows) == 18
    assert rows["updates_per_second/B/tf_agents"] == ("4", "2 to 8")


def test_the_figure_shows_what_was_measured(measures):
    results = measures[0].updates(None) | measures[0].priors()
    drawing = figures.benchmark({"machine": {}, **results})
    a, b, costs = drawing.get_axes()
    for axis in (a, b):
        assert [patch.get_width() for patch in axis.patches] == [4.0, 4.0, 4.4, 4.0]
        assert len(axis.get_yticklabels()) == 4
    limits = [line.get_xdata()[0] for line in a.lines[-2:]]
    assert limits == pytest.approx([10.0, 20.0], rel=1e-4)
    sparse = next(line for line in costs.lines if line.get_label() == "sparse GP")
    assert sparse.get_xdata().tolist() == [100, 20_000]
    assert sparse.get_ydata().tolist() == pytest.approx([0.1, 20.0])
    assert len(figures.benchmark(measures[0].priors()).get_axes()) == 1


def test_the_wait_for_the_first_progress_is_timed(tmp_path, monkeypatch):
    """With a launcher that says what it is given, waits, and would go on for long."""
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "train.py").write_text(
        "import sys, time\n"
        "time.sleep(0.3)\n"
        "if '--fail' in sys.argv: sys.exit('error: no such task')\n"
        "print('Fitting the prior ...', flush=True)\n"
        "print('Pre-training the actor: 10 updates', flush=True)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(startup, "ROOT", tmp_path)
    (seconds,) = startup.seconds_to_first_progress([], threads=1, repeats=1)
    assert 0.3 < seconds < 30
    with pytest.raises(UserError, match="ended without training: error: no such task"):
        startup.seconds_to_first_progress(["--fail"], threads=1, repeats=1)


def test_a_chunk_of_the_project_is_its_updates():
    from benchmarks import updates

    for prior in (updates.StandardNormalPrior(3, 2), updates.UniformPrior(3, 2)):
        agent = updates.project_agent(TINY, prior, "float32")
        before = [weights.numpy() for weights in agent.parameters[:-1]]
        chunk = updates.project_updates(agent, updates.filled_replay(TINY, 20), TINY.batch_size)
        assert chunk() == updates.CHUNK
        assert int(agent.train_step_counter) == 2 * updates.CHUNK  # One to compile.
        for old, new in zip(before, agent.parameters[:-1], strict=True):
            assert not np.array_equal(old, new)


@pytest.mark.parametrize("squash", [True, False])
def test_a_chunk_of_tf_agents_is_its_updates(squash):
    from benchmarks import updates

    shape = Shape(3, 2, 8, (5, 4), (6,), squash)
    agent = updates.stock_agent(shape)
    before = [weights.numpy() for weights in agent._actor_network.trainable_variables]
    shapes = [weights.shape for weights in before if weights.ndim == 2]
    # Location and scale are one product for a squashed actor, and two for another.
    assert sorted(shapes) == sorted([(3, 5), (5, 4), *([(4, 4)] if squash else 2 * [(4, 2)])])
    chunk = updates.stock_updates(agent, updates.filled_replay(shape, 20), shape.batch_size)
    assert chunk() == updates.CHUNK
    assert int(agent.train_step_counter) == 2 * updates.CHUNK
    for old, new in zip(before, agent._actor_network.trainable_variables, strict=True):
        assert not np.array_equal(old, new)
    assert float(agent._log_alpha) == pytest.approx(np.log(updates.TEMPERATURE))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_chunk_of_products_counts_its_operations(precision):
    from benchmarks import updates

    settings = {
        "contender": f"products_{precision}",
        "shape": {**vars(TINY), "critic_layers": [6]},
        "threads": 3,
    }
    _, chunk = updates.prepare(settings)
    assert chunk() == 3 * 200 * 2 * 8 * 6 * 6


def test_the_shares_of_a_profile_are_of_products_the_largest_others_and_the_rest():
    durations = {f"Op{size}": size for size in range(1, 11)} | {"_MklFusedMatMul": 40, "MatMul": 5}
    shares = profile.shares(durations)
    assert list(shares) == ["products", *(f"Op{size}" for size in range(10, 2, -1)), "rest"]
    assert shares["products"] == 0.45
    assert shares["rest"] == pytest.approx(0.03)


def test_the_products_are_in_the_profile_of_an_update(monkeypatch):
    monkeypatch.setattr(profile, "_SHOWN", 1000)  # All of them: which are the largest may vary.
    shape = Shape(3, 2, 64, (64,), (64,), squash=True)
    shares, _ = profile.prepare({"shape": dataclasses.asdict(shape)})
    assert sum(shares.values()) == pytest.approx(1.0)
    assert 0.01 < shares["products"] < 0.9
    assert "ResourceApplyAdam" in shares


def test_synthetic_demonstrations_have_the_points_asked_for():
    from benchmarks import prior_costs

    data = prior_costs.synthetic_demonstrations(230, 4, 3)
    assert (data.num_steps, data.num_episodes) == (230, 3)
    assert (data.observation_size, data.action_size) == (4, 3)
    assert np.abs(data.actions).max() <= 1.0


def test_what_a_prior_costs():
    from benchmarks import prior_costs

    config = {"prior": "sparse_gp", "num_inducing_points": 5, "max_fit_iterations": 1}
    settings = {
        "prior": config,
        "num_points": 100,
        "observation_size": 3,
        "action_size": 2,
        "batch_size": 10,
        "seconds": 0.01,
    }
    costs, chunk = prior_costs.prepare(settings)
    assert chunk is None
    assert costs.keys() == {"fit_seconds", "predictions_per_second", "peak_memory_mb"}
    assert all(value > 0 for value in costs.values())
    block = np.ones(2 * prior_costs.peak_memory() // 8)  # Twice as much as ever before.
    assert prior_costs.peak_memory() > block.nbytes
