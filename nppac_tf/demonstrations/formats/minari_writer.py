"""Writing of Minari data sets, by Minari's own functions."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nppac_tf.demonstrations.formats.minari import ID_PATTERN, quiet, root
from nppac_tf.demonstrations.recording import RecordedEpisode
from nppac_tf.environments.standard import unbounded_box
from nppac_tf.errors import UserError


def write(
    dataset_id: str,
    episodes: Sequence[RecordedEpisode],
    environment: Any,
    algorithm_name: str,
    description: str,
    provenance: Mapping[str, Any],
) -> pathlib.Path:
    """Writes a data set for `minari.load_dataset`. If that fails, nothing remains of it.

    Args:
        dataset_id: Id such as `pen/mine-v0`. The data set goes into the folder that the environment
            variable MINARI_DATASETS_PATH names (default: ~/.minari/datasets).
        episodes: Episodes, each with observations [T, D], final observation [D], actions [T, A],
            rewards, terminals and truncations [T], and perhaps successes [T].
        environment: Gymnasium environment of the episodes. Its spaces are stored, and its spec,
            from which Minari can recover it, unless it was registered by a class. If None, the
            spaces are unbounded.
        algorithm_name: Name of the policy.
        description: One sentence that describes the data set.
        provenance: JSON-serializable mapping, stored under "provenance".

    Returns:
        The data set's folder.

    Raises:
        UserError: The id is malformed or taken, an episode lacks its final observation, or the data
            set cannot be written.
    """
    with quiet():
        import minari
        from minari.data_collector import EpisodeBuffer

    check_new_id(dataset_id)
    folder = root() / dataset_id
    if environment is None:
        observation_space, action_space = (
            unbounded_box(values.shape[1:])
            for values in (episodes[0].observations, episodes[0].actions)
        )
    else:
        observation_space, action_space = environment.observation_space, environment.action_space
    buffers = []
    for episode in episodes:
        if episode.final_observation is None:
            raise UserError("episodes must each have a final observation; got None")
        states = np.concatenate([episode.observations, episode.final_observation[None]])
        successes = episode.successes
        if successes is None or np.isnan(successes).any():
            infos = None
        else:  # Minari's infos begin with that of the reset.
            infos = {"success": np.append(0.0, successes).astype(np.float32)}
        buffers.append(
            EpisodeBuffer(
                observations=states.astype(observation_space.dtype),
                actions=episode.actions.astype(action_space.dtype),
                rewards=episode.rewards,
                terminations=np.asarray(episode.terminals, np.bool_),
                truncations=np.asarray(episode.truncations, np.bool_),
                infos=infos,
            )
        )
    try:
        with quiet():
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                env=_recoverable(environment),
                observation_space=observation_space,
                action_space=action_space,
                algorithm_name=algorithm_name,
                description=description,
            )
            dataset.storage.update_metadata({"provenance": dict(provenance)})
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(
                f"the data set must be writable; got {folder} ({error.strerror or error})"
            ) from error
        raise
    return folder


def _recoverable(environment: Any) -> Any:
    """The environment, if its spec can be stored; None if it was registered by its class."""
    spec = getattr(environment, "spec", None)
    try:
        return environment if spec is None or spec.to_json() else None
    except ValueError:
        return None


def check_new_id(dataset_id: str) -> None:
    """Raises UserError unless a data set of this id can be written."""
    if not ID_PATTERN.fullmatch(dataset_id):
        raise UserError(
            "a Minari data set must have an id such as pen/mine-v0, with a version at its end; "
            f"got {dataset_id!r}"
        )
    folder = root() / dataset_id
    if folder.exists():
        raise UserError(
            f"a new Minari data set must not exist yet; got {dataset_id!r}, which is in {folder}: "
            "choose another version"
        )
