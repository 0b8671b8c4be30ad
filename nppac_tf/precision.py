"""What number format matrix products are done in.

bfloat16 halves the bits of each factor and keeps float32's range. Where a processor has
instructions for it (AMX, AVX512-BF16, tensor cores) products run at a multiple of float32's
rate; elsewhere they are emulated, and slower. Master weights, losses, targets and
log-probabilities stay float32 (Micikevicius et al. 2018, Mixed Precision Training).
"""

import pathlib

import tensorflow as tf

_CPU_FEATURES = ("amx_bf16", "avx512_bf16")
_FIRST_GPU_WITH_BFLOAT16 = (8, 0)
_CPU_INFO = pathlib.Path("/proc/cpuinfo")


def resolve(precision: str) -> str:
    """What a precision means on this machine: "auto" is bfloat16 where its device has it.

    Args:
        precision: "float32", "bfloat16" or "auto".

    Returns:
        "float32" or "bfloat16".
    """
    if precision != "auto":
        return precision
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


def _gpu_has_bfloat16(gpu: tf.config.PhysicalDevice) -> bool:
    capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
    return capability >= _FIRST_GPU_WITH_BFLOAT16
