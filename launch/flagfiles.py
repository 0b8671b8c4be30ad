"""What is wrong with the flagfiles of a command line, said before absl reads them.

absl takes a line of a flagfile as it stands: a comment behind a flag becomes part of its value,
quotes stay, a file that includes itself is skipped. And it looks for a flagfile, a nested one too,
from the working directory alone; here it may lie in this checkout as well, so that the flagfiles of
configs/ are found, and find each other, from everywhere.
"""

import difflib
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import checkout

from nppac_tf.errors import UserError

_FLAG = re.compile(r"--?(?P<name>\w[\w.-]*)(?:(?P<before>\s*)=(?P<value>.*))?", re.DOTALL)
_INCLUDE = re.compile(r"--?flagfile(=|\s|$)")


class Line(NamedTuple):
    """A flag in a flagfile."""

    place: str  # "configs/pen.flags:12"
    name: str
    text: str


def read(arguments: Sequence[str]) -> list[Line]:
    """The flags in the flagfiles that a command line names, and in those that these include.

    Args:
        arguments: Of the command line, without the program's name.

    Raises:
        UserError: names the file and the line that is not what its author will have meant.
    """
    return [item for item in _items(arguments) if isinstance(item, Line)]


def expand(arguments: Sequence[str]) -> list[str]:
    """A command line with the flags of its flagfiles in their places; arguments as of `read`."""
    return [item.text if isinstance(item, Line) else item for item in _items(arguments)]


def _items(arguments: Sequence[str]) -> Iterator[str | Line]:
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            yield argument
            yield from remaining
            return
        name, equals, value = argument.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            yield argument
            continue
        path = value if equals else next(remaining, "")
        if not path:
            raise UserError("--flagfile must name a file; got none")
        yield from _read(path, "", ())


def _read(name: str, includer: str, above: tuple[str, ...]) -> Iterator[Line]:
    path = os.path.expanduser(name)
    if not os.path.exists(path) and (checkout.ROOT / path).is_file():
        path = str(checkout.ROOT / path)
    if path in above:
        chain = " -> ".join([*above[above.index(path) :], path])
        raise UserError(f"flagfile {path} includes itself ({chain}): take one --flagfile line out")
    written: dict[str, tuple[str, str]] = {}
    for number, raw in enumerate(_text(path, includer).splitlines(), 1):
        line, place = raw.strip(), f"{path}:{number}"
        if not line or raw.startswith(("#", "//")):
            continue
        if line.startswith("#"):
            raise UserError(f"{place}: a comment must begin in the first column; got {raw!r}")
        if _INCLUDE.match(line):
            included = line.partition("=")[2].strip()
            if not included:
                raise UserError(f"{place}: must be --flagfile=NAME; got {line!r}")
            _check_value(place, "flagfile", included)
            yield from _read(included, path, (*above, path))
            continue
        flag = _FLAG.fullmatch(line)
        if flag is None or flag["before"]:
            raise UserError(f"{place}: {_malformed(line)}")
        if flag["value"] is not None:
            _check_value(place, flag["name"], flag["value"])
        earlier = written.setdefault(flag["name"], (place, line))
        if earlier[1] != line:
            raise UserError(
                f"{place}: {line!r} contradicts {earlier[1]!r} of {earlier[0]}: keep one of them"
            )
        yield Line(place, flag["name"], line)


def _text(path: str, includer: str) -> str:
    try:
        content = pathlib.Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"flagfile {path} must be a text file in UTF-8; it is not") from None
    except FileNotFoundError:
        raise UserError(f"flagfile {path} does not exist{_where_it_is(path, includer)}") from None
    except OSError as error:
        raise UserError(f"flagfile {path} cannot be read: {error.strerror}") from None
    if content.startswith("\ufeff"):
        raise UserError(f"flagfile {path} begins with a byte-order mark: save it without one")
    if "\0" in content:
        raise UserError(f"flagfile {path} must be a text file in UTF-8; it is not")
    return content


def _where_it_is(path: str, includer: str) -> str:
    beside = pathlib.Path(includer).parent / path
    if includer and beside.is_file():
        return (
            f": {includer} names it from its own folder, and it is looked for from the working "
            f"directory and the checkout's: write --flagfile={beside}"
        )
    origin = f", which {includer} includes" if includer else ""
    folder = pathlib.Path(path).parent
    names = [item.name for item in folder.iterdir()] if folder.is_dir() else []
    close = difflib.get_close_matches(pathlib.Path(path).name, names, n=1)
    return f"{origin}; did you mean {folder / close[0]}?" if close else origin


def _check_value(place: str, name: str, value: str) -> None:
    comment = re.search(r"\s(#|//)", value)
    if comment:
        raise UserError(
            f"{place}: --{name}={value}: a comment in a flagfile needs a line of its own, and a "
            "value with ' #' or ' //' belongs on the command line"
        )
    if value[:1].isspace():
        raise UserError(f"{place}: write --{name}={value.strip()}, without spaces around '='")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        raise UserError(
            f"{place}: quotes in a flagfile are part of the value: write --{name}={value[1:-1]}"
        )


def _malformed(line: str) -> str:
    dashes = re.match(r"[\u2010-\u2015\u2212]+", line)
    if dashes:
        return f"a flag begins with two hyphens, --; got {dashes[0]!r} in {line!r}"
    spaced = re.fullmatch(r"--?(\w+)(?:\s+=\s*|\s+)(.*)", line)
    if spaced:
        return f"write --{spaced[1]}={spaced[2]}, without spaces; got {line!r}"
    return f"a line must be --name=value, or a comment that begins with #; got {line!r}"
