"""Arguments that are no flags, for launchers that take them."""

import re
from collections.abc import Sequence

from absl import flags

_SWITCH_VALUES = ("true", "false")


def take(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command line.

    What looks like a flag gone wrong ("= 3", "title=x", a dash that is no hyphen) stays, so that
    the parser of flags can say what is wrong with it. All that follows "--" is no flag.

    Args:
        argv: With the program's name.

    Returns:
        The command line without the operands, and the operands.
    """
    kept = list(argv[:1])
    operands: list[str] = []
    for index, item in enumerate(argv[1:], 1):
        if item == "--":
            operands += argv[index + 1 :]
            break
        if item.startswith("-") or _belongs_to_flag(argv[index - 1], item) or _is_slip(item):
            kept.append(item)
        else:
            operands.append(item)
    return kept, operands


def _belongs_to_flag(before: str, item: str) -> bool:
    """Whether an item is the value of the one before it, or was meant to be."""
    if not before.startswith("-"):
        return before == "="
    name = before.lstrip("-")
    if name == "flagfile" or before.endswith("="):
        return True
    if name not in flags.FLAGS:
        return False
    return not flags.FLAGS[name].boolean or item.lower() in _SWITCH_VALUES


def _is_slip(item: str) -> bool:
    name, equals, _ = item.partition("=")
    return bool(
        (equals and (not name or name in flags.FLAGS)) or re.match(r"[\u2010-\u2015\u2212]", item)
    )
