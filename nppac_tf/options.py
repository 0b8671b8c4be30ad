"""Options: dataclass fields with a help text and the values that they may have."""

import dataclasses
import math
from typing import Any

from nppac_tf.errors import UserError


def option(
    default: Any,
    text: str,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    positive: bool = False,
) -> Any:
    """A field with its help text and what its values must be; None is allowed where the default."""
    return dataclasses.field(
        default=default,
        metadata={"help": text, "choices": choices, "minimum": minimum, "positive": positive},
    )


def require(condition: bool, name: str, requirement: str, received: Any) -> None:
    """Raises UserError, with the option's name, the requirement and the value, unless it is met."""
    if not condition:
        raise UserError(f"{name} must be {requirement}; got {received!r}")


def check_fields(config: Any) -> None:
    """Checks each value alone, against what its field says."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), field.name
        if value is None or not field.metadata:
            continue
        choices, minimum = field.metadata["choices"], field.metadata["minimum"]
        if choices:
            require(value in choices, name, f"one of {', '.join(choices)}", value)
        if minimum is not None:
            require(minimum <= value < math.inf, name, f"finite and at least {minimum:g}", value)
        if field.metadata["positive"]:
            require(0 < value < math.inf, name, "positive and finite", value)
        if field.type == tuple[int, ...]:
            sizes = all(isinstance(units, int) and units > 0 for units in value)
            require(len(value) > 0 and sizes, name, "one or more positive layer sizes", value)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
