"""RLDS data sets: folders of TensorFlow Datasets, read with the optional tensorflow-datasets.

TensorFlow Datasets imports whatever module features.json names; `_check_features` admits its own
only.

Glossary: T steps of an episode.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nppac_tf.demonstrations.recording import RecordedEpisode, Recording, dimension_names
from nppac_tf.errors import UserError

FILES = ("features.json", "dataset_info.json")

_SPLIT = "train"
_STATE = "state"
_FLAGS = ("is_last", "is_terminal")
_TEXTS = ("language_instruction", "natural_language_instruction")
_OWN_CLASSES = "tensorflow_datasets.core.features."
_MAX_STEPS = 2**20
_PACKAGES = "tensorflow-datasets 'tensorflow-metadata<1.18'"


def read_folder(
    folder: pathlib.Path, observation_keys: Sequence[str] = (), split: str = ""
) -> Recording:
    """Reads one split of a data set; images are not decoded.

    In the last step of an episode (is_last) only the observation counts, as RLDS has it. Where no
    step is marked so, all count.

    Args:
        folder: NAME/VERSION or NAME/CONFIG/VERSION, with features.json and dataset_info.json.
        observation_keys: Parts of the observation to join, in this order. By default "state", or
            all vectors if there is no such part.
        split: Its name; by default "train", or the first if there is none of that name.

    Raises:
        UserError: tensorflow-datasets is not installed, or the folder is damaged or holds no steps
            of observations and actions.
    """
    _check_features(folder / FILES[0])
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            "reading RLDS needs the package tensorflow-datasets; install it with: "
            f"pip install {_PACKAGES} 'protobuf<{_next_protobuf()}'"
        ) from error
    try:
        builder = tfds.builder_from_directory(folder)
        features = builder.info.features["steps"].feature
        splits = list(builder.info.splits)
    except Exception as error:  # TensorFlow Datasets raises many kinds.
        raise UserError(
            f"an RLDS data set must be as TensorFlow Datasets writes it, with steps; got "
            f"{_one_line(error)}"
        ) from error
    missing = [name for name in ("observation", "action") if name not in features]
    if missing or not splits:
        raise UserError(f"the steps of an RLDS data set must hold {', '.join(missing) or 'data'}")
    parts = _observation_parts(dict(_vectors(features["observation"], "")), observation_keys)
    actions = dict(_vectors(features["action"], ""))
    if not actions:
        raise UserError("the action of an RLDS data set must be numbers; got none")
    split = split or (_SPLIT if _SPLIT in splits else splits[0])
    if split not in splits:
        raise UserError(f"the split must be one of {', '.join(splits)}; got {split!r}")
    try:
        data = builder.as_dataset(
            split=split,
            decoders={"steps": _images(features, tfds.decode.SkipDecoding())},
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        episodes = [
            _episode(tfds.as_numpy(next(iter(record["steps"].batch(_MAX_STEPS)))), parts, actions)
            for record in data
        ]
    except UserError:
        raise
    except Exception as error:  # TensorFlow raises many kinds.
        raise UserError(
            f"the files of split {split} must be there and whole; got {_one_line(error)}"
        ) from error
    stated = {
        "version": str(builder.info.version),
        "split": split,
        "tasks": sorted({episode.task for episode in episodes} - {""}),
        **_names("observation", parts),
        **_names("action", actions),
    }
    return Recording(
        builder.info.name,
        "RLDS",
        tuple(episodes),
        tuple(range(len(episodes))),
        metadata={"format": "RLDS", "source": builder.info.full_name}
        | {key: value for key, value in stated.items() if value},
    )


def _check_features(path: pathlib.Path) -> None:
    """Refuses a description that names classes of other packages, which would be imported."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        named = list(_class_names(description))
    except OSError as error:
        raise UserError(f"{path.name} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.name} must be JSON; got a damaged file") from error
    others = [name for name in named if not str(name).startswith(_OWN_CLASSES)]
    if others or not named:
        got = f"{others[0]!r:.60}" if others else "none"
        raise UserError(f"{path.name} must name features of TensorFlow Datasets only; got {got}")


def _class_names(value: Any) -> Iterator[Any]:
    items = value.items() if isinstance(value, dict) else ()
    for key, item in items if not isinstance(value, list) else enumerate(value):
        if key in ("pythonClassName", "python_class_name", "type"):
            yield item
        else:
            yield from _class_names(item)


def _vectors(feature: Any, name: str) -> Iterator[tuple[str, int]]:
    """The names and sizes of a feature's parts that are numbers or vectors, sorted by name."""
    if hasattr(feature, "items"):
        for key, part in sorted(feature.items()):
            yield from _vectors(part, f"{name}/{key}" if name else key)
    elif type(feature).__name__ in ("Tensor", "Scalar") and len(feature.shape) <= 1:
        size = feature.shape[0] if feature.shape else 1
        if np.dtype(feature.np_dtype).kind in "biuf" and size:
            yield name, int(size)


def _observation_parts(found: Mapping[str, int], keys: Sequence[str]) -> dict[str, int]:
    if not found:
        raise UserError("the observation of an RLDS data set must hold vectors; got none")
    if not keys or len(found) == 1:
        return {_STATE: found[_STATE]} if _STATE in found else dict(found)
    missing = [key for key in keys if key not in found]
    if missing:
        raise UserError(f"observation_keys must be among {', '.join(found)}; got {missing[0]}")
    return {key: found[key] for key in keys}


def _images(feature: Any, value: Any) -> dict[str, Any]:
    """A value for each image and video of a feature, in nested dicts."""
    found = {}
    for key, part in feature.items():
        if hasattr(part, "items"):
            found[key] = _images(part, value)
        elif type(part).__name__ in ("Image", "Video"):
            found[key] = value
    return {key: item for key, item in found.items() if item}


def _episode(
    steps: Mapping[str, Any], parts: Mapping[str, int], actions: Mapping[str, int]
) -> RecordedEpisode:
    states, taken = _joined(steps["observation"], parts), _joined(steps["action"], actions)
    is_last, is_terminal = (steps.get(name, np.zeros(len(taken), np.bool_)) for name in _FLAGS)
    count = len(taken) - 1 if is_last[-1] else len(taken)
    rewards = steps.get("reward")
    terminals = np.asarray(is_terminal[:count], np.bool_)
    if count and count < len(taken):
        terminals = np.append(terminals[:-1], terminals[-1] or is_terminal[-1])
    text = next((steps[name][0] for name in _TEXTS if name in steps), b"")
    return RecordedEpisode(
        states[:count],
        taken[:count],
        states[count] if count < len(taken) else None,
        rewards=None if rewards is None else rewards[:count].reshape(-1),
        terminals=terminals,
        task=text.decode("utf-8", "replace") if isinstance(text, bytes) else "",
    )


def _joined(value: Any, parts: Mapping[str, int]) -> np.ndarray:
    arrays = []
    for name in parts:
        part = value
        for key in filter(None, name.split("/")):
            part = part[key]
        arrays.append(part.reshape(len(part), -1))
    return np.concatenate(arrays, axis=1)


def _names(field: str, parts: Mapping[str, int]) -> dict[str, list[str]]:
    if len(parts) == 1:
        return {}
    named = {f"{field}_names": dimension_names(parts)}
    return named | ({"observation_keys": list(parts)} if field == "observation" else {})


def _next_protobuf() -> int:
    """The first major version of protobuf that TensorFlow may not work with."""
    return int(importlib.metadata.version("protobuf").split(".")[0]) + 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
