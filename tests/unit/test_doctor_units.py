"""What the doctor finds in units: of dimensions, of episodes, and in names."""

import dataclasses

import numpy as np
import pytest
from toy_recordings import check, find, make_episode, make_recording, make_task

from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.doctor import diagnosis


def topics(recording):
    return {finding.topic for finding in diagnosis.diagnose(recording, make_task())}


def scaled(factors, positions=(3,)):
    """Eight episodes, of which some have observations times factors [6]."""
    episodes = [make_episode(seed) for seed in range(8)]
    for position in positions:
        episode = episodes[position]
        observations = episode.observations * factors
        episodes[position] = RecordedEpisode(observations, episode.actions)
    return make_recording(episodes)


@pytest.mark.parametrize(
    ("factor", "meaning"),
    [
        (180 / np.pi, "57.3, as degrees for radians"),
        (np.pi / 180, "0.0175, as degrees for radians"),
        (1000.0, "1,000, as millimeters for meters"),
    ],
)
def test_finds_episodes_with_some_dimensions_in_other_units(factor, meaning):
    finding = find(scaled([1, factor, 1, factor, 1, 1], (2, 5)), "mixed units")
    check(finding, f"warning: mixed units: dimensions 1, 3 of .* of 2 of 8 .* about {meaning}")
    assert finding.episodes == (2, 5)


@pytest.mark.parametrize("factors", [[1, 5, 1, 5, 1, 1], [1, 0, 1, 0, 1, 1], [57.3, 1, 1, 1, 1, 1]])
def test_larger_and_smaller_movements_are_no_other_units(factors):
    assert "mixed units" not in topics(scaled(factors))


def test_goals_that_differ_between_episodes_are_no_other_units():
    """A dimension that is constant in each episode may have any size."""
    episodes = []
    for seed in range(8):
        episode = make_episode(seed)
        observations = episode.observations.copy()
        observations[:, :2] = 0.01 if seed else 0.573
        episodes.append(RecordedEpisode(observations, episode.actions))
    assert "mixed units" not in topics(make_recording(episodes))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["x_mm", "y_mm", "z_m", "a", "b", "c"],
            "note: mixed units: the names of the observations state mm and m: x_mm, z_m",
        ),
        (
            ["elbow [deg]", "wrist [rad]", "a", "b", "c", "d"],
            r"note: .* state deg and rad: elbow \[deg\], wrist \[rad\]",
        ),
    ],
)
def test_finds_names_that_state_different_units(names, message):
    named = dataclasses.replace(make_recording(), metadata={"observation_names": names})
    check(find(named, "mixed units"), message)


@pytest.mark.parametrize(
    "names", [["x_m", "y_m", "yaw_rad", "a", "b", "c"], ["m", "mm", "deg", "rad", "a", "b"]]
)
def test_names_of_one_unit_a_quantity_are_sound(names):
    named = dataclasses.replace(make_recording(), metadata={"observation_names": names})
    assert "mixed units" not in topics(named)


def test_findings_give_names_instead_of_numbers():
    metadata = {"observation_names": list("uvwxyz"), "action_names": ["hip", "knee", "foot"]}
    recording = scaled([1, 1, 0, 1, 1, 1], range(8))
    named = dataclasses.replace(recording, metadata=metadata)
    check(find(named, "constant observations"), "note: .*: dimension w of the observations never")
    wrong = dataclasses.replace(recording, metadata={"observation_names": ["u"]})
    check(find(wrong, "constant observations"), "note: .*: dimension 2 of the observations never")


def test_a_part_that_hardly_moves_is_noted_and_a_large_one_is_a_warning():
    small = scaled([1, 1, 1, 1, 1, 1e-5], range(8))
    check(find(small, "scales"), "note: scales: dimension 5 of the observations varies ")
    large = scaled([1, 1, 1, 1, 1, 1e5], range(8))
    check(find(large, "scales"), "warning: scales: dimension 5 of the observations varies ")
