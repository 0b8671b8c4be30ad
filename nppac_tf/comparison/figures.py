"""Figures of a comparison of methods."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import figure, lines, ticker

from nppac_tf.comparison.methods import styles
from nppac_tf.comparison.scores import FINAL, RETURN, Comparison, Curve, Score, finding
from nppac_tf.runs.metrics import LABELS

_FEW_RUNS = 5
_GRAY = "#8A8F98"


def curve(comparison: Comparison, metric: str, legend: bool = True) -> figure.Figure:
    """Draws interquartile means of a metric over environment steps, with intervals as bands.

    Runs are thin lines if a method has fewer than five. The line of a method is faint where not all
    of its runs were evaluated. A dotted line marks the threshold. The title says which method is
    the highest at the end.
    """
    result = figure.Figure(figsize=(6.2, 4.2), layout="constrained")
    _draw_curves(result.subplots(), comparison, metric)
    _set_title(result, finding(comparison, metric))
    if legend:
        _add_legend(result, comparison)
    return result


def curves(comparison: Comparison, title: str = "") -> figure.Figure:
    """Draws `curve` of every metric, two in a row.

    Args:
        comparison: Comparison to draw.
        title: Title of the figure; if empty, what `finding` says of the main metric.
    """
    metrics = comparison.drawn
    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    size = (max(4.1 * columns, 5.0), 0.8 + 2.9 * rows)
    result = figure.Figure(figsize=size, layout="constrained")
    _set_title(result, title or finding(comparison, comparison.main))
    panels = result.subplots(rows, columns, squeeze=False).flatten()
    for axis, metric in zip(panels, metrics, strict=False):
        _draw_curves(axis, comparison, metric)
    for axis in panels[len(metrics) :]:
        axis.remove()
    _add_legend(result, comparison)
    return result


def scores(comparison: Comparison) -> figure.Figure:
    """Draws interquartile mean and interval of each score and method, and each run as a dash."""
    return _draw_scores(comparison, [each for each in comparison.scores if each.name != "first"])


def area(comparison: Comparison) -> figure.Figure:
    """Draws `scores` of the area under the curve of the main metric only."""
    (shown,) = (each for each in comparison.scores if each.name == "area")
    result = _draw_scores(comparison, [shown])
    _set_title(result, finding(comparison, shown.metric, "area"))
    if shown.unit == "share":
        (axis,) = result.axes
        low, high = axis.dataLim.intervalx
        if np.isfinite([low, high]).all():
            margin = max(0.1 * (high - low), 0.02)
            axis.set_xlim(max(low - margin, -0.02), min(high + margin, 1.02))
    return result


def _draw_scores(comparison: Comparison, shown: Sequence[Score]) -> figure.Figure:
    methods = comparison.methods
    looks = styles(methods)
    names = [_broken(method.name) for method in methods]
    height = 0.6 + 0.16 * sum(name.count("\n") + 1.5 for name in names)
    result = figure.Figure(figsize=(4.8, height * len(shown)), layout="constrained")
    for axis, score in zip(result.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        for row, (values, estimate) in enumerate(zip(score.values, score.estimates, strict=True)):
            color, _ = looks[row]
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
    for each, look in zip(comparison.curves[metric], styles(comparison.methods), strict=True):
        _draw_curve(axis, each, *look)
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


def _set_title(result: figure.Figure, title: str) -> None:
    width = int(11 * result.get_figwidth())
    result.suptitle(textwrap.fill(title, width), fontsize=11, fontweight="bold", parse_math=False)


def _add_legend(result: figure.Figure, comparison: Comparison) -> None:
    handles = [
        lines.Line2D([], [], color=color, linestyle=style, linewidth=2.2)
        for color, style in styles(comparison.methods)
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
