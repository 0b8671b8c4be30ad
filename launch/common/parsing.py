"""Parses a command line; prints the help, or says in one line what is wrong."""

import difflib
import re
import sys
import textwrap
from collections.abc import Sequence

from absl import flags

from common import config_flags, flagfiles
from nppac_tf import command
from nppac_tf.errors import UserError

FLAGS = flags.FLAGS


def parse(main_options: Sequence[str], takes_arguments: bool) -> list[str]:
    """Parses the command line and returns the arguments that are not flags; see `program.run`."""
    arguments = flagfiles.expand(sys.argv[1:])
    if {"--help", "-help", "-h"} & {argument.text for argument in arguments}:
        print(_help(main_options))
        sys.exit(0)
    rest = apply(arguments)
    if rest and not takes_arguments:
        raise UserError(f"unexpected argument {rest[0]!r}; write --name=value, without spaces")
    return rest


def apply(arguments: Sequence[flagfiles.Argument]) -> list[str]:
    """Sets all flags as the arguments say and returns the arguments that are not flags."""
    FLAGS.unparse_flags()
    FLAGS.set_gnu_getopt(True)
    try:
        return FLAGS([sys.argv[0], *(argument.text for argument in arguments)])[1:]
    except (flags.Error, ValueError) as error:
        message = " ".join(str(error).split())
        name = getattr(error, "flagname", "") or "".join(re.findall(r"--?(\w+)", message)[:1])
    if message.startswith("Unknown"):
        close = difflib.get_close_matches(name.replace("-", "_"), _names(), n=1, cutoff=0.7)
        hint = f"; did you mean --{close[0]}?" if close else ""
        message = f"unknown flag --{name}{hint} (--help lists all flags)"
    elif message.startswith("flag --") and name in FLAGS:
        parser = FLAGS[name].parser
        choices = ", ".join(getattr(parser, "enum_values", ()))
        requirement = f"one of {choices}" if choices else parser.syntactic_help or "true or false"
        value = message.removeprefix(f"flag --{name}=").partition(": ")[0]
        message = f"--{name} must be {requirement}; got {value!r}"
    # The last occurrence counts.
    places = [item.place for item in arguments if re.match(rf"--?{re.escape(name)}\b", item.text)]
    raise UserError(f"{places[-1]}: {message}" if places and places[-1] else message)


def as_typed(text: str) -> str:
    """Calls launchers what the user calls them: after `nppac`, launch/train.py is `nppac train`."""
    if not command.running:
        return text
    names = r"(?:python )?launch/(\w+)\.py"
    return re.sub(names, lambda found: f"nppac {command.name_of(found[1])}", text)


def _names() -> list[str]:
    return [flag.name for flag in FLAGS.get_key_flags_for_module(sys.argv[0])]


def _help(main_options: Sequence[str]) -> str:
    """Returns the launcher's docstring and its flags, in groups."""
    sections: dict[str, list[str]] = {"Main options": list(main_options)}
    sections |= {title: [] for title in ("Prior options", "Agent options", "Training options")}
    other = "Run options" if main_options else "Options"
    for name in _names():
        if name not in main_options:
            title = f"{config_flags.groups.get(name)} options"
            sections.setdefault(title if title in sections else other, []).append(name)
    parts = ["\n".join([f"{k}:", *map(_describe, names)]) for k, names in sections.items() if names]
    return "\n\n".join([as_typed(str(sys.modules["__main__"].__doc__)).strip(), *parts])


def _describe(name: str) -> str:
    flag = FLAGS[name]
    default = flag.default
    default = ",".join(map(str, default)) if isinstance(default, list | tuple) else default
    shown = "" if default in (None, "") else f" (default: {default})"
    text = f"--{'[no]' if flag.boolean else ''}{name}: {flag.help}{shown}"
    return textwrap.fill(text, 100, initial_indent="  ", subsequent_indent=" " * 6)
