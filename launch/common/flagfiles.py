"""Flagfiles, expanded and checked before absl parses their flags.

absl accepts any line: a comment after a flag becomes part of its value, and quotes are kept. It
looks for flagfiles in the working directory only. Here a flagfile may also be beside the one that
includes it, or in this checkout, so that `configs/pen.flags` is found from everywhere.
"""

import difflib
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nppac_tf.errors import UserError

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]

_LINE = re.compile(r"--?(?P<name>\w+)(=(?P<value>(?![\s\"'])(?!.*\s(#|//)).*))?")


class Argument(NamedTuple):
    """An argument of a command line; its place is "file:line" if it is from a flagfile."""

    text: str
    place: str = ""


def expand(arguments: Sequence[str]) -> list[Argument]:
    """Replaces each --flagfile by the flags in the file, and in the files that it includes."""
    expanded: list[Argument] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, equals, value = argument.partition("=")
        if name in ("--flagfile", "-flagfile"):
            expanded += _read(value if equals else next(remaining, ""), ())
        else:
            expanded.append(Argument(argument))
        if argument == "--":
            expanded += map(Argument, remaining)
    return expanded


def _read(name: str, including: tuple[pathlib.Path, ...]) -> Iterator[Argument]:
    """Yields the flags of a file; `including` are the files that include it, outermost first."""
    path = _find(name, including)
    if path in including:
        raise UserError(f"flagfile {path} includes itself: {' -> '.join(map(str, including))}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"flagfile {path} cannot be read as UTF-8 text: {error}") from None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith(("#", "//")):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(
                f"{path}:{number}: a line must be a comment that begins with #, or --name=value "
                f"without spaces around '=', quotes, or a comment after it; got {line!r}"
            )
        if match["name"] == "flagfile":
            yield from _read(match["value"] or "", (*including, path))
        else:
            yield Argument(line, f"{path}:{number}")


def _find(name: str, including: tuple[pathlib.Path, ...]) -> pathlib.Path:
    path = pathlib.Path(os.path.expanduser(name))
    for folder in (pathlib.Path(), *(file.parent for file in including[-1:]), CHECKOUT):
        if name and (folder / path).exists():
            return folder / path
    origin = f" (included by {including[-1]})" if including else ""
    raise UserError(f"--flagfile={name}{origin} does not exist{did_you_mean(path)}")


def did_you_mean(path: pathlib.Path) -> str:
    """Names a file beside a missing one whose name is close to it, as the end of an error."""
    names = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""
