import fakes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import make_task
from nppac_tf.errors import UserError
from nppac_tf.training.transitions import Transitions, of_demonstrations, over_steps


def numbered(rewards, terminations, truncations):
    """Transitions whose observations give their row: s = row, s' = row + 0.5."""
    rows = np.arange(len(rewards), dtype=np.float32)[:, None]
    terminations = np.array(terminations, bool)
    return Transitions(
        rows,
        10 * rows,
        np.array(rewards, np.float32),
        1.0 - terminations.astype(np.float32),
        rows + 0.5,
        terminations | np.array(truncations, bool),
    )


def test_three_steps_by_hand():
    # Rows: an episode that terminates after three steps, one that is cut off, one under way.
    transitions = numbered([1, 2, 4, 8, 16, 32], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0])
    result = over_steps(transitions, 3, 0.5)
    np.testing.assert_array_equal(result.rewards, [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16, 32])
    np.testing.assert_array_equal(result.discounts, [0, 0, 0, 0.5, 1, 1])
    np.testing.assert_array_equal(result.next_observations[:, 0], [2.5, 2.5, 2.5, 4.5, 4.5, 5.5])
    np.testing.assert_array_equal(result.ends, [1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(result.observations, transitions.observations)
    np.testing.assert_array_equal(result.actions, transitions.actions)


def test_episodes_side_by_side_do_not_mix():
    transitions = numbered([1, 10, 2, 20, 3, 30], [0] * 6, [0, 0, 0, 1, 0, 0])
    result = over_steps(transitions, 2, 0.5, stride=2)
    np.testing.assert_array_equal(result.rewards, [1 + 1, 10 + 10, 2 + 1.5, 20, 3, 30])
    np.testing.assert_array_equal(result.discounts, [0.5, 0.5, 0.5, 1, 1, 1])
    np.testing.assert_array_equal(result.next_observations[:, 0], [2.5, 3.5, 4.5, 3.5, 4.5, 5.5])


def brute_force(transitions, n, discount, stride):
    found = []
    for row in range(len(transitions.rewards)):
        total, weight, at = 0.0, 1.0, row
        for step in range(n):
            total += discount**step * transitions.rewards[at]
            if transitions.ends[at] or at + stride >= len(transitions.rewards) or step == n - 1:
                break
            weight *= discount
            at += stride
        found.append((total, weight * transitions.discounts[at], at + 0.5))
    return np.array(found)


@settings(max_examples=100)
@given(
    steps=st.lists(
        st.tuples(st.floats(-5, 5, width=32), st.sampled_from("....xt")), min_size=1, max_size=30
    ),
    n=st.integers(1, 6),
    discount=st.floats(0, 1),
    stride=st.integers(1, 4),
)
def test_it_is_the_sum_step_by_step(steps, n, discount, stride):
    rewards, marks = zip(*steps, strict=True)
    transitions = numbered(rewards, [m == "x" for m in marks], [m == "t" for m in marks])
    result = over_steps(transitions, n, discount, stride)
    found = np.stack([result.rewards, result.discounts, result.next_observations[:, 0]], axis=1)
    expected = brute_force(transitions, n, discount, stride)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_one_step_changes_nothing():
    transitions = numbered([1, 2, 3], [0, 1, 0], [0, 0, 0])
    for one, other in zip(over_steps(transitions, 1, 0.9), transitions, strict=True):
        np.testing.assert_array_equal(one, other)


def pen_states(reached):
    """Observations of the pen task, at the goal where asked for."""
    states = np.random.default_rng(0).normal(size=(len(reached), 45)).astype(np.float32)
    states[:, 33:36] = states[:, 36:39] = [1.0, 0.0, 0.0]
    states[:, 39:42] = np.where(np.array(reached)[:, None], 0.01, 1.0)
    return states


@pytest.mark.parametrize(("reward", "paid"), [("binary", 1.0), ("negative", 0.0)])
def test_rewards_of_demonstrations_follow_from_the_state_after(reward, paid):
    first, second = pen_states([0, 1, 1, 0]), pen_states([0, 0])
    data = Demonstrations.from_episodes(
        [(first, np.zeros((4, 24))), (second, np.ones((2, 24))), (second[:1], np.ones((1, 24)))]
    )
    result = of_demonstrations(data, make_task("pen-binary", reward))
    np.testing.assert_array_equal(result.rewards, paid - 1 + np.array([1, 1, 0, 0]))
    np.testing.assert_array_equal(result.observations, [*first[:-1], second[0]])
    np.testing.assert_array_equal(result.next_observations, [*first[1:], second[1]])
    np.testing.assert_array_equal(result.actions[:, 0], [0, 0, 0, 1])
    np.testing.assert_array_equal(result.discounts, np.ones(4))
    np.testing.assert_array_equal(result.ends, [0, 0, 1, 1])


def test_a_goal_environment_computes_the_rewards_of_demonstrations():
    states = np.zeros((4, 16), np.float32)
    states[2:, :3] = [[0.3, 0.0, 0.0], [0.3, 0.0, 0.06]]  # The gripper.
    states[:, 3:6] = [0.3, 0.0, 0.0]  # Where it should be.
    wrong = {"rewards": np.full(4, 7.0), "terminated": [True]}
    data = Demonstrations(states, np.zeros((4, 4)), [4], **wrong)
    for reward in ("binary", "negative"):  # Fetch itself pays 0 and -1.
        result = of_demonstrations(data, make_task("fetch-reach", reward))
        np.testing.assert_array_equal(result.rewards, [-1, 0, -1])
        np.testing.assert_array_equal(result.discounts, np.ones(3))
    keys = ["desired_goal", "observation", "achieved_goal"]
    moved = np.concatenate([states[:, 3:], states[:, :3]], axis=1)
    task = make_task("fetch-reach", observation_keys=keys)
    data = Demonstrations(moved, np.zeros((4, 4)), [4])
    np.testing.assert_array_equal(of_demonstrations(data, task).rewards, [-1, 0, -1])
    data = Demonstrations(moved[:, :13], np.zeros((4, 4)), [4])
    with pytest.raises(UserError, match="observations do not tell them"):
        of_demonstrations(data, make_task("fetch-reach", observation_keys=keys[:2]))


def test_elsewhere_recorded_rewards_count_and_terminal_states_end_an_episode():
    states = np.arange(6 * 17, dtype=np.float32).reshape(6, 17)
    outcomes = {"rewards": [1, 2, 3, 4, 5, 6], "terminated": [True, False]}
    data = Demonstrations(states, np.zeros((6, 6)), [3, 6], **outcomes)
    result = of_demonstrations(data, make_task("walker2d"))
    np.testing.assert_array_equal(result.rewards, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(result.observations, states[:5])
    np.testing.assert_array_equal(result.discounts, [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(result.ends, [0, 0, 1, 0, 1])
    np.testing.assert_array_equal(result.next_observations[[0, 1, 3, 4]], states[[1, 2, 4, 5]])


def test_recorded_successes_give_the_negative_reward():
    with fakes.point_task(5) as task:
        negative = make_task(task.name, "negative")
    states, actions = np.zeros((4, 2)), np.zeros((4, 2))
    data = Demonstrations(states, actions, [4], successes=[0, 0, 1, 1], terminated=[True])
    result = of_demonstrations(data, negative)
    np.testing.assert_array_equal(result.rewards, [-1, -1, 0, 0])
    np.testing.assert_array_equal(result.discounts, [1, 1, 1, 0])
    with pytest.raises(UserError, match="rewards of demonstrations must be recorded"):
        of_demonstrations(data, task)
    with pytest.raises(UserError, match="successes of demonstrations must be recorded"):
        of_demonstrations(Demonstrations(states, actions, [4]), negative)


def test_demonstrations_whose_rewards_are_unknown_are_refused():
    data = Demonstrations.from_episodes([(np.zeros((3, 17)), np.zeros((3, 6)))])
    with pytest.raises(UserError, match=r"must be recorded to replay them in halfcheetah"):
        of_demonstrations(data, make_task("halfcheetah"))
    data = Demonstrations.from_episodes([(np.zeros((3, 45)), np.zeros((3, 24)))])
    with pytest.raises(UserError, match="in AdroitHandPenSparse-v1, whose"):  # Pays otherwise.
        of_demonstrations(data, make_task("AdroitHandPenSparse-v1"))
    data = Demonstrations.from_episodes([(np.zeros((1, 45)), np.zeros((1, 24)))])
    with pytest.raises(UserError, match="two steps or more"):
        of_demonstrations(data, make_task("pen-binary"))
