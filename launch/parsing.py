"""absl's flags, parsed, with one line for what is wrong with them."""

import difflib
import pathlib
import re
import sys

import checkout  # noqa: F401
import flagfiles
from absl import flags

from nppac_tf.errors import UserError

FLAGS = flags.FLAGS


def parse(argv: list[str]) -> list[str]:
    """Parses a command line; --help and the like print and exit with 0.

    Args:
        argv: With the program's name.

    Returns:
        The program's name.

    Raises:
        UserError: names the flag or argument that is wrong, and where it stands in a flagfile.
    """
    arguments = argv[1:]
    lines = flagfiles.read(arguments)
    try:
        rest = FLAGS([argv[0], *flagfiles.expand(arguments)])
    except SystemExit:
        sys.exit(0)  # Of --help: absl would exit with 1.
    except (flags.Error, ValueError) as error:
        raise UserError(_flag_error(error, arguments, lines)) from error
    if len(rest) > 1:
        raise UserError(_unexpected(rest[1], arguments))
    return rest


def _flag_error(error: Exception, arguments: list[str], lines: list[flagfiles.Line]) -> str:
    if isinstance(error, flags.UnrecognizedFlagError):
        name, message = error.flagname, _unknown(error.flagname)
    else:
        message = _one_line(str(error))
        found = re.match(r"flag --(\w+)=|Missing value for flag --?(\w+)|--?no(\w+)=", message)
        name = next(filter(None, found.groups())) if found else ""
        if message.startswith("flag --"):
            message = _illegal(name, message, error)
        elif found and found[2]:
            message = f"--{name} must have a value: --{name}=..."
    if _is_spaced(arguments):
        return f"{message}; a flag is --name=value, without spaces around '='"
    places = [line.place for line in lines if line.name == name]
    on_command_line = any(re.match(rf"--?{re.escape(name)}(=|$)", item) for item in arguments)
    return f"{places[-1]}: {message}" if places and not on_command_line else message


def _unknown(name: str) -> str:
    program = pathlib.Path(sys.argv[0]).name
    if name.startswith("no") and name[2:] in FLAGS:
        return f"--{name}: --{name[2:]} is not a switch and must have a value: --{name[2:]}=..."
    known = [flag.name for flag in FLAGS.get_key_flags_for_module(sys.argv[0])]
    known += [f"no{item}" for item in known if FLAGS[item].boolean]
    close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=2, cutoff=0.7)
    hint = f"; did you mean {' or '.join(f'--{item}' for item in close)}?" if close else ""
    return f"{program} has no flag --{name}{hint} (--help lists them)"


def _illegal(name: str, message: str, error: Exception) -> str:
    cause = _one_line(str(error.__context__))
    value = message.removeprefix(f"flag --{name}=").removesuffix(f": {cause}")
    flag = FLAGS[name]
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        close = difflib.get_close_matches(value, choices, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"--{name} must be one of {', '.join(choices)}; got {value!r}{hint}"
    if flag.boolean:
        return f"--{name} must be true or false; got {value!r}"
    if flag.parser.syntactic_help:
        return f"--{name} must be {flag.parser.syntactic_help}; got {value!r}"
    return f"--{name}={value}: {cause}"


def _unexpected(argument: str, arguments: list[str]) -> str:
    before = arguments[max(arguments.index(argument) - 1, 0)] if argument in arguments else ""
    name = before.lstrip("-").removeprefix("no")
    if _is_spaced(arguments):
        return f"unexpected argument {argument!r}: write --name=value, without spaces around '='"
    if before.startswith("-") and name in FLAGS and FLAGS[name].boolean:
        return f"unexpected argument {argument!r}: write --{name} or --no{name}"
    if re.match(r"[\u2010-\u2015\u2212]", argument):
        return f"unexpected argument {argument!r}: a flag begins with two hyphens, --"
    if argument.partition("=")[0] in FLAGS:
        return f"unexpected argument {argument!r}: did you mean --{argument}?"
    return f"unexpected argument {argument!r}: a flag is --name=value"


def _is_spaced(arguments: list[str]) -> bool:
    """Whether `=` stands apart from the name or the value of a flag."""
    flagged = [item.startswith("-") for item in arguments]
    return "=" in arguments or any(
        flag and ((item.endswith("=") and not next_flag) or following.startswith("="))
        for item, flag, following, next_flag in zip(
            arguments, flagged, arguments[1:], flagged[1:], strict=False
        )
    )


def _one_line(text: str) -> str:
    return " ".join(text.removeprefix("ERROR:: ").split())
