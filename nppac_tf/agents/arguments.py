"""Checks of the arguments of `NppacAgent`; each raises ValueError and says what was wrong."""

import math
from typing import Any

from tf_agents.trajectories import time_step as ts

from nppac_tf.agents.distributions import vector_size
from nppac_tf.config import ACTOR_VALUES, DIVERGENCES
from nppac_tf.priors.base import BehavioralPrior


def check_prior(prior: BehavioralPrior, time_step_spec: ts.TimeStep, action_spec: Any) -> None:
    """Checks that there is a prior, of the sizes of the specs, those of nests summed up."""
    if not isinstance(prior, BehavioralPrior):
        raise ValueError(
            f"prior must be a BehavioralPrior (UniformPrior for none); got {type(prior).__name__}"
        )
    sizes = vector_size(time_step_spec.observation), vector_size(action_spec)
    if (prior.observation_size, prior.action_size) != sizes:
        raise ValueError(
            "prior must have the environment's observation and action sizes "
            f"{sizes}; got {(prior.observation_size, prior.action_size)}"
        )


def check_losses(
    divergence: str,
    actor_value: str,
    num_target_critics: int | None,
    reward_scale: float | None,
) -> None:
    """Checks names, and numbers that must be large enough."""
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence must be one of {', '.join(DIVERGENCES)}; got {divergence!r}")
    if actor_value not in ACTOR_VALUES:
        raise ValueError(
            f"actor_value must be one of {', '.join(ACTOR_VALUES)}; got {actor_value!r}"
        )
    if num_target_critics is not None and num_target_critics < 1:
        raise ValueError(f"num_target_critics must be at least 1; got {num_target_critics}")
    if reward_scale is not None and not 0 < reward_scale < math.inf:
        raise ValueError(f"reward_scale must be positive and finite; got {reward_scale}")


def check_targets(
    target_kl: float | None, target_entropy: float | None, alpha_optimizer: Any
) -> None:
    """Checks that alpha is fixed, or tuned to one target."""
    if target_kl is not None and (target_kl <= 0 or target_entropy is not None):
        raise ValueError(
            "target_kl must be positive and excludes target_entropy; "
            f"got {target_kl} and {target_entropy}"
        )
    if target_kl is not None and alpha_optimizer is None:
        raise ValueError("target_kl needs an alpha_optimizer, which tunes alpha to it")
