"""Checks of what actions mean: targets or changes of the state, and whether rows are shifted.

Glossary: N steps of all episodes, T steps of an episode, D observation size, A action size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.doctor.findings import (
    UNIT_FACTORS,
    DoctorTask,
    Examination,
    Finding,
    format_count,
    format_number,
)
from nppac_tf.doctor.motion import unfairly_replayed

_NEAR = 0.6  # Root mean square distance, in standard deviations of the action.
_MANY_STEPS = 20_000
_SHIFTS = range(-3, 4)
_SHIFT_STEPS = 5000
_FEW_STEPS = 20
_LEAST_NEWS = 0.1
_MIN_EXPLAINED = 0.25
_MIN_RATIO = 4.0


class _Meaning(NamedTuple):
    """What the actions [A] are near to.

    Attributes:
        moving: [A], whether they vary.
        near: [A], whether they are near a value of an observation.
        nearest: [A], the observation that each is nearest to.
    """

    moving: np.ndarray
    near: np.ndarray
    nearest: np.ndarray

    def holds(self) -> bool:
        """Whether most of the actions that vary are near an observation."""
        return bool(self.moving.any()) and self.near[self.moving].mean() > 0.5


def check_meaning(examination: Examination) -> Iterator[Finding]:
    """Finds targets where a task takes changes of the state, the reverse, and both in one file."""
    if not examination.is_finite:
        return
    befores, afters, actions = _pairs(examination.episodes)
    if not len(actions):
        return
    targets, changes = _near(afters, actions), _near(afters - befores, actions)
    yield from _check_scaled_targets(examination, afters, actions)
    kinds = [_kind(episode) for episode in examination.episodes]
    odd = [k for k, kind in enumerate(kinds) if kind == "changes"]
    if odd and "targets" in kinds:
        yield Finding(
            "warning",
            "mixed actions",
            f"the actions of {format_count(odd, examination.episodes)} are near the change of the "
            "state, those of others near the next state",
            "Convert them to one kind: add the state to changes, or subtract it from targets.",
            examination.file_indices(odd),
        )
        return
    for name, what, meaning in (
        ("targets", "the next state", targets),
        ("changes", "the change of the state", changes),
    ):
        if not meaning.holds():
            continue
        near = np.flatnonzero(meaning.near)
        problem, advice = _mismatch(name, meaning, afters, actions, examination.task)
        yield Finding(
            "warning" if problem else "note",
            f"action {name}",
            f"{examination.describe_dimensions('actions', near)} of the actions are near {what}: "
            f"they seem to be {name}{problem}",
            advice,
        )
        return


def _mismatch(
    name: str, meaning: _Meaning, states: np.ndarray, actions: np.ndarray, task: DoctorTask | None
) -> tuple[str, str]:
    """Why a task seems to take the other kind of actions (or nothing), and what to do."""
    if task is None or task.action_size != len(meaning.near):
        return "", f"Nothing, if the task takes {name} of the state."
    low = np.asarray(task.action_low, np.float64)[meaning.near]
    high = np.asarray(task.action_high, np.float64)[meaning.near]
    states, actions = states[:, meaning.nearest[meaning.near]], actions[:, meaning.near]
    outside = float(((states < low) | (states > high)).mean())
    if name == "targets":
        if outside > 0.2:
            return (
                f", but {outside:.0%} of the states are outside the bounds of {task.name}, which "
                "cannot take them as targets",
                "Subtract the state if the task takes changes, or convert the units.",
            )
        return "", "Nothing, if the task takes targets of the state."
    reach = float(np.median(np.quantile(np.abs(actions), 0.99, axis=0) / np.maximum(-low, high)))
    width = np.ptp(np.quantile(states, (0.01, 0.99), axis=0), axis=0) / (high - low)
    if outside < 0.05 and reach < 0.1 and np.median(width) > 0.2:
        return (
            f", but they use {reach:.1%} of the bounds of {task.name}, which fit the states "
            "themselves",
            "Add the state if the task takes targets.",
        )
    return "", "Nothing, if the task takes changes of the state."


def _check_scaled_targets(
    examination: Examination, states: np.ndarray, actions: np.ndarray
) -> Iterator[Finding]:
    """Finds actions that are targets in other units than the state."""
    for factor, meaning in UNIT_FACTORS.items():
        for scale in (factor, 1 / factor):
            found = _near(scale * states, actions)
            scaled = scale * states[:, found.nearest]
            slopes = (scaled * actions).sum(axis=0) / np.maximum((scaled**2).sum(axis=0), 1e-12)
            found = found._replace(near=found.near & (np.abs(slopes - 1) < 0.1))
            if found.holds():
                near = np.flatnonzero(found.near)
                yield Finding(
                    "warning",
                    "mixed units",
                    f"{examination.describe_dimensions('actions', near)} of the actions are about "
                    f"{format_number(scale)} times the next state, as {meaning} would be",
                    "Convert actions or observations to the units of the task.",
                )


def _pairs(episodes: Sequence[RecordedEpisode]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States before and after the actions, [N, D] each, and the actions [N, A]."""
    before, after, actions = [], [], []
    left = _MANY_STEPS
    for episode in episodes:
        states = episode.states()
        steps = min(len(states) - 1, episode.length, left)
        left -= steps
        before.append(states[:steps])
        after.append(states[1 : steps + 1])
        actions.append(episode.actions[:steps])
    return np.concatenate(before), np.concatenate(after), np.concatenate(actions)


def _near(values: np.ndarray, actions: np.ndarray) -> _Meaning:
    """Finds the column of values [N, D] that each action [N, A] is nearest to."""
    scale = actions.std(axis=0)
    moving = scale > 1e-9
    squares = (actions**2).mean(axis=0)[:, np.newaxis] + (values**2).mean(axis=0)
    distances = np.sqrt(np.maximum(squares - 2 * actions.T @ values / len(values), 0.0))
    # A constant value is near an action that hardly moves, and means nothing.
    distances[:, values.std(axis=0) <= 1e-9] = np.inf
    nearest = distances.argmin(axis=1)
    near = moving & (distances.min(axis=1) < _NEAR * scale)
    return _Meaning(moving, near, nearest)


def _kind(episode: RecordedEpisode) -> str:
    """Whether one episode's actions are "targets", "changes" or "" for neither."""
    before, after, actions = _pairs([episode])
    if len(actions) < 10:
        return ""
    if _near(after, actions).holds():
        return "targets"
    return "changes" if _near(after - before, actions).holds() else ""


def check_shift(examination: Examination) -> Iterator[Finding]:
    """Finds actions that stand some rows before or after the state that they change.

    What an action adds to the actions before it must explain what the next state adds to the states
    before it. If that of other rows explains it far better, rows are shifted.
    """
    simulation = examination.simulation
    if not examination.is_finite or (
        simulation is not None and simulation.alignment and not unfairly_replayed(examination)
    ):
        return
    explained = _explained(examination.episodes)
    if not explained:
        return
    best = max(explained, key=lambda shift: explained[shift])
    others = [explained[0]] if best < 0 else [explained.get(best + k, 0.0) for k in (-1, 1)]
    is_clear = _MIN_RATIO * max([explained[0], *others]) < explained[best]
    if best == 0 or explained[best] < _MIN_EXPLAINED or not is_clear:
        return
    rows = f"{abs(best)} row{'s' * (abs(best) > 1)}"
    numbers = (
        f"it explains {explained[best]:.0%} of what is new in the state there, and "
        f"{explained[0]:.0%} in the next row"
    )
    if best < 0:
        yield Finding(
            "warning",
            "shifted actions",
            f"an action seems to stand {rows} after the observation of its time: {numbers}",
            f"Pair observation i with the action in row i + {-best}, and drop the remaining rows.",
        )
    else:
        yield Finding(
            "warning",
            "shifted actions",
            f"an action seems to change the state {rows} later than it should: {numbers}",
            f"Nothing, if the robot has this delay. Else pair observation i + {best} with the "
            "action in row i, and drop the remaining rows.",
        )


def _explained(episodes: Sequence[RecordedEpisode]) -> Mapping[int, float]:
    """Share of the news of states that the news of actions explain, by the shift in rows.

    News are what a linear prediction from the two rows before leaves over. Shift 0 compares an
    action with the next state. The mean is over the quarter of the dimensions explained best. Empty
    if there are few steps, or if actions are so smooth that hardly any of them is new.
    """
    kept: list[RecordedEpisode] = []
    steps = 0
    for episode in episodes:
        whole = len(episode.observations) >= episode.length >= _FEW_STEPS
        if whole and steps < _SHIFT_STEPS:
            kept.append(episode)
            steps += episode.length
    if not kept:
        return {}
    states = _news([episode.observations[: episode.length] for episode in kept], 1e-3)
    actions = _news([episode.actions for episode in kept], _LEAST_NEWS)
    size, width = states[0].shape[1], actions[0].shape[1]
    if not size or not width or steps < max(200, 5 * size):
        return {}
    explained = {}
    for shift in _SHIFTS:
        ahead = shift + 1
        pairs = [
            (news[max(ahead, 0) : len(news) + min(ahead, 0)], _moved(action, ahead))
            for news, action in zip(states, actions, strict=True)
        ]
        wanted = np.concatenate([pair[0] for pair in pairs])
        given = np.concatenate([pair[1] for pair in pairs])
        rest = wanted - _predicted(given, wanted)
        share = 1 - (rest**2).mean(axis=0) / np.maximum((wanted**2).mean(axis=0), 1e-12)
        best = np.sort(share)[::-1][: max(3, size // 4)]
        explained[shift] = float(best.mean()) - width / len(wanted)
    return explained


def _moved(values: np.ndarray, ahead: int) -> np.ndarray:
    return values[max(-ahead, 0) : len(values) - max(ahead, 0)]


def _news(rows: Sequence[np.ndarray], least: float) -> list[np.ndarray]:
    """What the two rows before do not predict of each row [T, K], in standard deviations.

    Dimensions with less news are left out.
    """
    everything = np.concatenate(rows)
    scale = everything.std(axis=0)
    moving = scale > 1e-9 * np.maximum(1.0, np.abs(everything).max(axis=0))
    rows = [row[:, moving] / scale[moving] for row in rows]
    past = np.concatenate([np.concatenate([row[1:-1], row[:-2]], axis=1) for row in rows])
    present = np.concatenate([row[2:] for row in rows])
    news = present - _predicted(past, present)
    news = news[:, news.std(axis=0) > least]
    return np.split(news, np.cumsum([len(row) - 2 for row in rows])[:-1])


def _predicted(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Least-squares prediction of outputs [N, K] from inputs [N, L] and a constant."""
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    products = inputs.T @ inputs
    products += 1e-6 * np.trace(products) / len(products) * np.eye(len(products))
    return inputs @ np.linalg.solve(products, inputs.T @ outputs)
