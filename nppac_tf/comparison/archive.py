"""Finds, reads and archives runs."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nppac_tf.errors import UserError
from nppac_tf.files import folder_name, replace_file, write_text
from nppac_tf.options import flatten
from nppac_tf.runs import metrics
from nppac_tf.runs.config_file import read_config_file

_SEEDS = ("training.seed", "prior.prior_seed")
_LENGTH = "training.num_env_steps"
_NO_EFFECT = "training.checkpoint_interval"
_MINARI_ID = re.compile(r"minari:[\w-]+(/[\w-]+)*-v\d+", re.ASCII)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run, read from its config.json and metrics.csv.

    Attributes:
        path: Folder of the run.
        name: The folder relative to the common parent of all runs that were read together.
        task: Name of the task.
        settings: Configuration as text, by dotted name, without task, seeds and length.
        seeds: Seed of the training and seed of the prior, as text; empty where unknown.
        planned_steps: Environment steps that were asked for; None where unknown.
        table: Evaluations at increasing `env_steps`. Infinite values are nan.
        versions: Versions of the packages that made the run.
    """

    path: pathlib.Path
    name: str
    task: str
    settings: dict[str, str]
    seeds: tuple[str, str]
    planned_steps: int | None
    table: metrics.Table
    versions: dict[str, str]

    @property
    def env_steps(self) -> int:
        """Environment steps at the last evaluation."""
        return int(self.table["env_steps"][-1])

    @property
    def constant(self) -> bool:
        """Whether the run learns nothing online, such as behavioral cloning."""
        return self.planned_steps == 0


class Found(NamedTuple):
    """Runs that were found in folders.

    Attributes:
        runs: Runs with an evaluation, at least one, in the order of the folders.
        not_evaluated: Names of the runs without an evaluation.
    """

    runs: tuple[Run, ...]
    not_evaluated: tuple[str, ...]


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> Found:
    """Reads the runs in folders and their subfolders, each run once.

    Raises:
        UserError: if a folder holds no run, a file cannot be read or is damaged, no run has an
            evaluation, or the runs are of several tasks.
    """
    paths = list(dict.fromkeys(path for folder in folders for path in _find(folder)))
    resolved = [path.resolve() for path in paths]
    common = os.path.commonpath([path.parent for path in resolved])
    runs, not_evaluated = [], []
    for path, place in zip(paths, resolved, strict=True):
        name = printable(os.path.relpath(place, common))
        run = _read(path, name)
        if run is None:
            not_evaluated.append(name)
        else:
            runs.append(run)
    if not runs:
        raise UserError(f"{paths[0] / 'metrics.csv'} must hold an evaluation; it has none yet")
    tasks = sorted({run.task for run in runs})
    if len(tasks) > 1:
        raise UserError(
            f"runs must be of one task; got runs of {' and '.join(map(printable, tasks))}"
        )
    return Found(tuple(runs), tuple(not_evaluated))


def archive(run: Run, folder: pathlib.Path, method: str, seed: str) -> pathlib.Path:
    """Copies config.json and metrics.csv of a run to FOLDER/TASK/METHOD/SEED.

    Paths of the machine are reduced to their last part. An earlier copy of the same run is
    replaced.

    Args:
        run: Run to copy.
        folder: Folder of the archive.
        method: Name of the method's folder.
        seed: Name of the run's folder.

    Returns:
        The folder of the copy.

    Raises:
        UserError: if the folder holds another run or a longer copy of this one, or a name is not
            a valid folder name.
    """
    for name in (method, seed):
        if folder_name(name) != name:
            raise UserError(
                "a method's name must consist of letters, digits and _.+=,- and begin with a "
                f"letter, a digit or _; got {name!r}"
            )
    target = folder / folder_name(run.task) / method / seed
    if (target / "config.json").exists():
        _require_earlier_copy(run, target)
    content = read_config_file(run.path / "config.json")
    source = content["config"].get("demonstrations")
    content = _without_folders(content)
    if isinstance(source, str):
        content["config"]["demonstrations"] = _without_folder(source)
    write_text(target / "config.json", json.dumps(content, indent=2) + "\n")
    table = (run.path / "metrics.csv").read_bytes()
    replace_file(target / "metrics.csv", lambda file: file.write(table))
    return target


def printable(text: str) -> str:
    """Returns text on one line of at most 120 characters, without control characters."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in text)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def _find(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    path = pathlib.Path(folder)
    if not path.is_dir():
        if path.exists():
            raise UserError(f"{path} must be a folder of runs; it is a file")
        metrics.read_metrics(path)  # Raises an error that suggests similar names.
    found = []
    for place, folders, files in os.walk(path, onerror=_refuse):
        if "config.json" in files and ("metrics.csv" in files or _is_run(pathlib.Path(place))):
            found.append(pathlib.Path(place))
            folders.clear()
        folders.sort()
    if not found:
        raise UserError(
            f"{path} must be a run's folder, with a config.json and a metrics.csv, or hold such "
            "folders; it has none"
        )
    return found


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read: {error.strerror}")


def _is_run(folder: pathlib.Path) -> bool:
    try:
        read_config_file(folder / "config.json")
    except UserError:
        return False
    return True


def _read(path: pathlib.Path, name: str) -> Run | None:
    described = _describe(path / "config.json")
    file = path / "metrics.csv"
    if not file.exists() or not metrics.read_rows(file):
        return None
    table = {
        column: np.where(np.isfinite(values), values, np.nan)
        for column, values in metrics.read_metrics(file).items()
    }
    if not (np.diff(table["env_steps"], prepend=-1.0) > 0).all():
        raise UserError(f"{file} is not a run's table of metrics: env_steps must increase from 0")
    return Run(path=path, name=name, table=table, **described._asdict())


class _Description(NamedTuple):
    task: str
    settings: dict[str, str]
    seeds: tuple[str, str]
    planned_steps: int | None
    versions: dict[str, str]


def _describe(file: pathlib.Path) -> _Description:
    content = read_config_file(file)
    settings = _as_text(content["config"])
    settings["demonstrations"] = _without_folder(settings.get("demonstrations", ""))
    fingerprint = _as_text(content).get("demonstrations.fingerprint")
    if fingerprint:
        settings["demonstrations.fingerprint"] = fingerprint[:12]
    seed, prior_seed = (settings.pop(name, "") for name in _SEEDS)
    planned = settings.pop(_LENGTH, "")
    settings.pop(_NO_EFFECT, None)
    _resolve(settings)
    versions = content.get("versions")
    return _Description(
        settings.pop("task"),
        settings,
        (seed, seed if prior_seed == "null" else prior_seed),
        int(planned) if re.fullmatch(r"[0-9]{1,15}", planned) else None,
        _as_text(versions) if isinstance(versions, dict) else {},
    )


def _resolve(settings: dict[str, str]) -> None:
    """Replaces settings that stand for another value, so that equal runs have equal settings."""
    environments = settings.get("training.num_environments", "")
    if re.fullmatch(r"[0-9]{1,9}", environments):
        _replace_null(settings, "training.num_greedy_environments", str(int(environments) // 2))
    _replace_null(settings, "agent.num_target_critics", settings.get("agent.num_critics", "null"))


def _replace_null(settings: dict[str, str], name: str, value: str) -> None:
    if settings.get(name) == "null":
        settings[name] = value


def _require_earlier_copy(run: Run, target: pathlib.Path) -> None:
    had = _describe(target / "config.json")
    if (had.task, had.settings, had.seeds) != (run.task, run.settings, run.seeds):
        raise UserError(
            f"{target} must be free or hold an earlier copy of {run.path}; it holds another run: "
            "pass another --method"
        )
    try:
        steps = float(metrics.read_metrics(target)["env_steps"][-1])
    except UserError:
        return
    if steps > run.env_steps:
        raise UserError(
            f"{target} must be free or hold no more steps than {run.path}; it has {steps:,.0f}, "
            f"not {run.env_steps:,}: delete it first to keep the shorter run"
        )


def _as_text(values: dict[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in flatten(values).items()}


def _text(value: Any) -> str:
    """Formats a setting as its flag would be written; 1 and 1.0 are the same."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def _without_folders(value: Any) -> Any:
    """Replaces each absolute path in JSON by its last part."""
    if isinstance(value, dict):
        return {name: _without_folders(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and re.match(r"/|~|\\|[A-Za-z]:\\", value):
        return _last_part(value)
    return value


def _without_folder(source: str) -> str:
    """Returns the names of demonstrations: files without their folders, and Minari ids."""
    return ",".join(
        name if _MINARI_ID.fullmatch(name) else _last_part(name) for name in source.split(",")
    )


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
