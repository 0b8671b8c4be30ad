"""Runs a launcher as a program of its own in a fork of a process that has the libraries already."""

import multiprocessing
import os
import pathlib
import runpy
import sys
from typing import NamedTuple

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
SLOW_LIBRARIES = ("tensorflow", "tensorflow_probability", "tf_agents", "gpflow")
_LIBRARIES = (
    "absl.app",
    "scipy.stats",
    "rich.progress",
    "gymnasium_robotics",
    "nppac_tf.environments",
    "nppac_tf.demonstrations.formats",
    *SLOW_LIBRARIES,
    "tf_agents.agents",
)


class Outcome(NamedTuple):
    """What a launcher came to."""

    code: int
    output: str
    errors: str


class Launchers:
    """Runs launchers in a folder; the process to fork from is shared, and ends with the tests."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, *_LIBRARIES])

    def run(self, name: str, *arguments: str, quick: bool = False) -> Outcome:
        """Runs a launcher.

        Args:
            name: Such as "train".
            arguments: Of the command line.
            quick: Whether to let no library be imported that takes seconds.
        """
        files = [str(self.folder / f".{stream}") for stream in ("stdout", "stderr")]
        process = self._context.Process(
            target=_launch, args=(name, arguments, str(self.folder), files, quick)
        )
        process.start()
        process.join(120)
        if process.exitcode is None:
            process.kill()
            process.join()
        output, errors = (pathlib.Path(file).read_text(errors="replace") for file in files)
        return Outcome(process.exitcode or 0, output, errors)


def _launch(
    name: str, arguments: tuple[str, ...], folder: str, files: list[str], quick: bool
) -> None:
    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.chdir(folder)
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
