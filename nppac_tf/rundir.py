"""The folder of a run: what it was asked, how it went, and what came of it.

config.json                  configuration, versions, prior and demonstrations
metrics.csv                  a row per evaluation
tensorboard/                 the same, and the training figures of every epoch
prior.npz                    the fitted prior
checkpoints/                 all that the run needs to go on
figures/learning_curve.png   at the end
policy/                      the SavedModel, at the end
"""

import csv
import importlib.metadata
import json
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nppac_tf import evaluation, export, plotting
from nppac_tf.agent import NppacAgent
from nppac_tf.checkpoints import RunCheckpoint
from nppac_tf.config import RunConfig, TrainingConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task
from nppac_tf.errors import UserError
from nppac_tf.priors.base import BehavioralPrior, RescaledPrior, UniformPrior
from nppac_tf.replay import Replay
from nppac_tf.training import EVALUATION_COLUMNS, TRAINING_COLUMNS, Metrics

_PACKAGES = (
    "gpflow",
    "gymnasium",
    "gymnasium-robotics",
    "mujoco",
    "numpy",
    "scipy",
    "tensorflow",
    "tensorflow-probability",
    "tf-agents",
)
_MAY_GROW = "training.num_env_steps"


class RunDirectory:
    """One run's folder.

    Args:
        path: Nothing is made or read before it is needed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)

    @property
    def policy(self) -> pathlib.Path:
        """Of the exported policy."""
        return self.path / "policy"

    @property
    def learning_curve(self) -> pathlib.Path:
        """Of the figure."""
        return self.path / "figures" / "learning_curve.png"

    @property
    def metrics(self) -> pathlib.Path:
        """Of the table of evaluations."""
        return self.path / "metrics.csv"

    @property
    def prior(self) -> pathlib.Path:
        """Of the fitted prior, whose statistics the replay holds."""
        return self.path / "prior.npz"

    @property
    def _config(self) -> pathlib.Path:
        return self.path / "config.json"

    @property
    def _checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    def require_new(self) -> None:
        """Raises UserError if a run is here already."""
        for path in (self._config, self.metrics, self._checkpoints):
            if path.exists():
                raise UserError(
                    f"{self.path} already holds a run: pass --resume to go on with it, or another "
                    "--output_dir"
                )

    def require_same(self, config: RunConfig) -> None:
        """Checks that a configuration is that of the run, which may only be made longer.

        Raises:
            UserError: names the first field that differs.
        """
        asked, had = _flatten(config.to_dict()), _flatten(self.config().to_dict())
        for name, value in asked.items():
            longer = name == _MAY_GROW and value >= had[name]
            if value != had[name] and not longer:
                flag = name.rpartition(".")[2]
                or_more = " or more" if name == _MAY_GROW else ""
                raise UserError(
                    f"{flag} must be {had[name]!r}{or_more} to resume {self.path}; got {value!r}"
                )

    def require_demonstrations(self, demonstrations: Demonstrations) -> None:
        """Raises UserError unless these are the demonstrations that the run began with."""
        if self._read_config()["demonstrations"]["fingerprint"] != demonstrations.fingerprint():
            raise UserError(
                f"demonstrations must be those that {self.path} began with; "
                f"the content of {demonstrations.name} has changed"
            )

    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            UserError: if there is no run here, or one of another version.
        """
        return RunConfig.from_dict(self._read_config()["config"])

    def provenance(self) -> dict[str, Any]:
        """What config.json and the last evaluation say of the run, without the names of folders.

        Raises:
            UserError: if there is no run here, or one of another version.
        """
        content = self._read_config()
        source = content["config"]["demonstrations"]
        content["config"]["demonstrations"] = pathlib.PurePath(source).name
        last = (self.rows() or [{}])[-1]
        return {
            **content,
            "metrics": {name: value for name, value in last.items() if np.isfinite(value)},
        }

    def describe(
        self, config: RunConfig, prior: BehavioralPrior, demonstrations: Demonstrations
    ) -> None:
        """Writes config.json: with it, the folder holds a run."""
        fitted = prior.prior if isinstance(prior, RescaledPrior) else prior
        content = {
            "config": config.to_dict(),
            "versions": versions(),
            "prior": {"class": type(fitted).__name__, **getattr(fitted, "summary", {})},
            "demonstrations": {
                "name": demonstrations.name,
                "episodes": demonstrations.num_episodes,
                "steps": demonstrations.num_steps,
                "fingerprint": demonstrations.fingerprint(),
            },
        }
        write_text(self._config, json.dumps(content, indent=2) + "\n")

    def checkpoint(self, agent: NppacAgent, replay: Replay) -> RunCheckpoint:
        """The run's checkpoints, as `training.train` asks for them."""
        return RunCheckpoint(self._checkpoints, {"replay": replay, **agent.learned})

    def observer(self, config: TrainingConfig) -> "MetricsWriter":
        """Writes metrics.csv and TensorBoard's files."""
        return MetricsWriter(self.metrics, self.path / "tensorboard", config.steps_per_epoch)

    def rows(self) -> list[Metrics]:
        """What metrics.csv holds; empty where there is none."""
        if not self.metrics.is_file():
            return []
        with open(self.metrics, newline="") as file:
            return [
                {name: float(value) for name, value in row.items() if value}
                for row in csv.DictReader(file)
            ]

    def conclude(self, agent: NppacAgent, task: Task, rows: Sequence[Metrics], title: str) -> None:
        """Draws the learning curve and exports the policy."""
        self.learning_curve.parent.mkdir(parents=True, exist_ok=True)
        plotting.learning_curve(rows, title).savefig(self.learning_curve, dpi=150)
        export.export_policy(agent, self.policy, task)

    def load_policy(self, task: Task) -> tuple[evaluation.PolicyFunction, int]:
        """The run's latest greedy policy: from policy/, or from a checkpoint where that is newer.

        Returns:
            Observations [B, D] -> actions [B, A], and the number of updates it has had.

        Raises:
            UserError: if there is neither.
        """
        latest = tf.train.latest_checkpoint(str(self._checkpoints))
        saved = self._updates(latest)
        exported = export.load_metadata(self.policy)["updates"] if self.policy.exists() else -1
        if saved < 0 and exported < 0:
            raise UserError(f"{self.path} has neither a checkpoint nor a policy yet")
        if exported >= saved:
            return export.load_policy(self.policy), exported
        sizes = (task.observation_size, task.action_size)
        agent = NppacAgent.for_task(task, UniformPrior(*sizes), self.config().agent)
        checkpoint = tf.train.Checkpoint(actor=agent.actor_network)
        checkpoint.restore(latest).expect_partial().assert_existing_objects_matched()
        return evaluation.as_policy_function(agent.policy), saved

    def _read_config(self) -> dict[str, Any]:
        try:
            content = json.loads(self._config.read_text())
        except OSError:
            raise UserError(f"no run at {self.path}") from None
        except ValueError as error:
            raise UserError(f"{self._config} is not the configuration of a run: {error}") from None
        if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
            raise UserError(f"{self._config} is not the configuration of a run")
        return content

    @staticmethod
    def _updates(checkpoint: str | None) -> int:
        if checkpoint is None:
            return -1
        return int(tf.train.load_variable(checkpoint, "updates/.ATTRIBUTES/VARIABLE_VALUE"))


class MetricsWriter:
    """An observer of `training.train` that writes a table and TensorBoard's files.

    The first row begins both anew: a run that goes on is told of all its earlier rows first.

    Args:
        table: The CSV file; whole after each row.
        tensorboard: A folder.
        steps_per_epoch: Training figures are written where the environment steps are a multiple.
    """

    def __init__(
        self, table: pathlib.Path, tensorboard: pathlib.Path, steps_per_epoch: int
    ) -> None:
        self._table = table
        self._tensorboard = tensorboard
        self._steps_per_epoch = steps_per_epoch
        self._rows: list[Metrics] = []
        self._writer: Any = None

    def on_progress(self, stage: str, done: int, total: int, metrics: Metrics) -> None:
        """See `training.Observer`."""
        if stage == "training" and done % self._steps_per_epoch == 0:
            self._write_scalars(metrics, done)

    def on_evaluation(self, row: Metrics) -> None:
        """See `training.Observer`."""
        self._rows.append(row)
        if len(self._rows) == 1:
            for file in self._tensorboard.glob("events.out.*"):
                file.unlink()
        self._write_scalars(row, int(row["env_steps"]))
        self._write_table()

    def _write_table(self) -> None:
        def write(file: Any) -> None:
            table = csv.DictWriter(file, (*EVALUATION_COLUMNS, *TRAINING_COLUMNS), restval="")
            table.writeheader()
            table.writerows(self._rows)

        _replace(self._table, write)

    def _write_scalars(self, metrics: Metrics, step: int) -> None:
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._tensorboard))
        # Never the default writer while updates are traced: XLA refuses summaries.
        with self._writer.as_default(step):
            for name, value in metrics.items():
                if name != "env_steps" and np.isfinite(value):
                    tf.summary.scalar(name, value)
        self._writer.flush()


def versions() -> dict[str, str]:
    """Of Python and of the packages that a run's figures depend on."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def write_text(path: pathlib.Path, content: str) -> None:
    """Writes a file whole or not at all; its folder is made where absent."""
    _replace(path, lambda file: file.write(content))


def _replace(path: pathlib.Path, write: Callable[[Any], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            write(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
