"""Messages from the worker of a run to the sweep."""

from typing import NamedTuple

STARTING = "starting"
DONE, FAILED, STOPPED = "done", "failed", "stopped"


class Report(NamedTuple):
    """Progress of a run.

    Attributes:
        stage: `STARTING`, a description from `ProgressDisplay.busy`, or a stage of
            `training.Observer`.
        done: Steps of the stage that are done; 0 if its length is unknown.
        total: Length of the stage; 0 if unknown.
        evaluation: New row of evaluation metrics; None for none.
        notice: Message for the user; empty for none.
    """

    stage: str
    done: int = 0
    total: int = 0
    evaluation: dict[str, float] | None = None
    notice: str = ""


class Ending(NamedTuple):
    """Outcome of a run.

    Attributes:
        state: `DONE`, `FAILED`, or `STOPPED` if the sweep was stopped.
        message: Reason of a failure, in one line.
    """

    state: str
    message: str = ""
