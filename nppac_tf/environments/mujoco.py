"""Loads MuJoCo and gymnasium-robotics when first needed, and silences their notices."""

import contextlib
import functools
import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np


@functools.cache
def load() -> None:
    """Imports gymnasium-robotics without its notice, and stops MuJoCo from writing MUJOCO_LOG.TXT.

    The notice is about dense rewards, which no task here uses. MuJoCo still warns on stderr; before
    version 3.10 it writes the file all the same.
    """
    import farama_notifications
    import mujoco

    notice = farama_notifications.notifications.pop("gymnasium_robotics", None)
    try:
        import gymnasium_robotics
    finally:
        if notice is not None:
            farama_notifications.notifications["gymnasium_robotics"] = notice
    gymnasium.register_envs(gymnasium_robotics)
    _compare_joint_types()
    if hasattr(mujoco, "MjLogConfig"):
        log_config = mujoco.MjLogConfig.get()
        log_config.logto_file = False
        mujoco.MjLogConfig.set(log_config)


def _compare_joint_types() -> None:
    """Makes a type of joint equal to its NumPy integer, as it was before MuJoCo 3.12.

    gymnasium-robotics 1.4.2 relies on it: Fetch, the Shadow hand and the kitchen cannot be made
    without.
    """
    import mujoco

    kind = mujoco.mjtJoint
    equals = kind.__eq__
    if kind.mjJNT_HINGE != np.int32(kind.mjJNT_HINGE):
        kind.__eq__ = lambda self, other: equals(
            self, int(other) if isinstance(other, np.integer) else other
        )


@contextlib.contextmanager
def deprecations_dropped() -> Iterator[None]:
    """Silences MuJoCo's warnings about deprecated attributes in the environments' model files."""
    import mujoco

    def warn(message: str) -> None:
        if "is deprecated and will be removed" not in message:
            warnings.warn(message, stacklevel=2)

    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(warn)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)
