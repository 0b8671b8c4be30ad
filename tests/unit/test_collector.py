import math

import fakes
import numpy as np
import pytest

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig
from nppac_tf.environments import VectorEnvironment
from nppac_tf.evaluation.rollouts import as_policy_function
from nppac_tf.priors import UniformPrior
from nppac_tf.training.collector import Collector

HORIZON = 5
TINY = AgentConfig(actor_layers=(4,), critic_layers=(4,), target_kl=1.0, policy_averaging=0)


@pytest.fixture(scope="module")
def task():
    with fakes.point_task(HORIZON) as made:
        yield made


def test_collected_transitions_are_the_environments(task):
    agent = NppacAgent.for_task(task, UniformPrior(2, 2), TINY)
    environments = VectorEnvironment(task, 2, seed=0)
    collector = Collector(agent, environments, seed=0)
    first, mean_return = collector.collect(6, 0)
    assert math.isnan(mean_return)  # no episode has ended yet
    observations, actions, rewards, discounts, next_observations, ends = first
    assert not ends.any()
    assert observations.shape == next_observations.shape == (6, 2)
    assert actions.shape == (6, 2)
    assert rewards.shape == discounts.shape == (6,)
    # Rows 0, 2, 4 are of one environment, and 1, 3, 5 of the other.
    np.testing.assert_array_equal(observations[2:], next_observations[:-2])
    np.testing.assert_allclose(
        next_observations, observations + 0.1 * np.clip(actions, -1, 1), atol=1e-6
    )
    # Episodes are cut off by the horizon, and none terminates: discount 1 throughout.
    second, mean_return = collector.collect(6, 6)
    np.testing.assert_array_equal(np.concatenate([discounts, second[3]]), np.ones(12))
    assert mean_return == np.concatenate([rewards, second[2]])[: 2 * HORIZON].sum() / 2
    np.testing.assert_allclose(second[4][2:4], second[0][2:4] + 0.1 * second[1][2:4], atol=1e-6)
    assert np.abs(second[0][4:] - second[4][2:4]).max() > 0.1  # a new episode
    environments.close()


def test_exploration_is_a_function_of_seed_and_step(task):
    def collected(seed, first_step):
        agent = NppacAgent.for_task(task, UniformPrior(2, 2), TINY)
        environments = VectorEnvironment(task, 2, seed=0)
        collector = Collector(agent, environments, seed)
        (_, actions, *_), _ = collector.collect(2, first_step)
        return actions

    np.testing.assert_array_equal(collected(0, 0), collected(0, 0))
    assert (collected(0, 0) != collected(1, 0)).all()
    assert (collected(0, 0) != collected(0, 2)).all()


def test_greedy_environments_take_the_mean_action(task):
    agent = NppacAgent.for_task(task, UniformPrior(2, 2), TINY)
    environments = VectorEnvironment(task, 3, seed=0)
    collector = Collector(agent, environments, seed=0, num_greedy=1)
    (observations, actions, *_), _ = collector.collect(3, 0)
    means = as_policy_function(agent.policy)(observations)
    np.testing.assert_allclose(actions[0], means[0], rtol=1e-6)
    assert (np.abs(actions[1:] - means[1:]) > 1e-3).all()
    environments.close()


@pytest.mark.parametrize("squash", [False, True])
def test_the_noise_of_exploring_environments_is_spread(task, squash):
    config = AgentConfig(actor_layers=(4,), critic_layers=(4,), squash=squash, divergence="sampled")
    agent = NppacAgent.for_task(task, UniformPrior(2, 2), config)
    environments = VectorEnvironment(task, 4, seed=0)
    collector = Collector(agent, environments, seed=0, num_greedy=1, spread=3.0)
    (observations, actions, *_), _ = collector.collect(20_000, 0)
    means = as_policy_function(agent.collect_policy)(observations)
    distribution = agent.actor_network(observations)[0]
    if squash:  # Before the tanh, whose bounds here are -1 and 1.
        means, actions = np.arctanh(means), np.arctanh(np.clip(actions, -1 + 1e-6, 1 - 1e-6))
        distribution = distribution.distribution
    noise = (actions - means) / distribution.stddev().numpy()
    deviations = noise.reshape(-1, 4, 2).std(axis=(0, 2))
    np.testing.assert_allclose(deviations, [0, 1, 2, 3], atol=0.05)
    environments.close()


def test_an_episode_that_begins_anew_has_no_return_yet(task):
    agent = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), TINY)
    environments = VectorEnvironment(task, 2, seed=0)
    collector = Collector(agent, environments, seed=0)
    collector.load_state_dict({"returns": [6.0, 4.0], "finished": [1.0]}, begun_anew=[1])
    assert collector.state_dict() == {"returns": pytest.approx([6.0, 0.0]), "finished": [1.0]}
    environments.close()
