import fakes
import numpy as np
import pytest
import reference
import tensorflow as tf

from nppac_tf.agents.batch import Batch
from nppac_tf.agents.factory import AwacAgent, CloningAgent, make_agent
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig
from nppac_tf.priors import PriorStatistics, UniformPrior

D, A, B = 3, 2, 16
TINY = {
    "actor": "network",
    "actor_layers": (8,),
    "critic_layers": (8,),
    "divergence": "sampled",
    "num_critics": 2,
}


def batch(prior):
    rng = np.random.default_rng(0)
    observations, successors = (tf.constant(rng.normal(size=(B, D)), tf.float32) for _ in range(2))
    actions = tf.constant(rng.uniform([-1, -2], [1, 3], size=(B, A)), tf.float32)
    rewards = tf.constant(rng.normal(size=B), tf.float32)
    discounts = tf.constant(np.arange(B) % 3 > 0, tf.float32)
    statistics = (prior.statistics(states) for states in (observations, successors))
    return Batch(observations, actions, rewards, discounts, successors, *statistics)


def make(algorithm, prior=None, **kwargs):
    config = AgentConfig(algorithm=algorithm, **(TINY | kwargs))
    return make_agent(fakes.FakeTask.of(), prior or fakes.LinearPrior(D, A), config)


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [("nppac", NppacAgent), ("awac", AwacAgent), ("cloning", CloningAgent)],
)
def test_an_algorithm_is_its_agent(algorithm, kind):
    assert type(make(algorithm)) is kind


def test_awac_weighs_the_replays_actions_by_their_advantage():
    agent = make("awac", temperature=0.5)
    given = batch(agent.prior)
    policy, _ = agent.actor_network(given.observations)
    value = agent._value(given.states, given.actions).numpy().astype(np.float64)
    baseline = agent._value(given.states, policy.mean()).numpy().astype(np.float64)
    log_likelihood = reference.gaussian_log_density(
        given.actions.numpy().astype(np.float64), policy.mean().numpy(), policy.stddev().numpy()
    )
    weights = np.exp(np.minimum(value - baseline, 0.5) / 0.5)
    expected = -np.mean(weights / weights.mean() * log_likelihood)
    expected += 1e-4 * sum(
        np.sum(np.square(weight)) / 2 for weight in agent.actor_network.trainable_variables
    )
    losses = agent._improve_policy(given, None, learn_policy=False)
    np.testing.assert_allclose(losses.actor_loss, expected, rtol=1e-4)


def test_awacs_actor_heeds_the_weights_of_transitions():
    agent = make("awac")
    given = batch(agent.prior)

    def loss(weights):
        return agent._improve_policy(given, weights, learn_policy=False).actor_loss

    plain, doubled = (loss(weights) for weights in (None, 2 * tf.ones(B)))
    nothing = loss(tf.zeros(B))  # What is left is the decay of the actor's weights.
    np.testing.assert_allclose(doubled - nothing, 2 * (plain - nothing), rtol=1e-5)


def test_awacs_scale_is_one_learned_number_for_each_action_component():
    agent = make("awac")
    policy, _ = agent.actor_network(batch(agent.prior).observations)
    half_range = np.array([1.0, 2.5])
    np.testing.assert_allclose(policy.stddev(), np.tile(np.exp(-3.0) * half_range, (B, 1)), 1e-5)
    before = policy.stddev().numpy()
    agent._improve_policy(batch(agent.prior), None, learn_policy=True)
    after = agent.actor_network(batch(agent.prior).observations)[0].stddev().numpy()
    assert (np.ptp(after, axis=0) == 0).all()
    assert (after != before).all()


def test_awacs_targets_have_no_entropy_term():
    agent = make("awac", temperature=5.0)
    given = batch(agent.prior)
    next_actions, divergence, _ = agent._actions_and_kl(
        given.next_states, agent._sample_seed("critic"), training=False
    )
    assert (np.abs(divergence) > 0.1).any()
    target_q = agent._q_values(agent._target_critics, given.next_states, next_actions)
    target = given.rewards + agent.discount * given.discounts * np.min(target_q, axis=0)
    q = agent._q_values(agent._critics, given.states, given.actions).numpy()
    expected = np.square(q - target).sum(axis=0).mean()
    np.testing.assert_allclose(agent._critic_objective(given, None), expected, rtol=1e-5)


def test_so_has_an_agent_whose_targets_leave_the_kl_out():
    agent = make("nppac", temperature=5.0, kl_in_target=False)
    plain = make("nppac", temperature=1e-12)
    given = batch(agent.prior)
    np.testing.assert_allclose(
        agent._critic_objective(given, None), plain._critic_objective(given, None), rtol=1e-5
    )


@pytest.mark.parametrize("squash", [True, False])
def test_awac_moves_toward_the_better_of_two_actions(squash):
    """Critics that prefer one of two actions make the policy imitate that one."""
    agent = make(
        "awac",
        prior=UniformPrior(D, A),
        squash=squash,
        temperature=0.1,
        learning_rate=1e-2,
        discount=0.0,
    )
    rng = np.random.default_rng(0)
    size = 64
    observations = tf.constant(rng.normal(size=(size, D)), tf.float32)
    good = np.arange(size) % 4 == 0
    actions = np.where(good[:, None], [0.9, 2.9], [-1.0, -2.0]).astype(np.float32)
    nothing = PriorStatistics(tf.zeros([size, A]), tf.ones([size, A]))
    given = Batch(
        observations,
        tf.constant(actions),
        tf.constant(good, tf.float32),
        tf.zeros([size]),
        observations,
        nothing,
        nothing,
    )
    update = tf.function(agent.update)
    for _ in range(400):
        info = update(given).extra
    assert all(np.isfinite(float(value)) for value in info)
    modes = agent.actor_network(observations)[0].mode().numpy()
    np.testing.assert_allclose(modes.mean(axis=0), [0.9, 2.9], atol=0.4)


def test_a_clone_acts_as_the_prior_and_learns_nothing():
    agent = make("cloning", learning_rate=0.1, actor="anchored")
    given = batch(agent.prior)
    policy, _ = agent.actor_network(given.observations)
    location, scale = agent.prior.statistics(given.observations)
    np.testing.assert_allclose(policy.mode(), location, rtol=1e-6)
    np.testing.assert_allclose(policy.stddev(), scale, rtol=1e-6)
    assert agent.actor_network.variables == []  # Not the prior's: they are in prior.npz.
    critics = [weights.numpy() for weights in agent.parameters]
    info = agent.update(given).extra
    assert float(info.kl) == pytest.approx(0.0, abs=1e-5)
    again, _ = agent.actor_network(given.observations)
    np.testing.assert_array_equal(again.mode(), policy.mode())
    assert any(
        (w != start).numpy().any()
        for w, start in zip(agent.parameters[:-1], critics[:-1], strict=True)
    )


def test_without_a_prior_there_is_nothing_to_clone():
    with pytest.raises(ValueError, match="prior must be one that is fitted, to be cloned"):
        make("cloning", prior=UniformPrior(D, A))
