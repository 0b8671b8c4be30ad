"""Plans the runs of a sweep and checks that they can start."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nppac_tf.config import RunConfig
from nppac_tf.errors import UserError
from nppac_tf.files import folder_name
from nppac_tf.runs import inputs, metrics
from nppac_tf.runs.config_file import read_config_file, require_resumable


class PlannedRun(NamedTuple):
    """One run of a sweep.

    Attributes:
        method: Name of the method in the sweep.
        config: Configuration of the run.
        folder: Folder of the run, which may not exist yet.
    """

    method: str
    config: RunConfig
    folder: pathlib.Path

    @property
    def name(self) -> str:
        """Last two parts of the folder, such as "awac/seed0"."""
        return f"{self.method}/{self.folder.name}"


def grid(
    methods: Mapping[str, RunConfig],
    seeds: Sequence[int],
    output_dir: pathlib.Path | None = None,
) -> list[PlannedRun]:
    """Combines every method with every seed; the first seed of all methods comes first.

    Args:
        methods: Configurations by name.
        seeds: Training seeds; each replaces the one of a configuration.
        output_dir: Parent of the folders METHOD/seedN; None for runs/TASK.

    Raises:
        UserError: if a name is not a valid folder name.
    """
    for name in methods:
        if folder_name(name) != name:
            raise UserError(
                "a method's name must consist of letters, digits and _.+=,- and begin with a "
                f"letter, a digit or _; got {name!r}: write NAME=FILE"
            )
    runs = []
    for seed in seeds:
        for name, config in methods.items():
            training = dataclasses.replace(config.training, seed=seed)
            root = output_dir or pathlib.Path("runs") / folder_name(config.task)
            planned = dataclasses.replace(config, training=training)
            runs.append(PlannedRun(name, planned, root / name / f"seed{seed}"))
    return runs


def check(runs: Sequence[PlannedRun]) -> None:
    """Checks that every run can be started or resumed.

    Raises:
        UserError: if a method's task or demonstrations are not available, or a folder holds a run
            with another configuration or other demonstrations.
    """
    fingerprints: dict[str, str] = {}
    for run in runs:
        if run.method not in fingerprints:
            try:
                demonstrations = inputs.load(run.config).demonstrations
            except UserError as error:
                raise UserError(f"{run.method}: {error}") from None
            fingerprints[run.method] = demonstrations.fingerprint()
        _check_folder(run, fingerprints[run.method])


def is_complete(run: PlannedRun) -> bool:
    """Returns whether the last evaluation and the policy exported after it exist.

    Raises:
        UserError: if the table of metrics is damaged.
    """
    table = run.folder / "metrics.csv"
    rows = metrics.read_rows(table) if table.is_file() else []
    if not rows or rows[-1]["env_steps"] < run.config.training.num_env_steps:
        return False
    try:
        exported = json.loads((run.folder / "policy/assets.extra/metadata.json").read_bytes())
        return exported["updates"] == rows[-1]["updates"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_folder(run: PlannedRun, fingerprint: str) -> None:
    file = run.folder / "config.json"
    if not file.exists():
        return
    content = read_config_file(file)
    try:
        began = RunConfig.from_dict(content["config"])
        had = content["demonstrations"]["fingerprint"]
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{run.folder} must hold a run that can be resumed: {error}") from None
    require_resumable(began, run.config, run.folder)
    if had != fingerprint:
        raise UserError(
            f"demonstrations must be those that {run.folder} was started with; their content has "
            "changed"
        )
