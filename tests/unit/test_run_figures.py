import io

import numpy as np
import pytest

from nppac_tf.runs import figures

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
GOAL = ("eval/any_success", "eval/time_at_goal", "eval/final_success")
WITHOUT_GOAL = [{**row, **dict.fromkeys(GOAL, np.nan)} for row in HAND]


@pytest.mark.parametrize(
    ("rows", "axes"),
    [(HAND, ["success", "return"]), (HAND[:1], ["success", "return"]), (WITHOUT_GOAL, ["return"])],
)
def test_a_learning_curve_can_be_saved(rows, axes):
    figure = figures.learning_curve(rows, "a run")
    lower = ["KL from the prior (nats)", "Q value"]
    assert sorted(axis.get_ylabel() for axis in figure.axes) == sorted(axes + lower)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    assert file.getvalue().startswith(b"\x89PNG")
