import os
import shutil
import types

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest

from nppac_tf.environments import make_task
from nppac_tf.errors import UserError
from nppac_tf.evaluation import video


def frame_of(level, height=48, width=64):
    """A flat picture, whose level shows its place in the video."""
    return np.full((height, width, 3), level, np.uint8)


def append_all(path, frames, then=lambda: None):
    with video.VideoWriter(path, 30) as writer:
        for frame in frames:
            writer.append(frame)
        then()


def written(path, fps, levels, **size):
    """Writes a video; returns its metadata and the mean level of each of its frames."""
    with video.VideoWriter(path, fps) as writer:
        for level in levels:
            writer.append(frame_of(level, **size))
    frames = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
    metadata = next(frames)
    return metadata, [np.frombuffer(frame, np.uint8).mean() for frame in frames]


def test_an_mp4_holds_every_frame_in_order_and_plays_everywhere(tmp_path):
    levels = range(20, 220, 10)
    metadata, read_levels = written(tmp_path / "a.mp4", 100, levels, height=49, width=65)
    np.testing.assert_allclose(read_levels, levels, atol=4)
    assert metadata["codec"] == "h264"
    assert metadata["pix_fmt"].startswith("yuv420p")
    assert metadata["fps"] == 100
    assert metadata["size"] == (64, 48)  # Odd sizes lose a pixel.


@pytest.mark.parametrize(("fps", "stride"), [(100, 5), (25, 2), (10, 1)])
def test_a_gif_has_the_same_speed_with_fewer_and_smaller_frames(tmp_path, fps, stride):
    levels = range(50, 50 + 2 * fps, 2)
    metadata, read_levels = written(tmp_path / "a.gif", fps, levels, height=480, width=480)
    np.testing.assert_allclose(read_levels, levels[::stride], atol=6)
    assert metadata["fps"] == pytest.approx(fps / stride)
    assert metadata["duration"] == pytest.approx(1.0, abs=0.05)
    assert metadata["size"] == (320, 320)


def test_a_small_gif_keeps_its_size(tmp_path):
    metadata, read_levels = written(tmp_path / "a.gif", 10, [10, 100, 200])
    assert (len(read_levels), metadata["size"]) == (3, (64, 48))


def test_a_failure_keeps_the_earlier_video_and_leaves_nothing_else(tmp_path):
    (tmp_path / "a.mp4").write_text("earlier")
    with pytest.raises(ZeroDivisionError):
        append_all(tmp_path / "a.mp4", [frame_of(0)], then=lambda: 1 / 0)
    assert (tmp_path / "a.mp4").read_text() == "earlier"
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_folder_that_cannot_be_written_is_a_users_error(tmp_path):
    folder = tmp_path / "videos"
    with pytest.raises(UserError, match=r"a\.mp4 could not be encoded: check free disk space"):
        append_all(folder / "a.mp4", [frame_of(0)], then=lambda: shutil.rmtree(folder))


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([np.zeros((48, 64), np.uint8)], r"must be \[H, W, 3\] uint8; got \[48, 64\] uint8"),
        ([np.zeros((48, 64, 3))], r"got \[48, 64, 3\] float64"),
        ([frame_of(0), frame_of(0, height=50)], r"must be \[48, 64, 3\]; got \[50, 64, 3\]"),
        ([], "must have at least one frame"),
    ],
)
def test_wrong_frames_are_refused(tmp_path, frames, complaint):
    with pytest.raises(UserError, match=complaint):
        append_all(tmp_path / "a.mp4", frames)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "fps", "complaint"),
    [("a.avi", 30, "must end in .mp4 or .gif"), ("a.mp4", 0, "fps must be positive; got 0")],
)
def test_wrong_names_and_rates_are_refused(name, fps, complaint):
    with pytest.raises(UserError, match=complaint):
        video.VideoWriter(name, fps)


@pytest.mark.parametrize(
    ("platform", "display", "chosen", "expected"),
    [
        ("linux", "", None, "egl"),
        ("linux", ":0", None, None),
        ("linux", "", "osmesa", "osmesa"),
        ("darwin", "", None, None),
    ],
)
def test_offscreen_rendering_is_chosen_on_linux_without_a_display(
    monkeypatch, platform, display, chosen, expected
):
    monkeypatch.setattr(video, "sys", types.SimpleNamespace(platform=platform))
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "")  # Restores the present value after the test.
    monkeypatch.delenv("MUJOCO_GL")
    if chosen:
        monkeypatch.setenv("MUJOCO_GL", chosen)
    video.load_renderer()
    assert os.environ.get("MUJOCO_GL") == expected


class DrawnEnvironment(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, render_mode=None, broken=False):
        self.render_mode, self._broken = render_mode, broken

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
    def register(environment, **kwargs):
        gymnasium.register("nppac_tests/Drawn-v0", environment, kwargs=kwargs)
        return make_task("nppac_tests/Drawn-v0")

    yield register
    del gymnasium.registry["nppac_tests/Drawn-v0"]


def test_the_rate_is_the_environments(registered):
    assert video.rendered_fps(registered(DrawnEnvironment)) == 12


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("environment", "kwargs", "complaint"),
    [
        (DrawnEnvironment, {"broken": True}, r"cannot be drawn \(AttributeError: .*libegl1"),
        (UndrawnEnvironment, {}, "Drawn-v0' cannot be drawn"),
    ],
)
def test_a_task_that_cannot_be_drawn_is_a_users_error(registered, environment, kwargs, complaint):
    with pytest.raises(UserError, match=complaint):
        video.rendered_fps(registered(environment, **kwargs))
