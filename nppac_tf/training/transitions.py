"""Transitions before they are stored: of environments or demonstrations, over one or more steps."""

from typing import NamedTuple

import numpy as np

from nppac_tf.config import TrainingConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task
from nppac_tf.errors import UserError


class Transitions(NamedTuple):
    """N transitions; all float32 but `ends`.

    Attributes:
        observations: [N, D].
        actions: [N, A].
        rewards: [N].
        discounts: [N], of the value of the next state beyond the agent's own discount: 0 where the
            episode terminated there.
        next_observations: [N, D].
        ends: [N] bool, whether the episode terminated or was cut off there.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    discounts: np.ndarray
    next_observations: np.ndarray
    ends: np.ndarray


def over_steps(transitions: Transitions, n: int, discount: float, stride: int = 1) -> Transitions:
    """The n-step version: rewards of n steps summed, and the state after them (Sutton 1988).

    With m <= n steps to the end of the episode or of the data, R = sum_k discount^k r_k over m
    steps, and the value of the state after them counts discount^(m - 1) times the transition's own
    discount, which the agent multiplies by `discount` once more. Where a behavioral prior adds a
    KL term to the target, it is that of the last state; those between are left out, as are
    corrections for actions of older policies.

    Args:
        transitions: In the order of time, `stride` episodes side by side.
        n: At least 1.
        discount: Per environment step.
        stride: Rows from one step of an episode to its next.
    """
    size = len(transitions.rewards)
    rewards = transitions.rewards.astype(np.float64)
    weight = np.ones(size)
    last = np.arange(size)
    going_on = np.ones(size, bool)
    for step in range(1, n):
        going_on &= ~transitions.ends[last] & (last + stride < size)
        last[going_on] += stride
        rewards[going_on] += discount**step * transitions.rewards[last[going_on]]
        weight[going_on] *= discount
    return transitions._replace(
        rewards=rewards.astype(np.float32),
        discounts=(weight * transitions.discounts[last]).astype(np.float32),
        next_observations=transitions.next_observations[last],
        ends=transitions.ends[last],
    )


def of_demonstrations(demonstrations: Demonstrations, task: Task) -> Transitions:
    """The transitions of demonstrations, with rewards of the task.

    Rewards are computed from the state after the step where the task allows it, by its success rule
    or by `compute_reward` of a goal environment: those of a file may be of another task, or wrong.
    Elsewhere they are the recorded ones (with reward "negative", by the recorded successes). The
    last step of an episode, whose next state is not known, is left out, unless the episode ended
    there in a terminal state.

    Raises:
        UserError: if the rewards are neither computed nor recorded, or no transition remains.
    """
    ends, size = demonstrations.episode_ends, demonstrations.num_steps
    is_last = np.zeros(size, bool)
    is_last[ends - 1] = True
    # Of a last step, its own state stands for the unknown next one.
    after = demonstrations.observations[np.where(is_last, np.arange(size), np.arange(size) + 1)]
    computed, recorded = _computed_rewards(after, task), _recorded_rewards(demonstrations, task)
    rewards = recorded if computed is None else computed
    if rewards is None:
        kind = "successes" if task.reward == "negative" else "rewards"
        raise UserError(
            f"{kind} of demonstrations must be recorded to replay them in {task.name}, whose "
            f"observations do not tell them; {demonstrations.name} has none: record them, or use "
            "a method that does not replay demonstrations, such as N-PPAC"
        )
    is_terminal = np.zeros(size, bool)
    # Known tasks with a success rule have no terminal states, whatever a file says.
    if recorded is not None and demonstrations.terminated is not None and not task.success_rule:
        is_terminal[ends[demonstrations.terminated] - 1] = True
        rewards = np.where(is_terminal, recorded, rewards)
    kept = ~is_last | is_terminal
    if not kept.any():
        raise UserError("demonstrations must have two steps or more in an episode to be replayed")
    is_cut_off = np.append(~kept[1:], False)
    return Transitions(
        demonstrations.observations[kept],
        demonstrations.actions[kept],
        rewards[kept].astype(np.float32),
        1.0 - is_terminal[kept].astype(np.float32),
        after[kept],
        (is_terminal | is_cut_off)[kept],
    )


def replayed(
    demonstrations: Demonstrations | None, task: Task, config: TrainingConfig, discount: float
) -> Transitions | None:
    """The demonstrations' transitions over n steps, if the configuration has them replayed.

    Raises:
        UserError: if there are no demonstrations to replay, or see `of_demonstrations`.
    """
    if not (config.demonstration_share or config.prefill_replay):
        return None
    if demonstrations is None:
        raise UserError(
            "demonstration_share and prefill_replay need demonstrations; got none: pass them, or "
            "leave these out"
        )
    return over_steps(of_demonstrations(demonstrations, task), config.n_step, discount)


def _computed_rewards(after: np.ndarray, task: Task) -> np.ndarray | None:
    """The task's rewards [N] for reaching states [N, D]; None if these do not tell."""
    by_success = task.reward == "negative" or "reward" in task.environment_kwargs
    if not by_success:
        return task.goal_rewards(after)
    if task.success_rule is None:
        return None
    return task.success_rule(after) - (1.0 if task.reward == "negative" else 0.0)


def _recorded_rewards(demonstrations: Demonstrations, task: Task) -> np.ndarray | None:
    """The recorded rewards [N], or those that the recorded successes give."""
    if task.reward == "binary":
        return demonstrations.rewards
    return None if demonstrations.successes is None else demonstrations.successes - 1.0
