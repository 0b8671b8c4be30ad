import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nppac_tf.agents.batch import Batch
from nppac_tf.priors import PriorStatistics
from nppac_tf.training.replay import Replay

D, A = 3, 2


def batch_of(indices):
    """Transitions in which every number encodes the transition and the column."""
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


@pytest.mark.parametrize(
    ("capacity", "sizes", "expected"),
    [(8, (3,), range(3)), (8, (6, 5), range(3, 11)), (4, (3, 4), range(3, 7))],
)
def test_the_latest_are_held_and_drawn(capacity, sizes, expected):
    replay = filled(capacity, *sizes)
    assert len(replay) == len(expected)
    assert held(replay) == set(expected)


@settings(max_examples=15)
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


def loaded(replay, capacity):
    other = Replay(D, A, capacity)
    other.load(*replay.content())
    return other


def test_content_is_what_is_in_use():
    rows, added = filled(8, 3).content()
    assert rows.shape == (3, 2 * D + 5 * A + 2)
    assert added == 3
    rows, added = filled(4, 3, 3).content()
    assert (len(rows), added) == (4, 6)


def test_a_ring_that_has_gone_round_goes_on_where_it_was():
    replay = loaded(filled(4, 3, 3), 4)
    replay.add(batch_of([6]))
    assert held(replay) == {3, 4, 5, 6}


def test_content_is_a_copy():
    replay = filled(4, 3)
    rows, _ = replay.content()
    before = rows.copy()
    replay.add(batch_of([7, 8, 9]))
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("capacity", [3, 4, 8])
def test_content_that_is_not_full_fits_any_ring(capacity):
    replay = loaded(filled(4, 3), capacity)
    assert held(replay) == {0, 1, 2}
    replay.add(batch_of([3]))
    assert held(replay) == ({1, 2, 3} if capacity == 3 else {0, 1, 2, 3})


@pytest.mark.parametrize(("sizes", "capacity"), [((3, 3), 8), ((3,), 2)])
def test_a_ring_that_has_gone_round_keeps_its_capacity(sizes, capacity):
    with pytest.raises(ValueError, match=f"capacity must be .*; got {capacity}"):
        loaded(filled(4, *sizes), capacity)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: filled(4, 1).load(np.zeros([1, 3], np.float32), 1), "rows must hold .*; got 3"),
        (lambda: Replay(D, A, 0), "capacity must be at least 1; got 0"),
        (lambda: filled(4, 5), "must fit the capacity 4; got 5 rows"),
        (lambda: Replay(D + 1, A, 4).add(batch_of([0])), "rows must hold 20 numbers; got 18"),
    ],
)
def test_what_does_not_fit_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act()
