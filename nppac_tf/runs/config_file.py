"""The config.json of a run, as plain JSON of any version, and whether a run can be resumed.

Loads no TensorFlow.
"""

import dataclasses
import json
import pathlib
from typing import Any

from nppac_tf.config import RunConfig
from nppac_tf.errors import UserError
from nppac_tf.options import flatten
from nppac_tf.runs.metrics import read_rows

_MAY_GROW = "training.num_env_steps"
# Settings of an agent that decide which weights there are.
_OF_NETWORKS = (
    *("algorithm", "actor", "squash", "actor_layers"),
    *("critic_layers", "critic_layer_norm", "num_critics"),
)


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


def continued(config: RunConfig, run: pathlib.Path) -> RunConfig:
    """The configuration of a run, with the alpha of its last evaluation as the first.

    Raises:
        UserError: if its table of metrics is damaged.
    """
    rows = read_rows(run / "metrics.csv") if (run / "metrics.csv").is_file() else []
    alpha = float(f"{rows[-1].get('train/alpha', 0):.6g}") if rows else 0.0
    if not alpha > 0:
        return config
    return dataclasses.replace(config, agent=dataclasses.replace(config.agent, temperature=alpha))


def require_same_networks(config: RunConfig, asked: RunConfig, run: pathlib.Path) -> None:
    """Checks that a run of another configuration can start from the weights of a run.

    Raises:
        UserError: names the first field that differs, and the run.
    """
    pairs = [
        (name, getattr(config.agent, name), getattr(asked.agent, name)) for name in _OF_NETWORKS
    ]
    if (config.prior.prior == "uniform") != (asked.prior.prior == "uniform"):
        pairs.append(("prior", config.prior.prior, asked.prior.prior))
    for name, had, wanted in pairs:
        if had != wanted:
            raise UserError(f"{name} must be {had!r} to start from {run}; got {wanted!r}")


def require_resumable(config: RunConfig, asked: RunConfig, run: pathlib.Path) -> None:
    """Checks that a run of a configuration can be resumed as asked: the same, or longer.

    The demonstrations may lie elsewhere: `RunDirectory.resume` compares their content. The task may
    be called by another of its names.

    Raises:
        UserError: names the first field that differs, and the run.
    """
    from nppac_tf.environments.known import task_name  # Its package imports Gymnasium.

    had, wanted = flatten(config.to_dict()), flatten(asked.to_dict())
    if task_name(wanted["task"]) == had["task"]:
        wanted["task"] = had["task"]
    for name, value in wanted.items():
        longer = name == _MAY_GROW and value >= had[name]
        if value != had[name] and not longer and name != "demonstrations":
            flag = name.rpartition(".")[2]
            or_more = " or more" if name == _MAY_GROW else ""
            raise UserError(f"{flag} must be {had[name]!r}{or_more} to resume {run}; got {value!r}")
