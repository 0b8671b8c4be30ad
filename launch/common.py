"""What all launchers share: flags from dataclasses, errors in one line, and quiet libraries."""

import contextlib
import dataclasses
import difflib
import errno
import json
import logging
import os
import pathlib
import signal
import sys
import types
import typing
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from absl import app, flags

# The package of this checkout, installed or not, and the launchers' own modules.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.append(str(pathlib.Path(__file__).resolve().parent))

import parsing

from nppac_tf import config, threads
from nppac_tf.errors import UserError

FLAGS = flags.FLAGS

# Sizes of observation and action of tasks that can be told by them.
# What a launcher defines through this module counts as its own in its --help.
flags.disclaim_key_flags()

flags.DEFINE_boolean("debug", False, "Show where in the program an error arose.")


def define(config_class: Any, only: Iterable[str] | None = None) -> None:
    """Defines one flag of each field of a configuration, and of those inside it.

    Args:
        config_class: A dataclass of `nppac_tf.config`.
        only: Names of the fields wanted; all where None.
    """
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if only is not None and field.name not in only:
            continue
        if dataclasses.is_dataclass(hints[field.name]):
            define(hints[field.name])
        else:
            _define_field(field, hints[field.name])


def configuration(config_class: Any, base: Any = None) -> Any:
    """Builds a configuration from the flags that `define` made of it.

    Args:
        config_class: A dataclass of `nppac_tf.config`.
        base: Gives the values of the flags that are not on the command line; None for defaults.

    Raises:
        UserError: if a value is out of range.
    """
    hints = typing.get_type_hints(config_class)
    values = {}
    for field in dataclasses.fields(config_class):
        under = getattr(base, field.name) if base is not None else None
        if dataclasses.is_dataclass(hints[field.name]):
            values[field.name] = configuration(hints[field.name], under)
        elif base is not None and not FLAGS[field.name].present:
            values[field.name] = under
        else:
            values[field.name] = FLAGS[field.name].value
    return config_class(**values)


def given(config_class: Any) -> bool:
    """Whether any flag that `define` made of a configuration was given."""
    hints = typing.get_type_hints(config_class)
    return any(
        given(hints[field.name])
        if dataclasses.is_dataclass(hints[field.name])
        else bool(FLAGS[field.name].present)
        for field in dataclasses.fields(config_class)
    )


class PolicySource(NamedTuple):
    """A policy, what it is for, and where it comes from."""

    name: str
    policy: Callable[[Any], Any]  # observations [B, D] -> actions [B, A]
    task: Any  # nppac_tf.environments.Task
    provenance: dict[str, Any]  # JSON-able; names no folder


def define_policy_source() -> None:
    """Defines --run and --saved_model, of which one is to be given, and --task and --reward."""
    flags.DEFINE_string("run", None, "Folder of a run, for its latest policy.")
    flags.DEFINE_string("saved_model", None, "Folder of an exported policy.")
    flags.DEFINE_string("task", None, "Where to act; by default where the policy was trained.")
    flags.DEFINE_enum("reward", None, config.REWARDS, "Of a hand task; by default as in training.")


def load_policy_source() -> PolicySource:
    """Loads the policy that --run or --saved_model names.

    Raises:
        UserError: if there is none, or it does not fit the task.
    """
    if FLAGS.run:
        path = require_run("run")
        trained = run_configuration(path)
        task = make_task(trained.task, trained.reward)
        from nppac_tf import environments, rundir

        directory = rundir.RunDirectory(path)
        home = environments.make_task(trained.task, trained.reward)
        require_sizes("policy", (home.observation_size, home.action_size), task)
        policy, updates = directory.load_policy(home)
        provenance = {**directory.provenance(), "updates": updates}
        return PolicySource(directory.path.name, policy, task, provenance)
    path = require_saved_model("saved_model")
    from nppac_tf import export

    metadata = export.load_metadata(path)
    sizes = (metadata["observation_size"], metadata["action_size"])
    if ":" in (metadata["task"] or "") and not FLAGS.task:
        raise UserError(
            f"{path} is for {metadata['task']}, which would import a module of that name: pass "
            f"--task={metadata['task']} if that is what you want"
        )
    task = make_task(metadata["task"], metadata["reward"], sizes)
    require_sizes("policy", sizes, task)
    return PolicySource(path.resolve().name, export.load_policy(path), task, metadata)


def make_task(
    name: str | None = None, reward: str | None = None, sizes: tuple[int, int] | None = None
) -> Any:
    """The task of --task and --reward, and where these are not given, of the arguments.

    Args:
        name: A task.
        reward: Of a hand task.
        sizes: Of observation and action, which tell a task where nothing names one.

    Raises:
        UserError: if nothing names a task, or it is unknown.
    """
    name = FLAGS.task or name
    if name is None and sizes:
        from nppac_tf.demonstrations import doctor

        candidates = doctor.tasks_of_sizes(sizes)
        name = candidates[0] if len(candidates) == 1 else None
    if name is None:
        told = f" (observation size {sizes[0]}, action size {sizes[1]})" if sizes else ""
        raise UserError(f"--task must be given: nothing else says what this is for{told}")
    from nppac_tf import environments

    return environments.make_task(name, FLAGS.reward or reward or config.REWARDS[0])


def require_sizes(what: str, sizes: tuple[int, int], task: Any) -> None:
    """Raises UserError unless sizes of observation and action are the task's."""
    wanted = (task.observation_size, task.action_size)
    if sizes != wanted:
        raise UserError(
            f"{what} must have observation size {wanted[0]} and action size {wanted[1]} for task "
            f"{task.name}; got {sizes[0]} and {sizes[1]}"
        )


def require_run(flag: str) -> pathlib.Path:
    """The folder of a run that a flag names, checked before anything slow is imported.

    Raises:
        UserError: if there is no run there, or one whose configuration cannot be read.
    """
    path = _existing(flag, "the folder of a run")
    if (path / "saved_model.pb").is_file():
        raise UserError(
            f"--{flag} must be the folder of a run; {path} is an exported policy: use --saved_model"
        )
    if not (path / "config.json").is_file():
        near = [item.parent for item in sorted(path.glob("*/config.json"))]
        hint = f"; did you mean {_listed(near)}?" if near else ""
        raise UserError(f"--{flag} must be the folder of a run; {path} holds no config.json{hint}")
    run_configuration(path)
    return path


def require_saved_model(flag: str) -> pathlib.Path:
    """The folder of an exported policy that a flag names; likewise.

    Raises:
        UserError: if no exported policy is there.
    """
    path = _existing(flag, "the folder of an exported policy")
    if (path / "config.json").is_file():
        raise UserError(
            f"--{flag} must be the folder of an exported policy; {path} is the folder of a run: "
            "use --run"
        )
    for part in ("saved_model.pb", "assets.extra/metadata.json"):
        if not (path / part).is_file():
            raise UserError(
                f"--{flag} must be the folder of an exported policy; {path} holds no {part}: "
                "export the policy again"
            )
    return path


def require_prior_file(flag: str) -> pathlib.Path:
    """The file of a fitted prior that a flag names; likewise.

    Raises:
        UserError: if it is missing or of another kind.
    """
    path = require_file(flag, (".npz",))
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"--{flag}: {path} is damaged, or no .npz file: {error}") from None
    if "observations.npy" in members:
        raise UserError(f"--{flag} must be a fitted prior; {path} holds demonstrations")
    if "header.npy" not in members:
        raise UserError(f"--{flag} must be a fitted prior (launch/fit_prior.py); {path} is none")
    return path


def require_file(flag: str, suffixes: Sequence[str] = ()) -> pathlib.Path:
    """The file that a flag names.

    Args:
        flag: Its name.
        suffixes: One of which the file's name must have; any where empty.

    Raises:
        UserError: if there is no such file, or its name ends otherwise.
    """
    path = _existing(flag, "a file")
    if path.is_dir():
        raise UserError(f"--{flag} must be a file; {path} is a folder")
    _check_suffix(flag, path, suffixes)
    return path


def require_output(flag: str, suffixes: Sequence[str]) -> pathlib.Path:
    """The file that a flag names to be written.

    Raises:
        UserError: if its name has none of the suffixes, or no such file can be written.
    """
    path = pathlib.Path(FLAGS[flag].value or "").expanduser()
    _check_suffix(flag, path, suffixes)
    if path.is_dir():
        raise UserError(f"--{flag} must be a file; {path} is a folder")
    _check_writable(flag, path.parent)
    return path


def require_output_folder(flag: str) -> pathlib.Path:
    """The folder that a flag names to be made or written into.

    Raises:
        UserError: if that cannot be.
    """
    path = pathlib.Path(FLAGS[flag].value or "").expanduser()
    _check_writable(flag, path)
    return path


def reject(flag: str, why: str) -> None:
    """Raises UserError if a flag is given that has no effect."""
    if FLAGS[flag].present:
        raise UserError(f"--{flag} has no effect {why}: leave it out")


def require_one(*names: str) -> str:
    """The one flag of these that is given.

    Raises:
        UserError: if it is none or several.
    """
    given = [name for name in names if FLAGS[name].value]
    if len(given) != 1:
        alternatives = " or ".join(f"--{name}" for name in names)
        received = " and ".join(f"--{name}" for name in given) or "none"
        raise UserError(f"exactly one of {alternatives} must be given; got {received}")
    return given[0]


class Stopped(Exception):
    """A launcher stops early because a signal asked for it; its message says how to go on."""

    def __init__(self, signal_name: str, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal.Signals[signal_name]


class StopRequest:
    """Whether a signal has asked the program to stop.

    Attributes:
        requested: Name of the first such signal, "SIGINT" or "SIGTERM"; None before.
    """

    def __init__(self) -> None:
        self.requested: str | None = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Lets a long loop end in its own time on SIGINT (Ctrl-C) or SIGTERM.

    The first signal is only noted, in what this gives; the loop looks there. A SIGINT after it
    raises KeyboardInterrupt at once. On leaving, the handlers are those of before.
    """
    stop = StopRequest()

    def note(number: int, _: Any) -> None:
        if stop.requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = stop.requested or signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(main: Callable[[], None]) -> NoReturn:
    """Parses the flags, runs a launcher and exits.

    The code is 0, or 1 after an error, 130 after Ctrl-C, 143 after SIGTERM. An error is one line on
    standard error; --debug shows its traceback instead.
    """

    def guarded(argv: list[str]) -> None:
        # A task may be "module:Environment-v0", and its module in the working directory.
        sys.path.append(os.getcwd())
        _quiet()
        os.environ.update(threads.variables(threads.available_cores(), os.environ))
        try:
            main()
            sys.stdout.flush()
        except Exception as error:
            if isinstance(error, BrokenPipeError):  # Of `| head`: nobody reads on.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(128 + signal.SIGPIPE)
            if FLAGS.debug:
                raise
            _fail(explain(error), getattr(error, "exit_code", 1))
        except KeyboardInterrupt as interrupt:
            if FLAGS.debug:
                raise
            _fail(str(interrupt) or "interrupted", 130)

    app.run(guarded, flags_parser=_parse)
    raise AssertionError("app.run returns to no one")


def explain(error: Exception) -> str:
    """An exception in one line for the person who ran the program."""
    message = _one_line(str(error))
    if isinstance(error, UserError | FloatingPointError | Stopped):
        return message
    if isinstance(error, MemoryError):
        return f"out of memory ({message or 'no more said'}): take less data or smaller settings"
    if isinstance(error, OSError) and error.errno is not None:
        reason = _one_line(error.strerror or message)
        named = [os.fspath(name) for name in (error.filename, error.filename2) if name]
        place = f"{' -> '.join(map(str, named))}: " if named else ""
        return f"{place}{reason}{_REMEDIES.get(error.errno, '')}"
    kind = type(error).__name__
    if len(message) > _LONGEST:
        message = f"{message[:_LONGEST]}..."
    return f"unexpected {kind}: {message}; run again with --debug and report what it shows"


_LONGEST = 300
_REMEDIES = {
    errno.ENOSPC: ": make room on the disk, or write elsewhere",
    errno.EDQUOT: ": make room on the disk, or write elsewhere",
    errno.EACCES: ": ask for access to it, or name another place",
    errno.EPERM: ": ask for access to it, or name another place",
    errno.EROFS: ": write elsewhere",
    errno.ENOENT: ": check the name",
    errno.EMFILE: ": raise the limit of open files (ulimit -n)",
}


class _SizesParser(flags.ArgumentParser):
    """Comma-separated whole numbers, such as 256,256."""

    syntactic_help = "comma-separated whole numbers"

    def parse(self, argument: Any) -> tuple[int, ...]:
        if isinstance(argument, tuple):
            return argument
        try:
            return tuple(int(item) for item in argument.split(","))
        except ValueError:
            raise ValueError(f"must be {self.syntactic_help}; got {argument!r}") from None

    def flag_type(self) -> str:
        return self.syntactic_help


class _OptionalFloatParser(flags.ArgumentParser):
    """A number, or none."""

    syntactic_help = "a number or none"

    def parse(self, argument: Any) -> float | None:
        if isinstance(argument, str) and argument.lower() == "none":
            return None
        try:
            return float(argument)
        except ValueError:
            raise ValueError(f"must be {self.syntactic_help}; got {argument!r}") from None

    def flag_type(self) -> str:
        return self.syntactic_help


class _SizesSerializer(flags.ArgumentSerializer):
    def serialize(self, value: tuple[int, ...]) -> str:
        return ",".join(map(str, value))


def _define_field(field: dataclasses.Field, hint: Any) -> None:
    name, text = field.name, field.metadata["help"]
    default: Any = field.default
    choices = field.metadata.get("choices")
    if choices:
        flags.DEFINE_enum(name, default, choices, text)
    elif hint is bool:
        flags.DEFINE_boolean(name, default, text)
    elif hint is int:
        flags.DEFINE_integer(name, default, text)
    elif hint is float:
        flags.DEFINE_float(name, default, text)
    elif hint is str:
        flags.DEFINE_string(name, default, text)
    elif hint == tuple[int, ...]:
        flags.DEFINE(_SizesParser(), name, default, text, serializer=_SizesSerializer())
    elif isinstance(hint, types.UnionType) and set(hint.__args__) == {float, type(None)}:
        flags.DEFINE(
            _OptionalFloatParser(), name, default, text, serializer=flags.ArgumentSerializer()
        )
    else:
        raise TypeError(f"{name} must be of a type that has a flag; got {hint}")


def _parse(argv: list[str]) -> list[str]:
    try:
        return parsing.parse(argv)
    except UserError as error:
        _fail(_one_line(str(error)), 1)


def _existing(flag: str, what: str) -> pathlib.Path:
    value = FLAGS[flag].value
    if not value:
        raise UserError(f"--{flag} must name {what}; got nothing")
    path = pathlib.Path(value).expanduser()
    try:
        if path.exists():
            return path
        folder = path.parent
        names = [item.name for item in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"--{flag}={value} cannot be read: {error.strerror}") from None
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f"; did you mean {folder / close[0]}?" if close else ""
    raise UserError(f"--{flag} must be {what}; {value} does not exist{hint}")


def _check_suffix(flag: str, path: pathlib.Path, suffixes: Sequence[str]) -> None:
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"--{flag} must end in {' or '.join(suffixes)}; got {FLAGS[flag].value!r}")


def _check_writable(flag: str, folder: pathlib.Path) -> None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"--{flag}={FLAGS[flag].value} cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"--{flag}={FLAGS[flag].value} cannot be written: no permission for {folder}"
        )


def run_configuration(path: pathlib.Path) -> config.RunConfig:
    """What the run in a folder was asked.

    Raises:
        UserError: if its config.json is damaged or of another version.
    """
    file = path / "config.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return config.RunConfig.from_dict(content["config"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is not the configuration of a run: {error}") from None


def _listed(paths: Sequence[pathlib.Path]) -> str:
    shown = [str(path) for path in paths[:3]]
    return ", ".join(shown) + (", ..." if len(paths) > len(shown) else "")


def _quiet() -> None:
    """Keeps the libraries' own notices from the terminal; to be called before they are imported."""
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    # Gymnasium's advice on versions of environments, in color.
    warnings.filterwarnings("ignore", r".*WARN: .*(latest versioned|out of date|deprecated)")
    if not FLAGS.debug:
        warnings.showwarning = _show_warning
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"warning: {_one_line(str(message))}", file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
