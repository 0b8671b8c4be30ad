"""Tests of the doctor's figure: it draws whatever a recording holds."""

import itertools

import numpy as np
import pytest
from matplotlib import image

from nppac_tf.doctor import figures

LENGTHS = (6, 4)


def arrays(width, lengths=LENGTHS):
    generator = np.random.default_rng(0)
    return [generator.uniform(-1, 1, (n, width)) for n in lengths]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"goals": [np.array([0, 0, 1, 1, 0, 1.0]), np.array([0, 1, 1, np.nan])]},
        {"rewards": [np.arange(6.0), np.arange(4.0)]},
        {"rewards": [np.full(6, np.nan), np.full(4, np.inf)]},
        {"replay_errors": [np.array([1e-9, 1e-3, np.nan]), np.array([1e-9, 1e-1])]},
        {"action_bounds": (-np.ones(2), np.ones(2)), "suspects": [1], "episode_names": [3, 8]},
        {"horizon": 5, "title": "ours"},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_the_figure_is_drawn(tmp_path, options, value):
    observations, actions = arrays(3), arrays(2)
    observations[0][2, 1] = value
    actions[1][:] = value
    observations[0][:, 2] = observations[1][:, 2] = 5.0
    figure = figures.demonstrations_overview(observations, actions, **options)
    figure.savefig(tmp_path / "x.png", dpi=50)
    assert image.imread(tmp_path / "x.png").std() > 0.05


def test_a_hundred_episodes_fit(tmp_path):
    lengths = [5] * 100
    figure = figures.demonstrations_overview(
        arrays(2, lengths), arrays(1, lengths), goals=[np.ones(5)] * 100
    )
    figure.savefig(tmp_path / "x.png", dpi=50)


def labels(axis):
    return [label.get_text() for label in axis.get_xticklabels()]


def test_names_label_the_dimensions():
    figure = figures.demonstrations_overview(
        arrays(3), arrays(2), observation_names=["x", "y", "a" * 40], action_names=["hip", "knee"]
    )
    found = [labels(axis) for axis in figure.axes]
    assert ["x", "y", "a" * 23 + "…"] in found
    assert ["hip", "knee"] in found


def test_a_hundred_names_do_not_overlap():
    names = [f"body_{k}_contact_force_x" for k in range(105)]
    figure = figures.demonstrations_overview(arrays(105), arrays(8), observation_names=names)
    figure.draw_without_rendering()
    axis = next(axis for axis in figure.axes if len(labels(axis)) == 105)
    boxes = [label.get_window_extent() for label in axis.get_xticklabels()]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))


def test_an_unknown_goal_flag_counts_neither_way():
    goals = [np.array([1.0, 1.0, np.nan]), np.array([1.0, 0.0, 1.0])]
    figure = figures.demonstrations_overview(arrays(3, (3, 3)), arrays(2, (3, 3)), goals=goals)
    (line,) = figure.axes[1].get_lines()
    np.testing.assert_array_equal(line.get_ydata(), [1.0, 0.5, 1.0])
