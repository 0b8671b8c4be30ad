"""Command lines that differ in their flagfiles alone."""

import pathlib
import re
from collections.abc import Sequence

import checkout  # noqa: F401

from nppac_tf.errors import UserError


def parse(items: Sequence[str], flag: str) -> dict[str, list[str]]:
    """Flagfiles by the name of what they make, from items FILE, FILE+FILE, NAME=FILE or NAME=.

    Args:
        items: Of a list; without NAME= the name is that of the last file, without its suffix, and
            with NAME= alone there is no flagfile.
        flag: Whose value it is, for errors.

    Raises:
        UserError: if there is none, one is of another form, or two have one name.
    """
    if not items:
        raise UserError(f"--{flag} must name one or more flagfiles, comma-separated; got none")
    found: dict[str, list[str]] = {}
    for item in items:
        before, equals, after = item.partition("=")
        paths = (after if equals else before).split("+")
        if equals and not after:
            paths = []
        if not all(paths) or not before:
            raise UserError(
                f"--{flag} must be of FILE, FILE+FILE, NAME=FILE or NAME=; got {item!r}"
            )
        name = before if equals else pathlib.Path(paths[-1]).stem
        if name in found:
            raise UserError(
                f"--{flag} must give each its own name; got {name!r} for "
                f"{'+'.join(found[name])} and {'+'.join(paths)}: write NAME=FILE"
            )
        found[name] = paths
    return found


def substitute(arguments: Sequence[str], flag: str, replacement: Sequence[str]) -> list[str]:
    """A command line with other arguments in the place of a flag.

    Args:
        arguments: Without the program's name; of a flag that is given more than once the last
            counts, and the others are left out.
        flag: Its name; it takes a value.
        replacement: What is to stand there.
    """
    kept: list[str] = []
    place = 0
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            kept += [argument, *remaining]
        elif not (given := re.fullmatch(rf"--?{flag}(=.*)?", argument, re.DOTALL)):
            kept.append(argument)
        else:
            if given[1] is None:
                next(remaining, None)
            place = len(kept)
    return [*kept[:place], *replacement, *kept[place:]]
