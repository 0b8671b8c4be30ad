"""Fitting by configuration, files of fitted priors, and the cache that spares a second fit.

A file is an `.npz` of arrays and one JSON string: reading one runs no code.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import tempfile
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.files import read_arrays, replace_file
from nppac_tf.priors.base import BehavioralPrior, FixedScalePrior, RescaledPrior, UniformPrior
from nppac_tf.priors.gaussian_process import GPPrior
from nppac_tf.priors.networks import (
    BayesianNetworkPrior,
    DropoutPrior,
    EnsemblePrior,
    GaussianNetworkPrior,
)
from nppac_tf.priors.sparse_gp import SparseGPPrior

_VERSION = 2
# Part of the cache's keys: to be raised where a fit with the same settings gives another prior.
_FIT_VERSION = 8
_CLASSES: dict[str, Any] = {
    "gp": GPPrior,
    "sparse_gp": SparseGPPrior,
    "gaussian_network": GaussianNetworkPrior,
    "ensemble": EnsemblePrior,
    "bayesian_network": BayesianNetworkPrior,
    "dropout": DropoutPrior,
    "uniform": UniformPrior,
}
_NAMES = {cls: name for name, cls in _CLASSES.items()}


def fit_prior(
    demonstrations: Demonstrations,
    config: PriorConfig | None = None,
    cache: pathlib.Path | None = None,
) -> BehavioralPrior:
    """The prior that a configuration asks for, fitted, or read from the cache.

    Args:
        demonstrations: To fit to; a uniform prior takes only their sizes.
        config: Which prior, and how.
        cache: Folder of fitted priors, keyed by a hash of data and configuration; None for none.
    """
    config = config or PriorConfig()
    return rescale(_fit_or_load(demonstrations, config, cache), config)


def rescale(prior: BehavioralPrior, config: PriorConfig) -> BehavioralPrior:
    """Applies the scale factor, floor or fixed scale to a fitted prior, unless it is uniform."""
    if not prior.informative:
        return prior
    if config.fixed_scale is not None:
        return FixedScalePrior(prior, config.fixed_scale)
    floor = np.asarray(
        config.scale_factor * np.asarray(prior.scale_floor)
        if config.scale_floor is None
        else config.scale_floor
    )
    if config.scale_factor != 1.0 or floor.any():
        return RescaledPrior(prior, config.scale_factor, floor)
    return prior


def cached(demonstrations: Demonstrations, config: PriorConfig, cache: pathlib.Path | None) -> bool:
    """Whether `fit_prior` would read the prior from the cache."""
    return cache is not None and _cache_file(demonstrations, config, cache).is_file()


def _cache_file(
    demonstrations: Demonstrations, config: PriorConfig, cache: pathlib.Path
) -> pathlib.Path:
    return cache / f"{config.prior}-{_key(demonstrations, config)}.npz"


def _fit_or_load(
    demonstrations: Demonstrations, config: PriorConfig, cache: pathlib.Path | None
) -> BehavioralPrior:
    if config.prior == "uniform":
        return UniformPrior(demonstrations.observation_size, demonstrations.action_size)
    if cache is None:
        return _fit(demonstrations, config)
    path = _cache_file(demonstrations, config, cache)
    if path.is_file():
        try:
            return load_prior(path)
        except UserError:
            path.unlink(missing_ok=True)
    prior = _fit(demonstrations, config)
    try:
        save_prior(prior, path)
    except OSError as error:
        warnings.warn(f"the fitted prior is not cached: {error}", stacklevel=2)
    return prior


def _fit(demonstrations: Demonstrations, config: PriorConfig) -> BehavioralPrior:
    data, seed = demonstrations.look_ahead(config.action_lookahead), config.prior_seed or 0
    network = {"layers": config.network_layers, "epochs": config.network_epochs, "seed": seed}
    process = {
        "kernel": config.kernel,
        "ard": config.ard,
        "lengthscale_factor": config.lengthscale_factor,
        "num_neighbors": config.num_neighbors,
        "seed": seed,
    }
    keywords: dict[str, dict[str, Any]] = {
        "gp": process,
        "sparse_gp": {**process, "num_inducing_points": config.num_inducing_points},
        "gaussian_network": network,
        "ensemble": {**network, "size": config.ensemble_size},
        "bayesian_network": network,
        "dropout": {**network, "rate": config.dropout_rate},
    }
    return _CLASSES[config.prior].fit(data, **keywords.get(config.prior, {"seed": seed}))


def default_cache() -> pathlib.Path:
    """`nppac_tf` in the user's cache folder (`XDG_CACHE_HOME`, or `~/.cache`).

    For a user without a home, as in some containers, it is in the folder of temporary files.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        return pathlib.Path(given) / "nppac_tf"
    try:
        return pathlib.Path.home() / ".cache" / "nppac_tf"
    except RuntimeError:
        return pathlib.Path(tempfile.gettempdir()) / "nppac_tf"


def save_prior(prior: BehavioralPrior, path: str | os.PathLike[str]) -> None:
    """Writes a fitted prior to `path` (.npz), whole or not at all.

    Raises:
        UserError: for a prior of another class than can be loaded again.
    """
    if type(prior) not in _NAMES:
        raise UserError(f"prior must be one of {', '.join(_CLASSES)}; got {type(prior).__name__}")
    settings, arrays = prior.state()
    header = {"version": _VERSION, "class": _NAMES[type(prior)], "settings": settings}
    header_array = np.array(json.dumps(header))
    replace_file(path, lambda file: np.savez(file, header=header_array, **arrays))


def load_prior(path: str | os.PathLike[str]) -> BehavioralPrior:
    """Reads what `save_prior` wrote.

    Raises:
        UserError: if the file is missing, damaged, or not a prior of this version.
    """
    try:
        with open(path, "rb") as file:
            arrays = read_arrays(file)
        header = json.loads(str(arrays.pop("header")))
        if header["version"] != _VERSION:
            raise UserError(
                f"{path} was written by version {header['version']} of the format; "
                f"this program reads version {_VERSION}: fit the prior again"
            )
        return _CLASSES[header["class"]].from_state(header["settings"], arrays)
    except FileNotFoundError:
        raise UserError(f"no prior at {path}; fit one with launch/fit_prior.py") from None
    except UserError:
        raise
    except Exception as error:  # A damaged file can make zipfile, NumPy and GPflow raise anything.
        raise UserError(f"{path} is not a prior written by save_prior: {error}") from None


def _key(demonstrations: Demonstrations, config: PriorConfig) -> str:
    fitted = dataclasses.asdict(config.unscaled()) | {"prior_seed": config.prior_seed or 0}
    version = importlib.metadata.version
    libraries = (version("gpflow"), tf.__version__, version("tensorflow_probability"))
    fitter = [_VERSION, _FIT_VERSION, *libraries]
    content = json.dumps([*fitter, demonstrations.fingerprint(), fitted], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
