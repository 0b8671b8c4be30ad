"""The trained policy as a SavedModel, which loads with TensorFlow alone.

Signatures, for observations [B, D] float32, in the environment's units:

- `mean_action(observation)`, also `serving_default`: `action` [B, A], the greedy action;
- `sample_action(observation, seed)`: `action` [B, A], drawn with a stateless seed [2] int32;
- `distribution_params(observation)`: `location` and `scale` of the policy's Gaussian, and
  `prior_location` and `prior_scale` of pi0, [B, A] each.

Actions are clipped into the task's bounds. The policy's `location` and `scale` are those of the
Gaussian itself: for a squashed actor, before tanh and the bounds are applied. A uniform prior has
no deviation: its `prior_location` 0 and `prior_scale` 1 mean nothing.

`assets.extra/metadata.json` says what the policy is for.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from nppac_tf.errors import UserError

if TYPE_CHECKING:
    from nppac_tf.agent import NppacAgent
    from nppac_tf.environments import Task

_VERSION = 1
_METADATA = pathlib.Path("assets.extra") / "metadata.json"


def export_policy(
    agent: NppacAgent, path: str | os.PathLike[str], task: Task | None = None
) -> None:
    """Writes the agent's policy and prior to `path`, a folder, whole or not at all.

    Args:
        agent: Whose policy.
        path: An earlier export of this name is replaced; anything else is not.
        task: Named in the metadata, so that the policy can be evaluated without naming it again.

    Raises:
        UserError: if `path` is there and is not an exported policy.
    """
    path = pathlib.Path(path)
    if path.exists() and not (path / _METADATA).is_file():
        raise UserError(f"path must be new or an exported policy to replace; got {str(path)!r}")
    module = _PolicyModule(agent)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        folder = pathlib.Path(temporary) / "policy"
        tf.saved_model.save(module, str(folder), module.signatures())
        (folder / _METADATA).parent.mkdir()
        (folder / _METADATA).write_text(json.dumps(_metadata(agent, task), indent=2) + "\n")
        if path.exists():
            shutil.rmtree(path)
        os.replace(folder, path)


def load_policy(path: str | os.PathLike[str]) -> Callable[[np.ndarray], np.ndarray]:
    """The greedy policy of an export, as `evaluation.evaluate` takes it.

    Returns:
        Observations [B, D] -> actions [B, A], float32.

    Raises:
        UserError: if there is no exported policy at `path`.
    """
    load_metadata(path)
    try:
        module = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a whole exported policy: {reason}") from None

    def policy(observations: np.ndarray) -> np.ndarray:
        return module.mean_action(tf.constant(observations, tf.float32)).numpy()

    return policy


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What an export says of itself: task, sizes, bounds, prior, updates.

    Raises:
        UserError: if there is no exported policy of this version at `path`.
    """
    try:
        metadata = json.loads((pathlib.Path(path) / _METADATA).read_text())
    except (OSError, ValueError):
        raise UserError(f"no exported policy at {path}") from None
    if metadata.get("version") != _VERSION:
        raise UserError(
            f"{path} was written by version {metadata.get('version')} of the format; "
            f"this program reads version {_VERSION}: export the policy again"
        )
    return metadata


class _PolicyModule(tf.Module):
    """Plain tensors in and out; holds variables, and no object that TensorFlow cannot name."""

    def __init__(self, agent: NppacAgent) -> None:
        from nppac_tf.networks import SquashedGaussian

        super().__init__(name="policy")
        # What the functions read must be an attribute to be saved; the objects stay outside.
        self._policy_variables = list(agent.actor_network.variables)
        self._prior_variables = list(agent.prior.variables)
        actor, prior, spec = agent.actor_network, agent.prior, agent.action_spec
        observation = tf.TensorSpec([None, prior.observation_size], tf.float32, "observation")
        seed = tf.TensorSpec([2], tf.int32, "seed")

        def clip(actions: tf.Tensor) -> tf.Tensor:
            return tf.clip_by_value(actions, spec.minimum, spec.maximum)

        @tf.function(input_signature=[observation], autograph=False)
        def mean_action(observation: tf.Tensor) -> tf.Tensor:
            return clip(actor(observation)[0].mode())

        @tf.function(input_signature=[observation, seed], autograph=False)
        def sample_action(observation: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return clip(actor(observation)[0].sample(seed=seed))

        @tf.function(input_signature=[observation], autograph=False)
        def distribution_params(observation: tf.Tensor) -> dict[str, tf.Tensor]:
            policy = actor(observation)[0]
            gaussian = policy.distribution if isinstance(policy, SquashedGaussian) else policy
            statistics = prior.statistics(observation)
            return {
                "location": gaussian.mean(),
                "scale": gaussian.stddev(),
                "prior_location": statistics.location,
                "prior_scale": statistics.scale,
            }

        self.mean_action = mean_action
        self.sample_action = sample_action
        self.distribution_params = distribution_params

    def signatures(self) -> dict[str, Any]:
        """The functions for serving, whose results are named."""

        def named(function: Any) -> Any:
            signature = function.input_signature

            @tf.function(input_signature=signature, autograph=False)
            def action(observation: tf.Tensor, *rest: tf.Tensor) -> dict[str, tf.Tensor]:
                return {"action": function(observation, *rest)}

            return action

        mean_action = named(self.mean_action)
        return {
            "serving_default": mean_action,
            "mean_action": mean_action,
            "sample_action": named(self.sample_action),
            "distribution_params": self.distribution_params,
        }


def _metadata(agent: NppacAgent, task: Task | None) -> dict[str, Any]:
    spec = agent.action_spec
    shape = spec.shape
    return {
        "version": _VERSION,
        "task": task.name if task else None,
        "reward": task.environment_kwargs.get("reward", "binary") if task else None,
        "observation_size": agent.prior.observation_size,
        "action_size": agent.prior.action_size,
        "action_low": np.broadcast_to(spec.minimum, shape).tolist(),
        "action_high": np.broadcast_to(spec.maximum, shape).tolist(),
        "prior": type(getattr(agent.prior, "prior", agent.prior)).__name__,
        "updates": int(agent.train_step_counter),
        "tensorflow": tf.__version__,
    }
