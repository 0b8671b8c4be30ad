"""Updates of N-PPAC: critics, imitation, averaging, what is reported and refused."""

import itertools

import fakes
import numpy as np
import pytest
import reference
import tensorflow as tf
from agent_batches import (
    ACTION_SPEC,
    HIGH,
    KINDS,
    LOCATION,
    LOW,
    OBSERVATION_SPEC,
    SCALE,
    A,
    B,
    D,
    adam,
    assert_same_values,
    batch_of,
    by_hand,
    frozen_arguments,
    make,
    networks_of,
    transitions,
    values_of,
)
from tensorflow_probability.python.internal import samplers
from tf_agents.trajectories import time_step as ts

from nppac_tf.agents.batch import States
from nppac_tf.agents.critics import CriticEnsemble, CriticNetwork
from nppac_tf.agents.nppac import NppacAgent, NppacLossInfo
from nppac_tf.priors import PriorStatistics, UniformPrior

# Ensembles of critics.


STATES = States.at(tf.ones([B, D]), PriorStatistics(tf.zeros([B, A]), tf.ones([B, A])))


def q_values(agent, critics):
    return agent._q_values(critics, STATES, tf.ones([B, A])).numpy()


def test_each_member_has_weights_and_a_target_of_its_own():
    agent = make(num_critics=5, num_target_critics=2)
    online = q_values(agent, agent._critics)
    assert online.shape == (5, B)
    assert len(np.unique(online[:, 0])) == 5
    np.testing.assert_array_equal(online, q_values(agent, agent._target_critics))
    batch, before = batch_of(transitions(), agent.prior), values_of(agent)
    for _ in range(2):
        agent.update(batch)
    assert all(
        (value != start).any()
        for value, start in zip(values_of(agent)[:-1], before[:-1], strict=True)
    )
    moved = q_values(agent, agent._target_critics)
    assert (moved != online).all()
    assert (moved != q_values(agent, agent._critics)).all()


def test_the_targets_are_the_least_of_a_few_members_drawn_anew():
    agent = make(num_critics=4, num_target_critics=2)
    members = np.sort(q_values(agent, agent._target_critics)[:, 0])
    seen = set()
    for _ in range(40):
        value = float(agent._target_value(STATES, tf.ones([B, A]))[0])
        seen.add(int(np.argmin(np.abs(members - value))))
        agent.train_step_counter.assign_add(1)
    # The least of two of four is never the greatest of the four.
    assert seen == {0, 1, 2}


@pytest.mark.parametrize(("actor_value", "reduce"), [("min", np.min), ("mean", np.mean)])
def test_what_the_actor_maximizes(actor_value, reduce):
    agent = make(num_critics=3, actor_value=actor_value)
    expected = reduce(q_values(agent, agent._critics), axis=0)
    np.testing.assert_allclose(agent._value(STATES, tf.ones([B, A])), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2])
def test_critics_given_alone_get_twins_of_other_weights(size):
    spec = (OBSERVATION_SPEC, ACTION_SPEC)
    critics = [CriticNetwork(spec, (8,), False, seed=i) for i in range(size)]
    critic = critics[0] if size == 1 else CriticEnsemble(critics)
    arguments = frozen_arguments(True) | {"critic_network": critic, "critic_network_2": None}
    agent = NppacAgent(prior=UniformPrior(D, A), **arguments)
    assert len(np.unique(q_values(agent, agent._critics)[:, 0])) == 2 * size


# Updates.


def test_critics_can_learn_alone():
    agent, twin, fresh = make(), make(), make()
    batch = batch_of(transitions(), agent.prior)
    loss = agent.update_critics(batch)
    np.testing.assert_allclose(loss, twin.update(batch).extra.critic_loss, rtol=1e-6)
    assert int(agent.train_step_counter) == 1
    for index, (one, other) in enumerate(zip(networks_of(agent), networks_of(twin), strict=True)):
        expected = other if index else networks_of(fresh)[0]
        for a, b in zip(one.variables, expected.variables, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_actor_can_learn_from_states_of_its_own():
    prior = fakes.LinearPrior(D, A)
    one, other, third = (make(prior) for _ in range(3))
    critics, policy = (batch_of(transitions(seed), prior) for seed in (0, 1))
    one.update(critics, policy_batch=policy)
    other._improve_critics(critics, None)
    other._improve_policy(policy, None, True)
    third.update(critics)
    for a, b in zip(values_of(one)[:4], values_of(other)[:4], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    differ = [
        np.abs(a - b).max() for a, b in zip(values_of(one)[:4], values_of(third)[:4], strict=True)
    ]
    assert max(differ) > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_with_kept_statistics_is_training_on_experience(kind):
    prior = fakes.LinearPrior(D, A)
    one, other = (make(prior, target_kl=2.0, **kind) for _ in range(2))
    assert_same_values(one, other, rtol=0)
    before, prior_before = values_of(one), (float(prior.offset), float(prior.scale))
    for seed in range(3):
        experience = transitions(seed)
        from_batch = one.update(batch_of(experience, one.prior))
        from_experience = other.train(experience)
        assert isinstance(from_experience.extra, NppacLossInfo)
        for a, b in zip(tf.nest.flatten(from_batch), tf.nest.flatten(from_experience), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert_same_values(one, other, rtol=1e-3, atol=1e-5)
    assert all((value != start).any() for value, start in zip(values_of(one), before, strict=True))
    assert int(one.train_step_counter) == int(other.train_step_counter) == 3
    assert (float(prior.offset), float(prior.scale)) == prior_before


@pytest.mark.parametrize("actor", ["anchored", "network"])
def test_what_is_learned_is_all_but_the_prior(actor):
    agent = make(target_kl=1.0, actor=actor)
    agent.update(batch_of(transitions(), agent.prior))
    learned = set()
    for part in agent.learned.values():
        variables = getattr(part, "variables", part)
        learned |= {
            id(v) for v in tf.nest.flatten(variables() if callable(variables) else variables)
        }
    assert all(id(v) in learned for network in networks_of(agent) for v in network.variables)
    assert id(agent._log_alpha) in learned
    assert not any(id(v) in learned for v in agent.prior.variables)


def test_target_critics_follow_at_the_update_rate():
    agent = make(target_update_rate=0.1)
    start = [[v.numpy() for v in target.variables] for target in agent._target_critics]
    agent.update(batch_of(transitions(), agent.prior))
    for critic, target, values in zip(agent._critics, agent._target_critics, start, strict=True):
        for online, following, value in zip(
            critic.variables, target.variables, values, strict=True
        ):
            np.testing.assert_allclose(following, 0.9 * value + 0.1 * online, rtol=1e-5, atol=1e-7)


def test_targets_may_be_updated_less_often():
    arguments = frozen_arguments(True) | {"target_update_period": 2}
    agent = NppacAgent(prior=UniformPrior(D, A), **arguments)
    agent.initialize()
    moments = [values_of(agent)[-3]]
    for _ in range(4):
        agent.train(transitions())
        moments.append(values_of(agent)[-3])
    moved = [bool((a != b).any()) for a, b in itertools.pairwise(moments)]
    assert moved == [False, True, False, True]


def test_the_twin_critics_of_a_task_differ_and_seeds_repeat():
    one, same, other = make(seed=1), make(seed=1), make(seed=2)
    assert_same_values(one, same, rtol=0)
    kernels = [
        critic.trainable_variables[0].numpy() for agent in (one, other) for critic in agent._critics
    ]
    for i, a in enumerate(kernels):
        assert all((a != b).mean() > 0.9 for b in kernels[:i])
    for agent in (one, same):
        agent.train(transitions())
    assert_same_values(one, same, rtol=0)


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[3], KINDS[4]])
def test_an_update_compiled_by_xla_is_the_plain_one(kind, monkeypatch):
    noise = tf.constant(np.random.default_rng(0).normal(size=B * A), tf.float32)

    def normal(shape, *_, **__):
        return tf.reshape(noise, shape)

    # XLA has random numbers of its own: give both the same.
    monkeypatch.setattr(samplers, "normal", normal)
    prior = fakes.LinearPrior(D, A)
    compiled, plain = (make(prior, seed=5, target_kl=2.0, **kind) for _ in range(2))
    update = tf.function(compiled.update, jit_compile=True)
    batch = batch_of(transitions(), prior)
    for _ in range(3):
        from_compiled, from_plain = update(batch), plain.update(batch)
        for a, b in zip(tf.nest.flatten(from_compiled), tf.nest.flatten(from_plain), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert_same_values(compiled, plain, rtol=1e-3, atol=1e-4)


# Imitation and averaging.


@pytest.mark.parametrize("kind", [KINDS[2], KINDS[3]])
def test_pretraining_brings_a_network_actor_to_the_prior(kind):
    prior = fakes.LinearPrior(D, A, offset=0.2, scale=0.25)
    agent = make(prior, **kind, actor_layers=(32,))
    optimizer = adam()
    observations = 0.5 * tf.random.stateless_normal([256, D], seed=[0, 0])
    statistics = prior.statistics(observations)
    critics = [v.numpy() for v in agent._critic_network_1.variables]

    @tf.function
    def pretrain(step):
        states = States.at(observations, statistics)
        return agent.imitate(states, tf.stack([7, step]), optimizer)

    kls = [float(pretrain(tf.constant(step))) for step in range(300)]
    assert kls[0] > 0.5
    assert np.mean(kls[-20:]) < 0.1
    distribution, _ = agent.actor_network(observations)
    np.testing.assert_allclose(distribution.mean(), statistics.location, atol=0.2)
    np.testing.assert_allclose(distribution.stddev(), statistics.scale, rtol=0.3)
    # The critics, and the optimizer of the actor, start afresh.
    assert int(agent.train_step_counter) == 0
    for variable, value in zip(agent._critic_network_1.variables, critics, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert not any(np.any(v) for v in agent._actor_optimizer.variables())


@pytest.mark.parametrize("averaging", [1, 4])
def test_the_policy_averages_the_actor(averaging):
    agent = make(seed=5)
    expected = [weight.numpy() for weight in agent.actor_network.variables]
    for seed in range(5):
        agent.update(batch_of(transitions(seed), agent.prior), averaging=averaging)
        for value, weight in zip(expected, agent.actor_network.variables, strict=True):
            value += (weight.numpy() - value) / averaging
    for value, weight in zip(expected, agent.deployed_actor.variables, strict=True):
        np.testing.assert_allclose(weight, value, rtol=1e-5, atol=1e-7)

    states = transitions().time_step
    for policy, network in (
        (agent.policy, agent.deployed_actor),
        (agent.collect_policy, agent.actor_network),
    ):
        np.testing.assert_array_equal(
            policy.distribution(states).action.mode(), network(states.observation)[0].mode()
        )
    for average in agent.deployed_actor.variables:
        average.assign(average + 1e6)
    agent.restart_average()
    for weight, average in zip(
        agent.actor_network.variables, agent.deployed_actor.variables, strict=True
    ):
        np.testing.assert_array_equal(average, weight)


def test_without_averaging_the_actor_itself_is_deployed():
    agent = NppacAgent(prior=UniformPrior(D, A), **frozen_arguments(True))
    assert agent.deployed_actor is agent.actor_network


# What is reported, and what is refused.


def test_what_is_reported():
    agent = by_hand("closed_form")
    batch = batch_of(transitions(), agent.prior)
    batch = batch._replace(prior=PriorStatistics(batch.prior.location, 2 * batch.prior.scale))
    expected_kl = np.mean(
        [
            reference.gaussian_kl(LOCATION, SCALE, row.astype(np.float64), np.full(A, 1.0))
            for row in batch.prior.location.numpy()
        ]
    )
    info = agent.update(batch).extra
    assert float(info.prior_scale) == pytest.approx(1.0)
    assert float(info.kl) == pytest.approx(expected_kl, rel=1e-5)
    # One sample of minus log pi, near the entropy of pi.
    entropy = np.sum(np.log(SCALE) + 0.5 * np.log(2 * np.pi * np.e))
    assert float(info.entropy) == pytest.approx(entropy, abs=1.0)
    assert float(info.actor_gradient_norm) > 0
    assert float(info.actor_loss) == pytest.approx(0.2 * expected_kl - float(info.q_value), 1e-4)


def construct(**kwargs):
    arguments = {**frozen_arguments(True), "prior": fakes.LinearPrior(D, A), **kwargs}
    return NppacAgent(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"divergence": "reverse"}, "divergence must be one of auto, sampled, .*; got 'reverse'"),
        ({"target_kl": 1.0}, "excludes target_entropy; got 1.0 and -1.5"),
        (
            {"target_kl": 1.0, "target_entropy": None, "alpha_optimizer": None},
            "target_kl needs an alpha_optimizer",
        ),
        ({"target_kl": 0.0, "target_entropy": None}, "target_kl must be positive"),
        ({"actor_value": "max"}, "actor_value must be one of min, mean; got 'max'"),
        ({"num_target_critics": 0}, "num_target_critics must be at least 1; got 0"),
        ({"reward_scale": -1.0}, "reward_scale must be positive and finite; got -1.0"),
        ({"prior": None}, r"prior must be a BehavioralPrior .*; got NoneType"),
        ({"prior": UniformPrior(D + 1, A)}, r"action sizes \(3, 2\); got \(4, 2\)"),
        ({"prior": UniformPrior(D, A + 1)}, r"action sizes \(3, 2\); got \(3, 3\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        construct(**arguments)


def test_a_target_kl_is_minus_a_target_entropy():
    assert construct(target_entropy=None, target_kl=1.25)._target_entropy == -1.25


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_acts_within_the_tasks_bounds(kind):
    agent = make(**kind)
    time_steps = ts.restart(100 * tf.random.stateless_normal([200, D], [0, 0]), batch_size=200)
    for policy in (agent.policy, agent.collect_policy):
        actions = policy.action(time_steps).action.numpy()
        assert (actions >= LOW).all()
        assert (actions <= HIGH).all()


def test_the_closed_form_needs_a_plain_gaussian():
    agent = construct(divergence="closed_form")
    states = States.at(tf.zeros([2, D]), agent.prior.statistics(tf.zeros([2, D])))
    with pytest.raises(ValueError, match=r"auto or sampled unless .*; got FrozenSamples"):
        agent.imitate(states, tf.constant([0, 0]), adam())
