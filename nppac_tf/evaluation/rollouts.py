"""Rollouts of a policy in its task.

Glossary: E episodes, B environments in a batch, D observation components, A action components.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nppac_tf.environments import Task, clip_actions, episode_seed, require_finite
from nppac_tf.errors import UserError
from nppac_tf.evaluation.episodes import Episodes as Episodes

if TYPE_CHECKING:
    from nppac_tf.priors import BehavioralPrior

_MAX_STEPS_WITHOUT_END = 100_000
PolicyFunction = Callable[[np.ndarray], np.ndarray]


def as_policy_function(policy: Any) -> PolicyFunction:
    """Converts a policy to a function from observations [B, D] to actions [B, A].

    Args:
        policy: A callable, returned unchanged, or a TF-Agents TFPolicy without state, converted to
            a compiled function that returns its greedy action (the mode). The function follows
            later changes of the policy's variables. Keep it: each conversion compiles again.

    Raises:
        UserError: if the policy is neither, or the TFPolicy has state.
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


def mean_policy(prior: "BehavioralPrior") -> PolicyFunction:
    """The policy that takes the prior's mean. Keep it: each call of this compiles again."""
    import tensorflow as tf

    mean = tf.function(lambda states: prior.statistics(states).location, autograph=False)
    return lambda observations: mean(tf.constant(observations, tf.float32)).numpy()


def evaluate(
    policy: Any,
    task: Task,
    num_episodes: int = 50,
    seed: int = 0,
    num_environments: int = 10,
    record: bool = False,
    on_frame: Callable[[np.ndarray], None] | None = None,
    environments: Sequence[Any] | None = None,
) -> Episodes:
    """Rolls a policy out for a number of episodes.

    The initial state of episode i depends on (seed, i) only, so num_environments changes the time
    taken but, up to rounding in policies that compute in batches, not the result. The policy is
    always called with the observations of all B environments; actions for environments without an
    episode left are ignored.

    Args:
        policy: Anything that `as_policy_function` accepts.
        task: Task to roll out in. Without a horizon its episodes must terminate by themselves.
        num_episodes: E, at least 1.
        seed: Seed of the initial states, at least 0.
        num_environments: B, at least 1; at most num_episodes are made.
        record: Whether to keep the observations, actions, rewards and successes.
        on_frame: Called with a frame [H, W, 3] uint8 at the start of each episode and after every
            step, one episode after the other (num_environments is then 1).
        environments: The task's, to use in place of new ones; they are reset and not closed.

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
    if environments is not None:
        used = list(environments[:num_episodes])
        return _roll_out(policy_function, task, used, num_episodes, seed, record, on_frame)
    made = [task.make(render_mode) for _ in range(batch_size)]
    try:
        return _roll_out(policy_function, task, made, num_episodes, seed, record, on_frame)
    finally:
        for environment in made:
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
    known_success = np.zeros(num_episodes, np.int64)
    steps_at_goal = np.zeros(num_episodes)
    final_success = np.zeros(num_episodes, np.float32)
    recorded_observations: list[list[np.ndarray]] = [[] for _ in range(num_episodes)]
    recorded_actions: list[list[np.ndarray]] = [[] for _ in range(num_episodes)]
    recorded_rewards: list[list[float]] = [[] for _ in range(num_episodes)]
    recorded_successes: list[list[float]] = [[] for _ in range(num_episodes)]
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
            success = float(info.get("success", np.nan))
            if record:
                recorded_rewards[episode].append(rewards[i])
                recorded_successes[episode].append(success)
            returns[episode] += rewards[i]
            lengths[episode] += 1
            if not np.isnan(success):
                known_success[episode] += 1
                steps_at_goal[episode] += success
            final_success[episode] = success
            if not task.horizon and lengths[episode] >= _MAX_STEPS_WITHOUT_END:
                raise UserError(
                    f"task {task.name!r} must end its episodes, or be registered with "
                    f"max_episode_steps; got one of {lengths[episode]:,} steps"
                )
            if terminated or truncated:
                ended.append(i)
                final_observations[episode] = observations[i]
                terminations[episode] = terminated
                if terminated and success > 0 and task.horizon:
                    steps_at_goal[episode] += task.horizon - lengths[episode]
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
            "successes": tuple(np.array(row, np.float32) for row in recorded_successes),
            "final_observations": final_observations,
        }
    any_success = np.where(known_success > 0, steps_at_goal > 0, np.nan)
    steps_at_goal[known_success < lengths] = np.nan  # Told at some steps only, such as the last.
    return Episodes(
        any_success=any_success.astype(np.float32),
        time_at_goal=(steps_at_goal / (task.horizon or lengths)).astype(np.float32),
        final_success=final_success,
        returns=returns.astype(np.float32),
        lengths=lengths,
        terminated=terminations,
        horizon=task.horizon,
        **recorded,
    )
