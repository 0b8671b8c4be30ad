"""Flags from the dataclasses of `nppac_tf.config`, and configurations from flags."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

from absl import flags

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # The flags belong to the launcher that defines them here.

groups: dict[str, str] = {}  # "Prior", "Agent", "Training" or "Run", by the name of a flag.


def define(config_class: Any, only: Collection[str] = ()) -> None:
    """Defines a flag for each field of a configuration, or only for those named."""
    for field in dataclasses.fields(config_class):
        if only and field.name not in only:
            continue
        if dataclasses.is_dataclass(field.type):
            define(field.type)
        else:
            groups[field.name] = config_class.__name__.removesuffix("Config")
            _define_flag(field)


def configuration(config_class: Any, base: Any = None) -> Any:
    """Builds a configuration from its flags; a base has the values of flags that are not given."""
    values = {}
    for field in dataclasses.fields(config_class):
        inherited = getattr(base, field.name) if base is not None else None
        if dataclasses.is_dataclass(field.type):
            values[field.name] = configuration(field.type, inherited)
        elif base is not None and not (field.name in FLAGS and FLAGS[field.name].present):
            values[field.name] = inherited
        else:
            values[field.name] = FLAGS[field.name].value
    return config_class(**values)


class _Parser(flags.ArgumentParser):
    """Parses text by a function; `syntactic_help` describes what it accepts."""

    def __init__(self, convert: Callable[[str], Any], syntactic_help: str) -> None:
        self._convert = convert
        self.syntactic_help = syntactic_help

    def parse(self, argument: Any) -> Any:
        return self._convert(argument) if isinstance(argument, str) else argument


def _or_none(number: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text.lower() == "none" else number(text)


_PARSERS: dict[Any, flags.ArgumentParser] = {
    tuple[int, ...]: _Parser(lambda text: tuple(map(int, text.split(","))), "integers with commas"),
    tuple[str, ...]: _Parser(
        lambda text: tuple(filter(None, text.split(","))), "names with commas"
    ),
    str | None: _Parser(_or_none(str), "text or none"),
    int | None: _Parser(_or_none(int), "an integer or none"),
    float | None: _Parser(_or_none(float), "a number or none"),
}


def _define_flag(field: dataclasses.Field) -> None:
    name, default, text = field.name, field.default, field.metadata["help"]
    if field.metadata.get("choices"):
        flags.DEFINE_enum(name, str(default), field.metadata["choices"], text)
    elif field.type in _PARSERS:
        flags.DEFINE(_PARSERS[field.type], name, default, text)
    else:
        kinds: dict[Any, str] = {bool: "boolean", int: "integer", float: "float", str: "string"}
        getattr(flags, f"DEFINE_{kinds[field.type]}")(name, default, text)
