import math

import fakes
import numpy as np
import pytest

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, TrainingConfig
from nppac_tf.environments import VectorEnvironment
from nppac_tf.evaluation.rollouts import as_policy_function
from nppac_tf.training.collector import Collector

HORIZON = 5


@pytest.fixture(scope="module")
def task():
    with fakes.point_task(HORIZON) as made:
        yield made


@pytest.fixture
def make(task):
    """Makes an agent, and a collector of a number of environments."""
    opened = []

    def make(num_environments, agent=None, **training):
        config = AgentConfig(**{"actor_layers": (4,), "critic_layers": (4,)} | (agent or {}))
        agent = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), config)
        training = TrainingConfig(
            **{"num_environments": num_environments, "num_greedy_environments": 0, "seed": 0}
            | training,
            steps_per_epoch=1000 * num_environments,
            eval_interval=1000 * num_environments,
            checkpoint_interval=1000 * num_environments,
            critic_warmup_steps=0,
        )
        opened.append(VectorEnvironment(task, num_environments, seed=0))
        return agent, Collector(agent, opened[-1], training)

    yield make
    for environments in opened:
        environments.close()


def test_collected_transitions_are_the_environments(make):
    _, collector = make(2)
    first, mean_return = collector.collect(6, 0)
    assert math.isnan(mean_return)  # no episode has ended yet
    observations, actions, rewards, discounts, next_observations, ends = first
    assert not ends.any()
    assert observations.shape == next_observations.shape == actions.shape == (6, 2)
    assert rewards.shape == discounts.shape == (6,)
    # Rows 0, 2, 4 are of one environment, and 1, 3, 5 of the other.
    np.testing.assert_array_equal(observations[2:], next_observations[:-2])
    np.testing.assert_allclose(
        next_observations, observations + 0.1 * np.clip(actions, -1, 1), atol=1e-6
    )
    # Episodes are cut off by the horizon, and none terminates: discount 1 throughout.
    second, mean_return = collector.collect(6, 6)
    np.testing.assert_array_equal(np.concatenate([discounts, second.discounts]), np.ones(12))
    assert mean_return == np.concatenate([rewards, second.rewards])[: 2 * HORIZON].sum() / 2
    np.testing.assert_array_equal(second.ends, [0, 0, 1, 1, 0, 0])
    assert np.abs(second.observations[4:] - second.next_observations[2:4]).max() > 0.1


def test_exploration_is_a_function_of_seed_and_step(make):
    def collected(seed, first_step):
        (_, actions, *_), _ = make(2, seed=seed)[1].collect(2, first_step)
        return actions

    np.testing.assert_array_equal(collected(0, 0), collected(0, 0))
    assert (collected(0, 0) != collected(1, 0)).all()
    assert (collected(0, 0) != collected(0, 2)).all()


@pytest.mark.parametrize("kind", [{}, {"actor": "network"}, {"actor": "network", "squash": True}])
def test_greedy_environments_take_the_mean_and_the_noise_of_the_others_is_spread(make, kind):
    settings = {"num_greedy_environments": 1, "exploration_spread": 3.0}
    agent, collector = make(4, kind, **settings)
    (observations, actions, *_), _ = collector.collect(4000, 0)
    means = as_policy_function(agent.collect_policy)(observations)
    np.testing.assert_allclose(actions[::4], means[::4], rtol=1e-5, atol=1e-6)
    distribution = agent.actor_network(observations)[0]
    means, gaussian = distribution.mode().numpy(), distribution
    if kind.get("squash"):  # Before the tanh, whose bounds here are -1 and 1.
        means, actions = np.arctanh(means), np.arctanh(np.clip(actions, -1 + 1e-6, 1 - 1e-6))
        gaussian = distribution.distribution
    noise = (actions - means) / gaussian.stddev().numpy()
    scales = noise.reshape(-1, 4, 2).std(axis=(0, 2))
    np.testing.assert_allclose(scales, [0, 1, 2, 3], atol=0.1)


def test_an_episode_that_restarts_has_no_return_yet(make):
    _, collector = make(2)
    collector.load_state_dict({"returns": [6.0, 4.0], "finished": [1.0]}, restarted=[1])
    assert collector.state_dict() == {"returns": pytest.approx([6.0, 0.0]), "finished": [1.0]}


def test_the_scores_of_greedy_episodes_are_returns_per_step(make):
    _, collector = make(3, num_greedy_environments=2)
    transitions, _ = collector.collect(3 * HORIZON, 0)
    returns = transitions.rewards.reshape(HORIZON, 3).sum(axis=0)
    np.testing.assert_allclose(collector.take_scores(), returns[:2] / HORIZON, rtol=1e-6)
    assert collector.take_scores() == []


def test_where_no_environment_is_greedy_all_episodes_are_judged(make):
    _, collector = make(3, num_greedy_environments=0)
    collector.collect(3 * HORIZON, 0)
    assert len(collector.take_scores()) == 3
