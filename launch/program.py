"""A launcher as a program: errors in one line, exit codes, and quiet libraries."""

import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import checkout  # noqa: F401
import parsing
import signals
from absl import app, flags

from nppac_tf import hardware
from nppac_tf.errors import UserError

FLAGS = flags.FLAGS

_LONGEST = 300
_REMEDIES = {
    errno.ENOSPC: ": make room on the disk, or write elsewhere",
    errno.EDQUOT: ": make room on the disk, or write elsewhere",
    errno.EACCES: ": ask for access to it, or name another place",
    errno.EPERM: ": ask for access to it, or name another place",
    errno.EROFS: ": write elsewhere",
    errno.ENOENT: ": check the name",
    errno.EMFILE: ": raise the limit of open files (ulimit -n)",
}

flags.DEFINE_boolean("debug", False, "Show where in the program an error arose.")


def run(main: Callable[[], None]) -> NoReturn:
    """Parses the flags, runs a launcher and exits.

    The code is 0, or 1 after an error, 130 after Ctrl-C, 143 after SIGTERM. An error is one line on
    standard error; --debug shows its traceback instead.
    """

    def guarded(argv: list[str]) -> None:
        # A task may be "module:Environment-v0", and its module in the working directory.
        sys.path.append(os.getcwd())
        _quiet()
        os.environ.update(hardware.variables(hardware.available_cores(), os.environ))
        try:
            main()
            sys.stdout.flush()
        except Exception as error:
            if isinstance(error, BrokenPipeError):  # Of `| head`: nobody reads on.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(128 + signal.SIGPIPE)
            if FLAGS.debug:
                raise
            _fail(explain(error), getattr(error, "exit_code", 1))
        except KeyboardInterrupt as interrupt:
            if FLAGS.debug:
                raise
            _fail(str(interrupt) or "interrupted", 130)

    app.run(guarded, flags_parser=_parse)
    raise AssertionError("app.run returns to no one")


def explain(error: Exception) -> str:
    """An exception in one line for the person who ran the program."""
    message = _one_line(str(error))
    if isinstance(error, UserError | FloatingPointError | signals.Stopped):
        return message
    if isinstance(error, MemoryError):
        return f"out of memory ({message or 'no more said'}): take less data or smaller settings"
    if isinstance(error, OSError) and error.errno is not None:
        reason = _one_line(error.strerror or message)
        named = [os.fspath(name) for name in (error.filename, error.filename2) if name]
        place = f"{' -> '.join(map(str, named))}: " if named else ""
        return f"{place}{reason}{_REMEDIES.get(error.errno, '')}"
    kind = type(error).__name__
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]}..."
    return f"unexpected {kind}: {message}; run again with --debug and report what it shows"


def _parse(argv: list[str]) -> list[str]:
    try:
        return parsing.parse(argv)
    except UserError as error:
        _fail(_one_line(str(error)), 1)


def _quiet() -> None:
    """Keeps the libraries' own notices from the terminal; to be called before they are imported."""
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    # Gymnasium's advice on versions of environments, in color.
    warnings.filterwarnings("ignore", r".*WARN: .*(latest versioned|out of date|deprecated)")
    if not FLAGS.debug:
        warnings.showwarning = _show_warning
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"warning: {_one_line(str(message))}", file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
