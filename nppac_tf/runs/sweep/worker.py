"""Trains one run of a sweep, as launch/train.py --resume does."""

import contextlib
import traceback
from collections.abc import Iterator, Mapping
from typing import Protocol

from nppac_tf.errors import UserError
from nppac_tf.runs import inputs
from nppac_tf.runs import run as runs
from nppac_tf.runs.display import ProgressDisplay
from nppac_tf.runs.sweep.messages import DONE, FAILED, STARTING, STOPPED, Ending, Report
from nppac_tf.runs.sweep.plan import PlannedRun
from nppac_tf.training.loop import Stopped

_MAX_MESSAGE_LENGTH = 300


class Link(Protocol):
    """Connection of a worker to the sweep. Its methods do not block."""

    def send(self, report: Report) -> None:
        """Sends a report to the sweep."""

    def should_stop(self) -> bool:
        """Returns whether the sweep stops."""


def work(run: PlannedRun, prior_cache: str | None, link: Link) -> Ending:
    """Starts or resumes a run and trains it to its end. Standard output is its log.

    Args:
        run: Run to train.
        prior_cache: Folder of fitted priors, see `runs.run.prior_cache`.
        link: Receives reports.
    """
    display = _ReportingDisplay(link)
    try:
        whole = runs.TrainingRun(run.folder, run.config, inputs.load(run.config), display)
        with whole.directory.locked():
            whole.open(resume=whole.directory.exists)
            agent = whole.make_agent(runs.prior_cache(prior_cache))
            rows = whole.train(agent, link.should_stop)
            whole.conclude(agent, rows)
    except Stopped:
        display.say("Stopped; the same command resumes")
        return Ending(STOPPED)
    except (UserError, FloatingPointError) as error:
        message = " ".join(str(error).split())
        display.say(f"error: {message}")
        return Ending(FAILED, message)
    except Exception as error:
        print(traceback.format_exc(), flush=True)
        reason = " ".join(str(error).split())[:_MAX_MESSAGE_LENGTH]
        return Ending(FAILED, f"unexpected {type(error).__name__}: {reason}; see its log.txt")
    return Ending(DONE)


class _ReportingDisplay(ProgressDisplay):
    """Writes plain lines to the log and sends reports to the sweep."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._report = Report(STARTING)

    @contextlib.contextmanager
    def busy(self, description: str) -> Iterator[None]:
        self._send(Report(description))
        with super().busy(description):
            yield

    def on_progress(self, stage: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        super().on_progress(stage, done, total, metrics)
        self._send(Report(stage, done, total))

    def on_evaluation(self, row: Mapping[str, float]) -> None:
        super().on_evaluation(row)
        self._send(self._report._replace(evaluation=dict(row)))

    def on_notice(self, line: str) -> None:
        super().on_notice(line)
        self._send(self._report._replace(notice=line))

    def _send(self, report: Report) -> None:
        self._report = report._replace(evaluation=None, notice="")
        self._link.send(report)
