"""HDF5 files of robomimic (low-dimensional) and D4RL."""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from nppac_tf.demonstrations.formats import flat, hdf5_files
from nppac_tf.demonstrations.formats.messages import HEAD_SIZE, describe, list_keys
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording, dimension_names
from nppac_tf.errors import UserError

_DEMO = re.compile(r".*?(\d+)")
_SUCCESS = "success"
_MAX_DIMENSIONS = 2  # [T, K]; more are images.


def read(
    file: BinaryIO, file_name: str, observation_keys: Sequence[str] = (), filter_key: str = ""
) -> Recording:
    """Reads a file of one of two layouts.

    - robomimic, and Isaac Lab's recorder: `data/demo_0/{actions, obs/KEY}`, and so on. The parts of
      `obs` are joined. Images are left out, and so is `obs/actions`, the action before, which a
      policy would learn to copy.
    - D4RL: `observations`, `actions`, `terminals` and `timeouts` side by side.

    Args:
        file: Open for reading.
        file_name: Its name.
        observation_keys: For robomimic, the parts to use, in this order; by default all but
            these, in alphabetical order.
        filter_key: For robomimic, which demonstrations to read: those that `mask/KEY` lists, or
            "success" for those with the attribute success, where `mask` has no such key; by default
            all.

    Raises:
        UserError: The file is damaged, holds another layout, or links to another file.
    """
    import h5py

    head = file.read(HEAD_SIZE)
    file.seek(0)
    if not head.startswith(b"\x89HDF"):
        raise UserError(f"the file must be a whole HDF5 file; got {describe(head)}")
    size = os.fstat(file.fileno()).st_size
    try:
        with h5py.File(file, "r") as content:
            hdf5_files.check(content, size, file_name)
            name = pathlib.PurePath(file_name).stem
            if isinstance(content.get("data"), h5py.Group):
                chosen = _chosen(content, filter_key)
                return _read_robomimic(content["data"], chosen, file_name, observation_keys)
            if filter_key:
                raise UserError(f"a filter key must be of a robomimic file; got {filter_key!r}")
            known = {name for names in flat.NAMES.values() for name in names}
            arrays = {
                key: item[()] for key, item in content.items() if key in known and _is_numbers(item)
            }
            names = list_keys(content)
    except UserError:
        raise
    except Exception as error:  # HDF5 raises many kinds.
        raise UserError(
            "the file must be a whole HDF5 file; got a damaged or truncated one"
        ) from error
    found = flat.named(arrays)
    if not {"observations", "actions"} <= found.keys():
        raise UserError(
            "an HDF5 file must hold data/demo_0 (robomimic) or observations and actions (D4RL); "
            f"got {names}"
        )
    parts = flat.episodes(found)
    metadata = {"format": "D4RL HDF5", "source": file_name}
    return Recording(name, "D4RL HDF5", tuple(parts), tuple(range(len(parts))), metadata=metadata)


def _is_numbers(item: Any) -> bool:
    import h5py

    return isinstance(item, h5py.Dataset) and item.dtype.kind in "biuf" and item.ndim >= 1


def _chosen(content: Any, filter_key: str) -> list[str]:
    """Names of the demonstrations that a filter key selects, by number."""
    data, masks = content["data"], content.get("mask", {})
    demos = sorted((key for key in data if _DEMO.fullmatch(key)), key=_number)
    if not demos:
        raise UserError(f"data must hold demo_0 and so on; got {list_keys(data)}")
    if not filter_key:
        return demos
    if filter_key in masks:
        listed = {_text(name) for name in np.ravel(masks[filter_key][()])}
        chosen = [demo for demo in demos if demo in listed]
    elif filter_key == _SUCCESS:
        chosen = [demo for demo in demos if _succeeded(data[demo])]
    else:
        raise UserError(
            f"the filter key must be one of {', '.join([*masks, _SUCCESS])}; got {filter_key!r}"
        )
    if not chosen:
        raise UserError(f"the filter key {filter_key!r} must select a demonstration; got none")
    return chosen


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _succeeded(demo: Any) -> bool | None:
    """What the attribute success says; None if it does not."""
    value = np.asarray(demo.attrs.get(_SUCCESS))
    return bool(value) if value.ndim == 0 and value.dtype.kind in "biuf" else None


def _read_robomimic(
    data: Any, demos: Sequence[str], file_name: str, observation_keys: Sequence[str]
) -> Recording:
    episodes, indices, problems = [], [], []
    sizes: dict[str, int] = {}
    keys: tuple[str, ...] = tuple(observation_keys)
    for demo in demos:
        try:
            keys = keys or _low_dimensional(data[demo])
            episodes.append(_read_demo(data[demo], demo, keys))
            indices.append(_number(demo))
            sizes = {key: math.prod(data[demo]["obs"][key].shape[1:]) for key in keys}
        except UserError as error:
            problems.append(str(error))
    if not episodes:
        raise UserError(problems[0])
    stated = _environment(data.attrs.get("env_args"))
    metadata = {
        "format": "robomimic HDF5",
        "source": file_name,
        "observation_keys": list(keys),
        "observation_names": dimension_names(sizes),
    }
    return Recording(
        pathlib.PurePath(file_name).stem,
        "robomimic HDF5",
        tuple(episodes),
        tuple(indices),
        tuple(problems),
        metadata | stated,
        stated.get("environment"),
    )


def _low_dimensional(demo: Any) -> tuple[str, ...]:
    if "obs" not in demo:
        raise UserError(
            "a demonstration must hold observations in obs; got "
            f"{list_keys(demo)}: extract them from a raw robosuite file with robomimic's "
            "scripts/dataset_states_to_obs.py"
        )
    return tuple(
        key
        for key, item in demo["obs"].items()
        if _is_numbers(item) and item.ndim <= _MAX_DIMENSIONS and key != "actions"
    )


def _read_demo(demo: Any, name: str, keys: Sequence[str]) -> RecordedEpisode:
    missing = [key for key in keys if key not in demo["obs"]]
    if missing:
        raise UserError(
            f"obs of {name} must hold {', '.join(missing)}; got {list_keys(demo['obs'])}"
        )
    if "actions" not in demo:
        raise UserError(f"{name} must hold actions; got {list_keys(demo)}")
    actions = demo["actions"][()]
    if actions.ndim != 2:
        raise UserError(f"actions of {name} must be [T, A]; got {list(actions.shape)}")

    def joined(group: str) -> np.ndarray | None:
        if group not in demo or any(key not in demo[group] for key in keys):
            return None
        parts = [demo[group][key][()] for key in keys]
        if any(len(part) != len(actions) for part in parts):
            raise UserError(f"{group} of {name} must have {len(actions)} steps, as actions have")
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    observations = joined("obs")
    assert observations is not None
    return RecordedEpisode(
        observations,
        actions,
        rewards=demo["rewards"][()] if "rewards" in demo else None,
        terminals=demo["dones"][()] if "dones" in demo else None,
        next_observations=joined("next_obs"),
        succeeded=_succeeded(demo),
    )


def _number(name: str) -> int:
    match = _DEMO.fullmatch(name)
    return int(match.group(1)) if match else -1


def _environment(text: Any) -> dict[str, Any]:
    """What env_args, a JSON object, says of the environment; empty if it cannot be read."""
    try:
        arguments = json.loads(text)
        settings = arguments.get("env_kwargs") or {}
        stated = {
            "environment": arguments["env_name"],
            "environment_version": arguments.get("env_version"),
            "fps": settings.get("control_freq"),
        }
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return {}
    return {
        key: value
        for key, value in stated.items()
        if value and isinstance(value, int | float if key == "fps" else str)
    }
