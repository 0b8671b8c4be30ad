"""Exports a policy as a SavedModel that loads with TensorFlow alone.

Signatures, for observations [B, D] float32 (B may be 0), in the environment's units:

- `mean_action(observation)`, also `serving_default`: `action` [B, A], the greedy action.
- `sample_action(observation, seed)`: `action` [B, A], sampled with a stateless seed [2] int32.
- `distribution_params(observation)`: `location` and `scale` [B, A] of the policy's Gaussian; for a
  squashed actor, before tanh and the bounds are applied. The scale is a standard deviation.
- `action_with_prior(observation)`: the greedy `action`, `prior_location` and `prior_scale` [B, A],
  and `novelty` [B], the out-of-demonstration score in [0, 1] of `priors.Novelty`.
- `action_or_prior(observation, threshold)`: `action` [B, A], which is the greedy action, or the
  prior's mean if the score exceeds the threshold; `novelty` [B], and `fell_back` [B] bool. The
  threshold is float32, a scalar or one value per observation [B]; at 1 the prior is never used.

Only actions are clipped to the task's bounds. The object that `tf.saved_model.load` returns has
methods of the same names. They take batches too: pass a single observation as [1, D].

With TensorFlow Serving's REST API, "inputs" (columns) works for every signature. "instances" (rows)
needs one value of each input per observation, so it works with thresholds but not with a seed.

With a uniform prior the last two signatures are missing. Without a calibrated novelty,
`action_with_prior` has no score, and `action_or_prior` is missing.

`assets.extra/metadata.json` describes the policy and its origin.
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
from nppac_tf.files import for_tensorflow

if TYPE_CHECKING:
    from nppac_tf.agents.nppac import NppacAgent
    from nppac_tf.environments import Task
    from nppac_tf.priors import Novelty

_VERSION = 1
_METADATA = pathlib.Path("assets.extra") / "metadata.json"
_USED: dict[str, tuple[type, ...]] = {
    "task": (str, type(None)),
    "reward": (str, type(None)),
    "observation_keys": (list,),
    "success_key": (str, type(None)),
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
    """Writes the agent's policy and prior to a folder. A failed export leaves no partial folder.

    Args:
        agent: Agent with the policy and the prior.
        path: Folder to write. An earlier export there is replaced.
        task: Task to name in the metadata, so that evaluating the policy needs no task argument.
        novelty: Score calibrated for the agent's prior.
        provenance: Information on demonstrations, versions and configuration for the metadata;
            must be serializable as JSON.

    Raises:
        UserError: if `path` exists and is not an exported policy, or a novelty is given with a
            uniform prior.
    """
    path = pathlib.Path(os.path.realpath(path))  # A link stays, and leads to the new policy.
    if path.exists() and not (path / _METADATA).is_file():
        raise UserError(f"path must be new or an exported policy to replace; got {str(path)!r}")
    if novelty is not None and not agent.prior.informative:
        raise UserError("novelty must be None with a uniform prior; got one")
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
    """Loads the greedy policy of an export, for `evaluate`.

    Returns:
        A function from observations [B, D] to actions [B, A], or from [D] to [A], float32. It
        raises UserError for another shape.

    Raises:
        UserError: if `path` is not an exported policy.
    """
    metadata = load_metadata(path)
    size = metadata["observation_size"]
    try:
        with for_tensorflow(pathlib.Path(path)) as readable:
            module = tf.saved_model.load(str(readable))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a complete exported policy: {reason}") from None

    def policy(observations: np.ndarray) -> np.ndarray:
        shape = list(np.shape(observations))
        if len(shape) not in (1, 2) or shape[-1] != size:
            raise UserError(f"observations must be [B, {size}] or [{size}]; got {shape}")
        batch = np.asarray(observations, np.float32).reshape(-1, size)
        actions = module.mean_action(tf.constant(batch)).numpy()
        return actions.reshape(*shape[:-1], metadata["action_size"])

    return policy


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the metadata of an export: task, sizes, bounds, prior, updates, provenance.

    Raises:
        UserError: if `path` is not an exported policy of this version.
    """
    try:
        metadata = json.loads((pathlib.Path(path) / _METADATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"no exported policy at {path}") from None
    if not isinstance(metadata, dict):
        raise UserError(f"{path} is not an exported policy: its {_METADATA} is not an object")
    if metadata.get("version") != _VERSION:
        raise UserError(
            f"{path} must have version {_VERSION} of the format; got version "
            f"{metadata.get('version')}: export the policy again"
        )
    metadata = {"observation_keys": [], "success_key": None, **metadata}  # Absent from older ones.
    for name, kinds in _USED.items():
        if not isinstance(metadata.get(name, _USED), kinds):
            raise UserError(f"{path} is not an exported policy: its {_METADATA} has no {name}")
    return metadata


class _PolicyModule(tf.Module):
    """Functions of plain tensors. Holds variables only, so that TensorFlow alone can load it."""

    def __init__(self, agent: NppacAgent, novelty: Novelty | None) -> None:
        from nppac_tf.agents.actors import AnchoredActorNetwork, SquashedGaussian, in_float32

        super().__init__(name="policy")
        actor, prior, spec = in_float32(agent.deployed_actor), agent.prior, agent.action_spec
        # Variables that the functions read are saved only if they are attributes.
        self._policy_variables = list(actor.variables)
        self._prior_variables = list(agent.prior.variables) if agent.prior.informative else []
        self._novelty_variables = list(novelty.variables) if novelty else []
        self._observation_size = prior.observation_size
        self._serving: dict[str, Any] = {}

        def clip(actions: tf.Tensor) -> tf.Tensor:
            return tf.clip_by_value(actions, spec.minimum, spec.maximum)

        def split(observation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """Which rows [B, 1] are finite, and the observations with zeros in the others."""
            usable = tf.reduce_all(tf.math.is_finite(observation), axis=1, keepdims=True)
            return usable, tf.where(usable, observation, tf.zeros_like(observation))

        def where_usable(usable: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
            return tf.where(usable, values, tf.constant(float("nan"), values.dtype))

        def mean_action(observation: tf.Tensor) -> tf.Tensor:
            usable, observation = split(observation)
            return where_usable(usable, clip(actor(observation)[0].mode()))

        def sample_action(observation: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            usable, observation = split(observation)
            # The sampler divides by zero for an empty batch, so it gets a row.
            missing = tf.maximum(1 - tf.shape(observation)[0], 0)
            padded = tf.pad(observation, [[0, missing], [0, 0]])
            actions = clip(actor(padded)[0].sample(seed=seed))[: tf.shape(observation)[0]]
            return where_usable(usable, actions)

        def distribution_params(observation: tf.Tensor) -> dict[str, tf.Tensor]:
            usable, observation = split(observation)
            policy = actor(observation)[0]
            gaussian = policy.distribution if isinstance(policy, SquashedGaussian) else policy
            outputs = {"location": gaussian.mean(), "scale": gaussian.stddev()}
            return {name: where_usable(usable, value) for name, value in outputs.items()}

        def action_with_prior(observation: tf.Tensor) -> dict[str, tf.Tensor]:
            usable, observation = split(observation)
            statistics, uncertainty = prior.predict(observation)
            # An anchored actor does not compute them again.
            known = {"statistics": statistics} if isinstance(actor, AnchoredActorNetwork) else {}
            outputs = {
                "action": clip(actor(observation, **known)[0].mode()),
                "prior_location": statistics.location,
                "prior_scale": statistics.scale,
            }
            outputs = {name: where_usable(usable, value) for name, value in outputs.items()}
            if novelty:
                score = novelty(uncertainty)
                outputs["novelty"] = tf.where(usable[:, 0], score, tf.ones_like(score))
            return outputs

        def action_or_prior(observation: tf.Tensor, threshold: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = action_with_prior(observation)
            unusable = tf.math.is_nan(outputs["action"][:, 0])
            fell_back = tf.ensure_shape(unusable | (outputs["novelty"] > threshold), [None])
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
        """Compiles a function for batches of any size, and its version with named outputs.

        The signature keeps a loaded function from being traced again for each batch size, which
        would round differently.
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
        """Functions with named outputs, for serving."""
        return {"serving_default": self._serving["mean_action"], **self._serving}


def _replace_folder(new: pathlib.Path, path: pathlib.Path, aside: pathlib.Path) -> None:
    """Renames `new` to `path`; an earlier folder there is first renamed to `aside`."""
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
    fitted = agent.prior
    while hasattr(fitted, "prior"):  # Without wrappers, which rescale or bound it.
        fitted = fitted.prior
    return {
        "version": _VERSION,
        "task": task.name if task else None,
        "reward": task.reward if task else None,
        "observation_keys": list(task.observation_keys) if task else [],
        "success_key": task.success_key if task else None,
        "observation_size": agent.prior.observation_size,
        "action_size": agent.prior.action_size,
        "action_low": np.broadcast_to(spec.minimum, shape).tolist(),
        "action_high": np.broadcast_to(spec.maximum, shape).tolist(),
        "prior": type(fitted).__name__,
        "novelty": novelty.summary if novelty else None,
        "updates": int(agent.train_step_counter),
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__},
    }
