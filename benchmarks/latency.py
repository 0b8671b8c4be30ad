"""Measures how long one observation takes in each format, with one thread.

    python -m benchmarks.latency --output=results/serving_latency.csv

The policy has the sizes of the pen task and the default layers; its prior is made of random
numbers, which take as long as others. "mean action" is the network actor's alone, which does not
read the prior; "with prior and fallback" is the anchored actor's, with novelty.
"""

import argparse
import csv
import os
import pathlib
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

D, A = 45, 24
NUM_NEIGHBORS = 64
FORMATS = ("savedmodel", "onnx", "tflite")


def make_agent(num_points: int, actor: str) -> tuple[Any, Any]:
    """An agent with a prior of random numbers, and a novelty."""
    from nppac_tf import AgentConfig, GPPrior, Novelty, NppacAgent

    rng = np.random.default_rng(0)
    prior = GPPrior.from_state(
        {"kernel": "matern52", "num_neighbors": NUM_NEIGHBORS, "residual": 0.0},
        {
            "centers": rng.normal(size=(num_points, D)) / 4,
            "weights": rng.normal(size=(num_points, A)),
            "noise_variance": np.array(0.01),
            "observation_shift": np.zeros(D),
            "observation_scale": np.ones(D),
            "action_shift": np.zeros(A),
            "action_scale": np.full(A, 0.3),
            "held_out_floor": np.zeros(A),
        },
    )
    task: Any = SimpleNamespace(
        observation_size=D,
        action_low=-np.ones(A, np.float32),
        action_high=np.ones(A, np.float32),
    )
    novelty = Novelty(rng.normal(-1, 0.2, num_points), 5)
    return NppacAgent.for_task(task, prior, AgentConfig(actor=actor)), novelty


def export(num_points: int, actor: str, format: str, path: pathlib.Path) -> None:
    """Writes the policy in a format."""
    from nppac_tf.serving import portable, saved_model

    agent, novelty = make_agent(num_points, actor)
    if format == "savedmodel":
        saved_model.export_policy(agent, path, novelty=novelty)
    else:
        portable.export_portable(agent, path, format, novelty=novelty)


def latencies(path: pathlib.Path, signature: str, calls: int) -> np.ndarray:
    """Seconds [calls] of one observation each, after 20 that are not counted."""
    from nppac_tf.serving.runtimes import load_model

    model, rng = load_model(path, threads=1), np.random.default_rng(1)
    inputs = {
        name: rng.normal(size=[size or 1 for size in shape or []]).astype(dtype)
        for name, (shape, dtype) in model.signatures[signature].items()
    }
    seconds = []
    for _ in range(calls + 20):
        inputs["observation"] = rng.normal(size=[1, D]).astype(np.float32)
        started = time.perf_counter()
        model(signature, inputs)
        seconds.append(time.perf_counter() - started)
    return np.array(seconds[20:])


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency")
    add = parser.add_argument
    add("--output", type=pathlib.Path, default=pathlib.Path("results/serving_latency.csv"))
    add("--points", type=int, nargs="+", default=[5000, 15_000], metavar="N")
    add("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    add("--calls", type=int, default=5000, help="observations per row (default: 5000)")
    settings = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for points in settings.points:
            for format in settings.formats:
                for actor, what in (("network", "mean"), ("anchored", "policy")):
                    path = pathlib.Path(temporary) / f"{points}_{format}_{actor}"
                    export(points, actor, format, path)
                    whole = "action_or_prior" if format == "savedmodel" else "policy"
                    signature = "mean_action" if what == "mean" else whole
                    seconds = 1000 * latencies(path, signature, settings.calls)
                    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                    rows.append(
                        {
                            "points": points,
                            "format": format,
                            "what": "mean action" if what == "mean" else "with prior and fallback",
                            "median_ms": f"{np.median(seconds):.3f}",
                            "p99.9_ms": f"{np.quantile(seconds, 0.999):.3f}",
                            "min_ms": f"{seconds.min():.3f}",
                            "size_mb": f"{size / 1e6:.2f}",
                        }
                    )
                    print(*rows[-1].values(), sep="  ", flush=True)
    with open(settings.output, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(variable) != "1":
            sys.exit(f"error: set {variable}=1, so that all formats have one thread")
    main()
