"""Trains N-PPAC on a task: fits the prior, pre-trains the actor to it, learns online.

python launch/train.py --flagfile=configs/pen.flags --seed=1
python launch/train.py --resume --output_dir=runs/...
"""

import datetime
import pathlib
import sys

import config_flags
import flagfiles
import path_flags
import program
import signals
from absl import flags

from nppac_tf.config import RunConfig
from nppac_tf.errors import UserError

config_flags.define(RunConfig)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder of the run; by default a new one below runs/."
)
_RESUME = flags.DEFINE_boolean(
    "resume", False, "Go on with the run in --output_dir, with its own configuration."
)
_PRIOR_CACHE = flags.DEFINE_string(
    "prior_cache",
    None,
    "Folder of fitted priors, fitted anew only if data or settings differ; by default in the "
    "user's cache. 'none' for no cache.",
)


def main() -> None:
    resuming = _is_to_resume()
    if resuming:
        folder = path_flags.require_run("output_dir")
        before = path_flags.run_configuration(folder)
        config = config_flags.configuration(RunConfig, base=before)
        before.require_resumable(config, folder)
    else:
        config = config_flags.configuration(RunConfig)
        if _OUTPUT_DIR.value:
            folder = path_flags.require_output_folder("output_dir")
        else:
            folder = _default_output_dir(config)
        if (folder / "config.json").exists():
            raise UserError(
                f"{folder} already holds a run: pass --resume to go on with it, or another "
                "--output_dir"
            )
    from nppac_tf.runs import inputs

    given = inputs.load(config)
    if not resuming and not flagfiles.read(sys.argv[1:]):
        print(
            "No flagfile is given: the prior's deviation stays as fitted, which the recipe of "
            "configs/pen.flags and configs/door.flags makes smaller"
        )
    from nppac_tf.runs import display as progress
    from nppac_tf.runs import metrics
    from nppac_tf.runs import run as runs
    from nppac_tf.training import loop

    how_to_go_on = f"go on with: python {sys.argv[0]} --resume --output_dir={folder}"
    display = progress.ProgressDisplay()
    run = runs.TrainingRun(folder, config, given, display)
    with run.directory.locked(), display:
        run.open(resuming)
        try:
            agent = run.make_agent(runs.prior_cache(_PRIOR_CACHE.value))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {how_to_go_on}") from None
        with signals.stop_on_signals() as stop:
            try:
                rows = run.train(agent, lambda: stop.requested)
            except loop.Stopped:
                by = str(stop.requested)
                raise signals.Stopped(by, f"stopped by {by}; {how_to_go_on}") from None
        run.conclude(agent, rows)

    labels = {
        "env_steps": "environment steps",
        "updates": "updates",
        "wall_seconds": "seconds",
        **metrics.LABELS,
    }
    names = [name for name in loop.EVALUATION_COLUMNS if rows[0][name] == rows[0][name]]
    progress.print_table(
        inputs.title(config),
        ("", "first", "last"),
        [(labels[name], *(_readable(row[name]) for row in (rows[0], rows[-1]))) for name in names],
    )
    for path in (run.directory.metrics, run.directory.learning_curve, run.directory.policy):
        print(path)


def _is_to_resume() -> bool:
    """Whether to go on with a run: --resume is given, and there is one.

    A job that is begun anew each time it is preempted gives all flags and --resume every time.
    """
    if not _RESUME.value:
        return False
    if not _OUTPUT_DIR.value:
        raise UserError("--resume needs the run's --output_dir")
    path = pathlib.Path(_OUTPUT_DIR.value).expanduser()
    if not (path / "config.json").exists() and not config_flags.given(RunConfig):
        raise UserError(
            f"no run to resume at {path}; to begin one there, give its flags as well "
            "(--flagfile=...)"
        )
    return (path / "config.json").exists()


def _readable(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def _default_output_dir(config: RunConfig) -> pathlib.Path:
    from nppac_tf.runs import inputs

    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{inputs.method(config).replace(' ', '-')}-seed{config.training.seed}-{now}"
    return pathlib.Path("runs") / config.task.replace("/", "-").replace(":", "-") / name


if __name__ == "__main__":
    program.run(main)
