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
- `next_action(observation, previous_action, threshold)`: the same, but no component of the action
  is further than `max_action_change` from the previous action [B, A]; a row of nan is no limit.

`NAME_single` of each takes one observation [D] and gives outputs without B. `NAME_parts` takes the
named parts of a Dict observation, each [B, ...], in place of `observation`; characters other than
letters, digits and _ in their names become _, and a name that an input has already begins with
`part_`.

Only actions are clipped to the limits. `serving.policy` says what an unusable observation gives.
The object that `tf.saved_model.load` returns has methods of the first six names.

With TensorFlow Serving's REST API, "inputs" (columns) works for every signature. "instances" (rows)
needs one value of each input per observation, so it works with thresholds but not with a seed.

With a uniform prior the last three signatures are missing. Without a calibrated novelty,
`action_with_prior` has no score, and the last two are missing. Without `max_action_change`,
`next_action` is.

`assets.extra/metadata.json` describes the policy, its limits and its origin.
"""

from __future__ import annotations

import json
import os
import pathlib
import platform
import re
import tempfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from nppac_tf.errors import UserError
from nppac_tf.files import for_tensorflow
from nppac_tf.serving.policy import ServedPolicy, ServingOptions, Tensors

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
    options: ServingOptions | None = None,
) -> None:
    """Writes the agent's policy and prior to a folder. A failed export leaves no partial folder.

    Args:
        agent: Agent with the policy and the prior.
        path: Folder to write. An earlier export there is replaced.
        task: Task to name in the metadata, so that evaluating the policy needs no task argument,
            and that declares the bounds of observations.
        novelty: Score calibrated for the agent's prior.
        provenance: Information on demonstrations, versions and configuration for the metadata;
            must be serializable as JSON.
        options: Limits of the actions.

    Raises:
        UserError: if `path` exists and is not an exported policy, an option is out of range, or a
            novelty is given with a uniform prior.
    """
    path = pathlib.Path(os.path.realpath(path))  # A link stays, and leads to the new policy.
    if path.exists() and not (path / _METADATA).is_file():
        raise UserError(f"path must be new or an exported policy to replace; got {str(path)!r}")
    policy = ServedPolicy(agent, novelty, options, task)
    module = _PolicyModule(agent, novelty, policy, part_sizes(task))
    signatures = module.serving()
    metadata = describe(agent, task, novelty, policy) | {
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

    def __init__(
        self,
        agent: NppacAgent,
        novelty: Novelty | None,
        policy: ServedPolicy,
        parts: Mapping[str, int],
    ) -> None:
        super().__init__(name="policy")
        # Variables that the functions read are saved only if they are attributes.
        self._policy_variables = list(policy.actor.variables)
        self._prior_variables = list(policy.prior.variables) if policy.prior.informative else []
        self._novelty_variables = list(novelty.variables) if novelty else []
        self._parts = parts
        self._size, self._action_size = agent.prior.observation_size, agent.prior.action_size
        self._serving: dict[str, Any] = {}

        seed = tf.TensorSpec([2], tf.int32, "seed")
        threshold = tf.TensorSpec(None, tf.float32, "threshold")
        previous = tf.TensorSpec([None, policy.action_size], tf.float32, "previous_action")
        self.mean_action = self._traced(policy.mean_action)
        self._serving["serving_default"] = self._serving["mean_action"]
        self.sample_action = self._traced(policy.sample_action, seed)
        self.distribution_params = self._traced(policy.distribution_params)
        if agent.prior.informative:
            self.action_with_prior = self._traced(policy.action_with_prior)
        if policy.scored:
            self.action_or_prior = self._traced(policy.action_or_prior, threshold)
        if policy.max_action_change is not None:
            self.next_action = self._traced(policy.next_action, previous, threshold)

    def _traced(self, function: Callable[..., Any], *others: tf.TensorSpec) -> Any:
        """Compiles a function for batches of any size, and its signatures.

        The signature keeps a loaded function from being traced again for each batch size, which
        would round differently.
        """
        batch = tf.TensorSpec([None, self._size], tf.float32, "observation")
        traced = tf.function(function, input_signature=[batch, *others], autograph=False)

        def named(observation: tf.Tensor, **inputs: tf.Tensor) -> Tensors:
            outputs = traced(observation, *(inputs[spec.name] for spec in others))
            return outputs if isinstance(outputs, dict) else {"action": outputs}

        def single(observation: tf.Tensor, **inputs: tf.Tensor) -> Tensors:
            if "previous_action" in inputs:
                inputs["previous_action"] = inputs["previous_action"][tf.newaxis]
            outputs = named(observation[tf.newaxis], **inputs)
            return {name: output[0] for name, output in outputs.items()}

        input_names = _input_names(self._parts, {spec.name for spec in others})

        def joined(**inputs: tf.Tensor) -> Tensors:
            sizes = zip(input_names, self._parts.values(), strict=True)
            parts = [tf.reshape(inputs.pop(name), [-1, size]) for name, size in sizes]
            return named(tf.concat(parts, axis=1), **inputs)

        self._sign(function.__name__, named, batch, *others)
        one = tf.TensorSpec([self._size], tf.float32, "observation")
        of_one = (
            tf.TensorSpec([self._action_size], tf.float32, spec.name)
            if spec.name == "previous_action"
            else spec
            for spec in others
        )
        self._sign(f"{function.__name__}_single", single, one, *of_one)
        if self._parts:
            specs = [
                tf.TensorSpec([None, size], tf.float32, name)
                for name, size in zip(input_names, self._parts.values(), strict=True)
            ]
            self._sign(f"{function.__name__}_parts", joined, *specs, *others)
        return traced

    def serving(self) -> dict[str, Any]:
        """The signatures, by name."""
        return dict(self._serving)

    def _sign(self, name: str, function: Callable[..., Tensors], *specs: tf.TensorSpec) -> None:
        traced = tf.function(function, autograph=False)
        self._serving[name] = traced.get_concrete_function(**{spec.name: spec for spec in specs})


def part_sizes(task: Task | None) -> dict[str, int]:
    """Sizes of the named parts of an observation; empty where it has none."""
    if task is None or not getattr(task, "observation_keys", ()):
        return {}
    from nppac_tf.environments import standard

    return standard.part_sizes(task.observation_parts)


def _input_names(parts: Mapping[str, int], taken: set[str]) -> list[str]:
    names = [re.sub(r"\W", "_", part, flags=re.ASCII) for part in parts]
    return [f"part_{name}" if name in taken or not name[0].isalpha() else name for name in names]


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


def describe(
    agent: NppacAgent, task: Task | None, novelty: Novelty | None, policy: ServedPolicy
) -> dict[str, Any]:
    """Describes a policy, ready for JSON: numbers that are not finite are None."""
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
        "observation_parts": part_sizes(task),
        "observation_low": numbers(policy.observation_low),
        "observation_high": numbers(policy.observation_high),
        "clip_low": numbers(policy.action_low),
        "clip_high": numbers(policy.action_high),
        "fallback_action": numbers(policy.fallback_action),
        "max_action_change": numbers(policy.max_action_change),
        "prior": type(fitted).__name__,
        "novelty": novelty.summary if novelty else None,
        "updates": int(agent.train_step_counter),
        "versions": {"python": platform.python_version(), "tensorflow": tf.__version__},
    }


def numbers(values: np.ndarray | None) -> list[float | None] | None:
    """A list for JSON, with None for what is not finite; None for None."""
    if values is None:
        return None
    return [float(value) if np.isfinite(value) else None for value in values]
