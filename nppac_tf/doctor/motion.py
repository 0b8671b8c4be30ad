"""Episodes that begin in motion, as parts cut from longer recordings do.

Glossary: E episodes, T steps of an episode, D observation size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.doctor.findings import Examination, Finding, format_count

_FEW_STEPS = 12
_SMOOTH = 0.7  # Correlation of successive changes, above which a dimension is a position.
_ROUNDING = 1e-6  # In units of a usual change.
_SAME = 0.9  # Correlation with a position's change, above which a dimension is its velocity.


def check_motion(examination: Examination) -> Iterator[Finding]:
    """Finds episodes that begin in motion."""
    moving = in_motion(examination.episodes) if examination.is_finite else []
    if moving and examination.is_continuous:
        yield Finding(
            "note",
            "continuous",
            f"{format_count(moving, examination.episodes)} begin in motion, where the one before "
            "ends: flags cut one long recording, and no reset is between them",
            "Nothing, if the task goes on after its goal; such starts are not those of a reset.",
            examination.file_indices(moving),
        )
    elif moving:
        yield Finding(
            "note",
            "in motion",
            f"{format_count(moving, examination.episodes)} begin in motion, about as fast as they "
            "go on",
            "Nothing, if the task starts so. Else they were cut from longer recordings: start them "
            "at rest, since a policy that starts at rest lacks examples.",
            examination.file_indices(moving),
        )


def unfairly_replayed(examination: Examination) -> list[int]:
    """Positions of the episodes that begin in motion while their replay starts at rest."""
    simulation = examination.simulation
    if simulation is None or not simulation.starts_at_rest or not examination.is_finite:
        return []
    return in_motion(examination.episodes)


def in_motion(episodes: Sequence[RecordedEpisode]) -> list[int]:
    """Positions of the episodes that begin in motion, as far as the observations show it.

    Positions are dimensions that change smoothly. If the observations hold the velocities of most,
    the first velocity counts. Otherwise the first change counts: after a start at rest it is about
    half of the second, or small. Episodes in which a moving dimension begins exactly where that of
    others does, such as a velocity of 0, come from a reset and are left out.

    Args:
        episodes: Finite observations of one size; episodes of less than 12 steps are left out.
    """
    long = [k for k, episode in enumerate(episodes) if episode.length >= _FEW_STEPS]
    if not long:
        return []
    rows = [episodes[k].observations[: episodes[k].length] for k in long]
    changes = [np.diff(row, axis=0) for row in rows]
    everything = np.concatenate(changes)
    scale = np.sqrt((everything**2).mean(axis=0))
    products = np.concatenate([change[1:] * change[:-1] for change in changes]).mean(axis=0)
    smooth = np.flatnonzero((products > _SMOOTH * scale**2) & (scale > 1e-9))
    if not smooth.size:
        return []
    is_reset = _begin_alike(rows, _ROUNDING * scale)
    before, after = (np.concatenate([row[part] for row in rows]) for part in (_BEFORE, _AFTER))
    likeness = np.maximum(
        _correlation(everything[:, smooth], before), _correlation(everything[:, smooth], after)
    )
    likeness[np.arange(len(smooth)), smooth] = 0.0
    has_velocity = likeness.max(axis=1) > _SAME
    if has_velocity.mean() >= 0.5:
        velocities = np.unique(likeness.argmax(axis=1)[has_velocity])
        speeds = [_speed(row[:, velocities], before[:, velocities]) for row in rows]
        is_steady = [True] * len(rows)
    else:
        others = smooth[~has_velocity]
        speeds = [_speed(change[:, others], everything[:, others]) for change in changes]
        is_steady = [speed[0] > 0.75 * speed[1] for speed in speeds]
    usual = np.median(np.concatenate(speeds))
    return [
        position
        for position, speed, steady, reset in zip(long, speeds, is_steady, is_reset, strict=True)
        if steady and not reset and speed[0] > 0.6 * usual
    ]


_BEFORE, _AFTER = slice(None, -1), slice(1, None)


def _begin_alike(rows: Sequence[np.ndarray], tolerance: np.ndarray) -> np.ndarray:
    """Whether a dimension that keeps moving begins where that of most others does, [E].

    Flags and contacts begin alike too, but they change rarely.
    """
    first = np.stack([row[0] for row in rows])
    moves = np.stack([np.mean(np.abs(np.diff(row, axis=0)) > tolerance, axis=0) for row in rows])
    alike = (moves > 0.5) & (np.abs(first - np.median(first, axis=0)) <= tolerance)
    return np.asarray((alike & (alike.sum(axis=0) > 1)).any(axis=1))


def _speed(values: np.ndarray, everything: np.ndarray) -> np.ndarray:
    """Root mean square [T] of values [T, K], in units of their usual size."""
    return np.sqrt((values**2 / (everything**2).mean(axis=0)).mean(axis=1))


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute correlation [K, L] of the columns of two arrays [N, K] and [N, L]."""
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    sizes = np.outer(np.sqrt((one**2).sum(axis=0)), np.sqrt((other**2).sum(axis=0)))
    return np.abs(one.T @ other) / np.maximum(sizes, 1e-12)
