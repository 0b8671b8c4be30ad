"""Figures of a comparison of methods."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import figure, lines, ticker

from nppac_tf.comparison.scores import FINAL, RETURN, Comparison, Curve, Score
from nppac_tf.runs.metrics import LABELS

# Okabe and Ito's palette, which is safe for color-blind readers, and three more colors. With more
# methods the colors repeat with dashed and dotted lines.
COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666"),
    *("#6A3D9A", "#000000", "#8C510A"),
)
_STYLES = ("-", "--", ":")
_FEW_RUNS = 5
_GRAY = "#8A8F98"


def curve(comparison: Comparison, metric: str) -> figure.Figure:
    """Draws interquartile means of a metric over environment steps, with intervals as bands.

    Runs are thin lines if a method has fewer than five. The line of a method is faint where not all
    of its runs were evaluated. A dotted line marks the threshold.
    """
    result = figure.Figure(figsize=(5.4, 3.7), layout="constrained")
    _draw_curves(result.subplots(), comparison, metric)
    _add_legend(result, comparison)
    return result


def curves(comparison: Comparison, title: str = "") -> figure.Figure:
    """Draws `curve` of every metric, side by side.

    Args:
        comparison: Comparison to draw.
        title: Title of the figure.
    """
    count = len(comparison.metrics)
    result = figure.Figure(figsize=(max(4.0 * count, 5.0), 3.8), layout="constrained")
    if title:
        result.suptitle(title, fontsize="medium", parse_math=False)
    for axis, metric in zip(
        result.subplots(1, count, squeeze=False)[0], comparison.metrics, strict=True
    ):
        _draw_curves(axis, comparison, metric)
    _add_legend(result, comparison)
    return result


def scores(comparison: Comparison) -> figure.Figure:
    """Draws interquartile mean and interval of each score and method, and each run as a dash."""
    return _draw_scores(comparison, [each for each in comparison.scores if each.name != "first"])


def area(comparison: Comparison) -> figure.Figure:
    """Draws `scores` of the area under the curve of the main metric only."""
    (shown,) = (each for each in comparison.scores if each.name == "area")
    result = _draw_scores(comparison, [shown])
    if shown.unit == "share":
        (axis,) = result.axes
        axis.set_xlim(0, max(0.05, 1.08 * axis.dataLim.xmax))
    return result


def _draw_scores(comparison: Comparison, shown: Sequence[Score]) -> figure.Figure:
    methods = comparison.methods
    names = [_broken(method.name) for method in methods]
    height = 0.6 + 0.16 * sum(name.count("\n") + 1.5 for name in names)
    result = figure.Figure(figsize=(4.8, height * len(shown)), layout="constrained")
    for axis, score in zip(result.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        for row, (values, estimate) in enumerate(zip(score.values, score.estimates, strict=True)):
            color = COLORS[row % len(COLORS)]
            axis.plot(values, np.full(len(values), row), "|", color=color, markersize=9)
            axis.plot([*estimate.low, *estimate.high], [row, row], color=color, linewidth=2.5)
            axis.plot(estimate.value, [row], "o", color=color, markersize=6)
        axis.set_yticks(range(len(methods)), names, fontsize=8)
        for label in axis.get_yticklabels():
            label.set_parse_math(False)
        axis.set_ylim(len(methods) - 0.4, -0.6)
        axis.set_title(score.label, loc="left", fontsize=9)
        axis.tick_params(axis="x", labelsize=8)
        axis.margins(x=0.08)
        if score.unit == "share" and score.name != "dip_depth":
            axis.set_xlim(-0.02, 1.02)
        elif score.unit != "return":
            axis.set_xlim(left=0)
        if score.unit == "steps":
            axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        _tidy(axis)
    return result


def _draw_curves(axis: Any, comparison: Comparison, metric: str) -> None:
    for index, each in enumerate(comparison.curves[metric]):
        _draw_curve(axis, each, COLORS[index % len(COLORS)], _style(index))
    if metric == comparison.main and comparison.threshold is not None:
        axis.axhline(comparison.threshold, color=_GRAY, linestyle=":", linewidth=1.2)
    if metric != RETURN:
        axis.set_ylim(0, 1.03)
    label = "final: at the goal in the last step" if metric == FINAL else LABELS[metric]
    axis.set_title(label, loc="left", fontsize=10)
    axis.set_xlabel("environment steps", fontsize=9)
    axis.tick_params(labelsize=8.5)
    axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    _tidy(axis)


def _draw_curve(axis: Any, each: Curve, color: str, style: str) -> None:
    steps, (value, low, high) = each.env_steps, each.estimate
    complete = np.where(each.counts == len(each.runs), value, np.nan)
    marker = "o" if len(steps) == 1 else ""
    axis.fill_between(steps, low, high, color=color, alpha=0.16, linewidth=0)
    if 1 < len(each.runs) < _FEW_RUNS:
        for run in each.runs:
            known = np.isfinite(run)
            axis.plot(steps[known], run[known], color=color, alpha=0.35, linewidth=0.8)
    axis.plot(steps, value, style, color=color, alpha=0.45, linewidth=1.6, marker=marker)
    axis.plot(steps, complete, style, color=color, linewidth=2.2, marker=marker)


def _broken(name: str) -> str:
    """Wraps a name, after underscores if possible."""
    return textwrap.fill(name.replace("_", "_ "), 24).replace("_ ", "_")


def _style(index: int) -> str:
    return _STYLES[index // len(COLORS) % len(_STYLES)]


def _add_legend(result: figure.Figure, comparison: Comparison) -> None:
    handles = [
        lines.Line2D(
            [], [], color=COLORS[index % len(COLORS)], linestyle=_style(index), linewidth=2.2
        )
        for index in range(len(comparison.methods))
    ]
    # Matplotlib omits labels that begin with an underscore.
    names = [
        method.name.replace("_", " _", 1) if method.name[0] == "_" else method.name
        for method in comparison.methods
    ]
    columns = _columns(names, result.get_figwidth())
    legend = result.legend(
        handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _columns(names: Sequence[str], inches: float) -> int:
    widest = max(map(len, names)) * 0.075 + 0.5
    return max(1, min(len(names), int(inches / widest)))


def _tidy(axis: Any) -> None:
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
