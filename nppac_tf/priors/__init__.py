"""Behavioral priors pi0(a | s), fitted to demonstrations."""

from nppac_tf.priors.base import (
    BehavioralPrior,
    BoundedPrior,
    FixedScalePrior,
    PriorStatistics,
    RescaledPrior,
    UniformPrior,
)
from nppac_tf.priors.fitting import (
    cached,
    default_cache,
    fit_prior,
    load_prior,
    rescale,
    save_prior,
)
from nppac_tf.priors.gaussian_process import GaussianProcessPrior, GPPrior
from nppac_tf.priors.networks import (
    BayesianNetworkPrior,
    DropoutPrior,
    EnsemblePrior,
    GaussianNetworkPrior,
    NetworkPrior,
)
from nppac_tf.priors.novelty import Novelty, load_novelty, save_novelty
from nppac_tf.priors.sparse_gp import SparseGPPrior

__all__ = [
    "BayesianNetworkPrior",
    "BehavioralPrior",
    "BoundedPrior",
    "DropoutPrior",
    "EnsemblePrior",
    "FixedScalePrior",
    "GPPrior",
    "GaussianNetworkPrior",
    "GaussianProcessPrior",
    "NetworkPrior",
    "Novelty",
    "PriorStatistics",
    "RescaledPrior",
    "SparseGPPrior",
    "UniformPrior",
    "cached",
    "default_cache",
    "fit_prior",
    "load_novelty",
    "load_prior",
    "rescale",
    "save_novelty",
    "save_prior",
]
