"""The runs of a sweep: what each is asked, where it lies, and whether it may begin."""

import dataclasses
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from nppac_tf.config import RunConfig
from nppac_tf.errors import UserError
from nppac_tf.files import folder_name
from nppac_tf.runs import inputs, metrics


class PlannedRun(NamedTuple):
    """One run of a sweep.

    Attributes:
        method: Its name among the sweep's methods.
        config: What is asked.
        folder: Where it lies; perhaps not there yet.
    """

    method: str
    config: RunConfig
    folder: pathlib.Path

    @property
    def name(self) -> str:
        """Such as "awac/seed0", the end of its folder."""
        return f"{self.method}/{self.folder.name}"


def grid(
    methods: Mapping[str, RunConfig],
    seeds: Sequence[int],
    output_dir: pathlib.Path | None = None,
    own_priors: Collection[str] = (),
) -> list[PlannedRun]:
    """Every method with every seed; the first seed of all methods comes first.

    Args:
        methods: Configurations by name.
        seeds: Each takes the place of a configuration's own, and of its prior's.
        output_dir: A run lies in METHOD/seedN below it; None for runs/TASK.
        own_priors: Methods whose prior keeps its seed.

    Raises:
        UserError: if a name cannot be that of a folder.
    """
    for name in methods:
        if folder_name(name) != name:
            raise UserError(
                "a method's name must be of letters, digits and any of _.+=,- and begin with a "
                f"letter, a digit or _; got {name!r}: write NAME=FILE"
            )
    runs = []
    for seed in seeds:
        for name, config in methods.items():
            loop = dataclasses.replace(config.training, seed=seed)
            prior = config.prior
            if name not in own_priors:
                prior = dataclasses.replace(prior, prior_seed=seed)
            root = output_dir or pathlib.Path("runs") / folder_name(config.task)
            folder = root / name / f"seed{seed}"
            runs.append(
                PlannedRun(name, dataclasses.replace(config, training=loop, prior=prior), folder)
            )
    return runs


def check(runs: Sequence[PlannedRun]) -> None:
    """Finds what would keep a run from beginning or from going on, before any does.

    Raises:
        UserError: if a method's task or demonstrations are not to be had, or a folder holds a run
            of another configuration or of other demonstrations.
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
    """Whether all that was asked is there already: the last evaluation, and the policy of then.

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
    content = _content(run.folder / "config.json")
    if content is None:
        return
    try:
        began = RunConfig.from_dict(content["config"])
        before = content["demonstrations"]["fingerprint"]
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{run.folder} must hold a run that can go on: {error}") from None
    began.require_resumable(run.config, run.folder)
    if before != fingerprint:
        raise UserError(
            f"demonstrations must be those that {run.folder} began with; their content has changed"
        )


def _content(file: pathlib.Path) -> Any:
    """What a run's config.json holds; None where there is none."""
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is not the configuration of a run: {error}") from None
