"""The task, the demonstrations and the name of a run, loaded before TensorFlow is."""

from typing import NamedTuple

from nppac_tf.config import RunConfig
from nppac_tf.demonstrations import Demonstrations, load_demonstrations
from nppac_tf.environments import Task, make_task
from nppac_tf.training.transitions import of_demonstrations


class Inputs(NamedTuple):
    """What a run takes from outside."""

    task: Task
    demonstrations: Demonstrations


def load(config: RunConfig) -> Inputs:
    """The task and the demonstrations that a configuration names.

    Raises:
        UserError: if the task is unknown, or the demonstrations cannot be read, do not fit it, or
            are to be replayed and cannot be.
    """
    task = task_of(config)
    demonstrations = load_demonstrations(config.demonstrations, task)
    if config.training.demonstration_share or config.training.prefill_replay:
        of_demonstrations(demonstrations, task)
    return Inputs(task, demonstrations)


def task_of(config: RunConfig) -> Task:
    """The task that a configuration names; UserError if it is unknown."""
    return make_task(
        config.task,
        config.reward,
        observation_keys=config.observation_keys,
        success_key=config.success_key,
    )


def method(config: RunConfig) -> str:
    """Which algorithm, if another than N-PPAC, and which prior: "sparse_gp", "awac uniform"."""
    algorithm, prior = config.agent.algorithm, config.prior.prior
    return prior if algorithm == "nppac" else f"{algorithm} {prior}"


def title(config: RunConfig) -> str:
    """A run in a few words, such as "pen-binary, sparse_gp, seed 0"."""
    return f"{config.task}, {method(config)}, seed {config.training.seed}"
