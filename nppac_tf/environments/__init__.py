"""Tasks, vectorized stepping, and the TF-Agents adapter; only this package imports Gymnasium.

Glossary: B environments in a batch, D observation components, A action components.

Importing this package imports neither MuJoCo, nor gymnasium-robotics, nor TensorFlow. `make_task`
imports the first two, access to `GymnasiumPyEnvironment` the last.
"""

from typing import TYPE_CHECKING, Any

from nppac_tf.environments.hand import SuccessRewardEnvironment
from nppac_tf.environments.stepping import clip_actions, episode_seed, require_finite
from nppac_tf.environments.tasks import Task, make_task
from nppac_tf.environments.vector import Step, VectorEnvironment

if TYPE_CHECKING:
    from nppac_tf.environments.tf_agents import GymnasiumPyEnvironment

__all__ = [
    "GymnasiumPyEnvironment",
    "Step",
    "SuccessRewardEnvironment",
    "Task",
    "VectorEnvironment",
    "clip_actions",
    "episode_seed",
    "make_task",
    "require_finite",
]


def __getattr__(name: str) -> Any:
    if name == "GymnasiumPyEnvironment":
        from nppac_tf.environments import tf_agents

        return tf_agents.GymnasiumPyEnvironment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
