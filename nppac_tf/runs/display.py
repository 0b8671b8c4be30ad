"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

import contextlib
import datetime
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich import box, console, progress, table, text

# Metric, its label, its format.
_SHOWN = (
    ("eval/any_success", "A", ".2f"),
    ("eval/time_at_goal", "B", ".2f"),
    ("eval/final_success", "final", ".2f"),
    ("eval/return", "return", ",.1f"),
    ("demonstrations/return", "demonstrations", ",.1f"),
    ("train/return", "collected", ",.1f"),
    ("train/kl", "KL", ",.1f"),
    ("train/q_value", "Q", ",.1f"),
    ("train/prior_scale", "prior scale", ".3g"),
    ("train/updates_per_second", "updates/s", ",.0f"),
)
_STAGES = {"pretraining": "Pre-training the actor", "training": "Training"}
_SPEED_WINDOW_SECONDS = 300.0
_LONGEST_SILENCE = 30.0


class ProgressDisplay:
    """An observer of `training.train` that shows its progress.

    A terminal shows a bar with the stage and the remaining time, the latest metrics below it, and
    one line per evaluation above it. Other outputs (a pipe, a file) get plain lines: one at the
    start of a stage, one per evaluation, and where nothing else is printed one every 30 seconds.
    Metrics that are absent or nan are left out.

    Args:
        output: Console to write to; None for standard output.
        longest_silence: Seconds after which plain lines say that the work goes on.
    """

    def __init__(
        self, output: console.Console | None = None, longest_silence: float = _LONGEST_SILENCE
    ) -> None:
        self._console = output or console.Console()
        self._stage = ""
        self._latest: dict[str, float] = {}
        live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._bar = _Bar(self._console) if live else None
        self._pulse = None if live else _Pulse(self._say_now, longest_silence)
        self._now = ""  # What is being done.
        self._began = time.monotonic()  # When that began.

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        if self._pulse:
            self._pulse.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.clear()
            self._bar.stop()
        if self._pulse:
            self._pulse.stop()

    def say(self, line: str) -> None:
        """Prints a line."""
        self._console.print(text.Text(line), soft_wrap=True)
        if self._pulse:
            self._pulse.postpone()

    def _say_now(self) -> None:
        if self._now:
            self.say(f"{self._now} ... {time.monotonic() - self._began:,.0f} s")

    @contextlib.contextmanager
    def busy(self, description: str) -> Iterator[None]:
        """Shows work of unknown length while it runs, then prints how long it took."""
        started = time.monotonic()
        self._now, self._began = description, started
        if self._bar:
            self._bar.begin(description, 0, None)
        else:
            self.say(f"{description} ...")
        try:
            yield
        finally:
            self._now = ""
        if self._bar:
            self._bar.clear()
        self.say(f"{description}: {time.monotonic() - started:.1f} s")

    def on_progress(self, stage: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Updates the bar; see `training.Observer`."""
        begins = stage != self._stage
        self._stage = stage
        self._latest |= metrics
        description = _STAGES.get(stage, stage)
        if self._bar is None:
            if begins:
                self._began = time.monotonic()
                self.say(f"{description}: {total:,} {_unit(stage)}")
            self._now = f"{description}: {done:,} of {total:,}"
            return
        if begins:
            self._bar.begin(description, done, total)
        self._bar.move(done, describe(self._latest))

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Does nothing; see `training.Observer`."""

    def on_notice(self, line: str) -> None:
        """Prints a notice; see `training.Observer`."""
        self.say(line)

    def on_evaluation(self, row: Mapping[str, float]) -> None:
        """Prints a line; see `training.Observer`."""
        self._latest |= row
        wall_time = datetime.timedelta(seconds=round(row["wall_seconds"]))
        self.say(f"{int(row['env_steps']):>9,} steps  {describe(row)}  {wall_time}")


def describe(metrics: Mapping[str, float]) -> str:
    """Formats the main metrics in one line, such as "A 0.84  B 0.61  KL 12.3"."""
    return "  ".join(
        f"{label} {metrics[name]:{spec}}"
        for name, label, spec in _SHOWN
        if name in metrics and not math.isnan(metrics[name])
    )


def print_table(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    output: console.Console | None = None,
) -> None:
    """Prints a table with the first column aligned left and the others right.

    Args:
        title: Line above the table.
        header: Names of the columns.
        rows: Cells, as many in each row as in the header.
        output: Console to write to; None for standard output.
    """
    output = output or console.Console()
    output.print(text.Text(title), soft_wrap=True)
    lines = table.Table(box=box.SIMPLE_HEAD)
    for index, name in enumerate(header):
        lines.add_column(name, justify="right" if index else "left", no_wrap=index > 0)
    for row in rows:
        lines.add_row(*(text.Text(cell) for cell in row))
    output.print(lines)


class _Pulse(threading.Thread):
    """Calls a function each time that nothing was printed for some seconds."""

    def __init__(self, call: Callable[[], None], seconds: float) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._seconds = seconds
        self._printed = time.monotonic()
        self._stopped = threading.Event()

    def postpone(self) -> None:
        """Counts from now."""
        self._printed = time.monotonic()

    def run(self) -> None:
        while not self._stopped.wait(max(0.0, self._printed + self._seconds - time.monotonic())):
            if time.monotonic() >= self._printed + self._seconds:
                self.postpone()
                self._call()

    def stop(self) -> None:
        self._stopped.set()
        self.join()


class _Bar(progress.Progress):
    """One progress bar with a line of metrics below it."""

    def __init__(self, output: console.Console) -> None:
        self._metrics = text.Text()
        super().__init__(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            _CountColumn(),
            progress.TimeRemainingColumn(),
            console=output,
            refresh_per_second=2,
            speed_estimate_period=_SPEED_WINDOW_SECONDS,
        )

    def begin(self, description: str, done: int, total: int | None) -> None:
        self.clear()
        # A resumed run starts with steps done; they do not count for the speed.
        self.add_task(description, completed=done, total=total)

    def move(self, done: int, metrics: str) -> None:
        self._metrics = text.Text(f"  {metrics}", style="dim")
        for task in self.tasks:
            self.update(task.id, completed=done)

    def clear(self) -> None:
        self._metrics = text.Text()
        for task in self.tasks:
            self.remove_task(task.id)

    def get_renderables(self) -> Iterator[console.RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self._metrics:
            yield self._metrics


class _CountColumn(progress.ProgressColumn):
    def render(self, task: progress.Task) -> text.Text:
        return text.Text(f"{task.completed:,.0f} / {task.total:,.0f}" if task.total else "")


def _unit(stage: str) -> str:
    return "updates" if stage == "pretraining" else "environment steps"
