"""LeRobot data sets, versions 2.0 to 3.0: a folder of parquet files that meta/info.json describes.

The versions differ in the names of the files and in whether a file holds one episode or many. The
files are found by the pattern in meta/info.json, and rows are sorted by episode and frame.

Glossary: N frames, T frames of an episode, K size of a feature.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nppac_tf.demonstrations.formats.messages import HEAD_SIZE, describe, list_keys
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording, dimension_names
from nppac_tf.errors import UserError

PREFIX = "lerobot:"
INFO = "meta/info.json"
TASKS = "meta/tasks.parquet"

STATE, ACTION = "observation.state", "action"

_STATES = (STATE, "observation.environment_state")
_INDICES = ("episode_index", "frame_index")
_OPTIONAL = ("timestamp", "task_index", "next.reward", "next.success")
_MAX_VALUES = 2**29  # 4 GiB of float64.
_MAX_TASKS = 2**16
_BATCH_ROWS = 2**16


def read_folder(folder: pathlib.Path, observation_keys: Sequence[str] = ()) -> Recording:
    """Reads the data set in a folder; videos and images are left out.

    If some of the announced episodes are missing, the others are read, with a notice.

    Args:
        folder: The data set's.
        observation_keys: Features to join to an observation, in this order, with or without
            "observation." before them. By default observation.state and
            observation.environment_state, or all vectors if there is neither. Where the data set
            has one vector only, the keys do not apply.

    Raises:
        UserError: The folder holds no LeRobot data set, none of its data files, or only damaged
            ones.
    """
    info = _read_info(folder)
    keys: tuple[str, ...] = ()
    tables: list[dict[str, np.ndarray]] = []
    problems: list[str] = []
    for path in _data_files(folder, info):
        try:
            keys, table = _read_file(path, keys, observation_keys)
            _require_sizes(path.name, table, tables[0] if tables else table, (ACTION, *keys))
        except UserError as error:
            problems.append(str(error))
            continue
        tables.append(table)
        if sum(column.size for each in tables for column in each.values()) > _MAX_VALUES:
            raise UserError(f"a data set must hold at most {_MAX_VALUES:,} numbers; got more")
    if not tables:
        raise UserError(problems[0])
    columns = {
        name: np.concatenate([table[name] for table in tables])
        for name in tables[0]
        if all(name in table for table in tables)
    }
    episodes, indices, repeated = _cut(columns, keys, _tasks(folder))
    found, announced = len(indices) + len(repeated), info.get("total_episodes")
    notices: tuple[str, ...] = ()
    if isinstance(announced, int) and announced != found:
        notices = (
            f"{found:,} episodes are there where {INFO} announces {announced:,}: the others are "
            "missing and not read",
        )
    return Recording(
        folder.resolve().name,
        "LeRobot",
        tuple(episodes),
        tuple(indices),
        (*problems, *repeated),
        _metadata(folder, info, columns, keys, episodes),
        notices=notices,
    )


def _read_info(folder: pathlib.Path) -> dict[str, Any]:
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{INFO} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{INFO} must be JSON; got a damaged file") from error
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise UserError(f"{INFO} must describe the features of a LeRobot data set; got other JSON")
    return info


def _data_files(folder: pathlib.Path, info: Mapping[str, Any]) -> list[pathlib.Path]:
    """The parquet files that `data_path` names, or all in data/ if it names none."""
    pattern = re.sub(r"\{[^{}]*\}", "*", str(info.get("data_path")))
    parts = pathlib.PurePosixPath(pattern).parts
    is_inside = parts[:1] == ("data",) and ".." not in parts and "\0" not in pattern
    files = sorted(folder.glob(pattern)) if is_inside else []
    files = files or sorted(folder.glob("data/**/*.parquet"))
    if files:
        return files
    if next(folder.glob("data/**/*.jsonl"), None) is not None:
        raise UserError(
            "the data files of a LeRobot data set (versions 2.0 to 3.0) must be parquet files; got "
            "JSON lines (.jsonl): convert them with Demonstrations.from_episodes"
        )
    raise UserError(
        "a LeRobot data set must hold at least one of its data files in data/; got none: download "
        "them"
    )


def _read_file(
    path: pathlib.Path, keys: tuple[str, ...], observation_keys: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Reads one file.

    Args:
        path: The file.
        keys: Features that make up an observation; empty if this is the first file.
        observation_keys: See `read_folder`.

    Returns:
        These features, and the columns of the file, each [N, K].
    """
    import pyarrow
    from pyarrow import parquet

    name = path.name
    try:
        with open(path, "rb") as raw:
            head = raw.read(HEAD_SIZE)
        if not head.startswith(b"PAR1"):
            raise UserError(f"{name} must be a whole parquet file; got {describe(head)}")
        with parquet.ParquetFile(path) as file:
            numeric = [field.name for field in file.schema_arrow if _is_numeric(field.type)]
            keys = keys or _observation_features(numeric, observation_keys)
            wanted = [*keys, ACTION, *_INDICES]
            missing = [key for key in wanted if key not in numeric]
            if missing:
                raise UserError(
                    f"{name} must hold numbers in {', '.join(missing)}; got {list_keys(numeric)}"
                )
            if _num_values(file.metadata) > _MAX_VALUES:
                raise UserError(f"{name} must hold at most {_MAX_VALUES:,} numbers; got more")
            wanted += [key for key in _OPTIONAL if key in numeric]
            batches = list(file.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False))
    except UserError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{name} must be a whole parquet file; got a damaged one") from error
    if not batches:
        raise UserError(f"{name} must hold at least one frame; got none")
    return keys, {
        key: np.concatenate([_matrix(batch.column(key), f"{key} of {name}") for batch in batches])
        for key in wanted
    }


def _num_values(metadata: Any) -> int:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    return sum(
        group.column(index).num_values for group in groups for index in range(group.num_columns)
    )


def _is_numeric(kind: Any) -> bool:
    """Whether a column of this type holds one number a row, or a list of them."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    return types.is_floating(kind) or types.is_integer(kind) or types.is_boolean(kind)


def _observation_features(numeric: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """The features that make up an observation, of the columns that hold numbers."""
    found = [name for name in numeric if name.startswith("observation.")]
    if not found:
        raise UserError(
            f"a LeRobot data set must hold vectors such as {STATE}; got "
            f"{list_keys(numeric)}: images are not read"
        )
    if not keys or len(found) == 1:
        return tuple(name for name in _STATES if name in found) or tuple(found)
    chosen = [key if key in found else f"observation.{key}" for key in keys]
    missing = [key for key in chosen if key not in found]
    if missing:
        raise UserError(
            f"observation_keys must be among {', '.join(found)}; got {missing[0]}".replace(
                "observation.", ""
            )
        )
    return tuple(chosen)


def _matrix(column: Any, label: str) -> np.ndarray:
    """Converts a column of numbers, or of lists of one length, to an array [N, K]."""
    if column.null_count:
        raise UserError(
            f"{label} must have a value in every frame; got {column.null_count} without"
        )
    values = column.flatten() if hasattr(column, "flatten") else column
    matrix = values.to_numpy(zero_copy_only=False)
    if values is not column and len(set(column.value_lengths().to_pylist())) > 1:
        raise UserError(f"{label} must be lists of one length; got several lengths")
    return matrix.reshape(len(column), -1)


def _require_sizes(
    name: str,
    table: Mapping[str, np.ndarray],
    first: Mapping[str, np.ndarray],
    features: Sequence[str],
) -> None:
    for feature in features:
        size, wanted = table[feature].shape[1], first[feature].shape[1]
        if size != wanted:
            raise UserError(f"{feature} must be {wanted} wide in all files; got {size} in {name}")


def _cut(
    columns: Mapping[str, np.ndarray], keys: Sequence[str], texts: Mapping[int, str]
) -> tuple[list[RecordedEpisode], list[int], list[str]]:
    """Cuts columns of N frames into episodes, sorted by episode and frame.

    Returns:
        The episodes, their numbers in the data set, and problems of other episodes.
    """
    numbers, frames = (columns[name][:, 0] for name in _INDICES)
    order = np.lexsort((frames, numbers))
    if (order == np.arange(len(order))).all():
        order = slice(None)
    numbers, frames = numbers[order], frames[order]
    observations = np.concatenate([columns[key][order] for key in keys], axis=1)
    actions = columns[ACTION][order]
    others = {name: columns[name][order, 0] for name in _OPTIONAL if name in columns}
    tasks = others.get("task_index", np.zeros(len(numbers), np.int64))
    cuts = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]
    episodes, indices, problems = [], [], []
    for start, end in itertools.pairwise(cuts):
        part = slice(start, end)
        repeated = np.flatnonzero(np.diff(frames[part]) == 0)
        if repeated.size:
            problems.append(
                f"episode {numbers[start]} must have each frame once; got frame "
                f"{frames[part][repeated[0]]} more than once"
            )
            continue
        indices.append(int(numbers[start]))
        episodes.append(
            RecordedEpisode(
                observations[part],
                actions[part],
                rewards=others["next.reward"][part] if "next.reward" in others else None,
                successes=others["next.success"][part] if "next.success" in others else None,
                timestamps=others["timestamp"][part] if "timestamp" in others else None,
                task=texts.get(int(tasks[start]), ""),
            )
        )
    return episodes, indices, problems


def _metadata(
    folder: pathlib.Path,
    info: Mapping[str, Any],
    columns: Mapping[str, np.ndarray],
    keys: Sequence[str],
    episodes: Sequence[RecordedEpisode],
) -> dict[str, Any]:
    """What the data set says of itself, as far as it says it."""
    features = info["features"]
    widths = {key: columns[key].shape[1] for key in (*keys, ACTION)}
    names = {key: _names(features.get(key), width) for key, width in widths.items()}
    known = any(names[key] for key in keys)
    stated = {
        "version": info.get("codebase_version"),
        "fps": info.get("fps"),
        "robot": info.get("robot_type"),
        "tasks": sorted({episode.task for episode in episodes} - {""}),
        "observation_keys": list(keys) if len(keys) > 1 else None,
        "observation_names": [
            name
            for key in keys
            for name in names[key]
            or dimension_names({key.removeprefix("observation."): widths[key]})
        ]
        if known
        else None,
        "action_names": names[ACTION],
    }
    return {"format": "LeRobot", "source": folder.resolve().name} | {
        key: value for key, value in stated.items() if value
    }


def _names(feature: Any, width: int) -> list[str] | None:
    """The names of a feature's dimensions, from lists and dicts nested in any way."""

    def leaves(value: Any) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict):
            for item in value.values() if isinstance(value, dict) else value:
                yield from leaves(item)

    names = list(leaves(feature.get("names"))) if isinstance(feature, dict) else []
    return names if len(names) == width else None


def _tasks(folder: pathlib.Path) -> dict[int, str]:
    """The texts of the tasks by their numbers; empty if there are none."""
    with contextlib.suppress(Exception):  # Nothing needs them.
        if (folder / TASKS).is_file():
            from pyarrow import parquet

            with parquet.ParquetFile(folder / TASKS) as file:
                table = file.read().to_pydict() if file.metadata.num_rows < _MAX_TASKS else {}
            numbers = table.pop("task_index")
            return dict(zip(numbers, map(str, *table.values()), strict=True))
        lines = (folder / "meta" / "tasks.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        return {row["task_index"]: str(row["task"]) for row in rows}
    return {}
