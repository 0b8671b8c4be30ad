"""Runs that may be compared: alike in everything but what is asked about."""

import os
from collections.abc import Container, Sequence

from nppac_tf.config import RunConfig, flatten
from nppac_tf.errors import UserError


def require_alike(
    runs: Sequence[str | os.PathLike[str]],
    configs: Sequence[RunConfig],
    may_differ: Container[str],
    described: str,
) -> None:
    """Checks that runs differ in nothing but some fields.

    Args:
        runs: Their folders.
        configs: Their configurations.
        may_differ: Dotted names of fields, such as "training.seed".
        described: The same for a person.

    Raises:
        UserError: names the first other field that differs, and two runs.
    """
    first = flatten(configs[0].to_dict())
    for run, config in zip(runs, configs, strict=True):
        for field, value in flatten(config.to_dict()).items():
            if field not in may_differ and value != first[field]:
                raise UserError(
                    f"--runs must differ in {described} alone; got {field} {first[field]!r} "
                    f"in {runs[0]} and {value!r} in {run}: leave one out"
                )
