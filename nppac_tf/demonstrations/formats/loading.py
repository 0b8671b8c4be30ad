"""Reading and writing demonstrations, one reader per file format.

Nothing that a file holds is executed: `pickles` says how Python pickles are read, and `minari_data`
how Minari data sets are.
"""

from __future__ import annotations

import importlib.resources
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from nppac_tf.demonstrations.dataset import Demonstrations, TaskSpaces, as_episode_ends, as_matrix
from nppac_tf.demonstrations.formats import minari, pickles
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.environments.known import known_task, tasks_of_sizes
from nppac_tf.errors import UserError
from nppac_tf.files import read_arrays, replace_file

_EMBEDDED_PREFIX = "embedded:"
_HEAD_SIZE = 512
_MAX_NUMBERS_PER_BYTE = 4
_NPY_MAGIC = b"\x93NUMPY"
_UNKNOWN = "something else"
_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (_NPY_MAGIC, "an npy file: give it a name that ends in .npy"),
    (b"PK\x03\x04", "a zip archive: if NumPy wrote it, give it a name that ends in .npz"),
    (b"\x89HDF", "an HDF5 file: name the folder of a Minari data set, not a file in it"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x80", "a Python pickle: give it a name that ends in .pickle"),
)


def load_demonstrations(
    source: str | os.PathLike[str], task: TaskSpaces | None = None
) -> Demonstrations:
    """Loads demonstrations; nothing that a file holds is executed.

    Args:
        source: `embedded:NAME` for those that ship with the package; `minari:ID` for a Minari data
            set, downloaded if it is not on this machine, `minari:FOLDER` or the folder itself; or a
            file: `*.npz` as written by `save_demonstrations`, `*.npy` (AWAC) or `*.pickle`, `*.pkl`
            (DAPG).
        task: If given, the demonstrations are checked against it and clipped into its action
            bounds; see `Demonstrations.conform`.

    Returns:
        The demonstrations; `notices` says what was changed in loading.

    Raises:
        UserError: There is no such source, it cannot be read, is damaged, does not hold
            demonstrations, names a Python object other than arrays and plain containers, or does
            not fit the task. The message is one line that begins with the source.
    """
    recording = load_recording(source)
    try:
        demonstrations = recording.demonstrations()
    except UserError as error:
        raise UserError(f"{os.fspath(source)}: {error}") from error
    if task is None:
        return demonstrations
    sizes = (demonstrations.observation_size, demonstrations.action_size)
    known = known_task(recording.environment_id) if recording.environment_id else None
    named = known.name if known else None
    if named not in (None, task.name) and known_task(task.name):
        raise UserError(
            f"{os.fspath(source)}: demonstrations must be of {task.name}; got those of {named}: "
            f"pass --task={named}"
        )
    if sizes != (task.observation_size, task.action_size):
        fitting = [named] if named else tasks_of_sizes(sizes)
        hint = f"; did you mean --task={' or '.join(fitting)}?" if fitting else ""
        raise UserError(
            f"{os.fspath(source)}: demonstrations must have observation size "
            f"{task.observation_size} and action size {task.action_size} for task {task.name}; "
            f"got {sizes[0]} and {sizes[1]}{hint}"
        )
    return demonstrations.conform(task)


def load_recording(source: str | os.PathLike[str]) -> Recording:
    """Reads demonstrations as they were recorded, as far as they can be read.

    Args:
        source: See `load_demonstrations`.

    Returns:
        The recording; its `problems` say what could not be read, and why.

    Raises:
        UserError: Nothing can be read of the source. The message is one line that begins with it.
    """
    source = os.fspath(source)
    try:
        if not isinstance(source, str) or "\0" in source:
            raise UserError("demonstrations must be named by a text without null characters")
        if source.startswith(_EMBEDDED_PREFIX):
            return _load_embedded(source.removeprefix(_EMBEDDED_PREFIX))
        if source.startswith(minari.PREFIX):
            return minari.read(source.removeprefix(minari.PREFIX))
        return _load_path(pathlib.Path(os.path.expanduser(source)))
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def save_demonstrations(demonstrations: Demonstrations, path: str | os.PathLike[str]) -> None:
    """Writes demonstrations so that `load_demonstrations` gives them back, notices apart.

    The file appears whole or not at all: it is written beside `path` and then renamed.

    Args:
        demonstrations: What to write.
        path: A file name ending in `.npz`; a file of that name is replaced.

    Raises:
        UserError: The name does not end in `.npz`, or the file cannot be written.
    """
    path = pathlib.Path(os.path.expanduser(path))
    if path.suffix != ".npz":
        raise UserError(f"path must end in .npz; got {str(path)!r}")

    def write(file: BinaryIO) -> None:
        np.savez_compressed(
            file,
            observations=demonstrations.observations,
            actions=demonstrations.actions,
            episode_ends=demonstrations.episode_ends,
            metadata=np.array(json.dumps(demonstrations.metadata, sort_keys=True)),
            name=np.array(demonstrations.name),
        )

    try:
        replace_file(path, write)
    except OSError as error:
        raise UserError(f"path must be writable; got {str(path)!r} ({error.strerror})") from error


def _load_embedded(name: str) -> Recording:
    files = {
        pathlib.PurePath(file.name).stem: file
        for file in _embedded_files()
        if file.name.endswith(".npz")
    }
    if name not in files:
        known = ", ".join(sorted(files)) or "none"
        raise UserError(f"embedded demonstrations must be one of: {known}; got {name!r}")
    return _read_npz(io.BytesIO(files[name].read_bytes()), files[name].name)


def _embedded_files() -> list[Traversable]:
    folder = importlib.resources.files(__package__).joinpath("data")
    return list(folder.iterdir()) if folder.is_dir() else []


def _load_path(path: pathlib.Path) -> Recording:
    try:
        if path.is_dir():
            return minari.read_folder(path)
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            is_id = not path.exists() and "/" in str(path) and not path.suffix
            hint = f"; did you mean {minari.PREFIX}{path}?" if is_id else ""
            raise UserError(
                f"demonstrations must be {_EMBEDDED_PREFIX}NAME, {minari.PREFIX}ID, the "
                f"folder of a Minari data set, or a file ending in {', '.join(_READERS)}; got "
                f"{path.name!r}{hint or ': see Demonstrations.from_episodes for other arrays'}"
            )
        with open(path, "rb") as file:
            return reader(file, path.name)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})") from error


def _read_npz(file: BinaryIO, file_name: str) -> Recording:
    """Reads what `save_demonstrations` writes; `metadata` and `name` may be absent."""
    arrays = _read_archive(file)
    missing = {"observations", "actions", "episode_ends"} - arrays.keys()
    if missing:
        raise UserError(
            f"the file must hold observations, actions, episode_ends; got {_keys(arrays)}: join "
            "episodes with Demonstrations.from_episodes, and write them with save_demonstrations"
        )
    try:
        metadata = json.loads(str(arrays["metadata"])) if "metadata" in arrays else {}
    except (ValueError, RecursionError) as error:
        raise UserError("metadata must be JSON; got a text that is not") from error
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
    environment_id = metadata.get("task")
    return Recording(
        str(arrays["name"]) if "name" in arrays else pathlib.PurePath(file_name).stem,
        "npz",
        tuple(
            RecordedEpisode(observations[start:end], actions[start:end])
            for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ),
        tuple(range(len(ends))),
        metadata=metadata,
        environment_id=environment_id if isinstance(environment_id, str) else None,
    )


def _read_archive(file: BinaryIO) -> dict[str, np.ndarray]:
    """Reads the plain arrays of an npz archive."""
    start = file.read(_HEAD_SIZE)
    file.seek(0)
    if not start.startswith(b"PK"):
        raise UserError(
            f"the file must be a whole npz archive of plain arrays; got {_describe(start)}"
        )
    try:
        return read_arrays(file)
    except UserError:
        raise
    except Exception as error:
        got = "an array of Python objects" if _holds_objects(file) else "a damaged or cut-off file"
        raise UserError(
            f"the file must be a whole npz archive of plain arrays; got {got}"
        ) from error


def _holds_objects(file: BinaryIO) -> bool:
    """Whether an npz archive is whole and one of its arrays would need to be unpickled."""
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    if _read_npy_header(member)[1].hasobject:
                        return True
    except Exception:
        return False
    return False


def _read_npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Reads shape and type; raises anything for a file that is not in the npy format."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read_header(file)
    return shape, dtype


def _read_awac(file: BinaryIO, file_name: str) -> Recording:
    """Reads an object array [E] of episodes saved by `np.save`."""
    start = file.read(_HEAD_SIZE)
    file.seek(0)
    if not start.startswith(_NPY_MAGIC):
        raise UserError(f"the file must be a whole npy file; got {_describe(start)}")
    try:
        shape, dtype = _read_npy_header(file)
    except Exception as error:
        raise UserError(
            "the file must be a whole npy file; got a damaged or cut-off header"
        ) from error
    if dtype.kind != "O":
        raise UserError(
            "an npy file of demonstrations must hold an object array of episodes (AWAC); "
            f"got {dtype} {list(shape)}"
        )
    return _read_records(file, file_name, "AWAC npy")


def _read_dapg(file: BinaryIO, file_name: str) -> Recording:
    """Reads a pickled list of episodes."""
    return _read_records(file, file_name, "DAPG pickle")


_READERS: Mapping[str, Callable[[BinaryIO, str], Recording]] = MappingProxyType(
    {".npz": _read_npz, ".npy": _read_awac, ".pickle": _read_dapg, ".pkl": _read_dapg}
)


def _read_records(file: BinaryIO, file_name: str, format_name: str) -> Recording:
    """Unpickles episodes: mappings with `observations` and `actions`, and often more."""
    content = file.read()
    try:
        records = pickles.as_list(pickles.unpickle(content))
    except UserError:
        raise
    except Exception as error:
        got = _describe(content[:_HEAD_SIZE])
        if got == _UNKNOWN or "pickle" in got or format_name == "AWAC npy":
            got = "a damaged or cut-off one"
        raise UserError(f"the pickle must be whole and undamaged; got {got}") from error
    if records is None:
        raise UserError(f"the {format_name} must hold a list of episodes")
    episodes: list[RecordedEpisode] = []
    indices: list[int] = []
    problems: list[str] = []
    left = _MAX_NUMBERS_PER_BYTE * len(content)
    for index, record in enumerate(records):
        try:
            episode = _read_record(record, index)
        except UserError as error:
            problems.append(str(error))
            continue
        left -= episode.observations.size + episode.actions.size
        if left < 0:
            raise UserError("the file must hold what its size is for; got episodes repeated over")
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


def _read_record(record: Any, index: int) -> RecordedEpisode:
    if not isinstance(record, dict):
        raise UserError(f"episode {index} must be a dict; got {type(record).__name__}")
    for key in ("observations", "actions"):
        if key not in record:
            raise UserError(f"episode {index} must hold observations, actions; got {_keys(record)}")
    observations = _states(record["observations"], f"observations of episode {index}")
    actions = pickles.as_numbers(record["actions"], f"actions of episode {index}")
    observed = list(observations.shape)
    for label, values, wanted in (
        ("observations", observations, "[T, D]"),
        ("actions", actions, f"[T, A] to match observations {observed}"),
    ):
        if values.ndim != 2:
            got = list(values.shape)
            raise UserError(f"{label} of episode {index} must be {wanted}; got {got}")
    next_observations = _optional(_states, record.get("next_observations"))
    return RecordedEpisode(
        observations,
        actions,
        rewards=_per_step(record.get("rewards")),
        terminals=_per_step(record.get("terminals")),
        successes=_per_step(_goal_flags(record.get("env_infos"))),
        next_observations=(
            next_observations
            if next_observations is not None and next_observations.ndim == 2
            else None
        ),
        initial_state=_initial_state(record.get("init_state_dict")),
    )


def _states(value: Any, label: str) -> np.ndarray:
    """Reads observations, each an array or a dict that holds one as `state_observation`."""
    items = pickles.as_list(value)
    if items and isinstance(items[0], dict):
        return pickles.as_numbers([_state(item, label) for item in items], label)
    return pickles.as_numbers(value, label)


def _state(observation: Any, label: str) -> Any:
    if not isinstance(observation, dict) or "state_observation" not in observation:
        got = _keys(observation) if isinstance(observation, dict) else type(observation).__name__
        raise UserError(f"{label} must each hold state_observation; got {got}")
    return observation["state_observation"]


def _optional(read: Callable[[Any, str], np.ndarray], value: Any) -> np.ndarray | None:
    """Reads what training does not need; None where it is absent or makes no sense."""
    try:
        return None if value is None else read(value, "")
    except UserError:
        return None


def _per_step(value: Any) -> np.ndarray | None:
    """Reads one number per step, also where each is an array of one."""
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


def _describe(start: bytes) -> str:
    """Says what a file is whose content begins so."""
    for beginning, description in _BEGINNINGS:
        if start.startswith(beginning):
            return description
    text = start.decode("utf-8", "ignore").lstrip().lower()
    if not start:
        return "an empty file"
    if text.startswith("<"):
        return "a web page: download the file itself"
    if not any(byte < 9 or 13 < byte < 32 for byte in start):
        return "a text file"
    return _UNKNOWN


def _keys(mapping: Mapping[Any, Any]) -> str:
    """Lists a mapping's keys in one line."""
    names = sorted(key if isinstance(key, str) else type(key).__name__ for key in mapping)
    shown = ", ".join(" ".join(name.split())[:40] for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "nothing"
