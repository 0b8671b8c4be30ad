import dataclasses

import fakes
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from nppac_tf.agents.batch import Batch, States
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig
from nppac_tf.priors import PriorStatistics
from nppac_tf.training.monitor import MONITOR_COLUMNS, Monitor, kl_by_component
from nppac_tf.training.replay import Replay

D, A, N = 3, 2, 64
SEED = tf.constant([1, 2])
STATES = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
NETWORK = AgentConfig(
    actor="network", actor_layers=(8,), critic_layers=(8,), num_critics=2, temperature=0.3
)
ANCHORED = dataclasses.replace(NETWORK, actor="anchored")
SAMPLED = dataclasses.replace(NETWORK, divergence="sampled")
SQUASHED = dataclasses.replace(NETWORK, squash=True)
CONFIGS = pytest.mark.parametrize(
    "config",
    [ANCHORED, NETWORK, SAMPLED, SQUASHED],
    ids=["anchored", "network", "sampled", "squashed"],
)


def agent_of(config, scale=0.5):
    task = fakes.FakeTask.of(D, (-1.0, -2.0), (1.0, 2.0))
    agent = NppacAgent.for_task(task, fakes.LinearPrior(D, A, scale=scale), config, seed=4)
    if agent.anchored:  # Away from the prior, where the KL has no gradient.
        for variable in agent.actor_network.trainable_variables:
            variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, [7, 8]))
    return agent


def replay_of(agent):
    replay = Replay(D, A, N)
    statistics = PriorStatistics(*agent.prior.statistics(tf.constant(STATES)))
    ones = np.ones(N, np.float32)
    replay.add(Batch(STATES, STATES[:, :A], ones, ones, STATES, statistics, statistics))
    return replay


def never(line):
    raise AssertionError(line)


@CONFIGS
def test_the_parts_of_the_gradient_add_up(config):
    agent = agent_of(config)
    states = States.at(STATES, agent.prior.statistics(tf.constant(STATES)))
    prior, value = agent.gradient_parts(states, agent._sample_seed("actor"))
    variables = agent.actor_network.trainable_variables
    with tf.GradientTape() as tape:
        loss, *_ = agent._actor_objective(states, None)
    for one, other, whole in zip(prior, value, tape.gradient(loss, variables), strict=True):
        np.testing.assert_allclose(one + other, whole, rtol=1e-3, atol=1e-5)
    assert all(float(tf.linalg.global_norm(part)) > 0 for part in (prior, value))


@CONFIGS
def test_the_kl_of_the_components_adds_up(config):
    agent = agent_of(config)
    states, statistics = tf.constant(STATES), agent.prior.statistics(tf.constant(STATES))
    parts = kl_by_component(agent, States.at(states, statistics), SEED)
    assert parts.shape == (N, A)
    policy, _ = agent.actor_network(states)
    if config.squash:
        actions = policy.sample(seed=SEED)
        whole = policy.log_prob(actions) - agent.prior.log_prob(statistics, actions)
    else:
        whole = agent.prior.kl_divergence(statistics, policy.mean(), policy.stddev())
    np.testing.assert_allclose(tf.reduce_sum(parts, axis=1), whole, rtol=1e-4, atol=1e-4)


def test_what_is_measured():
    agent = agent_of(NETWORK, scale=0.5)
    replay = replay_of(agent)
    agent.prior.prior.scale.assign(0.25)  # Demonstrations are asked now, the replay was before.
    figures = Monitor(agent, replay, STATES, never, seed=0).measure()
    assert set(figures) == {*MONITOR_COLUMNS, "monitor/kl_0", "monitor/kl_1"}
    assert figures["monitor/prior_scale_demonstrations"] == 0.25
    assert figures["monitor/prior_scale_visited"] == 0.5
    assert figures["monitor/narrow_share"] == 0.0
    policy, _ = agent.actor_network(tf.constant(STATES))
    location, _ = agent.prior.statistics(tf.constant(STATES))
    expected = stats.norm.entropy(0, 0.5) - stats.norm.entropy(0, policy.stddev()) - 0.5
    expected += (np.square(policy.stddev()) + np.square(policy.mean() - location)) / (2 * 0.25)
    # The states are a sample of a thousand, with replacement, of these.
    for component in range(A):
        mean, spread = expected[:, component].mean(), expected[:, component].std()
        assert figures[f"monitor/kl_{component}"] == pytest.approx(mean, abs=5 * spread / 32)


@pytest.mark.parametrize(("scale", "share"), [(0.009, 1.0), (0.011, 0.5), (0.021, 0.0)])
def test_the_share_of_narrow_components_is_of_the_actions_range(scale, share):
    agent = agent_of(NETWORK, scale=scale)  # The components' half ranges are 1 and 2.
    figures = Monitor(agent, replay_of(agent), None, lambda line: None, seed=0).measure()
    assert figures["monitor/narrow_share"] == share
    assert np.isnan(figures["monitor/prior_scale_demonstrations"])


def collapsed(notice):
    """A monitor of an agent whose prior is so narrow that the KL term takes over."""
    agent = agent_of(NETWORK, scale=0.01)
    return agent, Monitor(agent, replay_of(agent), STATES, notice, seed=0)


@pytest.mark.parametrize("flat", [False, True])
def test_a_collapse_is_reported_once_and_only_when_it_lasts(flat):
    lines = []
    agent, monitor = collapsed(lines.append)
    if flat:  # Critics without a slope.
        for critic in agent._critics:
            critic.set_weights([np.zeros_like(weight) for weight in critic.get_weights()])
    for expected in (0, 0, 1, 1, 1):
        figures = monitor.measure()
        assert len(lines) == expected
    assert figures["monitor/prior_gradient_norm"] > 10 * figures["monitor/value_gradient_norm"]
    (line,) = lines
    assert "the KL term has taken over" in line
    assert "scale is 0.01 where the agent goes, 0.01 on demonstrations" in line
    assert "--scale_floor" in line
    assert "\n" not in line


def test_a_collapse_is_not_reported_again_after_an_interruption():
    _, monitor = collapsed(never)
    monitor.dominated_epochs = 3  # As a checkpoint has it.
    monitor.measure()
    assert monitor.dominated_epochs == 4


@pytest.mark.parametrize("config", [NETWORK, ANCHORED])
def test_a_wide_prior_gives_no_warning(config):
    agent = agent_of(config, scale=1.0)
    monitor = Monitor(agent, replay_of(agent), STATES, never, seed=0)
    for _ in range(4):
        monitor.measure()
