"""The figure of a benchmark, from its flat dictionary of results."""

from collections.abc import Mapping
from typing import Any

from matplotlib import figure

from benchmarks.shapes import SHAPES
from benchmarks.suite import by_prior, by_shape

_CONTENDERS = {
    "nppac_bfloat16": ("N-PPAC, bfloat16", "#0072B2"),
    "nppac_float32": ("N-PPAC", "#0072B2"),
    "uniform_float32": ("same, uniform prior (SAC)", "#56B4E9"),
    "tf_agents": ("TF-Agents SacAgent", "#7F7F7F"),
    "sbx": ("SBX (JAX)", "#7F7F7F"),
    "sb3": ("Stable-Baselines3 (torch)", "#7F7F7F"),
}
_LIMITS = {"limit_float32": ("float32", "--"), "limit_bfloat16": ("bfloat16", ":")}
_PRIORS = {"exact_gp": ("exact GP", "#0072B2"), "sparse_gp": ("sparse GP", "#E69F00")}
_COSTS = {
    "fit_seconds": "fit (s)",
    "predictions_per_second": "predictions per second",
    "peak_memory_mb": "peak memory (MB)",
}


def benchmark(results: Mapping[str, Any]) -> figure.Figure:
    """Updates per second on each shape, and what priors cost; of these, what was measured."""
    shapes = by_shape(results)
    costs = {name: by_prior(results, name) for name in _COSTS if by_prior(results, name)}
    rows = bool(shapes) + bool(costs)
    drawing = figure.Figure(figsize=(9.6, 3.6 * max(rows, 1)), layout="constrained")
    parts = iter(drawing.subfigures(max(rows, 1), 1, squeeze=False)[:, 0])
    if shapes:
        part = next(parts)
        for axis, (name, rates) in zip(
            part.subplots(1, len(shapes), squeeze=False)[0], shapes.items(), strict=True
        ):
            _draw_updates(axis, name, rates)
    if costs:
        part = next(parts)
        for axis, (name, classes) in zip(
            part.subplots(1, len(costs), squeeze=False)[0], costs.items(), strict=True
        ):
            _draw_costs(axis, _COSTS[name], classes)
    return drawing


def _draw_updates(axis: Any, name: str, rates: Mapping[str, Any]) -> None:
    shown = [contender for contender in _CONTENDERS if contender in rates]
    for index, contender in enumerate(shown):
        label, color = _CONTENDERS[contender]
        value, (lowest, highest) = rates[contender]
        whiskers = [[value - lowest], [highest - value]]
        axis.barh(index, value, 0.7, color=color, xerr=whiskers, error_kw={"elinewidth": 1})
        axis.annotate(
            f"{value:,.0f}",
            (0, index),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color="white",
            fontsize="small",
        )
    for contender, (label, style) in _LIMITS.items():
        if contender in rates:
            value = rates[contender][0]
            label = f"products alone, {label}: {value:,.0f}"
            axis.axvline(value, color="black", linestyle=style, linewidth=1.2, label=label)
    axis.set_yticks(range(len(shown)), [_CONTENDERS[item][0] for item in shown], fontsize="small")
    axis.invert_yaxis()
    shape = SHAPES[name]
    axis.set_title(
        f"{name}: {shape.observation_size} observations, {shape.action_size} actions, "
        f"batch {shape.batch_size:,}",
        loc="left",
        fontsize="small",
    )
    axis.set_xlabel("updates per second")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize="small", frameon=False)
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_costs(axis: Any, label: str, classes: Mapping[str, list[tuple[int, float]]]) -> None:
    for name, pairs in classes.items():
        prior, color = _PRIORS[name]
        sizes, values = zip(*pairs, strict=True)
        axis.loglog(sizes, values, "o-", color=color, label=prior)
    axis.set_title(label, loc="left", fontsize="medium")
    axis.set_xlabel("demonstration points")
    axis.grid(alpha=0.25)
    axis.legend(fontsize="small", frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
