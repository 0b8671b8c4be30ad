"""The loop: replayed demonstrations, units of rewards, failures, parts."""

import dataclasses

import fakes
import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from training_runs import (
    ANCHORED,
    COLLECTING,
    CONFIG,
    EVERY_PART,
    EVERYTHING,
    HORIZON,
    TINY,
    Homing,
    Recorder,
    run,
    saving_in,
    weights_of,
)

from nppac_tf.agents.nppac import NppacAgent, NppacLossInfo
from nppac_tf.environments import VectorEnvironment, make_task
from nppac_tf.errors import UserError
from nppac_tf.priors import PriorStatistics, UniformPrior
from nppac_tf.training import loop, transitions
from nppac_tf.training.collector import Collector
from nppac_tf.training.learner import Learner, use_xla
from nppac_tf.training.replay import Replay


@pytest.fixture(scope="module")
def task():
    with fakes.point_task(HORIZON) as made:
        yield made


@pytest.fixture(scope="module")
def demonstrations(task):
    return fakes.point_demonstrations(task, num_episodes=3, speed=0.5, noise=0.1)[0]


def test_environments_are_closed_when_a_run_ends_early(task, demonstrations, monkeypatch):
    closed = []
    monkeypatch.setattr(VectorEnvironment, "close", lambda self: closed.append(self))
    with pytest.raises(loop.Stopped):
        run(task, demonstrations, should_stop=lambda: True)
    assert len(closed) == 1


class PoisonedAgent(NppacAgent):
    """One weight becomes nan in update 20, after that update's losses."""

    @tf.autograph.experimental.do_not_convert
    def update(self, *args, **kwargs):
        losses = super().update(*args, **kwargs)
        weight = self._critic_network_1.trainable_variables[0]
        weight.assign(tf.where(self.train_step_counter == 20, np.nan, weight))
        return losses


def test_a_parameter_that_is_not_finite_is_never_saved(task, demonstrations, tmp_path):
    agent = PoisonedAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3)
    saving = saving_in(tmp_path)
    with pytest.raises(UserError, match=r"^a parameter stopped being finite before update 20"):
        loop.train(agent, task, demonstrations, config=CONFIG, checkpoint=saving)
    assert not all(np.isfinite(weights).all() for weights in weights_of(agent))
    state = saving(agent, Replay(2, 2, 60)).restore(lambda line: None)
    assert state["env_steps"] == 20
    assert all(np.isfinite(weights).all() for weights in weights_of(agent))


def test_the_actor_may_learn_less_often_than_the_critics(task, demonstrations):
    config = dataclasses.replace(
        CONFIG, policy_interval=3, num_env_steps=20, updates_per_step=1, pretraining_steps=0
    )
    agent, rows = run(task, demonstrations, config)
    assert int(agent._critic_optimizer.iterations) == rows[-1]["updates"] == 20
    assert int(agent._actor_optimizer.iterations) == 20 // 3
    for name in ("train/kl", "train/actor_loss", "train/critic_loss"):
        assert np.isfinite(rows[-1][name])


# Rewards of any scale.


def test_rewards_of_another_scale_give_the_same_run():
    factor = 1000.0
    config = dataclasses.replace(CONFIG, num_env_steps=40, num_greedy_environments=1)
    runs = []
    for scale in (1.0, factor):
        with fakes.point_task(15, scale) as task:
            runs.append(run(task, None, config, ANCHORED, Homing(2, 2)))
        assert runs[-1][0].reward_scale == pytest.approx(scale)
    (plain, rows), (agent, scaled) = runs
    for one, other in zip(plain.parameters, agent.parameters, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    for name in ("eval/return", "train/return", "train/q_value"):
        assert scaled[-1][name] == pytest.approx(factor * rows[-1][name], rel=1e-3)
    assert rows[-1]["eval/return"] > 2


def test_the_reward_scale_is_that_of_single_steps(task, demonstrations):
    config = dataclasses.replace(CONFIG, prefill_replay=True, num_env_steps=0, n_step=3)
    agent, _ = run(task, paid(demonstrations), config, ANCHORED)
    assert agent.reward_scale == 1.0


def paid(demonstrations):
    return dataclasses.replace(demonstrations, rewards=np.ones(demonstrations.num_steps))


# Demonstrations in the replay.


def test_the_replay_may_begin_with_the_demonstrations(task, demonstrations):
    config = dataclasses.replace(COLLECTING, prefill_replay=True, num_env_steps=20)
    replays = []

    def keep(agent, replay):
        replays.append(replay)

    agent, _ = run(task, demonstrations, config, checkpoint=keep)
    expert = transitions.of_demonstrations(demonstrations, task)
    rows, added = replays[0].content()
    assert added == len(rows) == len(expert.rewards) + 20
    np.testing.assert_array_equal(rows[: len(expert.rewards), :2], expert.observations)
    np.testing.assert_array_equal(rows[: len(expert.rewards), 4], expert.rewards)
    location, scale = agent.prior.statistics(tf.constant(expert.next_observations))
    kept = rows[: len(expert.rewards), -4:]
    np.testing.assert_allclose(kept, np.concatenate([location, scale], axis=1), rtol=1e-6)


@pytest.mark.parametrize("teach", ["critics", "all"])
def test_a_share_of_each_batch_is_drawn_from_the_demonstrations(task, demonstrations, teach):
    config = dataclasses.replace(CONFIG, demonstration_share=0.25, demonstrations_teach=teach)
    agent = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3)
    expert = transitions.of_demonstrations(demonstrations, task)
    replay = Replay(2, 2, 10)
    learner = Learner(agent, replay, config, expert)
    online = expert._replace(observations=expert.observations + 100.0)
    online = transitions.Transitions(*(column[:10] for column in online))
    replay.add(learner.with_statistics(online, stride=1))
    (batch, policy_batch), (again, _), (later, _) = map(
        learner._sample, map(tf.constant, (5, 5, 6))
    )
    assert (batch.observations[:6] > 50).numpy().all()
    states = {tuple(state) for state in expert.observations}
    assert {tuple(state) for state in batch.observations[6:].numpy()} <= states
    np.testing.assert_array_equal(batch.observations, again.observations)
    assert (batch.observations[6:] != later.observations[6:]).numpy().any()
    if teach == "critics":
        np.testing.assert_array_equal(policy_batch.observations, batch.observations[:6])
    else:
        assert policy_batch is None


@pytest.mark.slow
def test_the_loop_of_an_ensemble_with_demonstrations_compiles_with_xla(task, demonstrations):
    config = dataclasses.replace(
        EVERYTHING, num_env_steps=16, updates_per_step=1, n_step=1, offline_updates=0
    )
    ends = []
    for mode in ("on", "off"):
        xla = dataclasses.replace(config, xla=mode)
        agent, rows = run(task, demonstrations, xla, EVERY_PART)
        assert all(np.isfinite(rows[-1][f"train/{name}"]) for name in NppacLossInfo._fields)
        ends.append(np.concatenate([w.ravel() for w in weights_of(agent)]))
    fresh = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), EVERY_PART, seed=3)
    start = np.concatenate([w.ravel() for w in weights_of(fresh)])
    # The backends round differently, and draw other samples, and what they draw is learned from.
    assert np.linalg.norm(ends[0] - ends[1]) < 0.3 * np.linalg.norm(ends[0] - start)


def test_demonstrations_that_are_to_be_replayed_must_be_there(task):
    config = dataclasses.replace(CONFIG, demonstration_share=0.5)
    with pytest.raises(UserError, match="need demonstrations; got none"):
        run(task, None, config)


class Silent(gymnasium.Wrapper):
    """Does not say whether a step is at the goal."""

    def step(self, action):
        return *super().step(action)[:4], {}


def silent_point():
    return gymnasium.wrappers.TimeLimit(Silent(fakes.PointEnvironment()), HORIZON)


@pytest.mark.parametrize(
    ("is_silent", "given", "limit"), [(True, None, 3), (False, None, None), (False, 2, 2)]
)
def test_episodes_are_limited_where_nothing_says_success_or_on_demand(
    task, is_silent, given, limit, monkeypatch
):
    monkeypatch.setattr(loop, "_EPISODE_LIMIT", 3)
    limits = []
    monkeypatch.setattr(VectorEnvironment, "limit_episodes", lambda _, steps: limits.append(steps))
    task = make_task(silent_point) if is_silent else task
    run(task, None, dataclasses.replace(COLLECTING, num_env_steps=10, episode_limit=given))
    assert limits == ([limit] if limit else [])


def test_returns_over_several_steps_are_stored(task):
    config = dataclasses.replace(COLLECTING, n_step=3, num_env_steps=10)
    replays = {}
    for name, chosen in (("one", dataclasses.replace(config, n_step=1)), ("three", config)):
        run(
            task, None, chosen, checkpoint=lambda agent, replay, n=name: replays.update({n: replay})
        )
    one, three = (replays[name].content()[0] for name in ("one", "three"))
    np.testing.assert_array_equal(one[:, :4], three[:, :4])
    # Two environments, five steps: the state after three steps, or after those that are left.
    after = [0 + 4, 1 + 4, 2 + 4, 3 + 4, 8, 9, 8, 9, 8, 9]
    np.testing.assert_array_equal(three[:, 6:8], one[after, 6:8])
    weights = [0.98**2] * 6 + [0.98] * 2 + [1.0] * 2
    np.testing.assert_allclose(three[:, 5], weights, rtol=1e-6)


def test_an_agent_that_is_trained_again_starts_from_what_it_has_learned(task, demonstrations):
    agent, first = run(task, demonstrations, num_steps=20)
    assert int(agent.learned["actor_optimizer"].iterations) == 10
    recorder = Recorder()
    config = dataclasses.replace(CONFIG, num_env_steps=20, critic_warmup_steps=10)
    again = loop.train(agent, task, demonstrations, config=config, observers=[recorder])
    assert [row["updates"] for row in first] == [0, 10]
    assert [row["updates"] for row in again] == [10, 20]
    assert {stage for stage, *_ in recorder.progress} == {"training"}
    # In half of these updates the critics warm up, and the actor is not led back to the prior.
    assert int(agent.learned["actor_optimizer"].iterations) == 15


def test_fewer_steps_than_an_epoch_make_one_epoch(task):
    agent = NppacAgent.for_task(task, UniformPrior(2, 2), TINY)
    rows = loop.train(agent, task, num_steps=4, config=CONFIG)
    assert [row["env_steps"] for row in rows] == [0, 10]


class BrokenPrior(fakes.LinearPrior):
    def statistics(self, observations):
        location, scale = super().statistics(observations)
        return PriorStatistics(location, scale + np.nan)


def test_a_pretraining_that_is_not_finite_is_a_users_error(task, demonstrations):
    with pytest.raises(UserError, match="train/kl stopped being finite before update 20"):
        run(task, demonstrations, prior=BrokenPrior(2, 2))


def test_a_loss_that_is_not_finite_is_a_users_error(task):
    with pytest.raises(UserError, match=r"train/critic_loss.* stopped being finite") as error:
        run(task, None, prior=BrokenPrior(2, 2))
    assert "--learning_rate" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("mode", "devices", "expected"),
    [
        ("on", [], True),
        ("off", ["GPU:0"], False),
        ("auto", [], False),
        ("auto", ["GPU:0"], True),
    ],
)
def test_xla_is_for_a_gpu(monkeypatch, mode, devices, expected):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: devices)
    assert use_xla(mode) is expected


# The parts.


def test_statistics_are_stored_of_both_ends_and_evaluated_once(task):
    evaluated = []

    class CountingPrior(fakes.LinearPrior):
        def statistics(self, observations):
            tf.py_function(
                lambda size: evaluated.append(int(size)), [tf.shape(observations)[0]], []
            )
            return super().statistics(observations)

    prior = CountingPrior(2, 2)
    agent = NppacAgent.for_task(task, prior, TINY)
    learner = Learner(agent, None, CONFIG)
    environments = VectorEnvironment(task, 2, seed=0)
    collected, _ = Collector(agent, environments, CONFIG).collect(14, 0)
    batch = learner.with_statistics(collected, stride=2)
    # 14 states, and the successors of the last two, and of the two that end an episode.
    assert evaluated == [18]
    ends = ((batch.prior, collected[0]), (batch.next_prior, collected[4]))
    for statistics, states in ends:
        expected = agent.prior.statistics(tf.constant(states))
        for a, b in zip(statistics, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    for column, array in zip(batch[:5], collected[:5], strict=True):
        np.testing.assert_array_equal(column, array)
    environments.close()
