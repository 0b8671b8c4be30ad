"""Figures of the paper's claims, from what `diagnostics` measured; nothing here sees a model."""

import functools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colors as colors_module
from matplotlib import figure, ticker

from nppac_tf.claims.c1_degeneracy import EDGE, Degeneracy
from nppac_tf.claims.c2_deviations import LEVELS, Deviations
from nppac_tf.claims.c3_fixed_scales import FixedScaleRuns
from nppac_tf.claims.c4_gradients import DECADES, GradientGrowth
from nppac_tf.claims.c5_calibration import Recalibration
from nppac_tf.claims.c8_prior_classes import ClassRuns, PriorClassRuns, interval

# One color per class in every figure (Okabe and Ito's, told apart by the color-blind).
CLASSES: Mapping[str, tuple[str, str]] = {
    "gaussian_network": ("maximum-likelihood net", "#D55E00"),
    "ensemble": ("ensemble", "#E69F00"),
    "bayesian_network": ("Bayesian network", "#CC79A7"),
    "dropout": ("dropout", "#7F7F7F"),
    "gp": ("GP", "#0072B2"),
    "exact_gp": ("exact GP", "#0072B2"),
    "sparse_gp": ("sparse GP", "#56B4E9"),
}
_PLACES = {
    "fitted": "on fitted\nstates",
    "held_out": "on held-out\nepisodes",
    "midpoints": "between two\nepisodes",
    "own": "own\nrollouts",
    "random": "random\nactions",
    "far": "10 sd\naway",
}
_ACTORS = {
    "gaussian_closed_form": ("Gaussian, KL in closed form", "#0072B2", "o"),
    "gaussian_sampled": ("Gaussian, sampled KL", "#E69F00", "s"),
    "squashed_sampled": ("squashed, sampled KL", "#009E73", "^"),
}
_INK = "#34495E"


def degeneracy(result: Degeneracy) -> figure.Figure:
    """C1: densities of q and of each family of p, and the divergence of each."""
    drawing = _figure((9.6, 3.4), "KL(q‖p) runs from 0 to ∞ as p loses mass where q has it")
    left, middle, right = drawing.subplots(1, 3)
    shown = [0, 1, 2, 4, 6]
    families = (
        (left, result.narrowing, result.narrowing_kl, result.scales, "s", "narrowing p = N(0, s²)"),
        (
            middle,
            result.vanishing,
            result.vanishing_kl,
            result.leaks,
            "e",
            f"p keeps a share e beyond |a| = {EDGE:g}",
        ),
    )
    palettes = {"s": "Blues", "e": "Oranges"}
    for axis, densities, divergences, parameters, symbol, title in families:
        colors = matplotlib.colormaps[palettes[symbol]](np.linspace(0.4, 1.0, len(shown) + 1))
        indices = shown if symbol == "s" else [*shown, len(parameters) - 1]
        for index, color in zip(indices, colors, strict=False):
            kl = divergences[index]
            label = f"{symbol} = {parameters[index]:.2g}: KL {'∞' if np.isinf(kl) else f'{kl:.2f}'}"
            axis.plot(result.actions, densities[index], color=color, linewidth=1.6, label=label)
        axis.plot(result.actions, result.density, color="black", linestyle="--", linewidth=1.5)
        axis.annotate("q", (1.55, 0.13), fontsize="medium")
        axis.set_xlim(-3.2, 6.5)  # Room for the legend.
        axis.set_ylim(0, 2.6 if symbol == "s" else 0.85)
        axis.set_xlabel("action a (deviations of q)")
        axis.legend(fontsize="x-small", frameon=False, loc="upper right", handlelength=1.0)
        axis.set_title(title, fontsize="small")
    left.set_ylabel("density")
    for parameters, exact, integrated, color, label in (
        (
            result.scales,
            result.narrowing_kl,
            result.narrowing_integrated,
            "#0072B2",
            "narrowing: ∝ 1/s²",
        ),
        (
            result.leaks,
            result.vanishing_kl,
            result.vanishing_integrated,
            "#D55E00",
            "vanishing: ∝ log 1/e,\n∞ at e = 0",
        ),
    ):
        drawn = (parameters > 0) & (parameters < 1)
        right.loglog(parameters[drawn], exact[drawn], color=color, label=label)
        right.loglog(parameters[drawn], integrated[drawn], "o", color=color, markersize=4)
    right.invert_xaxis()
    right.set_xlabel("s or e (→ 0)")
    right.set_ylabel("KL(q‖p) (nats)")
    right.set_title("lines: closed form; dots: integrated", fontsize="small")
    right.legend(fontsize="x-small", frameon=False)
    _tidy(drawing)
    return drawing


def deviation_finding(result: Deviations) -> str:
    """What becomes of each kind's deviation 10 sd away, in a line for a title."""
    changes: list[str] = []
    for name, short in (("gaussian_network", "network"), ("exact_gp", "GP"), ("sparse_gp", "GP")):
        if name in result.places and not any(f"the {short}" in change for change in changes):
            ratio = result.ratios(name)["far"]
            factor = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
            changes.append(f"the {short}'s deviation × {factor}")
    return f"10 sd off the data, {' and '.join(changes) or 'deviations of all classes'}"


def deviations(result: Deviations, title: str) -> figure.Figure:
    """C2 and C5: median deviation and 10 to 90 % bands of each class, on and off the data."""
    drawing = _figure((8.0, 6.2), title)
    grid = drawing.add_gridspec(2, 2, height_ratios=(1.0, 1.1))
    upper_left = drawing.add_subplot(grid[0, 0])
    upper_right = drawing.add_subplot(grid[0, 1], sharey=upper_left)
    lower = drawing.add_subplot(grid[1, :], sharey=upper_left)
    for axis, at, curves in (
        (upper_left, result.positions, result.lines),
        (upper_right, result.distances, result.away),
    ):
        for name, bands in curves.items():
            label, color = CLASSES[name]
            low, middle, high = bands.mean
            axis.fill_between(at, low, high, color=color, alpha=0.13, linewidth=0)
            axis.plot(at, middle, color=color, linewidth=1.8, label=label)
            if not np.allclose(bands.mean, bands.action):
                axis.plot(at, bands.action[1], color=color, linewidth=1.0, linestyle=":")
        axis.set_yscale("log")
    upper_left.set_title("Along lines from one demonstration state to another", fontsize="small")
    upper_left.set_xlabel("position on the line")
    upper_left.set_ylabel("predictive deviation\n(units of the action)")
    upper_right.set_title("Moving away from the demonstrations", fontsize="small")
    upper_right.set_xlabel("distance (sd of each dimension)")
    places = [place for place in _PLACES if any(place in kinds for kinds in result.places.values())]
    offsets = np.linspace(-0.3, 0.3, len(result.places))
    for offset, (name, kinds) in zip(offsets, result.places.items(), strict=True):
        label, color = CLASSES[name]
        for index, place in enumerate(places):
            low, middle, high = kinds[place].mean
            lower.plot([index + offset] * 2, [low, high], color=color, alpha=0.4, linewidth=3)
            lower.plot(index + offset, middle, "o", color=color, markersize=6)
            noisy = kinds[place].action[1]
            if not np.isclose(noisy, middle):
                lower.plot(index + offset, noisy, "o", color=color, markersize=6, fillstyle="none")
    lower.set_xticks(range(len(places)), [_PLACES[place] for place in places])
    lower.set_xlim(-0.5, len(places) - 0.5)
    for edge in np.arange(len(places) - 1) + 0.5:
        lower.axvline(edge, color="#DDDDDD", linewidth=0.8)
    lower.set_ylabel("predictive deviation\n(units of the action)")
    gps = any(name.endswith("_gp") for name in result.places)
    lower.set_title(
        "Medians and 10 to 90 % bands over states"
        + ("; GP without observation noise, with it: dotted, open circles" if gps else ""),
        fontsize="small",
    )
    drawing.legend(
        *upper_left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize="small",
        frameon=False,
    )
    _tidy(drawing)
    return drawing


def deviation_maps(result: Deviations, title: str) -> figure.Figure:
    """C2 and C5: heat maps over the first two principal components, one color scale for all."""
    plane = result.plane
    names = list(plane.deviations)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    drawing = _figure((2.5 * columns + 0.7, 2.2 * rows + 0.7), title)
    panels = drawing.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    values = np.concatenate([grid.ravel() for grid in plane.deviations.values()])
    norm = colors_module.LogNorm(*np.quantile(values, (0.005, 0.995)))
    picture: Any = None
    for panel, name in zip(panels.flat, names, strict=False):
        picture = panel.pcolormesh(
            plane.x, plane.y, plane.deviations[name], norm=norm, cmap="viridis", rasterized=True
        )
        for trajectory in plane.trajectories:
            panel.plot(*trajectory.T, color="white", linewidth=0.5, alpha=0.7)
        label, color = CLASSES[name]
        panel.set_title(label, fontsize="medium", color=color, fontweight="bold")
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    for row in panels:
        row[0].set_ylabel(f"component 2 ({plane.explained[1]:.0%})")
    for panel in panels[-1]:
        panel.set_xlabel(f"component 1 ({plane.explained[0]:.0%})")
    drawing.colorbar(
        picture, ax=panels, label="predictive deviation (units of the action)", extend="both"
    )
    return drawing


def calibration(
    result: Deviations, recalibration: Recalibration | None, title: str
) -> figure.Figure:
    """C5: coverage of held-out actions, and log likelihood, of each class."""
    covered = [
        f"{CLASSES[name][0]} {result.accuracy[name].coverage[1]:.0%}"
        for name in ("exact_gp", "gaussian_network")
        if name in result.accuracy
    ]
    drawing = _figure((8.6, 3.8), f"{title}: a 90% interval covers {', '.join(covered)}")
    left, right = drawing.subplots(1, 2, width_ratios=(1.6, 1.0))
    positions = np.arange(len(LEVELS), dtype=np.float64)
    names = list(result.accuracy)
    extra = 1 if recalibration is not None else 0
    width = 0.8 / (len(names) + extra)
    for index, name in enumerate(names):
        label, color = CLASSES[name]
        at = positions + (index - (len(names) + extra - 1) / 2) * width
        left.bar(at, result.accuracy[name].coverage, 0.9 * width, color=color, label=label)
    if recalibration is not None:
        at = positions + (len(names) + extra - 1) / 2 * width
        left.bar(
            at,
            recalibration.after,
            0.9 * width,
            color="white",
            edgecolor=CLASSES["exact_gp"][1],
            hatch="////",
            label=f"exact GP, deviation × {recalibration.factor:.2f}",
        )
    for position, level in zip(positions, LEVELS, strict=True):
        left.plot([position - 0.45, position + 0.45], [level] * 2, color="black", linewidth=1.5)
    left.set_xticks(positions, [f"{level:.0%} interval" for level in LEVELS])
    left.set_ylim(0, 1.02)
    left.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    left.set_ylabel("held-out action components\nwithin the interval")
    left.set_title("Coverage; black: what the interval says", fontsize="small")
    likelihoods = [result.accuracy[name].log_likelihood for name in names]
    right.barh(
        range(len(names)), likelihoods, color=[CLASSES[name][1] for name in names], height=0.7
    )
    for index, value in enumerate(likelihoods):
        right.annotate(
            f" {value:,.1f} ".replace("-", "−"),
            (max(value, 0.0), index),
            va="center",
            ha="left",
            fontsize="small",
        )
    right.axvline(0, color="black", linewidth=0.8)
    right.set_yticks(range(len(names)), [CLASSES[name][0] for name in names], fontsize="small")
    right.invert_yaxis()
    right.margins(x=0.2)
    if min(likelihoods) < -200:
        right.set_xscale("symlog", linthresh=100)
        right.set_xticks([-10_000, -1000, -100, 0, 100])
        right.set_xlim(3 * min(likelihoods), 1000)
        right.minorticks_off()
    right.set_xlabel("log likelihood (nats)")
    right.set_title("Log likelihood of a held-out action", fontsize="small")
    drawing.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4,
        fontsize="small",
        frameon=False,
    )
    _tidy(drawing)
    return drawing


def gradient_growth(result: GradientGrowth, slope: float) -> figure.Figure:
    """C4: gradient norms over the prior's deviation, on logarithmic axes."""
    drawing = _figure(
        (8.6, 4.0),
        f"The actor's gradient grows as σ₀⁻² (slope {_signed(slope)} on logarithmic axes)",
    )
    left, right = drawing.subplots(1, 2)
    scales = result.scales
    left.loglog(scales, result.closed_form, color=_INK, label="closed form")
    left.loglog(
        scales, result.differentiated, "o", color="#D55E00", markersize=4, label="differentiated"
    )
    left.set_title("KL's gradient for the policy's mean and log deviation", fontsize="small")
    left.set_ylabel("gradient norm (RMS over states)")
    for actor, norms in result.actors.items():
        label, color, marker = _ACTORS[actor]
        size, filled = (8, "none") if marker == "o" else (4, "full")
        right.loglog(
            scales, norms.total, marker, color=color, markersize=size, fillstyle=filled, label=label
        )
        right.loglog(scales, norms.prior, color=color, linewidth=1.2)
        right.loglog(scales, norms.q, color=color, linewidth=1.0, linestyle=":")
    right.set_title(
        "for all weights of NppacAgent's actor\n"
        f"(dots: whole objective, α = {result.temperature:g}; line: KL term; dotted: Q term)",
        fontsize="small",
    )
    right.set_ylabel("gradient norm")
    for axis, reference in (
        (left, result.closed_form),
        (right, result.actors["gaussian_sampled"].prior),
    ):
        fitted = scales <= scales[0] * 10**DECADES * (1 + 1e-6)
        guide = 8.0 * reference[0] * (scales / scales[0]) ** -2.0
        axis.loglog(scales[fitted], guide[fitted], color="black", linestyle="--", linewidth=1)
        axis.annotate(
            "slope −2",
            (scales[fitted][fitted.sum() // 2], guide[fitted][fitted.sum() // 2]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize="small",
        )
        axis.set_xlabel("prior's deviation σ₀ (units of the action)")
        axis.legend(fontsize="small", frameon=False)
    _tidy(drawing)
    return drawing


def fixed_scale_runs(result: FixedScaleRuns) -> figure.Figure:
    """C3: learning curves, colored by the prior's deviation."""
    metrics = {
        "eval/time_at_goal": "B: share of time at the goal",
        "eval/return": "return",
        "train/kl": "KL from the prior (nats)",
        "train/actor_gradient_norm": "norm of the actor's gradient",
    }
    shown = [
        metric
        for metric in metrics
        if any(np.isfinite(c[metric].values).any() for c in result.curves if metric in c)
    ]
    if {"eval/time_at_goal", "eval/return"} <= set(shown) and _return_tells_time_at_goal(result):
        shown.remove("eval/return")
    drawing = _figure((3.9 * len(shown) + 0.6, 3.8), _fixed_scale_finding(result, shown))
    panels: Sequence[Any] = drawing.subplots(1, len(shown), squeeze=False)[0]
    colors = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(result.scales)))
    for panel, metric in zip(panels, shown, strict=True):
        for scale, curves, color in zip(result.scales, result.curves, colors, strict=True):
            if metric not in curves:
                continue
            steps, values = curves[metric]
            for run in values[: len(values) if len(values) > 1 else 0]:
                known = np.isfinite(run)
                panel.plot(steps[known], run[known], color=color, alpha=0.35, linewidth=0.8)
            mean = values.mean(axis=0)
            known = np.isfinite(mean)
            label = f"σ₀ = {scale:g}"
            panel.plot(steps[known], mean[known], color=color, linewidth=2.0, label=label)
        panel.set_title(metrics[metric], fontsize="small")
        panel.set_xlabel("environment steps")
        panel.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        if metric in ("train/kl", "train/actor_gradient_norm"):
            panel.set_yscale("log")
    panels[0].set_ylabel("mean of runs (thick), each run (thin)", fontsize="small")
    handles, labels = panels[0].get_legend_handles_labels()
    drawing.legend(
        handles, labels, loc="outside lower center", ncols=6, fontsize="small", frameon=False
    )
    _tidy(drawing)
    return drawing


def _return_tells_time_at_goal(result: FixedScaleRuns) -> bool:
    """Whether one is a straight line over the other, as with a reward of 1 at the goal."""
    pairs = [
        np.stack([curves["eval/time_at_goal"].values, curves["eval/return"].values]).reshape(2, -1)
        for curves in result.curves
    ]
    at_goal, returns = np.concatenate(pairs, axis=1)
    if not np.isfinite([at_goal, returns]).all():
        return False
    design = np.stack([at_goal, np.ones_like(at_goal)], axis=1)
    line = design @ np.linalg.lstsq(design, returns, rcond=None)[0]
    return np.allclose(line, returns, atol=1e-3 * np.ptp(returns))


def _fixed_scale_finding(result: FixedScaleRuns, shown: Sequence[str]) -> str:
    """What is shown, at the last step that all runs have evaluated; narrowest prior first."""
    shapes = {
        "eval/time_at_goal": "B {:.2f}",
        "eval/return": "return {:,.0f}",
        "train/kl": "KL {:,.0f}",
        "train/actor_gradient_norm": "gradient {:,.0f}",
    }
    found = [metric for metric in shown if all(metric in curves for curves in result.curves)]
    drawn = [curves[metric] for metric in found for curves in result.curves]
    known = [steps[np.isfinite(values).all(axis=0)] for steps, values in drawn]
    common = functools.reduce(np.intersect1d, known) if known else np.array([])
    title = "Online learning by the prior's fixed deviation σ₀"
    if not len(common):
        return title
    parts = []
    for metric in found:
        curves = [of_scale[metric] for of_scale in result.curves]
        last = [float(values[:, steps == common[-1]].mean()) for steps, values in curves]
        name, shape = shapes[metric].split()
        parts.append(f"{name} {', '.join(map(shape.format, last))}".replace("-", "−"))
    scales = ", ".join(f"{scale:g}" for scale in result.scales)
    return f"{title}\n{int(common[-1]):,} steps, σ₀ = {scales}: {'; '.join(parts)}"


def prior_class_finding(result: PriorClassRuns) -> str:
    """At the last common step, the classes with the highest and the lowest B, in a sentence.

    Whether seeds can tell the two apart is part of it.
    """
    values = {name: runs.values["eval/time_at_goal"] for name, runs in result.classes.items()}
    best = max(values, key=lambda name: values[name][:, -1].mean())
    worst = min(values, key=lambda name: values[name][:, -1].mean())
    first, last = (
        [float(values[name][:, index].mean()) for name in (best, worst)] for index in (0, -1)
    )
    intervals = [interval(values[name][:, -1]) for name in (best, worst)]
    if intervals[0] is None or intervals[1] is None:
        certainty = "too few seeds for intervals"
    else:
        apart = intervals[0][0] > intervals[1][1]
        certainty = f"95% intervals {'do not overlap' if apart else 'overlap'}"
    labels = [_class_label(result.classes[name]) for name in (best, worst)]
    return (
        f"B at {int(result.env_steps[-1]):,} steps is highest with {labels[0]}: "
        f"{last[0]:.2f}, from {first[0]:.2f} at the start; lowest with {labels[1]}: "
        f"{last[1]:.2f}, from {first[1]:.2f}; {certainty}"
    )


def _class_label(runs: ClassRuns) -> str:
    floor = f", floor {runs.scale_floor:g}" if runs.scale_floor else ""
    return f"{CLASSES[runs.prior][0]}{floor}"


def prior_class_runs(result: PriorClassRuns, title: str) -> figure.Figure:
    """C8: learning curves of A and B, colored by the prior's class."""
    drawing = _figure((9.6, 4.4), textwrap.fill(title, 90))
    panels: Sequence[Any] = drawing.subplots(1, 2, sharey=True)
    for panel, metric, label in zip(
        panels,
        ("eval/any_success", "eval/time_at_goal"),
        ("A: share of episodes that reach the goal", "B: share of time at the goal"),
        strict=True,
    ):
        if result.warmup_steps:
            panel.axvspan(0, result.warmup_steps, color="#EEEEEE", zorder=0)
        for runs in result.classes.values():
            color = CLASSES[runs.prior][1]
            style = "--" if runs.scale_floor else "-"
            values = runs.values[metric]
            for run in values:
                panel.plot(result.env_steps, run, style, color=color, alpha=0.4, linewidth=0.7)
            mean = values.mean(axis=0)
            plural = "" if len(values) == 1 else "s"
            panel.plot(
                result.env_steps,
                mean,
                style,
                color=color,
                linewidth=2.2,
                label=f"{_class_label(runs)} ({len(values)} seed{plural})",
            )
        panel.set_title(label, fontsize="small")
        panel.set_xlabel("environment steps")
        panel.set_ylim(0, 1.03)
        panel.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    if result.warmup_steps:
        panels[1].annotate("policy held", (0.01 * result.warmup_steps, 0.02), fontsize="x-small")
    panels[0].set_ylabel(
        "mean over seeds (thick), each seed (thin);\n"
        f"{result.eval_episodes} episodes per evaluation",
        fontsize="small",
    )
    drawing.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize="small",
        frameon=False,
    )
    _tidy(drawing)
    return drawing


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _figure(size: tuple[float, float], title: str) -> figure.Figure:
    drawing = figure.Figure(figsize=size, layout="constrained")
    drawing.suptitle(title, fontsize="medium", fontweight="bold")
    return drawing


def _tidy(drawing: figure.Figure) -> None:
    for axis in drawing.axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
