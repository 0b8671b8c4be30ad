import os
import shutil
import sys

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nppac_tf.environments import make_task
from nppac_tf.errors import UserError
from nppac_tf.evaluation import video


def frame_of(level, height=48, width=64):
    """A flat picture, whose level tells its place in the video."""
    return np.full((height, width, 3), level, np.uint8)


def write(path, fps, levels, **size):
    with video.VideoWriter(path, fps) as writer:
        for level in levels:
            writer.append(frame_of(level, **size))
    return read(path)


def append_all(path, frames, then=lambda: None):
    with video.VideoWriter(path, 30) as writer:
        for frame in frames:
            writer.append(frame)
        then()


def read(path):
    """The video's metadata and the mean level of each of its frames."""
    frames = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
    metadata = next(frames)
    return metadata, [np.frombuffer(frame, np.uint8).mean() for frame in frames]


def test_an_mp4_holds_each_frame_in_order_for_every_player(tmp_path):
    levels = range(20, 220, 10)
    metadata, read_levels = write(tmp_path / "a.mp4", 100, levels)
    np.testing.assert_allclose(read_levels, levels, atol=4)
    assert metadata["codec"] == "h264"
    assert metadata["pix_fmt"].startswith("yuv420p")
    assert metadata["fps"] == 100
    assert metadata["size"] == (64, 48)


def test_a_gif_keeps_true_time_with_fewer_and_smaller_frames(tmp_path):
    levels = range(50, 250, 2)
    metadata, read_levels = write(tmp_path / "a.gif", 100, levels, height=480, width=480)
    np.testing.assert_allclose(read_levels, levels[::5], atol=6)
    assert metadata["fps"] == 20
    assert metadata["duration"] == pytest.approx(1.0)
    assert metadata["size"] == (320, 320)
    assert metadata["codec"].startswith("gif")


def test_a_small_gif_keeps_its_size_and_frames(tmp_path):
    metadata, read_levels = write(tmp_path / "a.gif", 10, [10, 100, 200])
    assert len(read_levels) == 3
    assert metadata["size"] == (64, 48)


def test_odd_sizes_lose_a_pixel(tmp_path):
    metadata, read_levels = write(tmp_path / "a.mp4", 30, [100], height=49, width=65)
    assert metadata["size"] == (64, 48)
    assert len(read_levels) == 1


@settings(max_examples=6)
@given(fps=st.floats(1, 200), suffix=st.sampled_from(video.SUFFIXES), count=st.integers(1, 9))
def test_any_rate_and_length_is_whole(tmp_path_factory, fps, suffix, count):
    path = tmp_path_factory.mktemp("video") / f"a{suffix}"
    with video.VideoWriter(path, fps) as writer:
        for index in range(count):
            writer.append(frame_of(20 * index))
    stride = -(-fps // 20) if suffix == ".gif" else 1
    assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == -(-count // stride)


def test_a_failure_leaves_the_earlier_video_and_nothing_else(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("earlier")
    with pytest.raises(ZeroDivisionError):
        append_all(path, [frame_of(0)], then=lambda: 1 / 0)
    assert path.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_broken_encoder_is_a_users_error(tmp_path, monkeypatch):
    monkeypatch.setattr(imageio_ffmpeg, "count_frames_and_secs", lambda _: (1, 0.1))
    with pytest.raises(UserError, match=r"a\.mp4 cannot be encoded: check the room"):
        append_all(tmp_path / "a.mp4", [frame_of(0)] * 2)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_a_users_error(tmp_path):
    folder = tmp_path / "videos"
    with pytest.raises(UserError, match="cannot be encoded"):
        append_all(folder / "a.mp4", [frame_of(0)], then=lambda: shutil.rmtree(folder))


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (np.zeros((48, 64), np.uint8), r"must be \[H, W, 3\] uint8; got \[48, 64\] uint8"),
        (np.zeros((48, 64, 3)), r"got \[48, 64, 3\] float64"),
        (frame_of(0, height=50), r"all frames must be \[48, 64, 3\]; got \[50, 64, 3\]"),
    ],
)
def test_a_wrong_frame_is_refused(tmp_path, frame, complaint):
    with pytest.raises(UserError, match=complaint):
        append_all(tmp_path / "a.mp4", [frame_of(0), frame])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "fps", "complaint"),
    [("a.avi", 30, "must end in .mp4 or .gif"), ("a.mp4", 0, "fps must be positive; got 0")],
)
def test_a_wrong_video_is_refused(name, fps, complaint):
    with pytest.raises(UserError, match=complaint):
        video.VideoWriter(name, fps)


def test_a_video_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="must have a frame"):
        append_all(tmp_path / "a.mp4", [])


@pytest.mark.skipif(sys.platform != "linux", reason="displays are found otherwise elsewhere")
@pytest.mark.parametrize(
    ("display", "chosen", "expected"),
    [("", None, "egl"), (":0", None, None), ("", "osmesa", "osmesa")],
)
def test_offscreen_rendering_is_chosen_without_a_display(monkeypatch, display, chosen, expected):
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "")  # Restored to what it was, afterwards.
    monkeypatch.delenv("MUJOCO_GL")
    if chosen:
        monkeypatch.setenv("MUJOCO_GL", chosen)
    video.load_renderer()
    assert os.environ.get("MUJOCO_GL") == expected


class DrawnEnvironment(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012

    def __init__(self, render_mode=None, broken=False):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
        self.render_mode = render_mode
        self._broken = broken

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def render(self):
        if self._broken:
            raise AttributeError("'NoneType' object has no attribute 'glGetError'")
        return frame_of(1)


class UndrawnEnvironment(DrawnEnvironment):
    def __init__(self):
        super().__init__()


@pytest.fixture
def registered():
    ids = []

    def register(environment, **kwargs):
        ids.append(f"nppac_tests/{environment.__name__}-v0")
        gymnasium.register(ids[-1], environment, max_episode_steps=5, kwargs=kwargs)
        return make_task(ids[-1])

    yield register
    for name in ids:
        del gymnasium.registry[name]


def test_the_rate_is_the_environments(registered):
    assert video.rendered_fps(registered(DrawnEnvironment)) == 12


def test_a_task_that_cannot_be_drawn_is_a_users_error(registered):
    with pytest.raises(UserError, match=r"cannot be drawn \(AttributeError: .*libegl1"):
        video.rendered_fps(registered(DrawnEnvironment, broken=True))


@pytest.mark.filterwarnings("error")
def test_a_task_without_pictures_is_a_users_error(registered):
    with pytest.raises(UserError, match="UndrawnEnvironment-v0' cannot be drawn"):
        video.rendered_fps(registered(UndrawnEnvironment))
