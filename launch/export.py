"""Exports a run's policy as a SavedModel, measures it and says how to serve it.

python launch/export.py --run=runs/... --output=exported/pen

The policy is that of the run's newest checkpoint. It loads with TensorFlow alone; latency is
measured in a process that has loaded nothing else.
"""

import multiprocessing
import pathlib
import time
from typing import Any

import path_flags
import program
from absl import flags

from nppac_tf.errors import UserError

_BATCHES = (1, 1000)

flags.DEFINE_string("run", None, "Folder of a run.")
flags.DEFINE_string(
    "task", None, "The run's, to be named where it imports a module, as in my_robot:Reach-v0."
)
flags.DEFINE_string("output", None, "The folder to write, new or an earlier export.")


def main() -> None:
    path = path_flags.require_run("run")
    _require_the_task(path)
    if not flags.FLAGS.output:
        raise UserError("--output must be given: the folder to write, such as exported/pen")
    output = path_flags.require_output_folder("output")
    from nppac_tf import export
    from nppac_tf.runs import directory as rundir
    from nppac_tf.runs import display

    directory = rundir.RunDirectory(path)
    agent, task = directory.load_agent()
    novelty = directory.load_novelty()
    if novelty is None and agent.prior.informative:
        novelty = _calibrate(directory.config(), agent.prior, task)
    export.export_policy(agent, output, task, novelty, directory.provenance())

    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        load_seconds, latencies = pool.apply(_measure, (str(output), task.observation_size))
    display.print_table(
        f"{task.name} after {int(agent.train_step_counter):,} updates: "
        f"{size / 1e6:.1f} MB, loads in {load_seconds:.1f} s",
        ("latency (ms)", *(f"{n:,} {part}" for n in _BATCHES for part in ("median", "95 %"))),
        [
            (name, *(f"{1000 * seconds:.2f}" for pair in pairs for seconds in pair))
            for name, pairs in latencies.items()
        ],
    )
    print(_usage(output, task.observation_size, with_novelty=novelty is not None))


def _require_the_task(path: pathlib.Path) -> None:
    trained, given = path_flags.run_configuration(path).task, flags.FLAGS.task
    path_flags.refuse_a_module(path, trained)
    if given not in (None, trained):
        raise UserError(f"--task must be {trained}, the task of {path}; got {given!r}")


def _calibrate(config: Any, prior: Any, task: Any) -> Any:
    """The novelty of a run that has not ended, or None where its demonstrations are gone."""
    from nppac_tf import demonstrations, priors

    try:
        data = demonstrations.load_demonstrations(config.demonstrations, task)
        return priors.Novelty.calibrate(prior, data)
    except UserError as error:
        print(f"Exporting without the out-of-demonstration score: {error}")
        return None


def _measure(path: str, observation_size: int) -> tuple[float, dict[str, list[Any]]]:
    """Seconds to load, and for each signature median and 95th percentile of each batch size."""
    import numpy as np
    import tensorflow as tf

    started = time.perf_counter()
    signatures = tf.saved_model.load(path).signatures
    load_seconds = time.perf_counter() - started
    others = {"seed": tf.constant([1, 2]), "threshold": tf.constant(0.99)}
    latencies: dict[str, list[Any]] = {}
    for name in sorted(set(signatures) - {"serving_default"}):
        inputs = {
            key: value
            for key, value in others.items()
            if key in signatures[name].structured_input_signature[1]
        }
        latencies[name] = []
        for batch in _BATCHES:
            inputs["observation"] = tf.zeros([batch, observation_size])
            signatures[name](**inputs)
            seconds: list[float] = []
            while len(seconds) < 10 or (len(seconds) < 200 and sum(seconds) < 1):
                started = time.perf_counter()
                next(iter(signatures[name](**inputs).values())).numpy()
                seconds.append(time.perf_counter() - started)
            latencies[name].append((np.median(seconds), np.quantile(seconds, 0.95)))
    return load_seconds, latencies


def _usage(output: pathlib.Path, observation_size: int, with_novelty: bool) -> str:
    """Commands that use the export as they stand."""
    name = output.resolve().name
    signature = "action_or_prior" if with_novelty else "mean_action"
    fed, argument, column = (
        ("; threshold=inputs.npz[threshold]", ", threshold=np.float32(0.99)", ", 'threshold': 0.99")
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
    --inputs 'observation=inputs.npz[observation]{fed.replace(" ", "")}'

With TensorFlow Serving:

  docker run -p 8501:8501 -v "{output.resolve()}:/models/{name}/1" -e MODEL_NAME={name} \\
    tensorflow/serving
  python -c "import json; print(json.dumps({{'signature_name': '{signature}',
    'inputs': {{'observation': [[0.0] * {observation_size}]{column}}}}}))" > request.json
  curl -d @request.json http://localhost:8501/v1/models/{name}:predict"""


if __name__ == "__main__":
    program.run(main)
