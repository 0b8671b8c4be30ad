"""What the claims share: reading comparable runs, and writing a claim's files."""

import csv
import functools
import io
import json
import math
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nppac_tf.errors import UserError
from nppac_tf.files import replace_file, write_text
from nppac_tf.options import flatten
from nppac_tf.runs.config_file import read_config_file

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]

_DPI = 105


def read_configs(
    runs: Sequence[str | os.PathLike[str]], may_differ: Collection[str], described: str
) -> list[dict[str, Any]]:
    """Reads the configurations of runs, which may differ in some fields only.

    Fields that only some of the runs record are not compared.

    Args:
        runs: Run folders.
        may_differ: Dotted names of the fields that may differ, such as "training.seed".
        described: The same fields, for the error message.

    Returns:
        For each run, values by dotted name. All fields in `may_differ` are there.

    Raises:
        UserError: names the first other field that differs, and two runs.
    """
    files = [pathlib.Path(run) / "config.json" for run in runs]
    configs = [flatten(read_config_file(file)["config"]) for file in files]
    for run, file, config in zip(runs, files, configs, strict=True):
        missing = set(may_differ) - config.keys()
        if missing:
            raise UserError(f"{file} must hold {', '.join(sorted(missing))}; it does not")
        for field, first in configs[0].items():
            if field not in may_differ and config.get(field, first) != first:
                raise UserError(
                    f"--runs must differ only in {described}; got {field} {first!r} "
                    f"in {runs[0]} and {config[field]!r} in {run}: leave one out"
                )
    return configs


def seeds(config: Mapping[str, Any]) -> tuple[int, int]:
    """Seeds of a run and of its prior, from what `read_configs` returns."""
    seed, prior_seed = config["training.seed"], config["prior.prior_seed"]
    return seed, seed if prior_seed is None else prior_seed


def write_claim(
    folder: pathlib.Path,
    name: str,
    numbers: Mapping[str, Any],
    table: Table,
    figures: Mapping[str, Figure],
) -> list[pathlib.Path]:
    """Writes NAME.json, NAME.csv and a PNG per figure.

    Args:
        folder: Created if absent.
        name: Claim, such as "c1".
        numbers: Plain values and arrays. Values that are not finite become strings, since JSON has
            no infinity.
        table: Column names and rows.
        figures: Figures by file name without ending.

    Returns:
        The files written.
    """
    paths = [folder / f"{name}.json", folder / f"{name}.csv"]
    write_text(paths[0], json.dumps(_plain(numbers), indent=2, allow_nan=False) + "\n")
    columns, rows = table
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_rounded(cell) for cell in row] for row in rows])
    write_text(paths[1], text.getvalue())
    for stem, drawing in figures.items():
        paths.append(folder / f"{stem}.png")
        replace_file(paths[-1], functools.partial(drawing.savefig, format="png", dpi=_DPI))
    return paths


def _rounded(cell: Any) -> Any:
    return f"{cell:.6g}" if isinstance(cell, float | np.floating) else cell


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value
