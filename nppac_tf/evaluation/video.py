"""Videos of episodes, .mp4 or .gif.

Glossary: H and W are a frame's height and width in pixels.
"""

import contextlib
import math
import os
import pathlib
import secrets
import sys
import warnings
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from nppac_tf.errors import UserError

if TYPE_CHECKING:
    from nppac_tf.environments import Task

SUFFIXES = (".mp4", ".gif")

_DEFAULT_FPS = 30.0  # For environments without "render_fps".
_EVEN_SIZE = "crop=trunc(iw/2)*2:trunc(ih/2)*2"
_GIF_FPS = 20.0
# One palette for the whole video; frames store only what changed.
_GIF_FILTER = (
    "scale='min({width},iw)':-1:flags=area,split[a][b];"
    "[a]palettegen[p];[b][p]paletteuse=dither=bayer:diff_mode=rectangle"
)

_ADVICE = (
    "install EGL (Debian: apt-get install libegl1) and set MUJOCO_GL=egl, or install OSMesa "
    "(libosmesa6) and set MUJOCO_GL=osmesa"
)


class VideoWriter:
    """Context manager that writes a video atomically.

    An .mp4 is H.264 with 4:2:0 color, which every player supports; odd sizes lose a pixel. A .gif
    drops frames to have at most 20 per second at the same speed.

    Args:
        path: File name that ends in .mp4 or .gif; an earlier file is replaced on exit.
        fps: Frames per second of the appended frames.
        gif_width: Largest width of a .gif, in pixels.

    Raises:
        UserError: if the name has another ending, or fps is not positive.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float, gif_width: int = 320) -> None:
        self._path = pathlib.Path(path)
        if self._path.suffix.lower() not in SUFFIXES:
            raise UserError(f"path must end in {' or '.join(SUFFIXES)}; got {str(path)!r}")
        if not fps > 0:
            raise UserError(f"fps must be positive; got {fps}")
        self._gif_width = gif_width
        self._is_gif = self._path.suffix.lower() == ".gif"
        self._stride = math.ceil(fps / _GIF_FPS) if self._is_gif else 1
        self._fps = fps / self._stride
        part = f".{self._path.stem}.{secrets.token_hex(4)}.part{self._path.suffix}"
        self._part = self._path.with_name(part)
        self._encoder: Generator[None, Any, None] | None = None
        self._shape: tuple[int, ...] = ()
        self._received = 0
        self._written = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def append(self, frame: np.ndarray) -> None:
        """Adds a frame.

        Args:
            frame: [H, W, 3] uint8, all of one size.

        Raises:
            UserError: if the frame has another shape or type, or cannot be encoded.
        """
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise UserError(
                f"a frame must be [H, W, 3] uint8; got {list(frame.shape)} {frame.dtype}"
            )
        if self._encoder is None:
            self._shape = frame.shape
            self._encoder = self._open()
        if frame.shape != self._shape:
            raise UserError(f"all frames must be {list(self._shape)}; got {list(frame.shape)}")
        if self._received % self._stride == 0:
            try:
                self._encoder.send(np.ascontiguousarray(frame))
            except OSError as error:
                raise self._broken() from error
            self._written += 1
        self._received += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._encoder is not None:
                self._encoder.close()
            if kind is None:
                self._finish()
        finally:
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)

    def _finish(self) -> None:
        import imageio_ffmpeg

        if not self._written:
            raise UserError(f"{self._path} must have at least one frame; got none")
        try:
            count, _ = imageio_ffmpeg.count_frames_and_secs(str(self._part))
        except (OSError, RuntimeError) as error:
            raise self._broken() from error
        if count != self._written:
            raise self._broken()
        os.replace(self._part, self._path)

    def _broken(self) -> UserError:
        return UserError(
            f"{self._path} could not be encoded: check free disk space and permission to write"
        )

    def _open(self) -> Generator[None, Any, None]:
        import imageio_ffmpeg

        height, width, _ = self._shape
        if self._is_gif:
            options: dict[str, Any] = {
                "codec": "gif",
                "pix_fmt_out": "pal8",
                "output_params": ["-filter_complex", _GIF_FILTER.format(width=self._gif_width)],
            }
        else:
            options = {
                "codec": "libx264",
                "pix_fmt_out": "yuv420p",
                "output_params": [
                    "-vf",
                    _EVEN_SIZE,
                    "-movflags",
                    "+faststart",
                ],
            }
        encoder = imageio_ffmpeg.write_frames(
            str(self._part),
            (width, height),
            fps=self._fps,
            macro_block_size=1,
            ffmpeg_log_level="quiet",
            **options,
        )
        encoder.send(None)
        return encoder


def load_renderer() -> None:
    """Loads MuJoCo with a renderer that works on this machine; call it before making a task.

    On Linux without a display this is EGL, unless `MUJOCO_GL` is set.

    Raises:
        UserError: if the graphics library is missing, with the package to install.
    """
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame's, for the classic environments.
    from nppac_tf import environments

    try:
        environments.make_task("Pendulum-v1")  # Every task loads MuJoCo.
    except Exception as error:  # Graphics libraries raise anything, AttributeError included.
        chosen = os.environ.get("MUJOCO_GL", "")
        raise UserError(
            f"MuJoCo cannot draw with MUJOCO_GL={chosen} ({_reason(error)}): {_ADVICE}"
        ) from error


def rendered_fps(task: "Task") -> float:
    """Renders one frame of a task, and returns its frames per second of simulated time.

    Raises:
        UserError: if the task cannot be rendered, with the package to install.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium warns about what is an error here.
            environment = task.make("rgb_array")
        with contextlib.closing(environment):
            environment.reset(seed=0)
            frame = environment.render()
            fps = environment.metadata.get("render_fps") or _DEFAULT_FPS
    except Exception as error:
        raise UserError(
            f"task {task.name!r} cannot be drawn ({_reason(error)}): its environment must support "
            f"render_mode='rgb_array'; if it does, {_ADVICE}"
        ) from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise UserError(
            f"task {task.name!r} must render frames [H, W, 3] with render_mode='rgb_array'; "
            f"got {type(frame).__name__}"
        )
    return float(fps)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
