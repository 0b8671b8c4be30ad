"""Rollouts of a policy, and the metrics that go with binary tasks.

Glossary: E episodes, B environments in a batch, D observation components, A action components.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from nppac_tf.environments import Task, clip_actions, episode_seed, require_finite
from nppac_tf.errors import UserError

PolicyFunction = Callable[[np.ndarray], np.ndarray]

_PROPORTIONS = ("eval/any_success", "eval/final_success")


def as_policy_function(policy: Any) -> PolicyFunction:
    """Gives a policy as a function from observations [B, D] to actions [B, A].

    Args:
        policy: a callable, returned as it is, or a TF-Agents TFPolicy without state, which becomes
            its greedy action (the mode) in a compiled call. That call reads the policy's variables
            anew each time, so make it once and keep it: each new one is compiled again.

    Raises:
        UserError: if it is neither, or the TFPolicy has state.
    """
    if callable(policy):
        return policy

    import tensorflow as tf
    from tf_agents.policies import greedy_policy, tf_policy
    from tf_agents.trajectories import time_step as ts

    if not isinstance(policy, tf_policy.TFPolicy):
        raise UserError(f"policy must be callable or a TFPolicy; got {type(policy).__name__}")
    if policy.policy_state_spec:
        raise UserError(f"policy must have no state; got {policy.policy_state_spec}")
    greedy = greedy_policy.GreedyPolicy(policy)

    # AutoGraph has nothing to do here, and warns where a function closes over local imports.
    @tf.function(autograph=False)
    def greedy_actions(observations: tf.Tensor) -> tf.Tensor:
        return greedy.action(ts.restart(observations, batch_size=observations.shape[0])).action

    def policy_function(observations: np.ndarray) -> np.ndarray:
        return greedy_actions(tf.constant(observations, tf.float32)).numpy()

    return policy_function


@dataclasses.dataclass(frozen=True, eq=False)
class Episodes:
    """What E episodes came to.

    Attributes:
        any_success: [E] float32, 1 where the goal was reached at least once, else 0; nan, as in the
            other two successes, where the task has no success.
        time_at_goal: [E] float32 in [0, 1], steps at the goal over the task's horizon, or over the
            episode's length for a task without one.
        final_success: [E] float32, 1 where the last step was at the goal, else 0.
        returns: [E] float32, undiscounted.
        lengths: [E] int64, in steps.
        observations: of each episode, [T, D] float32, those acted upon; this and what follows is
            empty unless recorded.
        actions: of each episode, [T, A] float32, as executed.
        rewards: of each episode, [T] float32.
        final_observations: [E, D] float32, after each episode's last action.
        terminated: [E] bool, whether an episode ended in a terminal state; else it was truncated.
    """

    any_success: np.ndarray
    time_at_goal: np.ndarray
    final_success: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    observations: tuple[np.ndarray, ...] = ()
    actions: tuple[np.ndarray, ...] = ()
    rewards: tuple[np.ndarray, ...] = ()
    final_observations: np.ndarray = dataclasses.field(
        default_factory=lambda: np.empty((0, 0), np.float32)
    )
    terminated: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.bool_))

    def summary(self) -> dict[str, float]:
        """Means over the episodes; nan where the task has no success."""
        return {name: float(np.mean(values)) for name, values in self._metrics().items()}

    def intervals(self, confidence: float = 0.95) -> dict[str, tuple[float, float]]:
        """Confidence intervals of the means in `summary`.

        Shares of episodes get Wilson's interval; time at goal and return get the BCa bootstrap's,
        always with the same resamples, which of equal values is that value twice. It is nan where
        the task has no success, and for a bootstrap of a single episode.

        Args:
            confidence: in (0, 1).

        Raises:
            UserError: if confidence is out of range.
        """
        if not 0 < confidence < 1:
            raise UserError(f"confidence must be in (0, 1); got {confidence}")
        return {
            name: (_wilson if name in _PROPORTIONS else _bootstrap)(values, confidence)
            for name, values in self._metrics().items()
        }

    def _metrics(self) -> dict[str, np.ndarray]:
        metrics = {
            "eval/any_success": self.any_success,
            "eval/time_at_goal": self.time_at_goal,
            "eval/final_success": self.final_success,
            "eval/return": self.returns,
        }
        return {name: values.astype(np.float64) for name, values in metrics.items()}


def evaluate(
    policy: Any,
    task: Task,
    num_episodes: int = 50,
    seed: int = 0,
    num_environments: int = 10,
    record: bool = False,
    on_frame: Callable[[np.ndarray], None] | None = None,
) -> Episodes:
    """Rolls a policy out for a number of episodes.

    Episode i is reset with a seed derived from (seed, i) alone, so num_environments changes the
    time taken and, but for the rounding of a policy that computes in batches, nothing else. The
    policy is called on the observations of all environments at once, always as many; the actions
    for those that have no episode left are ignored.

    Args:
        policy: anything that `as_policy_function` accepts.
        task: what to roll out in; without a horizon its episodes must terminate by themselves.
        num_episodes: E, at least 1.
        seed: at least 0.
        num_environments: B, at least 1; no more than num_episodes are made.
        record: whether to keep the observations, actions and rewards.
        on_frame: is given a frame [H, W, 3] uint8 of the start of each episode and of every step,
            one episode after the other: num_environments counts as 1.

    Raises:
        UserError: if an argument is out of range, or the policy's actions are not [B, A].
        FloatingPointError: if an action, an observation or a reward is not finite.
    """
    if num_episodes < 1:
        raise UserError(f"num_episodes must be at least 1; got {num_episodes}")
    if num_environments < 1:
        raise UserError(f"num_environments must be at least 1; got {num_environments}")
    policy_function = as_policy_function(policy)
    batch_size = 1 if on_frame else min(num_environments, num_episodes)
    render_mode = "rgb_array" if on_frame else None
    environments = [task.make(render_mode) for _ in range(batch_size)]
    try:
        return _roll_out(policy_function, task, environments, num_episodes, seed, record, on_frame)
    finally:
        for environment in environments:
            environment.close()


def _roll_out(
    policy_function: PolicyFunction,
    task: Task,
    environments: list[Any],
    num_episodes: int,
    seed: int,
    record: bool,
    on_frame: Callable[[np.ndarray], None] | None,
) -> Episodes:
    batch_size = len(environments)
    returns = np.zeros(num_episodes)
    lengths = np.zeros(num_episodes, np.int64)
    steps_at_goal = np.zeros(num_episodes)
    final_success = np.zeros(num_episodes, np.float32)
    recorded_observations: list[list[np.ndarray]] = [[] for _ in range(num_episodes)]
    recorded_actions: list[list[np.ndarray]] = [[] for _ in range(num_episodes)]
    recorded_rewards: list[list[float]] = [[] for _ in range(num_episodes)]
    final_observations = np.empty((num_episodes, task.observation_size), np.float32)
    terminations = np.zeros(num_episodes, np.bool_)

    observations = np.empty((batch_size, task.observation_size), np.float32)
    rewards = np.zeros(batch_size)
    waiting = iter(range(num_episodes))
    underway: dict[int, int] = {}  # environment -> episode

    def start_next_episode(i: int) -> None:
        episode = next(waiting, None)
        if episode is None:
            underway.pop(i)
        else:
            underway[i] = episode
            observations[i], _ = environments[i].reset(seed=episode_seed(seed, episode))
            if on_frame:
                on_frame(environments[i].render())

    for i in range(batch_size):
        start_next_episode(i)
    require_finite("observation", observations)
    while underway:
        actions = clip_actions(policy_function(observations.copy()), task, batch_size)
        ended = []
        for i, episode in underway.items():
            if record:
                recorded_observations[episode].append(observations[i].copy())
                recorded_actions[episode].append(actions[i])
            observations[i], rewards[i], terminated, truncated, info = environments[i].step(
                actions[i]
            )
            if on_frame:
                on_frame(environments[i].render())
            if record:
                recorded_rewards[episode].append(rewards[i])
            success = float(info.get("success", np.nan))
            returns[episode] += rewards[i]
            lengths[episode] += 1
            steps_at_goal[episode] += success
            final_success[episode] = success
            if terminated or truncated:
                ended.append(i)
                final_observations[episode] = observations[i]
                terminations[episode] = terminated
        require_finite("observation", observations)
        require_finite("reward", rewards)
        for i in ended:
            start_next_episode(i)
        if ended:
            require_finite("observation", observations)

    recorded: dict[str, Any] = {}
    if record:
        recorded = {
            "observations": tuple(np.stack(rows) for rows in recorded_observations),
            "actions": tuple(np.stack(rows) for rows in recorded_actions),
            "rewards": tuple(np.array(row, np.float32) for row in recorded_rewards),
            "final_observations": final_observations,
            "terminated": terminations,
        }
    any_success = np.where(np.isnan(steps_at_goal), np.nan, steps_at_goal > 0)
    return Episodes(
        any_success=any_success.astype(np.float32),
        time_at_goal=(steps_at_goal / (task.horizon or lengths)).astype(np.float32),
        final_success=final_success,
        returns=returns.astype(np.float32),
        lengths=lengths,
        **recorded,
    )


def _wilson(values: np.ndarray, confidence: float) -> tuple[float, float]:
    if np.isnan(values).any():
        return np.nan, np.nan
    interval = stats.binomtest(round(values.sum()), len(values)).proportion_ci(
        confidence, method="wilson"
    )
    return float(interval.low), float(interval.high)


def _bootstrap(values: np.ndarray, confidence: float) -> tuple[float, float]:
    if np.isnan(values).any() or len(values) < 2:
        return np.nan, np.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, method="BCa", rng=np.random.default_rng(0)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
