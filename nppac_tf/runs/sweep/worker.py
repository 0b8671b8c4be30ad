"""What a worker does with a run of a sweep: what launch/train.py --resume would."""

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

_LONGEST = 300


class Link(Protocol):
    """A worker's connection to the sweep."""

    def tell(self, report: Report) -> None:
        """Lets the sweep know, without waiting for it."""

    def should_stop(self) -> bool:
        """Whether the sweep is to stop; without waiting for an answer either."""


def work(run: PlannedRun, prior_cache: str | None, link: Link) -> Ending:
    """Begins a run, or goes on with it, to its end; standard output is its log.

    Args:
        run: What to do.
        prior_cache: See `runs.prior_cache`.
        link: Is told how it goes.
    """
    display = _TellingDisplay(link)
    try:
        whole = runs.TrainingRun(run.folder, run.config, inputs.load(run.config), display)
        with whole.directory.locked():
            whole.open(resume=whole.directory.exists)
            agent = whole.make_agent(runs.prior_cache(prior_cache))
            rows = whole.train(agent, link.should_stop)
            whole.conclude(agent, rows)
    except Stopped:
        display.say("Stopped, to be gone on with")
        return Ending(STOPPED)
    except (UserError, FloatingPointError) as error:
        message = " ".join(str(error).split())
        display.say(f"error: {message}")
        return Ending(FAILED, message)
    except Exception as error:
        print(traceback.format_exc(), flush=True)
        reason = " ".join(str(error).split())[:_LONGEST]
        return Ending(
            FAILED, f"unexpected {type(error).__name__}: {reason}; its log.txt shows where"
        )
    return Ending(DONE)


class _TellingDisplay(ProgressDisplay):
    """Plain lines for the log, and reports for the sweep."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._report = Report(STARTING)

    @contextlib.contextmanager
    def busy(self, description: str) -> Iterator[None]:
        self._tell(Report(description))
        with super().busy(description):
            yield

    def on_progress(self, stage: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        super().on_progress(stage, done, total, metrics)
        self._tell(Report(stage, done, total))

    def on_evaluation(self, row: Mapping[str, float]) -> None:
        super().on_evaluation(row)
        self._tell(self._report._replace(evaluation=dict(row)))

    def on_notice(self, line: str) -> None:
        super().on_notice(line)
        self._tell(self._report._replace(notice=line))

    def _tell(self, report: Report) -> None:
        self._report = report._replace(evaluation=None, notice="")
        self._link.tell(report)
