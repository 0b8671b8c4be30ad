"""The figure of a benchmark."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.shapes import SHAPES

CONTENDERS = {
    "nppac_bfloat16": ("N-PPAC, bfloat16", "#0072B2"),
    "nppac_float32": ("N-PPAC", "#0072B2"),
    "uniform_float32": ("same, uniform prior (SAC)", "#56B4E9"),
    "tf_agents": ("TF-Agents SacAgent", "#7F7F7F"),
    "sbx": ("SBX (JAX)", "#7F7F7F"),
    "sb3": ("Stable-Baselines3 (torch)", "#7F7F7F"),
}
_LIMITS = {"limit_float32": ("float32", "--"), "limit_bfloat16": ("bfloat16", ":")}


def draw_updates(results: Mapping[str, Any]) -> Figure:
    """Updates per second of each contender on each shape, with the range of the repeats."""
    drawing = Figure(figsize=(9.6, 3.6), layout="constrained")
    for axis, name in zip(drawing.subplots(1, len(SHAPES)), SHAPES, strict=True):
        _draw_shape(axis, name, results)
    return drawing


def _draw_shape(axis: Axes, name: str, results: Mapping[str, Any]) -> None:
    prefix, shape = f"updates_per_second/{name}", SHAPES[name]
    shown = [contender for contender in CONTENDERS if f"{prefix}/{contender}" in results]
    for index, contender in enumerate(shown):
        value = results[f"{prefix}/{contender}"]
        lowest, highest = results[f"{prefix}/spread/{contender}"]
        whiskers = [[value - lowest], [highest - value]]
        axis.barh(index, value, 0.7, color=CONTENDERS[contender][1], xerr=whiskers)
        axis.text(0, index, f" {value:,.0f}", va="center", color="white", fontsize="small")
    for limit, (label, style) in _LIMITS.items():
        value = results[f"{prefix}/{limit}"]
        label = f"products alone, {label}: {value:,.0f}"
        axis.axvline(value, color="black", linestyle=style, linewidth=1.2, label=label)
    axis.set_yticks(range(len(shown)), [CONTENDERS[item][0] for item in shown], fontsize="small")
    axis.invert_yaxis()
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
