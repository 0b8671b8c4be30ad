"""Progress of a sweep: a live table on a terminal, plain lines elsewhere."""

import dataclasses
import datetime
import math
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich import box, console, live, progress_bar, table, text

from nppac_tf.runs.display import describe
from nppac_tf.runs.sweep.messages import DONE, FAILED, STARTING, STOPPED, Ending, Report
from nppac_tf.runs.sweep.plan import PlannedRun

WAITING = "waiting"
_STAGES = {"pretraining": "pre-training", "training": "training"}
_METRICS = (("eval/any_success", "A", ".2f"), ("eval/time_at_goal", "B", ".2f"))
_WITHOUT_GOAL = (("eval/return", "return", ",.1f"),)
# Lines of the table that are not runs: header, rule, summary, margins.
_OTHER_LINES = 8


@dataclasses.dataclass
class _Status:
    """State of a run.

    Attributes:
        state: `WAITING`, a stage of `Report`, or a state of `Ending`.
        retries: Number of retries.
        steps: Environment steps done.
        row: Latest evaluation; empty before the first.
        training_since: Time and environment steps of this attempt's first report of training.
    """

    state: str = WAITING
    retries: int = 0
    steps: int = 0
    row: dict[str, float] = dataclasses.field(default_factory=dict)
    training_since: tuple[float, int] | None = None

    @property
    def ended(self) -> bool:
        return self.state in (DONE, FAILED, STOPPED)

    @property
    def underway(self) -> bool:
        return not self.ended and self.state != WAITING

    def speed(self, now: float) -> float:
        """Environment steps per second of this attempt; 0 if unknown."""
        if self.state != "training" or self.training_since is None:
            return 0.0
        since, before = self.training_since
        return (self.steps - before) / (now - since) if now > since else 0.0


class SweepDisplay:
    """Shows the progress of all runs of a sweep.

    A terminal shows a table with the steps, the latest evaluation, the state and the remaining time
    of each run; problems are printed above it. Other outputs (a pipe, a file) get plain lines: one
    when a run starts or ends, and one per evaluation.

    Args:
        runs: All runs. Methods refer to them by their index.
        output: Console to write to; None for standard output.
    """

    def __init__(self, runs: Sequence[PlannedRun], output: console.Console | None = None) -> None:
        self._runs = runs
        self._status = [_Status() for _ in runs]
        self._console = output or console.Console()
        self._began = time.monotonic()
        self._width = max(len(run.name) for run in runs)
        shown = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = (
            live.Live(console=self._console, get_renderable=self._table, refresh_per_second=2)
            if shown
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, line: str) -> None:
        """Prints a line."""
        self._console.print(text.Text(line), soft_wrap=True)

    def on_report(self, index: int, report: Report) -> None:
        """Shows a report of a run."""
        status = self._status[index]
        if status.state == WAITING:
            self._plain(index, "running")
        status.state = report.stage
        if report.stage == "training":
            status.steps = report.done
            status.training_since = status.training_since or (time.monotonic(), report.done)
        if report.notice:
            self._print(index, report.notice)
        row = report.evaluation
        # A resumed run reports its earlier evaluations again.
        if row is not None and row["env_steps"] > status.row.get("env_steps", -1):
            status.row = row
            status.steps = max(status.steps, int(row["env_steps"]))
            seconds = datetime.timedelta(seconds=round(row["wall_seconds"]))
            self._plain(index, f"{int(row['env_steps']):>9,} steps  {describe(row)}  {seconds}")

    def on_retry(self, index: int, line: str) -> None:
        """Shows that the worker of a run died and that the run is retried."""
        status = self._status[index]
        status.state = WAITING
        status.retries += 1
        status.training_since = None
        self._print(index, line)

    def on_end(self, index: int, ending: Ending) -> None:
        """Shows the outcome of a run."""
        status = self._status[index]
        status.state = ending.state
        if ending.state == FAILED:
            self._print(index, f"failed: {ending.message}")
        else:
            self._plain(index, ending.state)

    def on_stop(self) -> None:
        """Shows that all runs are stopping."""
        self.say("Stopping: each run saves a checkpoint (Ctrl-C ends at once)")

    def has_something_to_save(self, index: int) -> bool:
        """Returns whether a run has progress that a checkpoint would keep."""
        state = self._status[index].state
        return state not in (WAITING, STARTING, "Fitting the prior")

    def _plain(self, index: int, line: str) -> None:
        if self._live is None:
            self._print(index, line)

    def _print(self, index: int, line: str) -> None:
        self.say(f"{self._runs[index].name.ljust(self._width)}  {line}")

    def _table(self) -> table.Table:
        now = time.monotonic()
        goal = not all(math.isnan(s.row.get("eval/any_success", 0.0)) for s in self._status)
        metrics = _METRICS if goal else _WITHOUT_GOAL
        lines = table.Table(box=box.SIMPLE_HEAD, caption_justify="left", caption=self._summary(now))
        lines.add_column("", no_wrap=True)
        lines.add_column("", width=20)
        for name in ("steps", *(label for _, label, _ in metrics)):
            lines.add_column(name, justify="right", no_wrap=True)
        lines.add_column("state", no_wrap=True)
        lines.add_column("left", justify="right", no_wrap=True)
        for index in self._shown():
            run, status = self._runs[index], self._status[index]
            total = run.config.training.num_env_steps
            lines.add_row(
                text.Text(run.name),
                progress_bar.ProgressBar(max(total, 1), status.steps if total else status.ended),
                f"{status.steps:,} / {total:,}",
                *(_value(status.row, name, spec) for name, _, spec in metrics),
                text.Text(_state(status)),
                _left(total - status.steps, status.speed(now)),
            )
        return lines

    def _shown(self) -> list[int]:
        """Returns the runs that fit: first those underway, then failed, waiting, done."""
        room = max(self._console.height - _OTHER_LINES, 3)
        if len(self._runs) <= room:
            return list(range(len(self._runs)))

        def weight(index: int) -> int:
            status = self._status[index]
            if status.underway:
                return 0
            return {FAILED: 1, WAITING: 2}.get(status.state, 3)

        return sorted(sorted(range(len(self._runs)), key=weight)[:room])

    def _summary(self, now: float) -> text.Text:
        counts = Counter("underway" if s.underway else s.state for s in self._status)
        shares = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        unfinished = [
            (run.config.training.num_env_steps - status.steps, status)
            for run, status in zip(self._runs, self._status, strict=True)
            if not status.ended
        ]
        speed = sum(status.speed(now) for _, status in unfinished)
        left = _left(sum(steps for steps, _ in unfinished), speed)
        elapsed = datetime.timedelta(seconds=round(now - self._began))
        about = f", about {left} left" if left else ""
        return text.Text(f"{shares}; {elapsed} so far{about}")


def _state(status: _Status) -> str:
    name = _STAGES.get(status.state, status.state[:1].lower() + status.state[1:])
    if status.retries:
        name = f"{name} (retry {status.retries})"
    return name


def _value(row: dict[str, float], name: str, spec: str) -> str:
    return f"{row[name]:{spec}}" if not math.isnan(row.get(name, math.nan)) else ""


def _left(steps: int, speed: float) -> str:
    return str(datetime.timedelta(seconds=round(steps / speed))) if speed > 0 else ""
