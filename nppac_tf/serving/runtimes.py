"""Runs exports of every format with one interface: named arrays in, named arrays out."""

from __future__ import annotations

import abc
import os
import pathlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from nppac_tf.errors import UserError
from nppac_tf.files import for_tensorflow
from nppac_tf.serving.metadata import load_metadata

Arrays = dict[str, np.ndarray]


class Model(abc.ABC):
    """A loaded export.

    Attributes:
        description: What `policy.json`, or the metadata of a SavedModel, says.
    """

    description: dict[str, Any]

    @abc.abstractmethod
    def __call__(self, signature: str, inputs: Arrays) -> Arrays:
        """Computes the outputs of a signature, float32 or bool.

        Raises:
            KeyError: if there is no such signature.
            UserError: if inputs are missing, are not known, or have another shape.
        """

    @property
    @abc.abstractmethod
    def signatures(self) -> dict[str, dict[str, tuple[list[int | None] | None, str]]]:
        """Shape and dtype of the inputs of each signature; a size or shape of any kind is None."""

    def mean_action(self, observation: np.ndarray) -> np.ndarray:
        """The greedy actions [B, A] at observations [B, D]; nan where one is unusable."""
        if "mean_action" in self.signatures:
            return self("mean_action", {"observation": observation})["action"]
        zeros = np.zeros([len(observation), self.description["action_size"]], np.float32)
        inputs = {"observation": observation, "noise": zeros, "previous_action": zeros}
        inputs["threshold"] = np.ones(1, np.float32)
        names = self.signatures["policy"]
        return self("policy", {name: inputs[name] for name in names})["mean_action"]

    def zeros(self, signature: str, batch: int = 1) -> Arrays:
        """Inputs of a signature, all 0: to measure it, or to compile it before a request."""
        return {
            name: np.zeros([batch if size is None else size for size in shape or []], dtype)
            for name, (shape, dtype) in self.signatures[signature].items()
        }

    def check(self, signature: str, inputs: Arrays) -> Arrays:
        """Converts inputs to the declared types; raises as `__call__`."""
        declared = self.signatures[signature]
        if inputs.keys() != declared.keys():
            raise UserError(
                f"inputs of {signature} must be {', '.join(declared)}; "
                f"got {', '.join(inputs) or 'none'}"
            )
        batches: dict[str, int] = {}
        converted = {}
        for name, (shape, dtype) in declared.items():
            value = np.asarray(inputs[name])
            if value.dtype.kind not in "iuf" or (dtype == "int32" and value.dtype.kind == "f"):
                raise UserError(f"{name} must be numbers ({dtype})")
            with np.errstate(over="ignore"):
                value = converted[name] = value.astype(dtype)
            wanted: list[int | None] = shape or []
            if shape is None and value.ndim:
                wanted = [None]
            fits = len(wanted) == value.ndim and all(
                size in (None, have) for size, have in zip(wanted, value.shape, strict=True)
            )
            if not fits:
                shown = ["B" if size is None else size for size in wanted]
                raise UserError(f"{name} must have shape {shown}; got {list(value.shape)}")
            if value.ndim and wanted[0] is None:
                batches[name] = len(value)
        if len(set(batches.values())) > 1:
            raise UserError(f"inputs must have as many rows; got {batches}")
        return converted


def load_model(path: str | os.PathLike[str], threads: int = 1) -> Model:
    """Loads an export: a SavedModel, or a folder with `policy.json`.

    Args:
        path: Folder.
        threads: Threads of ONNX Runtime and TFLite; those of TensorFlow are the process's.

    Raises:
        UserError: if there is no export, it is damaged, or its runtime is not installed.
    """
    path, description = pathlib.Path(path), load_metadata(path)
    if "format" not in description:
        return _SavedModel(path, description)
    try:
        kind = {"onnx": _Onnx, "tflite": _TFLite}[description["format"]]
        return kind(path, description, threads)
    except ImportError:
        raise UserError("ONNX models need onnxruntime: pip install 'nppac-tf[onnx]'") from None
    except UserError:
        raise
    except Exception as error:  # Of each runtime others.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is not a complete export: {reason}") from None


def load_policy(path: str | os.PathLike[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Loads the greedy policy of an export of any format, for `evaluate`.

    Returns:
        A function from observations [B, D] to actions [B, A], or from [D] to [A], float32. It
        raises UserError for another shape.

    Raises:
        UserError: if `path` is not an exported policy.
    """
    model = load_model(path)
    size = model.description["observation_size"]
    action_size = model.description["action_size"]

    def policy(observations: np.ndarray) -> np.ndarray:
        shape = list(np.shape(observations))
        if len(shape) not in (1, 2) or shape[-1] != size:
            raise UserError(f"observations must be [B, {size}] or [{size}]; got {shape}")
        batch = np.asarray(observations, np.float32).reshape(-1, size)
        return model.mean_action(batch).reshape(*shape[:-1], action_size)

    return policy


class _SavedModel(Model):
    def __init__(self, path: pathlib.Path, description: dict[str, Any]) -> None:
        import tensorflow as tf

        self.description = description
        try:
            with for_tensorflow(path) as readable:
                self._module = tf.saved_model.load(str(readable))
        except (OSError, ValueError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} is not a complete exported policy: {reason}") from None
        self._convert = tf.constant

    @cached_property
    def signatures(self) -> dict[str, dict[str, tuple[list[int | None] | None, str]]]:
        return {
            name: {
                key: (None if spec.shape.rank is None else list(spec.shape), spec.dtype.name)
                for key, spec in signature.structured_input_signature[1].items()
            }
            for name, signature in self._module.signatures.items()
        }

    def __call__(self, signature: str, inputs: Arrays) -> Arrays:
        function = self._module.signatures[signature]
        tensors = {
            name: self._convert(value) for name, value in self.check(signature, inputs).items()
        }
        return {name: output.numpy() for name, output in function(**tensors).items()}


class _Portable(Model):
    """What ONNX and TFLite share: signatures are models, as `policy.json` says."""

    def __init__(self, path: pathlib.Path, description: dict[str, Any], threads: int) -> None:
        self.description = description
        self._models: dict[str, Callable[[Arrays], Arrays]] = {
            name: self._load(path / f"{name}.{description['format']}", threads)
            for name in description["signatures"]
        }

    @abc.abstractmethod
    def _load(self, file: pathlib.Path, threads: int) -> Callable[[Arrays], Arrays]:
        """A function from inputs, converted, to outputs."""

    @cached_property
    def signatures(self) -> dict[str, dict[str, tuple[list[int | None] | None, str]]]:
        return {
            name: {
                key: ([None if size == "B" else size for size in tensor["shape"]], tensor["dtype"])
                for key, tensor in signature["inputs"].items()
            }
            for name, signature in self.description["signatures"].items()
        }

    def __call__(self, signature: str, inputs: Arrays) -> Arrays:
        return self._models[signature](self.check(signature, inputs))


class _Onnx(_Portable):
    def _load(self, file: pathlib.Path, threads: int) -> Callable[[Arrays], Arrays]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


class _TFLite(_Portable):
    def _load(self, file: pathlib.Path, threads: int) -> Callable[[Arrays], Arrays]:
        import tensorflow as tf

        interpreter = tf.lite.Interpreter(str(file), num_threads=threads)
        runner = interpreter.get_signature_runner()
        details = runner.get_input_details()
        outputs = {name: detail["index"] for name, detail in runner.get_output_details().items()}
        shapes: dict[str, tuple[int, ...]] = {}

        def run(inputs: Arrays) -> Arrays:
            nonlocal shapes
            wanted = {name: value.shape for name, value in inputs.items()}
            if wanted != shapes:
                for name, shape in wanted.items():
                    interpreter.resize_tensor_input(details[name]["index"], shape)
                interpreter.allocate_tensors()
                shapes = wanted
            for name, value in inputs.items():
                interpreter.set_tensor(details[name]["index"], value)
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in outputs.items()}

        return run
