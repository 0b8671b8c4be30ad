"""Small Gaussian-process priors to test with."""

import functools

import gpflow
import numpy as np
import tensorflow as tf

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.priors import GPPrior, SparseGPPrior

D, P, N = 3, 2, 100
NOISE = 0.1
CLASSES = [GPPrior, SparseGPPrior]
GPFLOW_KERNELS = {
    "rbf": gpflow.kernels.SquaredExponential,
    "matern12": gpflow.kernels.Matern12,
    "matern32": gpflow.kernels.Matern32,
    "matern52": gpflow.kernels.Matern52,
}


@functools.cache
def example_demonstrations():
    """N points of a smooth function with noise of scale NOISE, all in units other than 1."""
    rng = np.random.default_rng(1)
    states = np.concatenate([rng.normal(0, 0.3, (N - 20, D)), rng.normal(1, 1, (20, D))])
    first = np.tanh(3 * states[:, 0] - 2)
    second = np.sin(2 * states[:, 1]) + 0.5 * states[:, 2]
    actions = np.stack([first, second], axis=1) + NOISE * rng.normal(size=(N, P))
    observations, actions = states * [1.0, 2.0, 0.5] + [0.0, 10.0, -3.0], 5.0 + 3.0 * actions
    return Demonstrations(observations, actions, np.arange(10, N + 1, 10), "example")


@functools.cache
def fitted(cls, **keywords):
    """A prior of a class; by default all states are neighbors."""
    keywords = {"num_neighbors": N} | keywords
    if cls is SparseGPPrior:
        keywords = {"num_inducing_points": 30} | keywords
    return cls.fit(example_demonstrations(), **keywords)


def queries(size=25, seed=9):
    """Observations [size, D] at and beside the demonstrations (float32)."""
    observations = example_demonstrations().observations[:size]
    noise = np.random.default_rng(seed).normal(0, 0.5, size=(size, D))
    return tf.constant(observations + noise, tf.float32)


def scaled(prior, observations, actions=None):
    """Observations, and actions where given, in the units of the process."""
    arrays = prior.state()[1]
    states = (np.asarray(observations, np.float64) - arrays["observation_shift"]) / arrays[
        "observation_scale"
    ]
    if actions is None:
        return states
    return states, (actions - arrays["action_shift"]) / arrays["action_scale"]


def assert_same_prior(one, other):
    """Asserts that two priors are one to the bit, in what they predict and what is saved."""
    for a, b in zip(one.statistics(queries()), other.statistics(queries()), strict=True):
        np.testing.assert_array_equal(a, b)
    (settings, arrays), (other_settings, other_arrays) = one.state(), other.state()
    assert settings == other_settings
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        assert array.dtype == other_arrays[name].dtype
        np.testing.assert_array_equal(array, other_arrays[name])
