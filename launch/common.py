"""What all launchers share: flags from dataclasses, errors in one line, and quiet libraries."""

import dataclasses
import logging
import pathlib
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

from absl import app, flags

# The package of this checkout, installed or not.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from nppac_tf import config
from nppac_tf.errors import UserError

FLAGS = flags.FLAGS

# What a launcher defines through this module counts as its own in its --help.
flags.disclaim_key_flags()


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
        from nppac_tf import environments, rundir

        directory = rundir.RunDirectory(FLAGS.run)
        trained = directory.config()
        task = make_task(trained.task, trained.reward)
        home = environments.make_task(trained.task, trained.reward)
        require_sizes("policy", (home.observation_size, home.action_size), task)
        policy, updates = directory.load_policy(home)
        provenance = {**directory.provenance(), "updates": updates}
        return PolicySource(directory.path.name, policy, task, provenance)
    from nppac_tf import export

    metadata = export.load_metadata(FLAGS.saved_model)
    task = make_task(metadata["task"], metadata["reward"])
    sizes = (metadata["observation_size"], metadata["action_size"])
    require_sizes("policy", sizes, task)
    policy = export.load_policy(FLAGS.saved_model)
    return PolicySource(pathlib.Path(FLAGS.saved_model).name, policy, task, metadata)


def make_task(name: str | None = None, reward: str | None = None) -> Any:
    """The task of --task and --reward, and where these are not given, of the arguments.

    Raises:
        UserError: if nothing names a task, or it is unknown.
    """
    from nppac_tf import environments

    name = FLAGS.task or name
    if name is None:
        raise UserError("--task must be given: the policy does not say what it is for")
    return environments.make_task(name, FLAGS.reward or reward or config.REWARDS[0])


def require_sizes(what: str, sizes: tuple[int, int], task: Any) -> None:
    """Raises UserError unless sizes of observation and action are the task's."""
    wanted = (task.observation_size, task.action_size)
    if sizes != wanted:
        raise UserError(
            f"{what} must have observation size {wanted[0]} and action size {wanted[1]} for task "
            f"{task.name}; got {sizes[0]} and {sizes[1]}"
        )


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


def run(main: Callable[[], None]) -> NoReturn:
    """Parses the flags, runs a launcher and exits: 0, 1 after a user's mistake, 130 interrupted."""

    def guarded(argv: list[str]) -> None:
        _quiet()
        try:
            main()
        except (UserError, FloatingPointError, OSError) as error:
            _fail(str(error), 1)
        except KeyboardInterrupt as interrupt:
            _fail(str(interrupt) or "interrupted", 130)

    app.run(guarded, flags_parser=_parse)
    raise AssertionError("app.run returns to no one")


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
        rest = FLAGS(argv)
    except flags.Error as error:
        _fail(f"{_one_line(error)} (--help lists the flags)", 1)
    except SystemExit:
        sys.exit(0)  # Of --help: absl would exit with 1.
    if len(rest) > 1:
        _fail(
            f"unexpected argument {rest[1]!r}: a flag is --name=value, on a line of its own in a "
            "flagfile",
            1,
        )
    for name in FLAGS:
        value = FLAGS[name].value
        if isinstance(value, str) and " #" in value and FLAGS[name].present:
            _fail(f"--{name}={value}: a comment in a flagfile needs a line of its own", 1)
    return rest


def _quiet() -> None:
    """Keeps the libraries' own notices from the terminal; to be called before they are imported."""
    warnings.simplefilter("ignore", SyntaxWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).removeprefix("ERROR:: ").split())


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
