"""Updates of N-PPAC and of TF-Agents' own SacAgent on synthetic data, and matrix products.

Run it with `python -m benchmarks.updates --contender=nppac_float32 --shape=A`.
"""

import argparse
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import nppac_tf  # noqa: F401  # First: it selects Keras 2, for TF-Agents.

# isort: split
import numpy as np
import tensorflow as tf
from tf_agents.agents.ddpg import critic_network
from tf_agents.agents.sac import sac_agent, tanh_normal_projection_network
from tf_agents.networks import actor_distribution_network, normal_projection_network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts

from benchmarks.measuring import rate
from benchmarks.shapes import CHUNK, NUM_TRANSITIONS, SHAPES, TEMPERATURE, Shape
from nppac_tf.agents.batch import Batch
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, TrainingConfig
from nppac_tf.hardware import available_cores
from nppac_tf.priors.base import BehavioralPrior, PriorStatistics, UniformPrior
from nppac_tf.training.learner import Learner
from nppac_tf.training.replay import Replay

CONTENDERS = (
    *("nppac_float32", "nppac_bfloat16", "uniform_float32", "tf_agents"),
    *("limit_float32", "limit_bfloat16", "fill_10000", "fill_1000000"),
)
_PRODUCTS = 200
_LOG_SCALE_RANGE = (-10.0, 2.0)  # As in `nppac_tf.agents`.

Chunk = Callable[[], float]


def contender_updates(contender: str, shape: Shape) -> Chunk:
    """Prepares a contender: a function that makes some updates and returns their number.

    Args:
        contender: One of `CONTENDERS`; fill_N is nppac_float32 with N transitions in the replay.
        shape: Problem size.
    """
    kind, _, setting = contender.partition("_")
    if kind == "limit":
        return products(shape, tf.as_dtype(setting), available_cores())
    replay = filled_replay(shape, int(setting) if kind == "fill" else NUM_TRANSITIONS)
    if contender == "tf_agents":
        return stock_updates(stock_agent(shape), replay, shape.batch_size)
    prior_class = UniformPrior if kind == "uniform" else StandardNormalPrior
    precision = "float32" if kind == "fill" else setting
    agent = project_agent(shape, prior_class(shape.observation_size, shape.action_size), precision)
    return project_updates(agent, replay, shape.batch_size)


class StandardNormalPrior(BehavioralPrior):
    """N(0, 1) in each action component; updates read the replay's statistics, not the prior."""

    def statistics(self, observations: tf.Tensor) -> PriorStatistics:  # noqa: D102
        zeros = tf.zeros([tf.shape(observations)[0], self.action_size])
        return PriorStatistics(zeros, tf.ones_like(zeros))

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Not supported."""
        raise NotImplementedError


def filled_replay(shape: Shape, num_transitions: int) -> Replay:
    """Makes a full replay of normal states and rewards, uniform actions and a N(0, 1) prior."""
    rng = np.random.default_rng(0)

    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal((num_transitions, *size), np.float32)

    actions = rng.uniform(-1.0, 1.0, (num_transitions, shape.action_size))
    prior = PriorStatistics(np.zeros_like(actions), np.ones_like(actions))
    replay = Replay(shape.observation_size, shape.action_size, num_transitions)
    states, next_states = normal(shape.observation_size), normal(shape.observation_size)
    discounts = np.ones(num_transitions)
    replay.add(Batch(states, actions, normal(), discounts, next_states, prior, prior))
    return replay


def project_agent(shape: Shape, prior: BehavioralPrior, precision: str) -> NppacAgent:
    """Makes an N-PPAC agent; with `UniformPrior` it is soft actor-critic."""
    task = SimpleNamespace(
        observation_size=shape.observation_size,
        action_low=-np.ones(shape.action_size, np.float32),
        action_high=np.ones(shape.action_size, np.float32),
    )
    config = AgentConfig(
        actor_layers=shape.actor_layers,
        critic_layers=shape.critic_layers,
        actor="network",
        squash=shape.squash,
        critic_layer_norm=False,
        num_critics=2,
        divergence="sampled",
        temperature=TEMPERATURE,
        reward_scale=1.0,
        precision=precision,
    )
    return NppacAgent.for_task(task, prior, config)


def project_updates(agent: NppacAgent, replay: Replay, batch_size: int) -> Chunk:
    """Updates as in training, including the check for finite weights."""
    config = TrainingConfig(batch_size=batch_size, final_temperature=None, policy_averaging=0)
    learner = Learner(agent, replay, config)

    def chunk() -> int:
        return max(done for done, _ in learner.update(CHUNK, learn_policy=True))

    chunk()
    return chunk


def stock_agent(shape: Shape) -> sac_agent.SacAgent:
    """Makes TF-Agents' agent with its own networks.

    It has no fixed temperature, so it learns one with a learning rate of 0, which costs one more
    forward pass through the actor than the others make.
    """
    observation_spec = tf.TensorSpec([shape.observation_size], tf.float32)
    action_spec = tensor_spec.BoundedTensorSpec([shape.action_size], tf.float32, -1.0, 1.0)

    def gaussian(spec: Any) -> Any:
        return normal_projection_network.NormalProjectionNetwork(
            spec,
            mean_transform=normal_projection_network.tanh_squash_to_spec,
            std_transform=lambda scale: tf.exp(tf.clip_by_value(scale, *_LOG_SCALE_RANGE)),
            state_dependent_std=True,
            init_means_output_factor=0.1,
        )

    squashed = tanh_normal_projection_network.TanhNormalProjectionNetwork
    actor = actor_distribution_network.ActorDistributionNetwork(
        observation_spec,
        action_spec,
        fc_layer_params=shape.actor_layers,
        continuous_projection_net=squashed if shape.squash else gaussian,
    )
    critic = critic_network.CriticNetwork(
        (observation_spec, action_spec), joint_fc_layer_params=shape.critic_layers
    )
    optimizers = tf.keras.optimizers.legacy
    agent = sac_agent.SacAgent(
        ts.time_step_spec(observation_spec),
        action_spec,
        critic,
        actor,
        actor_optimizer=optimizers.Adam(3e-4),
        critic_optimizer=optimizers.Adam(3e-4),
        alpha_optimizer=optimizers.SGD(0.0),
        initial_log_alpha=float(np.log(TEMPERATURE)),
        target_update_tau=0.005,
        gamma=0.99,
        td_errors_loss_fn=tf.math.squared_difference,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    agent.initialize()
    return agent


def stock_updates(agent: sac_agent.SacAgent, replay: Replay, batch_size: int) -> Chunk:
    """TF-Agents' `train` in a compiled loop, on transitions of this project's replay."""

    def time_steps(observations: tf.Tensor, rewards: tf.Tensor, discounts: tf.Tensor) -> Any:
        kind = tf.fill([batch_size], ts.StepType.MID)
        return ts.TimeStep(kind, rewards, discounts, observations)

    @tf.function
    def loop(num_updates: tf.Tensor) -> None:
        for _ in tf.range(num_updates):
            seed = tf.stack([0, tf.cast(agent.train_step_counter, tf.int32)])
            batch = replay.sample(batch_size, seed)
            zeros, ones = tf.zeros([batch_size]), tf.ones([batch_size])
            agent.train(
                trajectory.Transition(
                    time_steps(batch.observations, zeros, ones),
                    policy_step.PolicyStep(batch.actions),
                    time_steps(batch.next_observations, batch.rewards, batch.discounts),
                )
            )

    def chunk() -> int:
        before = int(agent.train_step_counter)
        loop(tf.constant(CHUNK))
        return int(agent.train_step_counter) - before

    chunk()
    return chunk


def products(shape: Shape, dtype: tf.DType, num_chains: int) -> Chunk:
    """Chains of products [B, h] x [h, h], with h the critics' widest layer.

    Counts the updates whose products would take as many operations.

    Args:
        shape: Sizes B and h.
        dtype: Type of both factors.
        num_chains: Number of parallel chains, one per thread, so that no thread waits.
    """
    width = max(shape.critic_layers)
    # Orthogonal, so that values keep their size along the chain.
    matrix = np.linalg.qr(np.random.default_rng(0).standard_normal((width, width)))[0]
    weights = tf.Variable(tf.cast(matrix, dtype))
    state = tf.Variable(tf.ones([shape.batch_size, width], dtype))

    @tf.function
    def chains() -> tf.Tensor:
        values = [state.read_value() + tf.cast(chain, dtype) for chain in range(num_chains)]
        for _ in tf.range(_PRODUCTS):
            values = [tf.matmul(value, weights) for value in values]
        return tf.cast(tf.add_n([value[0, 0] for value in values]), tf.float32)

    operations = num_chains * _PRODUCTS * 2 * shape.batch_size * width**2

    def chunk() -> float:
        chains().numpy()
        return operations / shape.update_flops

    chunk()
    return chunk


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contender", choices=CONTENDERS, required=True)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    found = rate(contender_updates(given.contender, SHAPES[given.shape]), given.seconds)
    print(json.dumps({"updates_per_second": found}))
