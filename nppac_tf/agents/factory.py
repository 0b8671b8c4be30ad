"""What N-PPAC is compared with, on the same tasks, networks, replay, loop and evaluation.

Most are settings of `NppacAgent`, a flagfile each in configs/baselines/: soft actor-critic from
scratch, with demonstrations in its replay (SACfD), RLPD, and KL regularization to a parametric
prior. What is more than settings has a page here.
"""

from typing import Any

from nppac_tf.agents.awac import AwacAgent
from nppac_tf.agents.cloning import CloningAgent
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig
from nppac_tf.priors.base import BehavioralPrior

__all__ = ["AwacAgent", "CloningAgent", "make_agent"]

_AGENTS = {"nppac": NppacAgent, "awac": AwacAgent, "cloning": CloningAgent}


def make_agent(task: Any, prior: BehavioralPrior, config: AgentConfig, seed: int = 0) -> NppacAgent:
    """The agent that `config.algorithm` names; arguments as of `NppacAgent.for_task`."""
    return _AGENTS[config.algorithm].for_task(task, prior, config, seed)
