"""Settings that a run ignores, so that nobody waits for an effect that they cannot have.

They are reported and not refused: a flagfile after another, such as a baseline's after a task's,
overrides some of its settings and makes others meaningless.
"""

import dataclasses
from typing import Any

from nppac_tf.config import AgentConfig, PriorConfig, RunConfig, TrainingConfig

_OF_ANY_FIT = {"prior_seed", "action_lookahead", "scale_factor", "scale_floor", "fixed_scale"}
_OF_NETWORKS = {"network_layers", "network_epochs"}
_OF_PRIOR: dict[str, set[str]] = {
    "gp": {"kernel", "ard", "lengthscale_factor", "num_neighbors"},
    "sparse_gp": {"kernel", "ard", "lengthscale_factor", "num_neighbors", "num_inducing_points"},
    "gaussian_network": _OF_NETWORKS,
    "ensemble": {*_OF_NETWORKS, "ensemble_size"},
    "bayesian_network": _OF_NETWORKS,
    "dropout": {*_OF_NETWORKS, "dropout_rate"},
}
_OF_A_NETWORK_ACTOR = {"pretraining_steps", "pretraining_batch_size", "warmup_imitation"}
_OF_EVALUATION = {"num_env_steps", "eval_interval", "eval_episodes", "seed"}


def unused_settings(config: RunConfig) -> list[str]:
    """Settings without effect that differ from their default, as flags: "--kernel=rbf"."""
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
    return _names(PriorConfig) - {"prior"} - _OF_ANY_FIT - _OF_PRIOR[config.prior]


def _unused_of_agent(config: AgentConfig) -> set[str]:
    if config.algorithm == "cloning":
        return _names(AgentConfig) - {"algorithm"}
    return {"kl_in_target", "divergence"} if config.algorithm == "awac" else set()


def _unused_of_training(config: RunConfig) -> set[str]:
    agent, training = config.agent, config.training
    if agent.algorithm == "cloning":
        return _names(TrainingConfig) - _OF_EVALUATION
    unused = set()
    if config.prior.prior == "uniform" or (agent.actor == "anchored" and agent.algorithm != "awac"):
        unused |= _OF_A_NETWORK_ACTOR
    if agent.target_kl is not None or agent.algorithm == "awac":
        unused |= {"final_temperature", "temperature_decay", "annealing_steps"}
    if training.final_temperature is None:
        unused |= {"temperature_decay", "annealing_steps"}
    if training.annealing_steps is not None:
        unused.add("temperature_decay")
    if training.num_environments - training.greedy_environments < 2:
        unused.add("exploration_spread")
    return unused


def _names(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
