"""Transitions before they are stored: of environments or demonstrations, over one or more steps."""

from typing import NamedTuple

import numpy as np

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task
from nppac_tf.environments.known import SuccessRule, known_task
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


def require_replayable(task: Task) -> SuccessRule:
    """The rule that tells a task's reward from observations.

    Raises:
        UserError: if there is none.
    """
    known = known_task(task.name)
    rule = known.success_rule if known else None
    if rule is None or "reward" not in task.environment_kwargs:
        raise UserError(
            "demonstrations can be replayed where observations determine the reward, in "
            f"pen-binary, door-binary, relocate-binary and hammer-binary; got {task.name}"
        )
    return rule


def of_demonstrations(demonstrations: Demonstrations, task: Task) -> Transitions:
    """The transitions of demonstrations, with rewards computed from observations.

    A file's own rewards are not used: they may be of another task, or wrong. The last step of an
    episode, whose next state is not known, is left out, and no episode terminates.

    Raises:
        UserError: if observations do not determine the task's reward.
    """
    rule = require_replayable(task)
    pairs = [(states, actions) for states, actions in demonstrations.episodes() if len(actions) > 1]
    if not pairs:
        raise UserError("demonstrations must have two steps or more in an episode to be replayed")
    after = np.concatenate([states[1:] for states, _ in pairs])
    penalty = 1.0 if task.environment_kwargs.get("reward") == "negative" else 0.0
    lengths = [len(actions) - 1 for _, actions in pairs]
    ends = np.zeros(len(after), bool)
    ends[np.cumsum(lengths) - 1] = True
    return Transitions(
        np.concatenate([states[:-1] for states, _ in pairs]),
        np.concatenate([actions[:-1] for _, actions in pairs]),
        rule(after).astype(np.float32) - np.float32(penalty),
        np.ones(len(after), np.float32),
        after,
        ends,
    )
