"""Evaluates a policy: success metrics A, B and final, and the return, with 95 % intervals.

python launch/evaluate.py --run=runs/...
python launch/evaluate.py --saved_model=exported/pen --num_episodes=200
python launch/evaluate.py --prior_file=prior.npz --task=pen-binary --video=prior.mp4
python launch/evaluate.py --demonstrations=embedded:pen --video=demonstrations.gif

A is the fraction of episodes that reach the goal, B the fraction of time at the goal, and final the
fraction of episodes that end at the goal. Policies take their mean action; demonstrations are
replayed open loop from their initial states. For a run, it also reports whether the prior was
uncertain at the start of the episodes that failed.
"""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from common import checks, policies, program
from absl import flags

_SOURCES = ("run", "saved_model", "function", "prior_file", "demonstrations")

policies.define_flags()
flags.DEFINE_string("prior_file", None, "Fitted prior (.npz); its mean is evaluated.")
flags.DEFINE_string("demonstrations", None, "Demonstrations to replay.")
_NUM_EPISODES = flags.DEFINE_integer(
    "num_episodes", 100, "Number of episodes; for demonstrations by default all.", lower_bound=1
)
_SEED = flags.DEFINE_integer(
    "seed",
    1000,
    "Seed of the initial states. The default is not used in training, so that no setting was "
    "chosen on these episodes.",
    lower_bound=0,
)
_VIDEO = flags.DEFINE_string("video", None, "Video of the first episodes to write (.mp4 or .gif).")
_VIDEO_EPISODES = flags.DEFINE_integer(
    "video_episodes", 3, "Number of episodes in the video.", lower_bound=1
)


def main() -> None:
    source = checks.require_one(*_SOURCES)
    video = None
    if _VIDEO.value is None:
        checks.reject("video_episodes", "without --video")
    else:
        video = checks.output_file("video", (".mp4", ".gif"))
        from nppac_tf.evaluation.video import load_renderer

        load_renderer()
    if source == "demonstrations":
        checks.reject("seed", "with --demonstrations")
        _replay(video)
    else:
        _evaluate(_load_prior() if source == "prior_file" else policies.load(), video)
    if video is not None:
        print(video)


def _load_prior() -> policies.Policy:
    path = checks.existing("prior_file")
    task = policies.make_task()
    from nppac_tf import priors
    from nppac_tf.evaluation import rollouts

    prior = priors.load_prior(path)
    policies.require_sizes("prior", (prior.observation_size, prior.action_size), task)
    return policies.Policy("prior mean", rollouts.mean_policy(prior), task, {})


def _evaluate(policy: policies.Policy, video: pathlib.Path | None) -> None:
    from nppac_tf.evaluation import rollouts
    from nppac_tf.runs import display

    with _filming(video, policy.task, _NUM_EPISODES.value) as (on_frame, number):
        if on_frame is not None:
            rollouts.evaluate(policy.act, policy.task, number, _SEED.value, on_frame=on_frame)
    is_run, number = flags.FLAGS.run is not None, _NUM_EPISODES.value
    with display.ProgressDisplay() as progress, progress.busy(f"Acting in {number:,} episodes"):
        episodes = rollouts.evaluate(policy.act, policy.task, number, _SEED.value, record=is_run)
    print(f"{policy.name} on {policy.task.name}, seed {_SEED.value}\n\n{episodes}")
    if is_run:
        _compare_with_run(episodes)


def _compare_with_run(episodes: Any) -> None:
    """Prints whether the prior predicted the failures; without successes, the experts' return."""
    from nppac_tf import priors
    from nppac_tf.evaluation import failure_prediction
    from nppac_tf.runs.directory import RunDirectory

    directory = RunDirectory(checks.existing("run"))
    if math.isnan(episodes.any_success[0]):
        for row in directory.rows()[:1]:
            if "demonstrations/return" in row:
                print(f"The demonstrations' mean return is {row['demonstrations/return']:,.4g}.")
    elif directory.prior.exists():
        print(failure_prediction.describe(priors.load_prior(directory.prior), episodes))


def _replay(video: pathlib.Path | None) -> None:
    import numpy as np

    from nppac_tf import demonstrations
    from nppac_tf.doctor import simulator_replay
    from nppac_tf.runs import display

    recording = demonstrations.load_recording(flags.FLAGS.demonstrations)
    data = recording.demonstrations()
    guessed = None if flags.FLAGS.task else simulator_replay.likeliest_task(recording)
    task = guessed or policies.make_task()
    policies.require_sizes("demonstrations", (data.observation_size, data.action_size), task)
    number = data.num_episodes
    if flags.FLAGS["num_episodes"].present:
        number = min(number, _NUM_EPISODES.value)
    with _filming(video, task, number) as (on_frame, filmed):
        if on_frame is not None:
            simulator_replay.replay_in_simulator(task, recording, filmed, on_frame)
    replayed = simulator_replay.replay_in_simulator(task, recording, number)
    errors = [error[~np.isnan(error)][-1] for error in replayed.errors]
    rows = [
        ("A, any-time success", np.mean(replayed.any_success)),
        ("B, time at goal", np.mean(replayed.time_at_goal)),
        ("return", np.mean([rewards.sum() for rewards in replayed.rewards])),
        ("greatest difference from the last observation (median)", np.median(errors)),
    ]
    display.print_table(
        f"{data.name} replayed on {task.name}, {number} episodes",
        ("", "value"),
        [(name, f"{value:,.4g}") for name, value in rows if not math.isnan(value)],
    )


@contextlib.contextmanager
def _filming(
    video: pathlib.Path | None, task: Any, num_episodes: int
) -> Iterator[tuple[Callable[[Any], None] | None, int]]:
    """Yields what accepts the frames of a video (None without a video), and how many episodes."""
    number = min(_VIDEO_EPISODES.value, num_episodes)
    if video is None:
        yield None, number
        return
    from nppac_tf.evaluation.video import VideoWriter, rendered_fps
    from nppac_tf.runs import display

    with (
        display.ProgressDisplay() as progress,
        progress.busy(f"Filming {number} episodes"),
        VideoWriter(video, rendered_fps(task)) as writer,
    ):
        yield writer.append, number


if __name__ == "__main__":
    program.run(main)
