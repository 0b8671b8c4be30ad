"""Measures the project's speed and writes benchmark.json and benchmark.png.

Run it on an idle machine. Keys of benchmark.json:

updates_per_second/SHAPE/CONTENDER         median; limit_float32 and limit_bfloat16 are the rates of
                                           matrix products alone, fill_N has N transitions in the
                                           replay
updates_per_second/SHAPE/spread/CONTENDER  [lowest, highest] of the repeats
prior_overhead/SHAPE                       extra time of an update with a prior, as a share of the
                                           time with a uniform one
training/PRECISION/QUANTITY                see `training`
prior/CLASS/POINTS/QUANTITY                see `prior_costs`
"""

import argparse
import functools
import json
import os
import pathlib
import platform
import statistics
import sys
from importlib import metadata
from typing import Any

from benchmarks import figures
from benchmarks.measuring import measure
from benchmarks.shapes import SHAPES
from nppac_tf.files import replace_file, write_text
from nppac_tf.hardware import available_cores, cpu_has_bfloat16

Results = dict[str, Any]

PARTS = ("updates", "training", "priors")
_OWN = (
    *("nppac_float32", "nppac_bfloat16", "uniform_float32", "tf_agents"),
    *("limit_float32", "limit_bfloat16", "fill_10000", "fill_1000000"),
)
_PEERS = ("sbx", "sb3")
_PACKAGES = ("tensorflow-probability", "tf-agents", "gpflow", "numpy")


def measure_updates(settings: argparse.Namespace) -> Results:
    """Measures updates per second of all contenders on each shape, in turn."""
    results: Results = {}
    contenders = {name: ("updates", sys.executable) for name in _OWN}
    if settings.peers_python.exists():
        contenders |= {name: ("peers", settings.peers_python) for name in _PEERS}
    else:
        print(f"no {settings.peers_python}: skipping Stable-Baselines3 and SBX")
    for shape in SHAPES:
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(settings.repeats):
            print(f"shape {shape}: round {number + 1} of {settings.repeats}", flush=True)
            for name, (module, python) in contenders.items():
                arguments = (f"--contender={name}", f"--shape={shape}")
                seconds = f"--seconds={settings.seconds}"
                answer = measure(module, *arguments, seconds, python=python)
                rates[name].append(answer.pop("updates_per_second"))
                results |= answer
        results |= summarize(shape, rates)
    return results


def summarize(shape: str, rates: dict[str, list[float]]) -> Results:
    """Converts the rates of a shape's contenders, [rounds] each, to entries of benchmark.json."""
    # Rounds are compared one by one, since load on the machine affects both contenders.
    pairs = zip(rates["uniform_float32"], rates["nppac_float32"], strict=True)
    overhead = statistics.median(uniform / prior for uniform, prior in pairs) - 1.0
    results: Results = {f"prior_overhead/{shape}": overhead}
    for name, found in rates.items():
        results[f"updates_per_second/{shape}/{name}"] = statistics.median(found)
        results[f"updates_per_second/{shape}/spread/{name}"] = [min(found), max(found)]
    return results


def measure_training(settings: argparse.Namespace) -> Results:
    """Measures start-up and speed of training on the pen."""
    results: Results = {}
    for precision in ("float32", "bfloat16"):
        print(f"training in {precision}", flush=True)
        answer = measure("training", f"--precision={precision}")
        results |= {f"training/{precision}/{key}": value for key, value in answer.items()}
    return results


def measure_priors(settings: argparse.Namespace) -> Results:
    """Measures the costs of Gaussian processes."""
    results: Results = {}
    for size in settings.prior_sizes:
        for prior in ("gp", "sparse_gp"):
            print(f"{prior} of {size:,} points", flush=True)
            answer = measure("prior_costs", f"--prior={prior}", f"--num_points={size}")
            results |= {f"prior/{prior}/{size}/{key}": value for key, value in answer.items()}
    return results


def describe_machine() -> Results:
    """Processor, cores, memory and versions; nothing that names the machine or its owner."""
    cpu_info = pathlib.Path("/proc/cpuinfo")
    text = cpu_info.read_text(encoding="utf-8") if cpu_info.exists() else ""
    models = [line.partition(":")[2] for line in text.splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].strip() if models else platform.machine(),
        "cores": available_cores(),
        "bfloat16": cpu_has_bfloat16(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "tensorflow": metadata.version(metadata.packages_distributions()["tensorflow"][0]),
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split(".")[0])
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (default: all)")
    add("--output_dir", type=pathlib.Path, default=pathlib.Path("results"), help="output folder")
    add("--repeats", type=int, default=5, help="rounds over the contenders (default: 5)")
    add("--seconds", type=float, default=3.0, help="time per contender and round (default: 3)")
    add("--prior_sizes", type=int, nargs="+", default=[1000, 5000, 10_000, 50_000], metavar="N")
    peers = pathlib.Path(".venv_peers/bin/python")
    add("--peers_python", type=pathlib.Path, default=peers, help=f"Python with peers ({peers})")
    settings = parser.parse_args()
    if settings.repeats < 1:
        parser.error(f"--repeats must be at least 1; got {settings.repeats}")
    return settings


def main() -> None:
    """Measures, prints the results and writes the files."""
    settings = _parse()
    measures = (measure_updates, measure_training, measure_priors)
    results: Results = {}
    for part, measured in zip(PARTS, measures, strict=True):
        if part in settings.only:
            results |= measured(settings)
    peers = {key: results.pop(key) for key in list(results) if key.startswith("peers/")}
    for key, value in results.items():
        print(f"{key:60} {value if isinstance(value, list) else f'{value:10,.4g}'}")
    timing = {"repeats": settings.repeats, "seconds": settings.seconds}
    content = {"machine": describe_machine() | peers, "settings": timing} | results
    path = settings.output_dir / "benchmark.json"
    write_text(path, json.dumps(content, indent=2) + "\n")
    if "updates" in settings.only:
        savefig = figures.draw_updates(results).savefig
        replace_file(path.with_suffix(".png"), functools.partial(savefig, format="png", dpi=105))
    print(path)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
