"""Checks of whether a recording shows an expert at its task, as the simulator knows it.

Glossary: E episodes, T steps of an episode, D observation components, A action components.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nppac_tf.config import LARGEST_EXACT_GP
from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.doctor.findings import (
    LENGTH_RATIO,
    Examination,
    Finding,
    count,
    joined,
    listed,
    number,
)

_FEW_EPISODES = 5
_REPLAY_STEPS = 5
_REPLAY_ERROR = 0.05


def check_lengths(examination: Examination) -> Iterator[Finding]:
    """Episodes far shorter or longer than others, failing early, too few, or past the horizon."""
    task, episodes = examination.task, examination.episodes
    lengths = np.array([e.length for e in episodes])
    if not lengths.size:
        return
    usual = float(np.median(lengths))
    short = {int(i) for i in np.flatnonzero(lengths < LENGTH_RATIO * usual)}
    fallen = examination.ends_early()
    if fallen:
        shown = listed(lengths[fallen])
        yield Finding(
            "warning",
            "fails early",
            f"{count(fallen, episodes)} end in a terminal state, after {shown} steps; the median "
            f"is {usual:,.0f}",
            "They show how to fail at the end: leave them out, unless the states are wanted. "
            "Demonstrations.select keeps the others.",
            examination.named(fallen),
        )
    rest = sorted(short - set(fallen))
    if rest:
        yield Finding(
            "warning",
            "short episodes",
            f"{count(rest, episodes)} are far shorter than the median of {usual:,.0f} steps: "
            f"{listed(lengths[rest])}",
            "Check that they are whole, and leave failures out.",
            examination.named(rest),
        )
    longer = [int(i) for i in np.flatnonzero(lengths * LENGTH_RATIO > usual)]
    if longer:
        yield Finding(
            "warning",
            "long episodes",
            f"{count(longer, episodes)} are far longer than the median of {usual:,.0f} steps: "
            f"{listed(lengths[longer])}",
            "Check that they are not several in one.",
            examination.named(longer),
        )
    total = int(lengths.sum())
    if len(episodes) < _FEW_EPISODES:
        yield Finding(
            "warning",
            "few episodes",
            f"there are {len(episodes)} episodes, {total:,} steps",
            "A prior from so few says little away from them: record some 20.",
        )
    if total > LARGEST_EXACT_GP:
        yield Finding(
            "note",
            "many steps",
            f"there are {total:,} steps",
            "Choose the prior: gp, the default, is sparse with so many, and quick; exact_gp takes "
            "longer and more memory, with the square of their number, and is surer near them.",
        )
    if task is not None and examination.fits and task.horizon is not None and usual > task.horizon:
        yield Finding(
            "note",
            "horizon",
            f"episodes of {usual:,.0f} steps (median) go on after the horizon of {task.name}, "
            f"{task.horizon} steps",
            "Nothing: training uses all steps, and evaluation stops at the horizon.",
        )


def check_goal(examination: Examination) -> Iterator[Finding]:
    """Episodes that miss the goal, reach it late, or carry flags that say otherwise."""
    task, goals, episodes = examination.task, examination.goals, examination.episodes
    if task is None or goals is None:
        return
    reached = [bool((flags == 1).any()) for flags in goals]
    failed = [position for position, success in enumerate(reached) if not success]
    if failed:
        yield Finding(
            "warning",
            "no success",
            f"{count(failed, episodes)} never reach the goal of {task.name}",
            "Leave them out where they go wrong (Demonstrations.select keeps the others), and "
            "keep them where they are good but slow, as --action_lookahead can make up for."
            if len(failed) < len(episodes)
            else "Check the task, and the units and the order of the observations.",
            examination.named(failed),
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
                f"{count(late, episodes)} reach the goal only after the horizon of {task.name}, "
                f"{horizon} steps",
                "A policy that copies them is too slow to count as successful: prefer faster ones, "
                "or hurry the prior with --action_lookahead.",
                examination.named(late),
            )
    flags_disagree = [
        position
        for position, episode in enumerate(episodes)
        if episode.successes is not None
        and len(episode.successes) == episode.length
        and _disagreement(goals[position], episode.successes) > 0.02
    ]
    if flags_disagree:
        yield Finding(
            "warning",
            "success flags",
            f"the goal flags of {count(flags_disagree, episodes)} disagree with the observations",
            "Trust the observations: the flags are of another rule, or of another episode.",
            examination.named(flags_disagree),
        )


def check_rewards(examination: Examination) -> Iterator[Finding]:
    """Rewards that disagree with the goal, carry nothing, or tell poor episodes."""
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
            "Do not train another method on them; nppac_tf does not use them.",
        )
        return
    if examination.goals is not None:
        agreement = _reward_agreement(examination.goals, rewards)
        if agreement is not None and agreement < 0.99:
            message = (
                "rewards disagree with the observations: a step at the goal is paid better than "
                f"one away from it in {agreement:.0%} of the pairs, where 100% would agree"
            )
            silent: list[int] = []
            if len(np.unique(everything)) <= 2:
                silent = [
                    position
                    for position, flags in enumerate(examination.goals)
                    if (flags == 1).any() and not (rewards[position] == everything.max()).any()
                ]
            if silent:
                message += (
                    f"; {count(silent, episodes)} carry no reward although they reach the goal"
                )
            yield Finding(
                "warning",
                "rewards",
                message,
                "Do not train another method on these rewards; nppac_tf does not use them, and "
                "tells success from observations.",
                examination.named(silent),
            )
            return
    if np.ptp(everything) == 0 and len(everything) > 1:
        yield Finding(
            "note",
            "rewards",
            f"every reward is {number(everything[0])}",
            "They carry nothing; nppac_tf does not use them.",
        )
        return
    returns = np.array([values.sum() for values in rewards])
    center = np.median(returns)
    spread = 1.4826 * np.median(np.abs(returns - center))
    poor = [int(i) for i in np.flatnonzero(returns < center - 6 * spread)] if spread > 0 else []
    fallen = examination.ends_early()
    low = [p for p in poor if p not in fallen and center - returns[p] > 0.2 * abs(center)]
    if low and len(episodes) >= _FEW_EPISODES:
        yield Finding(
            "warning",
            "low return",
            f"{count(low, episodes)} earn far less than the median return of "
            f"{number(center)}: {listed(returns[low])}",
            "They are not of an expert: leave them out. Demonstrations.select keeps the others.",
            examination.named(low),
        )


def check_simulation(examination: Examination) -> Iterator[Finding]:
    """What the replay says: another task, shifted actions, another simulator, or agreement."""
    simulation, task = examination.simulation, examination.task
    if simulation is None or task is None or not examination.episodes:
        return
    replay = simulation.replay
    examined = examination.episodes[: len(replay.errors)]
    start = np.array([errors[0] for errors in replay.errors])
    soon = np.array([_early_error(errors) for errors in replay.errors])
    spread = float(np.median(np.abs(joined(examined, "observations"))))
    aligned = simulation.alignment.get(0, np.nan)
    shift = min(simulation.alignment, key=lambda key: simulation.alignment[key], default=0)
    rival = min(simulation.rivals, key=lambda key: simulation.rivals[key], default="")
    if rival and simulation.rivals[rival] < 0.1 * aligned:
        yield Finding(
            "error",
            "another task",
            f"the simulator of {rival} reproduces the first steps to "
            f"{number(simulation.rivals[rival])}, that of {task.name} only to {number(aligned)}",
            f"Pass --task={rival}.",
        )
    elif shift and simulation.alignment[shift] < 0.5 * aligned:
        direction = "before" if shift > 0 else "after"
        yield Finding(
            "error",
            "shifted actions",
            f"row i seems to hold the action of one step {direction} observation i: replayed so, "
            f"the first steps are off by {number(simulation.alignment[shift])}, and by "
            f"{number(aligned)} as they stand",
            "Pair observation i with the action in row i + 1, and drop the row left over."
            if shift > 0
            else "Pair observation i + 1 with the action in row i, and drop the row left over.",
        )
    elif np.nanmedian(soon) > _REPLAY_ERROR * max(1.0, spread):
        yield Finding(
            "warning",
            "simulator",
            f"replayed in {task.name}, the first {_REPLAY_STEPS} observations are off by "
            f"{number(np.nanmedian(soon))} (median over {len(soon)} episodes; the first by "
            f"{number(np.nanmedian(start))})",
            "The data are of another version of the simulator, of other units or of another task: "
            "check before relying on results.",
        )
    else:
        recorded = np.array([bool((flags == 1).any()) for flags in examination.goals or ()])
        text = (
            f"replayed in {task.name}, the first observation is reproduced to "
            f"{number(np.nanmax(start))} and the next {_REPLAY_STEPS} to "
            f"{number(np.nanmax(soon))}"
        )
        if recorded.size:
            again = np.array([bool((flags == 1).any()) for flags in replay.successes])
            text += (
                f"; {again.sum()} of {len(again)} episodes reach the goal so, "
                f"{recorded[: len(again)].sum()} by their own observations"
            )
        yield Finding("note", "simulator", text, "Nothing: data and simulator agree.")
    differing = [
        position
        for position, episode in enumerate(examined)
        if _rewards_differ(episode, replay.rewards[position], replay.errors[position])
    ]
    if differing and examination.goals is None:
        yield Finding(
            "warning",
            "rewards",
            f"{count(differing, examined)} hold other rewards than {task.name} pays for the same "
            "steps",
            "They are of another version of the task, or scaled; nppac_tf does not use them.",
            examination.named(differing),
        )


def _disagreement(flags: np.ndarray, recorded: np.ndarray) -> float:
    """Share of steps in which two goal flags differ, at the better of two alignments."""
    known = ~np.isnan(flags)
    recorded = recorded > 0.5
    at_step = float((flags[known] != recorded[known]).mean()) if known.any() else 0.0
    before = float((flags[:-1] != recorded[1:]).mean()) if len(flags) > 1 else at_step
    return min(at_step, before)


def _reward_agreement(goals: Sequence[np.ndarray], rewards: Sequence[np.ndarray]) -> float | None:
    """How often a step at the goal is paid better than one away from it; ties count half.

    At the best of the alignments that are in use: a reward belongs to the state after its step, or
    to the one before it, and some files hold one more.
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
    """Whether rewards differ where the replay still follows the recording."""
    if episode.rewards is None or len(episode.rewards) != len(paid):
        return False
    followed = errors[1:] < 1e-3
    steps = int(np.argmin(followed)) if not followed.all() else len(followed)
    recorded = np.asarray(episode.rewards[:steps], np.float64)
    return steps > 0 and not np.allclose(recorded, paid[:steps], rtol=1e-2, atol=1e-2)
