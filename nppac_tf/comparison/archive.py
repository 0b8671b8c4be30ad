"""Runs as they lie in folders: found, read whatever version wrote them, and archived."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nppac_tf.config import RunConfig, before
from nppac_tf.errors import UserError
from nppac_tf.files import folder_name, replace_file, write_text
from nppac_tf.runs import metrics

SEED, PRIOR_SEED = "training.seed", "prior.prior_seed"
_LENGTH = "training.num_env_steps"
_OF_NO_EFFECT = "training.checkpoint_interval"
_MINARI_ID = re.compile(r"minari:[\w-]+(/[\w-]+)*-v\d+", re.ASCII)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run, as its config.json and metrics.csv tell of it.

    Attributes:
        path: Its folder.
        name: The folder, relative to what all runs read together have in common.
        task: What it was of.
        settings: Its configuration but for task, seeds and length, by dotted name, as text.
        seeds: Training seed and the prior's seed, as text.
        planned_steps: Environment steps it was to make; None where unknown.
        table: Its evaluations, at rising `env_steps`; what is not finite is nan.
        versions: Of the packages it was made with.
        assumed: Settings that config.json lacks: what runs did before there were these is assumed.
    """

    path: pathlib.Path
    name: str
    task: str
    settings: dict[str, str]
    seeds: tuple[str, str]
    planned_steps: int | None
    table: metrics.Table
    versions: dict[str, str]
    assumed: tuple[str, ...]

    @property
    def env_steps(self) -> int:
        """Length of the run."""
        return int(self.table["env_steps"][-1])

    @property
    def constant(self) -> bool:
        """Whether it was to learn nothing online, such as behavioral cloning."""
        return self.planned_steps == 0


class Found(NamedTuple):
    """What folders hold.

    Attributes:
        runs: With an evaluation, at least one, in the order of the folders.
        not_evaluated: Names of those that have none yet.
    """

    runs: tuple[Run, ...]
    not_evaluated: tuple[str, ...]


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> Found:
    """Reads the runs in folders and below them; a run that is found twice is read once.

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
    """Copies a run's tables to FOLDER/TASK/METHOD/SEED, without the names of other folders.

    An earlier copy of the same run is replaced.

    Args:
        run: What to copy.
        folder: Of the archive.
        method: Name of a folder.
        seed: Likewise.

    Returns:
        Where the copy lies.

    Raises:
        UserError: if another run lies there, or a longer copy of this one, or the names are not
            those of folders.
    """
    for name in (method, seed):
        if folder_name(name) != name:
            raise UserError(
                f"a method's name must be of letters, digits and any of _.+=,- and begin with a "
                f"letter, a digit or _; got {name!r}"
            )
    target = folder / folder_name(run.task) / method / seed
    if (target / "config.json").exists():
        had = _describe(target / "config.json")
        if (had.task, had.settings, had.seeds) != (run.task, run.settings, run.seeds):
            raise UserError(
                f"{target} must be free, or hold an earlier copy of {run.path}; it holds another "
                "run: give the method another name"
            )
        _refuse_a_shorter(run, target)
    content = _without_folders(_read_json(run.path / "config.json"))
    source = content["config"].get("demonstrations")
    if isinstance(source, str) and not _MINARI_ID.fullmatch(source):
        content["config"]["demonstrations"] = _last_part(source)
    write_text(target / "config.json", json.dumps(content, indent=2) + "\n")
    table = (run.path / "metrics.csv").read_bytes()
    replace_file(target / "metrics.csv", lambda file: file.write(table))
    return target


def _refuse_a_shorter(run: Run, target: pathlib.Path) -> None:
    try:
        had = float(metrics.read_metrics(target)["env_steps"][-1])
    except UserError:
        return
    if had > run.table["env_steps"][-1]:
        raise UserError(
            f"{target} must be free, or hold no more than {run.path}; it has {had:,.0f} steps, "
            f"not {run.table['env_steps'][-1]:,.0f}: delete it first if the shorter run is to stay"
        )


def printable(text: str) -> str:
    """Text from a file in one line of at most 120 characters, without control characters."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in text)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def _find(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    path = pathlib.Path(folder)
    if not path.is_dir():
        if path.exists():
            raise UserError(f"{path} must be a folder of runs; it is a file")
        metrics.read_metrics(path)  # Says that there is none, and what is near.
    found = []
    for place, folders, files in os.walk(path, onerror=_refuse):
        if "config.json" in files and ("metrics.csv" in files or _has_begun(place)):
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


def _has_begun(place: str) -> bool:
    """Whether a config.json without a table beside it is that of a run."""
    try:
        _describe(pathlib.Path(place) / "config.json")
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
        raise UserError(f"{file} is not a run's table of metrics: env_steps must rise from 0 on")
    return Run(path=path, name=name, table=table, **described._asdict())


class _Description(NamedTuple):
    task: str
    settings: dict[str, str]
    seeds: tuple[str, str]
    planned_steps: int | None
    versions: dict[str, str]
    assumed: tuple[str, ...]


def _describe(file: pathlib.Path) -> _Description:
    content = _read_json(file)
    try:
        settings = _flatten(content["config"])
        fingerprint = _flatten(content).get("demonstrations.fingerprint")
    except RecursionError:
        raise UserError(f"{file} is not the configuration of a run: nested too deep") from None
    task = settings.pop("task")
    source = settings.get("demonstrations", "")
    settings["demonstrations"] = source if _MINARI_ID.fullmatch(source) else _last_part(source)
    if fingerprint:
        settings["demonstrations.fingerprint"] = fingerprint[:12]
    earlier = _flatten(before(RunConfig))
    assumed = tuple(name for name in earlier if "." in name and name not in settings)
    settings |= {name: earlier[name] for name in assumed}
    planned = settings.pop(_LENGTH)
    settings.pop(_OF_NO_EFFECT, None)
    _resolve(settings)
    versions = content.get("versions")
    return _Description(
        task,
        settings,
        (settings.pop(SEED), settings.pop(PRIOR_SEED)),
        int(planned) if re.fullmatch(r"[0-9]{1,15}", planned) and _LENGTH not in assumed else None,
        _flatten(versions) if isinstance(versions, dict) else {},
        assumed,
    )


def _resolve(settings: dict[str, str]) -> None:
    """Writes what a setting meant in place of one that stands for it, so that like equals like."""
    greedy, environments = "training.num_greedy_environments", settings["training.num_environments"]
    if settings[greedy] == "null" and re.fullmatch(r"[0-9]{1,9}", environments):
        settings[greedy] = str(int(environments) // 2)
    if settings["agent.num_target_critics"] == "null":
        settings["agent.num_target_critics"] = settings["agent.num_critics"]
    if settings["agent.final_temperature"] == "null":
        settings["agent.annealing_updates"] = "null"


def _read_json(file: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not the configuration of a run: {error}") from None
    settings = content.get("config") if isinstance(content, dict) else None
    if not isinstance(settings, dict) or not isinstance(settings.get("task"), str):
        raise UserError(f"{file} is not the configuration of a run: config.task must be in it")
    return content


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = _text(value)
    return flat


def _text(value: Any) -> str:
    """A setting as a flag would have it; alike for 1 and 1.0, which JSON tells apart."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def _without_folders(value: Any) -> Any:
    """JSON in which each text that is an absolute path is its last part."""
    if isinstance(value, dict):
        return {name: _without_folders(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and re.match(r"/|~|\\|[A-Za-z]:\\", value):
        return _last_part(value)
    return value


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]
