"""Agents and batches of small sizes."""

import math

import fakes
import numpy as np
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from nppac_tf.agents.batch import Batch
from nppac_tf.agents.critics import CriticNetwork
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig

D, A, B = 3, 2, 16

LOW, HIGH = np.array([-1.0, -2.0], np.float32), np.array([1.0, 3.0], np.float32)

OBSERVATION_SPEC = tf.TensorSpec([D], tf.float32, "observation")

ACTION_SPEC = tensor_spec.BoundedTensorSpec([A], tf.float32, LOW, HIGH, "action")

TIME_STEP_SPEC = ts.time_step_spec(OBSERVATION_SPEC)

TINY = {"actor_layers": (8,), "critic_layers": (8,), "num_critics": 2}

# Kinds of actors, and estimates of the KL.
KINDS = [
    {"actor": "anchored"},
    {"actor": "anchored", "divergence": "sampled"},
    {"actor": "network"},
    {"actor": "network", "divergence": "sampled"},
    {"actor": "network", "squash": True},
]


def adam(learning_rate=1e-2):
    return tf.keras.optimizers.legacy.Adam(learning_rate)


def transitions(seed=0):
    """A transition as TF-Agents' replay buffers give it; every third one terminates."""
    rng = np.random.default_rng(seed)

    def observations():
        return tf.constant(rng.normal(size=(B, D)), tf.float32)

    discounts = tf.constant(np.arange(B) % 3 > 0, tf.float32)
    rewards = tf.constant(rng.normal(size=B), tf.float32)
    first = ts.restart(observations(), batch_size=B)
    last = ts.TimeStep(tf.where(discounts > 0, 1, 2), rewards, discounts, observations())
    actions = tf.constant(rng.uniform(LOW, HIGH, size=(B, A)), tf.float32)
    return trajectory.Transition(first, policy_step.PolicyStep(actions), last)


def batch_of(transition, prior):
    """The same, with the prior's statistics beside it."""
    first, step, last = transition
    return Batch(
        first.observation,
        step.action,
        last.reward,
        last.discount,
        last.observation,
        prior.statistics(first.observation),
        prior.statistics(last.observation),
    )


def make(prior=None, seed=0, **kwargs):
    prior = prior or fakes.LinearPrior(D, A)
    return NppacAgent.for_task(fakes.FakeTask.of(), prior, AgentConfig(**TINY | kwargs), seed)


def values_of(agent):
    variables = tf.nest.flatten([network.trainable_variables for network in networks_of(agent)])
    return [variable.numpy() for variable in (*variables, agent._log_alpha)]


def networks_of(agent):
    return (
        agent._actor_network,
        agent._critic_network_1,
        agent._critic_network_2,
        agent._target_critic_network_1,
        agent._target_critic_network_2,
    )


def assert_same_values(one, other, **tolerance):
    for a, b in zip(values_of(one), values_of(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def frozen_arguments(squash):
    """Arguments for either agent; the actor's samples do not depend on the seed."""
    critic_spec = (OBSERVATION_SPEC, ACTION_SPEC)
    return {
        "time_step_spec": TIME_STEP_SPEC,
        "action_spec": ACTION_SPEC,
        "critic_network": CriticNetwork(critic_spec, (8,), False, seed=1),
        "critic_network_2": CriticNetwork(critic_spec, (8,), False, seed=2),
        "actor_network": fakes.FrozenActorNetwork(OBSERVATION_SPEC, ACTION_SPEC, (8,), squash),
        "actor_optimizer": adam(),
        "critic_optimizer": adam(),
        "alpha_optimizer": adam(),
        "target_entropy": -1.5,
        "initial_log_alpha": -0.7,
        "target_update_tau": 0.1,
        "gamma": 0.9,
        "reward_scale_factor": 2.0,
        "gradient_clipping": 1.0,
        "td_errors_loss_fn": tf.math.squared_difference,
        "train_step_counter": tf.Variable(0, dtype=tf.int64),
    }


# Losses by hand: pi, Q and pi0 are so simple that a sheet of paper gives the losses.

LOCATION, SCALE = np.array([0.2, -0.4]), np.array([0.3, 0.6])

INTERCEPTS, SLOPES = (1.0, 2.0), (0.5, -0.25)


def by_hand(divergence, **kwargs):
    """Constant pi, linear critics, prior N(mean of s + 0.3, 0.5^2); alpha = 0.2, gamma = 0.9."""
    critic_spec = (OBSERVATION_SPEC, ACTION_SPEC)
    critics = [fakes.LinearCritic(critic_spec, INTERCEPTS[i], SLOPES[i], f"Q{i}") for i in (0, 1)]
    actor = fakes.ConstantActor(OBSERVATION_SPEC, list(LOCATION), list(SCALE))
    agent = NppacAgent(
        TIME_STEP_SPEC,
        ACTION_SPEC,
        critics[0],
        actor,
        adam(),
        adam(),
        critic_network_2=critics[1],
        # Else the agent would copy the critics, whose variables are set here.
        target_critic_network=fakes.LinearCritic(critic_spec, 3.0, 1.0, "target0"),
        target_critic_network_2=fakes.LinearCritic(critic_spec, 3.1, 0.8, "target1"),
        prior=fakes.LinearPrior(D, A),
        divergence=divergence,
        gamma=0.9,
        initial_log_alpha=math.log(0.2),
        td_errors_loss_fn=tf.math.squared_difference,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
        **kwargs,
    )
    return agent
