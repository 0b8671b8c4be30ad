"""Flags made of configurations, and configurations made of flags."""

import dataclasses
import typing
from collections.abc import Iterable
from typing import Any

from absl import flags

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


def given(config_class: Any) -> bool:
    """Whether any flag that `define` made of a configuration was given."""
    hints = typing.get_type_hints(config_class)
    return any(
        given(hints[field.name])
        if dataclasses.is_dataclass(hints[field.name])
        else bool(FLAGS[field.name].present)
        for field in dataclasses.fields(config_class)
    )


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


class _OptionalParser(flags.ArgumentParser):
    """A number, whole or not, or none."""

    def __init__(self, number: type[int] | type[float]) -> None:
        self._number = number
        self.syntactic_help = "a whole number or none" if number is int else "a number or none"

    def parse(self, argument: Any) -> float | None:
        if isinstance(argument, str) and argument.lower() == "none":
            return None
        try:
            return self._number(argument)
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
    elif hint in (int | None, float | None):
        parser = _OptionalParser(hint.__args__[0])
        flags.DEFINE(parser, name, default, text, serializer=flags.ArgumentSerializer())
    else:
        raise TypeError(f"{name} must be of a type that has a flag; got {hint}")
