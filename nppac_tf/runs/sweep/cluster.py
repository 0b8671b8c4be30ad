"""Runs on Ray: the only door to it.

Each run is a task of Ray, in a process of its own that ends with it. One actor, the board, takes
their reports and says whether to stop. A worker never waits for Ray (`ray.get`): Ray gives the
cores of a task that waits to another one, and the machine would have more to do than it has cores.
"""

import concurrent.futures
import contextlib
import logging
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nppac_tf import hardware
from nppac_tf.errors import UserError
from nppac_tf.runs.sweep.display import SweepDisplay
from nppac_tf.runs.sweep.messages import FAILED, STARTING, STOPPED, Ending, Report
from nppac_tf.runs.sweep.plan import PlannedRun

_POLL_SECONDS = 0.5
_FLUSH_SECONDS = 10.0
_OBJECT_STORE_BYTES = 100 * 2**20  # Nothing large goes through it.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Of Ray's messages on the console.
    "RAY_worker_niceness": "0",  # By default 15: whatever else runs would starve the runs.
}


@contextlib.contextmanager
def connected(address: str | None, cpus_per_run: int) -> Iterator[None]:
    """Starts Ray on this machine's cores, or joins a cluster; leaves it in the end.

    Args:
        address: Of a cluster; None for this machine alone.
        cpus_per_run: Cores that each run is to have.

    Raises:
        UserError: if Ray cannot be started, there is no such cluster, or no machine has so many
            cores.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    here: dict[str, Any] = {
        "num_cpus": hardware.available_cores(),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }
    try:
        with _silent_stderr():
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": environment(cpus_per_run)},
                **({} if address else here),
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        if address:
            raise UserError(
                f"--address must be that of a Ray cluster that runs; got {address!r} ({reason}); "
                "if it asks for a token, set RAY_AUTH_MODE=token"
            ) from None
        raise UserError(f"Ray could not be started on this machine: {reason}") from None
    try:
        most = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
        if cpus_per_run > most:
            raise UserError(
                f"--cpus_per_run must be at most {most}, the cores of the largest machine; got "
                f"{cpus_per_run}"
            )
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keeps off standard error what Ray's own library writes there beside the exception."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def environment(cpus_per_run: int) -> dict[str, str]:
    """Variables for a worker, set before it imports anything: its threads, and where modules are.

    Args:
        cpus_per_run: Cores that it has.
    """
    package = str(pathlib.Path(hardware.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **hardware.variables(cpus_per_run, {}),
        "OMP_NUM_THREADS": str(cpus_per_run),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # A GPU, where there is one, is for all runs.
        "PYTHONPATH": os.pathsep.join(paths),
    }


def carry_out(
    runs: Sequence[PlannedRun],
    display: SweepDisplay,
    *,
    cpus_per_run: int,
    max_retries: int,
    prior_cache: str | None,
    should_stop: Callable[[], Any],
) -> list[Ending]:
    """Trains runs side by side, as many as there are cores for, within `connected`.

    Args:
        runs: What is to be done; `display` knows them by their place here.
        display: Is told what happens.
        cpus_per_run: Cores of each.
        max_retries: How often a run is begun again whose worker died, from its checkpoint.
        prior_cache: See `runs.prior_cache`.
        should_stop: Asked about twice a second; once it says yes, each run saves and stops.

    Returns:
        What each run came to.

    Raises:
        UserError: if Ray itself ends.
    """
    import ray

    board = ray.remote(_Board).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    task = ray.remote(num_cpus=cpus_per_run, max_retries=0, max_calls=1)(_work)
    place = os.getcwd()

    def submit(index: int) -> Any:
        return task.remote(runs[index], index, place, prior_cache, board)

    for run in runs:
        run.folder.mkdir(parents=True, exist_ok=True)
    endings = [Ending(STOPPED)] * len(runs)
    deaths = [0] * len(runs)
    underway = {submit(index): index for index in range(len(runs))}
    stopping = False
    try:
        while underway:
            ended, _ = ray.wait(list(underway), timeout=_POLL_SECONDS)
            to_stop = not stopping and bool(should_stop())
            stopping = stopping or to_stop
            # What a run told before it ended is on the board when it has.
            for index, report in ray.get(board.take.remote(stopping)):
                display.on_report(index, report)
            if to_stop:
                display.on_stop()
                for reference, index in underway.items():
                    if not display.has_something_to_save(index):
                        ray.cancel(reference, force=True)
            for reference in ended:
                index = underway.pop(reference)
                ending, died = _outcome(reference, stopping)
                if died and deaths[index] < max_retries:
                    deaths[index] += 1
                    display.on_retry(index, f"{ending.message}: retry {deaths[index]}")
                    underway[submit(index)] = index
                    continue
                endings[index] = ending
                display.on_end(index, ending)
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"Ray ended ({reason}); the same command goes on") from None
    return endings


def _outcome(reference: Any, stopping: bool) -> tuple[Ending, bool]:
    """What a run came to, and whether its worker died of something that may not happen again."""
    from ray import exceptions, get

    try:
        return get(reference), False
    except exceptions.RayTaskError as error:
        reason = " ".join(str(error.cause).split())[:300]
        return Ending(FAILED, f"its worker could not begin: {reason}"), False
    except exceptions.RayError as error:
        if stopping:
            return Ending(STOPPED), False
        causes = {
            exceptions.OutOfMemoryError: "its worker was ended since memory ran out",
            exceptions.NodeDiedError: "its machine was lost",
        }
        cause = causes.get(type(error), "its worker died")
        return Ending(FAILED, cause), True


class _Board:
    """Where workers report and look whether to stop; an actor."""

    def __init__(self) -> None:
        self._reports: list[tuple[int, Report]] = []
        self._stop = False

    def report(self, index: int, report: Report) -> bool:
        """Takes a worker's report; answers whether to stop."""
        self._reports.append((index, report))
        return self._stop

    def stop(self) -> bool:
        """Whether to stop."""
        return self._stop

    def take(self, stop: bool) -> list[tuple[int, Report]]:
        """Hands all reports over, and is told whether the workers are to stop."""
        self._stop = stop
        taken, self._reports = self._reports, []
        return taken


class _Link:
    """A worker's connection to the board; see `worker.Link`.

    Args:
        board: The actor.
        index: Of the run.
    """

    def __init__(self, board: Any, index: int) -> None:
        self._board = board
        self._index = index
        self._answer: concurrent.futures.Future[bool] | None = None
        self._asked = 0.0
        self._stage = ""
        self._stop = False

    def tell(self, report: Report) -> None:
        """Sends the report, unless it tells of mere progress soon after another one."""
        news = bool(report.evaluation or report.notice) or report.stage != self._stage
        if news or self._due():
            self._stage = report.stage
            self._ask(self._board.report.remote(self._index, report))

    def should_stop(self) -> bool:
        """The board's newest answer, and now and then a new question."""
        if self._answer is not None and self._answer.done() and not self._answer.exception():
            self._stop = self._stop or self._answer.result()
        if self._due():
            self._ask(self._board.stop.remote())
        return self._stop

    def flush(self) -> None:
        """Returns when the board has what was told, or seems not to be there."""
        deadline = time.monotonic() + _FLUSH_SECONDS
        while self._answer and not self._answer.done() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _due(self) -> bool:
        return time.monotonic() - self._asked > _POLL_SECONDS

    def _ask(self, reference: Any) -> None:
        self._asked = time.monotonic()
        self._answer = reference.future()


def _work(run: PlannedRun, index: int, place: str, prior_cache: str | None, board: Any) -> Ending:
    """A task of Ray: carries a run out in a process that has done nothing else before."""
    link = _Link(board, index)
    link.tell(Report(STARTING))
    try:
        os.chdir(place)
        log = open(run.folder / "log.txt", "a", buffering=1, encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        return Ending(
            FAILED,
            f"{error.filename}: {error.strerror} on {platform.node()}: all machines must share the "
            "working directory and --output_dir",
        )
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)
    sys.stdout = sys.stderr = log
    sys.path.append(place)  # As for the launchers: a task's own module may be there.
    from nppac_tf.runs.sweep import worker

    ending = worker.work(run, prior_cache, link)
    link.flush()
    return ending
