"""An agent to serve, whose actor is not as it was initialized."""

from typing import Any

import fakes
import numpy as np
import tensorflow as tf

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig

D, A = 3, 2
LOW, HIGH = np.float32([-1, -2]), np.float32([1, 3])
ACTORS = {
    "anchored": {"actor": "anchored"},
    "squashed": {"actor": "network", "squash": True},
    "unsquashed": {"actor": "network", "squash": False},
}


def agent_with(actor: str = "anchored", prior: Any = None) -> NppacAgent:
    """The agent."""
    config = AgentConfig(actor_layers=(8, 8), critic_layers=(8,), **ACTORS[actor])
    prior = prior or fakes.LinearPrior(D, A)
    agent = NppacAgent.for_task(fakes.FakeTask.of(D), prior, config, seed=3)
    agent.standardize(np.random.default_rng(2).normal(1, 2, (50, D)))
    for index, variable in enumerate(agent.deployed_actor.trainable_variables):
        variable.assign_add(0.1 * tf.random.stateless_normal(variable.shape, seed=[0, index]))
    return agent
