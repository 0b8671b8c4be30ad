"""Writing of LeRobot data sets of version 3.0, without images.

    meta/info.json                              features, frames per second, counts
    meta/stats.json                             statistics of each feature over all frames
    meta/tasks.parquet                          the text of each task
    meta/episodes/chunk-000/file-000.parquet    where each episode lies, and its statistics
    data/chunk-000/file-000.parquet             the frames, one row group an episode

Glossary: N frames, E episodes, T frames of an episode, K size of a feature.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import secrets
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from nppac_tf.demonstrations.formats import lerobot
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.errors import UserError

_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_FILES_PER_CHUNK = 1000
_FILE_MEGABYTES = 100
_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)


def check_new(folder: pathlib.Path) -> None:
    """Raises UserError unless a data set can be written to a folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"a new LeRobot data set must be a folder that is new or empty; got {folder}"
        )


def write(recording: Recording, folder: pathlib.Path, fps: float) -> None:
    """Writes a data set. If that fails, nothing remains of it.

    The format has no final observations and no terminal flags. Rewards and success flags are
    written if every episode has them.

    Args:
        recording: At least one episode, each with observations [T, D] and actions [T, A].
        folder: New or empty folder.
        fps: Steps per second. Episodes without timestamps get frame / fps.

    Raises:
        UserError: The folder holds something, or cannot be written.
    """
    check_new(folder)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        _write(recording, part, fps)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"{folder} cannot be written ({error.strerror or error})") from error
        raise


def _write(recording: Recording, folder: pathlib.Path, fps: float) -> None:
    import pyarrow
    from pyarrow import parquet

    tasks = list(dict.fromkeys(episode.task for episode in recording.episodes))
    tables = _tables(recording, fps, tasks)
    sizes = np.array([sum(values.nbytes for values in table.values()) for table in tables])
    # Files of about 100 MB, numbered without gaps.
    files = np.unique(np.cumsum(sizes) // (_FILE_MEGABYTES * 10**6), return_inverse=True)[1]
    places = [divmod(int(file), _FILES_PER_CHUNK) for file in files]
    for place, group in itertools.groupby(range(len(tables)), lambda number: places[number]):
        rows = [
            pyarrow.table({name: _column(values) for name, values in tables[number].items()})
            for number in group
        ]
        with parquet.ParquetWriter(_path(folder / "data", *place), rows[0].schema) as writer:
            for each in rows:
                writer.write_table(each)
    episodes = [
        _episode_row(table, place, tasks) for table, place in zip(tables, places, strict=True)
    ]
    parquet.write_table(
        pyarrow.Table.from_pylist(episodes), _path(folder / "meta" / "episodes", 0, 0)
    )
    texts = pyarrow.table({"task_index": np.arange(len(tasks)), "task": tasks})
    parquet.write_table(_indexed_by(texts, "task"), folder / lerobot.TASKS)
    joined = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    statistics = {name: _statistics(values) for name, values in joined.items()}
    info = _info(recording, fps, joined, len(tasks))
    for name, content in ((lerobot.INFO, info), ("meta/stats.json", statistics)):
        (folder / name).write_text(json.dumps(content, indent=4), encoding="utf-8")


def _tables(recording: Recording, fps: float, tasks: list[str]) -> list[dict[str, np.ndarray]]:
    """The columns of each episode, [T] or [T, K] each."""
    optional = {"next.reward": "rewards", "next.success": "successes"}
    complete = {
        name: field
        for name, field in optional.items()
        if all(_is_complete(episode, field) for episode in recording.episodes)
    }
    tables, start = [], 0
    for number, episode in enumerate(recording.episodes):
        length = episode.length
        frames = np.arange(length)
        times = frames / fps if episode.timestamps is None else episode.timestamps
        table = {
            lerobot.STATE: np.asarray(episode.observations[:length], np.float32),
            lerobot.ACTION: np.asarray(episode.actions, np.float32),
            "timestamp": np.asarray(times, np.float32),
            "frame_index": frames,
            "episode_index": np.full(length, number),
            "index": start + frames,
            "task_index": np.full(length, tasks.index(episode.task)),
        }
        for name, field in complete.items():
            kind = np.float32 if field == "rewards" else np.bool_
            table[name] = np.asarray(getattr(episode, field)).astype(kind)
        tables.append(table)
        start += length
    return tables


def _is_complete(episode: RecordedEpisode, field: str) -> bool:
    values = getattr(episode, field)
    return values is not None and len(values) == episode.length


def _column(values: np.ndarray) -> Any:
    """A feature of one number is a plain column, any other a column of lists."""
    import pyarrow

    if values.ndim == 1 or values.shape[1] == 1:
        return pyarrow.array(values.reshape(-1))
    flat = pyarrow.array(values.reshape(-1))
    return pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _path(folder: pathlib.Path, chunk: int, file: int) -> pathlib.Path:
    path = folder / _FILE.format(chunk_index=chunk, file_index=file)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _episode_row(
    table: Mapping[str, np.ndarray], place: tuple[int, int], tasks: list[str]
) -> dict[str, Any]:
    start, end = int(table["index"][0]), int(table["index"][-1]) + 1
    row = {
        "episode_index": int(table["episode_index"][0]),
        "tasks": [tasks[int(table["task_index"][0])]],
        "length": end - start,
        "data/chunk_index": place[0],
        "data/file_index": place[1],
        "dataset_from_index": start,
        "dataset_to_index": end,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }
    for name, values in table.items():
        for key, value in _statistics(values).items():
            row[f"stats/{name}/{key}"] = value
    return row


def _statistics(values: np.ndarray) -> dict[str, list[float]]:
    """Statistics of each dimension of a feature [N] or [N, K], in float64."""
    values = values.reshape(len(values), -1).astype(np.float64)
    found = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
    }
    quantiles = np.quantile(values, _QUANTILES, axis=0)
    found |= {
        f"q{share * 100:02.0f}": row for share, row in zip(_QUANTILES, quantiles, strict=True)
    }
    return {name: row.tolist() for name, row in found.items()}


def _indexed_by(table: Any, name: str) -> Any:
    """The table with what pandas needs to use a column of text as its index."""
    index = {"name": name, "field_name": name, "pandas_type": "unicode", "numpy_type": "object"}
    number = {"name": "task_index", "field_name": "task_index", "pandas_type": "int64"}
    description = {
        "index_columns": [name],
        "column_indexes": [],
        "columns": [number | {"numpy_type": "int64", "metadata": None}, index | {"metadata": None}],
    }
    return table.replace_schema_metadata({"pandas": json.dumps(description)})


def _info(
    recording: Recording, fps: float, columns: Mapping[str, np.ndarray], num_tasks: int
) -> dict[str, Any]:
    names = {
        lerobot.STATE: recording.names("observations"),
        lerobot.ACTION: recording.names("actions"),
    }
    features = {
        name: {
            "dtype": str(values.dtype),
            "shape": [values.shape[1] if values.ndim == 2 else 1],
            "names": names.get(name),
        }
        for name, values in columns.items()
    }
    count = len(recording.episodes)
    return {
        "codebase_version": "v3.0",
        "robot_type": recording.metadata.get("robot"),
        "total_episodes": count,
        "total_frames": len(columns["index"]),
        "total_tasks": num_tasks,
        "chunks_size": _FILES_PER_CHUNK,
        "data_files_size_in_mb": _FILE_MEGABYTES,
        "video_files_size_in_mb": _FILE_MEGABYTES,
        "fps": int(fps) if float(fps).is_integer() else fps,
        "splits": {"train": f"0:{count}"},
        "data_path": f"data/{_FILE}",
        "video_path": None,
        "features": features,
    }
