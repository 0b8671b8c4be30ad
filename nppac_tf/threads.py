"""How many threads TensorFlow is to use on a CPU.

An update of soft actor-critic is many small operations, some of which can run side by side (two
critics, actor and targets), and few that are worth splitting. So each operation gets one thread,
and as many operations run at once as there are cores, where TensorFlow's default splits each over
all cores. Fitting a Gaussian process, one large operation after the other, loses a little.
"""

import os
from collections.abc import Mapping

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
