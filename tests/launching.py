"""Runs launchers in forks of a process that has already imported the slow libraries."""

import multiprocessing
import os
import pathlib
import runpy
import sys
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
SLOW_LIBRARIES = ("tensorflow", "tensorflow_probability", "tf_agents", "gpflow")
_LIBRARIES = (
    "scipy.stats",
    "rich.progress",
    "gymnasium_robotics",
    "nppac_tf.environments",
    "nppac_tf.demonstrations.formats",
    *SLOW_LIBRARIES,
    "tf_agents.agents",
)


def controller_episodes(largest: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Four episodes of 30 steps of a controller of the pendulum, its actions up to a size."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(4):
        angle, speed = rng.uniform(-3, 3, 30), rng.uniform(-8, 8, 30)
        states = np.stack([np.cos(angle), np.sin(angle), speed], axis=1)
        actions = -2 * states[:, 1:2] - 0.3 * states[:, 2:] + 0.05 * rng.normal(size=(30, 1))
        episodes.append((states, np.clip(actions, -largest, largest)))
    return episodes


class Outcome(NamedTuple):
    """Exit code, standard output and standard error of a launcher."""

    code: int
    output: str
    errors: str


class Launchers:
    """Runs launchers in a folder; all instances share the process to fork from."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, *_LIBRARIES])

    def run(
        self,
        name: str,
        *arguments: str,
        quick: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """Runs a launcher.

        Args:
            name: Such as "train".
            arguments: Of the command line.
            quick: Whether importing a slow library is an error.
            environment: Variables to add.
        """
        files = [str(self.folder / f".{stream}") for stream in ("stdout", "stderr")]
        process = self._context.Process(
            target=_launch,
            args=(name, arguments, str(self.folder), files, quick, dict(environment or {})),
        )
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            process.join()
        output, errors = (pathlib.Path(file).read_text(errors="replace") for file in files)
        return Outcome(process.exitcode or 0, output, errors)


def _launch(
    name: str,
    arguments: tuple[str, ...],
    folder: str,
    files: list[str],
    quick: bool,
    environment: dict[str, str],
) -> None:
    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.update(environment)
    path = str(LAUNCH / f"{name}.py")
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(LAUNCH))
    if quick:
        sys.modules.update(dict.fromkeys(SLOW_LIBRARIES))  # None: importing it is an error.
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
