"""Runs that start from the policy, critics and prior of another."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from launching import Launchers

from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.runs.directory import RunDirectory
from nppac_tf.training import checkpoints

SMALL = (
    *("--task=Pendulum-v1", "--demonstrations=expert.npz", "--actor_layers=8", "--critic_layers=8"),
    *("--num_environments=2", "--steps_per_epoch=50", "--eval_interval=50", "--eval_episodes=2"),
    *("--checkpoint_interval=50", "--critic_warmup_steps=0", "--annealing_steps=100"),
    *("--batch_size=8", "--num_env_steps=100", "--output_dir=run"),
)


def expert(seed, size=3):
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(60, size))
    return Demonstrations(states, np.tanh(-states[:, 1:2]), [20, 40, 60], name="expert")


@pytest.fixture(scope="module")
def launchers(tmp_path_factory):
    """A folder with a run of two epochs, its demonstrations, and others."""
    folder = tmp_path_factory.mktemp("from_run")
    save_demonstrations(expert(0), folder / "expert.npz")
    save_demonstrations(expert(1), folder / "more.npz")
    save_demonstrations(expert(2, size=2), folder / "car.npz")
    launchers = Launchers(folder)
    succeed(launchers, *SMALL)
    return launchers


def succeed(launchers, *arguments):
    outcome = launchers.run("train", "--prior_cache=none", *arguments)
    assert (outcome.code, outcome.errors) == (0, "")
    return outcome.output


def rows(launchers, name):
    return RunDirectory(launchers.folder / name).rows()


def variables(folder):
    """Learned values of the newest checkpoint, by name."""
    path = str(checkpoints.latest(folder / "checkpoints") / "variables")
    names = [name for name, _ in tf.train.list_variables(path) if "OBJECT_GRAPH" not in name]
    return {name: tf.train.load_variable(path, name) for name in names}


def test_a_run_starts_where_another_ended(launchers):
    output = succeed(launchers, "--from_run=run", "--num_env_steps=0", "--output_dir=same")
    assert "after 100 updates; its prior is kept" in output
    assert "Fitting the prior" not in output
    ended, (begun,) = rows(launchers, "run")[-1], rows(launchers, "same")
    assert begun["eval/return"] == ended["eval/return"]
    assert begun["updates"] == ended["updates"] == 100
    folders = [launchers.folder / name for name in ("run", "same")]
    had, have = map(variables, folders)
    compared = [name for name in had if "optimizer" not in name]
    assert len(compared) > 50
    for name in compared:  # The temperature goes through the configuration.
        np.testing.assert_allclose(have[name], had[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert any((have[name] != had[name]).any() for name in had if "optimizer" in name)
    assert np.exp(have["log_alpha/.ATTRIBUTES/VARIABLE_VALUE"]) == pytest.approx(0.001, rel=1e-5)
    content = json.loads((folders[1] / "config.json").read_text())
    assert content["from_run"] == {
        "run": str(folders[0]),
        "updates": 100,
        "prior": "kept",
    }
    assert content["config"]["agent"]["actor_layers"] == [8]
    assert content["config"]["agent"]["temperature"] == pytest.approx(0.001, rel=1e-5)
    assert RunDirectory(folders[1]).provenance()["from_run"]["run"] == "run"


def test_a_prior_is_fitted_again_to_other_demonstrations_and_the_run_is_resumed(launchers):
    folder = launchers.folder
    shutil.copytree(folder / "run", folder / "source")
    arguments = ("--from_run=source", "--demonstrations=more.npz", "--temperature=0.5")
    output = succeed(launchers, *arguments, "--reward_scale=3", "--output_dir=more")
    assert "its prior is fitted again" in output
    assert "Fitting the prior" in output
    assert rows(launchers, "more")[0]["updates"] == 100
    longer = ("--resume", "--num_env_steps=150", "--output_dir=more")
    outcome = launchers.run("train", *longer, "--from_run=run")
    assert outcome.code == 1
    assert f"from_run must be {folder}/source to resume more; got run" in outcome.errors
    shutil.copytree(folder / "more", folder / "early")
    (folder / "source").rename(folder / "gone")
    try:
        succeed(launchers, *longer, *arguments)
        assert [row["updates"] for row in rows(launchers, "more")] == [100, 150, 200, 250]
        scale = variables(folder / "more")["reward_scale/.ATTRIBUTES/VARIABLE_VALUE"]
        assert scale == 3
        # Stopped before its first checkpoint, it starts from the same weights.
        for name in ("checkpoints", "metrics.csv", "prior.npz", "novelty.npz"):
            path = folder / "early" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        succeed(launchers, "--resume", "--output_dir=early")
    finally:
        (folder / "gone").rename(folder / "source")
    for one, other in zip(rows(launchers, "early"), rows(launchers, "more"), strict=False):
        assert one["eval/return"] == other["eval/return"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--from_run=nowhere",), "--from_run must be a file or folder that exists"),
        (("--from_run=run/policy",), "run/policy is an export, which has no critics"),
        (("--from_run=run", "--output_dir=run"), "run already holds a run"),
        (
            ("--from_run=run", "--actor_layers=9"),
            "actor_layers must be (8,) to start from run; got (9,)",
        ),
        (("--from_run=run", "--prior=uniform"), "prior must be 'gp' to start from run"),
        (
            ("--from_run=run", "--task=MountainCarContinuous-v0", "--demonstrations=car.npz"),
            "task must have observation and action size (3, 1) to start from run; got (2, 1) of",
        ),
    ],
)
def test_a_source_that_does_not_fit_is_one_line(launchers, arguments, complaint):
    outcome = launchers.run("train", "--output_dir=refused", *arguments)
    assert outcome.code == 1
    assert complaint in outcome.errors
    assert outcome.errors.count("\n") == 1
    assert not (launchers.folder / "refused" / "config.json").exists()


def test_a_run_without_a_checkpoint_is_one_line(launchers):
    folder = launchers.folder
    shutil.copytree(folder / "run", folder / "young")
    shutil.rmtree(folder / "young" / "checkpoints")
    outcome = launchers.run("train", "--from_run=young", "--output_dir=refused")
    assert outcome.code == 1
    assert outcome.errors == "error: young has no whole checkpoint yet: train longer\n"
