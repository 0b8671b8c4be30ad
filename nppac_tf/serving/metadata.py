"""What an export says of itself. Reading it loads no TensorFlow."""

import json
import os
import pathlib
from typing import Any

from nppac_tf.errors import UserError

VERSION = 1
SAVED_MODEL_METADATA = "assets.extra/metadata.json"
# Of an export in another format.
DESCRIPTION = "policy.json"
_USED: dict[str, tuple[type, ...]] = {
    "task": (str, type(None)),
    "reward": (str, type(None)),
    "observation_keys": (list,),
    "success_key": (str, type(None)),
    "observation_size": (int,),
    "action_size": (int,),
    "updates": (int,),
}


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the metadata of an export of any format: task, sizes, bounds, prior, provenance.

    Raises:
        UserError: if `path` is not an exported policy of this version.
    """
    path = pathlib.Path(path)
    file = DESCRIPTION if (path / DESCRIPTION).is_file() else SAVED_MODEL_METADATA
    try:
        metadata = json.loads((path / file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"no exported policy at {path}") from None
    if not isinstance(metadata, dict):
        raise UserError(f"{path} is not an exported policy: its {file} is not an object")
    if metadata.get("version") != VERSION:
        raise UserError(
            f"{path} must have version {VERSION} of the format; got version "
            f"{metadata.get('version')}: export the policy again"
        )
    metadata = {"observation_keys": [], "success_key": None, **metadata}  # Absent from older ones.
    for name, kinds in _USED.items():
        if not isinstance(metadata.get(name, _USED), kinds):
            raise UserError(f"{path} is not an exported policy: its {file} has no {name}")
    return metadata
