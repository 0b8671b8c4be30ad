import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

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
from nppac_tf.errors import UserError

HAND_TASKS = ["pen-binary", "door-binary", "relocate-binary", "hammer-binary"]


class EchoEnvironment(gymnasium.Env):
    """Observes (start, step, action); start is drawn on reset. Terminates after `length` steps."""

    def __init__(self, length=3, poison=None, success=None):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = gymnasium.spaces.Box(
            np.array([-1.0, -2.0], np.float32), np.array([1.0, 3.0], np.float32)
        )
        self._length, self._poison, self._success = length, poison, success

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._start, self._step = self.np_random.uniform(1, 2), 0
        return np.array([self._start, 0.0, 0.0, 0.0]), {}

    def step(self, action):
        self._step += 1
        observation = np.array([self._start, self._step, *action])
        reward = 10.0 * self._step
        if self._step == 2 and self._poison == "observation":
            observation[0] = np.nan
        if self._step == 2 and self._poison == "reward":
            reward = np.inf
        info = {} if self._success is None else {"success": self._success}
        return observation, reward, self._step == self._length, False, info


class OddSpacesEnvironment(EchoEnvironment):
    def __init__(self, action_space=None, observation_space=None):
        super().__init__()
        if action_space is not None:
            self.action_space = action_space
        if observation_space is not None:
            self.observation_space = observation_space


@pytest.fixture(autouse=True)
def _echo_registered():
    gymnasium.register("nppac_tests/Echo-v0", EchoEnvironment, max_episode_steps=5)
    gymnasium.register("nppac_tests/Odd-v0", OddSpacesEnvironment)
    yield
    del gymnasium.registry["nppac_tests/Echo-v0"], gymnasium.registry["nppac_tests/Odd-v0"]


def echo_task(**kwargs):
    return dataclasses.replace(make_task("nppac_tests/Echo-v0"), environment_kwargs=kwargs)


@pytest.mark.parametrize(
    ("name", "environment_id", "observation_size", "action_size", "horizon"),
    [
        ("pen-binary", "nppac_tf/PenBinary-v0", 45, 24, 100),
        ("door-binary", "nppac_tf/DoorBinary-v0", 39, 28, 200),
        ("relocate-binary", "nppac_tf/RelocateBinary-v0", 39, 30, 200),
        ("hammer-binary", "nppac_tf/HammerBinary-v0", 46, 26, 200),
        ("halfcheetah", "HalfCheetah-v5", 17, 6, 1000),
        ("ant", "Ant-v5", 105, 8, 1000),
        ("walker2d", "Walker2d-v5", 17, 6, 1000),
        ("hopper", "Hopper-v5", 11, 3, 1000),
    ],
)
def test_task_sizes(name, environment_id, observation_size, action_size, horizon):
    task = make_task(name)
    assert task.name == name
    assert task.environment_id == environment_id
    assert (task.observation_size, task.action_size) == (observation_size, action_size)
    assert task.horizon == horizon
    assert task.action_low.dtype == task.action_high.dtype == np.float32
    np.testing.assert_array_equal(task.action_low, -np.ones(action_size))
    np.testing.assert_array_equal(task.action_high, np.ones(action_size))


def test_any_gymnasium_id_is_a_task():
    task = make_task("nppac_tests/Echo-v0")
    assert (task.name, task.observation_size, task.action_size) == ("nppac_tests/Echo-v0", 4, 2)
    np.testing.assert_array_equal(task.action_low, [-1, -2])
    np.testing.assert_array_equal(task.action_high, [1, 3])
    assert task.horizon == 5


def test_hand_task_by_its_gymnasium_id():
    task = make_task("nppac_tf/PenBinary-v0", reward="negative")
    assert task.name == "pen-binary"
    assert task.environment_kwargs == {"reward": "negative"}


def test_task_travels_by_pickle():
    task = pickle.loads(pickle.dumps(make_task("pen-binary")))
    task.make().close()
    assert task.horizon == 100


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pen", "close to it: pen-binary"),
        ("halfchetah", "close to it: halfcheetah"),
        ("Hopper-v99", "Hopper-v5"),
        ("no_such_module:Thing-v0", "got 'no_such_module:Thing-v0'"),
        ("not an id", "Malformed"),
        ("CartPole-v1", r"bounded, one-dimensional Box action space; got Discrete\(2\)"),
    ],
)
def test_unsuitable_names_are_refused(name, expected):
    with pytest.raises(UserError, match=expected) as raised:
        make_task(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"action_space": gymnasium.spaces.Box(-np.inf, 1.0, (2,))}, "bounded"),
        ({"action_space": gymnasium.spaces.Box(-1.0, 1.0, (2, 2))}, "one-dimensional Box action"),
        ({"observation_space": gymnasium.spaces.Box(-1.0, 1.0, (4, 4))}, "Box observation"),
        ({"observation_space": gymnasium.spaces.Dict()}, "Box observation"),
    ],
)
def test_unsuitable_spaces_are_refused(space, expected):
    gymnasium.registry["nppac_tests/Odd-v0"].kwargs.update(space)
    with pytest.raises(UserError, match=expected):
        make_task("nppac_tests/Odd-v0")


def test_unsuitable_rewards_are_refused():
    with pytest.raises(UserError, match="must be one of binary, negative; got 'dense'"):
        make_task("pen-binary", reward="dense")
    with pytest.raises(UserError, match="without a success signal, 'hopper'; got 'negative'"):
        make_task("hopper", reward="negative")


def test_pen_rewards_follow_the_observed_goal():
    binary = VectorEnvironment(make_task("pen-binary"), 8, seed=0)
    negative = VectorEnvironment(make_task("pen-binary", reward="negative"), 8, seed=0)
    seen = set()
    for _ in range(40):
        step = binary.step(np.zeros((8, 24)))
        observations = step.next_observations
        distance = np.linalg.norm(observations[:, 39:42], axis=1)
        alignment = np.sum(observations[:, 33:36] * observations[:, 36:39], axis=1)
        at_goal = ((distance < 0.075) & (alignment > 0.95)).astype(np.float32)
        np.testing.assert_array_equal(step.rewards, at_goal)
        np.testing.assert_array_equal(negative.step(np.zeros((8, 24))).rewards, at_goal - 1)
        seen.update(at_goal)
    assert seen == {0.0, 1.0}


@pytest.mark.parametrize("name", HAND_TASKS)
def test_hand_tasks_truncate_at_the_horizon_and_never_terminate(name):
    task = make_task(name)
    environment = VectorEnvironment(task, 1, seed=0)
    actions = np.zeros((1, task.action_size))
    steps = [environment.step(actions) for _ in range(task.horizon)]
    assert not any(step.terminations.any() for step in steps)
    assert [step.truncations[0] for step in steps] == [False] * (task.horizon - 1) + [True]


@pytest.mark.parametrize("name", [*HAND_TASKS, "halfcheetah", "walker2d"])
def test_episodes_are_those_of_a_fresh_environment(name):
    task = make_task(name)
    task = dataclasses.replace(
        task, environment_kwargs={**task.environment_kwargs, "max_episode_steps": 4}
    )
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 2, task.action_size)).astype("f")
    vector = VectorEnvironment(task, 2, seed=7)
    for t in range(4):
        vector.step(actions[t])
    for i in range(2):
        fresh = task.make()
        expected, _ = fresh.reset(seed=episode_seed(7, i, 1))
        np.testing.assert_array_equal(vector.observations[i], expected.astype(np.float32))
    for t in range(4, 8):
        step = vector.step(actions[t])
        expected, reward, terminated, truncated, _ = fresh.step(actions[t, 1])
        np.testing.assert_array_equal(step.next_observations[1], expected.astype(np.float32))
        assert step.rewards[1] == np.float32(reward)
        assert (step.terminations[1], step.truncations[1]) == (terminated, truncated)
    assert truncated
    assert np.any(step.next_observations[1] != vector.observations[1])


def test_successors_survive_the_automatic_reset():
    vector = VectorEnvironment(echo_task(length=3), 2, seed=0)
    starts = vector.observations[:, 0].copy()
    assert starts[0] != starts[1]
    for t in (1, 2, 3):
        step = vector.step([[0.5, 0.5], [0.25, 0.25]])
        np.testing.assert_array_equal(step.next_observations[:, 0], starts)
        np.testing.assert_array_equal(step.next_observations[:, 1], [t, t])
        np.testing.assert_array_equal(step.rewards, [10.0 * t, 10.0 * t])
    assert step.terminations.all()
    assert not step.truncations.any()
    np.testing.assert_array_equal(vector.observations[:, 1:], np.zeros((2, 3)))
    assert (vector.observations[:, 0] != starts).all()


def test_time_limit_truncates_without_terminating():
    vector = VectorEnvironment(echo_task(length=99), 1, seed=0)
    steps = [vector.step(np.zeros((1, 2))) for _ in range(5)]
    assert [bool(step.truncations[0]) for step in steps] == [False] * 4 + [True]
    assert not any(step.terminations[0] for step in steps)


def test_step_types():
    vector = VectorEnvironment(echo_task(), 3, seed=0)
    assert vector.observations.dtype == np.float32
    step = vector.step(np.zeros((3, 2), np.float64))
    assert (step.next_observations.dtype, step.next_observations.shape) == (np.float32, (3, 4))
    assert (step.rewards.dtype, step.rewards.shape) == (np.float32, (3,))
    assert step.terminations.dtype == step.truncations.dtype == np.bool_
    assert vector.num_environments == 3


def test_actions_are_clipped_into_the_bounds():
    step = VectorEnvironment(echo_task(), 2, seed=0).step([[-9.0, -9.0], [9.0, 9.0]])
    np.testing.assert_array_equal(step.next_observations[:, 2:], [[-1, -2], [1, 3]])


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_clipped_actions_are_within_bounds_and_else_unchanged(batch_size, seed):
    task = environments.Task("t", "t", {}, 4, np.float32([-1, -2]), np.float32([1, 3]), None)
    actions = np.random.default_rng(seed).normal(0, 2, (batch_size, 2)).astype(np.float32)
    before = actions.copy()
    clipped = clip_actions(actions, task, batch_size)
    np.testing.assert_array_equal(clipped, np.clip(before, [-1, -2], [1, 3]))
    np.testing.assert_array_equal(actions, before)
    assert not np.shares_memory(clipped, actions)


def test_actions_of_the_wrong_shape_are_refused():
    vector = VectorEnvironment(echo_task(), 3, seed=0)
    with pytest.raises(UserError, match=r"\[B, A\] = \[3, 2\].*got \[2, 3\]"):
        vector.step(np.zeros((2, 3)))
    with pytest.raises(UserError, match=r"got \[2\]"):
        vector.step(np.zeros(2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_refused_before_any_step(value):
    vector = VectorEnvironment(echo_task(), 3, seed=0)
    with pytest.raises(FloatingPointError, match=r"action must be finite.*environment 1 of 3"):
        vector.step([[0, 0], [0, value], [0, 0]])
    assert vector.step(np.zeros((3, 2))).next_observations[:, 1].tolist() == [1, 1, 1]


@pytest.mark.parametrize("quantity", ["observation", "reward"])
def test_what_is_not_finite_in_the_environment_stops_the_run(quantity):
    vector = VectorEnvironment(echo_task(poison=quantity), 2, seed=0)
    vector.step(np.zeros((2, 2)))
    with pytest.raises(FloatingPointError, match=f"{quantity} must be finite.*environment 0, 1"):
        vector.step(np.zeros((2, 2)))


def test_require_finite_takes_vectors_and_matrices():
    require_finite("x", np.ones(3))
    require_finite("x", np.ones((3, 2)))
    with pytest.raises(FloatingPointError, match="environment 0, 2 of 3"):
        require_finite("x", np.array([np.inf, 1.0, np.nan]))


@pytest.mark.parametrize(("num_environments", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_counts_and_seeds_out_of_range_are_refused(num_environments, seed):
    with pytest.raises(UserError, match="must be at least"):
        VectorEnvironment(echo_task(), num_environments, seed)


def run(vector, num_steps):
    actions = np.random.default_rng(0).uniform(-1, 1, (num_steps, vector.num_environments, 2))
    return np.stack([vector.step(a).next_observations for a in actions])


def test_same_seed_same_run():
    first, second, other = (
        run(VectorEnvironment(echo_task(), 3, seed=seed), 10) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)


def test_every_episode_has_a_seed_of_its_own():
    starts = run(VectorEnvironment(echo_task(length=2), 3, seed=0), 10)[::2, :, 0]
    assert len(np.unique(starts)) == 5 * 3


@given(st.integers(0, 2**64), st.lists(st.integers(0, 2**40), max_size=3))
def test_episode_seed_is_a_function_of_its_arguments(seed, key):
    value = episode_seed(seed, *key)
    assert value == episode_seed(seed, *key)
    assert 0 <= value < 2**32
    assert value != episode_seed(seed, *key, 0)


def test_state_between_episodes_goes_on_exactly():
    uninterrupted = VectorEnvironment(echo_task(length=2), 2, seed=3)
    run(uninterrupted, 4)
    state = uninterrupted.state_dict()
    resumed = VectorEnvironment(echo_task(length=2), 2, seed=3)
    resumed.load_state_dict(state)
    np.testing.assert_array_equal(resumed.observations, uninterrupted.observations)
    assert resumed.state_dict()["episode_indices"].tolist() == [2, 2]
    np.testing.assert_array_equal(run(resumed, 5), run(uninterrupted, 5))


@pytest.mark.parametrize(
    "name",
    [
        *("pen-binary", "door-binary", "relocate-binary", "hammer-binary"),
        *("halfcheetah", "ant", "walker2d", "hopper"),
    ],
)
def test_state_within_an_episode_goes_on_exactly(name):
    task = make_task(name)

    def step(vector, num_steps, seed):
        rng = np.random.default_rng(seed)
        shape = (vector.num_environments, task.action_size)
        return [vector.step(rng.uniform(-1, 1, shape)) for _ in range(num_steps)]

    uninterrupted = VectorEnvironment(task, 2, seed=3)
    step(uninterrupted, 23, seed=0)
    resumed = VectorEnvironment(task, 2, seed=3)
    assert resumed.load_state_dict(uninterrupted.state_dict()) == []
    np.testing.assert_array_equal(resumed.observations, uninterrupted.observations)
    # And once more, from a state that was itself restored.
    again = VectorEnvironment(task, 2, seed=3)
    again.load_state_dict(resumed.state_dict())
    expected = step(uninterrupted, 20, seed=1)
    for other in (resumed, again):
        for one, another in zip(step(other, 20, seed=1), expected, strict=True):
            for a, b in zip(one, another, strict=True):
                np.testing.assert_array_equal(a, b)


class Unrepeatable(gymnasium.Env):
    """An environment whose observations come from a generator that no seed reaches."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    generator = np.random.default_rng(0)

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return self.generator.normal(size=1).astype(np.float32), 0.0, False, False, {}


def test_what_does_not_repeat_itself_begins_a_new_episode():
    gymnasium.register("nppac_tests/Unrepeatable-v0", Unrepeatable, max_episode_steps=9)
    try:
        task = make_task("nppac_tests/Unrepeatable-v0")
        vector = VectorEnvironment(task, 2, seed=0)
        vector.step(np.zeros((2, 1)))
        resumed = VectorEnvironment(task, 2, seed=0)
        assert resumed.load_state_dict(vector.state_dict()) == [0, 1]
        np.testing.assert_array_equal(resumed.observations, np.zeros((2, 1)))
        assert resumed.state_dict()["episode_indices"].tolist() == [1, 1]
        assert [len(actions) for actions in resumed.state_dict()["actions"]] == [0, 0]
    finally:
        del gymnasium.registry["nppac_tests/Unrepeatable-v0"]


def test_state_of_another_number_of_environments_is_refused():
    state = VectorEnvironment(echo_task(), 2, seed=0).state_dict()
    with pytest.raises(UserError, match="must be of 3 environments; got 2"):
        VectorEnvironment(echo_task(), 3, seed=0).load_state_dict(state)


def test_state_is_a_copy():
    vector = VectorEnvironment(echo_task(length=2), 2, seed=0)
    state = vector.state_dict()
    observations = vector.observations.copy()
    run(vector, 3)
    assert state["episode_indices"].tolist() == [0, 0]
    assert [actions.shape for actions in state["actions"]] == [(0, 2), (0, 2)]
    np.testing.assert_array_equal(state["observations"], observations)


def test_making_leaves_mujocos_warning_handler_alone():
    import mujoco

    def handler(message):
        pass

    mujoco.set_mju_user_warning(handler)
    try:
        make_task("halfcheetah")
        assert mujoco.get_mju_user_warning() is handler
    finally:
        mujoco.set_mju_user_warning(None)


def silent_run(program, folder):
    root = Path(environments.__file__).parents[2]
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env={"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    return process.returncode, process.stdout + process.stderr, sorted(folder.iterdir())


def test_making_tasks_prints_nothing_and_leaves_no_file(tmp_path):
    program = (
        "from nppac_tf.environments import make_task\n"
        "for name in ['pen-binary', 'door-binary', 'relocate-binary', 'hammer-binary',"
        " 'halfcheetah', 'ant', 'walker2d', 'hopper']:\n"
        "    environment = make_task(name).make()\n"
        "    environment.reset(seed=0)\n"
        "    environment.step(environment.action_space.sample())\n"
        "    environment.close()\n"
    )
    assert silent_run(program, tmp_path) == (0, "", [])


def test_unstable_physics_leaves_no_file(tmp_path):
    program = (
        "from nppac_tf.environments import make_task\n"
        "import numpy as np\n"
        "environment = make_task('halfcheetah').make()\n"
        "environment.reset(seed=0)\n"
        "environment.step(np.full(6, np.nan))\n"
    )
    returncode, output, files = silent_run(program, tmp_path)
    assert (returncode, files) == (0, [])
    assert "simulation is unstable" in output


def test_importing_is_light(tmp_path):
    program = (
        "import sys, nppac_tf.environments\n"
        "print([n for n in ('mujoco', 'gymnasium_robotics', 'tensorflow') if n in sys.modules])\n"
    )
    assert silent_run(program, tmp_path) == (0, "[]\n", [])


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


def test_tf_agents_environment_stops_at_what_is_not_finite():
    environment = environments.GymnasiumPyEnvironment(echo_task(poison="reward"), seed=0)
    environment.reset()
    with pytest.raises(FloatingPointError, match="action"):
        environment.step(np.float32([np.nan, 0.0]))
    environment.step(np.zeros(2, np.float32))
    with pytest.raises(FloatingPointError, match="reward"):
        environment.step(np.zeros(2, np.float32))


def test_unknown_attribute_of_the_module():
    with pytest.raises(AttributeError, match="no attribute 'GymEnvironment'"):
        _ = environments.GymEnvironment
