"""Trains N-PPAC on a task: fits the prior, pre-trains the actor to it, then learns online.

python launch/train.py --flagfile=configs/pen.flags --seed=1
python launch/train.py --resume --output_dir=runs/...
python launch/train.py --from_run=runs/pen --demonstrations=first.npz,more.npz
"""

import contextlib
import dataclasses
import datetime
import pathlib
from typing import Any

from common import checks, config_flags, policies, program
from absl import flags

from nppac_tf import files
from nppac_tf.config import RunConfig
from nppac_tf.errors import UserError
from nppac_tf.runs.config_file import continued, require_resumable

_MAIN_OPTIONS = (
    *("flagfile", "task", "demonstrations", "prior", "scale_factor", "temperature"),
    *("num_env_steps", "seed", "output_dir", "resume", "from_run"),
)

config_flags.define(RunConfig)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder of the run (default: a new folder in runs/)."
)
_RESUME = flags.DEFINE_boolean(
    "resume", False, "Resume the run in --output_dir, or start it if there is none yet."
)
_FROM_RUN = flags.DEFINE_string(
    "from_run",
    None,
    "Folder of a run to start from: its newest policy and critics, its prior if the demonstrations "
    "are the same, and its settings where no flag is given.",
)
_PRIOR_CACHE = flags.DEFINE_string(
    "prior_cache",
    None,
    "Folder that keeps fitted priors for the same data and settings, or 'none' (default: in the "
    "user's cache).",
)


def main() -> None:
    folder, config, resuming = _plan()
    print("Loading TensorFlow", flush=True)
    from nppac_tf.runs import inputs

    given = inputs.load(config)
    from nppac_tf.runs import display as displays
    from nppac_tf.runs import run as runs
    from nppac_tf.training import loop

    how_to_resume = f"resume with: {program.command('--resume', f'--output_dir={folder}')}"
    display = displays.ProgressDisplay()
    run = runs.TrainingRun(folder, config, given, display, _FROM_RUN.value)
    with run.directory.locked(), display:
        run.open(resuming)
        try:
            agent = run.make_agent(runs.prior_cache(_PRIOR_CACHE.value))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {how_to_resume}") from None
        with program.stop_on_signals() as stop:
            try:
                rows = run.train(agent, lambda: stop.requested)
            except loop.Stopped:
                stop.exit(how_to_resume)
        run.conclude(agent, rows)
    _print_results(run.directory, inputs.title(config), rows)
    _print_next_steps(run.directory.path, given.task, rows)


def _plan() -> tuple[pathlib.Path, RunConfig, bool]:
    """Returns the run's folder and configuration, and whether it is resumed.

    A job that restarts after each preemption passes all its flags and --resume every time.
    """
    if _RESUME.value and not _OUTPUT_DIR.value:
        raise UserError("--resume needs the run's --output_dir")
    if _OUTPUT_DIR.value:
        folder = checks.output_folder("output_dir")
        exists = (folder / "config.json").exists()
        if exists and not _RESUME.value:
            raise UserError(
                f"{folder} already holds a run; pass --resume to resume it, or another --output_dir"
            )
        if exists:
            folder, earlier = checks.run_folder("output_dir")
            config = _from_anywhere(config_flags.configuration(RunConfig, base=earlier))
            require_resumable(earlier, config, folder)
            return folder, config, True
        given = _FROM_RUN.present or any(flags.FLAGS[name].present for name in config_flags.groups)
        if _RESUME.value and not given:
            raise UserError(f"no run at {folder}; to start one there, pass its flags as well")
        return folder, _new(), False
    config = _new()
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    task = config.task.replace("/", "-").replace(":", "-")
    name = f"{config.agent.algorithm}-{config.prior.prior}-seed{config.training.seed}-{now}"
    return pathlib.Path("runs") / task / name, config, False


def _new() -> RunConfig:
    """The configuration of a new run; what no flag gives is that of --from_run, if there is one."""
    base = None
    if _FROM_RUN.value:
        path = checks.existing("from_run")
        if (path / "policy.json").is_file() or (path / "saved_model.pb").is_file():
            raise UserError(
                f"--from_run must be the folder of a run; {path} is an export, which has no critics"
            )
        path, config = checks.run_folder("from_run")
        if not flags.FLAGS["task"].present:
            policies.confirm_module(path, config.task)
        base = continued(config, path)
    return _from_anywhere(config_flags.configuration(RunConfig, base))


def _from_anywhere(config: RunConfig) -> RunConfig:
    """With the whole paths of demonstrations, so that any folder will do to resume."""
    return dataclasses.replace(config, demonstrations=files.absolute_names(config.demonstrations))


def _print_results(directory: Any, title: str, rows: list[dict[str, float]]) -> None:
    from nppac_tf.evaluation.episodes import readable
    from nppac_tf.runs import display, metrics
    from nppac_tf.training import loop

    labels = {"env_steps": "environment steps", "wall_seconds": "seconds", **metrics.LABELS}
    names = [name for name in loop.EVALUATION_COLUMNS if rows[0][name] == rows[0][name]]
    cells = [(labels.get(n, n), *(readable(row[n]) for row in (rows[0], rows[-1]))) for n in names]
    display.print_table(title, ("", "first", "last"), cells)
    for path in (directory.metrics, directory.learning_curve, directory.policy):
        print(path)


def _print_next_steps(folder: pathlib.Path, task: Any, rows: list[dict[str, float]]) -> None:
    """Prints commands; those that would import a module of the user's own need its name."""
    from nppac_tf.runs import metrics
    from nppac_tf.training import evaluator

    run = [f"--run={folder}", *([f"--task={task.name}"] if ":" in task.name else [])]
    if not metrics.is_kept(evaluator.main_metric(rows[0]), evaluator.main_metric(rows[-1])):
        print("The last policy is worse than the first; --policy=best takes the best of the run.")
        run.append("--policy=best")
    film = ["--num_episodes=3", f"--video={folder / 'policy.mp4'}"]
    steps: dict[str, tuple[str, list[str]]] = {
        "evaluate on starts that training did not use": ("evaluate", [])
    }
    with contextlib.closing(task.make()) as environment:
        if "rgb_array" in environment.metadata.get("render_modes", ()):
            steps["film"] = ("evaluate", film)
    steps["measure, and print how to serve"] = ("export", [f"--output={folder / 'exported'}"])
    for purpose, (launcher, arguments) in steps.items():
        print(f"To {purpose}:\n  {program.command(*run, *arguments, launcher=launcher)}")


if __name__ == "__main__":
    program.run(main, _MAIN_OPTIONS)
