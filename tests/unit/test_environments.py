import contextlib
import dataclasses
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nppac_tf import environments
from nppac_tf.environments import (
    VectorEnvironment,
    clip_actions,
    episode_seed,
    make_task,
    require_finite,
)
from nppac_tf.environments.known import KNOWN_TASKS
from nppac_tf.errors import UserError

HAND_TASKS = [name for name, task in KNOWN_TASKS.items() if task.base_id]
EVERY_KIND = [*HAND_TASKS, "halfcheetah", "ant", "fetch-push", "pointmaze-umaze"]


class EchoEnvironment(gymnasium.Env):
    """Observes (start, step, action); start is drawn on reset. Terminates after `length` steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    action_space = gymnasium.spaces.Box(np.float32([-1, -2]), np.float32([1, 3]))

    def __init__(self, length=3, poison=None):
        self._length, self._poison = length, poison

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._start, self._step = self.np_random.uniform(1, 2), 0
        return np.array([self._start, 0.0, 0.0, 0.0]), {}

    def step(self, action):
        self._step += 1
        observation, reward = np.array([self._start, self._step, *action]), 10.0 * self._step
        if self._step == 2 and self._poison == "observation":
            observation[0] = np.nan
        if self._step == 2 and self._poison == "reward":
            reward = np.inf
        return observation, reward, self._step == self._length, False, {}


class OddSpacesEnvironment(EchoEnvironment):
    def __init__(self, **spaces):
        super().__init__()
        vars(self).update(spaces)


class RandomEnvironment(EchoEnvironment):
    """An environment that ignores its seed."""

    generator = np.random.default_rng(0)

    def step(self, action):
        return self.generator.normal(size=4), 0.0, False, False, {}


@contextlib.contextmanager
def registered(name, environment, **kwargs):
    gymnasium.register(f"nppac_tests/{name}-v0", environment, **kwargs)
    yield f"nppac_tests/{name}-v0"
    del gymnasium.registry[f"nppac_tests/{name}-v0"]


@pytest.fixture(autouse=True, scope="module")
def _echo_registered():
    with registered("Echo", EchoEnvironment, max_episode_steps=5):
        yield


def echo_task(**kwargs):
    return dataclasses.replace(make_task("nppac_tests/Echo-v0"), environment_kwargs=kwargs)


# Tasks.


@pytest.mark.parametrize("known", KNOWN_TASKS.values(), ids=lambda known: known.name)
def test_known_tasks_are_as_the_table_says_by_either_name(known):
    for task in (make_task(known.name), make_task(known.environment_id)):
        assert (task.name, task.environment_id) == (known.name, known.environment_id)
        assert (task.observation_size, task.action_size) == known.sizes
        assert task.horizon == known.horizon
        assert task.action_low.dtype == task.action_high.dtype == np.float32
        np.testing.assert_array_equal(task.action_low, -np.ones(task.action_size))
        np.testing.assert_array_equal(task.action_high, np.ones(task.action_size))


@pytest.mark.parametrize("name", HAND_TASKS)
def test_success_rules_and_rewards_are_the_simulators(name):
    task = make_task(name)
    assert make_task(name, "negative").environment_kwargs == {"reward": "negative"}
    binary, negative = (make_task(name, reward).make() for reward in ("binary", "negative"))
    action, seen = np.zeros(task.action_size, np.float32), set()
    for seed in range(8 if name == "pen-binary" else 1):
        for environment in (binary, negative):
            environment.reset(seed=seed)
        for step in range(task.horizon):
            observation, reward, terminated, truncated, info = binary.step(action)
            assert bool(KNOWN_TASKS[name].success_rule(observation)) == info["success"] == reward
            assert negative.step(action)[1] == reward - 1
            assert not terminated
            assert truncated == (step == task.horizon - 1)
            seen.add(reward)
    assert seen == ({0.0, 1.0} if name == "pen-binary" else {0.0})


@pytest.mark.parametrize("name", ["fetch-reach", "fetch-push", "pointmaze-umaze"])
def test_the_goals_of_a_goal_environment_tell_success_and_reward(name):
    task, size = make_task(name), 3 if "fetch" in name else 2
    environment, negative = task.make(), make_task(name, "negative").make()
    observations, rewards, flags = [], [], []
    for seed in range(4):
        observation, _ = environment.reset(seed=seed)
        negative.reset(seed=seed)
        for _ in range(50):  # Heads for the goal.
            action = np.zeros(task.action_size, np.float32)
            action[:size] = np.clip(5 * (observation[size : 2 * size] - observation[:size]), -1, 1)
            observation, reward, terminated, _, info = environment.step(action)
            assert negative.step(action)[1] == info["success"] - 1
            assert not terminated
            observations.append(observation)
            rewards.append(reward)
            flags.append(info["success"] == 1)
    assert set(flags) == ({False} if name == "fetch-push" else {False, True})
    observations = np.array(observations)
    np.testing.assert_array_equal(task.success_rule(observations), flags)
    np.testing.assert_array_equal(task.goal_rewards(observations), rewards)
    moved = make_task(name, observation_keys=["observation", "desired_goal", "achieved_goal"])
    parts = np.split(observations, [size, 2 * size], axis=1)[::-1]
    np.testing.assert_array_equal(moved.success_rule(np.concatenate(parts, axis=1)), flags)
    assert make_task(name, observation_keys=["observation"]).success_rule is None


@pytest.mark.parametrize("name", ["Hopper-v5", "hopper", "Hopper"])
def test_a_task_has_one_name(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's, about a name without version.
        task = make_task(name)
    assert (task.name, task.environment_id) == ("hopper", "Hopper-v5")


def test_another_version_of_an_environment_is_another_task():
    assert make_task("FetchReachDense-v4").success_rule is None
    assert make_task("Hopper-v4").name == "Hopper-v4"


def test_any_gymnasium_id_is_a_task():
    task = pickle.loads(pickle.dumps(make_task("nppac_tests/Echo-v0")))
    assert (task.name, task.observation_size, task.action_size) == ("nppac_tests/Echo-v0", 4, 2)
    np.testing.assert_array_equal(task.action_low, [-1, -2])
    np.testing.assert_array_equal(task.action_high, [1, 3])
    assert task.horizon == 5
    task.make().close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pen", r"got 'pen'; did you mean pen-binary"),
        ("halfchetah", "did you mean halfcheetah"),
        ("Hopper-v99", "did you mean .*Hopper-v5"),
        ("json:Hopper-v99", "did you mean .*json:Hopper-v5"),
        ("no_such_module:Thing-v0", "no module no_such_module was found"),
        ("no module:Thing-v0", "must be a name or module:name"),
        ("json.absent:Thing-v0", "no module json.absent was found"),
        ("not an id", "'not an id' failed to start: .*Malformed"),
        ("CartPole-v1", r"bounded, one-dimensional Box action space; got Discrete\(2\)"),
    ],
)
def test_unsuitable_names_are_refused(name, expected):
    with pytest.raises(UserError, match=expected) as raised:
        make_task(name)
    assert "\n" not in str(raised.value)


def test_a_module_that_lacks_a_dependency_is_not_an_unknown_task(tmp_path, monkeypatch):
    (tmp_path / "my_robot.py").write_text("import absent_simulator\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"failed to start: .*No module named 'absent_simulator'"):
        make_task("my_robot:Reach-v0")


@pytest.mark.parametrize(
    ("spaces", "expected"),
    [
        ({"action_space": gymnasium.spaces.Box(-np.inf, 1.0, (2,))}, "bounded"),
        ({"action_space": gymnasium.spaces.Box(-1.0, 1.0, (2, 2))}, "one-dimensional Box action"),
        ({"observation_space": gymnasium.spaces.Text(9)}, "must be made of Box, .*; got Text"),
        ({"observation_space": gymnasium.spaces.Dict()}, "at least one part"),
    ],
)
def test_unsuitable_spaces_are_refused(spaces, expected):
    with (
        registered("Odd", OddSpacesEnvironment, kwargs=spaces) as name,
        pytest.raises(UserError, match=expected),
    ):
        make_task(name)


def test_unsuitable_rewards_are_refused():
    with pytest.raises(UserError, match="must be one of binary, negative; got 'dense'"):
        make_task("pen-binary", reward="dense")
    with pytest.raises(UserError, match="must be 'binary' for task 'hopper', which has no goal"):
        make_task("hopper", reward="negative")


# Vector environments.


@pytest.mark.parametrize("name", [*HAND_TASKS, "halfcheetah", "walker2d"])
def test_episodes_are_those_of_a_fresh_environment(name):
    task = make_task(name)
    kwargs = {**task.environment_kwargs, "max_episode_steps": 4}
    task = dataclasses.replace(task, environment_kwargs=kwargs)
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 2, task.action_size)).astype("f")
    vector = VectorEnvironment(task, 2, seed=7)
    for t in range(4):
        vector.step(actions[t])
    fresh = task.make()
    expected, _ = fresh.reset(seed=episode_seed(7, 1, 1))
    np.testing.assert_array_equal(vector.observations[1], expected.astype(np.float32))
    for t in range(4, 8):
        step = vector.step(actions[t])
        expected, reward, terminated, truncated, _ = fresh.step(actions[t, 1])
        np.testing.assert_array_equal(step.next_observations[1], expected.astype(np.float32))
        assert step.rewards[1] == np.float32(reward)
        assert (step.terminations[1], step.truncations[1]) == (terminated, truncated)
    assert truncated


def test_successors_at_the_end_of_an_episode_are_true():
    vector = VectorEnvironment(echo_task(length=3), 2, seed=0)
    starts = vector.observations[:, 0].copy()
    for t in (1, 2, 3):
        step = vector.step(np.array([[0.5, 0.5], [9, -9]]))
        expected = np.float32([[starts[0], t, 0.5, 0.5], [starts[1], t, 1, -2]])  # Clipped.
        np.testing.assert_array_equal(step.next_observations, expected)
        np.testing.assert_array_equal(step.rewards, np.float32([10 * t, 10 * t]))
    assert [values.dtype for values in step] == [np.float32] * 2 + [np.bool_] * 2
    assert step.terminations.all()
    assert not step.truncations.any()
    np.testing.assert_array_equal(vector.observations[:, 1:], np.zeros((2, 3)))
    assert (vector.observations[:, 0] != starts).all()


def test_a_time_limit_truncates_without_terminating():
    vector = VectorEnvironment(echo_task(length=99), 1, seed=0)
    steps = [vector.step(np.zeros((1, 2))) for _ in range(5)]
    assert [bool(step.truncations[0]) for step in steps] == [False] * 4 + [True]
    assert not any(step.terminations[0] for step in steps)


def test_limited_episodes_are_truncated_but_for_every_fifth_environment():
    def ends(vector, steps):
        taken = [vector.step(np.zeros((6, 2))) for _ in range(steps)]
        assert not any((step.terminations & step.truncations).any() for step in taken)
        return np.array([step.truncations for step in taken])

    vectors = [VectorEnvironment(echo_task(length=99), 6, seed=0) for _ in range(2)]
    for vector in vectors:
        vector.limit_episodes(2)
    np.testing.assert_array_equal(vectors[0].whole, [True, False, False, False, False, True])
    ends(vectors[0], 3)
    vectors[1].load_state_dict(vectors[0].state_dict())
    first, second = (ends(vector, 2) for vector in vectors)  # The time limit is 5 steps.
    np.testing.assert_array_equal(first, [[0, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 1]])
    np.testing.assert_array_equal(first, second)
    reached = VectorEnvironment(echo_task(length=2), 2, seed=0)
    reached.limit_episodes(2)
    assert not any(reached.step(np.zeros((2, 2))).truncations.any() for _ in range(2))


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_clipped_actions_are_within_bounds_and_otherwise_unchanged(batch_size, seed):
    task = environments.Task("t", "t", {}, 4, np.float32([-1, -2]), np.float32([1, 3]), None)
    actions = np.random.default_rng(seed).normal(0, 2, (batch_size, 2)).astype(np.float32)
    before = actions.copy()
    clipped = clip_actions(actions, task, batch_size)
    np.testing.assert_array_equal(clipped, np.clip(before, [-1, -2], [1, 3]))
    np.testing.assert_array_equal(actions, before)
    assert not np.shares_memory(clipped, actions)


@pytest.mark.parametrize("shape", [(2, 3), (2,)])
def test_actions_of_the_wrong_shape_are_refused(shape):
    expected = rf"\[B, A\] = \[3, 2\].*got \[{', '.join(map(str, shape))}\]"
    with pytest.raises(UserError, match=expected):
        VectorEnvironment(echo_task(), 3, seed=0).step(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_refused_before_any_step(value):
    vector = VectorEnvironment(echo_task(), 3, seed=0)
    with pytest.raises(FloatingPointError, match=r"action must be finite.*environment 1 of 3"):
        vector.step(np.array([[0, 0], [0, value], [0, 0]]))
    assert vector.step(np.zeros((3, 2))).next_observations[:, 1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("quantity", ["observation", "reward"])
def test_values_of_the_environment_that_are_not_finite_are_errors(quantity):
    vector = VectorEnvironment(echo_task(poison=quantity), 2, seed=0)
    vector.step(np.zeros((2, 2)))
    with pytest.raises(FloatingPointError, match=f"{quantity} must be finite.*environment 0, 1"):
        vector.step(np.zeros((2, 2)))
    require_finite("x", np.ones((3, 2)))


@pytest.mark.parametrize(("num_environments", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_counts_and_seeds_out_of_range_are_refused(num_environments, seed):
    with pytest.raises(UserError, match="must be at least"):
        VectorEnvironment(echo_task(), num_environments, seed)


# Seeds, and saved states.


def run(vector, num_steps):
    actions = np.random.default_rng(0).uniform(-1, 1, (num_steps, vector.num_environments, 2))
    return np.stack([vector.step(a).next_observations for a in actions])


def test_a_seed_repeats_a_run_and_gives_each_episode_its_own_start():
    first, again, other = (
        run(VectorEnvironment(echo_task(length=2), 3, seed=seed), 10) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert (first[:, :, 0] != other[:, :, 0]).all()
    assert len(np.unique(first[::2, :, 0])) == 5 * 3


@given(st.integers(0, 2**64), st.lists(st.integers(0, 2**40), max_size=3))
def test_episode_seed_is_a_function_of_its_arguments(seed, key):
    value = episode_seed(seed, *key)
    assert value == episode_seed(seed, *key)
    assert 0 <= value < 2**32
    assert value != episode_seed(seed, *key, 0)


@pytest.mark.parametrize("name", ["nppac_tests/Echo-v0", *EVERY_KIND])
@pytest.mark.parametrize("num_steps", [3, 23])
def test_a_restored_state_continues_exactly(name, num_steps):
    task = make_task(name)

    def step(vector, num_steps, seed):
        rng = np.random.default_rng(seed)
        return [vector.step(rng.uniform(-1, 1, (2, task.action_size))) for _ in range(num_steps)]

    uninterrupted, resumed, again = (VectorEnvironment(task, 2, seed=3) for _ in range(3))
    step(uninterrupted, num_steps, seed=0)
    state = uninterrupted.state_dict()
    assert resumed.load_state_dict(state) == []
    again.load_state_dict(resumed.state_dict())
    np.testing.assert_array_equal(resumed.observations, uninterrupted.observations)
    expected = step(uninterrupted, 15, seed=1)
    np.testing.assert_array_equal(state["observations"], resumed.observations)  # It is a copy.
    np.testing.assert_equal(step(resumed, 15, seed=1), expected)
    np.testing.assert_equal(step(again, 15, seed=1), expected)


def test_environments_that_do_not_repeat_themselves_start_their_next_episode():
    with registered("Random", RandomEnvironment, max_episode_steps=9) as name:
        vector = VectorEnvironment(make_task(name), 2, seed=0)
        vector.step(np.zeros((2, 2)))
        resumed = VectorEnvironment(make_task(name), 2, seed=0)
        assert resumed.load_state_dict(vector.state_dict()) == [0, 1]
        assert resumed.state_dict()["episode_indices"].tolist() == [1, 1]
        assert [len(actions) for actions in resumed.state_dict()["actions"]] == [0, 0]


def test_a_state_of_another_number_of_environments_is_refused():
    state = VectorEnvironment(echo_task(), 2, seed=0).state_dict()
    with pytest.raises(UserError, match="must be of 3 environments; got 2"):
        VectorEnvironment(echo_task(), 3, seed=0).load_state_dict(state)


# TF-Agents.


def test_tf_agents_environment_is_valid():
    from tf_agents.environments import utils

    utils.validate_py_environment(
        environments.GymnasiumPyEnvironment(echo_task(), seed=0), episodes=3
    )
    environment = environments.GymnasiumPyEnvironment(make_task("pen-binary"), seed=0)
    utils.validate_py_environment(environment, episodes=1)
    assert environment.action_spec().shape == (24,)
    assert environment.observation_spec().shape == (45,)
    assert set(environment.get_info()) == {"success"}


@pytest.mark.parametrize(("length", "steps", "discount"), [(3, 3, 0.0), (99, 5, 1.0), (5, 5, 0.0)])
def test_tf_agents_environment_ends_episodes(length, steps, discount):
    environment = environments.GymnasiumPyEnvironment(echo_task(length=length), seed=0)
    assert environment.reset().is_first()
    for t in range(1, steps):
        time_step = environment.step(np.float32([0.5, 9.0]))
        assert time_step.is_mid()
        assert (time_step.reward, time_step.discount) == (10.0 * t, 1.0)
        np.testing.assert_array_equal(time_step.observation[1:], [t, 0.5, 3.0])
    time_step = environment.step(np.float32([0.5, 9.0]))
    assert time_step.is_last()
    assert (time_step.reward, time_step.discount) == (10.0 * steps, discount)
    assert environment.step(np.float32([0.5, 9.0])).is_first()


def test_tf_agents_environment_has_the_episodes_of_the_first_environment():
    environment = environments.GymnasiumPyEnvironment(echo_task(length=1), seed=4)
    vector = VectorEnvironment(echo_task(length=1), 1, seed=4)
    for _ in range(3):
        np.testing.assert_array_equal(environment.reset().observation, vector.observations[0])
        vector.step(np.zeros((1, 2)))


def test_tf_agents_environment_refuses_values_that_are_not_finite():
    environment = environments.GymnasiumPyEnvironment(echo_task(poison="reward"), seed=0)
    environment.reset()
    with pytest.raises(FloatingPointError, match="action"):
        environment.step(np.float32([np.nan, 0.0]))
    environment.step(np.zeros(2, np.float32))
    with pytest.raises(FloatingPointError, match="reward"):
        environment.step(np.zeros(2, np.float32))
