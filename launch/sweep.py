"""Trains several methods with several seeds, side by side through Ray.

python launch/sweep.py --flagfile=configs/comparison/pen.flags --demonstrations=pen2_sparse.npy \\
    --flagfiles=nppac=,configs/baselines/sac.flags,configs/baselines/awac.flags --seeds=0,1,2

It takes the flags of launch/train.py. Each run is what train.py would do with this command line,
with one item of --flagfiles in its place as --flagfile, which overrides what stands before it and
is overridden by what follows, and with one of --seeds as --seed and, unless --prior_seed is given,
as --prior_seed. A method is named after its flagfile, or
NAME=FILE; FILE+FILE reads several, NAME= alone none. Runs go to OUTPUT_DIR/METHOD/seedN, each with
a log.txt.

The same command again goes on: finished runs are left as they are, the others go on from their
checkpoints. With --address the runs are spread over a Ray cluster, whose machines must share the
working directory and --output_dir, and have this package at the same place.
"""

import re
import sys

import config_flags
import flagfiles
import parsing
import path_flags
import program
import signals
import usage
import variants
from absl import flags

from nppac_tf.config import RunConfig
from nppac_tf.errors import UserError

_FLAGFILES = "flagfiles"

config_flags.define(RunConfig)
_METHODS = flags.DEFINE_list(
    _FLAGFILES,
    [],
    "Methods, comma-separated: what each reads, as FILE, FILE+FILE, NAME=FILE or NAME=.",
)
_SEEDS = flags.DEFINE_list(
    "seeds",
    ["0"],
    "Seeds of each method, and of its prior unless --prior_seed is given; comma-separated.",
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder of all runs, as METHOD/seedN; by default runs/TASK."
)
_CPUS_PER_RUN = flags.DEFINE_integer(
    "cpus_per_run", 1, "Cores of each run; as many run at once as there are cores for.", 1
)
_MAX_RETRIES = flags.DEFINE_integer(
    "max_retries", 2, "How often a run goes on from its checkpoint after its process died.", 0
)
_ADDRESS = flags.DEFINE_string(
    "address", None, "Of a Ray cluster, such as auto or HOST:6379; by default this machine alone."
)
_PRIOR_CACHE = flags.DEFINE_string(
    "prior_cache", None, "Folder of fitted priors, 'none' for no cache; see launch/train.py."
)


def main() -> None:
    usage.reject("seed", "in a sweep, which has --seeds")
    (methods, own_priors), seeds = _methods(), _seeds()
    output = path_flags.require_output_folder("output_dir") if _OUTPUT_DIR.value else None
    if not _ADDRESS.value:
        _require_cores()
    from nppac_tf.runs.sweep import plan

    runs = plan.grid(methods, seeds, output, own_priors)
    plan.check(runs)
    unfinished = [run for run in runs if not plan.is_complete(run)]
    print(f"{len(runs)} runs: {', '.join(methods)}, with seeds {', '.join(map(str, seeds))}")
    if len(unfinished) < len(runs):
        print(f"{len(runs) - len(unfinished)} of them are complete")
    failed = _carry_out(unfinished) if unfinished else []
    _tell_results([run for run in runs if run.name not in failed])
    if failed:
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed, {_listed(failed)}: what each said stands "
            "above, and in its log.txt; the same command goes on"
        )


def _methods() -> tuple[dict[str, RunConfig], set[str]]:
    """Each method's configuration, from the command line with its flagfiles in place.

    And the names of those whose command line gives --prior_seed.
    """
    files = variants.parse(_METHODS.value, _FLAGFILES)
    arguments = flagfiles.expand(sys.argv[1:])
    methods, own_priors = {}, set()
    try:
        for name, paths in files.items():
            own = [f"--flagfile={path}" for path in paths]
            methods[name] = _configuration(name, variants.substitute(arguments, _FLAGFILES, own))
            if flags.FLAGS["prior_seed"].present:
                own_priors.add(name)
    finally:
        flags.FLAGS.unparse_flags()
        parsing.parse(sys.argv)
    return methods, own_priors


def _configuration(method: str, arguments: list[str]) -> RunConfig:
    """What a command line asks for; the flags are then as it has them."""
    flags.FLAGS.unparse_flags()
    try:
        parsing.parse([sys.argv[0], *arguments])
        return config_flags.configuration(RunConfig)
    except UserError as error:
        raise UserError(f"{method}: {error}") from None


def _seeds() -> list[int]:
    values = _SEEDS.value
    if not values or not all(re.fullmatch(r"[0-9]{1,9}", value) for value in values):
        raise UserError(
            f"--seeds must be whole numbers, at least 0, comma-separated; got {','.join(values)!r}"
        )
    seeds = [int(value) for value in values]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds must be different numbers; got {','.join(values)}")
    return seeds


def _require_cores() -> None:
    from nppac_tf import hardware

    cores = hardware.available_cores()
    if _CPUS_PER_RUN.value > cores:
        raise UserError(
            f"--cpus_per_run must be at most {cores}, the cores of this machine; got "
            f"{_CPUS_PER_RUN.value}"
        )


def _carry_out(runs) -> list[str]:
    """Trains the runs; the names of those that failed."""
    from nppac_tf.runs.sweep import cluster, messages
    from nppac_tf.runs.sweep import display as displays

    with (
        cluster.connected(_ADDRESS.value, _CPUS_PER_RUN.value),
        signals.stop_on_signals() as stop,
        displays.SweepDisplay(runs) as display,
    ):
        try:
            endings = cluster.carry_out(
                runs,
                display,
                cpus_per_run=_CPUS_PER_RUN.value,
                max_retries=_MAX_RETRIES.value,
                prior_cache=_PRIOR_CACHE.value,
                should_stop=lambda: stop.requested,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command goes on") from None
    if any(ending.state == messages.STOPPED for ending in endings):
        by = str(stop.requested)
        raise signals.Stopped(by, f"stopped by {by}; the same command goes on")
    return [
        run.name
        for run, ending in zip(runs, endings, strict=True)
        if ending.state == messages.FAILED
    ]


def _tell_results(runs) -> None:
    if not runs:
        return
    from nppac_tf.comparison import sweep_results as results
    from nppac_tf.runs import display as progress

    for task, (header, rows) in results.tables(runs).items():
        title = f"{task}: interquartile means [95 % intervals] of the last evaluations"
        progress.print_table(title, header, rows)
    for command in results.commands(runs):
        print(command)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


if __name__ == "__main__":
    program.run(main)
