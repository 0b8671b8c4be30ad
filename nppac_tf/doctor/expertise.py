"""Checks whether a recording shows an expert: lengths, success, rewards, the simulator's replay.

Glossary: E episodes, T steps of an episode, D observation size, A action size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nppac_tf.demonstrations import modes
from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.doctor.findings import (
    SHORT_RATIO,
    Examination,
    Finding,
    SimulatorReplay,
    concatenate,
    format_count,
    format_list,
    format_number,
)
from nppac_tf.doctor.motion import unfairly_replayed

_FEW_EPISODES = 5
_REPLAY_STEPS = 5
_REPLAY_ERROR = 0.05


def check_lengths(examination: Examination) -> Iterator[Finding]:
    """Finds episodes that fail early, are far shorter or longer than the rest, or are few."""
    task, episodes = examination.task, examination.episodes
    lengths = np.array([e.length for e in episodes])
    if not lengths.size:
        return
    median = float(np.median(lengths))
    failures = examination.failures()
    if failures:
        yield Finding(
            "warning",
            "fails early",
            f"{format_count(failures, episodes)} end in a terminal state after "
            f"{format_list(lengths[failures])} steps (median: {median:,.0f})",
            "Leave them out: they teach how to fail.",
            examination.file_indices(failures),
        )
    spread = float(np.median(np.abs(lengths - median)))  # Where it is large, lengths just vary.
    is_short = (lengths < SHORT_RATIO * median) & (lengths < median - 5 * spread)
    short = [int(i) for i in np.flatnonzero(is_short) if i not in failures]
    if short:
        yield Finding(
            "warning",
            "short episodes",
            f"{format_count(short, episodes)} are far shorter than the median of {median:,.0f} "
            f"steps: {format_list(lengths[short])}",
            "Check that they are complete, and leave failures out.",
            examination.file_indices(short),
        )
    is_long = (lengths * SHORT_RATIO > median) & (lengths > median + 5 * spread)
    long = [int(i) for i in np.flatnonzero(is_long)]
    if long:
        yield Finding(
            "warning",
            "long episodes",
            f"{format_count(long, episodes)} are far longer than the median of {median:,.0f} "
            f"steps: {format_list(lengths[long])}",
            "Check that each is a single episode.",
            examination.file_indices(long),
        )
    total = int(lengths.sum())
    if len(episodes) < _FEW_EPISODES:
        yield Finding(
            "warning",
            "few episodes",
            f"there are {len(episodes)} episodes with {total:,} steps",
            "Record about 20 episodes: a prior from so few is uncertain almost everywhere.",
        )
    if task is not None and examination.fits and task.horizon is not None and median > task.horizon:
        yield Finding(
            "note",
            "horizon",
            f"the median length of {median:,.0f} steps exceeds the horizon of {task.name}, "
            f"{task.horizon} steps",
            "Nothing: training uses all steps, and evaluation stops at the horizon.",
        )


def check_goal(examination: Examination) -> Iterator[Finding]:
    """Finds episodes that miss the goal, reach it late, or have wrong success flags."""
    task, goals, episodes = examination.task, examination.goals, examination.episodes
    marked = examination.where(_is_marked_as_failed)
    if marked:
        yield Finding(
            "warning",
            "marked as failed",
            f"the file marks {format_count(marked, episodes)} as failed",
            "Leave them out; of a robomimic file also with FILE.hdf5:success.",
            examination.file_indices(marked),
        )
    if task is None or goals is None:
        return
    reached = [bool((flags == 1).any()) for flags in goals]
    failed = [position for position, success in enumerate(reached) if not success]
    if failed:
        yield Finding(
            "warning",
            "no success",
            f"{format_count(failed, episodes)} never reach the goal of {task.name}",
            "Leave the wrong ones out. Keep those that are right but slow: "
            "--action_lookahead speeds the prior up."
            if len(failed) < len(episodes)
            else "Check the task, and the units and the order of the observations.",
            examination.file_indices(failed),
        )
    horizon = task.horizon
    if horizon is not None:
        late = [
            position
            for position, flags in enumerate(goals)
            if reached[position] and not (flags[:horizon] == 1).any()
        ]
        if late:
            yield Finding(
                "warning",
                "late success",
                f"{format_count(late, episodes)} reach the goal only after the horizon of "
                f"{task.name}, {horizon} steps",
                "Use faster demonstrations, or speed the prior up with --action_lookahead: a "
                "policy that imitates these is too slow to succeed.",
                examination.file_indices(late),
            )
    wrong = [
        position
        for position, episode in enumerate(episodes)
        if episode.successes is not None
        and len(episode.successes) == episode.length
        and _disagreement(goals[position], episode.successes) > 0.02
    ]
    if wrong:
        yield Finding(
            "warning",
            "success flags",
            f"the success flags of {format_count(wrong, episodes)} disagree with the observations",
            "Trust the observations: the flags follow another rule or belong to other episodes.",
            examination.file_indices(wrong),
        )


def check_modes(examination: Examination) -> Iterator[Finding]:
    """Finds states in which the demonstrators act in two different ways."""
    episodes = examination.episodes
    if not examination.is_uniform or any(len(e.observations) < e.length for e in episodes):
        return
    observations = np.concatenate([e.observations[: e.length] for e in episodes])
    actions = concatenate(episodes, "actions")
    if not (np.isfinite(observations).all() and np.isfinite(actions).all()):
        return
    episode = np.repeat(np.arange(len(episodes)), [e.length for e in episodes])
    share = modes.share_of_two_modes(observations, actions, episode)
    if share >= modes.LARGE_SHARE:
        yield Finding(
            "warning",
            "two modes",
            f"in {share:.0%} of the states the demonstrations act in two different ways",
            "Keep the episodes that do it in one way, or add what the "
            "choice depends on to the observations: a prior takes the middle.",
        )


def check_rewards(examination: Examination) -> Iterator[Finding]:
    """Finds rewards that disagree with the goal, are constant, or reveal poor episodes."""
    episodes = examination.episodes
    if not episodes or any(e.rewards is None or not len(e.rewards) for e in episodes):
        return
    rewards = [np.asarray(e.rewards, np.float64) for e in episodes]
    everything = np.concatenate(rewards)
    if not np.isfinite(everything).all():
        yield Finding(
            "warning",
            "rewards",
            "some rewards are nan or infinite",
            "Do not train other methods on them; nppac_tf ignores them.",
        )
        return
    if examination.goals is not None:
        agreement = _reward_agreement(examination.goals, rewards)
        if agreement is not None and agreement < 0.99:
            message = (
                "rewards disagree with the observations: a step at the goal has a higher reward "
                f"than a step away from it in {agreement:.0%} of the pairs instead of 100%"
            )
            silent: list[int] = []
            if len(np.unique(everything)) <= 2:
                silent = [
                    position
                    for position, flags in enumerate(examination.goals)
                    if (flags == 1).any() and not (rewards[position] == everything.max()).any()
                ]
            if silent:
                message += f"; {format_count(silent, episodes)} reach the goal without any reward"
            yield Finding(
                "warning",
                "rewards",
                message,
                "Do not train other methods on these rewards; nppac_tf ignores them and computes "
                "success from the observations.",
                examination.file_indices(silent),
            )
            return
    if np.ptp(everything) == 0 and len(everything) > 1:
        yield Finding(
            "note",
            "rewards",
            f"every reward is {format_number(everything[0])}",
            "Nothing: nppac_tf ignores rewards of demonstrations.",
        )
        return
    returns = np.array([values.sum() for values in rewards])
    median = np.median(returns)
    scale = 1.4826 * np.median(np.abs(returns - median))
    poor = [int(i) for i in np.flatnonzero(returns < median - 6 * scale)] if scale > 0 else []
    failures = examination.failures()
    low = [p for p in poor if p not in failures and median - returns[p] > 0.2 * abs(median)]
    # Many low returns are no outliers: they depend on the start.
    if low and len(episodes) >= _FEW_EPISODES and len(low) <= 0.2 * len(episodes):
        yield Finding(
            "warning",
            "low return",
            f"the returns of {format_count(low, episodes)} are far below the median of "
            f"{format_number(median)}: {format_list(returns[low])}",
            "Leave them out: they do not show an expert.",
            examination.file_indices(low),
        )


def check_simulation(examination: Examination) -> Iterator[Finding]:
    """Reports whether the replay shows another task, shifted actions, or another simulator."""
    simulation, task = examination.simulation, examination.task
    if simulation is None or task is None or not examination.episodes:
        return
    replay = simulation.replay
    replayed = examination.episodes[: len(replay.errors)]
    first = np.array([errors[0] for errors in replay.errors])
    early = np.array([_early_error(errors) for errors in replay.errors])
    unfair = [k for k in unfairly_replayed(examination) if k < len(replayed)]
    if 2 * len(unfair) > len(replayed):
        yield Finding(
            "note",
            "simulator",
            f"{format_count(unfair, replayed)} begin in motion, but the replay must start at rest "
            f"because neither the file nor the observations of {task.name} say how fast: it says "
            "nothing of the simulator",
            "Nothing; to compare with the simulator, record episodes from their beginning.",
            examination.file_indices(unfair),
        )
        return
    early[unfair] = np.nan
    scale = float(np.median(np.abs(concatenate(replayed, "observations"))))
    aligned = simulation.alignment.get(0, np.nan)
    shift = min(simulation.alignment, key=lambda key: simulation.alignment[key], default=0)
    others = simulation.other_tasks
    other = min(others, key=lambda key: others[key], default="")
    if other and others[other] < 0.1 * aligned:
        yield Finding(
            "error",
            "another task",
            f"the simulator of {other} reproduces the first steps to an error of "
            f"{format_number(others[other])}, that of {task.name} only to {format_number(aligned)}",
            f"Pass --task={other}.",
        )
    elif shift and simulation.alignment[shift] < 0.5 * aligned:
        direction = "before" if shift > 0 else "after"
        yield Finding(
            "error",
            "shifted actions",
            f"row i seems to hold the action of one step {direction} observation i: the replay "
            f"error of the first steps is {format_number(simulation.alignment[shift])} with "
            f"shifted actions and {format_number(aligned)} without",
            "Pair observation i with the action in row i + 1, and drop the remaining row."
            if shift > 0
            else "Pair observation i + 1 with the action in row i, and drop the remaining row.",
        )
    elif np.nanmedian(early) > _REPLAY_ERROR * max(1.0, scale):
        yield Finding(
            "warning",
            "simulator",
            f"replayed in {task.name}, the first {_REPLAY_STEPS} observations differ by "
            f"{format_number(np.nanmedian(early))} (median of {len(early)} episodes; the very "
            f"first by {format_number(np.nanmedian(first))})",
            "Check the version of the simulator, the units and the task before relying on results.",
        )
    else:
        yield Finding(
            "note",
            "simulator",
            f"replayed in {task.name}, the first observation differs by at most "
            f"{format_number(np.nanmax(first))} and the next {_REPLAY_STEPS} by at most "
            f"{format_number(np.nanmax(early))}{_compare_success(examination, replay)}",
            "Nothing: the data agree with the simulator.",
        )
    if examination.goals is not None:
        return
    differing = [
        position
        for position, episode in enumerate(replayed)
        if _rewards_differ(episode, replay.rewards[position], replay.errors[position])
    ]
    if differing:
        yield Finding(
            "warning",
            "rewards",
            f"{format_count(differing, replayed)} have other rewards than {task.name} gives for "
            "the same steps",
            "Nothing, nppac_tf ignores them: they are scaled or of another version of the task.",
            examination.file_indices(differing),
        )


def _compare_success(examination: Examination, replay: SimulatorReplay) -> str:
    """Compares success in the replay with success in the recording, for tasks with a goal."""
    if examination.goals is None:
        return ""
    again = sum(bool((flags == 1).any()) for flags in replay.successes)
    total = len(replay.successes)
    recorded = sum(bool((flags == 1).any()) for flags in examination.goals[:total])
    return f"; {again} of {total} episodes reach the goal in the replay, {recorded} in the data"


def _is_marked_as_failed(episode: RecordedEpisode) -> bool:
    """Whether the file says so of the episode, or says success of no step; False if unknown."""
    if episode.succeeded is not None or episode.successes is None:
        return episode.succeeded is False
    flags = np.asarray(episode.successes)
    return flags.dtype.kind in "biuf" and flags.size > 0 and bool((flags == 0).all())


def _disagreement(flags: np.ndarray, recorded: np.ndarray) -> float:
    """Fraction of steps in which two goal flags differ, at the better of two alignments."""
    known = ~np.isnan(flags)
    recorded = recorded > 0.5
    at_step = float((flags[known] != recorded[known]).mean()) if known.any() else 0.0
    known = known[:-1]
    before = float((flags[:-1] != recorded[1:])[known].mean()) if known.any() else at_step
    return min(at_step, before)


def _reward_agreement(goals: Sequence[np.ndarray], rewards: Sequence[np.ndarray]) -> float | None:
    """Fraction of pairs in which a step at the goal has a higher reward than one away from it.

    Ties count half. Files differ in whether a reward belongs to the state before or after its step,
    and some hold one reward more: the better alignment counts.
    """
    shares: list[float] = []
    for offset in (0, 1):
        paid, flags = [], []
        for goal, values in zip(goals, rewards, strict=True):
            steps = min(len(goal), len(values) - offset)
            paid.append(values[offset : offset + steps])
            flags.append(goal[:steps])
        reward, flag = np.concatenate(paid), np.concatenate(flags)
        at_goal, away = np.sort(reward[flag == 1]), np.sort(reward[flag == 0])
        if not at_goal.size or not away.size:
            return None
        below = np.searchsorted(away, at_goal, "left") + np.searchsorted(away, at_goal, "right")
        shares.append(float(below.mean()) / 2 / away.size)
    return max(shares)


def _early_error(errors: np.ndarray) -> float:
    early = errors[: _REPLAY_STEPS + 1]
    known = early[np.isfinite(early)]
    return float(known.max()) if known.size else float("nan")


def _rewards_differ(episode: RecordedEpisode, paid: np.ndarray, errors: np.ndarray) -> bool:
    """Whether rewards differ in the steps before the replay departs from the recording."""
    if episode.rewards is None or len(episode.rewards) != len(paid):
        return False
    followed = errors[1:] < 1e-3
    steps = int(np.argmin(followed)) if not followed.all() else len(followed)
    recorded = np.asarray(episode.rewards[:steps], np.float64)
    return steps > 0 and not np.allclose(recorded, paid[:steps], rtol=1e-2, atol=1e-2)
