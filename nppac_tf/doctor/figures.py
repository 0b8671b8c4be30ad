"""The doctor's overview figure of a recording."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colors as colors_module
from matplotlib import figure, ticker


def demonstrations_overview(
    observations: Sequence[np.ndarray],
    actions: Sequence[np.ndarray],
    goals: Sequence[np.ndarray] | None = None,
    rewards: Sequence[np.ndarray] | None = None,
    replay_errors: Sequence[np.ndarray] | None = None,
    action_bounds: tuple[np.ndarray, np.ndarray] | None = None,
    episode_names: Sequence[int] | None = None,
    suspects: Sequence[int] = (),
    horizon: int | None = None,
    title: str = "",
    observation_names: Sequence[str] | None = None,
    action_names: Sequence[str] | None = None,
) -> figure.Figure:
    """Draws the content of a data set on one page.

    Args:
        observations: Observations [T, D] of each of E episodes.
        actions: Actions [T, A] of each episode, before any clipping.
        goals: Goal flags [T] of each episode: 1 at the goal, 0 elsewhere, nan if unknown. None for
            a task without a goal.
        rewards: Rewards [T] of each episode; drawn if there are no goals.
        replay_errors: Replay errors [T + 1] of some episodes; see `SimulatorReplay`.
        action_bounds: Lower and upper action bounds, [A] each.
        episode_names: Numbers [E] that label the episodes (default: their positions).
        suspects: Positions of episodes to mark.
        horizon: Horizon of the task, in steps; drawn if it is within the episodes.
        title: Title of the figure.
        observation_names: Names of the observations' dimensions [D], if known.
        action_names: Names of the actions' dimensions [A], if known.
    """
    named = [_shortened(each) for each in (observation_names, action_names)]
    width = max(11.0, 2.0 + _INCHES_PER_LABEL * max(len(each) for each in named))
    height = 9.0 + sum(_INCHES_PER_SIGN * max(map(len, each), default=0) for each in named)
    result = figure.Figure(figsize=(width, height), layout="constrained")
    if title:
        result.suptitle(title, fontsize="large", fontweight="bold")
    grid = result.add_gridspec(3, 3, height_ratios=(3.0, 2.2, 2.2))
    names = range(len(actions)) if episode_names is None else episode_names
    lengths = np.array([len(episode) for episode in actions])
    _draw_timelines(
        result.add_subplot(grid[0, :2]), lengths, goals, rewards, names, set(suspects), horizon
    )
    _draw_over_time(result.add_subplot(grid[0, 2]), lengths, goals, rewards, horizon)
    _draw_ranges(
        result.add_subplot(grid[1, :]),
        np.concatenate(list(observations)),
        "observations",
        None,
        named[0],
    )
    columns = slice(None) if replay_errors is None else slice(0, 2)
    _draw_ranges(
        result.add_subplot(grid[2, columns]),
        np.concatenate(list(actions)),
        "actions",
        action_bounds,
        named[1],
    )
    if replay_errors is not None:
        _draw_replay(result.add_subplot(grid[2, 2]), replay_errors)
    return result


_LABEL_SIZE = 7  # Points.
_INCHES_PER_LABEL = 0.13
_INCHES_PER_SIGN = 0.06
_LONGEST_LABEL = 24
_GOAL_COLOR, _EPISODE_COLOR, _SUSPECT_COLOR, _INK = "#009E73", "#DDE3E8", "#D55E00", "#34495E"


def _shortened(names: Sequence[str] | None) -> list[str]:
    return [
        name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…"
        for name in names or ()
    ]


def _draw_timelines(
    axis: Any,
    lengths: np.ndarray,
    goals: Sequence[np.ndarray] | None,
    rewards: Sequence[np.ndarray] | None,
    names: Sequence[int] | range,
    suspects: set[int],
    horizon: int | None,
) -> None:
    """One bar per episode, as long as the episode, colored at the goal or by reward."""
    count, longest = len(lengths), int(lengths.max())
    colors = [_SUSPECT_COLOR if position in suspects else _INK for position in range(count)]
    axis.barh(range(count), lengths, height=1.0, color=_EPISODE_COLOR, zorder=0)
    values = goals if goals is not None else rewards
    if values is not None:
        image = np.full((count, longest), np.nan)
        for row, steps in zip(image, values, strict=True):
            row[: min(len(steps), longest)] = steps[:longest]
        if goals is not None:
            image[image == 0] = np.nan
            low, high = 0.0, 1.0
        else:
            image[np.isinf(image)] = np.nan
            known = image[np.isfinite(image)]
            low, high = np.quantile(known, (0.01, 0.99)) if known.size else (0.0, 1.0)
        picture = axis.imshow(
            image,
            aspect="auto",
            interpolation="nearest",
            cmap="viridis" if goals is None else colors_module.ListedColormap([_GOAL_COLOR]),
            vmin=low,
            vmax=high,
            extent=(0, longest, count - 0.5, -0.5),
            zorder=1,
        )
        if goals is None:
            axis.figure.colorbar(picture, ax=axis, label="reward", pad=0.01)
    if count < 60:  # Leave a gap between the bars.
        for position in range(count + 1):
            axis.axhline(position - 0.5, color="white", linewidth=min(6, 50 / count), zorder=2)
    for position in suspects:
        axis.plot(
            lengths[position], position, marker="<", color=_SUSPECT_COLOR, clip_on=False, zorder=5
        )
    if horizon is not None and horizon < longest:
        axis.axvline(horizon, color=_INK, linestyle=":", linewidth=1.2)
    step = max(1, -(-count // 30))
    axis.set_yticks(range(0, count, step), [str(names[k]) for k in range(0, count, step)])
    for label, position in zip(axis.get_yticklabels(), range(0, count, step), strict=True):
        label.set_color(colors[position])
        label.set_fontsize(7)
    axis.set_xlim(0, longest * 1.01)
    axis.set_ylim(count - 0.4, -0.6)
    axis.set_xlabel("step")
    axis.set_ylabel("episode")
    shown = "at the goal in green" if goals is not None else "colored by reward"
    heading = "Episodes" + (f", {shown}" if values is not None else "")
    axis.set_title(
        heading + ("; marked ones have findings" if suspects else ""), loc="left", fontsize="medium"
    )
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False)


def _draw_over_time(
    axis: Any,
    lengths: np.ndarray,
    goals: Sequence[np.ndarray] | None,
    rewards: Sequence[np.ndarray] | None,
    horizon: int | None,
) -> None:
    """Fraction of episodes at the goal, or the reward, and the fraction that still runs."""
    steps = np.arange(int(lengths.max()))
    going = (lengths[:, None] > steps).mean(axis=0)
    if goals is None and rewards is not None:
        table = np.full((len(lengths), len(steps)), np.nan)
        for row, paid in zip(table, rewards, strict=True):
            row[: min(len(paid), len(row))] = paid[: len(row)]
        table[np.isinf(table)] = np.nan
        known = np.isfinite(table).any(axis=0)
        if known.any():
            low, middle, high = np.nanquantile(table[:, known], (0.1, 0.5, 0.9), axis=0)
            axis.fill_between(steps[known], low, high, color="#56B4E9", alpha=0.3, linewidth=0)
            axis.plot(steps[known], middle, color="#0072B2", linewidth=1.2)
        axis.set_title("Reward: median, 10 to 90 %", loc="left", fontsize="medium")
    else:
        if goals is None or len(set(lengths)) > 1:
            axis.step(steps, going, color="#9AA5B1", linewidth=1.2, where="post")
            axis.annotate(
                "still running",
                (0.03, 0.9),
                xycoords="axes fraction",
                color="#7B8794",
                fontsize="small",
                va="top",
            )
        if goals is not None:
            share = np.array([_share_at_goal(goals, int(step)) for step in steps])
            axis.fill_between(steps, share, color=_GOAL_COLOR, alpha=0.25, linewidth=0)
            axis.plot(steps, share, color=_GOAL_COLOR, linewidth=1.8)
            axis.set_title("Fraction of episodes at the goal", loc="left", fontsize="medium")
        else:
            axis.set_title("Fraction of episodes still running", loc="left", fontsize="medium")
        axis.set_ylim(0, 1.04)
    if horizon is not None and horizon < len(steps):
        axis.axvline(horizon, color=_INK, linestyle=":", linewidth=1.2)
        axis.annotate(
            "horizon",
            (horizon, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            rotation=90,
            color=_INK,
            fontsize="small",
        )
    axis.set_xlim(0, len(steps))
    axis.set_xlabel("step")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _share_at_goal(goals: Sequence[np.ndarray], step: int) -> float:
    """Share of the episodes at the goal, of those where it is known; an ended one is not."""
    flags = np.array([flags[step] if step < len(flags) else 0.0 for flags in goals])
    known = ~np.isnan(flags)
    return float((flags[known] == 1).mean()) if known.any() else float("nan")


def _draw_ranges(
    axis: Any,
    values: np.ndarray,
    label: str,
    bounds: tuple[np.ndarray, np.ndarray] | None,
    names: Sequence[str],
) -> None:
    """Range and middle 90 % of each dimension."""
    values = values[np.isfinite(values).all(axis=1)]
    axis.set_xlabel(f"dimension of the {label}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    if not len(values):
        return
    least, low, middle, high, most = np.quantile(values, (0, 0.05, 0.5, 0.95, 1), axis=0)
    constant = most == least
    dimensions = np.arange(values.shape[1])
    moving = ~constant
    for lower, upper, color in ((least, most, "#9CC9E8"), (low, high, "#0072B2")):
        height = (upper - lower)[moving]
        axis.bar(dimensions[moving], height, 0.5, lower[moving], color=color, zorder=2)
    axis.hlines(
        middle[moving],
        dimensions[moving] - 0.25,
        dimensions[moving] + 0.25,
        color="white",
        linewidth=1.2,
        zorder=3,
    )
    axis.plot(
        dimensions[constant], middle[constant], linestyle="", marker="x", color=_SUSPECT_COLOR
    )
    heading = f"{label.capitalize()}: middle 90 % (dark), range (light)"
    if constant.any():
        heading += ", constant (x)"
    if bounds is not None and len(bounds[0]) == len(dimensions):
        span = bounds[1] - bounds[0]
        at_bound = (values - bounds[0] <= 1e-3 * span) | (bounds[1] - values <= 1e-3 * span)
        for edge in bounds:
            axis.step(
                [*(dimensions - 0.5), dimensions[-1] + 0.5],
                [*edge, edge[-1]],
                where="post",
                color=_SUSPECT_COLOR,
                linewidth=1,
                linestyle="--",
            )
        share = _second_axis(axis, "fraction at or beyond bounds", "#B8860B")
        share.bar(dimensions + 0.34, at_bound.mean(axis=0), 0.16, color="#E6A700")
        share.set_ylim(0, 1)
        share.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
        heading += ", bounds (dashed)"
    sizes = np.maximum(np.abs(low), np.abs(high))
    usual = float(np.median(sizes[sizes > 0])) if sizes.any() else 0.0
    if 0 < usual < np.abs(values).max() / 10:  # Keeps small dimensions visible.
        threshold = 10.0 ** np.floor(np.log10(max(usual / 3, 1e-6)))
        axis.set_yscale("symlog", linthresh=threshold, linscale=0.6)
    axis.set_title(heading, loc="left", fontsize="medium")
    axis.use_sticky_edges = False
    axis.margins(y=0.05)
    axis.set_xlim(-0.8, len(dimensions) - 0.2)
    if names:
        axis.set_xticks(dimensions, names, rotation=90, fontsize=_LABEL_SIZE)
    else:
        axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, nbins=16))


def _draw_replay(axis: Any, errors: Sequence[np.ndarray]) -> None:
    """Difference between an open-loop replay and the recording, at each step."""
    longest = max(len(episode) for episode in errors)
    table = np.full((len(errors), longest), np.nan)
    for row, episode in zip(table, errors, strict=True):
        row[: len(episode)] = np.maximum(episode, 1e-16)
    known = np.isfinite(table).any(axis=0)
    steps = np.flatnonzero(known)
    for row in table:
        axis.plot(row, color="#CC79A7", alpha=0.25, linewidth=0.7)
    axis.plot(steps, np.nanmedian(table[:, known], axis=0), color="#9B4F7C", linewidth=1.8)
    axis.set_yscale("log")
    axis.set_title("Replay: error of observations", loc="left", fontsize="medium")
    axis.set_xlabel("step")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _second_axis(axis: Any, label: str, color: str) -> Any:
    second = axis.twinx()
    second.set_ylabel(label, color=color)
    second.spines["top"].set_visible(False)
    return second
