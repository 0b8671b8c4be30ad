"""Exports a run's policy as a SavedModel, ONNX or TFLite, measures it and prints how to serve it.

python launch/export.py --run=runs/... --output=exported/pen
python launch/export.py --run=runs/... --output=exported/pen_onnx --format=onnx

The policy is that of the newest checkpoint. A SavedModel loads with TensorFlow alone. Size and
latency are measured in a new process, with one thread.
"""

import importlib.util
import multiprocessing
import pathlib
import time
from typing import Any

from common import checks, policies, program
from absl import flags

from nppac_tf.errors import UserError

_BATCHES = (1, 1000)

flags.DEFINE_string("run", None, "Folder of a run.")
flags.DEFINE_string(
    "task", None, "Task of the run; needed only if it imports a module, as my_robot:Reach-v0 does."
)
flags.DEFINE_enum("policy", "last", ("last", "best"), "Which policy of the run to export.")
flags.DEFINE_string("output", None, "Folder to write: a new one, or an earlier export.")
flags.DEFINE_enum("format", "savedmodel", ("savedmodel", "onnx", "tflite"), "Format of the model.")
_NUMBERS = "one number, or one per action component"
flags.DEFINE_list(
    "fallback_action", ["0"], f"Action for an observation that cannot be used, or nan: {_NUMBERS}."
)
flags.DEFINE_list("clip_low", ["-inf"], f"Lower limit of actions: {_NUMBERS}.")
flags.DEFINE_list("clip_high", ["inf"], f"Upper limit of actions: {_NUMBERS}.")
flags.DEFINE_list(
    "max_action_change", None, f"Largest change of the action from step to step: {_NUMBERS}."
)


def main() -> None:
    path, config = checks.run_folder("run")
    policies.confirm_module(path, config.task)
    from nppac_tf.environments.known import task_name

    if flags.FLAGS.task is not None and task_name(flags.FLAGS.task) != config.task:
        raise UserError(
            f"--task must be {config.task}, the task of {path}; got {flags.FLAGS.task!r}"
        )
    output = checks.output_folder("output")
    if flags.FLAGS.format == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise UserError("--format=onnx needs tf2onnx: pip install 'nppac-tf[onnx]'")
    from nppac_tf.runs import display
    from nppac_tf.runs.directory import RunDirectory
    from nppac_tf.serving import metadata, portable, saved_model
    from nppac_tf.serving.policy import ServingOptions

    options = ServingOptions(
        **{name: _numbers(name) for name in _LIMITS if flags.FLAGS[name].value is not None}
    )
    directory = RunDirectory(path)
    agent, task = directory.load_agent(flags.FLAGS.policy)
    novelty = directory.load_novelty()
    if novelty is None and agent.prior.informative:
        novelty = _calibrate(config.demonstrations, agent.prior, task)
    format, provenance = flags.FLAGS.format, directory.provenance()
    steps = directory.steps_after(int(agent.train_step_counter))
    with display.ProgressDisplay() as progress:
        with progress.busy(f"Exporting to {output}"):
            if format == "savedmodel":
                saved_model.export_policy(agent, output, task, novelty, provenance, options)
            else:
                content = portable.export_portable(
                    agent, output, format, task, novelty, provenance, options
                )
        if format != "savedmodel":
            for line in portable.remarks(content):
                progress.say(line)
        size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
        with (
            progress.busy("Measuring its speed"),
            multiprocessing.get_context("spawn").Pool(1, program.silence_libraries) as pool,
        ):
            load_seconds, latencies = pool.apply(_measure, (str(output),))
    display.print_table(
        f"{task.name} after {steps:,} steps: {size / 1e6:.1f} MB, loads in {load_seconds:.1f} s\n"
        "Milliseconds per call with 1 observation, and with 1,000",
        ("function", *(f"{n:,}, {part}" for n in _BATCHES for part in ("median", "95 %"))),
        [
            (name, *(f"{1000 * seconds:.2f}" for pair in pairs for seconds in pair))
            for name, pairs in latencies.items()
        ],
    )
    if format == "savedmodel":
        print(_how_to_serve(output, task.observation_size, with_novelty=novelty is not None))
    else:
        print(f"Inputs, outputs and limits are in {output / metadata.DESCRIPTION}")


_LIMITS = ("fallback_action", "clip_low", "clip_high", "max_action_change")


def _numbers(flag: str) -> Any:
    values = flags.FLAGS[flag].value or []
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        raise UserError(f"--{flag} must be {_NUMBERS}; got {','.join(values)}") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _calibrate(demonstrations: str, prior: Any, task: Any) -> Any:
    """Calibrates the novelty of a run that is not finished; None if its demonstrations are gone."""
    from nppac_tf import priors
    from nppac_tf.demonstrations import load_demonstrations

    try:
        return priors.Novelty.calibrate(prior, load_demonstrations(demonstrations, task))
    except UserError as error:
        print(f"Exporting without the out-of-demonstration score: {error}")
        return None


def _measure(path: str) -> tuple[float, dict[str, list[Any]]]:
    """Returns seconds to load, and (median, 95th percentile) of each signature and batch size."""
    import numpy as np

    from nppac_tf.serving.runtimes import load_model

    started = time.perf_counter()
    model = load_model(path)
    load_seconds = time.perf_counter() - started
    latencies: dict[str, list[Any]] = {}
    for name in sorted(model.signatures):
        if name == "serving_default" or name.endswith(("_single", "_parts")):
            continue
        latencies[name] = []
        for batch in _BATCHES:
            inputs = model.zeros(name, batch)
            model(name, inputs)
            seconds: list[float] = []
            while len(seconds) < 10 or (len(seconds) < 200 and sum(seconds) < 1):
                started = time.perf_counter()
                model(name, inputs)
                seconds.append(time.perf_counter() - started)
            latencies[name].append((np.median(seconds), np.quantile(seconds, 0.95)))
    return load_seconds, latencies


def _how_to_serve(output: pathlib.Path, observation_size: int, with_novelty: bool) -> str:
    """Returns commands that use the export, ready to paste."""
    name = output.resolve().name
    serve = program.command(f"--model={output}", launcher="serve")
    signature = "action_or_prior" if with_novelty else "mean_action"
    fed, argument, column = (
        (";threshold=inputs.npz[threshold]", ", threshold=np.float32(0.99)", ", 'threshold': 0.99")
        if with_novelty
        else ("", "", "")
    )
    return f"""
In Python, with TensorFlow alone:

  policy = tf.saved_model.load("{output}")
  action = policy.mean_action(observation)  # [B, {observation_size}] float32

On the command line:

  python -c "import numpy as np; np.savez('inputs.npz',
    observation=np.zeros((2, {observation_size}), np.float32){argument})"
  saved_model_cli run --dir {output} --tag_set serve --signature_def {signature} \\
    --inputs 'observation=inputs.npz[observation]{fed}'

Over HTTP (for TensorFlow Serving itself see docs/serving.md):

  {serve}

and from another terminal:

  python -c "import json; print(json.dumps({{'signature_name': '{signature}',
    'inputs': {{'observation': [[0.0] * {observation_size}]{column}}}}}))" > request.json
  curl -d @request.json http://localhost:8501/v1/models/{name}:predict"""


if __name__ == "__main__":
    program.run(main)
