"""Tests of the doctor's figure."""

import numpy as np
import pytest

from nppac_tf.runs import figures

LENGTHS = (6, 4)


def arrays(width):
    generator = np.random.default_rng(0)
    return [generator.uniform(-1, 1, (n, width)) for n in LENGTHS]


def by_title(figure, start):
    """The one panel whose title begins so."""
    (axis,) = [a for a in figure.axes if a.get_title(loc="left").startswith(start)]
    return axis


def draw(**changes):
    return figures.demonstrations_overview(arrays(3), arrays(2), **changes)


def test_steps_at_the_goal_are_colored_where_they_are():
    goals = [np.array([0, 0, 1, 1, 0, 1.0]), np.array([0, 1, 1, np.nan])]
    figure = draw(goals=goals, episode_names=[3, 8], suspects=[1], horizon=5, title="ours")
    axis = by_title(figure, "Episodes, at the goal in green; marked")
    (picture,) = axis.get_images()
    colored = ~np.ma.getmaskarray(np.ma.masked_invalid(picture.get_array()))
    np.testing.assert_array_equal(colored, [[0, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 0]])
    assert [bar.get_width() for bar in axis.patches] == [6, 4]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["3", "8"]
    (marker,) = [line for line in axis.get_lines() if line.get_marker() == "<"]
    assert (marker.get_xdata(), marker.get_ydata()) == ([4], [1])
    share = by_title(figure, "Share of episodes at the goal").get_lines()
    (curve,) = [line for line in share if list(line.get_ydata()) == [0, 0.5, 1, 0.5, 0, 0.5]]
    assert list(curve.get_xdata()) == [0, 1, 2, 3, 4, 5]
    assert figure.get_suptitle() == "ours"


def test_rewards_are_drawn_where_there_are_no_goals():
    rewards = [np.arange(6.0), np.arange(4.0)]
    figure = draw(rewards=rewards)
    (picture,) = by_title(figure, "Episodes, colored by reward").get_images()
    shown = np.ma.filled(np.ma.masked_invalid(picture.get_array()), -1)
    np.testing.assert_array_equal(shown, [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, -1, -1]])
    (median,) = by_title(figure, "Reward").get_lines()
    np.testing.assert_array_equal(median.get_ydata(), np.arange(6))


def test_actions_are_drawn_with_their_bounds_and_how_often_they_reach_them():
    bounds = (np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
    actions = [np.array([[1.0, 0.1], [1.0, 0.2], [0.0, 0.3], [2.0, 0.4]])]
    figure = figures.demonstrations_overview(
        [np.arange(8.0).reshape(4, 2)], actions, action_bounds=bounds
    )
    axis = by_title(figure, "Actions")
    heights = [(bar.get_y(), bar.get_height()) for bar in axis.patches]
    assert heights[0] == (0, 2)  # Least to greatest of the first action.
    (share,) = [a for a in figure.axes if a.get_ylabel() == "at the bounds or beyond"]
    assert [bar.get_height() for bar in share.patches] == [0.75, 0]


def test_a_dimension_that_never_changes_is_marked():
    observations = [np.array([[1.0, 5.0], [2.0, 5.0]])]
    figure = figures.demonstrations_overview(observations, [np.zeros([2, 1])])
    (mark,) = [
        line for line in by_title(figure, "Observations").get_lines() if line.get_marker() == "x"
    ]
    assert (list(mark.get_xdata()), list(mark.get_ydata())) == ([1], [5])


def test_a_replay_is_drawn_step_by_step():
    errors = [np.array([1e-9, 1e-3, np.nan]), np.array([1e-9, 1e-1])]
    axis = by_title(draw(replay_errors=errors), "Replayed")
    *_, median = axis.get_lines()
    np.testing.assert_allclose(median.get_ydata(), [1e-9, 0.0505])
    assert axis.get_yscale() == "log"


@pytest.mark.parametrize("values", [np.nan, np.inf])
def test_values_that_are_not_finite_leave_the_rest_to_be_seen(tmp_path, values):
    observations, actions = arrays(3), arrays(2)
    observations[0][2, 1] = values
    actions[1][:] = values
    figure = figures.demonstrations_overview(
        observations, actions, rewards=[np.full(n, values) for n in LENGTHS]
    )
    figure.savefig(tmp_path / "x.png")
    assert len(by_title(figure, "Observations").patches) == 2 * 3


def test_a_hundred_episodes_fit(tmp_path):
    figure = figures.demonstrations_overview(
        [np.ones([5, 2]) * np.arange(5)[:, None]] * 100,
        [np.ones([5, 1]) * np.arange(5)[:, None]] * 100,
        goals=[np.ones(5)] * 100,
    )
    figure.savefig(tmp_path / "x.png")
    assert len(by_title(figure, "Episodes").get_yticklabels()) <= 30
