"""Npz archives: of `save_demonstrations`, Stable-Baselines, imitation, and of flat arrays."""

from __future__ import annotations

import importlib.resources
import io
import itertools
import json
import pathlib
from typing import BinaryIO

import numpy as np

from nppac_tf.demonstrations.dataset import (
    Demonstrations,
    as_column,
    as_episode_ends,
    as_matrix,
)
from nppac_tf.demonstrations.formats import flat
from nppac_tf.demonstrations.formats.messages import HEAD_SIZE, describe, list_keys
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.errors import UserError
from nppac_tf.files import read_arrays

_KEYS = ("observations", "actions", "episode_ends")
_OUTCOMES = ("rewards", "successes", "terminated")
_PICKLED = ("infos",)  # By imitation; nothing here needs them.


def read(file: BinaryIO, file_name: str) -> Recording:
    """Reads an npz archive of one of these layouts.

    - `save_demonstrations`: observations, actions, episode_ends; perhaps rewards, successes,
      terminated, metadata and name.
    - imitation: obs, acts and indices; an episode has one observation more than actions.
    - `flat`: one array per quantity, with flags; Stable-Baselines has episode_starts.

    Raises:
        UserError: The archive is damaged, holds Python objects in what is needed, or has another
            layout.
    """
    arrays = _read_archive(file)
    if set(_KEYS) - arrays.keys():
        return _read_others(arrays, file_name)
    try:
        metadata = json.loads(str(arrays["metadata"])) if "metadata" in arrays else {}
    except (ValueError, RecursionError) as error:
        raise UserError("metadata must be JSON; got other text") from error
    if not isinstance(metadata, dict):
        raise UserError(f"metadata must be a JSON object; got {type(metadata).__name__}")
    observations = as_matrix(arrays["observations"], "observations", "[N, D]")
    actions = as_matrix(arrays["actions"], "actions", "[N, A]")
    if len(observations) != len(actions):
        raise UserError(
            f"actions must be [N, A] to match observations {list(observations.shape)}; "
            f"got {list(actions.shape)}"
        )
    ends = as_episode_ends(arrays["episode_ends"], len(observations))
    columns = _outcomes(arrays, ends)
    environment_id = metadata.get("task")
    return Recording(
        str(arrays["name"]) if "name" in arrays else pathlib.PurePath(file_name).stem,
        "npz",
        tuple(
            RecordedEpisode(
                observations[start:end],
                actions[start:end],
                rewards=flat.part(columns, "rewards", start, end),
                successes=flat.part(columns, "successes", start, end),
                terminals=flat.part(columns, "terminals", start, end),
            )
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ),
        tuple(range(len(ends))),
        metadata=metadata,
        environment_id=environment_id if isinstance(environment_id, str) else None,
    )


def _outcomes(arrays: dict[str, np.ndarray], ends: np.ndarray) -> dict[str, np.ndarray]:
    """Rewards, successes and terminals [N], as far as the file has them."""
    found: dict[str, np.ndarray] = {
        field: as_column(arrays[field], field, ends[-1])
        for field in ("rewards", "successes")
        if field in arrays
    }
    if "terminated" in arrays:
        found["terminals"] = np.zeros(ends[-1], np.float32)
        found["terminals"][ends - 1] = as_column(arrays["terminated"], "terminated", len(ends))
    return found


def _read_others(arrays: dict[str, np.ndarray], file_name: str) -> Recording:
    found = flat.named(arrays)
    if not {"observations", "actions"} <= found.keys():
        raise UserError(
            f"the file must hold {', '.join(_KEYS)}; got {list_keys(arrays)}: join episodes with "
            "Demonstrations.from_episodes and write them with save_demonstrations"
        )
    kind = "imitation npz" if "indices" in arrays else "flat npz"
    if "indices" in arrays:
        episodes = _read_imitation(found, arrays["indices"])
    else:
        episodes = flat.episodes(found)
    return Recording(
        pathlib.PurePath(file_name).stem,
        kind,
        tuple(episodes),
        tuple(range(len(episodes))),
        metadata={"format": kind, "source": file_name},
    )


def _read_imitation(arrays: dict[str, np.ndarray], indices: np.ndarray) -> list[RecordedEpisode]:
    """Episode k has the actions from indices[k - 1] to indices[k], and observations one later."""
    actions = as_matrix(arrays["actions"], "acts", "[N, A]")
    observations = as_matrix(arrays["observations"], "obs", "[N + E, D]")
    cuts = [0, *np.asarray(indices).reshape(-1).tolist(), len(actions)]
    count = len(cuts) - 1
    if len(observations) != len(actions) + count or sorted(set(cuts)) != cuts:
        raise UserError(
            f"obs must have one row more than acts in each of the {count} episodes that indices "
            f"cuts; got {len(observations)} and {len(actions)} rows"
        )
    rewards = np.asarray(arrays["rewards"]).reshape(-1) if "rewards" in arrays else None
    return [
        RecordedEpisode(
            observations[start + k : end + k],
            actions[start:end],
            observations[end + k],
            rewards=None if rewards is None else rewards[start:end],
        )
        for k, (start, end) in enumerate(itertools.pairwise(cuts))
    ]


def read_embedded(name: str) -> Recording:
    """Reads demonstrations that ship with the package.

    Raises:
        UserError: There are none of this name.
    """
    folder = importlib.resources.files("nppac_tf.demonstrations").joinpath("data")
    files = {
        pathlib.PurePath(file.name).stem: file
        for file in folder.iterdir()
        if file.name.endswith(".npz")
    }
    if name not in files:
        known = ", ".join(sorted(files))
        raise UserError(f"embedded demonstrations must be one of: {known}; got {name!r}")
    return read(io.BytesIO(files[name].read_bytes()), files[name].name)


def write(demonstrations: Demonstrations, file: BinaryIO) -> None:
    """Writes what `read` reads."""
    outcomes = {
        field: getattr(demonstrations, field)
        for field in _OUTCOMES
        if getattr(demonstrations, field) is not None
    }
    np.savez_compressed(
        file,
        **outcomes,
        observations=demonstrations.observations,
        actions=demonstrations.actions,
        episode_ends=demonstrations.episode_ends,
        metadata=np.array(json.dumps(demonstrations.metadata, sort_keys=True)),
        name=np.array(demonstrations.name),
    )


def _read_archive(file: BinaryIO) -> dict[str, np.ndarray]:
    requirement = "the file must be a whole npz archive of plain arrays"
    head = file.read(HEAD_SIZE)
    file.seek(0)
    if not head.startswith(b"PK"):
        raise UserError(f"{requirement}; got {describe(head)}")
    try:
        return read_arrays(file, _PICKLED)
    except UserError:
        raise
    except Exception as error:  # zipfile and NumPy raise many kinds.
        holds_objects = str(error).startswith("Object arrays cannot be loaded")
        got = "an array of Python objects" if holds_objects else "a damaged or truncated file"
        raise UserError(f"{requirement}; got {got}") from error
