"""The losses of N-PPAC: soft actor-critic, by hand, temperature, units of rewards."""

import math

import numpy as np
import pytest
import reference
import tensorflow as tf
from agent_batches import (
    INTERCEPTS,
    KINDS,
    LOCATION,
    SCALE,
    SLOPES,
    A,
    B,
    D,
    adam,
    assert_same_values,
    batch_of,
    by_hand,
    frozen_arguments,
    make,
    transitions,
    values_of,
)
from tf_agents.agents.sac import sac_agent

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.priors import UniformPrior


@pytest.mark.parametrize("squash", [True, False])
def test_with_a_uniform_prior_it_is_soft_actor_critic(squash):
    ours = NppacAgent(prior=UniformPrior(D, A), **frozen_arguments(squash))
    theirs = sac_agent.SacAgent(**frozen_arguments(squash))
    for agent in (ours, theirs):
        agent.initialize()
    assert_same_values(ours, theirs, rtol=0)

    first, step, last = transitions()
    weights = tf.constant(np.linspace(0.5, 1.5, B), tf.float32)
    critic_loss = theirs.critic_loss(
        first, step.action, last, tf.math.squared_difference, 0.9, 2.0, weights
    )
    tolerance = {"rtol": 2e-5, "atol": 1e-5}
    np.testing.assert_allclose(
        ours.critic_loss(first, step.action, last, weights=weights), critic_loss, **tolerance
    )
    for loss in ("actor_loss", "alpha_loss"):
        np.testing.assert_allclose(
            getattr(ours, loss)(first, weights=weights),
            getattr(theirs, loss)(first, weights=weights),
            **tolerance,
        )

    before = values_of(ours)
    for seed in range(5):
        experience = transitions(seed)
        our_losses, their_losses = ours.train(experience), theirs.train(experience)
        np.testing.assert_allclose(our_losses.loss, their_losses.loss, rtol=1e-4, atol=1e-4)
        for name in their_losses.extra._fields:
            np.testing.assert_allclose(
                getattr(our_losses.extra, name),
                getattr(their_losses.extra, name),
                rtol=1e-4,
                atol=1e-4,
            )
    for value, start in zip(values_of(ours), before, strict=True):
        assert np.abs(value - start).max() > 1e-3
    assert_same_values(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_critic_loss_takes_arguments_in_place_of_the_agents_own():
    ours = NppacAgent(prior=UniformPrior(D, A), **frozen_arguments(True))
    theirs = sac_agent.SacAgent(**frozen_arguments(True))
    first, step, last = transitions()
    arguments = (first, step.action, last, lambda y, q: tf.abs(y - q), 0.5, 3.0)
    np.testing.assert_allclose(
        ours.critic_loss(*arguments), theirs.critic_loss(*arguments), rtol=1e-4
    )
    zero = ours.critic_loss(*arguments[:4], 0.0, 0.0)
    np.testing.assert_allclose(zero, theirs.critic_loss(*arguments[:4], 0.0, 0.0), rtol=1e-4)


def sampled(agent, loss):
    """What pi draws for a loss in the first step, [B, A] float64."""
    distribution, _ = agent.actor_network(tf.zeros([B, D]))
    seed = agent._sample_seed(loss)
    actions, _ = distribution.experimental_sample_and_log_prob(seed=seed)
    return actions.numpy().astype(np.float64)


def divergence_at(divergence, observations, actions):
    prior_location = np.tile(observations.numpy().mean(axis=1, keepdims=True) + 0.3, (1, A))
    prior_scale = np.full(A, 0.5)
    if divergence == "sampled":
        return reference.gaussian_log_density(
            actions, LOCATION, SCALE
        ) - reference.gaussian_log_density(actions, prior_location, prior_scale)
    return np.array(
        [reference.gaussian_kl(LOCATION, SCALE, row, prior_scale) for row in prior_location]
    )


@pytest.mark.parametrize("divergence", ["sampled", "closed_form"])
def test_the_losses_are_those_computed_by_hand(divergence):
    target_kl = 0.8
    agent = by_hand(divergence, alpha_optimizer=adam(), target_kl=target_kl)
    # SacAgent does not initialize given target critics; they keep the values they were given.
    first, step, last = transitions()

    next_actions = sampled(agent, "critic")
    sums = step.action.numpy().sum(axis=1)
    expected = reference.sac_critic_loss(
        *(INTERCEPTS[i] + SLOPES[i] * sums for i in (0, 1)),
        last.reward.numpy(),
        last.discount.numpy(),
        3.0 + 1.0 * next_actions.sum(axis=1),
        3.1 + 0.8 * next_actions.sum(axis=1),
        divergence_at(divergence, last.observation, next_actions),
        alpha=0.2,
        gamma=0.9,
    )
    np.testing.assert_allclose(agent.critic_loss(first, step.action, last), expected, rtol=1e-5)

    actions = sampled(agent, "actor")
    expected = reference.sac_actor_loss(
        *(INTERCEPTS[i] + SLOPES[i] * actions.sum(axis=1) for i in (0, 1)),
        divergence_at(divergence, first.observation, actions),
        alpha=0.2,
    )
    np.testing.assert_allclose(agent.actor_loss(first), expected, rtol=1e-5)

    actions = sampled(agent, "temperature")
    expected = reference.sac_alpha_loss(
        divergence_at(divergence, first.observation, actions), math.log(0.2), target_kl
    )
    np.testing.assert_allclose(agent.alpha_loss(first), expected, rtol=1e-4)


# Temperature.


@pytest.mark.parametrize(("target_kl", "rises"), [(0.05, True), (500.0, False)])
def test_the_temperature_seeks_the_target(target_kl, rises):
    agent = by_hand("closed_form", alpha_optimizer=adam(), target_kl=target_kl)
    batch = batch_of(transitions(), agent.prior)
    infos = [agent.update(batch).extra for _ in range(3)]
    assert (float(infos[0].kl) > target_kl) == rises
    alphas = [0.2, *(float(info.alpha) for info in infos)]
    assert all(np.diff(alphas) > 0) if rises else all(np.diff(alphas) < 0)


def test_without_an_optimizer_the_temperature_stays_where_it_is_set():
    agent = make(temperature=0.3)
    assert not agent.tunes_temperature
    assert agent.temperature == pytest.approx(0.3)
    agent.temperature = 0.1
    info = agent.train(transitions()).extra
    assert float(info.alpha) == pytest.approx(0.1) == agent.temperature
    assert float(info.alpha_loss) == 0
    assert "alpha_optimizer" not in agent.learned


# Rewards of any scale.


@pytest.mark.parametrize(("kind", "scale"), [(KINDS[0], 1000.0), (KINDS[4], 0.001)])
def test_rewards_of_another_scale_give_the_same_policy(kind, scale):
    agents = [make(learning_rate=1e-2, target_kl=1.0, **kind) for _ in range(2)]
    batch = batch_of(transitions(), agents[0].prior)
    q_values = []
    for agent, factor in zip(agents, (1.0, scale), strict=True):
        own = batch._replace(rewards=factor * batch.rewards)
        agent.calibrate_rewards(own.rewards.numpy())
        q_values.append([float(agent.update(own).extra.q_value) for _ in range(3)])
    assert_same_values(*agents, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(q_values[1], scale * np.array(q_values[0]), rtol=1e-3)
    assert np.abs(values_of(agents[0])[0] - values_of(make(**kind))[0]).max() > 1e-3


def test_the_reward_scale_is_given_or_that_of_the_first_rewards_that_are_not_zero():
    agent = make()
    assert agent.reward_scale is None
    for rewards in (np.zeros(3), np.zeros(0), np.array([0.5, -4.0]), np.array([9.0])):
        agent.calibrate_rewards(rewards)
    assert agent.reward_scale == 4.0
    given = make(reward_scale=2.0)
    given.calibrate_rewards(np.array([9.0]))
    assert given.reward_scale == 2.0
    assert "reward_scale" in given.learned
