"""What the processor's time of an update goes to, by kind of TensorFlow operation."""

import collections
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import updates
from benchmarks.shapes import Shape

_PRODUCTS = ("MatMul",)
_SHOWN = 8


def prepare(settings: dict[str, Any]) -> tuple[dict[str, float], None]:
    """Of `serving`.

    Args:
        settings: "shape": the fields of a `Shape`.

    Returns:
        Shares of the time in which operations of N-PPAC's updates in float32 ran: "products",
        with bias and activation where TensorFlow fuses them; the largest others by their names;
        and "rest".
    """
    shape = Shape(**settings["shape"])
    agent = updates.project_agent(
        shape,
        updates.StandardNormalPrior(shape.observation_size, shape.action_size),
        "float32",
    )
    replay = updates.filled_replay(shape, 10_000)
    chunk = updates.project_updates(agent, replay, shape.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        options = tf.profiler.experimental.ProfilerOptions(
            host_tracer_level=3, python_tracer_level=0
        )
        with tf.profiler.experimental.Profile(folder, options):
            chunk()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    return shares(_durations(space)), None


def _durations(space: Any) -> collections.Counter[str]:
    """Picoseconds of each kind of operation: of the events NAME:KIND, and no others."""
    total: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name, colon, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if colon and not name.endswith(":") and not kind.startswith(" "):
                    total[kind] += event.duration_ps
    return total


def shares(durations: Mapping[str, float]) -> dict[str, float]:
    """Shares of the whole: products together, the largest others, and what remains as "rest"."""
    whole = sum(durations.values())
    products = sum(value for kind, value in durations.items() if kind.endswith(_PRODUCTS))
    others = {kind: value for kind, value in durations.items() if not kind.endswith(_PRODUCTS)}
    largest = sorted(others, key=others.__getitem__, reverse=True)[:_SHOWN]
    rest = sum(others.values()) - sum(others[kind] for kind in largest)
    named = {"products": products, **{kind: others[kind] for kind in largest}, "rest": rest}
    return {kind: value / whole for kind, value in named.items()}
