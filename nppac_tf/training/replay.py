"""Uniform replay held in TensorFlow variables, with the prior's statistics beside each transition.

pi0 never changes, so its statistics are data: its location and scale at s and s' are computed once,
in bulk, when transitions are stored; an update then costs what soft actor-critic costs.
"""

import numpy as np
import tensorflow as tf

from nppac_tf.agents.batch import Batch
from nppac_tf.priors.base import PriorStatistics


class Replay(tf.Module):
    """A ring of the latest `capacity` transitions.

    A transition is one row of one variable, so a batch is one gather.

    Args:
        observation_size: D.
        action_size: A.
        capacity: Rows, at least 1; memory is 4 (2 D + 5 A + 2) bytes each.
    """

    def __init__(self, observation_size: int, action_size: int, capacity: int) -> None:
        super().__init__(name="replay")
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1; got {capacity}")
        self.capacity = capacity
        d, a = observation_size, action_size
        self._widths = [d, a, 1, 1, d, a, a, a, a]
        width = sum(self._widths)
        self._rows = tf.Variable(tf.zeros([capacity, width]), trainable=False, name="rows")
        self._added = tf.Variable(0, dtype=tf.int64, trainable=False, name="added")

    def __len__(self) -> int:
        return min(int(self._added), self.capacity)

    def add(self, batch: Batch) -> None:
        """Stores B transitions, B at most the capacity, over the oldest."""
        columns = [np.asarray(column, np.float32) for column in _flatten(batch)]
        size = len(columns[0])
        if size > self.capacity:
            raise ValueError(f"a batch must fit the capacity {self.capacity}; got {size} rows")
        rows = np.concatenate([column.reshape(size, -1) for column in columns], axis=1)
        if rows.shape[1] != sum(self._widths):
            raise ValueError(f"rows must hold {sum(self._widths)} numbers; got {rows.shape[1]}")
        self._write(tf.constant(rows))

    @tf.function(reduce_retracing=True)
    def _write(self, rows: tf.Tensor) -> None:
        size = tf.shape(rows, out_type=tf.int64)[0]
        indices = tf.math.floormod(self._added + tf.range(size), self.capacity)
        self._rows.scatter_update(tf.IndexedSlices(rows, indices))
        self._added.assign_add(size)

    def content(self) -> tuple[np.ndarray, int]:
        """A copy of the rows in use [len(self), W], and how many were ever added."""
        return self._rows.sparse_read(tf.range(len(self))).numpy(), int(self._added)

    def load(self, rows: np.ndarray, added: int) -> None:
        """The inverse of `content`, into a ring of the same or, unless it was full, any size.

        Raises:
            ValueError: if the rows are of another width, are more than the capacity, or come from
                a full ring of another capacity.
        """
        size, width = rows.shape
        if width != sum(self._widths):
            raise ValueError(f"rows must hold {sum(self._widths)} numbers; got {width}")
        if size > self.capacity or (added > size and size != self.capacity):
            raise ValueError(
                f"capacity must be {size}, that of the checkpoint; got {self.capacity}"
            )
        unused = [[0, self.capacity - size], [0, 0]]
        self._rows.assign(tf.pad(tf.constant(rows, tf.float32), unused))
        self._added.assign(added)

    def sample(self, batch_size: int, seed: tf.Tensor) -> Batch:
        """`batch_size` transitions drawn uniformly with replacement, inside compiled code.

        Args:
            batch_size: B.
            seed: [2] int, stateless: the same seed and content give the same batch.
        """
        size = tf.minimum(self._added, self.capacity)
        indices = tf.random.stateless_uniform([batch_size], seed, 0, size, tf.int64)
        columns = tf.split(tf.gather(self._rows, indices), self._widths, axis=1)
        observations, actions, rewards, discounts, next_observations, *statistics = columns
        return Batch(
            observations,
            actions,
            rewards[:, 0],
            discounts[:, 0],
            next_observations,
            PriorStatistics(*statistics[:2]),
            PriorStatistics(*statistics[2:]),
        )


def _flatten(batch: Batch) -> list[tf.Tensor]:
    return [*batch[:5], *batch.prior, *batch.next_prior]
