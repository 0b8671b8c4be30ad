"""The whole loop of updates, compiled by XLA, is the plain one: both shapes, every prior."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability.python.internal import samplers

from benchmarks.prior_costs import synthetic_demonstrations
from benchmarks.shapes import SHAPES
from benchmarks.updates import project_agent
from nppac_tf import priors
from nppac_tf.config import PRIORS, PriorConfig, TrainingConfig
from nppac_tf.training.learner import Learner
from nppac_tf.training.replay import Replay
from nppac_tf.training.transitions import Transitions

BATCH_SIZE = 64
QUICK = {("A", "uniform"), ("A", "gp"), ("B", "sparse_gp")}


@functools.cache
def fitted(shape, prior):
    sizes = SHAPES[shape].observation_size, SHAPES[shape].action_size
    config = PriorConfig(
        prior=prior,
        num_inducing_points=20,
        network_epochs=1,
        network_layers=(8,),
        scale_floor=0.01,
    )
    return priors.fit_prior(synthetic_demonstrations(100, *sizes), config)


def losses(shape, prior, xla):
    """After three updates: each loss, and the actor's weights."""
    sizes = SHAPES[shape]
    agent = project_agent(sizes, fitted(shape, prior), "float32")
    replay = Replay(sizes.observation_size, sizes.action_size, 100)
    learner = Learner(agent, replay, TrainingConfig(batch_size=BATCH_SIZE, xla=xla))
    rng = np.random.default_rng(0)
    states = rng.standard_normal((101, sizes.observation_size)).astype(np.float32)
    actions = rng.uniform(-1, 1, (100, sizes.action_size)).astype(np.float32)
    rewards, discounts = rng.standard_normal(100).astype(np.float32), np.ones(100, np.float32)
    ends = np.zeros(100, bool)
    transitions = Transitions(states[:-1], actions, rewards, discounts, states[1:], ends)
    replay.add(learner.with_statistics(transitions, stride=1))
    ((_, found),) = learner.update(3, learn_policy=True)
    return found, [weight.numpy() for weight in agent.actor_network.trainable_variables]


def reshaped(noise, shape, *_, **__):
    return tf.reshape(tf.constant(noise), shape)


@pytest.mark.parametrize(
    ("shape", "prior"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(SHAPES, PRIORS)
    ],
)
def test_the_loop_of_updates_compiles(shape, prior, monkeypatch):
    fitted(shape, prior)  # Before the random numbers are replaced.
    # XLA has random numbers of its own: give both the same.
    size = BATCH_SIZE * SHAPES[shape].action_size
    noise = np.random.default_rng(1).standard_normal(size).astype(np.float32)
    rows = tf.range(BATCH_SIZE, dtype=tf.int64)
    monkeypatch.setattr(samplers, "normal", functools.partial(reshaped, noise))
    monkeypatch.setattr(tf.random, "stateless_uniform", lambda *_, **__: rows)
    plain, plain_weights = losses(shape, prior, "off")
    compiled, weights = losses(shape, prior, "on")
    assert compiled == pytest.approx(plain, rel=1e-3, abs=1e-4)
    for one, other in zip(weights, plain_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
