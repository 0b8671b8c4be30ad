"""Settings that a run does not use, so that nobody waits for what they cannot do.

They are told and not refused: a flagfile after a base, such as a baseline after a task's, leaves
settings of the base behind that mean nothing to it.
"""

import dataclasses
from typing import Any

from nppac_tf.config import AgentConfig, PriorConfig, RunConfig, TrainingConfig

_OF_ANY_FIT = {"prior_seed", "action_lookahead", "scale_factor", "scale_floor", "fixed_scale"}
_OF_GAUSSIAN_PROCESSES = {
    "kernel",
    "num_hyperparameter_points",
    "max_fit_iterations",
    "observation_noise",
}
_OF_NETWORKS = {
    "network_layers",
    "network_epochs",
    "entropy_bonus",
    "early_stopping_patience",
    "validation_fraction",
}
_OF_PRIOR: dict[str, set[str]] = {
    "gp": {*_OF_GAUSSIAN_PROCESSES, "num_inducing_points"},
    "sparse_gp": {*_OF_GAUSSIAN_PROCESSES, "num_inducing_points"},
    "exact_gp": _OF_GAUSSIAN_PROCESSES,
    "gaussian_network": {*_OF_NETWORKS, "weight_decay"},
    "ensemble": {*_OF_NETWORKS, "weight_decay", "ensemble_size"},
    "bayesian_network": {*_OF_NETWORKS, "num_network_samples"},
    "dropout": {*_OF_NETWORKS, "weight_decay", "num_network_samples", "dropout_rate"},
}
_OF_A_KL_TERM = {"kl_in_target", "final_temperature", "annealing_updates"}
_OF_EVALUATION = {"num_env_steps", "eval_interval", "eval_episodes", "seed"}


def unused_settings(config: RunConfig) -> list[str]:
    """The settings that are not the default's and have no effect, as flags: "--kernel=rbf"."""
    unused = {
        *_unused_of_prior(config.prior),
        *_unused_of_agent(config.agent),
        *_unused_of_training(config),
    }
    parts: tuple[Any, ...] = (config.prior, config.agent, config.training)
    return [
        f"--{field.name}={_text(getattr(part, field.name))}"
        for part in parts
        for field in dataclasses.fields(part)
        if field.name in unused and getattr(part, field.name) not in (field.default, None)
    ]


def _unused_of_prior(config: PriorConfig) -> set[str]:
    if config.prior == "uniform":
        return _names(PriorConfig) - {"prior"}
    unused = _names(PriorConfig) - {"prior"} - _OF_ANY_FIT - _OF_PRIOR[config.prior]
    return unused if config.early_stopping_patience else unused | {"validation_fraction"}


def _unused_of_agent(config: AgentConfig) -> set[str]:
    if config.algorithm == "cloning":
        return _names(AgentConfig) - {"algorithm"}
    if config.algorithm == "awac":
        return _OF_A_KL_TERM
    return set() if config.anneals else {"final_temperature", "annealing_updates"}


def _unused_of_training(config: RunConfig) -> set[str]:
    training = config.training
    if config.agent.algorithm == "cloning":
        return _names(TrainingConfig) - _OF_EVALUATION
    unused = set()
    if config.prior.prior == "uniform" or not training.pretraining_steps:
        unused |= {"pretraining_steps", "pretraining_batch_size", "pretraining_noise"}
    if training.num_environments - training.greedy_environments < 2:
        unused.add("exploration_spread")
    return unused


def _names(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
