"""Learning curve of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import figure, ticker

_SUCCESSES = (
    ("eval/any_success", "A: at the goal at least once", "#0072B2", "-"),
    ("eval/time_at_goal", "B: share of time at the goal", "#D55E00", "-"),
    ("eval/final_success", "at the goal in the last step", "#009E73", "--"),
)
_RETURN_COLOR, _KL_COLOR, _Q_COLOR = "#666666", "#CC79A7", "#56B4E9"


def learning_curve(rows: Sequence[Mapping[str, float]], title: str = "") -> figure.Figure:
    """Draws success and return, and below them the KL from the prior and the Q values.

    Args:
        rows: Evaluations from `training.train`, at least one. Metrics that are absent or nan leave
            a gap.
        title: Title of the figure.

    Returns:
        A figure with two panels over environment steps. For a task without a goal the upper panel
        shows only the return.
    """
    steps = _column(rows, "env_steps")
    result = figure.Figure(figsize=(7.0, 6.0), layout="constrained")
    upper, lower = result.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    if title:
        result.suptitle(title, fontsize="medium")

    returns = _column(rows, "eval/return")
    if np.isfinite(_column(rows, _SUCCESSES[0][0])).any():
        for name, label, color, style in _SUCCESSES:
            _draw(upper, steps, _column(rows, name), color, style, label)
        upper.set_ylim(-0.03, 1.03)
        upper.set_ylabel("success")
        return_axis = _second_axis(upper, "return", _RETURN_COLOR)
        _draw(return_axis, steps, returns, _RETURN_COLOR, ":")
        _include_zero(return_axis)
        upper.plot([], [], color=_RETURN_COLOR, linestyle=":", label="return (right)")
        upper.legend(
            frameon=False, fontsize="small", ncols=2, loc="lower left", bbox_to_anchor=(0, 1)
        )
    else:
        _draw(upper, steps, returns, _SUCCESSES[0][2], "-")
        upper.set_ylabel("return")

    _draw(lower, steps, _column(rows, "train/kl"), _KL_COLOR, "-")
    lower.set_ylabel("KL from the prior (nats)", color=_KL_COLOR)
    _include_zero(lower)
    q_axis = _second_axis(lower, "Q value", _Q_COLOR)
    _draw(q_axis, steps, _column(rows, "train/q_value"), _Q_COLOR, "-")
    lower.set_xlabel("environment steps")
    lower.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    for axis in (upper, lower):
        axis.grid(alpha=0.25)
        axis.spines["top"].set_visible(False)
    return result


def _column(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    return np.array([row.get(name, np.nan) for row in rows], np.float64)


def _draw(
    axis: Any, steps: np.ndarray, values: np.ndarray, color: str, style: str, label: str = ""
) -> None:
    axis.plot(steps, values, style, color=color, marker="o", markersize=3, label=label or None)


def _include_zero(axis: Any) -> None:
    """Extends the axis to zero, so that small changes look small."""
    axis.update_datalim([(0.0, 0.0)], updatex=False)
    axis.autoscale_view()


def _second_axis(axis: Any, label: str, color: str) -> Any:
    second = axis.twinx()
    second.set_ylabel(label, color=color)
    second.spines["top"].set_visible(False)
    return second
