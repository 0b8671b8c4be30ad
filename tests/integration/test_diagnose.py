"""launch/diagnose.py as a user runs it, on a few synthetic episodes."""

import csv
import json

import numpy as np
import pytest
from launching import Launchers

from nppac_tf.config import PriorConfig, RunConfig, TrainingConfig
from nppac_tf.demonstrations import Demonstrations, save_demonstrations

QUICK = (
    "--demonstrations=expert.npz",
    "--prior_cache=none",
    "--network_layers=8",
    "--network_epochs=2",
    "--num_states=20",
)


@pytest.fixture(scope="module")
def launchers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diagnose")
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(5):
        angle, speed = rng.uniform(-3, 3, 20), rng.uniform(-8, 8, 20)
        states = np.stack([np.cos(angle), np.sin(angle), speed], axis=1)
        episodes.append((states, np.clip(-states[:, 1:2] + 0.05 * rng.normal(size=(20, 1)), -2, 2)))
    save_demonstrations(
        Demonstrations.from_episodes(episodes, name="expert"), folder / "expert.npz"
    )
    return Launchers(folder)


def succeed(launchers, *arguments):
    outcome = launchers.run("diagnose", *arguments)
    assert (outcome.code, outcome.errors) == (0, "")
    return outcome.output.splitlines()


def test_c1_needs_no_demonstrations(launchers):
    lines = succeed(launchers, "--claim=C1", "--output_dir=out")
    assert lines[0] == "C1: loading"
    assert lines[-3:] == ["out/c1.json", "out/c1.csv", "out/c1.png"]
    numbers = json.loads((launchers.folder / "out/c1.json").read_text())
    assert numbers["infinite_where_mass_vanishes"]
    assert numbers["largest_relative_error_of_integration"] < 1e-4


def test_c2_and_c5_come_together(launchers):
    lines = succeed(
        launchers,
        *QUICK,
        "--claim=C5",
        "--task=Pendulum-v1",
        "--priors=gaussian_network,gp",
        "--num_episodes=1",
        "--output_dir=out",
    )
    assert "measuring gp" in lines
    folder = launchers.folder / "out"
    for name in ("c2.png", "c2_maps.png", "c5.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((folder / "c5.json").read_text())
    assert numbers["demonstrations"]["held_out_episodes"] == 1
    assert set(numbers["classes"]) == {"gaussian_network", "gp"}
    medians = json.loads((folder / "c2.json").read_text())["classes"]["gp"]["median_scale"]
    assert medians["far"] > medians["fitted"] > 0
    assert {"own", "random"} <= medians.keys()
    with open(folder / "c2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (far,) = (r for r in rows if (r["prior"], r["states"]) == ("gp", "far"))
    assert float(far["median"]) == pytest.approx(medians["far"], rel=1e-4)


def test_c4_finds_the_slope(launchers):
    succeed(launchers, *QUICK, "--claim=C4", "--prior=gaussian_network", "--output_dir=out")
    numbers = json.loads((launchers.folder / "out/c4.json").read_text())
    assert numbers["slope"] == pytest.approx(-2.0, abs=0.1)


def test_c9_compares_one_demonstration_with_all(launchers):
    lines = succeed(
        launchers,
        *QUICK,
        *("--claim=C9", "--task=Pendulum-v1", "--prior=gaussian_network", "--output_dir=out"),
        *("--num_demonstrations=1,2", "--num_subsets=2", "--num_episodes=2"),
    )
    assert lines[-3:] == ["out/c9.json", "out/c9.csv", "out/c9.png"]
    numbers = json.loads((launchers.folder / "out/c9.json").read_text())
    assert numbers["episodes"] == [1, 2]
    assert np.shape(numbers["mean_by_subset"]["gaussian_network"]) == (2, 2)


def test_c8_puts_runs_of_two_classes_together(launchers):
    for name, times in (("gp", (0.5, 0.6)), ("ensemble", (0.5,))):
        folder = launchers.folder / "runs" / name
        folder.mkdir(parents=True)
        config = RunConfig(
            prior=PriorConfig(prior=name),
            training=TrainingConfig(num_env_steps=1000, critic_warmup_steps=0),
        )
        (folder / "config.json").write_text(json.dumps({"config": config.to_dict()}))
        rows = [f"{1000 * index},1.0,{time}" for index, time in enumerate(times)]
        header = "env_steps,eval/any_success,eval/time_at_goal"
        (folder / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")
    lines = succeed(launchers, "--claim=C8", "--runs=runs/gp,runs/ensemble", "--output_dir=out")
    assert lines[1] == (
        "runs/ensemble is unfinished (0 of 1,000 steps): runs are compared up to step 0; "
        "leave it out to compare longer"
    )
    assert lines[-3:] == ["out/c8.json", "out/c8.csv", "out/c8.png"]
    numbers = json.loads((launchers.folder / "out/c8.json").read_text())
    assert numbers["by_prior"]["gp"]["eval/time_at_goal"]["last"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--output_dir=x",), "--claim must be one of C1, C2, C3, C4, C5, C8, C9; got none"),
        (("--claim=C1",), "--output_dir must be a folder to write; got none"),
        (("--claim=C3", "--output_dir=x"), "--runs must name runs made with --fixed_scale"),
        (("--claim=C8", "--output_dir=x"), "--runs must name runs of two or more priors for C8"),
        (("--claim=C9", "--output_dir=x"), "--task must be given for C9"),
        (
            ("--claim=C2", "--output_dir=x", "--priors=uniform"),
            "--priors must be among gaussian_network, ensemble",
        ),
        (
            ("--claim=C4", "--output_dir=x", "--prior=uniform"),
            "--prior must be one that is fitted; got 'uniform'",
        ),
    ],
)
def test_a_mistake_is_one_quick_line(launchers, arguments, complaint):
    outcome = launchers.run("diagnose", *arguments, quick=True)
    assert outcome.code == 1
    (line,) = outcome.errors.splitlines()
    assert line.startswith(f"error: {complaint}")
