"""Finds demonstrations that act in two ways in the same state.

The mean of a Gaussian prior lies between the two, where no demonstrator acted: passing an obstacle
on the left or on the right averages to driving into it.
"""

import numpy as np

from nppac_tf.demonstrations.dataset import Demonstrations

LARGE_SHARE = 0.1  # The sets of demonstrations in docs/results.md have at most 0.03.
_FEWEST_EPISODES = 10
_NUM_STATES = 1000
_NUM_CANDIDATES = 10_000
_NUM_PREDICTORS = 8
_NUM_NEAREST = 20
_CHUNK_ROWS = 100
_EXPLAINED = 0.9  # The best split of normal errors in two explains 0.64 of their variance.
_SPREAD = 0.5


def share_of_two_modes(observations: np.ndarray, actions: np.ndarray, episode: np.ndarray) -> float:
    """Share of the states around which actions fall into two groups.

    An action is predicted by those of the nearest states of other episodes. Around a state, the
    errors of an action component are in two groups if they spread by more than half of the
    component's standard deviation, and splitting them in two explains nine tenths of that.

    Args:
        observations: [N, D].
        actions: [N, A].
        episode: The episode of each step, [N] int.

    Returns:
        A number in [0, 1], from at most 1,000 random states; 0 with fewer than ten episodes, whose
        own differences would look the same, or 40 steps.
    """
    rng = np.random.default_rng(0)
    if len(observations) > _NUM_CANDIDATES:
        rows = np.sort(rng.choice(len(observations), _NUM_CANDIDATES, replace=False))
        observations, actions, episode = observations[rows], actions[rows], episode[rows]
    if len(np.unique(episode)) < _FEWEST_EPISODES or len(observations) < 2 * _NUM_NEAREST:
        return 0.0
    scale = observations.std(axis=0, dtype=np.float64)
    states = (observations - observations.mean(axis=0)) / np.where(scale > 1e-8, scale, 1.0)
    size = min(len(states), _NUM_STATES)
    chosen = np.sort(rng.choice(len(states), size, replace=False))
    errors = np.concatenate(
        [
            _errors(states, actions, episode, chosen[start : start + _CHUNK_ROWS])
            for start in range(0, size, _CHUNK_ROWS)
        ]
    )
    local = errors[_nearest_of_many_episodes(states[chosen], episode[chosen])]
    wide = local.std(axis=1) > _SPREAD * actions.std(axis=0)
    return float((wide & (_explained_by_split(local) > _EXPLAINED)).any(axis=1).mean())


def notice(demonstrations: Demonstrations) -> str | None:
    """One line where the share of two modes is large, else None."""
    lengths = np.diff(demonstrations.episode_ends, prepend=0)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    share = share_of_two_modes(demonstrations.observations, demonstrations.actions, episode)
    if share < LARGE_SHARE:
        return None
    return (
        f"In {share:.0%} of the states the demonstrations act in two different ways, and the prior "
        "takes the middle: keep the episodes that do it in one way (Demonstrations.select), or add "
        "what the choice depends on to the observations"
    )


def _errors(
    states: np.ndarray, actions: np.ndarray, episode: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Actions [B, A] of some rows, less the mean of those of the nearest states elsewhere."""
    distances = _squared_distances(states[rows], states)
    distances[episode[rows][:, np.newaxis] == episode] = np.inf
    nearest = np.argpartition(distances, _NUM_PREDICTORS, axis=1)[:, :_NUM_PREDICTORS]
    known = np.isfinite(np.take_along_axis(distances, nearest, axis=1))[..., np.newaxis]
    total = np.where(known, actions[nearest], 0.0).sum(axis=1)
    return actions[rows] - total / np.maximum(known.sum(axis=1), 1)


def _nearest_of_many_episodes(states: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """The nearest states of each, [N, K] rows, as few as possible of the same episode.

    Successive steps of one episode are alike, and would make groups of their own.
    """
    distances = _squared_distances(states, states)
    names = np.unique(episode)
    of_each = -(-_NUM_NEAREST // len(names))
    candidates = []
    for name in names:
        rows = np.flatnonzero(episode == name)
        candidates.append(rows[np.argsort(distances[:, rows], axis=1)[:, :of_each]])
    rows = np.concatenate(candidates, axis=1)
    order = np.argsort(np.take_along_axis(distances, rows, axis=1), axis=1)
    return np.take_along_axis(rows, order[:, :_NUM_NEAREST], axis=1)


def _explained_by_split(values: np.ndarray) -> np.ndarray:
    """Largest share of the variance over axis 1 that a split into two groups explains, [B, A].

    Each group has at least a quarter of the values [B, K, A].
    """
    ordered = np.sort(values, axis=1)
    size = ordered.shape[1]
    total = np.maximum(ordered.var(axis=1), np.finfo(np.float64).tiny)
    within = [
        (split * ordered[:, :split].var(axis=1) + (size - split) * ordered[:, split:].var(axis=1))
        / size
        for split in range(size // 4, size - size // 4 + 1)
    ]
    return 1.0 - np.min(within, axis=0) / total


def _squared_distances(states: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[B, N], from states [B, D] and [N, D]."""
    norms = np.square(states).sum(axis=1)[:, np.newaxis] + np.square(others).sum(axis=1)
    return norms - 2.0 * states @ others.T
