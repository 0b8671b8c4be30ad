"""Sets of demonstrations that are joined."""

import dataclasses
import pathlib

import numpy as np
import pytest
from toy_recordings import SIZES, make_episode, make_recording, make_task

from nppac_tf.config import RunConfig
from nppac_tf.demonstrations import (
    Demonstrations,
    load_demonstrations,
    load_recording,
    save_demonstrations,
)
from nppac_tf.demonstrations.joining import join
from nppac_tf.errors import UserError
from nppac_tf.runs import inputs


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(name, seeds, sizes=SIZES, **metadata):
    episodes = [make_episode(seed, 10 + seed, sizes) for seed in seeds]
    pairs = [(episode.observations, episode.actions) for episode in episodes]
    path = pathlib.Path(f"{name}.npz")
    save_demonstrations(Demonstrations.from_episodes(pairs, name, metadata), path)
    return path


@pytest.mark.parametrize(
    "source", [["a.npz", "b.npz"], "a.npz,b.npz", (pathlib.Path("a.npz"), "b.npz")]
)
def test_sets_are_joined_in_their_order(source):
    one, two = (load_demonstrations(save(*each)) for each in (("a", [0, 1]), ("b", [2])))
    joined = load_demonstrations(source, make_task())
    assert joined.episode_ends.tolist() == [10, 21, 33]
    for field in ("observations", "actions"):
        parts = [getattr(each, field) for each in (one, two)]
        np.testing.assert_array_equal(getattr(joined, field), np.concatenate(parts))
    assert joined.name == "a + b"


def test_the_fingerprint_is_that_of_the_joined_data():
    save("a", [0, 1])
    save("b", [2])
    whole = load_demonstrations(save("whole", [0, 1, 2])).fingerprint()
    assert load_demonstrations("a.npz,b.npz").fingerprint() == whole
    assert load_demonstrations("b.npz,a.npz").fingerprint() != whole


def test_metadata_are_what_all_say_and_what_each_says():
    save("a", [0], author="one", robot="arm", fps=20)
    save("b", [1, 2], author="two", robot="arm")
    assert load_demonstrations("a.npz,b.npz").metadata == {
        "robot": "arm",
        "fps": 20,
        "sets": [
            {"name": "a", "episodes": 1, "author": "one", "robot": "arm", "fps": 20},
            {"name": "b", "episodes": 2, "author": "two", "robot": "arm"},
        ],
    }


def test_a_run_takes_several_sets():
    save("a", [0], (3, 1))
    save("b", [1], (3, 1))
    config = RunConfig(task="Pendulum-v1", demonstrations="a.npz,b.npz")
    assert inputs.load(config).demonstrations.num_episodes == 2


def test_episodes_are_numbered_through_and_lines_say_their_set():
    one = make_recording(name="one", indices=tuple(range(5, 13)), problems=("episode 4 is odd",))
    two = make_recording(name="two", format="LeRobot", notices=("2 are missing",), is_pickle=True)
    joined = join([one, two])
    assert joined.indices == tuple(range(16))
    assert joined.problems == ("one: episode 4 is odd",)
    assert joined.notices == ("two: 2 are missing",)
    assert joined.format == "npz + LeRobot"
    assert joined.is_pickle


def test_the_environment_is_kept_if_it_is_one():
    named = make_recording(environment_id="Hopper-v5")
    unnamed = make_recording()
    assert join([named, unnamed]).environment_id == "Hopper-v5"
    other = make_recording(environment_id="Hopping-v1")
    assert join([named, other]).environment_id is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 30}, "must have the same fps; got 20 in one and 30 in two"),
        (
            {"action_names": ["a", "c", "b"]},
            r"same action names \(dimension 1\); got b in one and c in two",
        ),
        ({"observation_names": ["x"]}, "same observation names; got "),
    ],
)
def test_sets_must_agree_in_what_they_state(change, message):
    stated = {"fps": 20, "action_names": ["a", "b", "c"], "observation_names": list("uvwxyz")}
    one = make_recording(name="one", metadata=stated)
    two = make_recording(name="two", metadata=stated | change)
    with pytest.raises(UserError, match=message):
        join([one, two])
    assert join([one, make_recording(name="two")]).metadata["fps"] == 20


def test_sets_of_other_sizes_or_tasks_are_refused_in_one_line():
    save("a", [0])
    save("b", [1], (6, 4))
    message = (
        r"^a.npz,b.npz: sets that are joined must have the same sizes of observation and action; "
        r"got \(6, 3\) in a and \(6, 4\) in b$"
    )
    with pytest.raises(UserError, match=message):
        load_demonstrations("a.npz,b.npz")
    pen, door = (make_recording(environment_id=f"AdroitHand{k}-v1") for k in ("Pen", "Door"))
    with pytest.raises(UserError, match="same task; got pen-binary in toy and door-binary in toy"):
        join([pen, door])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "must be named; got an empty list"),
        ("a.npz,none.npz", "^none.npz: cannot be read"),
        ("aa.npz", r"^aa.npz: cannot be read \(No such file or directory\); did you mean a.npz\?"),
        ("a.npz,", "must be named; got an empty name"),
    ],
)
def test_a_missing_set_is_named(source, message):
    save("a", [0])
    with pytest.raises(UserError, match=message):
        load_recording(source)


def test_one_recording_stays_as_it_is():
    recording = dataclasses.replace(make_recording(), notices=("one",))
    assert join([recording]) is recording
