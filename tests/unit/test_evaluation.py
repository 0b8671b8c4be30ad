import dataclasses

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from hypothesis import given
from hypothesis import strategies as st
from tf_agents.policies import tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from nppac_tf.environments import episode_seed, make_task
from nppac_tf.errors import UserError
from nppac_tf.evaluation.episodes import Episodes, readable
from nppac_tf.evaluation.rollouts import as_policy_function, evaluate

HORIZON = 6
# Goal flags of the four kinds of episode. All terminate but the last, which reaches the horizon.
PATTERNS = [[0, 0], [0, 1, 0], [0, 0, 1, 1], [1, 0, 1, 1, 0, 1]]
ANY_SUCCESS = np.float32([0, 1, 1, 1])
# The third terminates at the goal with two steps left.
TIME_AT_GOAL = np.float32([0, 1 / 6, (2 + 2) / 6, 4 / 6])
FINAL_SUCCESS = np.float32([0, 0, 1, 1])
LENGTHS = np.array([2, 3, 4, 6])
RETURNS = np.float32([1.5, 3.0, 5.0, 10.5])  # Step t, from 1, pays t times the action, 0.5.


class PatternEnvironment(gymnasium.Env):
    """Observes (kind, step); the kind of episode is the seed modulo 4."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def __init__(self, has_success=True, truncates=False, poison=None, render_mode=None):
        self.render_mode = render_mode
        self._has_success, self._truncates, self._poison = has_success, truncates, poison

    def reset(self, *, seed=None, options=None):
        self._kind, self._step = seed % 4, 0
        return self._observe(), {}

    def step(self, action):
        success = bool(PATTERNS[self._kind][self._step])
        self._step += 1
        ends = self._step == len(PATTERNS[self._kind]) < HORIZON
        reward = np.nan if self._poison == "reward" else float(self._step * action[0])
        info = {"success": success} if self._has_success else {}
        return self._observe(), reward, ends and not self._truncates, ends and self._truncates, info

    def render(self):
        return np.full((2, 2, 3), 10 * self._kind + self._step, np.uint8)

    def _observe(self):
        return np.array([np.nan if self._poison == "observation" else self._kind, self._step])


@pytest.fixture(autouse=True)
def _pattern_registered():
    gymnasium.register("nppac_tests/Pattern-v0", PatternEnvironment, max_episode_steps=HORIZON)
    yield
    del gymnasium.registry["nppac_tests/Pattern-v0"]


def pattern_task(horizon=HORIZON, **kwargs):
    task = make_task("nppac_tests/Pattern-v0")
    return dataclasses.replace(task, environment_kwargs=kwargs, horizon=horizon)


def half(observations):
    return np.full((len(observations), 1), 0.5)


def kinds(num_episodes, seed=0):
    return np.array([episode_seed(seed, i) % 4 for i in range(num_episodes)])


# Rollouts.


def test_metrics_of_known_episodes():
    episodes = evaluate(half, pattern_task(), num_episodes=23, num_environments=4)
    k = kinds(23)
    assert set(k) == {0, 1, 2, 3}
    np.testing.assert_array_equal(episodes.any_success, ANY_SUCCESS[k])
    np.testing.assert_array_equal(episodes.time_at_goal, TIME_AT_GOAL[k])
    np.testing.assert_array_equal(episodes.final_success, FINAL_SUCCESS[k])
    np.testing.assert_array_equal(episodes.returns, RETURNS[k])
    np.testing.assert_array_equal(episodes.lengths, LENGTHS[k])
    np.testing.assert_array_equal(episodes.terminated, LENGTHS[k] < HORIZON)
    assert episodes.observations == ()
    assert (
        f"at the goal, up to the horizon, as at the goal ({(k == 2).sum()} of 23 episodes)"
        in str(episodes)
    )


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"horizon": None}, [0, 1 / 3, 2 / 4, 4 / 6]),
        ({"truncates": True}, [0, 1 / 6, 2 / 6, 4 / 6]),
        ({"horizon": 12}, [0, 1 / 12, (2 + 8) / 12, 4 / 12]),
    ],
)
def test_only_a_termination_at_the_goal_fills_the_horizon(task, expected):
    episodes = evaluate(half, pattern_task(**task), 12)
    np.testing.assert_array_equal(episodes.time_at_goal, np.float32(expected)[kinds(12)])
    assert ("as at the goal" in str(episodes)) == (task == {"horizon": 12})


@given(st.integers(0, 2**31), st.integers(1, 9))
def test_time_at_goal_is_a_share_that_success_makes_positive(seed, num_episodes):
    episodes = evaluate(half, pattern_task(), num_episodes, seed)
    assert ((episodes.time_at_goal >= 0) & (episodes.time_at_goal <= 1)).all()
    np.testing.assert_array_equal(episodes.time_at_goal > 0, episodes.any_success == 1)


@pytest.mark.parametrize("num_environments", [1, 2, 3, 8, 50])
def test_result_is_independent_of_the_number_of_environments(num_environments):
    def policy(observations):
        return np.sin(observations.sum(axis=1, keepdims=True))

    expected = evaluate(policy, pattern_task(), 8, seed=1, num_environments=4, record=True)
    result = evaluate(policy, pattern_task(), 8, 1, num_environments, record=True)
    for field in dataclasses.fields(Episodes):
        np.testing.assert_equal(getattr(result, field.name), getattr(expected, field.name))


def test_seed_and_index_choose_an_episode():
    few, many = (evaluate(half, pattern_task(), n, seed=1, num_environments=3) for n in (4, 9))
    np.testing.assert_array_equal(many.lengths, LENGTHS[kinds(9, seed=1)])
    np.testing.assert_array_equal(few.returns, many.returns[:4])


@pytest.mark.parametrize(("num_environments", "batch_size"), [(1, 1), (4, 4), (50, 10)])
def test_policy_sees_batches_of_one_size(num_environments, batch_size):
    shapes = set()

    def policy(observations):
        shapes.add((observations.shape, observations.dtype))
        return half(observations)

    evaluate(policy, pattern_task(), 10, num_environments=num_environments)
    assert shapes == {((batch_size, 2), np.dtype(np.float32))}


def test_recorded_episodes_hold_observations_and_executed_actions():
    def policy(observations):
        observations[:, 1] *= 0.4  # The record must not change with the policy's own copy.
        return observations[:, 1:]

    episodes = evaluate(policy, pattern_task(), 9, num_environments=2, record=True)
    for i, kind in enumerate(kinds(9)):
        steps = np.arange(LENGTHS[kind])
        actions = np.float32(np.minimum(0.4 * steps, 1))
        np.testing.assert_array_equal(episodes.observations[i][:, 0], np.full(len(steps), kind))
        np.testing.assert_array_equal(episodes.observations[i][:, 1], steps)
        np.testing.assert_allclose(episodes.actions[i][:, 0], actions, rtol=1e-6)
        np.testing.assert_allclose(episodes.rewards[i], (steps + 1) * actions, rtol=1e-6)
        np.testing.assert_array_equal(episodes.final_observations[i], [kind, LENGTHS[kind]])


def test_frames_show_each_start_and_step_in_order():
    frames = []
    episodes = evaluate(half, pattern_task(), 5, seed=1, on_frame=frames.append)
    expected = [10 * k + step for k in kinds(5, seed=1) for step in range(LENGTHS[k] + 1)]
    assert [frame[0, 0, 0] for frame in frames] == expected
    np.testing.assert_array_equal(episodes.returns, evaluate(half, pattern_task(), 5, 1).returns)


def test_real_task_is_independent_of_the_number_of_environments():
    task = make_task("pen-binary")
    weights = np.random.default_rng(0).normal(0, 0.3, (45, 24)).astype(np.float32)

    def policy(observations):
        return np.stack([np.tanh(row @ weights) for row in observations])

    alone, together = (evaluate(policy, task, 3, 0, b, record=True) for b in (1, 3))
    assert together.lengths.tolist() == [100, 100, 100]
    for first, second in zip(alone.observations, together.observations, strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(alone.time_at_goal, together.returns / 100, rtol=1e-6)


def test_environments_are_closed_even_after_an_error(monkeypatch):
    task, closed = pattern_task(), []
    monkeypatch.setattr(PatternEnvironment, "close", lambda self: closed.append(self))
    with pytest.raises(ZeroDivisionError):
        evaluate(lambda observations: 1 / 0, task, 4, num_environments=3)
    assert len(closed) == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"num_episodes": 0}, "num_episodes must be at least 1; got 0"),
        ({"num_environments": 0}, "num_environments must be at least 1; got 0"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
        ({"policy": 3}, "policy must be callable or a TFPolicy; got int"),
        ({"policy": lambda observations: observations[:, 0]}, r"\[10, 1\].*got \[10\]"),
    ],
)
def test_unsuitable_arguments_are_refused(arguments, expected):
    with pytest.raises(UserError, match=expected):
        evaluate(**{"policy": half, "task": pattern_task(), **arguments})


@pytest.mark.parametrize("quantity", ["observation", "reward", "action"])
def test_values_that_are_not_finite_stop_the_evaluation(quantity):
    def policy(observations):
        return half(observations) * (np.nan if quantity == "action" else 1)

    with pytest.raises(FloatingPointError, match=f"{quantity} must be finite"):
        evaluate(policy, pattern_task(poison=quantity))


# Summaries and intervals.


def episodes_of(any_success, time_at_goal=None, returns=None):
    flags = np.float32(any_success)
    return Episodes(
        any_success=flags,
        time_at_goal=flags if time_at_goal is None else np.float32(time_at_goal),
        final_success=flags,
        returns=flags if returns is None else np.float32(returns),
        lengths=np.full(len(flags), 100),
        terminated=np.zeros(len(flags), np.bool_),
        horizon=100,
    )


def test_episodes_print_as_a_table():
    episodes = episodes_of([1, 1, 0, 1], [0.5, 0.25, 0, 0.25], [1050, 1025, 1000, 1025])
    assert episodes.summary() == {
        "eval/any_success": 0.75,
        "eval/time_at_goal": 0.25,
        "eval/final_success": 0.75,
        "eval/return": 1025.0,
    }
    low, high = map(readable, episodes.intervals()["eval/return"])
    lines = str(episodes).splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *("4 episodes", "A, any-time success", "B, time at goal", "final", "return")
    ]
    assert lines[1].split()[-3:] == ["0.750", "[0.301,", "0.954]"]
    assert lines[4].split() == ["return", "1,025", f"[{low},", f"{high}]"]
    assert len({len(line) for line in lines}) == 1


def test_numbers_of_any_scale_are_readable():
    assert [readable(x) for x in (0.12345, 1.0, 99.96, 130, 1025, 11059)] == [
        *("0.123", "1", "100", "130", "1,025", "11,059")
    ]
    assert readable(-2345.6) == "-2,346"


def test_a_task_without_success_has_only_a_return():
    episodes = evaluate(half, pattern_task(has_success=False), 5)
    summary, intervals = episodes.summary(), episodes.intervals()
    assert summary.pop("eval/return") == pytest.approx(np.mean(RETURNS[kinds(5)]))
    assert np.isfinite(intervals.pop("eval/return")).all()
    assert np.isnan([*summary.values(), *np.ravel(list(intervals.values()))]).all()
    assert [line.split()[0] for line in str(episodes).splitlines()] == ["5", "return"]


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
def test_shares_have_wilson_intervals(successes, num_episodes, expected):
    intervals = episodes_of(np.arange(num_episodes) < successes).intervals()
    assert intervals["eval/any_success"] == pytest.approx(expected, abs=1e-6)
    assert intervals["eval/final_success"] == pytest.approx(expected, abs=1e-6)


def test_bootstrap_intervals_are_close_to_normal_ones():
    returns = np.random.default_rng(0).normal(10, 2, 400)
    interval = episodes_of(np.ones(400), returns=returns).intervals()["eval/return"]
    half_width = 1.959964 * returns.std() / np.sqrt(400)
    expected = (returns.mean() - half_width, returns.mean() + half_width)
    assert interval == pytest.approx(expected, abs=0.03)


def test_bootstrap_intervals_of_equal_values_and_of_one_episode():
    assert episodes_of(np.ones(5), [0.25] * 5).intervals()["eval/time_at_goal"] == (0.25, 0.25)
    assert np.isnan(episodes_of([1]).intervals()["eval/return"]).all()
    assert str(episodes_of([1])).splitlines()[-1].split() == ["return", "1", "-"]


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


# TF-Agents policies.


class LinearPolicy(tf_policy.TFPolicy):
    """Draws from N(weight · step, 5²), where step is the observation's second component."""

    def __init__(self, policy_state_spec=()):
        self.weight, self.traces = tf.Variable(0.25), []
        super().__init__(
            ts.time_step_spec(tensor_spec.TensorSpec((2,), tf.float32)),
            tensor_spec.BoundedTensorSpec((1,), tf.float32, -1, 1),
            policy_state_spec=policy_state_spec,
        )

    def _distribution(self, time_step, policy_state):
        self.traces.append(time_step.observation.shape)
        location = self.weight * time_step.observation[:, 1:]
        return policy_step.PolicyStep(tfp.distributions.Normal(location, 5.0), policy_state)

    def _variables(self):
        return [self.weight]


def test_tf_policy_becomes_its_greedy_action_and_follows_its_variables():
    policy = LinearPolicy()
    policy_function = as_policy_function(policy)
    observations = np.array([[0, 0], [0, 1], [0, 2]], np.float64)
    np.testing.assert_array_equal(policy_function(observations), [[0], [0.25], [0.5]])
    traced = len(policy.traces)
    policy.weight.assign(0.5)
    np.testing.assert_array_equal(policy_function(observations), [[0], [0.5], [1]])
    assert len(policy.traces) == traced


def test_tf_policy_is_evaluated():
    episodes = evaluate(LinearPolicy(), pattern_task(), 9, num_environments=4, record=True)
    for i, kind in enumerate(kinds(9)):
        expected = np.minimum(0.25 * np.arange(LENGTHS[kind]), 1).astype(np.float32)
        np.testing.assert_array_equal(episodes.actions[i][:, 0], expected)


def test_policy_with_state_is_refused():
    with pytest.raises(UserError, match="policy must have no state"):
        as_policy_function(LinearPolicy(tensor_spec.TensorSpec((1,), tf.float32)))
