"""One interface to all environments: observations, actions, successes, faults."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

import nppac_tf as nppac
from examples import examples
from nppac_tf.environments.standard import flatten, observation_parts, success_of
from nppac_tf.errors import UserError

LEAVES = st.one_of(
    st.lists(st.integers(1, 3), max_size=3).map(
        lambda shape: spaces.Box(-2.0, 2.0, tuple(shape), np.float32)
    ),
    st.integers(1, 4).map(spaces.Discrete),
    st.integers(1, 4).map(spaces.MultiBinary),
    st.lists(st.integers(1, 3), min_size=1, max_size=3).map(spaces.MultiDiscrete),
)
SPACES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.dictionaries(st.sampled_from("abcde"), parts, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(parts, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=6,
)


class Point(gymnasium.Env):
    """A point that moves with its actions."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1.0, 1.0, 3)
        return self.x.astype(np.float32), {}

    def step(self, action):
        self.x[:2] += 0.1 * np.asarray(action, np.float64)
        return self.x.astype(np.float32), -1.0, False, False, {}


class Goal(Point):
    """Observations as those of goal environments."""

    observation_space = spaces.Dict(
        {
            "observation": spaces.Box(-np.inf, np.inf, (3,), np.float64),
            "goals": spaces.Dict(
                {
                    "achieved": spaces.Box(-np.inf, np.inf, (2,), np.float64),
                    "desired": spaces.Box(-np.inf, np.inf, (1, 2), np.float64),
                }
            ),
        }
    )

    def _observe(self):
        goals = {"achieved": self.x[:2], "desired": np.array([[0.25, 0.5]])}
        return {"observation": self.x, "goals": goals}

    def reset(self, **kwargs):
        super().reset(**kwargs)
        return self._observe(), {}

    def step(self, action):
        _, *rest = super().step(action)
        return self._observe(), *rest


def limited(environment, steps=3):
    """A factory of the environment with a time limit."""
    return lambda: gymnasium.wrappers.TimeLimit(environment(), steps)


def push(observations):
    return np.ones((len(observations), 2), np.float32)


def evaluated(environment, num_episodes=1, **keywords):
    """Episodes of `push` in an environment that is made by a factory."""
    task = nppac.make_task(limited(environment), **keywords)
    return nppac.evaluate(push, task, num_episodes=num_episodes, record=True)


def variant(**methods):
    """A subclass of `Point`."""
    return type("Variant", (Point,), methods)


def stepping(change):
    """A `Point` whose step returns a changed tuple."""
    return variant(step=lambda self, action: change(self, *Point.step(self, action)))


# Observations.


@examples(200)
@given(SPACES, st.integers(0, 99))
def test_observations_are_joined_as_gymnasium_joins_them(space, seed):
    space.seed(seed)
    observation = space.sample()
    joined = flatten(observation, observation_parts(space))
    np.testing.assert_array_equal(joined, spaces.flatten(space, observation))
    assert len(joined) == spaces.flatdim(space)


def test_a_goal_environment_is_a_task_of_joined_parts():
    episodes = evaluated(Goal)
    (observations,) = episodes.observations
    task = nppac.make_task(limited(Goal))
    assert list(task.observation_parts) == ["goals/achieved", "goals/desired", "observation"]
    assert (task.observation_size, task.horizon) == (7, 3)
    np.testing.assert_array_equal(observations[:, 2:4], np.tile([0.25, 0.5], (3, 1)))
    np.testing.assert_array_equal(observations[:, :2], observations[:, 4:6])


def test_keys_select_and_order_the_parts():
    task = nppac.make_task(limited(Goal), observation_keys=["observation", "goals/desired"])
    assert list(task.observation_parts) == ["observation", "goals/desired"]
    assert task.make().reset(seed=0)[0][3:].tolist() == [0.25, 0.5]
    assert nppac.make_task(limited(Goal), observation_keys=["goals"]).observation_size == 4
    with pytest.raises(UserError, match=r"\(goals/achieved, goals/desired, observation\); got 'g'"):
        nppac.make_task(limited(Goal), observation_keys=["g"])
    with pytest.raises(UserError, match="none, since they are not named"):
        nppac.make_task(limited(Point), observation_keys=["goals"])


def test_images_of_any_shape_are_joined():
    space = spaces.Box(0, 255, (2, 2, 3), np.uint8)
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    grid = variant(
        observation_space=space,
        reset=lambda self, **_: (image, {}),
        step=lambda self, action: (image, 0.0, False, False, {}),
    )
    np.testing.assert_array_equal(evaluated(grid).observations[0], np.tile(np.arange(12), (3, 1)))


@pytest.mark.parametrize("wrong", [lambda x: x[:1], lambda x: x[np.newaxis], lambda x: x[0]])
def test_an_observation_of_another_shape_is_refused(wrong):
    short = stepping(lambda self, observation, *rest: (wrong(observation), *rest))
    with pytest.raises(UserError, match=r"must have the shape \(3,\) of its space; got \("):
        evaluated(short)


def test_a_missing_part_is_refused():
    class Partial(Goal):
        def step(self, action):
            return {"observation": self.x}, *super().step(action)[1:]

    with pytest.raises(UserError, match="must have the part 'goals/achieved'"):
        evaluated(Partial)


def test_an_observation_is_not_changed_by_later_steps():
    shared = stepping(lambda self, observation, *rest: (self.shared, *rest))
    shared.shared = np.zeros(3, np.float32)
    environment = nppac.make_task(limited(shared)).make()
    environment.reset(seed=0)
    observation = environment.step(np.zeros(2, np.float32))[0]
    shared.shared += 1.0
    np.testing.assert_array_equal(observation, np.zeros(3))


# Actions.


def test_an_environment_may_change_its_action():
    def step(self, action):
        action *= 0.5
        return Point.step(self, action)

    np.testing.assert_array_equal(evaluated(variant(step=step)).actions[0], np.ones((3, 2)))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_an_action_is_inside_the_environments_own_space(dtype):
    space = spaces.Box(-0.1, 0.3, (2,), dtype)

    def step(self, action):
        assert action.dtype == dtype
        assert space.contains(action)
        return Point.step(self, action)

    episodes = evaluated(variant(action_space=space, step=step))
    assert np.all(episodes.actions[0].astype(np.float64) <= space.high.astype(np.float64))


# Successes.


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, np.nan),
        ({"success": None}, np.nan),
        ({"success": True}, 1.0),
        ({"success": 0}, 0.0),
        ({"is_success": np.float32(1.0)}, 1.0),
        ({"is_success": np.array([False])}, 0.0),
        ({"success": False, "is_success": True}, 0.0),
    ],
)
def test_success_is_read_from_its_usual_entries(info, expected):
    np.testing.assert_equal(success_of(info), expected)


def test_success_is_read_from_another_entry():
    reached = stepping(lambda self, *rest: (*rest[:4], {"reached": 1, "success": 0}))
    assert evaluated(reached).any_success[0] == 0
    assert evaluated(reached, success_key="reached").time_at_goal[0] == 1


@pytest.mark.parametrize("value", [5, np.nan, "yes", np.ones(2), 0.5])
def test_a_success_that_is_neither_0_nor_1_is_refused(value):
    with pytest.raises(UserError, match=r"info\['success'\] must be 0 or 1"):
        evaluated(stepping(lambda self, *rest: (*rest[:4], {"success": value})))


@pytest.mark.parametrize("reached", [True, False])
def test_success_at_the_last_step_only_gives_no_time_at_the_goal(reached):
    def step(self, action):
        self.steps = getattr(self, "steps", 0) + 1
        info = {"success": reached} if self.steps % 3 == 0 else {}
        return (*Point.step(self, action)[:4], info)

    episodes = evaluated(variant(step=step), num_episodes=2)
    np.testing.assert_array_equal(episodes.any_success, [reached] * 2)
    np.testing.assert_array_equal(episodes.final_success, [reached] * 2)
    assert np.isnan(episodes.time_at_goal).all()
    assert "A, any-time success" in str(episodes)
    assert "B, time at goal" not in str(episodes)


@pytest.mark.parametrize("form", [bool, float, lambda flag: np.array([flag]), np.float32])
@pytest.mark.parametrize("only_last", [False, True])
def test_the_negative_reward_is_0_at_the_goal_and_else_minus_1(form, only_last):
    def step(self, action):
        self.steps = getattr(self, "steps", 0) % 3 + 1
        info = {"is_success": form(self.steps > 1)}
        return (*Point.step(self, action)[:4], {} if only_last and self.steps < 3 else info)

    episodes = evaluated(variant(step=step), num_episodes=2, reward="negative")
    expected = [-1, -1, 0] if only_last else [-1, 0, 0]
    np.testing.assert_array_equal(episodes.rewards, [expected] * 2)


def test_the_negative_reward_needs_a_success():
    with pytest.raises(UserError, match=r"must say in info .* pass --reward=binary"):
        evaluated(Point, reward="negative")


# Environments at fault.


def four_values(self, observation, reward, terminated, truncated, info):
    return observation, reward, terminated, info


def fail(self, *step):
    raise AssertionError


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (stepping(four_values), "interface of the old gym"),
        (variant(reset=lambda self: Point.reset(self, seed=0)), "interface of the old gym"),
        (variant(reset=lambda self, **_: np.zeros(3)), "interface of the old gym"),
        (stepping(fail), r"failed in step: AssertionError: .*\(.*\.py:\d+\)"),
        (stepping(lambda self, o, r, *rest: (o, [r, r], *rest)), "must give one reward"),
    ],
)
def test_a_fault_of_an_environment_is_a_users_error_of_one_line(environment, expected):
    with pytest.raises(UserError, match=expected) as raised:
        evaluated(environment)
    assert "\n" not in str(raised.value)


def test_results_survive_an_environment_that_cannot_close():
    def close(self):
        raise AttributeError("no viewer")

    with pytest.warns(UserWarning, match="failed to close: no viewer"):
        assert evaluated(variant(close=close)).returns[0] == -3


def test_a_task_that_never_ends_is_refused(monkeypatch):
    monkeypatch.setattr("nppac_tf.evaluation.rollouts._MAX_STEPS_WITHOUT_END", 50)
    with pytest.raises(UserError, match="registered with max_episode_steps; got one of 50 steps"):
        nppac.evaluate(push, nppac.make_task(Point), num_episodes=1)


def test_seeds_of_episodes_fit_into_32_bits_with_a_sign():
    def reset(self, *, seed=None, options=None):
        np.int32(seed)  # An OverflowError beyond.
        return Point.reset(self, seed=seed)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluated(variant(reset=reset), num_episodes=20)


# Factories.


def test_a_module_and_function_name_a_task(tmp_path, monkeypatch):
    (tmp_path / "arm_of_mine.py").write_text(
        "import gymnasium\n"
        "def make(render_mode=None):\n"
        "    return gymnasium.make('Pendulum-v1', render_mode=render_mode)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    task = nppac.make_task("arm_of_mine:make")
    assert (task.name, task.horizon, task.observation_size) == ("arm_of_mine:make", 200, 3)
    assert nppac.evaluate(lambda x: np.zeros((len(x), 1)), task, num_episodes=2).lengths[0] == 200
    with pytest.raises(UserError, match="arm_of_mine:absent"):
        nppac.make_task("arm_of_mine:absent")
