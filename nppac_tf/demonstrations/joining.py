"""Joining of several recordings to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nppac_tf.demonstrations.recording import Recording
from nppac_tf.environments.known import known_task
from nppac_tf.errors import UserError

# What sets must agree in, where they state it.
_SHARED = ("fps", "observation_names", "action_names")


def join(recordings: Sequence[Recording]) -> Recording:
    """Joins recordings of the same spaces, in the given order.

    The metadata of the whole hold what all state alike, and under "sets" what each states. Episodes
    are numbered through.

    Args:
        recordings: At least one; if one, it is returned as it is.

    Raises:
        UserError: There is none, or they differ in sizes, names of dimensions, steps per second or
            task.
    """
    if not recordings:
        raise UserError("demonstrations must be named; got an empty list")
    first = recordings[0]
    if len(recordings) == 1:
        return first
    for other in recordings[1:]:
        _require_alike(
            "sizes of observation and action", _sizes(first), _sizes(other), first, other
        )
        _require_alike("task", _task(first), _task(other), first, other)
    shared: dict[str, Any] = {}
    for key in _SHARED:
        stating = [recording for recording in recordings if recording.metadata.get(key)]
        for other in stating:
            stated = shared.setdefault(key, other.metadata[key])
            what = key.replace("_", " ")
            _require_alike(what, stated, other.metadata[key], stating[0], other)
    alike = {
        key: value
        for key, value in first.metadata.items()
        if all(key in r.metadata and r.metadata[key] == value for r in recordings)
    }
    sets = [{"name": r.name, "episodes": len(r.episodes), **r.metadata} for r in recordings]
    episodes = tuple(episode for recording in recordings for episode in recording.episodes)
    environments = {recording.environment_id for recording in recordings} - {None}
    return Recording(
        " + ".join(recording.name for recording in recordings),
        " + ".join(dict.fromkeys(recording.format for recording in recordings)),
        episodes,
        tuple(range(len(episodes))),
        _labeled(recordings, "problems"),
        {**alike, **shared, "sets": sets},
        environments.pop() if len(environments) == 1 else None,
        any(recording.is_pickle for recording in recordings),
        _labeled(recordings, "notices"),
    )


def _require_alike(what: str, one: Any, two: Any, first: Recording, other: Recording) -> None:
    if one is None or two is None or one == two:
        return
    if isinstance(one, list) and len(one) == len(two):  # Show where lists begin to differ.
        at = next(
            index for index, pair in enumerate(zip(one, two, strict=True)) if len(set(pair)) > 1
        )
        what, one, two = f"{what} (dimension {at})", one[at], two[at]
    raise UserError(
        f"sets that are joined must have the same {what}; got {one} in {first.name} and {two} in "
        f"{other.name}"
    )


def _sizes(recording: Recording) -> tuple[int, int] | None:
    if not recording.episodes:
        return None
    episode = recording.episodes[0]
    return episode.observations.shape[1], episode.actions.shape[1]


def _task(recording: Recording) -> str | None:
    known = known_task(recording.environment_id) if recording.environment_id else None
    return known.name if known else None


def _labeled(recordings: Sequence[Recording], field: str) -> tuple[str, ...]:
    return tuple(f"{r.name}: {line}" for r in recordings for line in getattr(r, field))
