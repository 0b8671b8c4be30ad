"""Tests of the data set itself: validation, joining, selecting, splitting, conforming."""

import copy
import dataclasses
import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Spaces:
    """The part of a task that demonstrations are conformed to."""

    observation_size: int
    action_size: int
    action_low: np.ndarray
    action_high: np.ndarray
    name: str = "toy"


def make_demonstrations(lengths=(2, 3, 1), observation_size=3, action_size=2, seed=0):
    generator = np.random.default_rng(seed)
    return Demonstrations.from_episodes(
        [
            (generator.normal(size=(n, observation_size)), generator.normal(size=(n, action_size)))
            for n in lengths
        ],
        name="toy",
        metadata={"origin": "a generator"},
    )


def test_repr_shows_the_sizes():
    assert repr(make_demonstrations()) == (
        "Demonstrations('toy': 3 episodes, 6 steps, observation size 3, action size 2)"
    )


def test_arrays_are_read_only_contiguous_copies():
    observations = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    actions = np.zeros([2, 1], np.float32)
    ends = np.array([2], np.int32)
    demonstrations = Demonstrations(observations, actions, ends)
    actions[:] = 7
    ends[:] = 1
    assert demonstrations.actions.max() == 0
    assert demonstrations.episode_ends[-1] == 2
    assert actions.flags.writeable
    for array, dtype in (
        (demonstrations.observations, np.float32),
        (demonstrations.actions, np.float32),
        (demonstrations.episode_ends, np.int64),
    ):
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_episodes_are_views_of_their_own_steps():
    demonstrations = make_demonstrations()
    episodes = list(demonstrations.episodes())
    assert [len(observations) for observations, _ in episodes] == [2, 3, 1]
    np.testing.assert_array_equal(episodes[1][0], demonstrations.observations[2:5])
    np.testing.assert_array_equal(episodes[1][1], demonstrations.actions[2:5])
    assert all(np.shares_memory(o, demonstrations.observations) for o, _ in episodes)


def test_survives_pickle_and_deepcopy():
    demonstrations = make_demonstrations()
    for twin in (pickle.loads(pickle.dumps(demonstrations)), copy.deepcopy(demonstrations)):
        assert twin.fingerprint() == demonstrations.fingerprint()
        assert twin.metadata == demonstrations.metadata


TWO = np.zeros([2, 1])


@pytest.mark.parametrize(
    ("observations", "actions", "ends", "message"),
    [
        (TWO, np.zeros(2), [2], r"actions must be \[N, A\] to match .* \[2, 1\]; got \[2\]"),
        (TWO, np.zeros([1, 6]), [2], r"actions must be \[N, A\] to match .*; got \[1, 6\]"),
        (np.zeros(4), TWO, [2], r"observations must be \[N, D\]; got \[4\]"),
        (np.zeros([2, 0]), TWO, [2], r"observations must be .*; got \[2, 0\]"),
        (np.zeros([2, 1], complex), TWO, [2], "observations must be numbers"),
        ([["a"]], [[0.0]], [1], "observations must be numbers"),
        ([[0.0], [0.0, 1.0]], TWO, [2], r"observations must be \[N, D\]; got rows of several"),
        (TWO, TWO, [], "at least one episode; got 0"),
        (TWO, TWO, [1], "the number of steps 2; got 1"),
        (TWO, TWO, [1, 1, 2], "no episode is empty; got 1 for episode 1"),
        (TWO, TWO, [0, 2], "no episode is empty; got 0 for episode 0"),
        (TWO, TWO, [2.0], "episode_ends must be .* whole numbers"),
        (TWO, TWO, [[2]], "episode_ends must be .* whole numbers"),
    ],
)
def test_refuses_what_does_not_match(observations, actions, ends, message):
    with pytest.raises(UserError, match=message):
        Demonstrations(observations, actions, ends)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e300])
@pytest.mark.parametrize("field", ["observations", "actions"])
def test_refuses_values_that_are_not_finite_in_float32(field, value):
    arrays = {"observations": np.zeros([5, 3]), "actions": np.zeros([5, 3])}
    arrays[field][3, 1] = value
    with pytest.raises(
        UserError,
        match=rf"{field} must be finite in float32; got 1 .* at step 3 \(episode 1\), dimension 1",
    ):
        Demonstrations(**arrays, episode_ends=[3, 5])


@pytest.mark.parametrize("metadata", [{"x": np.zeros(2)}, {"x": float("nan")}, {"x": {1, 2}}])
def test_refuses_metadata_that_json_cannot_hold(metadata):
    with pytest.raises(UserError, match="metadata must be JSON-serializable"):
        Demonstrations(np.zeros([1, 1]), np.zeros([1, 1]), [1], metadata=metadata)


def test_from_episodes_drops_a_last_observation_without_action():
    demonstrations = Demonstrations.from_episodes(
        [
            ([[0.0], [1.0], [2.0]], [[5.0], [6.0]]),
            ([[3.0], [4.0]], [[7.0], [8.0]]),
        ],
        notices=["found on the way"],
    )
    np.testing.assert_array_equal(demonstrations.observations[:, 0], [0, 1, 3, 4])
    np.testing.assert_array_equal(demonstrations.actions[:, 0], [5, 6, 7, 8])
    np.testing.assert_array_equal(demonstrations.episode_ends, [2, 4])
    assert demonstrations.notices == (
        "found on the way",
        "dropped the last observation of 1 of 2 episodes: no action follows it",
    )


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ([], "at least one episode; got 0"),
        ((np.zeros([3, 5, 2]), np.zeros([3, 5, 1])), "episode 0 must be a pair .*; got 3 items"),
        ([(np.zeros([4, 2]), np.zeros([5, 1]))], r"episode 0 .* \[4, 2\]; got \[5, 1\]"),
        ([(np.zeros([1, 2]), np.zeros([0, 1]))], "episode 0 must hold at least one step; got 0"),
        ([(np.zeros([0, 2]), np.zeros([0, 1]))], "episode 0 must hold at least one step; got 0"),
        ([(TWO, np.zeros(2))], r"actions of episode 0 must be .*; got \[2\]"),
        ([(TWO, TWO), (np.zeros([2, 3]), TWO)], "observations of episode 1 must be 1 wide .* 3"),
        ([(TWO, TWO), (TWO, np.zeros([2, 4]))], "actions of episode 1 must be 1 wide .* got 4"),
    ],
)
def test_from_episodes_refuses_what_does_not_match(episodes, message):
    with pytest.raises(UserError, match=message):
        Demonstrations.from_episodes(episodes)


def test_select_takes_whole_episodes_in_the_order_given():
    demonstrations = make_demonstrations()
    chosen = demonstrations.select([2, 0])
    np.testing.assert_array_equal(chosen.observations, demonstrations.observations[[5, 0, 1]])
    np.testing.assert_array_equal(chosen.actions, demonstrations.actions[[5, 0, 1]])
    np.testing.assert_array_equal(chosen.episode_ends, [1, 3])
    assert chosen.name == "toy"
    assert chosen.metadata == demonstrations.metadata


OUTCOMES = {
    "rewards": [1, 2, 3, 4, 5, 6],
    "successes": [0, 1, 0, 0, 1, 1],
    "terminated": [True, False, True],
}


def test_outcomes_follow_their_steps_and_episodes():
    demonstrations = dataclasses.replace(make_demonstrations(), **OUTCOMES)
    assert demonstrations.mean_return == 7
    assert make_demonstrations().mean_return is None
    chosen = demonstrations.select([2, 0])
    assert chosen.rewards.tolist() == [6, 1, 2]
    assert chosen.successes.tolist() == [1, 0, 1]
    assert chosen.terminated.tolist() == [True, True]
    assert demonstrations.look_ahead(1).rewards.tolist() == OUTCOMES["rewards"]
    for column in (chosen.rewards, chosen.successes, chosen.terminated):
        assert not column.flags.writeable


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        ({"rewards": np.zeros(5)}, r"rewards must be \[6\] numbers .*; got \[5\]"),
        ({"rewards": np.zeros((6, 1))}, r"rewards must be \[6\] numbers"),
        ({"rewards": ["1"] * 6}, r"rewards must be \[6\] numbers"),
        ({"rewards": [np.inf] * 6}, "rewards must be finite in float32"),
        ({"successes": 0.5 * np.ones(6)}, "successes must be 0 or 1; got 0.5"),
        ({"terminated": [True]}, r"terminated must be \[3\] numbers"),
    ],
)
def test_refuses_outcomes_that_do_not_match(outcome, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(make_demonstrations(), **outcome)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([], "at least one whole number"),
        ([0.5], "at least one whole number"),
        ([True, False, True], "at least one whole number"),
        ([0, 3], r"must be in \[0, 3\); got 3"),
        ([-1], r"must be in \[0, 3\); got -1"),
    ],
)
def test_select_refuses_other_indices(indices, message):
    with pytest.raises(UserError, match=message):
        make_demonstrations().select(indices)


@given(
    lengths=st.lists(st.integers(1, 5), min_size=2, max_size=12),
    fraction=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32 - 1),
)
def test_split_parts_whole_episodes(lengths, fraction, seed):
    demonstrations = make_demonstrations(lengths)
    training, held_out = demonstrations.split(fraction, seed)

    def contents(part):
        return [observations.tobytes() + actions.tobytes() for observations, actions in part]

    parts = contents(training.episodes()), contents(held_out.episodes())
    assert all(parts)
    assert sorted(parts[0] + parts[1]) == sorted(contents(demonstrations.episodes()))
    assert abs(held_out.num_episodes - fraction * len(lengths)) <= 1
    again, _ = demonstrations.split(fraction, seed)
    assert again.fingerprint() == training.fingerprint()


def test_split_depends_on_the_seed():
    demonstrations = make_demonstrations([1] * 20)
    assert len({demonstrations.split(0.5, seed)[0].fingerprint() for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("steps", "sources"),
    [(0, [0, 1, 2, 3, 4, 5]), (1, [1, 1, 3, 4, 4, 5]), (9, [1, 1, 4, 4, 4, 5])],
)
def test_looking_ahead_takes_later_actions_of_the_same_episode(steps, sources):
    demonstrations = make_demonstrations(lengths=(2, 3, 1))
    ahead = demonstrations.look_ahead(steps)
    np.testing.assert_array_equal(ahead.actions, demonstrations.actions[sources])
    np.testing.assert_array_equal(ahead.observations, demonstrations.observations)
    np.testing.assert_array_equal(ahead.episode_ends, demonstrations.episode_ends)
    assert ahead.metadata == demonstrations.metadata


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_split_and_look_ahead_refuse_what_is_out_of_range(fraction):
    with pytest.raises(UserError, match=r"held_out_fraction must be in \(0, 1\)"):
        make_demonstrations().split(fraction, 0)
    with pytest.raises(UserError, match="at least two episodes; got 1"):
        make_demonstrations([5]).split(0.5, 0)
    with pytest.raises(UserError, match="steps must be at least 0; got -1"):
        make_demonstrations().look_ahead(-1)


def test_conform_clips_into_the_bounds_and_says_so():
    demonstrations = Demonstrations(
        np.zeros([3, 1]), [[1.25, 0.0], [-0.5, 2.0], [-1.5, -2.5]], [3], notices=("earlier",)
    )
    task = Spaces(1, 2, np.array([-1, -2], np.float32), np.array([1, 2], np.float32))
    conformed = demonstrations.conform(task)
    np.testing.assert_array_equal(conformed.actions, [[1, 0], [-0.5, 2], [-1, -2]])
    assert conformed.notices == (
        "earlier",
        "clipped 3 of 6 action values (in 2 of 3 steps) into the bounds of toy, by 0.5 at most",
    )
    assert conformed.conform(task) is conformed
    bounds = np.array([0.4])  # In float64, 0.4 is less than the float32 action.
    edge = Demonstrations([[0.0]], np.array([[0.4]], np.float32), [1])
    assert edge.conform(Spaces(1, 1, -bounds, bounds)).notices == ()


@pytest.mark.parametrize("sizes", [(3, 4), (4, 2)])
def test_conform_refuses_other_sizes(sizes):
    task = Spaces(*sizes, -np.ones(sizes[1]), np.ones(sizes[1]))
    with pytest.raises(
        UserError,
        match=f"observation size {sizes[0]} and action size {sizes[1]} for task toy; got 3 and 2",
    ):
        make_demonstrations().conform(task)


def test_fingerprint_is_of_the_arrays_and_their_shapes():
    digest = hashlib.sha256()
    for values, dtype in (([[1, 2]], "<f4"), ([[3]], "<f4"), ([1], "<i8")):
        array = np.array(values, dtype)
        digest.update(f"{dtype}{array.shape}".encode() + array.tobytes())
    demonstrations = Demonstrations([[1.0, 2.0]], [[3.0]], [1])
    assert demonstrations.fingerprint() == digest.hexdigest()
    assert dataclasses.replace(demonstrations, name="b").fingerprint() == digest.hexdigest()


@given(lengths=st.permutations([1, 2, 3]))
def test_fingerprint_tells_episode_boundaries_apart(lengths):
    demonstrations = Demonstrations(np.zeros([6, 1]), np.zeros([6, 1]), np.cumsum(lengths))
    reference = Demonstrations(np.zeros([6, 1]), np.zeros([6, 1]), [1, 3, 6])
    assert (demonstrations.fingerprint() == reference.fingerprint()) == (lengths == [1, 2, 3])
