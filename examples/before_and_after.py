"""Films a run before and after learning: its prior above, its policy below, from the same starts.

python examples/before_and_after.py --run=runs/pen --output=before_and_after.gif

A green frame means that the episode is at the goal.
"""

import matplotlib.backends.backend_agg
import matplotlib.figure
import numpy as np
import tensorflow as tf
from absl import app, flags

import nppac_tf as nppac
from nppac_tf.evaluation.video import VideoWriter, load_renderer, rendered_fps
from nppac_tf.runs.directory import RunDirectory

FLAGS = flags.FLAGS
flags.DEFINE_string("run", None, "Folder of the run.", required=True)
flags.DEFINE_string("output", "before_and_after.gif", "Video to write (.gif or .mp4).")
flags.DEFINE_integer("num_episodes", 4, "Episodes side by side.", lower_bound=1)
flags.DEFINE_integer("seed", 1000, "Seed of the starts.", lower_bound=0)
flags.DEFINE_float(
    "zoom", 1.0, "Factor by which to enlarge the middle of the picture.", lower_bound=1
)
flags.DEFINE_float("speed", 1.0, "Speed, in units of simulated time.", lower_bound=0.01)
flags.DEFINE_integer("size", 160, "Height and width of an episode, in pixels.", lower_bound=16)

GREEN, GRAY = (0, 158, 115), (90, 90, 90)
BORDER = 4


def film(act, task: nppac.Task) -> np.ndarray:
    """Frames [T, size, num_episodes * size, 3] uint8 of a policy's first episodes."""
    frames: list[np.ndarray] = []
    episodes = nppac.evaluate(
        act,
        task,
        FLAGS.num_episodes,
        FLAGS.seed,
        record=True,
        on_frame=lambda f: frames.append(cut(f)),
    )
    films, first = [], 0
    for successes in episodes.successes:
        last = first + len(successes) + 1  # One more frame than steps.
        film = np.stack(frames[first:last])
        for frame, at_goal in zip(film[1:], successes, strict=True):
            outline(frame, GREEN if at_goal else GRAY)
        outline(film[0], GRAY)
        films.append(film)
        first = last
    longest = max(len(film) for film in films)
    films = [np.pad(f, [(0, longest - len(f)), *[(0, 0)] * 3], mode="edge") for f in films]
    return np.concatenate(films, axis=2)


def cut(frame: np.ndarray) -> np.ndarray:
    """The middle of a frame [H, W, 3], scaled to [size, size, 3]."""
    side = round(min(frame.shape[:2]) / FLAGS.zoom)
    top, left = ((length - side) // 2 for length in frame.shape[:2])
    square = tf.constant(frame[top : top + side, left : left + side])
    small = tf.image.resize(square, [FLAGS.size, FLAGS.size], method="area")
    return tf.cast(small, tf.uint8).numpy()


def outline(frame: np.ndarray, color: tuple[int, int, int]) -> None:
    """Draws a border into a frame."""
    for edge in (np.s_[:BORDER], np.s_[-BORDER:], np.s_[:, :BORDER], np.s_[:, -BORDER:]):
        frame[edge] = color


def title(text: str, width: int, height: int = 24) -> np.ndarray:
    """A line of text as an image [height, width, 3]."""
    figure = matplotlib.figure.Figure(figsize=(width / 100, height / 100), dpi=100)
    canvas = matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    figure.text(0.01, 0.5, text, va="center", fontsize=9)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:height, :width, :3].copy()


def main(_) -> None:
    """Films and writes."""
    load_renderer()
    agent, task = RunDirectory(FLAGS.run).load_agent()
    mean = tf.function(lambda states: agent.prior.statistics(states).location, autograph=False)
    before = film(lambda states: mean(tf.constant(states)).numpy(), task)
    after = film(agent.policy, task)
    width = before.shape[2]
    titles = title("Before learning: the prior", width), title("After learning", width)
    with VideoWriter(FLAGS.output, rendered_fps(task) * FLAGS.speed, gif_width=width) as writer:
        for step in range(max(len(before), len(after))):
            upper, lower = (part[min(step, len(part) - 1)] for part in (before, after))
            writer.append(np.concatenate([titles[0], upper, titles[1], lower]))
    print(FLAGS.output)


if __name__ == "__main__":
    app.run(main)
