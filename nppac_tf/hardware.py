"""What the machine offers: threads for TensorFlow, and the number format of matrix products.

An update of soft actor-critic is many small operations. Some can run side by side (two critics,
actor and targets), and few are worth splitting. So each operation gets one thread, and as many
operations run at once as there are cores; TensorFlow's default splits each over all cores.

bfloat16 halves the bits of each factor and keeps float32's range. Where a processor has
instructions for it (AMX, AVX512-BF16, tensor cores) products run at a multiple of float32's rate;
elsewhere they are emulated, and slower. Master weights, losses, targets and log-probabilities stay
float32 (Micikevicius et al. 2018, Mixed Precision Training).
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

_CPU_FEATURES = ("amx_bf16", "avx512_bf16")
_FIRST_GPU_WITH_BFLOAT16 = (8, 0)
_CPU_INFO = pathlib.Path("/proc/cpuinfo")
# Operations of an update that can run side by side; cores beyond them may split operations.
_PARALLEL_OPERATIONS = 4


def available_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def variables(cores: int, environment: Mapping[str, str]) -> dict[str, str]:
    """What to set in the environment before TensorFlow starts.

    Args:
        cores: That the process may use, at least 1.
        environment: The present one; where it has one of the variables, nothing is to be set.
    """
    wanted = {
        "TF_NUM_INTRAOP_THREADS": max(1, cores // _PARALLEL_OPERATIONS),
        "TF_NUM_INTEROP_THREADS": cores,
    }
    if any(name in environment for name in wanted):
        return {}
    return {name: str(number) for name, number in wanted.items()}


def resolve_precision(precision: str) -> str:
    """What a precision means on this machine: "auto" is bfloat16 where its device has it.

    Args:
        precision: "float32", "bfloat16" or "auto".

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
    """Whether the processor multiplies bfloat16 in hardware, as far as Linux tells."""
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
