"""Time until launch/train.py makes progress, and environment steps per second of training.

Run it with `python -m benchmarks.training --precision=float32`.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks.measuring import ROOT, environment

_FLAGS = (
    *("--task=pen-binary", "--demonstrations=embedded:pen"),
    *("--actor_layers=256,256,256,256", "--num_critics=2", "--n_step=1"),
    *("--num_greedy_environments=0", "--critic_warmup_steps=0", "--eval_episodes=1"),
)
# Lines of `runs.display.ProgressDisplay` when pre-training or training has begun.
_FIRST = ("Pre-training the actor:", "Training:")


def measure_training(precision: str, num_env_steps: int) -> dict[str, float]:
    """Runs launch/train.py twice: to fit the prior, and to measure with the prior in the cache.

    Args:
        precision: Value of --precision.
        num_env_steps: Environment steps, with one update each; a multiple of 5,000. The first
            fifth, which compiles, does not count.

    Returns:
        `seconds_to_first_progress` and `env_steps_per_second`.

    Raises:
        RuntimeError: if training fails; with its last line.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        flags = (*_FLAGS, f"--precision={precision}", f"--prior_cache={folder / 'priors'}")
        sizes = (f"--num_env_steps={num_env_steps}", f"--eval_interval={num_env_steps // 5}")
        _seconds_to_progress(*flags, f"--output_dir={folder / 'first'}", stop=True)
        seconds = _seconds_to_progress(*flags, *sizes, f"--output_dir={folder / 'run'}")
        with open(folder / "run" / "timings.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    steps, times = (
        float(rows[-1][name]) - float(rows[1][name]) for name in ("env_steps", "wall_seconds")
    )
    return {"seconds_to_first_progress": seconds, "env_steps_per_second": steps / times}


def _seconds_to_progress(*flags: str, stop: bool = False) -> float:
    started, seconds, line = time.perf_counter(), None, "no output"
    with subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / "train.py"), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if seconds is None and line.startswith(_FIRST):
                seconds = time.perf_counter() - started
                if stop:
                    process.kill()
    if seconds is None or (process.returncode and not stop):
        raise RuntimeError(f"launch/train.py failed: {line.strip()}")
    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--num_env_steps", type=int, default=10_000)
    arguments = parser.parse_args()
    print(json.dumps(measure_training(arguments.precision, arguments.num_env_steps)))
