"""A claim's files: numbers in JSON, what its figure shows in CSV, the figure in PNG."""

import csv
import functools
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from nppac_tf.files import replace_file, write_text

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]


def write_claim(
    folder: pathlib.Path,
    name: str,
    numbers: Mapping[str, Any],
    tables: Mapping[str, Table],
    figures: Mapping[str, Any],
) -> list[pathlib.Path]:
    """Writes `name`.json, and beside it tables and figures.

    Args:
        folder: Made where absent.
        name: Of the claim, such as "c1".
        numbers: Plain values and arrays; what is not finite becomes a string, as JSON has no
            infinity.
        tables: By file name without its ending: columns and rows.
        figures: By file name without its ending: figures of matplotlib.

    Returns:
        The files.
    """
    paths = [folder / f"{name}.json"]
    write_text(paths[0], json.dumps(_plain(numbers), indent=2, allow_nan=False) + "\n")
    for file, (columns, rows) in tables.items():
        paths.append(folder / f"{file}.csv")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([[_rounded(cell) for cell in row] for row in rows])
        write_text(paths[-1], text.getvalue())
    for file, figure in figures.items():
        paths.append(folder / f"{file}.png")
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=_DPI)
        replace_file(paths[-1], functools.partial(_copy, image.getvalue()))
    return paths


_DPI = 105


def _copy(content: bytes, target: BinaryIO) -> None:
    target.write(content)


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
