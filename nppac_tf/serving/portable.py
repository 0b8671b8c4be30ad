"""Exports a policy as one ONNX or TFLite model, in standard operations only.

The model `policy.onnx` or `policy.tflite` has one function. Inputs, all float32:

- `observation` [B, D], in the environment's units.
- `noise` [B, A]: standard normal numbers for the sampled action, such as zeros.
- `threshold` [1], with a novelty: see `ServedPolicy.action_or_prior`.
- `previous_action` [B, A], with a rate limit; a row of nan is no limit.

Outputs: `action` [B, A], which is safe to send: limited, and the prior's or the fallback action
where the observation is novel or unusable; `mean_action` and `sampled_action` [B, A], nan where it
is unusable; and with a prior `prior_location` and `prior_scale` [B, A], `novelty` [B] and
`fell_back` [B] bool. A policy that does not build on the prior has `mean_action.onnx` or `.tflite`
as well, from `observation` to `action`.

`policy.json` describes inputs, outputs, bounds and limits. ONNX computes the Gaussian process in
float64. TFLite has float32 only, which rounds more, the less noise the demonstrations have:
`rounding` estimates by how much, in units of the action.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from nppac_tf.errors import UserError
from nppac_tf.priors import plain
from nppac_tf.serving.policy import ServedPolicy, ServingOptions, Tensors
from nppac_tf.serving.saved_model import describe

if TYPE_CHECKING:
    from nppac_tf.agents.nppac import NppacAgent
    from nppac_tf.environments import Task
    from nppac_tf.priors import Novelty

FORMATS = ("onnx", "tflite")
DESCRIPTION = "policy.json"
_VERSION = 1
_OPSET = 17
_EXACT = 1e-5
_UNITS = {
    "observation": "the environment's",
    "noise": "standard normal",
    "threshold": "novelty, 0 to 1",
    "previous_action": "the action's",
    "action": "the action's",
    "mean_action": "the action's",
    "sampled_action": "the action's",
    "prior_location": "the action's",
    "prior_scale": "the action's, a standard deviation",
    "novelty": "share of held-out demonstration states that are less novel, 0 to 1",
    "fell_back": "true or false",
}


def export_portable(
    agent: NppacAgent,
    path: str | os.PathLike[str],
    format: str,
    task: Task | None = None,
    novelty: Novelty | None = None,
    provenance: Mapping[str, Any] | None = None,
    options: ServingOptions | None = None,
) -> dict[str, Any]:
    """Writes a folder with the model and `policy.json`; see the module.

    Args:
        agent: Agent with the policy and the prior.
        path: Folder to write: a new one, or an earlier export of this kind.
        format: "onnx" or "tflite".
        task: Task that declares the bounds of observations.
        novelty: Score calibrated for the agent's prior.
        provenance: For `policy.json`; must be serializable as JSON.
        options: Limits of the actions.

    Returns:
        What `policy.json` says.

    Raises:
        UserError: if the format's converter is missing, `path` exists and is no such export, or an
            option is out of range.
    """
    if format not in FORMATS:
        raise UserError(f"format must be one of {', '.join(FORMATS)}; got {format!r}")
    if format == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise UserError("ONNX needs tf2onnx: pip install 'nppac-tf[onnx]'")
    path = pathlib.Path(os.path.realpath(path))
    if path.exists() and not (path / DESCRIPTION).is_file():
        raise UserError(f"path must be new or an export to replace; got {str(path)!r}")
    dtype = tf.float64 if format == "onnx" else tf.float32
    policy = ServedPolicy(
        agent,
        novelty,
        options,
        task,
        predict=plain.predict(agent.prior, dtype) if agent.prior.informative else None,
        score=plain.novelty(novelty, dtype) if novelty else None,
    )
    functions = _functions(policy)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        folder = pathlib.Path(temporary)
        for name, function in functions.items():
            _CONVERTERS[format](function, folder / f"{name}.{format}")
        content = describe(agent, task, novelty, policy) | {
            "version": _VERSION,
            "format": format,
            "signatures": {
                name: {
                    "model": f"{name}.{format}",
                    "inputs": _tensors(function.structured_input_signature[1]),
                    "outputs": _tensors(function.structured_outputs),
                }
                for name, function in functions.items()
            },
            "posterior": _posterior(agent.prior),
            "rounding": _rounding(policy, ServedPolicy(agent, novelty, options, task)),
            "provenance": dict(provenance or {}),
        }
        (folder / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        path.mkdir(exist_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == DESCRIPTION):
            shutil.copyfile(file, path / file.name)  # The description last.
    return content


def remarks(content: Mapping[str, Any]) -> list[str]:
    """What a user should know of an export, one line each, from its description."""
    lines = []
    if posterior := content["posterior"]:
        lines.append(
            f"The model carries the prior: {posterior['points']:,} points, "
            f"{posterior['numbers']:,} numbers"
        )
    if content["rounding"] and content["rounding"]["action"] > _EXACT:
        lines.append(
            f"Rounding in {content['format']} changes actions at demonstrated states by up to "
            f"{content['rounding']['action']:.1e}"
        )
    return lines


def _functions(policy: ServedPolicy) -> dict[str, Any]:
    """Concrete functions, by the name of their model."""
    size, action_size = policy.prior.observation_size, policy.action_size
    inputs = {"observation": [None, size], "noise": [None, action_size]}
    if policy.scored:
        inputs["threshold"] = [1]
    if policy.max_action_change is not None:
        inputs["previous_action"] = [None, action_size]
    functions = {"policy": _concrete(policy.everything, inputs)}
    if not policy.anchored:
        mean = _concrete(
            lambda observation: {"action": policy.mean_action(observation)},
            {"observation": [None, size]},
        )
        functions["mean_action"] = mean
    return functions


def _concrete(function: Callable[..., Tensors], inputs: Mapping[str, list[int | None]]) -> Any:
    specs = {name: tf.TensorSpec(shape, tf.float32, name) for name, shape in inputs.items()}
    named = tf.function(
        lambda **tensors: {
            name: tf.identity(tensor, name) for name, tensor in function(**tensors).items()
        },
        autograph=False,
    )
    return named.get_concrete_function(**specs)


def _write_onnx(function: Any, path: pathlib.Path) -> None:
    import tf2onnx

    inputs = function.structured_input_signature[1]
    specs = tuple(inputs.values())

    @tf.function(input_signature=specs, autograph=False)
    def positional(*tensors: tf.Tensor) -> Tensors:
        return function(**dict(zip(inputs, tensors, strict=True)))

    def where(context: Any, node: Any, name: str, arguments: Any) -> None:
        """tf2onnx would multiply by 0 and 1, which lets a nan through."""
        node.type = "Where"

    model, _ = tf2onnx.convert.from_function(
        positional, specs, opset=_OPSET, custom_op_handlers={"SelectV2": (where, [])}
    )
    path.write_bytes(model.SerializeToString())


def _write_tflite(function: Any, path: pathlib.Path) -> None:
    module = tf.Module()  # With one, the model has a signature with names.
    module.function, module.captured = function, list(function.variables)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    path.write_bytes(converter.convert())


_CONVERTERS = {"onnx": _write_onnx, "tflite": _write_tflite}


def _tensors(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {
            "shape": [size if size is not None else "B" for size in tensor.shape],
            "dtype": tensor.dtype.name,
            "unit": _UNITS[name],
        }
        for name, tensor in tensors.items()
    }


def _rounding(policy: ServedPolicy, exact: ServedPolicy) -> dict[str, float] | None:
    """Largest difference of each output at demonstrated states; None without a GP."""
    states = _demonstrated(policy.prior)
    if states is None:
        return None
    rows = np.linspace(0, len(states) - 1, min(len(states), 256)).astype(int)
    observation = tf.constant(states[rows], tf.float32)
    ours, theirs = (each.action_with_prior(observation) for each in (policy, exact))
    return {name: float(np.nanmax(np.abs(ours[name] - theirs[name]), initial=0.0)) for name in ours}


def _demonstrated(prior: Any) -> np.ndarray | None:
    while hasattr(prior, "prior"):
        prior = prior.prior
    try:
        arrays = prior.state()[1]
        return arrays["centers"] * arrays["observation_scale"] + arrays["observation_shift"]
    except (KeyError, NotImplementedError):
        return None


def _posterior(prior: Any) -> dict[str, int] | None:
    """Size of a Gaussian process: points, and numbers that a prediction reads."""
    states = _demonstrated(prior)
    if states is None:
        return None
    return {"points": len(states), "numbers": states.size + len(states) * prior.action_size}
