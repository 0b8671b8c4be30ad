"""The command `nppac`: `nppac train --seed=1` is `python launch/train.py --seed=1`."""

import pathlib
import runpy
import sys

from nppac_tf import __version__

_PACKAGE = pathlib.Path(__file__).resolve().parent
# A wheel has the launchers inside the package, a checkout beside it.
_LAUNCH = next(f for f in (_PACKAGE / "launch", _PACKAGE.parent / "launch") if f.is_dir())
_NAMES = {
    "collect_demonstrations": "collect",
    "convert_demonstrations": "convert",
    "inspect_demonstrations": "doctor",
}
_LAUNCHERS = {name: launcher for launcher, name in _NAMES.items()}

running = False  # Whether this process was started as `nppac`.


def main() -> None:
    """Runs the launcher that the first argument names, with the other arguments."""
    global running
    name, *arguments = sys.argv[1:] or ["--help"]
    path = _LAUNCH / f"{_LAUNCHERS.get(name, name).replace('-', '_')}.py"
    if name in ("--help", "-h", "help"):
        print(_help())
    elif name == "--version":
        print(f"nppac_tf {__version__}")
    elif not path.is_file():
        sys.exit(f"error: unknown command {name!r}; nppac --help lists all")
    else:
        running = True
        sys.argv = [str(path), *arguments]
        sys.path.insert(0, str(_LAUNCH))  # As Python does for a script.
        runpy.run_path(str(path), run_name="__main__")


def name_of(launcher: str) -> str:
    """What follows `nppac` for a launcher, such as "doctor" for "inspect_demonstrations"."""
    return _NAMES.get(launcher, launcher)


def _help() -> str:
    import ast

    lines = []
    for path in _LAUNCH.glob("*.py"):
        purpose = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        lines.append(f"  {name_of(path.stem):9}  {purpose}")
    usage = "nppac COMMAND --name=value ...; nppac COMMAND --help lists the flags"
    return "\n".join([usage, "", *sorted(lines)])
