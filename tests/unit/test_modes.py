"""Demonstrations that act in two ways in the same state."""

import numpy as np
import pytest

from nppac_tf.demonstrations import Demonstrations, load_demonstrations, modes

RNG = np.random.default_rng(0)


def demonstrations(act, num_episodes=20):
    """Random walks in four dimensions, with the actions [T, 2] of a function of the states."""
    walks = [np.cumsum(0.1 * RNG.standard_normal((60, 4)), axis=0) for _ in range(num_episodes)]
    return Demonstrations.from_episodes([(walk, act(walk)) for walk in walks], name="walks")


def smooth(states):
    return np.tanh(states[:, :2]) + 0.1 * RNG.standard_normal((len(states), 2))


def two_ways(states):
    side = RNG.choice([-1.0, 1.0], len(states))
    return np.stack([0.6 * side, np.tanh(states[:, 0])], axis=1) + 0.05 * smooth(states)


def by_state(states):
    """Two groups of actions, of which the state tells which."""
    return np.stack([np.sign(states[:, 0]), np.tanh(states[:, 1])], axis=1)


def noise(states):
    return RNG.standard_normal((len(states), 2))


@pytest.mark.parametrize("act", [smooth, by_state, noise])
def test_actions_that_depend_on_the_state_or_are_noisy_are_in_one_mode(act):
    assert modes.notice(demonstrations(act)) is None


def test_two_ways_in_the_same_states_are_told_with_their_share():
    line = modes.notice(demonstrations(two_ways))
    assert line is not None
    assert "two different ways" in line
    share = int(line.removeprefix("In ").partition("%")[0])
    assert 30 <= share <= 100


def test_of_few_episodes_nothing_is_said():
    assert modes.notice(demonstrations(two_ways, num_episodes=9)) is None


@pytest.mark.parametrize("name", ["pen", "door"])
def test_the_demonstrations_of_the_package_have_one_mode(name):
    assert modes.notice(load_demonstrations(f"embedded:{name}")) is None
