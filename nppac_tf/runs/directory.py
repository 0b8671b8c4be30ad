"""The folder of a run.

config.json                  configuration, versions, prior and demonstrations
metrics.csv                  a row per evaluation
timings.csv                  the same rows' times and speeds
tensorboard/                 all these, and the training metrics of every epoch
prior.npz                    the fitted prior
novelty.npz                  calibration of the out-of-demonstration score
checkpoints/                 all that is needed to resume the run
.lock                        held by the process that writes here
best/                        weights of the policy with the best evaluation so far
start/                       weights, and perhaps the prior, of the run that this one goes on from
figures/learning_curve.png   at the end
policy/, policy_best/        SavedModels of the last and of the best policy, at the end
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nppac_tf.agents.factory import make_agent
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import RunConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task
from nppac_tf.errors import UserError
from nppac_tf.evaluation import rollouts
from nppac_tf.files import split_names, write_text
from nppac_tf.hardware import resolve_precision
from nppac_tf.priors.base import BehavioralPrior
from nppac_tf.priors.fitting import load_prior, rescale, save_prior
from nppac_tf.priors.novelty import Novelty, load_novelty, save_novelty
from nppac_tf.runs import inputs
from nppac_tf.runs import metrics as reports
from nppac_tf.runs.config_file import read_config_file, require_resumable
from nppac_tf.runs.metrics import MetricsWriter
from nppac_tf.runs.start import Start, read_learned
from nppac_tf.serving import runtimes, saved_model
from nppac_tf.serving.metadata import load_metadata
from nppac_tf.training import checkpoints
from nppac_tf.training.checkpoints import RunCheckpoint
from nppac_tf.training.evaluator import Metrics
from nppac_tf.training.replay import Replay

_PACKAGES = (
    "gpflow",
    "gymnasium",
    "gymnasium-robotics",
    "mujoco",
    "numpy",
    "scipy",
    "tensorflow-probability",
    "tf-agents",
)


class RunDirectory:
    """One run's folder.

    Args:
        path: Nothing is made or read before it is needed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self.start = Start(self.path / "start")

    @property
    def policy(self) -> pathlib.Path:
        """Path of the last policy's export."""
        return self.path / "policy"

    @property
    def best_policy(self) -> pathlib.Path:
        """Path of the best policy's export."""
        return self.path / "policy_best"

    @property
    def _best(self) -> pathlib.Path:
        return self.path / "best"

    @property
    def learning_curve(self) -> pathlib.Path:
        """Path of the learning curve."""
        return self.path / "figures" / "learning_curve.png"

    @property
    def metrics(self) -> pathlib.Path:
        """Path of the table of evaluations."""
        return self.path / "metrics.csv"

    @property
    def timings(self) -> pathlib.Path:
        """Path of the table of times."""
        return self.path / "timings.csv"

    @property
    def prior(self) -> pathlib.Path:
        """Path of the fitted prior, whose statistics the replay holds."""
        return self.path / "prior.npz"

    @property
    def _novelty(self) -> pathlib.Path:
        return self.path / "novelty.npz"

    @property
    def _config(self) -> pathlib.Path:
        return self.path / "config.json"

    @property
    def _checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run has begun here."""
        return self._config.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing here; made where absent, freed however this one ends.

        Raises:
            UserError: if another process is writing here, or the folder cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.path / ".lock", "a+")  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"the run's folder must be one that can be written to; got {str(self.path)!r} "
                f"({error.strerror})"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise UserError(
                    f"{self.path} is being written by another process ({file.read().strip()}): "
                    "wait for it or stop it, or name another folder"
                ) from None
            except OSError as error:
                raise UserError(
                    f"{self.path} cannot be locked ({error.strerror}): name a folder on another "
                    "file system"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            yield

    def require_new(self) -> None:
        """Raises UserError if a run is here already."""
        for path in (self._config, self.metrics, self._checkpoints, self.prior, self._novelty):
            if path.exists():
                raise UserError(
                    f"{self.path} already holds a run: pass --resume to continue it, or another "
                    "--output_dir"
                )

    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            UserError: if there is no run here, or one of another version.
        """
        return RunConfig.from_dict(self._read_config()["config"])

    def provenance(self, updates: int | None = None) -> dict[str, Any]:
        """What config.json and an evaluation say of the run, without the names of folders.

        Args:
            updates: Number of updates at the evaluation; the last one where None or not found.

        Raises:
            UserError: if there is no run here, or one of another version.
        """
        content = self._read_config()
        source = content["config"]["demonstrations"]
        names = [pathlib.PurePath(name).name for name in split_names(source)]
        content["config"]["demonstrations"] = ",".join(names)
        if "from_run" in content:
            content["from_run"]["run"] = pathlib.PurePath(content["from_run"]["run"]).name
        rows = self.rows() or [{}]
        row = next((row for row in rows if row.get("updates") == updates), rows[-1])
        return {
            **content,
            "metrics": {name: value for name, value in row.items() if np.isfinite(value)},
        }

    def begin(
        self,
        config: RunConfig,
        demonstrations: Demonstrations,
        source: "RunDirectory | None" = None,
    ) -> list[str]:
        """Writes config.json: from then on the folder holds a run, which can be resumed.

        Args:
            config: The run's configuration.
            demonstrations: Its demonstrations.
            source: Run whose newest checkpoint this one starts from. What it needs is copied.

        Returns:
            Notices: what comes from the source, a line each.

        Raises:
            UserError: if the source has no checkpoint yet.
        """
        content = {
            "config": config.to_dict(),
            "versions": versions(),
            "demonstrations": {
                "name": demonstrations.name,
                "episodes": demonstrations.num_episodes,
                "steps": demonstrations.num_steps,
                "fingerprint": demonstrations.fingerprint(),
            },
        }
        notices = []
        if source is not None:
            started = self._copy_start(source, config, demonstrations)
            notices = [
                f"Starts from {source.path} after {started['updates']:,} updates; its prior is "
                f"{started['prior']}"
            ]
            content["from_run"] = started
        self._write_config(content)
        return notices

    def _copy_start(
        self, source: "RunDirectory", config: RunConfig, demonstrations: Demonstrations
    ) -> dict[str, Any]:
        """Copies the weights of a run, and its prior if it would be fitted to the same again."""
        checkpoint = checkpoints.latest(source._checkpoints)
        if checkpoint is None:
            raise UserError(f"{source.path} has no whole checkpoint yet: train longer")
        had = source._read_config()["demonstrations"]["fingerprint"]
        same = had == demonstrations.fingerprint()
        same = same and source.config().prior.unscaled() == config.prior.unscaled()
        self.start.take(checkpoint, source.prior if same else None)
        return {
            "run": os.path.realpath(source.path),
            "updates": self._updates(checkpoint),
            "prior": "kept" if same else "fitted again",
        }

    def resume(
        self,
        config: RunConfig,
        demonstrations: Demonstrations,
        source: "RunDirectory | None" = None,
    ) -> list[str]:
        """Checks that the run can be resumed with these, and records its new length.

        Args:
            config: As the run's, perhaps longer.
            demonstrations: The run's.
            source: Run that it started from, if that is given again.

        Returns:
            Notices: what is not as it was when the run began, a line each.

        Raises:
            UserError: if the configuration, the demonstrations or the source are not the run's.
        """
        require_resumable(self.config(), config, self.path)
        content = self._read_config()
        began = content.get("from_run", {}).get("run")
        if source is not None and os.path.realpath(source.path) != began:
            raise UserError(
                f"from_run must be {began or 'left out'} to resume {self.path}; got {source.path}"
            )
        try:
            fingerprint = content["demonstrations"]["fingerprint"]
            had = dict(content["versions"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{self._config} is not the configuration of a run") from None
        if fingerprint != demonstrations.fingerprint():
            raise UserError(
                f"demonstrations must be those that {self.path} began with; "
                f"the content of {demonstrations.name} has changed"
            )
        content["config"] = config.to_dict()
        self._write_config(content)
        now = versions()
        return [
            f"{name} is {now[name]} and was {had.get(name)} when the run began: results may differ"
            for name in now
            if now[name] != had.get(name)
        ]

    def keep_prior(self, prior: BehavioralPrior, demonstrations: Demonstrations) -> None:
        """Saves the fitted prior, its summary and the calibrated novelty, where they are not."""
        if not self.prior.exists():
            save_prior(prior, self.prior)
        if prior.informative and not self._novelty.exists():
            save_novelty(Novelty.calibrate(prior, demonstrations), self._novelty)
        summary = {"class": type(prior).__name__, **getattr(prior, "summary", {})}
        self._write_config({**self._read_config(), "prior": summary})

    def checkpoint(self, agent: NppacAgent, replay: Replay) -> RunCheckpoint:
        """The run's checkpoints, as `training.train` asks for them."""
        return RunCheckpoint(self._checkpoints, agent.learned, replay)

    def observer(self) -> MetricsWriter:
        """Writes metrics.csv, timings.csv and TensorBoard's files."""
        return MetricsWriter(self.metrics, self.timings, self.path / "tensorboard")

    def rows(self) -> list[Metrics]:
        """What metrics.csv holds; empty where there is none."""
        return reports.read_rows(self.metrics) if self.metrics.is_file() else []

    def keep_best(self, agent: NppacAgent) -> None:
        """Saves the weights of the policy as the best so far."""
        checkpoints.write_variables(_deployed(agent), self._best)

    def conclude(self, agent: NppacAgent, task: Task, rows: Sequence[Metrics], title: str) -> None:
        """Draws the learning curve and exports the last policy and the best."""
        self.learning_curve.parent.mkdir(parents=True, exist_ok=True)
        from nppac_tf.runs import figures  # Loads matplotlib, which takes seconds.

        figures.learning_curve(rows, title).savefig(self.learning_curve, dpi=150)
        policies = [(agent, self.policy)]
        if self._best.exists():
            best = self._restored(task, self.load_prior(), self._best)
            policies.append((best, self.best_policy))
        for each, path in policies:
            provenance = self.provenance(int(each.train_step_counter))
            saved_model.export_policy(each, path, task, self.load_novelty(), provenance)

    def load_policy(self, task: Task, which: str = "last") -> tuple[rollouts.PolicyFunction, int]:
        """A greedy policy of the run.

        Args:
            task: The run's task.
            which: "last", from policy/ or from a checkpoint where that is newer, or "best".

        Returns:
            Observations [B, D] -> actions [B, A], and the number of updates it has had.

        Raises:
            UserError: if there is no such policy.
        """
        if which == "best":
            path = self._best_weights()
            agent = self._restored(task, self.load_prior(), path)
            return rollouts.as_policy_function(agent.policy), int(agent.train_step_counter)
        newest = checkpoints.latest(self._checkpoints)
        saved = self._updates(newest)
        exported = load_metadata(self.policy)["updates"] if self.policy.exists() else -1
        if saved < 0 and exported < 0:
            raise UserError(f"{self.path} has neither a checkpoint nor a policy yet")
        if exported >= saved:
            return runtimes.load_policy(self.policy), exported
        agent = self._restored(task, self.load_prior(), newest)
        return rollouts.as_policy_function(agent.policy), saved

    def load_agent(self, which: str = "last") -> tuple[NppacAgent, Task]:
        """An agent of the run, to act and to be exported, and its task.

        Args:
            which: "last", of the latest checkpoint, or "best".

        Raises:
            UserError: if there is no checkpoint or no prior, or they do not fit.
        """
        config = self.config()
        prior = self.load_prior()
        task = inputs.task_of(config)
        path = checkpoints.latest(self._checkpoints) if which == "last" else self._best_weights()
        return self._restored(task, prior, path), task

    def steps_after(self, updates: int) -> int:
        """Environment steps after which the run's agent had had this many updates."""
        training, rows = self.config().training, self.rows()
        before = rows[0]["updates"] if rows else 0
        epochs = (updates - before) / training.updates_per_step / training.steps_per_epoch
        return round(epochs) * training.steps_per_epoch

    def _best_weights(self) -> pathlib.Path:
        if not self._best.exists():
            raise UserError(f"{self.path} has no best policy yet: it was never evaluated")
        return self._best

    def load_novelty(self) -> Novelty | None:
        """The calibrated out-of-demonstration score; None where the run has none yet."""
        return load_novelty(self._novelty) if self._novelty.exists() else None

    def load_prior(self) -> BehavioralPrior:
        """The prior, rescaled as configured; UserError where there is none yet."""
        if not self.prior.exists():
            raise UserError(f"{self.path} has no prior yet: it was stopped before; pass --resume")
        return rescale(load_prior(self.prior), self.config().prior)

    def _restored(
        self, task: Task, prior: BehavioralPrior, path: pathlib.Path | None
    ) -> NppacAgent:
        """An agent with the actor and the number of updates of a checkpoint."""
        if path is None:
            raise UserError(f"{self.path} has no whole checkpoint yet: train longer")
        agent = make_agent(task, prior, self.config().agent)
        read_learned(_deployed(agent), path)
        return agent

    def _read_config(self) -> dict[str, Any]:
        return read_config_file(self._config)

    def _write_config(self, content: dict[str, Any]) -> None:
        write_text(self._config, json.dumps(content, indent=2) + "\n")

    @staticmethod
    def _updates(checkpoint: pathlib.Path | None) -> int:
        if checkpoint is None:
            return -1
        return int(checkpoints.read_variable(checkpoint, "updates"))


def _deployed(agent: NppacAgent) -> tf.train.Checkpoint:
    """What a policy is restored from: the actor that acts, and the number of its updates."""
    return tf.train.Checkpoint(**agent.deployed, updates=agent.train_step_counter)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect a run, and the device."""
    return {
        "device": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
        "precision auto": resolve_precision("auto"),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,  # Of tensorflow or tensorflow-cpu.
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }
