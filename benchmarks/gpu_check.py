"""Checks the loop of updates on a GPU: compiled by XLA, compared with the CPU, timed.

Run it with `make gpu-check` or `python -m benchmarks.gpu_check`. Without a GPU it says so and
succeeds. The losses of the GPU are those of the CPU to the precision of their products (TF32 on
recent ones) and up to random numbers, which XLA draws in its own way: they are means over a batch.
"""

import sys
import time

import nppac_tf  # noqa: F401  # First: it selects Keras 2, for TF-Agents.

# isort: split
import tensorflow as tf

from benchmarks.measuring import rate
from benchmarks.shapes import SHAPES, Shape
from benchmarks.updates import StandardNormalPrior, filled_replay, project_agent
from nppac_tf.config import TrainingConfig
from nppac_tf.training.learner import Learner

_NUM_TRANSITIONS = 10_000
_COMPARED_UPDATES = 20
_TOLERANCE = 0.1  # Of a loss, relative.
_PRECISIONS = ("float32", "bfloat16")


def make_learner(shape: Shape, precision: str, xla: str) -> Learner:
    """A learner with a full replay of synthetic data, on the device of the caller's scope."""
    prior = StandardNormalPrior(shape.observation_size, shape.action_size)
    config = TrainingConfig(
        batch_size=shape.batch_size, final_temperature=None, policy_averaging=0, xla=xla
    )
    replay = filled_replay(shape, _NUM_TRANSITIONS)
    return Learner(project_agent(shape, prior, precision), replay, config)


def losses(shape: Shape, xla: str) -> dict[str, float]:
    """Mean losses of the first updates."""
    *_, (_, found) = make_learner(shape, "float32", xla).update(_COMPARED_UPDATES, True)
    return found


def differences(shape: Shape, device: str) -> dict[str, float]:
    """How far each loss on the device, compiled by XLA, is from the CPU's, relative to it."""
    with tf.device("CPU"):
        expected = losses(shape, "off")
    with tf.device(device):
        found = losses(shape, "on")
    return {
        name: abs(found[name] - value) / max(abs(value), 0.1) for name, value in expected.items()
    }


def check(device: str) -> bool:
    """Prints what it compares and measures; whether all losses agree."""
    agree = True
    for name, shape in SHAPES.items():
        started = time.perf_counter()
        found = differences(shape, device)
        worst = max(found, key=lambda loss: found[loss])
        agree &= found[worst] <= _TOLERANCE
        print(
            f"shape {name}: losses differ from the CPU's by at most {found[worst]:.2%} ({worst}); "
            f"built and compiled in {time.perf_counter() - started:.0f} s",
            flush=True,
        )
        for precision in _PRECISIONS:
            with tf.device(device):
                learner = make_learner(shape, precision, "on")

                def chunk(learner: Learner = learner) -> int:
                    return max(done for done, _ in learner.update(500, learn_policy=True))

                chunk()
                print(f"shape {name}, {precision}: {rate(chunk, 10.0):,.0f} updates per second")
    return agree


def main() -> None:
    """Checks the first GPU; exits with 1 if its losses are not those of the CPU."""
    build = tf.sysconfig.get_build_info()
    print(f"TensorFlow {tf.__version__}, CUDA {build.get('cuda_version', 'none: a CPU build')}")
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        print(
            "No GPU that TensorFlow sees: nothing checked. With one, install the CUDA build: "
            f"pip install 'tensorflow[and-cuda]=={tf.__version__}'"
        )
        return
    if not check(gpus[0].name):
        sys.exit(f"error: losses differ by more than {_TOLERANCE:.0%}")


if __name__ == "__main__":
    main()
