"""Saving of recordings in another format: npz, Minari or LeRobot v3.0."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from nppac_tf.demonstrations.formats import (
    lerobot,
    lerobot_writer,
    loading,
    minari,
    minari_writer,
)
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.errors import UserError


def check_output(output: str) -> None:
    """Checks an output of `save_recording` before any work is done.

    Raises:
        UserError: It is none, or exists and is not replaced.
    """
    if output.startswith(minari.PREFIX):
        minari_writer.check_new_id(output.removeprefix(minari.PREFIX))
    elif output.startswith(lerobot.PREFIX):
        lerobot_writer.check_new(_folder(output))
    elif not output.endswith(".npz"):
        raise UserError(
            f"output must be a file that ends in .npz, {minari.PREFIX}ID or "
            f"{lerobot.PREFIX}FOLDER; got {output!r}"
        )


def save_recording(
    recording: Recording, output: str, fps: float | None = None, environment: Any = None
) -> tuple[pathlib.Path, list[str]]:
    """Saves a recording, with values in float32, or in the types of the environment's spaces.

    - npz keeps observations, actions, rewards, successes, terminal ends and metadata.
    - Minari keeps everything but timestamps. Where the recording does not say them, rewards are
      nan, the final observation is the last one again, and episodes count as truncated.
    - LeRobot keeps everything but final observations and terminal flags.

    Args:
        recording: Recording without problems.
        output: `FILE.npz`, `minari:ID` or `lerobot:FOLDER`.
        fps: Steps per second, for LeRobot (default: what the recording says).
        environment: For Minari, the environment to store; see `minari_writer.write`.

    Returns:
        The file or folder, and notices of what was made up, one line each.

    Raises:
        UserError: The recording has problems, the output exists or cannot be written, or LeRobot
            needs `fps`.
    """
    check_output(output)
    demonstrations = recording.demonstrations()
    metadata = dict(recording.metadata)
    if recording.environment_id is not None:
        metadata["task"] = recording.environment_id
    if output.startswith(minari.PREFIX):
        episodes, notices = _completed(recording.episodes)
        folder = minari_writer.write(
            output.removeprefix(minari.PREFIX),
            episodes,
            environment,
            algorithm_name=str(metadata.get("algorithm_name") or "unknown"),
            description="; ".join(
                [f"{len(episodes)} episodes of {recording.name} ({recording.format})", *notices]
            ),
            provenance=metadata,
        )
        return folder, notices
    if output.startswith(lerobot.PREFIX):
        fps = metadata.get("fps") if fps is None else fps
        if not isinstance(fps, int | float) or not 0 < fps < np.inf:
            got = "none, and the data do not say it" if fps is None else repr(fps)
            raise UserError(f"fps must be a positive number of steps per second; got {got}")
        lerobot_writer.write(recording, _folder(output), float(fps))
        return _folder(output), []
    loading.save_demonstrations(dataclasses.replace(demonstrations, metadata=metadata), output)
    return pathlib.Path(os.path.expanduser(output)), []


def _folder(output: str) -> pathlib.Path:
    return pathlib.Path(os.path.expanduser(output.removeprefix(lerobot.PREFIX)))


def _completed(
    episodes: tuple[RecordedEpisode, ...],
) -> tuple[list[RecordedEpisode], list[str]]:
    """Fills in what Minari requires, and says what was filled in."""
    have_flags = all(len(_steps(episode, "successes")) for episode in episodes)
    completed = []
    without_final = without_rewards = 0
    for episode in episodes:
        length, states = episode.length, episode.states()
        without_final += len(states) == length
        rewards = _steps(episode, "rewards")
        without_rewards += not len(rewards)
        terminals = _steps(episode, "terminals")
        truncations = _steps(episode, "truncations")
        last = np.arange(length) == length - 1
        ended = len(terminals) > 0 and bool(terminals[-1] > 0)
        completed.append(
            dataclasses.replace(
                episode,
                observations=states[:length],
                final_observation=states[-1],
                rewards=rewards if len(rewards) else np.full(length, np.nan),
                terminals=last & ended,
                truncations=truncations if len(truncations) else last & ~np.bool_(ended),
                successes=_steps(episode, "successes") if have_flags else None,
            )
        )
    made_up = (
        (without_final, "the final observation is not known and repeats the last one"),
        (without_rewards, "rewards are not known and nan"),
    )
    return completed, [
        f"in {count} of {len(episodes)} episodes, {what}" for count, what in made_up if count
    ]


def _steps(episode: RecordedEpisode, field: str) -> np.ndarray:
    """The values [T] of a field, or none if it is absent or of another length."""
    values = getattr(episode, field)
    return values if values is not None and len(values) == episode.length else np.empty(0)
