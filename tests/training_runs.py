"""Short training runs on a point task, and their comparison."""

import dataclasses

import fakes
import numpy as np
import tensorflow as tf

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, TrainingConfig
from nppac_tf.priors import PriorStatistics
from nppac_tf.training import loop
from nppac_tf.training.checkpoints import RunCheckpoint

HORIZON = 5

# Two environments, five steps each per epoch: every epoch ends with an episode.
CONFIG = TrainingConfig(
    num_env_steps=60,
    num_environments=2,
    steps_per_epoch=10,
    updates_per_step=0.5,
    batch_size=8,
    pretraining_steps=20,
    pretraining_batch_size=8,
    eval_interval=20,
    eval_episodes=2,
    checkpoint_interval=20,
    seed=3,
    n_step=1,
    num_greedy_environments=0,
    critic_warmup_steps=0,
)

TINY = AgentConfig(
    actor="network", actor_layers=(4,), critic_layers=(4,), num_critics=2, target_kl=1.0
)

ANCHORED = dataclasses.replace(TINY, actor="anchored", target_kl=None)

# Without an update.
COLLECTING = dataclasses.replace(CONFIG, updates_per_step=1e-9, pretraining_steps=0)

CLOCKS = ("wall_seconds", "train/updates_per_second")


class Recorder:
    """Keeps what is reported; raises after a number of evaluations."""

    def __init__(self, raise_at=None):
        self.progress, self.rows, self.epochs, self._raise_at = [], [], [], raise_at
        self.notices = []

    def on_notice(self, line):
        self.notices.append(line)

    def on_epoch(self, row):
        self.epochs.append(row)

    def on_progress(self, stage, done, total, metrics):
        self.progress.append((stage, done, total, dict(metrics)))

    def on_evaluation(self, row):
        self.rows.append(row)
        if len(self.rows) == self._raise_at:
            raise KeyboardInterrupt


def run(task, demonstrations, config=CONFIG, agent_config=TINY, prior=None, **kwargs):
    agent = NppacAgent.for_task(task, prior or fakes.LinearPrior(2, 2), agent_config, seed=3)
    rows = loop.train(agent, task, demonstrations, config=config, **kwargs)
    return agent, rows


class Homing(fakes.LinearPrior):
    """Heads for the origin."""

    def statistics(self, observations):
        location = -observations / tf.norm(observations, axis=-1, keepdims=True)
        return PriorStatistics(location, tf.fill(tf.shape(location), 0.1))


def saving_in(folder):
    return lambda agent, replay: RunCheckpoint(folder, agent.learned, replay)


def weights_of(agent):
    networks = [agent.actor_network, agent.deployed_actor]
    networks += [*agent._critics, *agent._target_critics]
    values = [v.numpy() for network in networks for v in network.variables]
    return [*values, agent._log_alpha.numpy(), agent._reward_scale.numpy()]


def assert_same_run(one, other):
    for a, b in zip(weights_of(one[0]), weights_of(other[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(one[1], other[1], strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - set(CLOCKS):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# Episodes of 5 steps and epochs of 4 per environment; 50 updates fill one compiled call.
MID_EPISODE = dataclasses.replace(
    CONFIG,
    steps_per_epoch=8,
    updates_per_step=15.0,
    eval_interval=16,
    checkpoint_interval=24,
    num_env_steps=40,
)

# Everything that has a state of its own, or is rebuilt on resuming. A run asks before and in
# pre-training, for each chunk of 40 offline updates, and so on; all those moments must do.
EVERYTHING = dataclasses.replace(
    MID_EPISODE,
    policy_interval=3,
    n_step=2,
    demonstration_share=0.25,
    prefill_replay=True,
    offline_updates=120,
    pretraining_steps=10,
    critic_warmup_steps=8,
    policy_averaging=50,
    final_temperature=0.01,
)

EVERY_PART = AgentConfig(
    actor_layers=(4,),
    critic_layers=(4,),
    num_critics=2,
    num_target_critics=1,
    actor_value="mean",
)
