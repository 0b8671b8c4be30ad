import dataclasses

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nppac_tf.environments import episode_seed, make_task
from nppac_tf.errors import UserError
from nppac_tf.evaluation.rollouts import Episodes, as_policy_function, evaluate

HORIZON = 6
# The goal flag in each step of the four kinds of episode. The last is cut off by the time limit.
PATTERNS = [[0, 0], [0, 1, 0], [0, 0, 1, 1], [1, 0, 1, 1, 0, 1]]
ANY_SUCCESS = [0, 1, 1, 1]
TIME_AT_GOAL = [0, 1 / 6, 2 / 6, 4 / 6]
FINAL_SUCCESS = [0, 0, 1, 1]
LENGTHS = [2, 3, 4, 6]
# Step t, from 1, pays t times the action, here always 0.5.
RETURNS = [1.5, 3.0, 5.0, 10.5]


class PatternEnvironment(gymnasium.Env):
    """Observes (kind, step), where the kind of episode is the reset's seed modulo 4."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, tells_success=True, poison=None, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
        self._tells_success = tells_success
        self._poison = poison

    def reset(self, *, seed=None, options=None):
        self._kind, self._step = seed % 4, 0
        return self._observe(), {}

    def step(self, action):
        success = PATTERNS[self._kind][self._step]
        self._step += 1
        terminated = self._step == len(PATTERNS[self._kind]) and self._step < HORIZON
        reward = float(self._step * action[0])
        if self._poison == "reward":
            reward = np.nan
        info = {"success": bool(success)} if self._tells_success else {}
        return self._observe(), reward, terminated, False, info

    def render(self):
        assert self.render_mode == "rgb_array"
        return np.full((2, 2, 3), 10 * self._kind + self._step, np.uint8)

    def _observe(self):
        return np.array([np.nan if self._poison == "observation" else self._kind, self._step])


@pytest.fixture(autouse=True)
def _pattern_registered():
    gymnasium.register("nppac_tests/Pattern-v0", PatternEnvironment, max_episode_steps=HORIZON)
    yield
    del gymnasium.registry["nppac_tests/Pattern-v0"]


def pattern_task(**kwargs):
    return dataclasses.replace(make_task("nppac_tests/Pattern-v0"), environment_kwargs=kwargs)


def half(observations):
    return np.full((len(observations), 1), 0.5)


def kinds(num_episodes, seed=0):
    return [episode_seed(seed, i) % 4 for i in range(num_episodes)]


def fields(episodes):
    return [getattr(episodes, f.name) for f in dataclasses.fields(Episodes)][:5]


def test_metrics_of_known_episodes():
    episodes = evaluate(half, pattern_task(), num_episodes=23, num_environments=4)
    k = np.array(kinds(23))
    assert set(k) == {0, 1, 2, 3}
    np.testing.assert_array_equal(episodes.any_success, np.float32(ANY_SUCCESS)[k])
    np.testing.assert_array_equal(episodes.time_at_goal, np.float32(TIME_AT_GOAL)[k])
    np.testing.assert_array_equal(episodes.final_success, np.float32(FINAL_SUCCESS)[k])
    np.testing.assert_array_equal(episodes.returns, np.float32(RETURNS)[k])
    np.testing.assert_array_equal(episodes.lengths, np.array(LENGTHS)[k])
    assert [values.dtype for values in fields(episodes)] == [np.float32] * 4 + [np.int64]
    assert (episodes.observations, episodes.actions, episodes.rewards) == ((), (), ())
    assert episodes.final_observations.size == episodes.terminated.size == 0


@pytest.mark.parametrize("num_environments", [1, 2, 3, 7, 8, 50])
def test_result_is_independent_of_the_number_of_environments(num_environments):
    def policy(observations):
        return np.sin(observations.sum(axis=1, keepdims=True))

    expected = evaluate(policy, pattern_task(), 8, seed=1, num_environments=4, record=True)
    result = evaluate(policy, pattern_task(), 8, 1, num_environments, record=True)
    for values, expected_values in zip(fields(result), fields(expected), strict=True):
        np.testing.assert_array_equal(values, expected_values)
    for name in ("observations", "actions", "rewards", "final_observations", "terminated"):
        for values, expected_values in zip(
            getattr(result, name), getattr(expected, name), strict=True
        ):
            np.testing.assert_array_equal(values, expected_values)


def test_more_episodes_begin_with_the_same_ones():
    few, many = (evaluate(half, pattern_task(), n, num_environments=3) for n in (4, 9))
    np.testing.assert_array_equal(few.returns, many.returns[:4])


def test_seed_chooses_the_episodes():
    results = [evaluate(half, pattern_task(), 20, seed=seed).lengths for seed in (0, 1)]
    assert [list(np.array(LENGTHS)[kinds(20, seed)]) for seed in (0, 1)] == [
        list(lengths) for lengths in results
    ]
    assert list(results[0]) != list(results[1])


@pytest.mark.parametrize(("num_environments", "batch_size"), [(1, 1), (4, 4), (50, 10)])
def test_policy_sees_batches_of_one_size(num_environments, batch_size):
    shapes = []

    def policy(observations):
        shapes.append((observations.shape, observations.dtype))
        return half(observations)

    evaluate(policy, pattern_task(), 10, num_environments=num_environments)
    assert set(shapes) == {((batch_size, 2), np.dtype(np.float32))}


def test_recorded_episodes_hold_what_was_acted_upon_and_done():
    def policy(observations):
        observations[:, 1] *= 0.4
        return observations[:, 1:]

    episodes = evaluate(policy, pattern_task(), 9, num_environments=2, record=True)
    for i, kind in enumerate(kinds(9)):
        steps = np.arange(LENGTHS[kind])
        np.testing.assert_array_equal(episodes.observations[i][:, 0], np.full(len(steps), kind))
        np.testing.assert_array_equal(episodes.observations[i][:, 1], steps)
        np.testing.assert_allclose(
            episodes.actions[i], np.minimum(0.4 * steps, 1)[:, np.newaxis], rtol=1e-6
        )
        np.testing.assert_allclose(
            episodes.rewards[i], (steps + 1) * episodes.actions[i][:, 0], rtol=1e-6
        )
        np.testing.assert_array_equal(episodes.final_observations[i], [kind, LENGTHS[kind]])
        assert episodes.terminated[i] == (LENGTHS[kind] < HORIZON)
        for values in (episodes.observations, episodes.actions, episodes.rewards):
            assert values[i].dtype == np.float32
    assert set(episodes.terminated) == {False, True}
    assert episodes.terminated.dtype == np.bool_
    assert episodes.final_observations.dtype == np.float32


def test_frames_are_of_each_start_and_step_in_order():
    frames = []
    episodes = evaluate(half, pattern_task(), 5, seed=1, on_frame=frames.append)
    expected = [10 * k + step for k in kinds(5, seed=1) for step in range(LENGTHS[k] + 1)]
    assert [frame[0, 0, 0] for frame in frames] == expected
    np.testing.assert_array_equal(episodes.returns, evaluate(half, pattern_task(), 5, 1).returns)


def test_task_without_success():
    episodes = evaluate(half, pattern_task(tells_success=False), 5)
    summary = episodes.summary()
    assert summary.pop("eval/return") == np.mean([RETURNS[kind] for kind in kinds(5)])
    assert np.isnan(list(summary.values())).all()
    intervals = episodes.intervals()
    assert np.isfinite(intervals.pop("eval/return")).all()
    assert np.isnan(list(intervals.values())).all()


def test_time_at_goal_without_a_horizon_is_over_the_length():
    task = dataclasses.replace(pattern_task(), horizon=None)
    k = np.array(kinds(12))
    expected = np.float32([0, 1 / 3, 2 / 4, 4 / 6])[k]
    np.testing.assert_array_equal(evaluate(half, task, 12).time_at_goal, expected)


def test_real_task_is_independent_of_the_number_of_environments():
    task = make_task("pen-binary")
    weights = np.random.default_rng(0).normal(0, 0.3, (45, 24)).astype(np.float32)

    def policy(observations):
        return np.stack([np.tanh(row @ weights) for row in observations])

    alone, together = (evaluate(policy, task, 3, 0, b, record=True) for b in (1, 3))
    assert together.lengths.tolist() == [100, 100, 100]
    for first, second in zip(alone.observations, together.observations, strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(alone.returns, together.returns)
    np.testing.assert_allclose(alone.time_at_goal, alone.returns / 100, rtol=1e-6)


def test_environments_are_closed_even_after_an_error(monkeypatch):
    closed = []
    monkeypatch.setattr(PatternEnvironment, "close", lambda self: closed.append(self))
    task = pattern_task()
    closed.clear()

    def policy(observations):
        raise RuntimeError("broken policy")

    with pytest.raises(RuntimeError, match="broken policy"):
        evaluate(policy, task, 4, num_environments=3)
    assert len(closed) == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"num_episodes": 0}, "num_episodes must be at least 1; got 0"),
        ({"num_environments": 0}, "num_environments must be at least 1; got 0"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, expected):
    with pytest.raises(UserError, match=expected):
        evaluate(half, pattern_task(), **arguments)


def test_actions_of_the_wrong_shape_are_refused():
    with pytest.raises(UserError, match=r"\[10, 1\].*got \[10\]"):
        evaluate(lambda observations: observations[:, 0], pattern_task())


@pytest.mark.parametrize("quantity", ["observation", "reward"])
def test_what_is_not_finite_stops_the_evaluation(quantity):
    with pytest.raises(FloatingPointError, match=quantity):
        evaluate(half, pattern_task(poison=quantity))


def test_action_that_is_not_finite_stops_the_evaluation():
    with pytest.raises(FloatingPointError, match="action"):
        evaluate(lambda observations: half(observations) * np.nan, pattern_task())


def episodes_of(any_success, time_at_goal=None, returns=None):
    any_success = np.float32(any_success)
    return Episodes(
        any_success=any_success,
        time_at_goal=any_success if time_at_goal is None else np.float32(time_at_goal),
        final_success=any_success,
        returns=any_success if returns is None else np.float32(returns),
        lengths=np.full(len(any_success), 100),
    )


def test_summary_is_the_means():
    episodes = Episodes(
        any_success=np.float32([1, 1, 0, 1]),
        time_at_goal=np.float32([0.5, 0.25, 0, 0.25]),
        final_success=np.float32([1, 0, 0, 0]),
        returns=np.float32([50, 25, 0, 25]),
        lengths=np.array([100, 100, 100, 100]),
    )
    assert episodes.summary() == {
        "eval/any_success": 0.75,
        "eval/time_at_goal": 0.25,
        "eval/final_success": 0.25,
        "eval/return": 25.0,
    }


@pytest.mark.parametrize(
    ("successes", "num_episodes", "expected"),
    [
        # n / (n + z²) with z = 1.959964.
        (50, 50, (0.928652, 1.0)),
        (0, 50, (0.0, 0.071348)),
        (1, 1, (0.206549, 1.0)),
        # ((2kn⁻¹ + z²n⁻¹) ± z n⁻½ √(4kn⁻¹(1 − kn⁻¹) + z²n⁻¹)) / (2 + 2z²n⁻¹)
        (7, 10, (0.396778, 0.892209)),
    ],
)
def test_shares_have_wilsons_interval(successes, num_episodes, expected):
    flags = np.arange(num_episodes) < successes
    intervals = episodes_of(flags).intervals()
    assert intervals["eval/any_success"] == pytest.approx(expected, abs=1e-6)
    assert intervals["eval/final_success"] == pytest.approx(expected, abs=1e-6)


def test_bootstrap_interval_is_close_to_the_normal_one():
    returns = np.random.default_rng(0).normal(10, 2, 400)
    low, high = episodes_of(np.ones(400), returns=returns).intervals()["eval/return"]
    half_width = 1.959964 * returns.std() / np.sqrt(400)
    assert low == pytest.approx(returns.mean() - half_width, abs=0.03)
    assert high == pytest.approx(returns.mean() + half_width, abs=0.03)


def test_equal_values_have_a_bootstrap_interval_of_no_width():
    intervals = episodes_of(np.ones(5), time_at_goal=[0.25] * 5).intervals()
    assert intervals["eval/time_at_goal"] == (0.25, 0.25)


def test_one_episode_has_no_bootstrap_interval():
    intervals = episodes_of([1]).intervals()
    assert np.isnan([intervals["eval/time_at_goal"], intervals["eval/return"]]).all()


@given(st.lists(st.integers(0, 100), min_size=2, max_size=12))
def test_intervals_hold_the_mean_and_repeat(steps_at_goal):
    steps = np.array(steps_at_goal)
    episodes = episodes_of(steps > 0, time_at_goal=steps / 100, returns=steps)
    intervals, summary = episodes.intervals(), episodes.summary()
    assert list(intervals) == list(summary)
    assert intervals == episodes.intervals()
    wider = episodes.intervals(confidence=0.99)
    for name, (low, high) in intervals.items():
        assert low - 1e-9 <= summary[name] <= high + 1e-9
        assert wider[name][0] <= low + 1e-9
        assert wider[name][1] >= high - 1e-9


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_confidence_out_of_range_is_refused(confidence):
    with pytest.raises(UserError, match=r"confidence must be in \(0, 1\); got"):
        episodes_of([1, 0]).intervals(confidence)


def test_callable_is_its_own_policy_function():
    assert as_policy_function(half) is half


def test_what_is_no_policy_is_refused():
    with pytest.raises(UserError, match="policy must be callable or a TFPolicy; got int"):
        as_policy_function(3)


def linear_policy(weight, traces, policy_state_spec=()):
    """A TFPolicy that draws from N(weight · step, 5²), where step is the observation's second."""
    import tensorflow as tf
    import tensorflow_probability as tfp
    from tf_agents.policies import tf_policy
    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import policy_step
    from tf_agents.trajectories import time_step as ts

    class LinearPolicy(tf_policy.TFPolicy):
        def __init__(self):
            super().__init__(
                ts.time_step_spec(tensor_spec.TensorSpec((2,), tf.float32)),
                tensor_spec.BoundedTensorSpec((1,), tf.float32, -1, 1),
                policy_state_spec=policy_state_spec,
            )

        def _distribution(self, time_step, policy_state):
            traces.append(time_step.observation.shape)
            loc = weight * time_step.observation[:, 1:]
            return policy_step.PolicyStep(tfp.distributions.Normal(loc, 5.0), policy_state)

        def _variables(self):
            return [weight]

    return LinearPolicy()


def test_tf_policy_becomes_its_greedy_action_compiled_once_and_live():
    import tensorflow as tf

    weight, traces = tf.Variable(0.25), []
    policy_function = as_policy_function(linear_policy(weight, traces))
    observations = np.array([[0, 0], [0, 1], [0, 2]], np.float64)
    actions = policy_function(observations)
    assert isinstance(actions, np.ndarray)
    np.testing.assert_array_equal(actions, [[0], [0.25], [0.5]])
    weight.assign(0.5)
    np.testing.assert_array_equal(policy_function(observations), [[0], [0.5], [1]])
    traced = len(traces)
    for _ in range(5):
        policy_function(observations)
    assert len(traces) == traced
    assert set(traces) == {(3, 2)}


def test_tf_policy_is_evaluated():
    import tensorflow as tf

    policy = linear_policy(tf.Variable(0.25), [])
    episodes = evaluate(policy, pattern_task(), 9, num_environments=4, record=True)
    for i, kind in enumerate(kinds(9)):
        steps = np.arange(LENGTHS[kind])
        np.testing.assert_array_equal(
            episodes.actions[i][:, 0], np.minimum(0.25 * steps, 1).astype(np.float32)
        )


def test_policy_with_state_is_refused():
    import tensorflow as tf
    from tf_agents.specs import tensor_spec

    policy = linear_policy(tf.Variable(0.0), [], tensor_spec.TensorSpec((1,), tf.float32))
    with pytest.raises(UserError, match="policy must have no state"):
        as_policy_function(policy)
