import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nppac_tf.priors import PriorStatistics
from nppac_tf.replay import Batch, Replay

D, A = 3, 2


def batch_of(indices):
    """Transitions in which every number tells the transition and the column."""
    base = 100.0 * np.asarray(indices, np.float32)

    def columns(first, size):
        return base[:, np.newaxis] + first + np.arange(size, dtype=np.float32)

    return Batch(
        columns(0, D),
        columns(10, A),
        base + 20,
        base + 30,
        columns(40, D),
        PriorStatistics(columns(50, A), columns(60, A)),
        PriorStatistics(columns(70, A), columns(80, A)),
    )


def indices_in(batch):
    return np.round(batch.rewards.numpy() / 100 - 0.2).astype(int)


def filled(capacity, *sizes):
    replay = Replay(D, A, capacity)
    first = 0
    for size in sizes:
        replay.add(batch_of(range(first, first + size)))
        first += size
    return replay


def held(replay, num_samples=1000):
    """The transitions that a replay of few rows holds."""
    return set(indices_in(replay.sample(num_samples, tf.constant([0, 0]))))


def test_a_sample_is_what_was_stored():
    sample = filled(8, 5).sample(64, tf.constant([1, 2]))
    expected = batch_of(indices_in(sample))
    assert sample.rewards.shape == sample.discounts.shape == [64]
    for actual, stored in zip(tf.nest.flatten(sample), tf.nest.flatten(expected), strict=True):
        assert actual.dtype == tf.float32
        np.testing.assert_array_equal(actual, stored)


def test_only_what_was_stored_is_drawn():
    assert held(filled(8, 3)) == {0, 1, 2}


def test_the_oldest_are_overwritten():
    replay = filled(8, 6, 5)
    assert len(replay) == 8
    assert held(replay) == set(range(3, 11))


def test_a_batch_may_fill_the_capacity():
    assert held(filled(4, 3, 4)) == {3, 4, 5, 6}


def test_the_length_counts_up_to_the_capacity():
    replay = Replay(D, A, 5)
    lengths = []
    for index in range(7):
        replay.add(batch_of([index]))
        lengths.append(len(replay))
    assert lengths == [1, 2, 3, 4, 5, 5, 5]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=8))
def test_the_ring_is_the_end_of_a_list(sizes):
    replay = filled(7, *sizes)
    model = list(range(sum(sizes)))[-7:]
    assert len(replay) == len(model)
    rows = replay._rows.numpy()[: len(replay)]
    assert sorted(np.round(rows[:, D + A] / 100 - 0.2).astype(int)) == model
    assert held(replay, 300) <= set(model)


def test_samples_are_uniform():
    sample = filled(10, 10).sample(20_000, tf.constant([7, 3]))
    counts = np.bincount(indices_in(sample), minlength=10)
    assert counts.sum() == 20_000
    assert stats.chisquare(counts).pvalue > 0.001


def test_sampling_is_a_function_of_the_seed():
    replay = filled(50, 50)
    draws = [indices_in(replay.sample(64, tf.constant(seed))) for seed in ([1, 2], [1, 2], [1, 3])]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).mean() > 0.8


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_sampling_sees_what_is_added_later(jit_compile):
    replay = filled(8, 2)
    sample = tf.function(replay.sample, jit_compile=jit_compile)

    def drawn():
        return set(indices_in(sample(256, tf.constant([1, 2]))))

    assert drawn() == {0, 1}
    replay.add(batch_of([2, 3]))
    assert drawn() == {0, 1, 2, 3}


def test_adding_batches_of_many_sizes_does_not_retrace():
    replay = Replay(D, A, 50)
    for size in (1, 2, 3, 4, 5, 6):
        replay.add(batch_of(range(size)))
    assert replay._write.experimental_get_tracing_count() <= 2


def test_a_checkpoint_holds_rows_and_position(tmp_path):
    replay = filled(4, 3, 3)
    path = tf.train.Checkpoint(replay=replay).write(str(tmp_path / "replay"))
    other = Replay(D, A, 4)
    tf.train.Checkpoint(replay=other).read(path).assert_consumed()
    other.add(batch_of([6]))
    assert held(other) == {3, 4, 5, 6}


def restored(folder, replay, capacity):
    path = tf.train.Checkpoint(replay=replay).write(str(folder / "replay"))
    other = Replay(D, A, capacity)
    tf.train.Checkpoint(replay=other).read(path).assert_consumed()
    return other


def test_a_larger_capacity_can_be_reserved_after_a_checkpoint(tmp_path):
    replay = restored(tmp_path, filled(4, 3), capacity=8)
    replay.reserve()
    replay.add(batch_of(range(3, 10)))
    assert len(replay) == 8
    assert held(replay) == set(range(2, 10))


@pytest.mark.parametrize(("sizes", "capacity"), [((3, 3), 8), ((3,), 2)])
def test_a_ring_that_has_gone_round_keeps_its_capacity(tmp_path, sizes, capacity):
    replay = restored(tmp_path, filled(4, *sizes), capacity)
    with pytest.raises(ValueError, match=f"capacity must be 4, .*; got {capacity}"):
        replay.reserve()


def test_a_capacity_below_one_is_refused():
    with pytest.raises(ValueError, match="capacity must be at least 1; got 0"):
        Replay(D, A, 0)


def test_a_batch_beyond_the_capacity_is_refused():
    with pytest.raises(ValueError, match="must fit the capacity 4; got 5 rows"):
        filled(4, 5)


def test_rows_of_another_size_are_refused():
    with pytest.raises(ValueError, match=f"rows must hold {2 * (D + 1) + 5 * A + 2} numbers"):
        Replay(D + 1, A, 4).add(batch_of([0]))
