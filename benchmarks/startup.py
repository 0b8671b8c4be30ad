"""How long a person waits for the first sign of learning from launch/train.py."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.workers import ROOT, environment
from nppac_tf.errors import UserError

# What `progress.ProgressDisplay` writes to a pipe when pre-training or training has begun.
_FIRST = ("Pre-training the actor:", "Training:")


def seconds_to_first_progress(flags: Sequence[str], threads: int, repeats: int) -> list[float]:
    """Times from the start of a process to its first line of (pre-)training progress.

    The process is ended there. One more before them fits the prior, which the others then find in
    the cache.

    Args:
        flags: Of launch/train.py, without folders.
        threads: See `workers`.
        repeats: Times to take.

    Raises:
        UserError: if training ended without such a line.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache = [f"--prior_cache={folder}/priors"]
        return [
            _time_one([*flags, *cache, f"--output_dir={folder}/run{number}"], threads)
            for number in range(repeats + 1)
        ][1:]


def _time_one(flags: Sequence[str], threads: int) -> float:
    command = [sys.executable, str(ROOT / "launch" / "train.py"), *flags]
    started = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(threads),
        text=True,
    ) as process:
        assert process.stdout is not None
        line = "nothing"
        for line in process.stdout:
            if line.startswith(_FIRST):
                elapsed = time.perf_counter() - started
                process.kill()
                return elapsed
        raise UserError(f"the benchmark of launch/train.py ended without training: {line.strip()}")
