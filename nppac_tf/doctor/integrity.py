"""Checks of whether a recording is whole, of one piece and in the task's units.

Glossary: E episodes, T steps of an episode, D observation components, A action components.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial

import numpy as np

from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.doctor.findings import Examination, Finding, count, dimensions, joined, number
from nppac_tf.environments.known import tasks_of_sizes

_SCALE_RATIO = 1e3
_EPISODE_SCALE_RATIO = 20.0
_SATURATED_SHARE = 0.2
_FROZEN_RUN = 10


def check_reading(examination: Examination) -> Iterator[Finding]:
    """What could not be read, and how a pickle was."""
    recording = examination.recording
    if recording.is_pickle:
        yield Finding(
            "note",
            "pickle",
            f"the {recording.format} is a Python pickle, which can run any code when it is loaded "
            "the usual way; it was read here without executing anything",
            "Do not open such files of others with pickle.load or np.load(allow_pickle=True); "
            "save_demonstrations makes a plain .npz of it.",
        )
    for problem in recording.problems[:5]:
        yield Finding("error", "unreadable", problem, "Mend or leave out what the message names.")
    if len(recording.problems) > 5:
        yield Finding(
            "error",
            "unreadable",
            f"{len(recording.problems) - 5} more problems of this kind",
            "Mend the first ones, and look again.",
        )
    if not recording.episodes and not recording.problems:
        yield Finding("error", "empty", "there is no episode", "Record at least a few episodes.")


def check_sizes(examination: Examination) -> Iterator[Finding]:
    """Sizes that differ among the episodes, or are not the task's."""
    task, episodes = examination.task, examination.episodes
    widths = [(e.observations.shape[1], e.actions.shape[1]) for e in episodes]
    if len(set(widths)) > 1:
        usual = max(set(widths), key=widths.count)
        others = [position for position, width in enumerate(widths) if width != usual]
        yield Finding(
            "error",
            "sizes",
            f"{count(others, episodes)} have other sizes than the rest, which have observation "
            f"size {usual[0]} and action size {usual[1]}",
            "Leave these episodes out, or record them again.",
            examination.named(others),
        )
    if not widths or task is None:
        return
    sizes = max(set(widths), key=widths.count)
    wanted = (task.observation_size, task.action_size)
    if sizes == wanted:
        return
    fitting = tasks_of_sizes(sizes)
    if sizes == wanted[::-1]:
        advice = "Observations and actions are exchanged: exchange them back."
    elif fitting:
        advice = f"These are the sizes of {' and '.join(fitting)}: pass --task={fitting[0]}."
    else:
        advice = "Pass the --task that they were recorded in."
    yield Finding(
        "error",
        "sizes",
        f"observation size {sizes[0]} and action size {sizes[1]} are not those of {task.name}, "
        f"which has {wanted[0]} and {wanted[1]}",
        advice,
    )


def check_lengths_agree(examination: Examination) -> Iterator[Finding]:
    """Arrays of an episode that are of different lengths."""
    episodes = examination.episodes
    longer = examination.where(lambda e: len(e.observations) == e.length + 1)
    if longer:
        yield Finding(
            "note",
            "off by one",
            f"{count(longer, episodes)} hold one observation more than actions: the state after "
            "the last action",
            "Nothing: loading drops it.",
            examination.named(longer),
        )
    unequal = examination.where(lambda e: len(e.observations) - e.length not in (0, 1))
    if unequal:
        first = episodes[unequal[0]]
        yield Finding(
            "error",
            "lengths differ",
            f"{count(unequal, episodes)} hold other numbers of observations and actions, the "
            f"first of them {len(first.observations)} and {first.length}",
            "Observation i must be the one that action i answers: cut both to that, or record.",
            examination.named(unequal),
        )
    empty = examination.where(lambda e: not e.length)
    if empty:
        yield Finding(
            "error",
            "empty episode",
            f"{count(empty, episodes)} hold no action",
            "Leave them out.",
            examination.named(empty),
        )
    for label in ("rewards", "terminals", "truncations", "next_observations"):
        wrong = examination.where(partial(_is_of_other_length, label=label))
        if wrong:
            first = episodes[wrong[0]]
            yield Finding(
                "warning",
                "off by one",
                f"{count(wrong, episodes)} hold another number of {label} than of steps, the "
                f"first of them {len(getattr(first, label))} for {first.length}",
                f"Do not rely on {label} of this file; nppac_tf does not use them.",
                examination.named(wrong),
            )


def check_finite(examination: Examination) -> Iterator[Finding]:
    """Values that are nan, infinite, or so in float32."""
    for label in ("observations", "actions"):
        bad = [np.isnan(getattr(e, label)) for e in examination.episodes]
        wrong = [position for position, mask in enumerate(bad) if mask.any()]
        if wrong:
            step, dimension = np.argwhere(bad[wrong[0]])[0]
            total = sum(int(mask.sum()) for mask in bad)
            yield Finding(
                "error",
                "not finite",
                f"{total:,} values of {label} in {count(wrong, examination.episodes)} are nan or "
                f"infinite, the first at step {step}, dimension {dimension} of episode "
                f"{examination.named(wrong)[0]}",
                "Leave these episodes out, or cut them before the first such step.",
                examination.named(wrong),
            )


def check_action_bounds(examination: Examination) -> Iterator[Finding]:
    """Actions outside their bounds, at them, or nowhere near."""
    task = examination.task
    if task is None or not examination.is_uniform:
        return
    actions = joined(examination.episodes, "actions")
    low, high = (np.asarray(bound, np.float64) for bound in (task.action_low, task.action_high))
    actions = actions[np.isfinite(actions).all(axis=1)]
    if actions.shape[1] != len(low) or not len(actions):
        return
    outside = (actions < low) | (actions > high)
    excess = np.maximum(low - actions, actions - high).max()
    steps = outside.any(axis=1)
    share = outside.mean()
    if outside.any():
        scaled = share > _SATURATED_SHARE
        yield Finding(
            "warning",
            "clipped actions",
            f"{outside.sum():,} of {outside.size:,} action values, in {steps.mean():.1%} of the "
            f"steps, leave the bounds of {task.name}, which clips them: they range over "
            f"[{number(actions.min())}, {number(actions.max())}], {number(excess)} "
            "outside at most",
            "They look as if they were in other units: scale them into the bounds."
            if scaled
            else "Nothing: loading clips them as the simulator does. If you record again, record "
            "what was executed.",
        )
    span = np.where(high > low, high - low, 1.0)
    at_bound = ((actions - low) / span < 1e-3) | ((high - actions) / span < 1e-3)
    used = np.abs(actions).max(axis=0) / np.maximum(np.abs(low), np.abs(high))
    if not share > _SATURATED_SHARE and at_bound.mean() > _SATURATED_SHARE:
        yield Finding(
            "note",
            "saturated actions",
            f"{at_bound.mean():.1%} of the action values lie at their bounds or beyond",
            "Nothing can be mended: the expert's commands were probably clipped when they were "
            "recorded, so that a prior learns the bounds and not what was meant beyond them.",
        )
    if used.max() < 0.02:
        yield Finding(
            "warning",
            "tiny actions",
            f"no action goes beyond {used.max():.2%} of its bounds",
            "They look as if they were in other units: scale them to the task's bounds.",
        )


def check_dimensions(examination: Examination) -> Iterator[Finding]:
    """Dimensions that never change, or vary a thousand times as much as others."""
    if not examination.is_uniform:
        return
    for label in ("observations", "actions"):
        values = joined(examination.episodes, label)
        values = values[np.isfinite(values).all(axis=1)]
        if len(values) < 2:
            continue
        deviation = values.std(axis=0)
        constant = deviation <= 1e-9 * np.maximum(1.0, np.abs(values).max(axis=0))
        if constant.all():
            yield Finding(
                "error",
                f"constant {label}",
                f"all {label} are the same in every step",
                "Look at how they were recorded.",
            )
            continue
        if constant.any():
            yield Finding(
                "note",
                f"constant {label}",
                f"{dimensions(constant)} of the {label} never change",
                "Check that the sensor or joint was connected; priors leave such a dimension out "
                "of account."
                if label == "observations"
                else "The prior will hold it still, whatever the policy might gain by it.",
            )
        moving = ~constant
        scale = deviation[moving] / np.median(deviation[moving])
        apart = np.zeros_like(constant)
        apart[moving] = (scale > _SCALE_RATIO) | (scale < 1 / _SCALE_RATIO)
        if apart.any():
            factor = deviation[apart] / np.median(deviation[moving])
            yield Finding(
                "warning",
                "scales",
                f"{dimensions(apart)} of the {label} vary {number(factor.min())} to "
                f"{number(factor.max())} times as much as the median dimension",
                "Check the units (degrees, millimeters, counts?) against the simulator's.",
            )


def check_episode_scales(examination: Examination) -> Iterator[Finding]:
    """Episodes whose values are many times those of the others: other units, most likely."""
    if not examination.is_uniform or len(examination.episodes) < 3:
        return
    for label in ("observations", "actions"):
        with np.errstate(invalid="ignore"):
            reach = np.stack([_reach(getattr(e, label)) for e in examination.episodes])
            usual = np.median(reach, axis=0)
            told = usual > 1e-6
            ratio = reach[:, told] / usual[told]
        if not told.any():
            continue
        odd = (ratio > _EPISODE_SCALE_RATIO).mean(axis=1) >= 0.25
        odd |= (ratio < 1 / _EPISODE_SCALE_RATIO).mean(axis=1) >= 0.5
        wrong = [int(position) for position in np.flatnonzero(odd)]
        if wrong:
            factor = float(np.median(ratio[wrong[0]]))
            yield Finding(
                "warning",
                "scales",
                f"{label} in {count(wrong, examination.episodes)} are of another scale than in the "
                f"rest, in the first of them by a factor of about {number(factor)}",
                "Check the units of these episodes; 57.3 is degrees for radians.",
                examination.named(wrong),
            )


def check_duplicates(examination: Examination) -> Iterator[Finding]:
    """Episodes that repeat others, steps that repeat, and a start that is always the same."""
    episodes = examination.episodes
    first_of: dict[bytes, int] = {}
    repeated: list[int] = []
    pairs: list[tuple[int, int]] = []
    for position, episode in enumerate(episodes):
        digest = hashlib.sha256()
        for values in (episode.observations[:10], episode.actions[:10]):
            digest.update(np.ascontiguousarray(values, np.float64).tobytes())
        other = first_of.setdefault(digest.digest(), position)
        if other != position and _same_beginning(episodes[other], episode):
            repeated.append(position)
            pairs.append((other, position))
    if repeated:
        shown = ", ".join(
            f"{examination.named([copy])[0]} of {examination.named([other])[0]}"
            for other, copy in pairs[:3]
        )
        yield Finding(
            "warning",
            "repeated episodes",
            f"{count(repeated, episodes)} repeat another, or a part of it: {shown}"
            + (" and more" if len(pairs) > 3 else ""),
            "Leave the copies out: they count twice, and held-out checks of a prior see what it "
            "was fitted to.",
            examination.named(repeated),
        )
    frozen: list[int] = []
    stuck: list[int] = []
    longest = 0
    for position, episode in enumerate(episodes):
        steps = min(len(episode.observations), episode.length)
        if steps < 2:
            continue
        same_state = (np.diff(episode.observations[:steps], axis=0) == 0).all(axis=1)
        same_action = (np.diff(episode.actions[:steps], axis=0) == 0).all(axis=1)
        run = _longest_run(same_state)
        if run >= _FROZEN_RUN:
            (stuck if _longest_run(same_state & same_action) >= _FROZEN_RUN else frozen).append(
                position
            )
            longest = max(longest, run)
    for topic, positions, what in (
        ("repeated steps", stuck, "the same step over and over"),
        ("frozen state", frozen, "an observation that stays the same while the actions change"),
    ):
        if positions:
            yield Finding(
                "warning",
                topic,
                f"{count(positions, episodes)} hold {what}, for up to {longest:,} steps",
                "The recorder hung, or waited: cut these steps out.",
                examination.named(positions),
            )
    if len(episodes) > 1 and examination.is_uniform:
        starts = np.stack([e.observations[0] for e in episodes if len(e.observations)])
        if (starts == starts[0]).all():
            yield Finding(
                "note",
                "same start",
                "every episode begins in the very same state",
                "The policy will have seen no other beginning; vary the seed of the recorder.",
            )


def check_joins(examination: Examination) -> Iterator[Finding]:
    """Episodes that consist of several."""
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
            f"{count(inside, episodes)} hold a terminal or time-limit flag before their last step",
            "Split them after each flag: what follows is another episode.",
            examination.named(inside),
        )
    joined = {
        position: step
        for position, step in _find_joins(examination).items()
        if position not in inside
    }
    if joined:
        shown = ", ".join(
            f"step {step} of episode {examination.named([position])[0]}"
            for position, step in list(joined.items())[:3]
        )
        yield Finding(
            "warning",
            "joined episodes",
            f"{count(joined, episodes)} jump as if another began inside: {shown}",
            "Split them there.",
            examination.named(joined),
        )
    unlike = examination.where(_successors_disagree)
    if unlike:
        yield Finding(
            "warning",
            "successors",
            f"next_observations of {count(unlike, episodes)} are not the observations of the next "
            "step",
            "Steps are missing, or rows were shifted or shuffled: look at how they were recorded.",
            examination.named(unlike),
        )


def _find_joins(examination: Examination) -> dict[int, int]:
    """The first step of each episode that looks like the start of another."""
    if not examination.is_uniform:
        return {}
    rows = [e.observations for e in examination.episodes]
    everything = np.concatenate(rows)
    if not np.isfinite(everything).all():
        return {}
    scale = everything.std(axis=0)
    moving = scale > 0
    if not moving.any():
        return {}
    rows = [row[:, moving] / scale[moving] for row in rows]
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
        distance = np.sqrt(
            np.min([np.mean((row - start) ** 2, axis=1) for start in starts], axis=0)
        )
        returns = (distance[1:] <= near) & (distance[:-1] > max(5 * near, 0.3))
        steps = np.flatnonzero(leaps | returns)
        if steps.size:
            found[position] = int(steps[0]) + 1
    return found


def _is_of_other_length(episode: RecordedEpisode, label: str) -> bool:
    values = getattr(episode, label)
    return values is not None and len(values) != episode.length


def _reach(values: np.ndarray) -> np.ndarray:
    """[K], how far each column goes from 0, its rarest hundredth apart."""
    return np.quantile(np.abs(np.nan_to_num(values)), 0.99, axis=0)


def _same_beginning(one: RecordedEpisode, other: RecordedEpisode) -> bool:
    steps = min(one.length, other.length)
    return np.array_equal(one.observations[:steps], other.observations[:steps]) and np.array_equal(
        one.actions[:steps], other.actions[:steps]
    )


def _longest_run(flags: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max()) if edges.size else 0


def _successors_disagree(episode: RecordedEpisode) -> bool:
    successors, observations = episode.next_observations, episode.observations
    if successors is None or successors.shape != observations.shape or len(observations) < 2:
        return False
    scale = np.maximum(observations.std(axis=0), 1e-6)
    difference = np.abs(successors[:-1] - observations[1:]) / scale
    return bool((difference > 1e-2).any())
