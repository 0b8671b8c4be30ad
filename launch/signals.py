"""Ending a long launcher in its own time when a signal asks for it."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


class Stopped(Exception):
    """A launcher stops early because a signal asked for it; its message says how to go on."""

    def __init__(self, signal_name: str, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal.Signals[signal_name]


class StopRequest:
    """Whether a signal has asked the program to stop.

    Attributes:
        requested: Name of the first such signal, "SIGINT" or "SIGTERM"; None before.
    """

    def __init__(self) -> None:
        self.requested: str | None = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Lets a long loop end in its own time on SIGINT (Ctrl-C) or SIGTERM.

    The first signal is only noted, in what this gives; the loop looks there. A SIGINT after it
    raises KeyboardInterrupt at once. On leaving, the handlers are those of before.
    """
    stop = StopRequest()

    def note(number: int, _: Any) -> None:
        if stop.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = stop.requested or signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
