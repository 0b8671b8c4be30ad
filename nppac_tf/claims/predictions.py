"""Predictions of a prior at many states, as C2 and C5 need them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from nppac_tf.priors.base import BehavioralPrior
from nppac_tf.priors.gaussian_process import GaussianProcessPrior

_BATCH = 512


class Prediction(NamedTuple):
    """Predictions at N states, each [N, A] float64, in units of the action.

    Attributes:
        location: Mean of the action.
        mean_scale: Standard deviation of the posterior mean, sqrt(Sigma0), of a Gaussian process;
            the same as `action_scale` for other priors.
        action_scale: Standard deviation of an action, observation noise included.
    """

    location: np.ndarray
    mean_scale: np.ndarray
    action_scale: np.ndarray


Predict = Callable[[np.ndarray], Prediction]


def predictor(prior: BehavioralPrior) -> Predict:
    """Compiles the predictions of an unscaled prior; the result takes states [N, D]."""
    is_gp = isinstance(prior, GaussianProcessPrior)
    unit = prior.state()[1]["action_scale"] if is_gp else None
    compiled = tf.function(prior.predict if is_gp else prior.statistics, reduce_retracing=True)

    def predict(observations: np.ndarray) -> Prediction:
        parts = []
        for start in range(0, len(observations), _BATCH):
            outcome = compiled(tf.constant(observations[start : start + _BATCH], tf.float32))
            if is_gp:
                (location, scale), log_scale = outcome
                of_mean = np.exp(log_scale.numpy().astype(np.float64))[:, np.newaxis] * unit
                parts.append((location.numpy(), of_mean, scale.numpy()))
            else:
                location, scale = outcome
                parts.append((location.numpy(), scale.numpy(), scale.numpy()))
        return Prediction(*(np.concatenate(p).astype(np.float64) for p in zip(*parts, strict=True)))

    return predict
