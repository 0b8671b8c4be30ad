"""Measuring rates, and processes that measure. Needs the standard library only."""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


def rate(chunk: Callable[[], float], seconds: float) -> float:
    """Measures the units per second of repeated chunks of work.

    Args:
        chunk: Does some work to its end and returns the number of units.
        seconds: Time to repeat it for; the last chunk is finished and counted.
    """
    done, started = 0.0, time.perf_counter()
    while not done or time.perf_counter() < started + seconds:
        done += chunk()
    return done / (time.perf_counter() - started)


def environment() -> dict[str, str]:
    """Environment variables that give TensorFlow, torch and JAX equal threads and no GPU.

    All use the cores that the process may use; `taskset` restricts them.
    """
    from nppac_tf import hardware

    cores = hardware.available_cores()
    libraries = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys(libraries, str(cores)),
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **hardware.variables(cores, {}),
    }


def measure(
    module: str, *arguments: str, python: str | os.PathLike[str] = sys.executable
) -> dict[str, Any]:
    """Runs a module of this package, which prints JSON as its last line.

    Args:
        module: Such as "updates".
        *arguments: Its command-line arguments.
        python: Interpreter.

    Raises:
        RuntimeError: if the process fails; with the last line of its errors.
    """
    command: Sequence[str | os.PathLike[str]] = (python, "-m", f"benchmarks.{module}", *arguments)
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment(), cwd=ROOT, check=False
    )
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{module} {' '.join(arguments)} failed: {reason}")
    return dict(json.loads(result.stdout.splitlines()[-1]))
