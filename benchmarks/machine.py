"""The machine that figures come from, in words that name neither it nor its owner."""

import os
import pathlib
import platform
from importlib import metadata

from nppac_tf.hardware import available_cores

_CPU_INFO = pathlib.Path("/proc/cpuinfo")
_ISA = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
_PACKAGES = ("tensorflow", "tensorflow-probability", "tf-agents", "gpflow", "numpy")


def describe() -> dict[str, str | int | float | list[str]]:
    """Processor, cores, instructions that matter to matrix products, memory, and versions."""
    try:
        model, isa = processor(_CPU_INFO.read_text(encoding="utf-8"))
    except OSError:
        model, isa = platform.processor() or platform.machine(), []
    return {
        "processor": model,
        "cores": available_cores(),
        "isa": isa,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def processor(cpu_info: str) -> tuple[str, list[str]]:
    """Model and instruction sets of the first processor in the text of Linux's /proc/cpuinfo."""
    fields = {}
    for line in cpu_info.split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = fields.get("flags", "").split()
    return fields.get("model name", platform.machine()), [name for name in _ISA if name in flags]
