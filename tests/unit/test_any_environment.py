"""Whatever an environment returns is taken, or told in one line."""

import gymnasium
import numpy as np
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

import nppac_tf as nppac
from examples import examples
from nppac_tf.errors import UserError

LIMIT = 4
OBSERVATION_SPACES = (
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
    spaces.Box(-1e300, 1e300, (2,), np.float64),
    spaces.Box(0, 255, (2, 2), np.uint8),
    spaces.Discrete(3),
    spaces.MultiBinary(2),
    spaces.MultiDiscrete([2, 3]),
    spaces.Dict({"a": spaces.Box(-1.0, 1.0, (), np.float32), "b": spaces.Discrete(2)}),
    spaces.Tuple([spaces.Box(-1.0, 1.0, (1,), np.float16), spaces.MultiBinary(1)]),
    spaces.Text(4),
)
ACTION_SPACES = (
    spaces.Box(-1.0, 1.0, (2,), np.float32),
    spaces.Box(-1e-9, 1e9, (1,), np.float64),
    spaces.Box(-1e300, 1e300, (1,), np.float64),
    spaces.Box(np.array([-1.0, 0.5]), np.array([1.0, 0.5]), dtype=np.float64),
    spaces.Box(-2, 3, (2,), np.int32),
    spaces.Box(0.1, 0.3, (2,), np.float16),
    spaces.Box(-np.inf, np.inf, (2,), np.float32),
    spaces.Box(-1.0, 1.0, (1, 2), np.float32),
    spaces.Discrete(3),
)
ODD = (None, "x", np.nan, np.inf, -1e300, 5, True, (), [1.0, 2.0], {}, b"", np.zeros((2, 2)), 1j)
REWARDS = (-1, 0.5, True, np.float32(2), np.array([1.0]), np.array(1), np.int8(3), *ODD)
SUCCESSES = (True, 0, 1.0, np.float32(1), np.array([False]), np.bool_(True), *ODD)
OBSERVATIONS = (np.array(["x"] * 3), np.zeros(3, object), np.full(3, 1e39), -1, 7, *ODD)
KEYS = ("success", "is_success", "other")


class Arbitrary(gymnasium.Env):
    """Returns what a test draws; `oddities` [step, place] are the values that break the rules."""

    def __init__(self, space, action_space, script, oddities):
        self.observation_space, self.action_space = space, action_space
        self._script, self._oddities = script, oddities

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._steps = 0
        return self._oddities.get((0, "observation"), self.observation_space.sample()), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        reward, info = self._script[self._steps % len(self._script)]
        self._steps += 1
        values = {
            "observation": self.observation_space.sample(),
            "reward": reward,
            "terminated": False,
            "truncated": False,
            "info": dict(info),
        }
        for place in values:
            values[place] = self._oddities.get((self._steps, place), values[place])
        if (self._steps, "raise") in self._oddities:
            raise KeyError(str(action))
        return tuple(values.values())


PLACES = {
    "observation": OBSERVATIONS,
    "reward": REWARDS,
    "terminated": (True, 1, np.array([True]), *ODD),
    "truncated": (True, np.bool_(True), *ODD),
    "info": ({"success": True}, [], *ODD),
    "raise": (None,),
}
ODDITY = st.sampled_from(list(PLACES)).flatmap(
    lambda place: st.tuples(
        st.tuples(st.integers(0, LIMIT), st.just(place)), st.sampled_from(PLACES[place])
    )
)
STEP = st.tuples(
    st.sampled_from(REWARDS[:7]) | st.sampled_from(REWARDS),
    st.dictionaries(
        st.sampled_from(KEYS), st.sampled_from(SUCCESSES[:6]) | st.sampled_from(SUCCESSES)
    ),
)


@examples(300)
@given(
    space=st.sampled_from(OBSERVATION_SPACES),
    action_space=st.sampled_from(ACTION_SPACES[:6]) | st.sampled_from(ACTION_SPACES),
    script=st.lists(STEP, min_size=1, max_size=LIMIT),
    oddities=st.lists(ODDITY, max_size=2).map(dict),
    reward=st.sampled_from(["binary", "negative"]),
    success_key=st.sampled_from([None, "other"]),
)
def test_an_environment_gives_sound_episodes_or_one_line(
    space, action_space, script, oddities, reward, success_key
):
    def make():
        return gymnasium.wrappers.TimeLimit(Arbitrary(space, action_space, script, oddities), LIMIT)

    try:
        task = nppac.make_task(make, reward, success_key=success_key)
        policy = nppac.evaluate(
            lambda observations: np.full((len(observations), task.action_size), 0.7),
            task,
            num_episodes=2,
            record=True,
        )
    except (UserError, FloatingPointError) as error:
        said = str(error)
    else:
        said = ""
    assert "\n" not in said
    if said:
        return
    assert np.all((policy.lengths >= 1) & (policy.lengths <= LIMIT))
    for shares in (policy.any_success, policy.time_at_goal, policy.final_success):
        assert np.all(np.isnan(shares) | ((shares >= 0) & (shares <= 1)))
    assert np.isfinite(policy.returns).all()
    for observations, actions in zip(policy.observations, policy.actions, strict=True):
        assert np.isfinite(observations).all()
        assert np.all((actions >= task.action_low) & (actions <= task.action_high))
    assert str(policy)
