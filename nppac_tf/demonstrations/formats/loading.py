"""Loading and saving demonstrations; each format has a reader of its own.

No reader runs code from a file.
"""

from __future__ import annotations

import difflib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import BinaryIO

from nppac_tf.demonstrations.dataset import Demonstrations, TaskSpaces
from nppac_tf.demonstrations.formats import hdf5, lerobot, minari, npz, records, rlds
from nppac_tf.demonstrations.joining import join
from nppac_tf.demonstrations.recording import Recording
from nppac_tf.environments.known import known_task, tasks_of_sizes
from nppac_tf.errors import UserError
from nppac_tf.files import replace_file, split_names, split_part

_EMBEDDED_PREFIX = "embedded:"
_READERS: Mapping[str, Callable[[BinaryIO, str], Recording]] = MappingProxyType(
    {
        ".npz": npz.read,
        ".npy": records.read_awac,
        ".pickle": records.read_dapg,
        ".pkl": records.read_dapg,
    }
)
_HDF5 = (".hdf5", ".h5")


Source = str | os.PathLike[str]


def load_demonstrations(
    source: Source | Sequence[Source], task: TaskSpaces | None = None
) -> Demonstrations:
    """Loads demonstrations without running code from the file.

    Args:
        source: One of
            `embedded:NAME`, demonstrations that ship with the package;
            `minari:ID`, a Minari data set, downloaded if it is not on this machine;
            `minari:FOLDER` or the folder itself, a Minari data set at that place;
            `lerobot:FOLDER` or the folder itself, a LeRobot data set;
            the folder of an RLDS data set, if tensorflow-datasets is installed;
            a file: `*.npz` (written by `save_demonstrations`, Stable-Baselines, imitation, or with
            terminals and timeouts), `*.hdf5` or `*.h5` (robomimic, D4RL), `*.npy` (AWAC), or
            `*.pickle` or `*.pkl` (DAPG);
            some episodes of a file or folder, as in `lift.hdf5:train`: those of a filter key of
            robomimic ("success" for those that are marked as successful), or of a split of RLDS;
            several of these, in a list or with commas, which are joined.
        task: If given, checks the demonstrations against it and clips actions into its bounds; see
            `Demonstrations.conform`.

    Returns:
        The demonstrations. Their `notices` list what loading changed.

    Raises:
        UserError: The source does not exist, cannot be read, is damaged, holds no demonstrations,
            names Python objects other than arrays and plain containers, or does not fit the task.
            The message is one line that begins with the source.
    """
    recording = load_recording(source, getattr(task, "observation_keys", ()))
    try:
        demonstrations = recording.demonstrations()
        if task is None:
            return demonstrations
        _check_task(recording, demonstrations, task)
        return demonstrations.conform(task)
    except UserError as error:
        raise UserError(f"{_label(source)}: {error}") from error


def load_recording(
    source: Source | Sequence[Source], observation_keys: Sequence[str] = ()
) -> Recording:
    """Reads demonstrations as recorded, as far as they are readable.

    Args:
        source: See `load_demonstrations`.
        observation_keys: Parts of the observation to use, in this order, where the data set has
            named parts; by default all.

    Returns:
        The recording. Its `problems` list what could not be read, and why.

    Raises:
        UserError: Nothing of the source can be read. The message is one line that begins with it.
    """
    if isinstance(source, str):
        sources: Sequence[Source] = split_names(source)
    else:
        sources = [source] if isinstance(source, os.PathLike | bytes) else source
    recordings = [_load_one(os.fspath(each), observation_keys) for each in sources]
    try:
        return join(recordings)
    except UserError as error:
        raise UserError(f"{_label(source)}: {error}") from error


def _label(source: Source | Sequence[Source]) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return ",".join(os.fspath(each) for each in source)


def _load_one(source: str, observation_keys: Sequence[str]) -> Recording:
    try:
        if not isinstance(source, str) or "\0" in source:
            raise UserError("source must be text without null characters")
        if not source:
            raise UserError("demonstrations must be named; got an empty name")
        if source.startswith(_EMBEDDED_PREFIX):
            return npz.read_embedded(source.removeprefix(_EMBEDDED_PREFIX))
        if source.startswith(minari.PREFIX):
            return minari.read(source.removeprefix(minari.PREFIX), observation_keys)
        source = source.removeprefix(lerobot.PREFIX)
        path, part = split_part(source)
        return _read_path(path, part, observation_keys)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def save_demonstrations(demonstrations: Demonstrations, path: str | os.PathLike[str]) -> None:
    """Writes demonstrations to a file that `load_demonstrations` reads.

    Notices are not saved. The write is atomic: on failure, an existing file stays as it was.

    Args:
        demonstrations: Demonstrations to write.
        path: File name ending in `.npz`; an existing file is replaced.

    Raises:
        UserError: The name does not end in `.npz`, or the file cannot be written.
    """
    path = pathlib.Path(os.path.expanduser(path))
    if path.suffix != ".npz":
        raise UserError(f"path must end in .npz; got {str(path)!r}")
    try:
        replace_file(path, lambda file: npz.write(demonstrations, file))
    except OSError as error:
        raise UserError(f"path must be writable; got {str(path)!r} ({error.strerror})") from error


def _read_path(path: pathlib.Path, part: str, observation_keys: Sequence[str]) -> Recording:
    try:
        if path.is_dir():
            return _read_folder(path, part, observation_keys)
        suffix = path.suffix.lower()
        reader = _READERS.get(suffix)
        if reader is None and suffix not in _HDF5:
            suffixes = ", ".join([*_READERS, *_HDF5])
            is_id = not path.exists() and "/" in str(path) and not path.suffix
            hint = f"; did you mean {minari.PREFIX}{path}?" if is_id else ""
            raise UserError(
                f"demonstrations must be {_EMBEDDED_PREFIX}NAME, {minari.PREFIX}ID, the folder of "
                "a Minari, LeRobot or RLDS data set, or a file ending in "
                f"{suffixes}; got {path.name!r}"
                f"{hint or ': convert other formats with Demonstrations.from_episodes'}"
            )
        with open(path, "rb") as file:
            if reader is None:
                return hdf5.read(file, path.name, observation_keys, part)
            _require_whole(part)
            return reader(file, path.name)
    except OSError as error:
        close = difflib.get_close_matches(path.name, _names_beside(path), n=1)
        hint = f"; did you mean {path.parent / close[0]}?" if close and not path.exists() else ""
        raise UserError(f"cannot be read ({error.strerror or error}){hint}") from error


def _names_beside(path: pathlib.Path) -> list[str]:
    """Names in the folder of a file that may not exist."""
    try:
        return [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return []


def _require_whole(part: str) -> None:
    if part:
        raise UserError(
            f"a part of a source must be a filter key of robomimic or a split of RLDS; got {part!r}"
        )


def _read_folder(folder: pathlib.Path, part: str, observation_keys: Sequence[str]) -> Recording:
    if all((folder / name).is_file() for name in rlds.FILES):
        return rlds.read_folder(folder, observation_keys, part)
    _require_whole(part)
    if (folder / lerobot.INFO).is_file():
        return lerobot.read_folder(folder, observation_keys)
    if any((folder / name).is_file() for name in minari.FILES):
        return minari.read_folder(folder, observation_keys)
    kinds = {"Minari": minari.FILES[0], "LeRobot": lerobot.INFO, "RLDS": rlds.FILES[0]}
    known = " or ".join(f"{kind} ({name})" for kind, name in kinds.items())
    below = [
        inner
        for inner in sorted(folder.glob("*"))
        if any((inner / name).is_file() for name in kinds.values())
    ]
    hint = f"; did you mean {below[0]}?" if below else ""
    raise UserError(f"a folder of demonstrations must be a data set of {known}; got none{hint}")


def _check_task(recording: Recording, demonstrations: Demonstrations, task: TaskSpaces) -> None:
    """Refuses demonstrations of another task, and names the option that fits."""
    sizes = (demonstrations.observation_size, demonstrations.action_size)
    recorded = known_task(recording.environment_id) if recording.environment_id else None
    expected = known_task(task.name)
    if recorded is not None and expected is not None and recorded.name != expected.name:
        raise UserError(
            f"demonstrations must be of {task.name}; got those of {recorded.name}: "
            f"pass --task={recorded.name}"
        )
    if sizes != (task.observation_size, task.action_size):
        fitting = [recorded.name] if recorded else tasks_of_sizes(sizes)
        named = (
            f"did you mean --task={' or '.join(fitting)}?"
            if fitting
            else "mend the data, or pass their --task"
        )
        raise UserError(
            f"demonstrations must have observation size {task.observation_size} and action size "
            f"{task.action_size} for task {task.name}; got {sizes[0]} and {sizes[1]}; {named}"
        )
