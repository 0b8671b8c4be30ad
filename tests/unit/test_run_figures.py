import numpy as np
import pytest

from nppac_tf.runs import figures

NAN = float("nan")


HAND = [
    {
        "env_steps": 1000.0 * i,
        "eval/any_success": 0.1 * i,
        "eval/time_at_goal": 0.05 * i,
        "eval/final_success": 0.08 * i,
        "eval/return": 5.0 * i,
        **({"train/kl": 30.0 - i, "train/q_value": 2.0 * i} if i else {}),
    }
    for i in range(5)
]


def curves(figure):
    """Every line drawn, by its axis's label and its own."""
    return {
        (axis.get_ylabel(), line.get_label()): line.get_xydata()
        for axis in figure.axes
        for line in axis.get_lines()
        if len(line.get_xdata())
    }


def test_each_metric_is_drawn_over_environment_steps():
    drawn = curves(figures.learning_curve(HAND, "a run"))
    columns = {
        "A: at the goal at least once": "eval/any_success",
        "B: share of time at the goal": "eval/time_at_goal",
        "at the goal in the last step": "eval/final_success",
    }
    for label, name in columns.items():
        expected = [(r["env_steps"], r[name]) for r in HAND]
        np.testing.assert_array_equal(drawn["success", label], expected)
    by_axis = {axis: data for (axis, _), data in drawn.items()}
    np.testing.assert_array_equal(by_axis["return"][:, 1], [0, 5, 10, 15, 20])
    np.testing.assert_array_equal(by_axis["KL from the prior (nats)"][:, 1], [NAN, 29, 28, 27, 26])
    np.testing.assert_array_equal(by_axis["Q value"][:, 1], [NAN, 2, 4, 6, 8])


def test_success_is_on_a_scale_of_zero_to_one():
    upper = figures.learning_curve(HAND).axes[0]
    low, high = upper.get_ylim()
    assert low <= 0
    assert high >= 1
    assert high - low < 1.2


def test_the_axis_of_the_return_includes_zero():
    rows = [{**r, "eval/return": -50.0 - i} for i, r in enumerate(HAND)]
    (axis,) = (a for a in figures.learning_curve(rows).axes if a.get_ylabel() == "return")
    low, high = axis.get_ylim()
    assert low < -54
    assert high == 0


def test_a_task_without_success_shows_its_return():
    rows = [
        {**r, "eval/any_success": NAN, "eval/time_at_goal": NAN, "eval/final_success": NAN}
        for r in HAND
    ]
    upper, *others = figures.learning_curve(rows).axes
    assert upper.get_ylabel() == "return"
    assert "success" not in [axis.get_ylabel() for axis in others]
    np.testing.assert_array_equal(upper.get_lines()[0].get_ydata(), [0, 5, 10, 15, 20])


@pytest.mark.parametrize("rows", [HAND, HAND[:1]])
def test_a_figure_can_be_saved(tmp_path, rows):
    figures.learning_curve(rows, "a run").savefig(tmp_path / "figure.png", dpi=50)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
