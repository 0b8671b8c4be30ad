"""Trains N-PPAC on a task: fits the prior, pre-trains the actor to it, learns online.

python launch/train.py --flagfile=configs/pen.flags --seed=1
python launch/train.py --resume --output_dir=runs/...
"""

import datetime
import pathlib

import common
from absl import flags

from nppac_tf.config import RunConfig
from nppac_tf.errors import UserError

common.define(RunConfig)
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
        folder = common.require_run("output_dir")
        before = common.run_configuration(folder)
        config = common.configuration(RunConfig, base=before)
        before.require_resumable(config, folder)
    else:
        config = common.configuration(RunConfig)
        folder = _default_output_dir(config)
        if _OUTPUT_DIR.value:
            folder = common.require_output_folder("output_dir")
        if (folder / "config.json").exists():
            raise UserError(
                f"{folder} already holds a run: pass --resume to go on with it, or another "
                "--output_dir"
            )
    from nppac_tf import demonstrations, environments

    task = environments.make_task(config.task, config.reward)
    data = demonstrations.load_demonstrations(config.demonstrations, task)
    from nppac_tf import baselines, priors, progress, rundir, training, transitions

    if config.training.demonstration_share or config.training.prefill_replay:
        transitions.of_demonstrations(data, task)  # A mistake shows before the prior is fitted.

    directory = rundir.RunDirectory(folder)
    how_to_go_on = f"go on with --resume --output_dir={folder}"
    title = f"{config.task}, {_method(config)}, seed {config.training.seed}"
    with directory.locked(), progress.ProgressDisplay() as display:
        display.say(f"{data.name}: {data.num_episodes} episodes, {data.num_steps:,} steps")
        for notice in data.notices:
            display.say(notice)
        if resuming:
            notices = directory.resume(config, data)
            display.say(f"Going on with {directory.path}; its evaluations so far:")
            for notice in notices:
                display.say(notice)
        else:
            directory.require_new()
            directory.begin(config, data)
            display.say(f"Writing to {directory.path}")
        if directory.prior.exists():
            fitted = priors.load_prior(directory.prior)
        else:
            cache = _cache(priors.default_cache())
            try:
                with display.busy("Fitting the prior"):
                    fitted = priors.fit_prior(data, config.prior.unscaled(), cache)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"interrupted; {how_to_go_on}") from None
        directory.keep_prior(fitted)
        prior = priors.rescale(fitted, config.prior)
        learner = baselines.make_agent(task, prior, config.agent, config.training.seed)
        with common.stop_on_signals() as stop:
            try:
                rows = training.train(
                    learner,
                    task,
                    data,
                    config=config.training,
                    observers=[display, directory.observer()],
                    checkpoint=directory.checkpoint,
                    should_stop=lambda: stop.requested,
                )
            except training.Stopped:
                by = str(stop.requested)
                raise common.Stopped(by, f"stopped by {by}; {how_to_go_on}") from None
        with display.busy("Exporting the policy"):
            directory.conclude(learner, task, rows, title, data)

    names = [name for name in training.EVALUATION_COLUMNS if rows[0][name] == rows[0][name]]
    progress.print_table(
        title,
        ("", "first", "last"),
        [(name, *(_readable(row[name]) for row in (rows[0], rows[-1]))) for name in names],
    )
    for path in (directory.metrics, directory.learning_curve, directory.policy):
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
    if not (path / "config.json").exists() and not common.given(RunConfig):
        raise UserError(
            f"no run to resume at {path}; to begin one there, give its flags as well "
            "(--flagfile=...)"
        )
    return (path / "config.json").exists()


def _method(config: RunConfig) -> str:
    """Which algorithm, if another than N-PPAC, and which prior."""
    algorithm, prior = config.agent.algorithm, config.prior.prior
    return prior if algorithm == "nppac" else f"{algorithm} {prior}"


def _readable(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def _default_output_dir(config: RunConfig) -> pathlib.Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{_method(config).replace(' ', '-')}-seed{config.training.seed}-{now}"
    return pathlib.Path("runs") / config.task.replace("/", "-").replace(":", "-") / name


def _cache(default: pathlib.Path) -> pathlib.Path | None:
    if _PRIOR_CACHE.value == "none":
        return None
    return pathlib.Path(_PRIOR_CACHE.value).expanduser() if _PRIOR_CACHE.value else default


if __name__ == "__main__":
    common.run(main)
