import csv
import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, RunConfig, TrainingConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import make_task
from nppac_tf.errors import UserError
from nppac_tf.evaluation import rollouts
from nppac_tf.priors import GPPrior, UniformPrior, load_prior, rescale
from nppac_tf.runs.config_file import require_resumable
from nppac_tf.runs.directory import RunDirectory
from nppac_tf.serving import runtimes
from nppac_tf.training.loop import EVALUATION_COLUMNS, TRAINING_COLUMNS
from nppac_tf.training.replay import Replay

NAN = float("nan")
CLOCKS = ("wall_seconds", "train/updates_per_second")
AGENT = AgentConfig(actor_layers=(8,), critic_layers=(8,), num_critics=2)
CONFIG = RunConfig(
    task="Pendulum-v1", demonstrations="folder/expert.npz", agent=AGENT, training=TrainingConfig()
)
OBSERVATIONS = np.tanh(np.random.default_rng(0).normal(size=(5, 3))).astype(np.float32)


def row(steps, **more):
    values = dict.fromkeys(EVALUATION_COLUMNS, 0.5)
    return {**values, "env_steps": steps, **more}


def without_clocks(values):
    return {name: value for name, value in values.items() if name not in CLOCKS}


def with_training(steps):
    return row(steps, **dict.fromkeys(TRAINING_COLUMNS, 1.5))


@pytest.fixture
def demonstrations():
    return Demonstrations(OBSERVATIONS, OBSERVATIONS[:, :1], [2, 5], name="expert")


@pytest.fixture
def directory(tmp_path, demonstrations):
    """Holds a run."""
    directory = RunDirectory(tmp_path / "run")
    directory.begin(CONFIG, demonstrations)
    return directory


@pytest.fixture
def task():
    return make_task("Pendulum-v1")


def table(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def scalars(folder):
    """(tag, step) -> value over all event files."""
    found = {}
    for file in folder.glob("events.out.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    return found


def test_a_configuration_comes_back(directory):
    assert directory.config() == CONFIG


def test_what_is_written_of_a_run(directory, demonstrations):
    content = json.loads((directory.path / "config.json").read_text())
    assert content["demonstrations"] == {
        "name": "expert",
        "episodes": 2,
        "steps": 5,
        "fingerprint": demonstrations.fingerprint(),
    }
    assert content["versions"]["python"].startswith("3.1")
    assert content["versions"]["tensorflow"] == tf.__version__


def test_a_prior_is_kept_with_its_calibrated_novelty(directory, demonstrations):
    assert directory.load_novelty() is None
    prior = GPPrior.fit(demonstrations)
    for _ in range(2):  # A resumed run keeps what it has.
        directory.keep_prior(prior, demonstrations)
        assert directory.load_novelty().summary["held_out_steps"] == 5
    content = json.loads((directory.path / "config.json").read_text())
    assert content["prior"] == {"class": "GPPrior", **prior.summary}
    kept = load_prior(directory.prior).statistics(OBSERVATIONS)
    np.testing.assert_array_equal(kept.scale, prior.statistics(OBSERVATIONS).scale)


def test_a_run_is_not_written_over(tmp_path, directory):
    RunDirectory(tmp_path / "another").require_new()
    with pytest.raises(UserError, match=r"already holds a run: pass --resume .* --output_dir"):
        directory.require_new()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"task": "Hopper-v5"}, "task must be 'Pendulum-v1' to resume .*run; got 'Hopper-v5'"),
        (
            {"agent": dataclasses.replace(AGENT, actor_layers=(8, 9))},
            r"actor_layers must be \(8,\) to resume .*; got \(8, 9\)",
        ),
        (
            {"training": TrainingConfig(num_env_steps=10_000)},
            "num_env_steps must be 50000 or more to resume .*; got 10000",
        ),
        (
            {"training": TrainingConfig(seed=1), "reward": "negative"},
            "reward must be 'binary' to resume",
        ),
    ],
)
def test_the_first_difference_is_named(directory, change, complaint):
    with pytest.raises(UserError, match=complaint):
        require_resumable(directory.config(), dataclasses.replace(CONFIG, **change), directory.path)


def test_the_task_may_be_called_by_its_other_name(directory):
    hopper, other = (dataclasses.replace(CONFIG, task=name) for name in ("hopper", "Hopper-v5"))
    require_resumable(hopper, other, directory.path)
    with pytest.raises(UserError, match=r"task must be 'hopper' to resume .*; got 'Hopper-v4'"):
        require_resumable(hopper, dataclasses.replace(CONFIG, task="Hopper-v4"), directory.path)


def test_the_demonstrations_may_lie_elsewhere(directory):
    moved = dataclasses.replace(directory.config(), demonstrations="/elsewhere/pen.npz")
    require_resumable(directory.config(), moved, directory.path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config": {}}', '{"config": {"task": 1}}'])
def test_what_is_no_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="not the configuration of a run"):
        RunDirectory(tmp_path).config()


def test_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no run at .*nowhere"):
        RunDirectory(tmp_path / "nowhere").config()


def test_the_table_is_whole_after_each_row(directory):
    writer = directory.observer()
    writer.on_evaluation(row(0))
    assert table(directory.metrics) == [
        [name for name in EVALUATION_COLUMNS if name not in CLOCKS],
        ["0", *["0.5"] * 5],
    ]
    writer.on_evaluation({**with_training(2000), "monitor/kl_0": 2.5})
    assert table(directory.metrics)[0][-1] == "monitor/kl_0"
    assert [row[-1] for row in table(directory.metrics)[1:]] == ["", "2.5"]
    assert table(directory.timings) == [
        ["env_steps", *CLOCKS],
        ["0", "0.5", ""],
        ["2000", "0.5", "1.5"],
    ]
    later = {**without_clocks(with_training(2000)), "monitor/kl_0": 2.5}
    assert directory.rows() == [without_clocks(row(0)), later]


def test_a_resumed_run_restarts_the_table(directory):
    writer = directory.observer()
    for steps in (0, 2000, 4000):
        writer.on_evaluation(with_training(steps))
    # The checkpoint was of 2000 steps; the loop repeats its rows, and continues.
    again = directory.observer()
    assert len(directory.rows()) == 3
    for steps in (0, 2000):
        again.on_evaluation(with_training(steps))
    again.on_evaluation({**with_training(4000), "eval/return": 7.0})
    assert [r["eval/return"] for r in directory.rows()] == [0.5, 0.5, 7.0]
    written = scalars(directory.path / "tensorboard")
    assert written["eval/return", 4000] == 7.0
    assert written["eval/return", 2000] == 0.5


def test_scalars_of_evaluations_and_of_every_epoch(directory):
    writer = directory.observer()
    writer.on_evaluation(row(0, **{"eval/any_success": NAN}))
    for steps in (100, 200):
        writer.on_progress("training", steps, 1000, {"train/kl": 1.0})
        writer.on_epoch({"env_steps": steps, "train/kl": steps / 10})
    written = scalars(directory.path / "tensorboard")
    assert {key: v for key, v in written.items() if key[0] == "train/kl"} == {
        ("train/kl", 100): 10.0,
        ("train/kl", 200): 20.0,
    }
    assert written["eval/return", 0] == 0.5
    assert ("eval/any_success", 0) not in written
    assert tf.summary.experimental.get_step() is None


def test_provenance_names_no_folder(directory):
    writer = directory.observer()
    writer.on_evaluation(row(0, **{"eval/any_success": NAN, "eval/return": 3.0}))
    provenance = directory.provenance()
    assert provenance["config"]["demonstrations"] == "expert.npz"
    assert provenance["metrics"]["eval/return"] == 3.0
    json.dumps(provenance, allow_nan=False)
    assert "folder" not in json.dumps(provenance)


def test_provenance_names_no_folder_of_several_demonstrations(directory, demonstrations):
    config = dataclasses.replace(CONFIG, demonstrations="folder/expert.npz,/folder/other")
    directory.begin(config, demonstrations)
    assert directory.provenance()["config"]["demonstrations"] == "expert.npz,other"


# Policies and agents.


def make(task, seed=0, prior=None, config=AGENT):
    """An agent whose weights are not those that a new agent has."""
    agent = NppacAgent.for_task(task, prior or UniformPrior(3, 1), config, seed)
    for network in (agent.actor_network, agent.deployed_actor):
        for weights in network.variables:
            weights.assign_add(0.1 * tf.ones_like(weights))
    return agent


def actions(agent_or_policy):
    policy = getattr(agent_or_policy, "policy", None)
    return (rollouts.as_policy_function(policy) if policy else agent_or_policy)(OBSERVATIONS)


def save(directory, agent, updates):
    agent.train_step_counter.assign(updates)
    checkpoint = directory.checkpoint(agent, Replay(3, 1, 10))
    checkpoint.save({"env_steps": 5})
    checkpoint.wait()


@pytest.mark.parametrize("prior", [UniformPrior, GPPrior])
def test_policies_of_a_run(directory, task, demonstrations, prior):
    """The last is that of the newer of export and checkpoint; the best is exported at the end."""
    for which, complaint in (("last", "neither a checkpoint nor a policy"), ("best", "policy")):
        with pytest.raises(UserError, match=complaint):
            directory.load_policy(task, which)
    fitted = GPPrior.fit(demonstrations) if prior is GPPrior else UniformPrior(3, 1)
    directory.keep_prior(fitted, demonstrations)
    prior = rescale(fitted, CONFIG.prior)
    best, concluded, saved = (make(task, seed, prior) for seed in range(3))
    for updates in (2, 3):  # Each replaces the one before.
        best.train_step_counter.assign(updates)
        directory.keep_best(best)
    directory.conclude(concluded, task, [row(0), with_training(100)], "a run")
    assert directory.learning_curve.read_bytes().startswith(b"\x89PNG")
    exported = runtimes.load_policy(directory.best_policy)
    # An export sums in float64.
    np.testing.assert_allclose(actions(exported), actions(best), atol=2e-4)
    expected = {"last": (concluded, 0), "best": (best, 3)}
    for _ in range(2):
        for which, (agent, updates) in expected.items():
            policy, found = directory.load_policy(task, which)
            assert found == updates
            np.testing.assert_allclose(actions(policy), actions(agent), atol=2e-4)
        save(directory, saved, updates=5)
        expected["last"] = (saved, 5)
    loaded, home = directory.load_agent()
    assert home.name == task.name
    assert int(loaded.train_step_counter) == 5
    np.testing.assert_array_equal(actions(loaded), actions(saved))
    np.testing.assert_array_equal(actions(directory.load_agent("best")[0]), actions(best))


def test_steps_are_counted_from_the_updates(tmp_path, demonstrations):
    directory = RunDirectory(tmp_path / "slow")
    training = dataclasses.replace(CONFIG.training, updates_per_step=0.5, steps_per_epoch=40)
    directory.begin(dataclasses.replace(CONFIG, training=training), demonstrations)
    assert directory.steps_after(21) == 40
    observer = directory.observer()
    for steps in (0, 80):
        observer.on_evaluation({**row(steps), "updates": 1000 + steps / 2})
    assert [directory.steps_after(1000 + updates) for updates in (0, 20, 40)] == [0, 40, 80]


def test_an_agent_needs_a_prior_and_a_checkpoint_that_fits(directory, task, demonstrations):
    with pytest.raises(UserError, match=r"has no prior yet: .* pass --resume"):
        directory.load_agent()
    directory.keep_prior(UniformPrior(3, 1), demonstrations)
    with pytest.raises(UserError, match="no whole checkpoint yet"):
        directory.load_agent()
    save(directory, make(task, config=dataclasses.replace(AGENT, actor_layers=(9,))), updates=1)
    with pytest.raises(UserError, match="does not fit the run's configuration"):
        directory.load_agent()


# Resuming.


def test_other_demonstrations_than_the_runs_are_refused(directory, demonstrations):
    assert directory.resume(CONFIG, demonstrations) == []
    with pytest.raises(UserError, match=r"demonstrations must be those that .* began with"):
        directory.resume(CONFIG, demonstrations.select([1]))


def test_a_resumed_run_reports_other_versions_and_keeps_its_own(directory, demonstrations):
    path = directory.path / "config.json"
    content = json.loads(path.read_text())
    content["versions"]["tensorflow"] = "1.0"
    path.write_text(json.dumps(content))
    for _ in range(2):
        (notice,) = directory.resume(CONFIG, demonstrations)
        assert notice.startswith(f"tensorflow is {tf.__version__} and was 1.0")


def test_a_run_made_longer_is_noted(directory, demonstrations):
    training = dataclasses.replace(CONFIG.training, num_env_steps=99_000)
    directory.resume(dataclasses.replace(CONFIG, training=training), demonstrations)
    assert directory.config().training.num_env_steps == 99_000


@pytest.mark.parametrize("name", ["demonstrations", "versions"])
def test_a_run_whose_description_is_cut_is_a_users_error(directory, demonstrations, name):
    path = directory.path / "config.json"
    content = json.loads(path.read_text())
    content[name] = None
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not the configuration of a run"):
        directory.resume(CONFIG, demonstrations)


def test_one_process_writes_to_a_run(tmp_path):
    program = (
        "import sys\n"
        "from nppac_tf.runs.directory import RunDirectory\n"
        f"with RunDirectory({str(tmp_path)!r}).locked():\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    directory = RunDirectory(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=pathlib.Path(__file__).parents[2],
    ) as other:
        try:
            assert other.stdout.readline() == b"locked\n"
            with pytest.raises(UserError, match=f"another process .*process {other.pid} on"):
                directory.locked().__enter__()
        finally:
            other.kill()  # However a process ends, its lock ends with it.
    with directory.locked():
        pass
    directory.require_new()


def test_a_folder_that_cannot_be_written_is_a_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="must be one that can be written to"):
        RunDirectory(tmp_path / "file").locked().__enter__()
