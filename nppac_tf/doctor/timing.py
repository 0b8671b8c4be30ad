"""Checks of time: missing frames, frozen values, and values that jump for one step.

Glossary: T steps of an episode, K size of an observation or action.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nppac_tf.doctor.findings import FIELDS, Examination, Finding, format_count, format_number

_FROZEN_RUN = 10
_LIVELY = 0.98  # Share of the steps of an episode in which a dimension changes that never rests.
_FROZEN_SHARE = 0.25  # Share of such dimensions that freeze together.
_GLITCH_RATIO = 8.0


def check_timestamps(examination: Examination) -> Iterator[Finding]:
    """Finds frames that are missing or out of order, and another rate than the file states."""
    episodes = examination.episodes
    gaps: dict[int, int] = {}
    backward: list[int] = []
    steps = []
    for position, episode in enumerate(episodes):
        times = episode.timestamps
        if times is None or len(times) != episode.length or len(times) < 3:
            continue
        intervals = np.diff(np.asarray(times, np.float64))
        usual = float(np.median(intervals))
        if not (intervals > 0).all():
            backward.append(position)
            continue
        steps.append(usual)
        missing = int((np.round(intervals / usual) - 1).sum())
        if missing:
            gaps[position] = missing
    if backward:
        yield Finding(
            "warning",
            "timestamps",
            f"the timestamps of {format_count(backward, episodes)} do not increase from step to "
            "step",
            "Check the recorder: frames are repeated, or in the wrong order.",
            examination.file_indices(backward),
        )
    if gaps:
        yield Finding(
            "warning",
            "dropped frames",
            f"by their timestamps, {format_count(gaps, episodes)} lack frames, "
            f"{sum(gaps.values()):,} in all",
            "Cut the episodes there, or fill the gaps: an action seems to move the state too far.",
            examination.file_indices(gaps),
        )
    stated = examination.recording.metadata.get("fps")
    if steps and isinstance(stated, int | float) and stated > 0:
        rate = 1 / float(np.median(steps))
        if abs(rate / stated - 1) > 0.05:
            yield Finding(
                "warning",
                "frame rate",
                f"the file states {format_number(stated)} frames per second, its timestamps "
                f"{format_number(rate)}",
                "Find out which is right: the task must run at that rate.",
            )


def check_frozen(examination: Examination) -> Iterator[Finding]:
    """Finds steps that repeat, and dimensions that freeze while others go on."""
    frozen: list[int] = []
    stuck: list[int] = []
    longest = 0
    moves = [np.abs(np.diff(e.actions, axis=0)).sum(axis=1) for e in examination.episodes]
    usual = float(np.concatenate([[0.0], *moves]).mean())
    for position, episode in enumerate(examination.episodes):
        steps = min(len(episode.observations), episode.length)
        if steps < 2:
            continue
        same_state = (np.diff(episode.observations[:steps], axis=0) == 0).all(axis=1)
        still = moves[position][: steps - 1] == 0
        for start, end in _runs(same_state, _FROZEN_RUN):
            is_stuck = bool(_runs(still[start:end], _FROZEN_RUN))
            # A robot at rest repeats its state as well, while its actions hardly change.
            if is_stuck or moves[position][start:end].mean() > 0.5 * usual:
                (stuck if is_stuck else frozen).append(position)
                longest = max(longest, end - start)
                break
    for topic, positions, what in (
        ("repeated steps", stuck, "repeat one step"),
        ("frozen state", frozen, "repeat one observation while the actions change"),
    ):
        if positions:
            yield Finding(
                "warning",
                topic,
                f"{format_count(positions, examination.episodes)} {what}, up to {longest:,} times",
                "Cut these steps out: the recorder hung or waited.",
                examination.file_indices(positions),
            )
    if examination.is_uniform:
        yield from _check_frozen_dimensions(examination, {*stuck, *frozen})


def _check_frozen_dimensions(examination: Examination, known: set[int]) -> Iterator[Finding]:
    episodes = examination.episodes
    same: list[np.ndarray] = [np.diff(e.observations, axis=0) == 0 for e in episodes]
    shares = [flags.mean(axis=0) for flags in same if len(flags)]
    if not shares:
        return
    lively = np.flatnonzero(np.median(shares, axis=0) <= 1 - _LIVELY)
    if len(lively) < 2:
        return
    needed = max(2, int(np.ceil(_FROZEN_SHARE * len(lively))))
    found: dict[int, np.ndarray] = {}
    for position, flags in enumerate(same):
        if position in known or len(flags) < _FROZEN_RUN:
            continue
        runs = np.lib.stride_tricks.sliding_window_view(flags[:, lively], _FROZEN_RUN, axis=0)
        together = runs.all(axis=2)
        at = np.flatnonzero(together.sum(axis=1) >= needed)
        if at.size:
            found[position] = lively[together[at[0]]]
    if found:
        first = next(iter(found.values()))
        yield Finding(
            "warning",
            "frozen dimensions",
            f"in {format_count(list(found), episodes)}, dimensions that else never rest stay the "
            f"same for {_FROZEN_RUN} steps or more while others go on: in the first of them, "
            f"{examination.describe_dimensions('observations', first)}",
            "Cut these steps out: a sensor hung.",
            examination.file_indices(found),
        )


def check_glitches(examination: Examination) -> Iterator[Finding]:
    """Finds values that jump away and return in the next step, far beyond the usual changes."""
    if not examination.is_finite:
        return
    for field in FIELDS:
        rows = [getattr(e, field) for e in examination.episodes]
        changes = np.concatenate([np.abs(np.diff(row, axis=0)) for row in rows])
        if not len(changes):
            continue
        usual = np.quantile(changes, 0.995, axis=0)
        found: list[tuple[int, int, int]] = []
        for position, row in enumerate(rows):
            if len(row) < 3:
                continue
            there, back = row[1:-1] - row[:-2], row[2:] - row[1:-1]
            least = np.minimum(np.abs(there), np.abs(back))
            glitches = (least > _GLITCH_RATIO * usual) & (usual > 0) & (there * back < 0)
            glitches &= np.abs(there + back) < 0.3 * least
            found += [(position, int(t) + 1, int(k)) for t, k in np.argwhere(glitches)]
        if found:
            position, step, dimension = found[0]
            positions = sorted({glitch[0] for glitch in found})
            indices = examination.file_indices(positions)
            yield Finding(
                "warning",
                "glitches",
                f"{len(found):,} values of the {field} in "
                f"{format_count(positions, examination.episodes)} jump away for one step, first at "
                f"step {step} of episode {indices[0]}, "
                f"{examination.describe_dimensions(field, [dimension])}",
                "Replace them by the mean of the steps before and after: a sensor failed.",
                indices,
            )


def _runs(flags: np.ndarray, least: int) -> list[tuple[int, int]]:
    """Start and exclusive end of the runs of true flags that are at least so long."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a >= least]
