"""Reads the config.json of a run as plain JSON, of any version. Loads no TensorFlow."""

import json
import pathlib
from typing import Any

from nppac_tf.errors import UserError
from nppac_tf.options import flatten


def read_config_file(file: pathlib.Path) -> dict[str, Any]:
    """Reads a config.json.

    Returns:
        Its content. "config" is a mapping that holds at least the name of the task.

    Raises:
        UserError: if the file cannot be read or is not the configuration of a run.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        flatten(content if isinstance(content, dict) else {})
    except FileNotFoundError:
        raise UserError(f"no run at {file.parent}: it has no {file.name}") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not the configuration of a run: {error}") from None
    settings = content.get("config") if isinstance(content, dict) else None
    if not isinstance(settings, dict) or not isinstance(settings.get("task"), str):
        raise UserError(f"{file} is not the configuration of a run: it must hold config.task")
    return content
