"""Data sets of one long array per quantity, with flags where episodes begin or end.

D4RL's HDF5 files, and npz files of d3rlpy, Stable-Baselines and the like.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nppac_tf.demonstrations.dataset import as_matrix
from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.errors import UserError

# By quantity, the names that it has in one library or another.
NAMES = {
    "observations": ("observations", "obs"),
    "actions": ("actions", "acts"),
    "rewards": ("rewards", "rews"),
    "terminals": ("terminals", "terminations", "dones"),
    "timeouts": ("timeouts", "truncations"),
    "starts": ("episode_starts",),
    "next_observations": ("next_observations",),
}


def named(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by the names of `NAMES`; others are left out."""
    found = {}
    for quantity, names in NAMES.items():
        name = next((name for name in names if name in arrays), None)
        if name is not None:
            found[quantity] = arrays[name]
    return found


def episodes(arrays: Mapping[str, np.ndarray]) -> list[RecordedEpisode]:
    """Cuts arrays of N steps into episodes.

    Args:
        arrays: By the names of `NAMES`: observations [N, D] and actions [N, A]; flags [N] of
            terminals or timeouts at the last step of an episode, or of starts at the first. Flags
            of two kinds are joined. What follows the last flag is an episode too. Observations may
            be [E, T, D] instead: then each of the E is an episode.

    Raises:
        UserError: Lengths differ, or nothing says where episodes end.
    """
    observations, actions = arrays["observations"], arrays["actions"]
    if observations.ndim == 3 and actions.ndim == 3:
        return [
            RecordedEpisode(states, controls)
            for states, controls in zip(observations, actions, strict=True)
        ]
    observations = as_matrix(observations, "observations", "[N, D]")
    columns = {"actions": as_matrix(actions, "actions", "[N, A]")}
    for name in ("rewards", "terminals", "timeouts", "starts"):
        if name in arrays:
            columns[name] = np.asarray(arrays[name]).reshape(-1)
    if "next_observations" in arrays:
        columns["next_observations"] = as_matrix(
            arrays["next_observations"], "next_observations", "[N, D]"
        )
    size = len(observations)
    for name, column in columns.items():
        if len(column) != size:
            raise UserError(
                f"{name} must have as many steps as observations, {size}; got {len(column)}"
            )
    ends = np.zeros(size, np.bool_)
    for name in ("terminals", "timeouts"):
        if name in columns:
            ends |= columns[name] > 0
    if "starts" in columns:
        ends[:-1] |= columns["starts"][1:] > 0
    if not {"terminals", "timeouts", "starts"} & columns.keys():
        raise UserError(
            "a file of one array per quantity must say where episodes end, in terminals, timeouts "
            "or episode_starts; got none: pass the episodes to Demonstrations.from_episodes"
        )
    if size:
        ends[-1] = True
    cuts = np.flatnonzero(ends) + 1
    return [
        RecordedEpisode(
            observations[start:end],
            columns["actions"][start:end],
            rewards=part(columns, "rewards", start, end),
            terminals=part(columns, "terminals", start, end),
            truncations=part(columns, "timeouts", start, end),
            next_observations=part(columns, "next_observations", start, end),
        )
        for start, end in zip([0, *cuts[:-1]], cuts, strict=True)
    ]


def part(columns: Mapping[str, np.ndarray], name: str, start: int, end: int) -> np.ndarray | None:
    """The steps from start to end of a column; None if it is not there."""
    return columns[name][start:end] if name in columns else None
