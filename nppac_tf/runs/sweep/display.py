"""What a person sees of a sweep: a live table of all runs on a terminal, plain lines elsewhere."""

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
# Lines of a terminal that are not a run's: header, rule, what is left out, the sum, margins.
_OTHER_LINES = 8


@dataclasses.dataclass
class _Status:
    """A run, as far as it is known.

    Attributes:
        state: `WAITING`, a stage of `Report`, or a state of `Ending`.
        retries: How often it was begun again.
        steps: Environment steps done.
        share: Of the stage, where its length is known and it is not the training.
        row: The newest evaluation; empty before any.
        training_since: When this attempt was first seen to train, and with how many steps done.
    """

    state: str = WAITING
    retries: int = 0
    steps: int = 0
    share: float | None = None
    row: dict[str, float] = dataclasses.field(default_factory=dict)
    training_since: tuple[float, int] | None = None

    @property
    def ended(self) -> bool:
        return self.state in (DONE, FAILED, STOPPED)

    @property
    def underway(self) -> bool:
        return not self.ended and self.state != WAITING

    def speed(self, now: float) -> float:
        """Environment steps per second of this attempt; 0 where nothing tells it yet."""
        if self.state != "training" or self.training_since is None:
            return 0.0
        since, before = self.training_since
        return (self.steps - before) / (now - since) if now > since else 0.0


class SweepDisplay:
    """Is told of all runs of a sweep, and shows them to the person who waits for it.

    On a terminal a table shows each run's method and seed, its steps, the newest evaluation, its
    state and the time left; what goes wrong stays above it, a line each. Elsewhere (a pipe, a file)
    there are plain lines alone: one when a run begins or ends, and one per evaluation.

    Args:
        runs: All of them, in the order in which they are known by their number.
        output: Where to write; standard output where None.
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
        """Writes a line that stays."""
        self._console.print(text.Text(line), soft_wrap=True)

    def on_report(self, index: int, report: Report) -> None:
        """A run's worker tells how far it is."""
        status = self._status[index]
        if status.state == WAITING:
            self._plain(index, "running")
        status.state = report.stage
        status.share = report.done / report.total if report.total else None
        if report.stage == "training":
            status.steps = report.done
            status.training_since = status.training_since or (time.monotonic(), report.done)
        if report.notice:
            self._tell(index, report.notice)
        row = report.evaluation
        # A run that goes on tells its past again.
        if row is not None and row["env_steps"] > status.row.get("env_steps", -1):
            status.row = row
            status.steps = max(status.steps, int(row["env_steps"]))
            seconds = datetime.timedelta(seconds=round(row["wall_seconds"]))
            self._plain(index, f"{int(row['env_steps']):>9,} steps  {describe(row)}  {seconds}")

    def on_retry(self, index: int, line: str) -> None:
        """A run's worker died, and it is to be begun again."""
        status = self._status[index]
        status.state = WAITING
        status.retries += 1
        status.training_since = None
        self._tell(index, line)

    def on_end(self, index: int, ending: Ending) -> None:
        """A run has ended."""
        status = self._status[index]
        status.state = ending.state
        if ending.state == FAILED:
            self._tell(index, f"failed: {ending.message}")
        else:
            self._plain(index, ending.state)

    def on_stop(self) -> None:
        """All runs are asked to stop."""
        self.say("Stopping: each run saves a checkpoint (Ctrl-C ends at once)")

    def has_something_to_save(self, index: int) -> bool:
        """Whether a run is so far that it should be left to stop in its own time."""
        state = self._status[index].state
        return state not in (WAITING, STARTING, "Fitting the prior")

    def _plain(self, index: int, line: str) -> None:
        if self._live is None:
            self._tell(index, line)

    def _tell(self, index: int, line: str) -> None:
        self.say(f"{self._runs[index].name.ljust(self._width)}  {line}")

    def _table(self) -> table.Table:
        now = time.monotonic()
        goal = not all(math.isnan(s.row.get("eval/any_success", 0.0)) for s in self._status)
        metrics = _METRICS if goal else _WITHOUT_GOAL
        lines = table.Table(box=box.SIMPLE_HEAD, caption_justify="left", caption=self._sum(now))
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
        """The runs that there is room for: those underway first, then failed, waiting, done."""
        room = max(self._console.height - _OTHER_LINES, 3)
        if len(self._runs) <= room:
            return list(range(len(self._runs)))

        def weight(index: int) -> int:
            status = self._status[index]
            if status.underway:
                return 0
            return {FAILED: 1, WAITING: 2}.get(status.state, 3)

        return sorted(sorted(range(len(self._runs)), key=weight)[:room])

    def _sum(self, now: float) -> text.Text:
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
    if status.share is not None and status.state == "pretraining":
        name = f"{name} {status.share:.0%}"
    if status.retries:
        name = f"{name} (retry {status.retries})"
    return name


def _value(row: dict[str, float], name: str, spec: str) -> str:
    return f"{row[name]:{spec}}" if not math.isnan(row.get(name, math.nan)) else ""


def _left(steps: int, speed: float) -> str:
    return str(datetime.timedelta(seconds=round(steps / speed))) if speed > 0 else ""
