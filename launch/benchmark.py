"""Measures how fast the project is, beside its peers and the machine's limit.

make benchmark
python launch/benchmark.py --only=updates --output_dir=results

Writes benchmark.json and benchmark.png. Updates of soft actor-critic are timed on synthetic data of
two shapes: N-PPAC, the same with a uniform prior, TF-Agents' SacAgent and, where --peers_python
names an environment that has them (make benchmark makes one), Stable-Baselines3 and SBX. Each runs
in a process of its own, with equal threads, in turn. Run it on a machine with nothing else to do.
"""

import io
import json
import pathlib
from typing import Any

import config_flags
import path_flags
import program
from absl import flags

from nppac_tf.config import PriorConfig
from nppac_tf.errors import UserError

_PARTS = ("updates", "profile", "training", "priors", "startup")
_PRIOR_FIELDS = ("num_inducing_points", "num_hyperparameter_points", "max_fit_iterations")
_DOTS_PER_INCH = 105

config_flags.define(PriorConfig, only=_PRIOR_FIELDS)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "results", "Folder for what is written.")
_ONLY = flags.DEFINE_list("only", list(_PARTS), f"Which to measure, of {', '.join(_PARTS)}.")
_THREADS = flags.DEFINE_integer(
    "threads", None, "Of everything; by default one for each core.", lower_bound=1
)
_REPEATS = flags.DEFINE_integer("repeats", 15, "Rounds over the contenders.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 1.5, "Of each contender in each round.", lower_bound=0.01)
_NUM_ENV_STEPS = flags.DEFINE_integer(
    "num_env_steps", 10_000, "Of training, in epochs of 1,000.", lower_bound=2000
)
_PRIOR_SIZES = flags.DEFINE_list(
    "prior_sizes", ["1000", "5000", "10000", "50000"], "Demonstration points of the priors."
)
_PEERS_PYTHON = flags.DEFINE_string(
    "peers_python",
    ".venv_peers/bin/python",
    "Python that has Stable-Baselines3 and SBX; without it they are left out.",
)


def main() -> None:
    unknown = [name for name in _ONLY.value if name not in _PARTS]
    if unknown or not _ONLY.value:
        raise UserError(f"--only must be of {', '.join(_PARTS)}; got {','.join(_ONLY.value)!r}")
    sizes = _sizes(_PRIOR_SIZES.value)
    peers = pathlib.Path(_PEERS_PYTHON.value).expanduser()
    if not peers.exists() and flags.FLAGS["peers_python"].present:
        path_flags.require_file("peers_python")
    folder = path_flags.require_output_folder("output_dir")
    if _NUM_ENV_STEPS.value % 1000:
        raise UserError(
            f"--num_env_steps must be a multiple of 1,000; got {_NUM_ENV_STEPS.value:,}"
        )
    fields: dict[str, Any] = {name: flags.FLAGS[name].value for name in _PRIOR_FIELDS}
    config = PriorConfig(**fields)
    from benchmarks import machine, suite, workers
    from nppac_tf.hardware import available_cores
    from nppac_tf.runs import display

    threads = _THREADS.value or available_cores()
    description = machine.describe()
    workers.restrict(threads)
    measures = suite.Suite(
        threads=threads,
        repeats=_REPEATS.value,
        seconds=_SECONDS.value,
        num_env_steps=_NUM_ENV_STEPS.value,
        prior_sizes=sizes,
        prior=config,
        tell=lambda line: print(line, flush=True),
    )
    results: dict[str, Any] = {}
    if "updates" in _ONLY.value:
        if not peers.exists():
            print(f"no {peers}: without Stable-Baselines3 and SBX (make benchmark installs them)")
        results |= measures.updates(peers if peers.exists() else None)
    if "profile" in _ONLY.value:
        results |= measures.profile()
    if "training" in _ONLY.value:
        results |= measures.training()
    if "priors" in _ONLY.value:
        results |= measures.priors()
    if "startup" in _ONLY.value:
        results |= measures.startup()
    description |= {key: results.pop(key) for key in list(results) if key.startswith("peers/")}
    display.print_table(
        f"{description['processor']}, {threads} threads; medians of {_REPEATS.value} repeats",
        ("", "", "lowest to highest"),
        suite.rows(results),
    )
    settings = {"threads": threads, "repeats": _REPEATS.value, "seconds": _SECONDS.value}
    content = {"machine": description, "settings": settings, **results}
    for path in _write(folder, content):
        print(path)


def _sizes(values: list[str]) -> tuple[int, ...]:
    if not values or not all(value.isdigit() and int(value) >= 100 for value in values):
        raise UserError(
            f"--prior_sizes must be whole numbers of at least 100; got {','.join(values)!r}"
        )
    return tuple(map(int, values))


def _write(folder: pathlib.Path, content: dict[str, Any]) -> list[pathlib.Path]:
    from benchmarks import figures
    from nppac_tf import files

    paths = [folder / "benchmark.json", folder / "benchmark.png"]
    files.write_text(paths[0], json.dumps(content, indent=2) + "\n")
    image = io.BytesIO()
    figures.benchmark(content).savefig(image, format="png", dpi=_DOTS_PER_INCH)
    files.replace_file(paths[1], lambda file: file.write(image.getvalue()))
    return paths


if __name__ == "__main__":
    program.run(main)
