"""Fitting by configuration, files of fitted priors, and the cache that spares a second fit.

A file is an `.npz` of arrays and one JSON string: reading one runs no code.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import warnings
from typing import Any

import numpy as np

from nppac_tf.config import LARGEST_EXACT_GP, PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.files import read_arrays, replace_file
from nppac_tf.priors.base import BehavioralPrior, FixedScalePrior, RescaledPrior, UniformPrior
from nppac_tf.priors.gaussian_process import ExactGPPrior, SparseGPPrior
from nppac_tf.priors.networks import (
    BayesianNetworkPrior,
    DropoutPrior,
    EnsemblePrior,
    GaussianNetworkPrior,
)

_VERSION = 1
# Part of the cache's keys: to be raised where a fit with the same settings gives another prior.
_FIT_VERSION = 3
_CLASSES: dict[str, Any] = {
    "sparse_gp": SparseGPPrior,
    "exact_gp": ExactGPPrior,
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


def chosen_class(config: PriorConfig, num_points: int) -> tuple[str, str]:
    """Which prior a configuration means for a number of points, and why.

    Returns:
        A name of `config.PRIORS` other than "gp", and a line for a person.

    Raises:
        UserError: if an exact Gaussian process would outgrow the machine's memory.
    """
    name, reason = config.prior, "as asked"
    if name == "gp":
        name = "exact_gp" if num_points <= LARGEST_EXACT_GP else "sparse_gp"
        limit = "at most" if name == "exact_gp" else "more than"
        reason = f"since {num_points:,} points are {limit} {LARGEST_EXACT_GP:,}"
    if name == "exact_gp":
        needed = ExactGPPrior.memory(num_points)
        if needed > (available := _memory()):
            raise UserError(
                f"an exact Gaussian process of {num_points:,} points takes {needed / 1e9:,.0f} GB "
                f"of memory, and there are {available / 1e9:,.0f}: use --prior=sparse_gp"
            )
        return name, f"exact Gaussian process on all {num_points:,} points, {reason}"
    if name == "sparse_gp":
        inducing = min(config.num_inducing_points, num_points)
        return name, f"sparse Gaussian process with {inducing:,} inducing points, {reason}"
    return name, f"{name.replace('_', ' ')}, {reason}"


def _memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def rescale(prior: BehavioralPrior, config: PriorConfig) -> BehavioralPrior:
    """A fitted prior with the configuration's deviation, factor and floor; a uniform has none."""
    if not prior.informative:
        return prior
    if config.fixed_scale is not None:
        return FixedScalePrior(prior, config.fixed_scale)
    if config.scale_factor != 1.0 or config.scale_floor > 0.0:
        return RescaledPrior(prior, config.scale_factor, config.scale_floor)
    return prior


def _fit_or_load(
    demonstrations: Demonstrations, config: PriorConfig, cache: pathlib.Path | None
) -> BehavioralPrior:
    if config.prior == "uniform":
        return UniformPrior(demonstrations.observation_size, demonstrations.action_size)
    name, _ = chosen_class(config, demonstrations.num_steps)
    config = dataclasses.replace(config, prior=name)
    if cache is None:
        return _fit(demonstrations, config)
    path = cache / f"{name}-{_key(demonstrations, config)}.npz"
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
    return _CLASSES[config.prior].fit(demonstrations.look_ahead(config.action_lookahead), config)


def default_cache() -> pathlib.Path:
    """`nppac_tf` in the user's cache folder (`XDG_CACHE_HOME`, or `~/.cache`)."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "nppac_tf"


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
    fitted = dataclasses.asdict(config.unscaled())
    libraries = ("gpflow", "tensorflow", "tensorflow_probability")
    fitter = [_VERSION, _FIT_VERSION, *map(importlib.metadata.version, libraries)]
    content = json.dumps([*fitter, demonstrations.fingerprint(), fitted], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
