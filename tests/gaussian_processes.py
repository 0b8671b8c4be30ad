"""Gaussian-process priors to test with: of a quick fit, and of random parameters."""

import functools

import numpy as np
import tensorflow as tf

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.priors import ExactGPPrior, SparseGPPrior

D, P = 3, 2
NOISE = 0.1
CLASSES = [ExactGPPrior, SparseGPPrior]
QUICK = PriorConfig(num_inducing_points=60, num_hyperparameter_points=60, max_fit_iterations=15)


def demonstrated(observations, seed=0):
    """Actions of a smooth function of the observations, with noise of deviation NOISE.

    They are in other units than 1, and most observations give a low first action, so that the
    constant mean of the process is not that of the data.
    """
    noise = NOISE * np.random.default_rng(seed).normal(size=(len(observations), P))
    first = np.tanh(3 * observations[:, 0] - 2)
    second = np.sin(2 * observations[:, 1]) + 0.5 * observations[:, 2]
    return 5.0 + 3.0 * (np.stack([first, second], axis=1) + noise)


@functools.cache
def example_demonstrations():
    """Those that the priors of `fitted_examples` are fitted to."""
    rng = np.random.default_rng(1)
    observations = np.concatenate([rng.normal(0, 0.3, (80, D)), rng.normal(1, 1, (20, D))])
    observations = observations * [1.0, 2.0, 0.5] + [0.0, 10.0, -3.0]
    actions = demonstrated((observations - [0.0, 10.0, -3.0]) / [1.0, 2.0, 0.5])
    return Demonstrations.from_episodes(
        [(observations[:50], actions[:50]), (observations[50:], actions[50:])]
    )


def len_of(demonstrations):
    return len(demonstrations.observations)


@functools.cache
def fitted_examples():
    """A prior of each class."""
    return {cls: cls.fit(example_demonstrations(), QUICK) for cls in CLASSES}


def made_up(cls, kernel, observation_noise=True, seed=0, num_centers=40):
    """A prior of random parameters, which no fit has tuned."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_centers, D))
    arrays = {
        "kernel_variance": np.array(1.7),
        "lengthscales": np.array([0.8, 1.5, 2.5]),
        "noise_variance": np.array(0.05),
        "mean": np.array([0.4, -0.9]),
        "observation_shift": np.array([1.0, -2.0, 0.0]),
        "observation_scale": np.array([2.0, 0.5, 1.0]),
        "action_shift": np.array([0.3, -0.1]),
        "action_scale": np.array([0.2, 3.0]),
        "centers": centers,
    }
    if cls is ExactGPPrior:
        arrays["actions"] = rng.normal(size=(num_centers, P))
    else:
        root = 0.2 * rng.normal(size=(num_centers, num_centers))
        arrays["q_mean"] = rng.normal(size=(num_centers, P))
        arrays["q_covariance"] = 0.05 * np.eye(num_centers) + root @ root.T
    settings = {"kernel": kernel, "observation_noise": observation_noise}
    return cls.from_state(settings, arrays)


def queries(size=25, seed=9):
    """Observations [size, D]."""
    return np.random.default_rng(seed).normal(0, 1.5, size=(size, D))


def same_to_the_bit(one, other):
    """Asserts that two priors are one, in what they predict and in what is saved."""
    observations = tf.constant(queries(), tf.float32)
    for a, b in zip(one.statistics(observations), other.statistics(observations), strict=True):
        np.testing.assert_array_equal(a, b)
    settings, arrays = one.state()
    other_settings, other_arrays = other.state()
    assert settings == other_settings
    assert arrays.keys() == other_arrays.keys()
    for name, array in arrays.items():
        assert array.dtype == other_arrays[name].dtype
        np.testing.assert_array_equal(array, other_arrays[name])
