"""What may be given to `agent.NppacAgent`; each check raises ValueError and says what was wrong."""

from typing import Any

from tf_agents.trajectories import time_step as ts

from nppac_tf.priors.base import BehavioralPrior


def check_prior(prior: BehavioralPrior, time_step_spec: ts.TimeStep, action_spec: Any) -> None:
    """A prior, of the sizes of the specs."""
    if not isinstance(prior, BehavioralPrior):
        raise ValueError(
            f"prior must be a BehavioralPrior (UniformPrior for none); got {type(prior).__name__}"
        )
    sizes = (int(time_step_spec.observation.shape[0]), int(action_spec.shape[0]))
    if (prior.observation_size, prior.action_size) != sizes:
        raise ValueError(
            "prior must have the environment's observation and action sizes "
            f"{sizes}; got {(prior.observation_size, prior.action_size)}"
        )


def check_losses(
    divergence: str, actor_value: str, num_target_critics: int | None, policy_averaging: int
) -> None:
    """Names that are known, and numbers that are large enough."""
    if divergence not in ("sampled", "closed_form"):
        raise ValueError(f"divergence must be sampled or closed_form; got {divergence!r}")
    if actor_value not in ("min", "mean"):
        raise ValueError(f"actor_value must be min or mean; got {actor_value!r}")
    if num_target_critics is not None and num_target_critics < 1:
        raise ValueError(f"num_target_critics must be at least 1; got {num_target_critics}")
    if policy_averaging < 0:
        raise ValueError(f"policy_averaging must be at least 0; got {policy_averaging}")


def check_temperature(
    target_kl: float | None,
    target_entropy: float | None,
    final_temperature: float | None,
    annealing_updates: int,
    alpha_optimizer: Any,
) -> None:
    """A temperature that is fixed, annealed, or tuned to one target."""
    if target_kl is not None and (target_kl <= 0 or target_entropy is not None):
        raise ValueError(
            "target_kl must be positive and excludes target_entropy; "
            f"got {target_kl} and {target_entropy}"
        )
    if target_kl is not None and alpha_optimizer is None:
        raise ValueError("target_kl needs an alpha_optimizer, which tunes alpha to it")
    if final_temperature is not None and alpha_optimizer is not None:
        raise ValueError("final_temperature excludes an alpha_optimizer, which tunes alpha")
    if final_temperature is not None and final_temperature <= 0:
        raise ValueError(f"final_temperature must be positive; got {final_temperature}")
    if annealing_updates < 1:
        raise ValueError(f"annealing_updates must be at least 1; got {annealing_updates}")
