"""The doctor as a user runs it."""

import json
import re

import h5py
import numpy as np
import pytest
from launching import Launchers
from matplotlib import image

from nppac_tf import environments
from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.evaluation import rollouts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Demonstrations of a hopper that falls, and defective copies of them."""
    place = tmp_path_factory.mktemp("doctor")
    generator = np.random.default_rng(0)
    task = environments.make_task("hopper")
    episodes = rollouts.evaluate(
        lambda observations: generator.uniform(-1, 1, (len(observations), task.action_size)),
        task,
        num_episodes=6,
        record=True,
    )
    pairs = list(zip(episodes.observations, episodes.actions, strict=True))
    save_demonstrations(Demonstrations.from_episodes(pairs), place / "sound.npz")
    doubled = [(observations, 2 * actions) for observations, actions in pairs]
    save_demonstrations(Demonstrations.from_episodes(doubled), place / "doubled.npz")
    late = [(observations, np.roll(actions, 1, axis=0)) for observations, actions in pairs]
    save_demonstrations(Demonstrations.from_episodes(late), place / "late.npz")
    broken = [{"observations": o, "actions": a} for o, a in pairs]
    broken[1] = {"observations": pairs[1][0]}
    broken[3]["observations"] = np.full_like(pairs[3][0], np.nan)
    array = np.empty(len(broken), object)
    array[:] = broken
    np.save(place / "broken.npy", array, allow_pickle=True)
    (place / "words.npz").write_text("not demonstrations")
    return place


def test_a_sound_data_set_has_no_errors(folder):
    outcome = Launchers(folder).run(
        "inspect_demonstrations", "--demonstrations=sound.npz", "--output=figures/report.png"
    )
    assert (outcome.code, outcome.errors) == (0, "")
    assert "task hopper, guessed from the sizes: pass --task if it is another" in outcome.output
    assert "NOTE  simulator: replayed in hopper" in outcome.output
    assert "\n0 errors, " in outcome.output
    assert outcome.output.endswith("figures/report.png\n")
    assert image.imread(folder / "figures" / "report.png").std() > 0.05


@pytest.mark.parametrize(
    ("arguments", "code", "lines"),
    [
        (
            ["--demonstrations=doubled.npz"],
            0,
            ["WARNING  clipped actions: ", "What to do: Scale them into the bounds"],
        ),
        (
            ["--demonstrations=late.npz", "--task=hopper"],
            1,
            ["ERROR  shifted actions: ", "Pair observation i with the action in row i + 1"],
        ),
        (
            ["--demonstrations=sound.npz", "--task=pen-binary"],
            1,
            ["ERROR  sizes: ", "Pass --task=hopper: these are the sizes of hopper."],
        ),
        (
            ["--demonstrations=broken.npy", "--output=broken.png"],
            1,
            [
                "ERROR  unreadable: episode 1 must hold observations, actions; got observations.",
                "ERROR  not finite: ",
                "    Episodes: 3\n",
                "NOTE  pickle: ",
                "2 errors",
            ],
        ),
    ],
)
def test_findings_come_with_what_to_do(folder, arguments, code, lines):
    outcome = Launchers(folder).run("inspect_demonstrations", *arguments)
    assert (outcome.code, outcome.errors) == (code, "")
    for line in lines:
        assert line in outcome.output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "--demonstrations must be given"),
        (["--demonstrations=words.npz"], "got a text file"),
        (["--demonstrations=sound.npz", "--output=report"], "--output must be a file that ends in"),
        (["--demonstrations=sound.npz", "--task=hoper"], "hopper"),
    ],
)
def test_mistakes_are_one_line(folder, arguments, line):
    outcome = Launchers(folder).run("inspect_demonstrations", *arguments)
    assert (outcome.code, outcome.output) == (1, "")
    assert outcome.errors.startswith("error: ")
    assert outcome.errors.count("\n") == 1
    assert line in outcome.errors


def test_a_set_with_named_parts_is_described_by_them(folder):
    generator = np.random.default_rng(0)
    time = np.arange(40)[:, np.newaxis] / 10
    with h5py.File(folder / "low_dim.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "env_version": "1.4.1", "env_kwargs": {"control_freq": 20}}
        )
        for number in range(6):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = np.sin(time * generator.uniform(1, 2, 2))
            demo["obs/eef"] = np.cos(time * generator.uniform(1, 2, 3))
            demo["obs/gripper"] = np.full((40, 1), 0.04)
    launchers = Launchers(folder)
    outcome = launchers.run("inspect_demonstrations", "--demonstrations=low_dim.hdf5")
    assert (outcome.code, outcome.errors) == (0, "")
    for row in ("environment  *Lift", "environment version  *1.4.1", "fps  *20", "size  *4"):
        assert re.search(row, outcome.output), row
    assert "constant observations: dimension gripper of the observations never changes" in (
        outcome.output
    )
    outcome = launchers.run(
        *("inspect_demonstrations", "--demonstrations=low_dim.hdf5", "--observation_keys=eef")
    )
    assert re.search("observation size  *3", outcome.output)
    assert "gripper" not in outcome.output


def test_several_sets_are_examined_as_one(folder):
    outcome = Launchers(folder).run(
        "inspect_demonstrations", "--demonstrations=sound.npz,sound.npz", "--task=hopper"
    )
    assert outcome.output.startswith("demonstrations + demonstrations (npz)")
    assert "WARNING  repeated episodes: 6 of 12 episodes are copies of others" in outcome.output
    assert re.search(
        r"\nTo leave episodes out:\n  .*convert_demonstrations.py "
        r"--demonstrations=sound.npz,sound.npz --leave_out=NUMBERS --output=chosen.npz\n",
        outcome.output,
    )


def test_recorded_successes_count_where_the_task_has_no_rule(folder):
    recorded = Demonstrations(
        np.random.default_rng(0).normal(size=(40, 11)),
        np.random.default_rng(1).uniform(-0.5, 0.5, (40, 3)),
        [10, 20, 30, 40],
        successes=(np.arange(10) >= np.array([[2], [6], [10], [10]])).ravel(),
    )
    save_demonstrations(recorded, folder / "flags.npz")
    outcome = Launchers(folder).run(
        "inspect_demonstrations", "--demonstrations=flags.npz", "--task=hopper"
    )
    assert re.search(r"A, any-time success  *0\.50", outcome.output)
    assert re.search(r"B, time at goal  *0\.30", outcome.output)


def test_an_unknown_goal_flag_does_not_lower_the_time_at_the_goal(folder):
    observations = np.zeros((6, 10, 39))
    observations[:, 5:, 28] = 1.5  # The door is open from the fifth action on.
    observations[:, :, 0] = np.random.default_rng(0).normal(size=(6, 10))
    actions = np.random.default_rng(1).uniform(-0.5, 0.5, (6, 10, 28))
    np.savez(folder / "door.npz", observations=observations, actions=actions)
    outcome = Launchers(folder).run(
        "inspect_demonstrations", "--demonstrations=door.npz", "--task=door-binary"
    )
    assert re.search(r"B, time at goal  *0\.56", outcome.output)  # 5 of 9.
