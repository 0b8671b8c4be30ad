"""Vectorized environments whose state can be saved within episodes.

Glossary: B environments in a batch, D observation components, A action components.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nppac_tf.environments.stepping import clip_actions, episode_seed, require_finite
from nppac_tf.environments.tasks import Task
from nppac_tf.errors import UserError

# One environment in this many plays whole episodes where the others are limited.
_WHOLE = 5


class Step(NamedTuple):
    """One step of B environments.

    Attributes:
        next_observations: [B, D] float32, the true successors, also at the end of an episode.
        rewards: [B] float32.
        terminations: [B] bool, True if the episode ended in a terminal state.
        truncations: [B] bool, True if the episode was truncated in a state that is not terminal.
    """

    next_observations: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray


class VectorEnvironment:
    """B environments of one task, stepped together in this process, with automatic resets.

    Each episode is reset with its own seed, derived from the run's seed, the index of the
    environment and the index of the episode, so the same actions always give the same run. The
    saved state is these indices and the actions of the current episodes; loading replays the
    actions. This is exact for every deterministic simulator and needs no access to its state.

    Returned arrays are never modified later.
    """

    def __init__(self, task: Task, num_environments: int, seed: int) -> None:
        """Makes the environments and starts the first episode of each.

        Args:
            task: Task to make.
            num_environments: B, at least 1.
            seed: At least 0.

        Raises:
            UserError: if num_environments or seed is out of range.
        """
        if num_environments < 1:
            raise UserError(f"num_environments must be at least 1; got {num_environments}")
        self._task = task
        self._seed = seed
        self._environments = [task.make() for _ in range(num_environments)]
        self._limits = np.full(num_environments, np.inf)
        self._episode_indices = np.zeros(num_environments, np.int64)
        self._actions: list[list[np.ndarray]] = [[] for _ in range(num_environments)]
        self._observations = self._reset(range(num_environments))

    @property
    def num_environments(self) -> int:
        """B."""
        return len(self._environments)

    @property
    def environments(self) -> Sequence[Any]:
        """The environments. After other use of them, `load_state_dict` an earlier state."""
        return self._environments

    @property
    def whole(self) -> np.ndarray:
        """Which environments play whole episodes, [B] bool."""
        return np.isinf(self._limits)

    @property
    def longest(self) -> np.ndarray:
        """Steps of the longest training episode of each, [B]; infinite without any limit."""
        return np.minimum(self._limits, self._task.horizon or np.inf)

    def limit_episodes(self, steps: int) -> None:
        """Truncates episodes after this many steps, but for every fifth environment."""
        self._limits[np.arange(self.num_environments) % _WHOLE > 0] = steps

    @property
    def observations(self) -> np.ndarray:
        """Current observations, [B, D] float32, after automatic resets."""
        return self._observations

    def step(self, actions: np.ndarray) -> Step:
        """Steps every environment once and resets those whose episode ended.

        Args:
            actions: [B, A], clipped to the task's bounds.

        Raises:
            UserError: if the shape is not [B, A].
            FloatingPointError: if an action, an observation or a reward is not finite. After an
                observation or a reward, the environments must not be stepped again.
        """
        batch_size = self.num_environments
        actions = clip_actions(actions, self._task, batch_size)
        next_observations = np.empty((batch_size, self._task.observation_size), np.float32)
        rewards = np.empty(batch_size, np.float32)
        terminations = np.empty(batch_size, np.bool_)
        truncations = np.empty(batch_size, np.bool_)
        for i, environment in enumerate(self._environments):
            next_observations[i], rewards[i], terminations[i], truncations[i], _ = environment.step(
                actions[i]
            )
            self._actions[i].append(actions[i])
            if len(self._actions[i]) >= self._limits[i] and not terminations[i]:
                truncations[i] = True
        require_finite("observation", next_observations)
        require_finite("reward", rewards)

        self._observations = next_observations
        ended = np.flatnonzero(terminations | truncations)
        if ended.size:
            self._episode_indices[ended] += 1
            self._observations = next_observations.copy()
            self._observations[ended] = self._reset(ended)
        return Step(next_observations, rewards, terminations, truncations)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for `load_state_dict`.

        Returns:
            "episode_indices" [B] int64, "observations" [B, D] float32, and "actions", for each
            environment [T, A] float32 of its current episode.
        """
        none = np.empty((0, self._task.action_size), np.float32)
        return {
            "episode_indices": self._episode_indices.copy(),
            "observations": self._observations.copy(),
            "actions": [np.stack(taken) if taken else none for taken in self._actions],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> list[int]:
        """Restores a saved state by replaying the actions of the current episodes.

        Args:
            state: Returned by `state_dict`, for the same seed and number of environments.

        Returns:
            Indices of the environments in which the saved actions led to another observation; they
            start their next episode. Empty for a deterministic simulator.

        Raises:
            UserError: if the number of environments differs.
        """
        if len(state["actions"]) != self.num_environments:
            raise UserError(
                f"state must be of {self.num_environments} environments; "
                f"got {len(state['actions'])}"
            )
        self._episode_indices = np.array(state["episode_indices"], np.int64)
        observations = self._reset(range(self.num_environments))
        unrepeated = []
        for i, actions in enumerate(state["actions"]):
            ended = False
            for action in actions:
                observations[i], _, terminated, truncated, _ = self._environments[i].step(action)
                ended = terminated or truncated
                if ended:
                    break
            self._actions[i] = list(actions)
            if ended or not np.array_equal(observations[i], state["observations"][i]):
                unrepeated.append(i)
                self._episode_indices[i] += 1
                (observations[i],) = self._reset([i])
        self._observations = observations
        return unrepeated

    def close(self) -> None:
        """Frees the simulators."""
        for environment in self._environments:
            environment.close()

    def _reset(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        observations = np.empty((len(indices), self._task.observation_size), np.float32)
        for row, i in enumerate(indices):
            seed = episode_seed(self._seed, int(i), int(self._episode_indices[i]))
            observations[row], _ = self._environments[i].reset(seed=seed)
            self._actions[i] = []
        require_finite("observation", observations)
        return observations
