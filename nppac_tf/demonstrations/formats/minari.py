"""Reading and writing Minari data sets; the one door to Minari and to HDF5.

Minari finds, downloads and writes data sets. It is not used to read one, since what a data set says
of itself may come from anywhere: where it leaves out its spaces, Minari makes the environment that
it names, which calls whatever its entry point is; and Minari's reader follows links out of the file
and takes announced sizes as they come. So the metadata are checked first, and then the five arrays
of each episode are read from the file directly.
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
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.errors import UserError

PREFIX = "minari:"

_DATA_FILE = "main_data.hdf5"
_METADATA_FILE = "metadata.json"
_ID_PATTERN = re.compile(r"(?:[-\w]+/)*[-\w]+-v\d+")
_MAX_BYTES = 2**32
# Bytes on disk say how many there can be: deflate packs no better than 1:1032.
_MAX_COMPRESSION = 1100
_STATE_PREFIX = "options/initial_state_dict/"


def read(name: str) -> Recording:
    """Reads a data set by its id, downloading it if it is not on this machine, or by its folder.

    Args:
        name: An id such as `D4RL/pen/human-v2`, looked for in the folder that the environment
            variable MINARI_DATASETS_PATH names, by default ~/.minari/datasets; or a folder.

    Raises:
        UserError: There is no such data set, it cannot be downloaded, or see `read_folder`.
    """
    folder = pathlib.Path(os.path.expanduser(name))
    if folder.is_absolute() or name.startswith((".", "~")) or (folder / "data").is_dir():
        return read_folder(folder)
    if not _ID_PATTERN.fullmatch(name):
        raise UserError(f"a Minari data set must be named as in D4RL/pen/human-v2; got {name!r}")
    folder = _local_folder(name)
    if not (folder / "data").is_dir():
        _download(name)
    return read_folder(folder)


def read_folder(folder: pathlib.Path) -> Recording:
    """Reads the data set in a folder that holds `data/main_data.hdf5` and `data/metadata.json`.

    Raises:
        UserError: The folder holds none, it is damaged, of a version of Minari that is not
            supported, or its observations or actions are not one-dimensional boxes.
    """
    data = folder / "data"
    for name in (_METADATA_FILE, _DATA_FILE):
        if not (data / name).is_file():
            below = sorted(path.parents[1] for path in folder.glob(f"*/data/{_DATA_FILE}"))
            hint = f"; did you mean {below[0]}?" if below else ""
            raise UserError(
                f"a folder of demonstrations must be a whole Minari data set; got {folder} without "
                f"data/{name}{hint}"
            )
    metadata = _read_metadata(data / _METADATA_FILE)
    sizes = tuple(_box_size(metadata, key) for key in ("observation_space", "action_space"))
    name = str(metadata.get("dataset_id", folder.name))
    problems: list[str] = []
    episodes: list[RecordedEpisode] = []
    indices: list[int] = []
    import h5py

    try:
        with h5py.File(data / _DATA_FILE, "r") as file:
            count = len(file)
            if count != metadata["total_episodes"]:
                problems.append(
                    f"{_DATA_FILE} must hold the {metadata['total_episodes']} episodes that the "
                    f"metadata announce; got {count}: download or write the data set anew"
                )
            left = min(_MAX_BYTES, _MAX_COMPRESSION * (data / _DATA_FILE).stat().st_size)
            for index in range(count):
                try:
                    episode = _read_episode(file, index, sizes)
                except UserError as error:
                    problems.append(str(error))
                    continue
                left -= episode.observations.nbytes + episode.actions.nbytes
                if left < 0:
                    raise MemoryError
                episodes.append(episode)
                indices.append(index)
    except OSError as error:
        raise UserError(_damaged(folder)) from error
    except MemoryError as error:
        raise UserError("the data set must fit into memory; got more") from error
    except Exception as error:
        # The HDF5 library has its own ways to fail on a damaged file.
        raise UserError(_damaged(folder)) from error
    return Recording(
        name,
        "Minari",
        tuple(episodes),
        tuple(indices),
        tuple(problems),
        {
            "format": "Minari",
            "source": name,
            **{
                key: metadata[key]
                for key in ("minari_version", "algorithm_name", "author", "description")
                if key in metadata
            },
        },
        _environment_id(metadata),
    )


def write(
    dataset_id: str,
    episodes: Sequence[RecordedEpisode],
    environment: Any,
    algorithm_name: str,
    description: str,
    provenance: Mapping[str, Any],
) -> pathlib.Path:
    """Writes a data set that `minari.load_dataset` reads back; whole, or not at all.

    Args:
        dataset_id: Such as `pen/mine-v0`. It goes into the folder that MINARI_DATASETS_PATH names,
            by default ~/.minari/datasets.
        episodes: Each with observations [T, D], final observation [D], actions [T, A], rewards,
            terminals and truncations [T].
        environment: The Gymnasium environment that they come from; its spaces and its spec are
            written, so that Minari can make it again.
        algorithm_name: What acted.
        description: A sentence for people.
        provenance: A mapping that JSON can hold, kept under "provenance".

    Returns:
        The data set's folder.

    Raises:
        UserError: The id is malformed, there is a data set of that id, or it cannot be written.
    """
    check_new_id(dataset_id)
    from minari import namespace
    from minari.data_collector import EpisodeBuffer
    from minari.utils import create_dataset_from_buffers

    folder = _local_folder(dataset_id)
    root = _root()
    temporary = root / f".{secrets.token_hex(8)}.tmp"
    buffers = [
        EpisodeBuffer(
            observations=np.concatenate(
                [episode.observations, episode.final_observation[None]]
            ).astype(environment.observation_space.dtype),
            actions=episode.actions.astype(environment.action_space.dtype),
            rewards=episode.rewards,
            terminations=np.asarray(episode.terminals, np.bool_),
            truncations=np.asarray(episode.truncations, np.bool_),
        )
        for episode in episodes
        if episode.final_observation is not None
    ]
    if len(buffers) != len(episodes) or not buffers:
        raise UserError("episodes must each hold a final observation, and be at least one")
    try:
        temporary.mkdir()
        with _quiet(), _datasets_in(temporary):
            dataset = create_dataset_from_buffers(
                dataset_id,
                buffers,
                env=environment,
                algorithm_name=algorithm_name,
                description=description,
            )
            dataset.storage.update_metadata({"provenance": dict(provenance)})
        parent = dataset_id.rpartition("/")[0]
        with _quiet():
            if parent and parent not in namespace.list_local_namespaces():
                namespace.create_namespace(parent)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(temporary / dataset_id, folder)
    except OSError as error:
        raise UserError(
            f"the data set must be writable; got {folder} ({error.strerror or error})"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def check_new_id(dataset_id: str) -> None:
    """Raises UserError unless a data set of this id can be written."""
    if not _ID_PATTERN.fullmatch(dataset_id):
        raise UserError(
            "a Minari data set must be named as in pen/mine-v0, with a version at its end; "
            f"got {dataset_id!r}"
        )
    folder = _local_folder(dataset_id)
    if folder.exists():
        raise UserError(
            f"a new Minari data set must not exist yet; got {dataset_id!r}, which is at {folder}: "
            "choose the next version"
        )


def _root() -> pathlib.Path:
    with _quiet():
        from minari.storage.datasets_root_dir import get_dataset_path
    try:
        return pathlib.Path(get_dataset_path())
    except OSError as error:
        raise UserError(
            "MINARI_DATASETS_PATH must name a folder for Minari data sets "
            f"({error.strerror or error})"
        ) from error


def _local_folder(dataset_id: str) -> pathlib.Path:
    return _root() / dataset_id


def _local_ids() -> list[str]:
    root = _root()
    return sorted(
        path.parent.parent.relative_to(root).as_posix()
        for path in root.rglob(_METADATA_FILE)
        if path.parent.name == "data"
    )


def _download(dataset_id: str) -> None:
    local = _local_ids()
    close = difflib.get_close_matches(dataset_id, local, n=3)
    hint = f"; close to it here: {', '.join(close)}" if close else ""
    try:
        with _quiet():
            import minari

            minari.download_dataset(dataset_id)
    except Exception as error:
        if isinstance(error, ValueError):
            reason = " ".join(str(error).split())
        elif isinstance(error, ImportError):
            reason = "downloading needs the package huggingface_hub"
        else:
            reason = f"no connection to the server, {type(error).__name__}"
        raise UserError(
            f"there is no such data set in {_root()} (MINARI_DATASETS_PATH names another folder), "
            f"and it could not be downloaded ({reason}){hint}"
        ) from error


def _damaged(folder: pathlib.Path) -> str:
    return (
        f"{_DATA_FILE} must be a whole HDF5 file of Minari's; got a damaged or cut-off one: "
        f"delete {folder} and download or write it anew"
    )


def _read_metadata(path: pathlib.Path) -> dict[str, Any]:
    """Reads and checks metadata."""
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{_METADATA_FILE} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{_METADATA_FILE} must be JSON; got a damaged file") from error
    if not isinstance(metadata, dict):
        raise UserError(f"{_METADATA_FILE} must be a JSON object; got {type(metadata).__name__}")
    with _quiet():
        import minari

    version = metadata.get("minari_version")
    if not isinstance(version, str) or version not in minari.supported_dataset_versions:
        supported = sorted(minari.supported_dataset_versions)
        raise UserError(
            f"the data set must be written by Minari {supported[0]} to {supported[-1]}, which the "
            f"installed {minari.__version__} reads; got {_short(version)}: take another version of "
            "the data set (-v0, -v1, ...), or save its observations and actions as npz where that "
            "Minari is installed"
        )
    if metadata.get("data_format") != "hdf5":
        got = _short(metadata.get("data_format"))
        raise UserError(f"the data set must be in Minari's hdf5 format; got {got}")
    total = metadata.get("total_episodes")
    if not isinstance(total, int) or total < 1:
        raise UserError(f"total_episodes must be at least 1; got {_short(total)}")
    return metadata


def _box_size(metadata: Mapping[str, Any], key: str) -> int:
    """Returns the size of a one-dimensional box."""
    text = metadata.get(key)
    try:
        space = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        space = None
    if not isinstance(space, dict):
        raise UserError(
            f"{_METADATA_FILE} must describe the {key} as Minari does; got another text"
        )
    if space.get("type") == "Dict":
        subspaces = space.get("subspaces")
        names = ", ".join(map(str, subspaces)) if isinstance(subspaces, dict) else "nothing"
        raise UserError(
            f"{key} must be a one-dimensional Box; got a Dict of {names[:120]}: join the parts "
            "that the policy is to see, and give them to Demonstrations.from_episodes"
        )
    shape = space.get("shape")
    if space.get("type") == "Box" and isinstance(shape, list) and len(shape) == 1:
        size = shape[0]
        if isinstance(size, int) and size > 0:
            return size
    got = f"{_short(space.get('type'))}, shape {_short(shape)}"
    raise UserError(f"{key} must be a one-dimensional Box; got {got}")


def _environment_id(metadata: Mapping[str, Any]) -> str | None:
    try:
        environment_id = json.loads(metadata.get("env_spec", ""))["id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return environment_id if isinstance(environment_id, str) else None


def _read_episode(file: Any, index: int, sizes: tuple[int, ...]) -> RecordedEpisode:
    group = _child(file, f"episode_{index}", f"episode {index}")
    arrays = {
        key: _read_array(group, key, f"{key} of episode {index}")
        for key in ("observations", "actions", "rewards", "terminations", "truncations")
    }
    for key, size in zip(("observations", "actions"), sizes, strict=True):
        if arrays[key].ndim != 2 or arrays[key].shape[1] != size:
            raise UserError(
                f"{key} of episode {index} must be [T, {size}], as the metadata say; "
                f"got {list(arrays[key].shape)}"
            )
    observations, actions = arrays["observations"], arrays["actions"]
    has_final = len(observations) == len(actions) + 1
    return RecordedEpisode(
        observations[:-1] if has_final else observations,
        actions,
        observations[-1] if has_final else None,
        rewards=arrays["rewards"].reshape(-1),
        terminals=arrays["terminations"].reshape(-1),
        truncations=arrays["truncations"].reshape(-1),
        initial_state={
            key.removeprefix(_STATE_PREFIX): np.asarray(group.attrs[key], np.float64)
            for key in group.attrs
            if key.startswith(_STATE_PREFIX) and group.attrs.get_id(key).dtype.kind in "iuf"
        },
    )


def _child(parent: Any, key: str, label: str) -> Any:
    """Looks up an object in the file itself: a link could lead into any other file."""
    import h5py

    link = parent.get(key, getlink=True) if key in parent else None
    if not isinstance(link, h5py.HardLink):
        raise UserError(f"the data set must hold {label}; got none")
    return parent[key]


def _read_array(group: Any, key: str, label: str) -> np.ndarray:
    import h5py

    if not isinstance(group, h5py.Group):
        raise UserError(f"the data set must hold {label}; got none")
    dataset = _child(group, key, label)
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise UserError(f"{label} must be an array in the file; got something else")
    if dataset.dtype.kind not in "biuf" or not dataset.ndim:
        raise UserError(f"{label} must be arrays of numbers; got {dataset.dtype}")
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > min(_MAX_BYTES, _MAX_COMPRESSION * stored):
        raise UserError(f"{label} must be stored whole; got {list(dataset.shape)} announced")
    return np.asarray(dataset[()])


def _short(value: Any) -> str:
    """Shows a value of the metadata, which may be anything."""
    if value is None or isinstance(value, str | int | float):
        return repr(value)[:60]
    if isinstance(value, list) and len(value) < 9 and all(isinstance(item, int) for item in value):
        return str(value)
    return type(value).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Minari's remarks, which are for those who publish data sets, from the terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)


@contextlib.contextmanager
def _datasets_in(folder: pathlib.Path) -> Iterator[None]:
    """Has Minari write into a folder; it knows no other way to be told."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
