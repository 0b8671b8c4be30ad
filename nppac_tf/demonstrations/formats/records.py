"""Pickled lists of episodes: AWAC's npy files and DAPG's pickles.

An episode is a dict with `observations` and `actions`, and often more. Every array of it is either
an array or a list with one item per step.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from nppac_tf.demonstrations.formats import pickles
from nppac_tf.demonstrations.formats.messages import (
    HEAD_SIZE,
    NPY_MAGIC,
    UNKNOWN,
    describe,
    list_keys,
)
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.errors import UserError

_MAX_FILE_BYTES = 2**30
# A pickle can name one array many times, at two bytes each.
_MAX_EXPANSION = 32


def read_awac(file: BinaryIO, file_name: str) -> Recording:
    """Reads an object array [E] of episodes, saved by `np.save`.

    Raises:
        UserError: See `read_dapg`.
    """
    head = file.read(HEAD_SIZE)
    file.seek(0)
    if not head.startswith(NPY_MAGIC):
        raise UserError(f"the file must be a whole npy file; got {describe(head)}")
    try:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
    except Exception as error:  # NumPy raises many kinds.
        raise UserError(
            "the file must be a whole npy file; got a damaged or truncated header"
        ) from error
    if dtype.kind != "O":
        raise UserError(
            "an npy file of demonstrations must hold an object array of episodes (AWAC); "
            f"got {dtype} {list(shape)}"
        )
    return _read(file, file_name, "AWAC npy")


def read_dapg(file: BinaryIO, file_name: str) -> Recording:
    """Reads a pickled list of episodes.

    Raises:
        UserError: The file is damaged, holds something else, names Python objects other than arrays
            and plain containers, or takes too much memory.
    """
    return _read(file, file_name, "DAPG pickle")


def _read(file: BinaryIO, file_name: str, format_name: str) -> Recording:
    size = os.fstat(file.fileno()).st_size
    if size > _MAX_FILE_BYTES:
        raise UserError(f"a pickle must have at most {_MAX_FILE_BYTES:,} bytes; got {size:,}")
    content = file.read()
    try:
        records = pickles.as_list(pickles.unpickle(content))
    except UserError:
        raise
    except Exception as error:  # A damaged pickle raises any kind.
        got = describe(content[:HEAD_SIZE])
        if got == UNKNOWN or "pickle" in got or format_name == "AWAC npy":
            got = "a damaged or truncated one"
        raise UserError(f"the pickle must be whole and undamaged; got {got}") from error
    if records is None:
        raise UserError(f"the {format_name} must hold a list of episodes")
    episodes: list[RecordedEpisode] = []
    indices: list[int] = []
    problems: list[str] = []
    left = _MAX_EXPANSION * len(content)
    for index, record in enumerate(records):
        try:
            episode = _read_episode(record, index)
        except UserError as error:
            problems.append(str(error))
            continue
        left -= episode.nbytes
        if left < 0:
            raise UserError(
                f"the file must hold at most {_MAX_EXPANSION} bytes of arrays per byte; got more: "
                "arrays are repeated in it"
            )
        episodes.append(episode)
        indices.append(index)
    return Recording(
        pathlib.PurePath(file_name).stem,
        format_name,
        tuple(episodes),
        tuple(indices),
        tuple(problems),
        {"format": format_name, "source": file_name},
        is_pickle=True,
    )


def _read_episode(record: Any, index: int) -> RecordedEpisode:
    if not isinstance(record, dict):
        raise UserError(f"episode {index} must be a dict; got {type(record).__name__}")
    if not {"observations", "actions"} <= record.keys():
        raise UserError(f"episode {index} must hold observations, actions; got {list_keys(record)}")
    observations = _states(record["observations"], f"observations of episode {index}")
    actions = pickles.as_numbers(record["actions"], f"actions of episode {index}")
    for label, values, wanted in (
        ("observations", observations, "[T, D]"),
        ("actions", actions, f"[T, A] to match observations {list(observations.shape)}"),
    ):
        if values.ndim != 2:
            got = list(values.shape)
            raise UserError(f"{label} of episode {index} must be {wanted}; got {got}")
    next_observations = _optional(_states, record.get("next_observations"))
    if next_observations is not None and next_observations.ndim != 2:
        next_observations = None
    return RecordedEpisode(
        observations,
        actions,
        rewards=_per_step(record.get("rewards")),
        terminals=_per_step(record.get("terminals")),
        successes=_per_step(_goal_flags(record.get("env_infos"))),
        next_observations=next_observations,
        initial_state=_initial_state(record.get("init_state_dict")),
    )


def _states(value: Any, label: str) -> np.ndarray:
    """Reads observations: arrays, or dicts that hold one each as `state_observation`."""
    items = pickles.as_list(value)
    if items and isinstance(items[0], dict):
        return pickles.as_numbers([_state(item, label) for item in items], label)
    return pickles.as_numbers(value, label)


def _state(observation: Any, label: str) -> Any:
    if not isinstance(observation, dict) or "state_observation" not in observation:
        is_dict = isinstance(observation, dict)
        got = list_keys(observation) if is_dict else type(observation).__name__
        raise UserError(f"{label} must each hold state_observation; got {got}")
    return observation["state_observation"]


def _optional(read: Callable[[Any, str], np.ndarray], value: Any) -> np.ndarray | None:
    """Reads what training does not need; None if it is absent or unreadable."""
    try:
        return None if value is None else read(value, "")
    except UserError:
        return None


def _per_step(value: Any) -> np.ndarray | None:
    """Reads one number per step; each may be an array of one number."""
    values = _optional(pickles.as_numbers, value)
    if values is None or values.ndim < 1 or values.size != len(values):
        return None
    return values.reshape(-1)


def _goal_flags(infos: Any) -> list[Any] | None:
    items = pickles.as_list(infos)
    if not items:
        return None
    flags = [item.get("goal_achieved") if isinstance(item, dict) else None for item in items]
    return None if None in flags else flags


def _initial_state(value: Any) -> dict[str, np.ndarray]:
    if not isinstance(value, dict):
        return {}
    state = {
        key: _optional(pickles.as_numbers, item)
        for key, item in value.items()
        if isinstance(key, str)
    }
    return {key: item for key, item in state.items() if item is not None}
