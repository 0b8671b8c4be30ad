"""Processes that measure: begun, asked in turn, ended."""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from nppac_tf import hardware as tensorflow_threads
from nppac_tf.errors import UserError
from nppac_tf.hardware import available_cores

_HERE = pathlib.Path(__file__).resolve().parent
ROOT = _HERE.parents[1]


class Rates(NamedTuple):
    """What repeats gave: units per second, and the processor cores kept busy (medians)."""

    median: float
    lowest: float
    highest: float
    cores: float


def environment(threads: int) -> dict[str, str]:
    """Variables under which TensorFlow, torch and JAX use no more threads than told, and no GPU.

    TensorFlow, for this project as for TF-Agents, is set up as the launchers do.

    XLA takes its number of threads from the processors that the process may use alone
    (`restrict`).
    """
    number = str(threads)
    return {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "MKL_NUM_THREADS": number,
        "OMP_NUM_THREADS": number,
        "OPENBLAS_NUM_THREADS": number,
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **tensorflow_threads.variables(threads, {}),
    }


def restrict(threads: int) -> None:
    """Keeps this process, and those that it begins, on as many processors as threads.

    Raises:
        UserError: if there are fewer, or the system (not Linux) cannot restrict a process.
    """
    cores = available_cores()
    if threads > cores or (threads < cores and not _HAS_AFFINITY):
        requirement = f"at most {cores}" if _HAS_AFFINITY else f"{cores} on this system"
        raise UserError(f"threads must be {requirement}; got {threads}")
    if threads < cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


_HAS_AFFINITY = hasattr(os, "sched_setaffinity")


class Worker:
    """A process that runs `serving` with a module of this package.

    Args:
        name: For messages.
        module: Such as "updates".
        settings: JSON-able, of the module's `prepare`.
        threads: Equal for all that is compared.
        python: Its interpreter; this one where None.
    """

    def __init__(
        self,
        name: str,
        module: str,
        settings: Mapping[str, Any],
        threads: int,
        python: str | os.PathLike[str] | None = None,
    ) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        command = [
            os.fspath(python or sys.executable),
            "-P",
            str(_HERE / "serving.py"),
            str(_HERE / f"{module}.py"),
            json.dumps(settings),
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(threads),
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.close()

    def answer(self) -> Any:
        """The next answer, waited for.

        Raises:
            UserError: if the process ended instead; with the last line that it wrote.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        written = self._errors.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(written) if line.strip()), "nothing")
        raise UserError(f"the benchmark of {self.name} failed (code {code}): {last.strip()}")

    def run(self, seconds: float) -> dict[str, float]:
        """See `serving.rate`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` says why.
            print(seconds, file=self._process.stdin, flush=True)
        return dict(self.answer())


def measure(module: str, settings: Mapping[str, Any], threads: int) -> Any:
    """What a module that measures once says, in a process of its own."""
    with Worker(module, module, settings, threads) as worker:
        return worker.answer()


def race(
    workers: Sequence[Worker], repeats: int, seconds: float, tell: Callable[[str], None]
) -> dict[str, list[dict[str, float]]]:
    """Rates of workers that are ready, asked one at a time, in turn.

    Args:
        workers: Each has answered once; all wait.
        repeats: Rounds that count, at least 1; one of a tenth of the time goes before them.
        seconds: Of each worker in each round.
        tell: Is told of each round.

    Returns:
        By the worker's name, what `Worker.run` gave in each round.
    """
    for worker in workers:
        worker.run(seconds / 10)
    answers: dict[str, list[dict[str, float]]] = {worker.name: [] for worker in workers}
    for number in range(1, repeats + 1):
        tell(f"round {number} of {repeats}")
        for worker in workers:
            answers[worker.name].append(worker.run(seconds))
    return answers


def summary(rounds: Sequence[Mapping[str, float]]) -> Rates:
    """Of what `race` gives for one worker."""
    rates = [answer["rate"] for answer in rounds]
    cores = statistics.median(answer["cores"] for answer in rounds)
    return Rates(statistics.median(rates), min(rates), max(rates), cores)


@contextlib.contextmanager
def ready(workers: Sequence[Worker]) -> Iterator[list[Any]]:
    """What each worker says first, once all have; they end with the context."""
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker)
        yield [worker.answer() for worker in workers]
