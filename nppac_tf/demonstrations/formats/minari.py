"""Minari data sets: reading and downloading, by Minari's own functions.

If a data set lacks its spaces, Minari makes the environment that it names, which can call any
function; `_read_metadata` requires the spaces before Minari opens the data set. Minari also
follows links to other files, allocates arrays of any declared size, and reads the beginning alone
of a long table; `_check_data` and `_check_table` refuse these.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import logging
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nppac_tf.demonstrations.formats import hdf5_files
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording, dimension_names
from nppac_tf.environments.standard import (
    SUCCESS_KEYS,
    flatten_steps,
    observation_parts,
    part_sizes,
)
from nppac_tf.errors import UserError

PREFIX = "minari:"

_DATA_FILE = "main_data.hdf5"
_METADATA_FILE = "metadata.json"
_TABLES = ("arrow", "parquet")
FILES = (f"data/{_DATA_FILE}", f"data/{_METADATA_FILE}")
_SPACES = ("observation_space", "action_space")
_STATED = ("fps", "robot", "tasks", "observation_names", "action_names")
ID_PATTERN = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+")


def read(name: str, observation_keys: Sequence[str] = ()) -> Recording:
    """Reads a data set by its id or its folder.

    Args:
        name: An id such as `D4RL/pen/human-v2`, downloaded if it is not in the folder that the
            environment variable MINARI_DATASETS_PATH names (default: ~/.minari/datasets); or the
            folder of a data set.
        observation_keys: See `read_folder`.

    Raises:
        UserError: There is no such data set, it cannot be downloaded, or see `read_folder`.
    """
    folder = pathlib.Path(os.path.expanduser(name))
    if folder.is_absolute() or name.startswith((".", "~")) or (folder / "data").is_dir():
        return read_folder(folder, observation_keys)
    if not ID_PATTERN.fullmatch(name):
        raise UserError(
            f"a Minari data set must have an id such as D4RL/pen/human-v2; got {name!r}"
        )
    folder = root() / name
    if not (folder / "data").is_dir():
        _download(name)
    return read_folder(folder, observation_keys)


def read_folder(folder: pathlib.Path, observation_keys: Sequence[str] = ()) -> Recording:
    """Reads the data set in a folder, with its data in HDF5, Arrow or Parquet files.

    Args:
        folder: The data set's.
        observation_keys: Parts of the observation to use, in this order; by default all, in the
            order of the observation space. See `standard.observation_parts`.

    Raises:
        UserError: The folder holds no data set, or one that is damaged, of an unsupported version
            of Minari, of observations that cannot be joined to a vector, or of actions that are not
            a one-dimensional Box.
    """
    data = folder / "data"
    _require_file(data / _METADATA_FILE)
    metadata = _read_metadata(data / _METADATA_FILE)
    if metadata["data_format"] not in _TABLES:
        _require_file(data / _DATA_FILE)
    dataset = _open(data, metadata)
    parts = observation_parts(dataset.observation_space, observation_keys or None)
    space = dataset.action_space
    if type(space).__name__ != "Box" or len(space.shape) != 1:
        got = " ".join(str(space).split())[:120]
        raise UserError(f"action_space must be a one-dimensional Box; got {got}")
    episodes: list[RecordedEpisode] = []
    indices: list[int] = []
    problems: list[str] = []
    left = _max_bytes(data)
    for index in range(metadata["total_episodes"]):
        try:
            episode = _read_episode(dataset, index, parts)
        except UserError as error:
            problems.append(str(error))
            continue
        left -= episode.nbytes
        if left < 0:
            raise UserError(hdf5_files.TOO_LARGE)
        episodes.append(episode)
        indices.append(index)
    provenance = metadata.get("provenance")
    provenance = provenance if isinstance(provenance, dict) else {}
    kept = ("minari_version", "algorithm_name", "author", "description")
    return Recording(
        dataset.id,
        "Minari",
        tuple(episodes),
        tuple(indices),
        tuple(problems),
        {"format": "Minari", "source": dataset.id}
        | _names_of(parts)
        | {key: metadata[key] for key in kept if key in metadata}
        | {key: provenance[key] for key in _STATED if key in provenance},
        _environment_id(dataset.env_spec, provenance),
    )


def _require_file(path: pathlib.Path) -> None:
    if not path.is_file():
        raise UserError(
            f"a folder of demonstrations must be a whole Minari data set; got {path.parents[1]} "
            f"without data/{path.name}"
        )


def _environment_id(spec: Any, provenance: Mapping[str, Any]) -> str | None:
    stated = provenance.get("task") if spec is None else spec.id
    return stated if isinstance(stated, str) else None


def _names_of(parts: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of an observation's parts and dimensions; empty if it has no parts."""
    if list(parts) == [""]:
        return {}
    names = dimension_names(part_sizes(parts))
    return {"observation_keys": list(parts), "observation_names": names}


def root() -> pathlib.Path:
    """The folder of Minari's data sets."""
    with quiet():
        from minari.storage.datasets_root_dir import get_dataset_path
    try:
        return pathlib.Path(get_dataset_path())
    except OSError as error:
        raise UserError(
            "MINARI_DATASETS_PATH must name a folder for Minari data sets "
            f"({error.strerror or error})"
        ) from error


def _download(dataset_id: str) -> None:
    try:
        with quiet():
            import minari

            minari.download_dataset(dataset_id)
    except Exception as error:  # Any kind of network failure.
        if isinstance(error, ValueError):
            reason = _one_line(error)
        elif isinstance(error, ImportError):
            reason = "downloading needs the package huggingface_hub"
        else:
            reason = f"no connection to the server, {type(error).__name__}"
        local: list[str] = []
        with contextlib.suppress(Exception), quiet():
            local = list(minari.list_local_datasets())
        close = difflib.get_close_matches(dataset_id, local, n=3)
        hint = f"; similar ones there: {', '.join(close)}" if close else ""
        raise UserError(
            f"there is no such data set in {root()} (set MINARI_DATASETS_PATH to use another "
            f"folder), and the download failed ({reason}){hint}"
        ) from error


def _read_metadata(path: pathlib.Path) -> dict[str, Any]:
    """Reads metadata.json and checks what Minari takes for granted."""
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{_METADATA_FILE} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{_METADATA_FILE} must be JSON; got a damaged file") from error
    if not isinstance(metadata, dict):
        raise UserError(f"{_METADATA_FILE} must be a JSON object; got {type(metadata).__name__}")
    with quiet():
        import minari

    version = metadata.get("minari_version")
    if not isinstance(version, str) or version not in minari.supported_dataset_versions:
        supported = sorted(minari.supported_dataset_versions)
        raise UserError(
            f"the data set must be written by Minari {supported[0]} to {supported[-1]}, the "
            f"versions that the installed {minari.__version__} reads; got {version!r:.60}: use "
            "another version of the data set (-v0, -v1, ...), or convert it to npz where that "
            "Minari is installed"
        )
    got = metadata.get("data_format")
    if got not in ("hdf5", *_TABLES):
        raise UserError(
            f"the data set must be in Minari's hdf5, arrow or parquet format; got {got!r:.60}"
        )
    total = metadata.get("total_episodes")
    if not isinstance(total, int) or total < 1:
        raise UserError(f"total_episodes must be at least 1; got {total!r:.60}")
    for key in ("dataset_id", *_SPACES):
        if not isinstance(metadata.get(key), str):
            raise UserError(
                f"{_METADATA_FILE} must hold {key} as text; got {metadata.get(key)!r:.60}"
            )
    return metadata


def _open(data: pathlib.Path, metadata: Mapping[str, Any]) -> Any:
    """Opens a data set whose metadata were checked; no environment is made."""
    num_episodes, is_table = metadata["total_episodes"], metadata["data_format"] in _TABLES
    place = "data" if is_table else _DATA_FILE
    try:
        count = _count_folders(data) if is_table else _check_data(data)
    except UserError:
        raise
    except Exception as error:  # HDF5 raises many kinds.
        raise UserError(
            f"{_DATA_FILE} must be a whole HDF5 file written by Minari; got a damaged or truncated "
            f"one: delete {data.parent} and download or write it again"
        ) from error
    if count != num_episodes:
        raise UserError(
            f"{place} must hold {num_episodes} episodes, as {_METADATA_FILE} says; got "
            f"{count}: download or write the data set again"
        )
    try:
        with quiet():
            import minari

            return minari.MinariDataset(data)
    except Exception as error:
        raise UserError(
            f"{_METADATA_FILE} must be as Minari writes it; got other content ({_one_line(error)})"
        ) from error


def _check_data(data: pathlib.Path) -> int:
    """Counts the episodes; refuses links to other files, and more data than the file can hold."""
    import h5py

    path = data / _DATA_FILE
    with h5py.File(path, "r") as file:
        hdf5_files.check(file, path.stat().st_size, _DATA_FILE)
        return len(file)


def _max_bytes(folder: pathlib.Path) -> int:
    """Bytes that the arrays in the files of a folder may take."""
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return hdf5_files.max_bytes(sum(sizes))


def _count_folders(data: pathlib.Path) -> int:
    return sum(path.is_dir() and path.name.isdecimal() for path in data.iterdir())


def _check_table(folder: pathlib.Path, kind: str) -> None:
    """Refuses an episode of invalid or too many values, or of which Minari reads a part."""
    from pyarrow import dataset

    table = dataset.dataset(folder, format=kind, ignore_prefixes=["_", ".", _METADATA_FILE])
    if table.count_rows() * _row_bytes(table.schema) > _max_bytes(folder):
        raise UserError(hdf5_files.TOO_LARGE)
    batches = list(table.to_batches())
    if len(batches) != 1:
        raise UserError(
            "must be one batch of rows (131,071 steps at most), all that Minari reads; got "
            f"{len(batches)}"
        )
    batches[0].validate(full=True)


def _row_bytes(kind: Any) -> int:
    """Bytes of a row of a schema or a type, of texts and lists of any length at least."""
    from pyarrow import Schema, types

    if isinstance(kind, Schema) or types.is_struct(kind):
        return sum(_row_bytes(field.type) for field in kind)
    if types.is_fixed_size_list(kind):
        return kind.list_size * _row_bytes(kind.value_type)
    return 8


def _read_episode(dataset: Any, index: int, parts: Mapping[str, Any]) -> RecordedEpisode:
    storage = dataset.storage
    try:
        if storage.FORMAT in _TABLES:
            _check_table(storage.data_path / str(index), storage.FORMAT)
        (episode,) = dataset.iterate_episodes([index])
        (attributes,) = storage.get_episode_metadata([index])
    except UserError as error:
        raise UserError(f"episode {index}: {error}") from None
    except Exception as error:  # Minari and HDF5 raise many kinds.
        raise UserError(
            f"episode {index} must be whole; got a damaged one ({_one_line(error)})"
        ) from error
    arrays = {
        key: np.asarray(getattr(episode, key))
        for key in ("actions", "rewards", "terminations", "truncations")
    }
    try:
        arrays["observations"] = flatten_steps(episode.observations, parts)
    except UserError as error:
        raise UserError(f"episode {index}: {error}") from None
    for key, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise UserError(f"{key} of episode {index} must be numbers; got {array.dtype}")
    observations, actions = arrays["observations"], arrays["actions"]
    size = dataset.action_space.shape[0]
    if actions.ndim != 2 or actions.shape[1] != size:
        raise UserError(
            f"actions of episode {index} must be [T, {size}], as {_METADATA_FILE} says; "
            f"got {list(actions.shape)}"
        )
    has_final = len(observations) == len(actions) + 1
    rewards = arrays["rewards"].reshape(-1)
    return RecordedEpisode(
        observations[:-1] if has_final else observations,
        actions,
        observations[-1] if has_final else None,
        rewards=None if np.isnan(rewards).all() else rewards,
        terminals=arrays["terminations"].reshape(-1),
        truncations=arrays["truncations"].reshape(-1),
        successes=_successes(episode.infos, len(actions)),
        initial_state=_initial_state(attributes),
    )


def _successes(infos: Any, num_steps: int) -> np.ndarray | None:
    """Goal flags [T] after each action, where all steps have one of 0 or 1."""
    for key in SUCCESS_KEYS:
        if isinstance(infos, dict) and key in infos:
            flags = np.asarray(infos[key])
            flags = flags.reshape(len(flags), -1)[-num_steps:, 0] if flags.size else flags
            if flags.shape == (num_steps,) and flags.dtype.kind in "biuf":
                return flags > 0 if np.isin(flags, (0, 1)).all() else None
    return None


def _initial_state(attributes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    options = attributes.get("options")
    state = options.get("initial_state_dict") if isinstance(options, dict) else None
    if not isinstance(state, dict):
        return {}
    arrays = {key: np.asarray(value) for key, value in state.items()}
    return {
        key: array.astype(np.float64) for key, array in arrays.items() if array.dtype.kind in "iuf"
    }


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Minari's warnings and progress messages, which are for publishers of data sets."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)
