"""Folders of runs as reports read them: a config.json and a metrics.csv."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from nppac_tf.config import RunConfig

COLUMNS = "env_steps,eval/any_success,eval/time_at_goal,eval/final_success,eval/return,monitor/kl_0"


def write_run(
    folder: pathlib.Path,
    times: Sequence[float],
    seed: int = 0,
    steps: Sequence[int] | None = None,
    task: str = "pen-binary",
    planned: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a run whose returns are 100 times its times at goal.

    Args:
        folder: Created if missing.
        times: Time at goal of each evaluation; empty for a run that has no table yet.
        seed: Seed of the training.
        steps: Environment steps of the evaluations (default: 0, 1000, ...).
        task: Task of the run.
        planned: Its num_env_steps (default: the last of the steps).
        changes: Values by dotted name that replace those in config.json; None removes the name.
    """
    steps = list(steps or range(0, 1000 * len(times), 1000))
    config = RunConfig(task="pen-binary").to_dict()
    config["task"] = task
    config["training"]["seed"] = seed
    config["training"]["num_env_steps"] = steps[-1] if planned is None and steps else planned or 0
    content: dict[str, Any] = {"config": config, "versions": {"numpy": "1.26.4"}}
    for name, value in (changes or {}).items():
        *parents, last = name.split(".")
        part = content
        for parent in parents:
            part = part.setdefault(parent, {})
        if value is None:
            del part[last]
        else:
            part[last] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    if times:
        lines = [
            f"{step},0.9,{time},0.8,{100 * time},1" for step, time in zip(steps, times, strict=True)
        ]
        (folder / "metrics.csv").write_bytes("\r\n".join([COLUMNS, *lines, ""]).encode())
    return folder
