"""Trains the runs of a sweep in parallel on Ray.

Each run is a Ray task with a process of its own. One actor, the board, collects the workers'
reports and tells them whether to stop. Workers never block in `ray.get`: Ray would give the cores
of a blocked task to another one and oversubscribe the machine.
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

from gym_notices import notices

from nppac_tf import hardware
from nppac_tf.errors import UserError
from nppac_tf.runs.sweep.display import SweepDisplay
from nppac_tf.runs.sweep.messages import FAILED, STARTING, STOPPED, Ending, Report
from nppac_tf.runs.sweep.plan import PlannedRun

_POLL_SECONDS = 0.5
_FLUSH_SECONDS = 10.0
_OBJECT_STORE_BYTES = 100 * 2**20  # Only small messages are stored.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_worker_niceness": "0",  # The default, 15, starves the runs on a busy machine.
}


@contextlib.contextmanager
def connected(address: str | None, cpus_per_run: int) -> Iterator[None]:
    """Starts Ray on this machine or joins a cluster, and disconnects at the end.

    Args:
        address: Address of a cluster; None for this machine only.
        cpus_per_run: Cores per run.

    Raises:
        UserError: if Ray cannot be started, there is no such cluster, or no machine has enough
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
                f"--address must be that of a running Ray cluster; got {address!r} ({reason}); "
                "if it requires a token, set RAY_AUTH_MODE=token"
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
    """Suppresses what Ray's native library writes to standard error beside the exception."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def environment(cpus_per_run: int) -> dict[str, str]:
    """Returns environment variables of a worker: its number of threads and its module path.

    Args:
        cpus_per_run: Cores of the worker.
    """
    package = str(pathlib.Path(hardware.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **hardware.variables(cpus_per_run, {}),
        "OMP_NUM_THREADS": str(cpus_per_run),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # Runs share the GPU.
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
    """Trains runs in parallel, as many as there are cores for, within `connected`.

    Args:
        runs: Runs to train, in the order that `display` has.
        display: Shows the progress.
        cpus_per_run: Cores per run.
        max_retries: Number of times that a run is resumed after its worker died.
        prior_cache: Folder of fitted priors, see `runs.run.prior_cache`.
        should_stop: Called about twice a second; once true, each run saves a checkpoint and stops.

    Returns:
        Outcome of each run.

    Raises:
        UserError: if Ray ends.
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
            # Reports of a run are on the board before the run ends.
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
        raise UserError(f"Ray ended ({reason}); the same command resumes") from None
    return endings


def _outcome(reference: Any, stopping: bool) -> tuple[Ending, bool]:
    """Returns the outcome of a run, and whether its worker died and can be retried."""
    from ray import exceptions, get

    try:
        return get(reference), False
    except exceptions.RayTaskError as error:
        reason = " ".join(str(error.cause).split())[:300]
        return Ending(FAILED, f"its worker could not start: {reason}"), False
    except exceptions.RayError as error:
        if stopping:
            return Ending(STOPPED), False
        causes = {
            exceptions.OutOfMemoryError: "its worker ran out of memory",
            exceptions.NodeDiedError: "its machine was lost",
        }
        cause = causes.get(type(error), "its worker died")
        return Ending(FAILED, cause), True


class _Board:
    """Ray actor that collects reports and tells workers whether to stop."""

    def __init__(self) -> None:
        self._reports: list[tuple[int, Report]] = []
        self._stop = False

    def report(self, index: int, report: Report) -> bool:
        """Stores a report; returns whether to stop."""
        self._reports.append((index, report))
        return self._stop

    def stop(self) -> bool:
        """Returns whether to stop."""
        return self._stop

    def take(self, stop: bool) -> list[tuple[int, Report]]:
        """Returns and clears the reports; sets whether workers stop."""
        self._stop = stop
        taken, self._reports = self._reports, []
        return taken


class _Link:
    """Connection of a worker to the board; see `worker.Link`.

    Args:
        board: Ray actor handle of the `_Board`.
        index: Index of the run.
    """

    def __init__(self, board: Any, index: int) -> None:
        self._board = board
        self._index = index
        self._answer: concurrent.futures.Future[bool] | None = None
        self._asked = 0.0
        self._stage = ""
        self._stop = False

    def send(self, report: Report) -> None:
        """Sends the report, unless it has only progress and another one was just sent."""
        news = bool(report.evaluation or report.notice) or report.stage != self._stage
        if news or self._due():
            self._stage = report.stage
            self._ask(self._board.report.remote(self._index, report))

    def should_stop(self) -> bool:
        """Returns the latest answer of the board, and asks again from time to time."""
        if self._answer is not None and self._answer.done() and not self._answer.exception():
            self._stop = self._stop or self._answer.result()
        if self._due():
            self._ask(self._board.stop.remote())
        return self._stop

    def flush(self) -> None:
        """Waits until the board has received the last report, or for a timeout."""
        deadline = time.monotonic() + _FLUSH_SECONDS
        while self._answer and not self._answer.done() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _due(self) -> bool:
        return time.monotonic() - self._asked > _POLL_SECONDS

    def _ask(self, reference: Any) -> None:
        self._asked = time.monotonic()
        self._answer = reference.future()


def _work(run: PlannedRun, index: int, place: str, prior_cache: str | None, board: Any) -> Ending:
    """Ray task that trains a run in a new process."""
    link = _Link(board, index)
    link.send(Report(STARTING))
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
    sys.path.append(place)  # A task's module may be there.
    notices.notices.clear()  # gym prints one into the log when it is imported.
    from nppac_tf.runs.sweep import worker

    ending = worker.work(run, prior_cache, link)
    link.flush()
    return ending
