"""The trained policy as a SavedModel, which loads with TensorFlow alone.

Signatures, for observations [B, D] float32 (B may be 0), in the environment's units:

- `mean_action(observation)`, also `serving_default`: `action` [B, A], the greedy action.
- `sample_action(observation, seed)`: `action` [B, A], drawn with a stateless seed [2] int32.
- `distribution_params(observation)`: `location` and `scale` [B, A] of the policy's own Gaussian,
  for densities and for exploration; for a squashed actor, before tanh and the bounds are applied.
- `action_with_prior(observation)`: the greedy `action`, `prior_location` and `prior_scale` [B, A]
  of pi0, and `novelty` [B], the out-of-demonstration score in [0, 1] of `priors.Novelty`.
- `action_or_prior(observation, threshold)`: `action` [B, A], the greedy one, or pi0's mean where
  the score exceeds the threshold, the score as `novelty` [B], and `fell_back` [B] bool. The
  threshold is one number, or one of each observation [B], float32; at 1 nothing falls back.

Actions, and no other output, are clipped into the task's bounds. What `tf.saved_model.load` gives
has methods of the same names; theirs is the batch too: a single observation goes in as [1, D].

In TensorFlow Serving's REST interface the columns of "inputs" fit every signature. In the rows of
"instances" each input belongs to one observation: a threshold per row works, a seed does not.

A uniform prior has no deviation, and the last two signatures are left out. Without a calibrated
novelty, `action_with_prior` lacks the score and `action_or_prior` is left out.

`assets.extra/metadata.json` says what the policy is for and where it comes from.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from nppac_tf.errors import UserError

if TYPE_CHECKING:
    from nppac_tf.agents.nppac import NppacAgent
    from nppac_tf.environments import Task
    from nppac_tf.priors import Novelty

_VERSION = 1
_METADATA = pathlib.Path("assets.extra") / "metadata.json"
_USED: dict[str, tuple[type, ...]] = {
    "task": (str, type(None)),
    "reward": (str, type(None)),
    "observation_size": (int,),
    "action_size": (int,),
    "updates": (int,),
}


def export_policy(
    agent: NppacAgent,
    path: str | os.PathLike[str],
    task: Task | None = None,
    novelty: Novelty | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Writes the agent's policy and prior to `path`, a folder, whole or not at all.

    Args:
        agent: Whose policy.
        path: An earlier export of this name is replaced; anything else is not.
        task: Named in the metadata, so that the policy can be evaluated without naming it again.
        novelty: Calibrated for the agent's prior.
        provenance: What the metadata is to say of demonstrations, versions and configuration: a
            mapping that JSON can hold.

    Raises:
        UserError: if `path` is there and is not an exported policy, or there is a novelty of a
            uniform prior.
    """
    path = pathlib.Path(path)
    if path.exists() and not (path / _METADATA).is_file():
        raise UserError(f"path must be new or an exported policy to replace; got {str(path)!r}")
    if novelty is not None and not agent.prior.informative:
        raise UserError("novelty must be None with a uniform prior, which has none; got one")
    module = _PolicyModule(agent, novelty)
    signatures = module.signatures()
    metadata = _metadata(agent, task, novelty) | {
        "signatures": sorted(signatures),
        "provenance": dict(provenance or {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        folder = pathlib.Path(temporary) / "policy"
        tf.saved_model.save(module, str(folder), signatures)
        (folder / _METADATA).parent.mkdir()
        (folder / _METADATA).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
        _replace_folder(folder, path, pathlib.Path(temporary) / "replaced")


def load_policy(path: str | os.PathLike[str]) -> Callable[[np.ndarray], np.ndarray]:
    """The greedy policy of an export, as `evaluation.evaluate` takes it.

    Returns:
        Observations [B, D] -> actions [B, A], float32; also of a single one, [D] -> [A]. It raises
        UserError for another shape.

    Raises:
        UserError: if there is no exported policy at `path`.
    """
    metadata = load_metadata(path)
    size = metadata["observation_size"]
    try:
        module = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a whole exported policy: {reason}") from None

    def policy(observations: np.ndarray) -> np.ndarray:
        shape = list(np.shape(observations))
        if len(shape) not in (1, 2) or shape[-1] != size:
            raise UserError(f"observations must be [B, {size}] or [{size}]; got {shape}")
        batch = np.asarray(observations, np.float32).reshape(-1, size)
        actions = module.mean_action(tf.constant(batch)).numpy()
        return actions.reshape(*shape[:-1], metadata["action_size"])

    return policy


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What an export says of itself: task, sizes, bounds, prior, updates, provenance.

    Raises:
        UserError: if there is no exported policy of this version at `path`.
    """
    try:
        metadata = json.loads((pathlib.Path(path) / _METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"no exported policy at {path}") from None
    if not isinstance(metadata, dict):
        raise UserError(f"{path} is not an exported policy: its {_METADATA} says nothing of one")
    if metadata.get("version") != _VERSION:
        raise UserError(
            f"{path} was written by version {metadata.get('version')} of the format; "
            f"this program reads version {_VERSION}: export the policy again"
        )
    for name, kinds in _USED.items():
        if not isinstance(metadata.get(name, _USED), kinds):
            raise UserError(f"{path} is not an exported policy: its {_METADATA} has no {name}")
    return metadata


class _PolicyModule(tf.Module):
    """Plain tensors in and out; holds variables, and no object that TensorFlow cannot name."""

    def __init__(self, agent: NppacAgent, novelty: Novelty | None) -> None:
        from nppac_tf.agents.networks import ActorNetwork, SquashedGaussian

        super().__init__(name="policy")
        actor, prior, spec = agent.deployed_actor, agent.prior, agent.action_spec
        if isinstance(actor, ActorNetwork):
            actor = actor.in_float32()
        # What the functions read must be an attribute to be saved; the objects stay outside.
        self._policy_variables = list(actor.variables)
        self._prior_variables = list(agent.prior.variables) if agent.prior.informative else []
        self._novelty_variables = list(novelty.variables) if novelty else []
        self._observation_size = prior.observation_size
        self._serving: dict[str, Any] = {}

        def clip(actions: tf.Tensor) -> tf.Tensor:
            return tf.clip_by_value(actions, spec.minimum, spec.maximum)

        def mean_action(observation: tf.Tensor) -> tf.Tensor:
            return clip(actor(observation)[0].mode())

        def sample_action(observation: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            # An empty batch gets a row, without which the sampler would divide by zero.
            missing = tf.maximum(1 - tf.shape(observation)[0], 0)
            padded = tf.pad(observation, [[0, missing], [0, 0]])
            return clip(actor(padded)[0].sample(seed=seed))[: tf.shape(observation)[0]]

        def distribution_params(observation: tf.Tensor) -> dict[str, tf.Tensor]:
            policy = actor(observation)[0]
            gaussian = policy.distribution if isinstance(policy, SquashedGaussian) else policy
            return {"location": gaussian.mean(), "scale": gaussian.stddev()}

        def action_with_prior(observation: tf.Tensor) -> dict[str, tf.Tensor]:
            (location, scale), uncertainty = prior.predict(observation)
            outputs = {
                "action": mean_action(observation),
                "prior_location": location,
                "prior_scale": scale,
            }
            return outputs | ({"novelty": novelty(uncertainty)} if novelty else {})

        def action_or_prior(observation: tf.Tensor, threshold: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = action_with_prior(observation)
            fell_back = tf.ensure_shape(outputs["novelty"] > threshold, [None])
            action = tf.where(
                fell_back[:, tf.newaxis], clip(outputs["prior_location"]), outputs["action"]
            )
            return {"action": action, "novelty": outputs["novelty"], "fell_back": fell_back}

        self.mean_action = self._traced(mean_action)
        self.sample_action = self._traced(sample_action, tf.TensorSpec([2], tf.int32, "seed"))
        self.distribution_params = self._traced(distribution_params)
        if prior.informative:
            self.action_with_prior = self._traced(action_with_prior)
        if novelty:
            threshold = tf.TensorSpec(None, tf.float32, "threshold")
            self.action_or_prior = self._traced(action_or_prior, threshold)

    def _traced(self, function: Callable[..., Any], *other_specs: tf.TensorSpec) -> Any:
        """`function`, compiled for batches of any size; for serving too, where results have names.

        With a signature: a loaded function without one is traced anew for each size of batch, with
        shapes known, which rounds differently.
        """
        batch = tf.TensorSpec([None, self._observation_size], tf.float32, "observation")
        signature = [batch, *other_specs]
        traced = tf.function(function, input_signature=signature, autograph=False)

        @tf.function(input_signature=signature, autograph=False)
        def named(observation: tf.Tensor, *others: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = traced(observation, *others)
            return outputs if isinstance(outputs, dict) else {"action": outputs}

        self._serving[function.__name__] = named
        return traced

    def signatures(self) -> dict[str, Any]:
        """The functions for serving, whose results are named."""
        return {"serving_default": self._serving["mean_action"], **self._serving}


def _replace_folder(new: pathlib.Path, path: pathlib.Path, aside: pathlib.Path) -> None:
    """Renames `new` to `path`, where an earlier folder first goes `aside`."""
    if not path.exists():
        os.rename(new, path)
        return
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(aside, path)
        raise


def _metadata(agent: NppacAgent, task: Task | None, novelty: Novelty | None) -> dict[str, Any]:
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
        "novelty": novelty.summary if novelty else None,
        "updates": int(agent.train_step_counter),
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__},
    }
