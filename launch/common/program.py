"""Runs a launcher: quiet libraries, errors in one line, exit codes, signals."""

import contextlib
import importlib.abc
import importlib.util
import logging
import os
import pathlib
import shlex
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import flags
from absl import logging as absl_logging

from common import parsing
from nppac_tf import command as nppac_command
from nppac_tf import hardware
from nppac_tf.errors import UserError

flags.disclaim_key_flags()  # The flags belong to the launcher.


def run(
    main: Callable[..., None], main_options: Sequence[str] = (), takes_arguments: bool = False
) -> NoReturn:
    """Parses the flags, runs a launcher and exits.

    The exit code is 0, 1 after an error, 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP.
    An error is one line on standard error, and so is an interrupt; --debug shows the traceback
    instead. --help lists `main_options` first. If the launcher takes arguments that are not flags,
    `main` is called with their list.
    """
    flags.DEFINE_string("flagfile", None, "File with a flag per line; later flags override it.")
    flags.DEFINE_boolean("debug", False, "Show the traceback of an error.")
    # A task may be "module:Environment-v0" with its module in the working directory.
    sys.path.append(os.getcwd())
    _open_closed_streams()
    silence_libraries()
    os.environ.update(hardware.variables(hardware.available_cores(), os.environ))
    try:
        arguments = parsing.parse(main_options, takes_arguments)
        main(*([arguments] if takes_arguments else []))
        sys.stdout.flush()
    except BrokenPipeError:  # The reader has left, as in `| head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (Exception, KeyboardInterrupt) as error:
        if flags.FLAGS["debug"].value:
            raise
        interrupted = isinstance(error, KeyboardInterrupt)
        print(f"{'' if interrupted else 'error: '}{explain(error)}", file=sys.stderr)
        sys.exit(130 if interrupted else 1)
    sys.exit(0)


def explain(error: BaseException) -> str:
    """Describes an exception in one line, for the person who ran the program."""
    message = parsing.as_typed(" ".join(str(error).split()))
    if isinstance(error, UserError | OSError | FloatingPointError | KeyboardInterrupt):
        return message or "interrupted"
    message = f"{type(error).__name__}: {message[:300]}"
    return f"unexpected {message}; run again with --debug and report the traceback"


class StopRequest:
    """Which signal asked the program to stop: "SIGINT", "SIGTERM", "SIGHUP", or None."""

    requested: str | None = None

    def exit(self, how_to_continue: str) -> NoReturn:
        """Exits with one line on standard error and the shell's exit code for the signal."""
        print(f"stopped by {self.requested}; {how_to_continue}", file=sys.stderr)
        sys.exit(128 + signal.Signals[str(self.requested)])


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Records SIGINT (Ctrl-C), SIGTERM and SIGHUP, so that a long loop can stop at a good moment.

    SIGHUP comes when a terminal or a connection closes; under nohup it stays ignored.

    The first signal is recorded in the yielded request. A SIGINT after it raises KeyboardInterrupt.
    """
    stop = StopRequest()

    def record(number: int, _: Any) -> None:
        if stop.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = stop.requested or signal.Signals(number).name

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, record) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command(*arguments: str, launcher: str | None = None) -> str:
    """This program, or another launcher, with other arguments, to be pasted into a shell."""
    if nppac_command.running:
        name = nppac_command.name_of(launcher or pathlib.Path(sys.argv[0]).stem)
        return shlex.join(["nppac", name, *arguments])
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    path = sys.argv[0]
    if launcher is not None:
        path = os.path.join(os.path.dirname(path), f"{launcher}.py")
    return shlex.join([python, path, *arguments])


def _open_closed_streams() -> None:
    """Lets standard output and error lead nowhere if they are closed, as for a daemon."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


class _QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Imports TensorFlow without what its native library writes, whatever the log level (2.21)."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            loader.exec_module = _without_stderr(loader.exec_module)
        return spec


def _without_stderr(execute: Callable[[Any], None]) -> Callable[[Any], None]:
    def quietly(module: Any) -> None:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            execute(module)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)

    return quietly


def silence_libraries() -> None:
    """Keeps notices of libraries from the terminal; call it before they are imported."""
    from gym_notices import notices

    notices.notices.clear()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for category in (SyntaxWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)
    # Gymnasium's advice on versions of environments, in color.
    warnings.filterwarnings("ignore", r".*WARN: .*(latest versioned|out of date|deprecated)")
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    sys.meta_path.insert(0, _QuietTensorFlow())
    absl_logging.set_verbosity(absl_logging.ERROR)
    for name in ("root", "tensorflow"):  # tf2onnx warns through the root logger.
        logging.getLogger(name).setLevel(logging.ERROR)
