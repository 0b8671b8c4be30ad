"""What a run's worker tells the sweep."""

from typing import NamedTuple

STARTING = "starting"
DONE, FAILED, STOPPED = "done", "failed", "stopped"


class Report(NamedTuple):
    """How far a run is.

    Attributes:
        stage: `STARTING`, what `ProgressDisplay.busy` is told, or a stage of `training.Observer`.
        done: Of the stage; 0 where its length is not known.
        total: Likewise.
        evaluation: A row of `training.EVALUATION_COLUMNS` that has come in; None for none.
        notice: Something that a person should know of; empty for nothing.
    """

    stage: str
    done: int = 0
    total: int = 0
    evaluation: dict[str, float] | None = None
    notice: str = ""


class Ending(NamedTuple):
    """What a run came to.

    Attributes:
        state: `DONE`, `FAILED`, or `STOPPED` where it was asked to stop.
        message: Why it failed, in one line.
    """

    state: str
    message: str = ""
