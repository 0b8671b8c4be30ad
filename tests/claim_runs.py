"""Folders of runs for claims that compare runs."""

import json

from nppac_tf.config import PriorConfig, RunConfig, TrainingConfig

# C3


def write_run(folder, header, rows, prior, **training):
    folder.mkdir(parents=True)
    config = RunConfig(
        prior=PriorConfig(**prior),
        training=TrainingConfig(**{"critic_warmup_steps": 0, **training}),
    )
    (folder / "config.json").write_text(json.dumps({"config": config.to_dict()}))
    lines = [header, *(f"{1000 * index},{row}" for index, row in enumerate(rows))]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder
