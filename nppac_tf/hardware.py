"""Threads of TensorFlow, and the number format of matrix products, for this machine.

An update of soft actor-critic consists of many small operations. Some can run in parallel (critics,
actor, targets), and few are large enough to be split over threads. So each operation gets one
thread (more from eight cores), and as many operations run at once as there are cores. TensorFlow's
default splits each operation over all cores.

bfloat16 has the range of float32 and half its bits. On processors with instructions for it (AMX,
AVX512-BF16, tensor cores) matrix products are several times faster than in float32; on others they
are emulated and slower. Master weights, losses, targets and log-probabilities stay in float32
(Micikevicius et al. 2018, Mixed Precision Training).
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

_CPU_FEATURES = ("amx_bf16", "avx512_bf16")
_FIRST_GPU_WITH_BFLOAT16 = (8, 0)
_CPU_INFO = pathlib.Path("/proc/cpuinfo")
# Operations of an update that can run in parallel; more cores than these split operations.
_PARALLEL_OPERATIONS = 4


def available_cores() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parallel_operations() -> int:
    """Number of operations that may run at once: `TF_NUM_INTEROP_THREADS`, or the cores."""
    return int(os.environ.get("TF_NUM_INTEROP_THREADS", "0")) or available_cores()


def variables(cores: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Computes the environment variables to set before TensorFlow is imported.

    Args:
        cores: Number of cores that the process may use, at least 1.
        environment: Current environment. If it sets one of the variables, the result is empty.
    """
    wanted = {
        "TF_NUM_INTRAOP_THREADS": max(1, cores // _PARALLEL_OPERATIONS),
        "TF_NUM_INTEROP_THREADS": cores,
    }
    if any(name in environment for name in wanted):
        return {}
    return {name: str(number) for name, number in wanted.items()}


def resolve_precision(precision: str) -> str:
    """Resolves a precision for this machine.

    Args:
        precision: "float32", "bfloat16", or "auto" for bfloat16 if the hardware supports it.

    Returns:
        "float32" or "bfloat16".
    """
    if precision != "auto":
        return precision
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    fast = all(map(_gpu_has_bfloat16, gpus)) if gpus else cpu_has_bfloat16()
    return "bfloat16" if fast else "float32"


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware; False if that is unknown."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return any(feature in flags for feature in _CPU_FEATURES)


def _gpu_has_bfloat16(gpu: Any) -> bool:
    import tensorflow as tf

    capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
    return capability >= _FIRST_GPU_WITH_BFLOAT16
