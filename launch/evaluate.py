"""Evaluates a policy: metrics A, B and final success, and the return, with 95 % intervals.

python launch/evaluate.py --run=runs/...
python launch/evaluate.py --saved_model=exported/pen --num_episodes=200
python launch/evaluate.py --prior_file=prior.npz --video=prior.mp4
python launch/evaluate.py --demonstrations=embedded:pen --video=demonstrations.gif

The mean action is taken; demonstrations are replayed, open loop, from where they began. A is the
share of episodes that reach the goal, B the share of time at the goal, and final success the share
of episodes that end there. Of a run it also says whether its prior was unsure, where they began, of
the episodes that failed. A video shows the first episodes.
"""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import path_flags
import policy_flags
import program
import usage
from absl import flags

_SOURCES = ("run", "saved_model", "prior_file", "demonstrations")

policy_flags.define_policy_source()
flags.DEFINE_string("prior_file", None, "A fitted prior (.npz), for its mean.")
flags.DEFINE_string("demonstrations", None, "Demonstrations, to be replayed.")
_NUM_EPISODES = flags.DEFINE_integer(
    "num_episodes", 100, "Episodes; of demonstrations all, if not given.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the episodes.", lower_bound=0)
_VIDEO = flags.DEFINE_string("video", None, "A video to make (.mp4 or .gif).")
_VIDEO_EPISODES = flags.DEFINE_integer(
    "video_episodes", 3, "Episodes in the video: the first ones.", lower_bound=1
)


def main() -> None:
    source = usage.require_one(*_SOURCES)
    video = None
    if _VIDEO.value is None:
        usage.reject("video_episodes", "without --video")
    else:
        video = path_flags.require_output("video", (".mp4", ".gif"))
        from nppac_tf.evaluation.video import load_renderer

        load_renderer()
    if source == "demonstrations":
        usage.reject("seed", "with --demonstrations")
        _replay(video)
    else:
        _evaluate(source, video)
    if video is not None:
        print(video)


def _evaluate(source: str, video: pathlib.Path | None) -> None:
    if source == "prior_file":
        name, policy, task = _load_prior()
    else:
        name, policy, task, _ = policy_flags.load_policy_source()
    from nppac_tf.evaluation import rollouts
    from nppac_tf.runs import display as progress
    from nppac_tf.runs import metrics

    with _frames(video, task) as on_frame:
        if on_frame is not None:
            number = min(_VIDEO_EPISODES.value, _NUM_EPISODES.value)
            with progress.ProgressDisplay() as display, display.busy(f"Filming {number} episodes"):
                rollouts.evaluate(policy, task, number, _SEED.value, on_frame=on_frame)
    episodes = rollouts.evaluate(
        policy, task, _NUM_EPISODES.value, _SEED.value, record=source == "run"
    )
    intervals = episodes.intervals()
    progress.print_table(
        f"{name} on {task.name}, {_NUM_EPISODES.value} episodes, seed {_SEED.value}",
        ("", "mean", "95 % interval"),
        [
            (
                metrics.LABELS[metric],
                f"{mean:,.4g}",
                "[{:,.4g}, {:,.4g}]".format(*intervals[metric]),
            )
            for metric, mean in episodes.summary().items()
            if not math.isnan(mean)
        ],
    )
    if source == "run":
        _foretell(episodes)


def _foretell(episodes: Any) -> None:
    """Says whether the run's prior was unsure, where they began, of the episodes that failed."""
    from nppac_tf import priors
    from nppac_tf.evaluation import failure_prediction
    from nppac_tf.runs import directory

    path = directory.RunDirectory(path_flags.require_run("run")).prior
    if path.exists() and not math.isnan(episodes.any_success[0]):
        print(failure_prediction.told(priors.load_prior(path), episodes))


def _load_prior() -> tuple[str, Callable[[Any], Any], Any]:
    path = path_flags.require_prior_file("prior_file")
    task = policy_flags.make_task() if flags.FLAGS.task else None
    import tensorflow as tf

    from nppac_tf import priors

    prior = priors.load_prior(path)
    sizes = (prior.observation_size, prior.action_size)
    task = task or policy_flags.make_task(sizes=sizes)
    policy_flags.require_sizes("prior", sizes, task)
    statistics = tf.function(prior.statistics)
    return "prior mean", lambda observations: statistics(observations).location.numpy(), task


def _replay(video: pathlib.Path | None) -> None:
    import numpy as np

    from nppac_tf.demonstrations.formats.loading import load_recording
    from nppac_tf.doctor import simulator_replay
    from nppac_tf.runs import display as progress

    recording = load_recording(flags.FLAGS.demonstrations)
    data = recording.demonstrations()
    sizes = (data.observation_size, data.action_size)
    guessed = None if flags.FLAGS.task else simulator_replay.likeliest_task(recording)
    task = guessed or policy_flags.make_task(sizes=sizes)
    policy_flags.require_sizes("demonstrations", sizes, task)
    number = data.num_episodes
    if flags.FLAGS["num_episodes"].present:
        number = min(number, _NUM_EPISODES.value)
    with _frames(video, task) as on_frame:
        if on_frame is not None:
            filmed = min(_VIDEO_EPISODES.value, number)
            with progress.ProgressDisplay() as display, display.busy(f"Filming {filmed} episodes"):
                simulator_replay.replay_in_simulator(task, recording, filmed, on_frame)
    replayed = simulator_replay.replay_in_simulator(task, recording, number)
    rows = [
        ("episodes that reach the goal", np.mean(replayed.any_success)),
        ("time at the goal", np.mean(replayed.time_at_goal)),
        ("return", np.mean([rewards.sum() for rewards in replayed.rewards])),
        (
            "greatest difference from the last observation (median)",
            np.median([_last(error) for error in replayed.errors]),
        ),
    ]
    progress.print_table(
        f"{data.name} replayed on {task.name}, {number} episodes",
        ("", "value"),
        [(name, f"{value:,.4g}") for name, value in rows if not math.isnan(value)],
    )


def _last(errors: Any) -> float:
    """The difference from the last observation that was recorded."""
    return float(errors[errors == errors][-1])


@contextlib.contextmanager
def _frames(video: pathlib.Path | None, task: Any) -> Iterator[Callable[[Any], None] | None]:
    """What takes the frames of a video; None where none is asked for."""
    if video is None:
        yield None
        return
    from nppac_tf.evaluation.video import VideoWriter, rendered_fps

    with VideoWriter(video, rendered_fps(task)) as writer:
        yield writer.append


if __name__ == "__main__":
    program.run(main)
