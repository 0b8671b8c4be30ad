"""N-PPAC: reinforcement learning regularized toward a non-parametric behavioral prior.

The public names, loaded when they are first used: `import nppac_tf` itself imports neither
TensorFlow nor anything else that is slow. It does one thing more, before anyone imports these:
it keeps gym's notice and TensorFlow's start-up log, which are not the user's, from the terminal.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from gym_notices import notices as gym_notices

if TYPE_CHECKING:
    from nppac_tf.agent import NppacAgent
    from nppac_tf.config import AgentConfig, PriorConfig, TrainingConfig
    from nppac_tf.demonstrations import (
        Demonstrations,
        load_demonstrations,
        save_demonstrations,
    )
    from nppac_tf.environments import make_task
    from nppac_tf.errors import UserError
    from nppac_tf.evaluation import evaluate
    from nppac_tf.export import export_policy, load_policy
    from nppac_tf.priors import (
        BayesianNetworkPrior,
        BehavioralPrior,
        DropoutPrior,
        EnsemblePrior,
        ExactGPPrior,
        FixedScalePrior,
        GaussianNetworkPrior,
        Novelty,
        RescaledPrior,
        SparseGPPrior,
        UniformPrior,
        fit_prior,
        load_prior,
        save_prior,
    )
    from nppac_tf.progress import ProgressDisplay
    from nppac_tf.training import train

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
gym_notices.notices.clear()

__version__ = "0.1.0"

__all__ = [
    "AgentConfig",
    "BayesianNetworkPrior",
    "BehavioralPrior",
    "Demonstrations",
    "DropoutPrior",
    "EnsemblePrior",
    "ExactGPPrior",
    "FixedScalePrior",
    "GaussianNetworkPrior",
    "Novelty",
    "NppacAgent",
    "PriorConfig",
    "ProgressDisplay",
    "RescaledPrior",
    "SparseGPPrior",
    "TrainingConfig",
    "UniformPrior",
    "UserError",
    "__version__",
    "evaluate",
    "export_policy",
    "fit_prior",
    "load_demonstrations",
    "load_policy",
    "load_prior",
    "make_task",
    "save_demonstrations",
    "save_prior",
    "train",
]

_HOME_OF = {
    "GaussianNetworkPrior": "nppac_tf.priors",
    "FixedScalePrior": "nppac_tf.priors",
    "EnsemblePrior": "nppac_tf.priors",
    "DropoutPrior": "nppac_tf.priors",
    "BayesianNetworkPrior": "nppac_tf.priors",
    "ProgressDisplay": "nppac_tf.progress",
    "AgentConfig": "nppac_tf.config",
    "PriorConfig": "nppac_tf.config",
    "RescaledPrior": "nppac_tf.priors",
    "TrainingConfig": "nppac_tf.config",
    "fit_prior": "nppac_tf.priors",
    "save_prior": "nppac_tf.priors",
    "BehavioralPrior": "nppac_tf.priors",
    "Demonstrations": "nppac_tf.demonstrations",
    "ExactGPPrior": "nppac_tf.priors",
    "Novelty": "nppac_tf.priors",
    "NppacAgent": "nppac_tf.agent",
    "SparseGPPrior": "nppac_tf.priors",
    "UniformPrior": "nppac_tf.priors",
    "UserError": "nppac_tf.errors",
    "evaluate": "nppac_tf.evaluation",
    "export_policy": "nppac_tf.export",
    "load_demonstrations": "nppac_tf.demonstrations",
    "load_policy": "nppac_tf.export",
    "load_prior": "nppac_tf.priors",
    "make_task": "nppac_tf.environments",
    "save_demonstrations": "nppac_tf.demonstrations",
    "train": "nppac_tf.training",
}


def __getattr__(name: str) -> Any:
    """Imports the module that defines a public name, and keeps what it found."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
