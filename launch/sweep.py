"""Trains several methods with several seeds, in parallel through Ray.

python launch/sweep.py --flagfile=configs/comparison/pen.flags --demonstrations=pen2_sparse.npy \\
    --flagfiles=nppac=,configs/baselines/sac.flags,configs/baselines/awac.flags --seeds=0,1,2

It takes the flags of launch/train.py. Each run is what train.py does with this command line, with
one item of --flagfiles in its place as --flagfile, which overrides what precedes it and is
overridden by what follows, and with one of --seeds as --seed. A method is named after its flagfile,
or NAME=FILE; FILE+FILE reads several, and NAME= none. Runs are written to OUTPUT_DIR/METHOD/seedN,
each with a log.txt.

The same command resumes a sweep: finished runs are kept, the others continue from their
checkpoints. With --address, the runs are distributed over a Ray cluster, whose machines must share
the working directory and --output_dir, and have this package installed.
"""

import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from common import checks, config_flags, flagfiles, parsing, program
from absl import flags

from nppac_tf import hardware
from nppac_tf.config import RunConfig
from nppac_tf.errors import UserError

_MAIN_OPTIONS = (
    *("flagfile", "flagfiles", "seeds", "task", "demonstrations", "prior", "num_env_steps"),
    *("output_dir", "cpus_per_run", "address"),
)

config_flags.define(RunConfig)
_METHODS = flags.DEFINE_list(
    "flagfiles", [], "Flagfiles of each method: FILE, FILE+FILE, NAME=FILE or NAME=, with commas."
)
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of each method, with commas.")
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder of all runs, as METHOD/seedN (default: runs/TASK)."
)
_CPUS_PER_RUN = flags.DEFINE_integer(
    "cpus_per_run", 1, "Cores per run; as many runs are trained at once as fit.", 1
)
_MAX_RETRIES = flags.DEFINE_integer(
    "max_retries", 2, "Times that a run is resumed after its process died.", 0
)
_ADDRESS = flags.DEFINE_string(
    "address", None, "Address of a Ray cluster: auto or HOST:6379 (default: this machine only)."
)
_PRIOR_CACHE = flags.DEFINE_string(
    "prior_cache", None, "Folder that keeps fitted priors, or 'none' (default: the user's cache)."
)


def main() -> None:
    checks.reject("seed", "in a sweep, which has --seeds")
    methods, seeds = _methods(), _seeds()
    output = checks.output_folder("output_dir") if _OUTPUT_DIR.value else None
    cores = hardware.available_cores()
    if not _ADDRESS.value and _CPUS_PER_RUN.value > cores:
        raise UserError(
            f"--cpus_per_run must be at most {cores}, the cores of this machine; got "
            f"{_CPUS_PER_RUN.value}"
        )
    from nppac_tf.runs.sweep import plan

    runs = plan.grid(methods, seeds, output)
    plan.check(runs)
    unfinished = [run for run in runs if not plan.is_complete(run)]
    print(f"{len(runs)} runs: {', '.join(methods)}, with seeds {', '.join(map(str, seeds))}")
    if len(unfinished) < len(runs):
        print(f"{len(runs) - len(unfinished)} of them are complete")
    failed = _train(unfinished) if unfinished else []
    _print_results([run for run in runs if run.name not in failed])
    if failed:
        names = ", ".join(failed[:3]) + (", ..." if len(failed) > 3 else "")
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed: {names}; the reasons are above and in each "
            "log.txt; the same command resumes"
        )


def _methods() -> dict[str, RunConfig]:
    """Returns the configuration of each method: this command line with its flagfiles."""
    arguments = flagfiles.expand(sys.argv[1:])
    methods = {}
    for name, files in _flagfiles_of_methods().items():
        try:
            parsing.apply(_with_flagfiles(arguments, files))
            methods[name] = config_flags.configuration(RunConfig)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    parsing.apply(arguments)
    return methods


def _flagfiles_of_methods() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in _METHODS.value:
        before, equals, after = item.partition("=")
        files = (after if equals else before).split("+") if after or not equals else []
        if not before or not all(files):
            raise UserError(
                f"--flagfiles must be of FILE, FILE+FILE, NAME=FILE or NAME=; got {item!r}"
            )
        name = before if equals else pathlib.Path(files[-1]).stem
        if name in found:
            raise UserError(f"--flagfiles has {name!r} twice; name one of them as NAME=FILE")
        found[name] = files
    if not found:
        raise UserError("--flagfiles must name one or more flagfiles, with commas; got none")
    return found


def _with_flagfiles(
    arguments: Sequence[flagfiles.Argument], files: Sequence[str]
) -> list[flagfiles.Argument]:
    """Puts the flags of a method's flagfiles where --flagfiles is last given."""
    own = flagfiles.expand([f"--flagfile={file}" for file in files])
    last = max(
        index
        for index, argument in enumerate(arguments)
        if re.match(r"--?flagfiles(=|$)", argument.text)
    )
    after = last + 1 if "=" in arguments[last].text else last + 2
    return [*arguments[:after], *own, *arguments[after:]]


def _seeds() -> list[int]:
    values = _SEEDS.value
    if not values or not all(re.fullmatch(r"[0-9]{1,9}", value) for value in values):
        raise UserError(f"--seeds must be integers of at least 0; got {','.join(values)!r}")
    seeds = [int(value) for value in values]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds must be different numbers; got {','.join(values)}")
    return seeds


def _train(runs: Sequence[Any]) -> list[str]:
    """Trains the runs and returns the names of those that failed."""
    from nppac_tf.runs.sweep import cluster, display, messages

    with (
        cluster.connected(_ADDRESS.value, _CPUS_PER_RUN.value),
        program.stop_on_signals() as stop,
        display.SweepDisplay(runs) as shown,
    ):
        try:
            endings = cluster.carry_out(
                runs,
                shown,
                cpus_per_run=_CPUS_PER_RUN.value,
                max_retries=_MAX_RETRIES.value,
                prior_cache=_PRIOR_CACHE.value,
                should_stop=lambda: stop.requested,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command resumes") from None
    states = [ending.state for ending in endings]
    if messages.STOPPED in states:
        stop.exit("the same command resumes")
    return [run.name for run, state in zip(runs, states, strict=True) if state == messages.FAILED]


def _print_results(runs: Sequence[Any]) -> None:
    if not runs:
        return
    from nppac_tf.comparison import sweep_results
    from nppac_tf.runs import display

    for task, (header, rows) in sweep_results.tables(runs).items():
        title = f"{task}: interquartile means [95 % intervals] of the last evaluations"
        display.print_table(title, header, rows)
    for command in sweep_results.commands(runs):
        print(parsing.as_typed(command))


if __name__ == "__main__":
    program.run(main, _MAIN_OPTIONS)
