"""Checks whether a recording is complete and consistent.

Glossary: E episodes, T steps of an episode, D observation size, A action size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial

import numpy as np

from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.doctor.findings import (
    FIELDS,
    Examination,
    Finding,
    format_count,
)
from nppac_tf.environments.known import tasks_of_sizes

_MAX_PROBLEMS = 5


def check_reading(examination: Examination) -> Iterator[Finding]:
    """Reports what could not be read or is missing, and that pickles are unsafe elsewhere."""
    recording = examination.recording
    if recording.is_pickle:
        yield Finding(
            "note",
            "pickle",
            f"the {recording.format} is a Python pickle, which can run any code if loaded the "
            "usual way; here it was read without running code",
            "Do not open such files of others with pickle.load or np.load(allow_pickle=True). "
            "Convert them to .npz with save_demonstrations.",
        )
    for notice in recording.notices:
        yield Finding("warning", "incomplete", notice, "Download the rest if it is to be used.")
    for problem in recording.problems[:_MAX_PROBLEMS]:
        yield Finding("error", "unreadable", problem, "Repair or remove it.")
    if len(recording.problems) > _MAX_PROBLEMS:
        yield Finding(
            "error",
            "unreadable",
            f"there are {len(recording.problems) - _MAX_PROBLEMS} more such problems",
            "Repair the first ones and check again.",
        )
    if not recording.episodes and not recording.problems:
        yield Finding("error", "empty", "there is no episode", "Record at least a few episodes.")


def check_sizes(examination: Examination) -> Iterator[Finding]:
    """Finds episodes whose sizes differ from the rest or from the task."""
    task, episodes = examination.task, examination.episodes
    widths = [(e.observations.shape[1], e.actions.shape[1]) for e in episodes]
    if not widths:
        return
    sizes = max(set(widths), key=widths.count)
    others = [position for position, width in enumerate(widths) if width != sizes]
    if others:
        yield Finding(
            "error",
            "sizes",
            f"{format_count(others, episodes)} differ in size from the rest, which have "
            f"observation size {sizes[0]} and action size {sizes[1]}",
            "Remove these episodes or record them again.",
            examination.file_indices(others),
        )
    if task is None or sizes == (task.observation_size, task.action_size):
        return
    fitting = tasks_of_sizes(sizes)
    if sizes == (task.action_size, task.observation_size):
        advice = "Swap observations and actions: they are exchanged."
    elif fitting:
        advice = f"Pass --task={fitting[0]}: these are the sizes of {' and '.join(fitting)}."
    else:
        advice = "Mend the data, or pass the --task that they were recorded in."
    yield Finding(
        "error",
        "sizes",
        f"observation size {sizes[0]} and action size {sizes[1]} differ from those of {task.name}, "
        f"{task.observation_size} and {task.action_size}",
        advice,
    )


def check_lengths_agree(examination: Examination) -> Iterator[Finding]:
    """Finds episodes whose arrays differ in length."""
    episodes = examination.episodes
    longer = examination.where(lambda e: len(e.observations) == e.length + 1)
    if longer:
        yield Finding(
            "note",
            "off by one",
            f"{format_count(longer, episodes)} have one observation more than actions, the state "
            "after the last action",
            "Nothing: loading drops it.",
            examination.file_indices(longer),
        )
    unequal = examination.where(lambda e: len(e.observations) - e.length not in (0, 1))
    if unequal:
        first = episodes[unequal[0]]
        yield Finding(
            "error",
            "lengths differ",
            f"{format_count(unequal, episodes)} differ in the number of observations and actions, "
            f"the first of them with {len(first.observations)} and {first.length}",
            "Cut both to the steps in which action i was taken at observation i, or record again.",
            examination.file_indices(unequal),
        )
    empty = examination.where(lambda e: not e.length)
    if empty:
        yield Finding(
            "error",
            "empty episode",
            f"{format_count(empty, episodes)} have no action",
            "Remove them.",
            examination.file_indices(empty),
        )
    for field in ("rewards", "terminals", "truncations", "next_observations"):
        wrong = examination.where(partial(_differs_in_length, field=field))
        if wrong:
            first = episodes[wrong[0]]
            yield Finding(
                "warning",
                "off by one",
                f"{format_count(wrong, episodes)} have another number of {field} than of steps, "
                f"the first of them {len(getattr(first, field))} for {first.length}",
                f"Do not rely on the {field} of this file; nppac_tf ignores them.",
                examination.file_indices(wrong),
            )


def check_finite(examination: Examination) -> Iterator[Finding]:
    """Finds values that are nan or infinite in float32."""
    for field in FIELDS:
        bad = [np.isnan(getattr(e, field)) for e in examination.episodes]
        wrong = [position for position, mask in enumerate(bad) if mask.any()]
        if wrong:
            step, dimension = np.argwhere(bad[wrong[0]])[0]
            total = sum(int(mask.sum()) for mask in bad)
            yield Finding(
                "error",
                "not finite",
                f"{total:,} values of {field} in {format_count(wrong, examination.episodes)} are "
                f"nan or infinite, the first at step {step}, "
                f"{examination.describe_dimensions(field, [dimension])} of episode "
                f"{examination.file_indices(wrong)[0]}",
                "Remove these episodes or cut them before the first such step.",
                examination.file_indices(wrong),
            )


def check_duplicates(examination: Examination) -> Iterator[Finding]:
    """Finds repeated episodes, and starts that never vary."""
    yield from _check_repeated_episodes(examination)
    episodes = examination.episodes
    if len(episodes) > 1 and examination.is_uniform:
        starts = np.stack([e.observations[0] for e in episodes])
        if (starts == starts[0]).all():
            yield Finding(
                "note",
                "same start",
                "every episode starts in the same state",
                "Vary the seed of the recorder, so that the policy sees other starts.",
            )


def _check_repeated_episodes(examination: Examination) -> Iterator[Finding]:
    episodes = examination.episodes
    first_of: dict[bytes, int] = {}
    copies: dict[int, int] = {}
    for position, episode in enumerate(episodes):
        digest = hashlib.sha256()
        for values in (episode.observations[:10], episode.actions[:10]):
            digest.update(np.ascontiguousarray(values, np.float64).tobytes())
        original = first_of.setdefault(digest.digest(), position)
        if original != position and _same_beginning(episodes[original], episode):
            copies[position] = original
    if copies:
        indices = examination.file_indices(range(len(episodes)))
        shown = ", ".join(f"{indices[a]} of {indices[b]}" for a, b in list(copies.items())[:3])
        yield Finding(
            "warning",
            "repeated episodes",
            f"{format_count(copies, episodes)} are copies of others, or of a part: {shown}"
            + (" and more" if len(copies) > 3 else ""),
            "Remove the copies: they count twice, and make held-out checks of a prior invalid.",
            examination.file_indices(copies),
        )


def check_joins(examination: Examination) -> Iterator[Finding]:
    """Finds episodes that consist of several, or lack steps."""
    episodes = examination.episodes
    inside = examination.where(
        lambda e: any(
            flags is not None and bool(np.asarray(flags[: e.length - 1] > 0.5).any())
            for flags in (e.terminals, e.truncations)
        )
    )
    if inside:
        yield Finding(
            "warning",
            "terminal inside",
            f"{format_count(inside, episodes)} have a terminal or time-limit flag before the last "
            "step",
            "Split them after each flag: the next step belongs to another episode.",
            examination.file_indices(inside),
        )
    joins = {k: step for k, step in _find_joins(examination).items() if k not in inside}
    if joins:
        indices = examination.file_indices(joins)
        steps = list(joins.values())[:3]
        shown = ", ".join(f"step {s} of episode {k}" for k, s in zip(indices, steps, strict=False))
        yield Finding(
            "warning",
            "joined episodes",
            f"{format_count(joins, episodes)} jump as if another episode started: {shown}",
            "Split them there.",
            indices,
        )
    wrong = examination.where(_successors_disagree)
    if wrong:
        yield Finding(
            "warning",
            "successors",
            f"the next_observations of {format_count(wrong, episodes)} differ from the next step's "
            "observations",
            "Check the recorder: steps are missing, or rows are shifted or shuffled.",
            examination.file_indices(wrong),
        )


def _find_joins(examination: Examination) -> dict[int, int]:
    """Finds the first step of each episode that looks like the start of another."""
    if not examination.is_uniform:
        return {}
    rows = [e.observations for e in examination.episodes]
    everything = np.concatenate(rows)
    scale = everything.std(axis=0)
    if not np.isfinite(everything).all() or not scale.any():
        return {}
    rows = [row[:, scale > 0] / scale[scale > 0] for row in rows]
    changes = np.concatenate([np.abs(np.diff(row, axis=0)) for row in rows])
    if not len(changes):
        return {}
    usual = np.maximum(np.quantile(changes, 0.95, axis=0), 1e-6)
    starts = np.stack([row[0] for row in rows])[:50]
    gaps = np.sqrt(np.mean((starts[:, None] - starts[None]) ** 2, axis=2))
    np.fill_diagonal(gaps, np.inf)
    near = 1.5 * float(np.max(np.min(gaps, axis=1))) if len(starts) > 1 else 0.05
    near = max(near, 1e-6)
    found = {}
    for position, row in enumerate(rows):
        change = np.abs(np.diff(row, axis=0))
        leaps = (change > 5 * usual).mean(axis=1) > 0.3
        # A leap from rest, at the start or one after another, is a fast movement.
        size = np.append(np.square(change).mean(axis=1), 0.0)
        leaps &= size[:-1] > 4 * np.maximum(np.append(np.inf, size[:-2]), size[1:])
        distance = np.sqrt(
            np.min([np.mean((row - start) ** 2, axis=1) for start in starts], axis=0)
        )
        returns = (distance[1:] <= near) & (distance[:-1] > max(5 * near, 0.3))
        steps = np.flatnonzero(leaps | returns)
        if steps.size:
            found[position] = int(steps[0]) + 1
    return found


def _differs_in_length(episode: RecordedEpisode, field: str) -> bool:
    values = getattr(episode, field)
    return values is not None and len(values) != episode.length


def _same_beginning(one: RecordedEpisode, other: RecordedEpisode) -> bool:
    steps = min(one.length, other.length)
    return np.array_equal(one.observations[:steps], other.observations[:steps]) and np.array_equal(
        one.actions[:steps], other.actions[:steps]
    )


def _successors_disagree(episode: RecordedEpisode) -> bool:
    successors, observations = episode.next_observations, episode.observations
    if successors is None or successors.shape != observations.shape or len(observations) < 2:
        return False
    scale = np.maximum(observations.std(axis=0), 1e-6)
    difference = np.abs(successors[:-1] - observations[1:]) / scale
    return bool((difference > 1e-2).any())
