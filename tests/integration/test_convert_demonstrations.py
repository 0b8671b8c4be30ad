"""Conversion of demonstrations as a user runs it."""

import numpy as np
import pytest
from launching import Launchers

from nppac_tf.demonstrations import load_demonstrations, load_recording


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("convert")
    arrays = {
        "observations": np.random.default_rng(0).normal(size=(3, 8, 11)),
        "actions": np.random.default_rng(1).uniform(-1, 1, (3, 8, 3)),
    }
    np.savez(place / "stacked.npz", **arrays)
    return place


def convert(folder, *arguments):
    datasets = {"MINARI_DATASETS_PATH": str(folder / "minari")}
    return Launchers(folder).run(
        "convert_demonstrations", "--demonstrations=stacked.npz", *arguments, environment=datasets
    )


@pytest.mark.parametrize(
    ("output", "arguments", "path"),
    [
        ("mine.npz", [], "mine.npz"),
        ("lerobot:mine", ["--fps=25"], "mine"),
        ("minari:toy/mine-v0", ["--task=hopper"], "minari/toy/mine-v0"),
    ],
)
def test_demonstrations_are_converted(folder, output, arguments, path):
    outcome = convert(folder, f"--output={output}", *arguments)
    assert (outcome.code, outcome.errors) == (0, "")
    assert outcome.output.startswith("Demonstrations('stacked': 3 episodes, 24 steps, ")
    assert outcome.output.endswith(f"{path}\n")
    written = load_demonstrations(folder / path)
    assert written.fingerprint() == load_demonstrations(folder / "stacked.npz").fingerprint()


def test_episodes_are_chosen_by_their_numbers(folder):
    everything = list(load_demonstrations(folder / "stacked.npz").episodes())
    for number, (arguments, kept) in enumerate(
        {
            ("--episodes=0,2",): [0, 2],
            ("--leave_out=1-1",): [0, 2],
            ("--episodes=1-2", "--leave_out=2"): [1],
        }.items()
    ):
        outcome = convert(folder, f"--output=part{number}.npz", *arguments)
        assert (outcome.code, outcome.errors) == (0, "")
        written = list(load_demonstrations(folder / f"part{number}.npz").episodes())
        assert len(written) == len(kept)
        for (states, actions), index in zip(written, kept, strict=True):
            np.testing.assert_array_equal(states, everything[index][0])
            np.testing.assert_array_equal(actions, everything[index][1])


def test_minari_stores_the_environment(folder):
    outcome = convert(folder, "--output=minari:toy/hopper-v0", "--task=hopper")
    assert outcome.code == 0
    assert load_recording(folder / "minari/toy/hopper-v0").environment_id == "Hopper-v5"
    assert "in 3 of 3 episodes, rewards are not known and nan\n" in outcome.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--output must be given; got none"),
        (["--output=mine.hdf5"], "output must be a file that ends in .npz, minari:ID or lerobot:"),
        (["--output=lerobot:new"], "fps must be a positive number of steps per second; got none"),
        (
            ["--output=a.npz", "--episodes=two"],
            "--episodes must be numbers and ranges, such as 0-4",
        ),
        (
            ["--output=a.npz", "--episodes=3"],
            "episodes must be of the 3 in stacked, numbered from 0",
        ),
        (
            ["--output=a.npz", "--episodes=2-0"],
            "--episodes must have ranges that rise, such as 0-4",
        ),
        (["--output=a.npz", "--leave_out=9"], "episodes must be of the 3 in stacked, numbered"),
        (["--output=a.npz", "--leave_out=0-2"], "episodes must be of the 3 in stacked, numbered"),
        (["--output=minari:a/b-v0", "--task=ant"], "data must have observation and action size"),
    ],
)
def test_mistakes_are_told_in_one_line(folder, arguments, message):
    outcome = convert(folder, *arguments)
    assert outcome.code == 1
    assert outcome.errors.startswith(f"error: {message}")
    assert outcome.errors.count("\n") == 1
