"""Behavioral priors pi0(a | s), fitted to demonstrations."""

from nppac_tf.priors.base import (
    BehavioralPrior,
    FixedScalePrior,
    PriorStatistics,
    RescaledPrior,
    UniformPrior,
)
from nppac_tf.priors.fitting import (
    chosen_class,
    default_cache,
    fit_prior,
    load_prior,
    rescale,
    save_prior,
)
from nppac_tf.priors.gaussian_process import ExactGPPrior, GaussianProcessPrior, SparseGPPrior
from nppac_tf.priors.networks import (
    BayesianNetworkPrior,
    DropoutPrior,
    EnsemblePrior,
    GaussianNetworkPrior,
    NetworkPrior,
)
from nppac_tf.priors.novelty import Novelty, load_novelty, save_novelty

__all__ = [
    "BayesianNetworkPrior",
    "BehavioralPrior",
    "DropoutPrior",
    "EnsemblePrior",
    "ExactGPPrior",
    "FixedScalePrior",
    "GaussianNetworkPrior",
    "GaussianProcessPrior",
    "NetworkPrior",
    "Novelty",
    "PriorStatistics",
    "RescaledPrior",
    "SparseGPPrior",
    "UniformPrior",
    "chosen_class",
    "default_cache",
    "fit_prior",
    "load_novelty",
    "load_prior",
    "rescale",
    "save_novelty",
    "save_prior",
]
