"""How a run starts, and its schedules."""

import dataclasses

import fakes
import gymnasium
import numpy as np
import pytest
from training_runs import (
    ANCHORED,
    CONFIG,
    HORIZON,
    TINY,
    Homing,
    Recorder,
    run,
    saving_in,
    weights_of,
)

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import TrainingConfig
from nppac_tf.environments import VectorEnvironment, make_task
from nppac_tf.priors import UniformPrior
from nppac_tf.training import evaluator, loop
from nppac_tf.training.collector import Collector
from nppac_tf.training.schedule import Schedule


@pytest.fixture(scope="module")
def task():
    with fakes.point_task(HORIZON) as made:
        yield made


@pytest.fixture(scope="module")
def demonstrations(task):
    return fakes.point_demonstrations(task, num_episodes=3, speed=0.5, noise=0.1)[0]


# Schedules.


def test_annealing_counts_environment_steps_from_the_end_of_the_warm_up():
    schedule = Schedule.of(
        TrainingConfig(num_env_steps=20_000, annealing_steps=8000, final_temperature=0.002), 0.2
    )
    assert schedule.warmup == 4000
    for steps in (0, 4000):
        assert schedule.temperature(steps) == pytest.approx(0.2)
    logs = np.log([schedule.temperature(steps) for steps in range(4000, 12_001, 1000)])
    np.testing.assert_allclose(np.diff(logs), np.log(0.01) / 8)
    for steps in (12_000, 20_000):
        assert schedule.temperature(steps) == pytest.approx(0.002)
    low = Schedule.of(TrainingConfig(annealing_steps=8000, final_temperature=0.2), 0.01)
    assert low.temperature(50_000) == pytest.approx(0.01)  # It never rises.
    at_once = Schedule.of(TrainingConfig(annealing_steps=0, final_temperature=0.002), 0.2)
    assert at_once.temperature(at_once.warmup) == pytest.approx(0.2)
    assert at_once.temperature(at_once.warmup + 1) == pytest.approx(0.002)


def test_the_target_kl_grows_with_the_episodes_up_to_the_largest():
    schedule = Schedule.of(TrainingConfig(num_env_steps=50_000, critic_warmup_steps=4000), 1.0)
    targets = [schedule.target_kl(20.0, steps, 10_000) for steps in range(0, 300_000, 1000)]
    assert targets[:5] == pytest.approx([0.05] * 5)  # The actor has not learned yet.
    assert targets[14] == pytest.approx(1.3 * targets[4])  # One episode later.
    assert (np.diff(targets) >= 0).all()
    assert targets[-1] == pytest.approx(20.0)
    # Episodes a tenth as long: the same growth in a tenth of the steps.
    assert schedule.target_kl(20.0, 7000, 1000) == pytest.approx(
        schedule.target_kl(20.0, 34_000, 10_000)
    )
    assert schedule.target_kl(0.01, 50_000, 1000) == pytest.approx(0.01)


def test_a_run_allows_more_kl_with_each_episode(task, demonstrations):
    config = dataclasses.replace(CONFIG, critic_warmup_steps=0, num_env_steps=40)
    agent, _ = run(task, demonstrations, config, TINY)
    schedule = Schedule.of(config, TINY.temperature)
    steps_of_episodes = config.num_environments * HORIZON
    allowed = schedule.target_kl(TINY.target_kl, 40, steps_of_episodes)
    assert schedule.target_kl(TINY.target_kl, 0, steps_of_episodes) < allowed < TINY.target_kl
    assert -float(agent._target_entropy) == pytest.approx(allowed)
    assert agent.target_kl == TINY.target_kl


def test_alpha_follows_the_episodes_once_the_actor_learns(task, demonstrations):
    config = dataclasses.replace(
        CONFIG,
        critic_warmup_steps=20,
        num_env_steps=80,
        num_greedy_environments=1,
        temperature_decay=0.06,
        final_temperature=1e-6,
    )
    recorder = Recorder()
    agent_config = dataclasses.replace(ANCHORED, temperature=0.1)
    run(task, demonstrations, config, agent_config, observers=[recorder])
    steps = [row["env_steps"] for row in recorder.epochs]
    logs = np.log([row["train/alpha"] for row in recorder.epochs])
    assert steps[0] == config.steps_per_epoch
    warm = np.array(steps) <= 20
    np.testing.assert_allclose(logs[warm], np.log(0.1), rtol=1e-6)
    # One environment of several is greedy; its steps count in episodes of HORIZON.
    episodes = config.steps_per_epoch / config.num_environments / HORIZON
    changes = np.diff(logs[len(logs[warm]) - 1 :]) / (0.06 * episodes)
    assert set(changes.round(4)) <= {-1.0, 2.0}
    assert -1.0 in changes.round(4)


def test_a_longer_resumed_run_keeps_the_schedule(task, demonstrations, tmp_path):
    config = dataclasses.replace(
        CONFIG, critic_warmup_steps=None, annealing_steps=20, final_temperature=0.01
    )
    agent_config = dataclasses.replace(ANCHORED, temperature=1.0)
    saving, recorder = saving_in(tmp_path), Recorder()
    run(task, demonstrations, config, agent_config, num_steps=40, checkpoint=saving)
    longer = {"num_steps": 80, "checkpoint": saving, "observers": [recorder]}
    agent, _ = run(task, demonstrations, config, agent_config, **longer)
    alphas = [row["train/alpha"] for row in recorder.epochs]
    # The warm-up is half of the 40 steps that the run began with.
    np.testing.assert_allclose(alphas, [1, 1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01], rtol=1e-5)
    assert agent.temperature == pytest.approx(0.01)


def test_the_actor_waits_until_the_critics_are_warm(task, demonstrations):
    config = dataclasses.replace(
        CONFIG, critic_warmup_steps=20, warmup_imitation=False, num_env_steps=40
    )
    agent = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3)
    recorder, seen = Recorder(), []

    def look(row):
        networks = (agent._actor_network, agent._critic_network_1)
        weights = [network.trainable_variables[0].numpy() for network in networks]
        seen.append((*weights, agent._log_alpha.numpy(), row))

    recorder.on_evaluation = look
    loop.train(agent, task, demonstrations, config=config, observers=[recorder])
    fresh, warm, online = seen
    np.testing.assert_array_equal(warm[0], fresh[0])
    assert (warm[1] != fresh[1]).any()
    assert warm[2] == fresh[2]
    assert warm[3]["eval/return"] == fresh[3]["eval/return"]
    assert warm[3]["updates"] == 10
    assert (online[0] != warm[0]).any()
    assert online[2] != warm[2]


def test_warming_up_a_network_actor_imitates_the_prior_where_it_goes(task, demonstrations):
    config = dataclasses.replace(
        CONFIG,
        critic_warmup_steps=100,
        num_env_steps=110,
        updates_per_step=2,
        pretraining_steps=0,
        eval_interval=110,
    )
    agent_config = dataclasses.replace(TINY, learning_rate=1e-2, target_kl=None)
    recorder = Recorder()
    agent, _ = run(task, demonstrations, config, agent_config, observers=[recorder])
    warm = recorder.epochs[:-1]
    kls = [row["train/kl"] for row in warm]
    assert np.mean(kls[-3:]) < 0.3 * kls[0]
    # 200 updates by imitation, 20 by the critics, for which alpha waits.
    assert int(agent._actor_optimizer.iterations) == 220
    alphas = [row["train/alpha"] for row in warm]
    assert alphas == pytest.approx([agent_config.temperature] * len(warm))


# A simulator of which there is one.


def test_evaluating_in_the_only_environment_does_not_change_the_run(task, monkeypatch):
    """A second environment is refused; the episode goes on after an evaluation in its midst."""
    config = dataclasses.replace(
        CONFIG,
        num_environments=1,
        num_env_steps=12,
        steps_per_epoch=3,
        eval_interval=12,
        checkpoint_interval=12,
    )
    expected, _ = run(task, None, config)
    make, made = type(task).make, []

    def only(self, render_mode=None):
        assert not made, "a second environment"
        made.append(make(self, render_mode))
        return made[0]

    monkeypatch.setattr(type(task), "make", only)
    agent, rows = run(task, None, dataclasses.replace(config, eval_interval=3))
    assert [row["env_steps"] for row in rows] == [0, 3, 6, 9, 12]
    for one, other in zip(weights_of(agent), weights_of(expected), strict=True):
        np.testing.assert_array_equal(one, other)


# How a run starts.


def test_a_network_actor_is_not_pretrained_without_demonstrations_which_is_reported(task):
    recorder = Recorder()
    before = weights_of(NppacAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3))
    agent, rows = run(task, None, num_steps=0, observers=[recorder])
    assert recorder.progress == []
    assert [row["env_steps"] for row in rows] == [0]
    assert "No pre-training: train() was given no demonstrations" in recorder.notices
    for a, b in zip(weights_of(agent), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("prior", "config"), [(UniformPrior(2, 2), TINY), (fakes.LinearPrior(2, 2), ANCHORED)]
)
def test_nothing_is_pretrained_to_a_uniform_prior_or_an_anchor(task, demonstrations, prior, config):
    recorder = Recorder()
    arguments = {"agent_config": config, "prior": prior, "num_steps": 0, "observers": [recorder]}
    agent, _ = run(task, demonstrations, **arguments)
    assert recorder.progress == recorder.notices == []
    fresh = NppacAgent.for_task(task, prior, config, seed=3)
    for a, b in zip(agent.parameters, fresh.parameters, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_anchored_actor_starts_as_good_as_its_prior(task, demonstrations):
    recorder = Recorder()
    arguments = {"agent_config": ANCHORED, "observers": [recorder]}
    agent, rows = run(task, demonstrations, num_steps=20, **arguments)
    of_the_policy = {n[5:]: value for n, value in rows[0].items() if n.startswith("eval/")}
    of_the_prior = {n[6:]: value for n, value in rows[0].items() if n.startswith("prior/")}
    assert of_the_prior == of_the_policy
    assert not any("below its prior" in line for line in recorder.notices)
    # The prior's own mean, evaluated: an agent that has been trained is no longer its prior.
    row = loop.train(agent, task, demonstrations, num_steps=0, config=CONFIG)[0]
    for name, value in of_the_prior.items():
        assert row[f"prior/{name}"] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(("actor", "notices"), [("network", 1), ("anchored", 0)])
def test_a_policy_that_starts_far_below_its_prior_is_reported(actor, notices):
    recorder = Recorder()
    with fakes.point_task(20) as task:
        demonstrations = fakes.point_demonstrations(task, num_episodes=2, speed=1.0, noise=0.1)[0]
        config = dataclasses.replace(CONFIG, pretraining_steps=0, eval_episodes=10)
        agent_config = dataclasses.replace(TINY, actor=actor)
        arguments = {"prior": Homing(2, 2), "num_steps": 0, "observers": [recorder]}
        _, (row,) = run(task, demonstrations, config, agent_config, **arguments)
    assert row["prior/return"] > 5
    found = [line for line in recorder.notices if "starts far below its prior" in line]
    assert len(found) == notices
    assert all("--actor=anchored" in line for line in found)


@pytest.mark.parametrize(("prior", "notices"), [(Homing(2, 2), 0), (fakes.LinearPrior(2, 2), 1)])
@pytest.mark.parametrize("key", [None, "absent"])
def test_a_prior_far_below_the_demonstrations_is_reported(prior, notices, key):
    recorder = Recorder()
    with fakes.point_task(20) as task:
        data = fakes.point_demonstrations(task, num_episodes=2, speed=1.0, noise=0.1)[0]
        data = dataclasses.replace(data, successes=data.rewards)
        arguments = {"prior": prior, "num_steps": 0, "observers": [recorder]}
        run(make_task(task.name, success_key=key), data, CONFIG, ANCHORED, **arguments)
    found = [line for line in recorder.notices if "far below the demonstrations" in line]
    assert all("fit_prior.py --search" in line for line in found)
    assert len(found) == notices
    name, shown = ("return", data.mean_return) if key else ("B", data.successes.mean())
    assert all(f"({name} " in line and f"demonstrations {shown:.3g})" in line for line in found)


def test_a_task_without_successes_is_compared_with_the_demonstrations(task, demonstrations):
    without_goal = make_task(task.name, success_key="absent")
    first, *others = run(without_goal, demonstrations, num_steps=20)[1]
    assert first["demonstrations/return"] == demonstrations.mean_return
    others += run(task, demonstrations, num_steps=0)[1]
    unpaid = dataclasses.replace(demonstrations, rewards=None)
    others += run(without_goal, unpaid, num_steps=0)[1]
    assert not any("demonstrations/return" in row for row in others)


class Ending(fakes.PointEnvironment):
    """Ends at the goal."""

    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, info["success"], truncated, info


def test_it_is_said_once_that_the_steps_after_an_end_at_the_goal_count():
    recorder = Recorder()
    task = make_task(lambda: gymnasium.wrappers.TimeLimit(Ending(), 20))
    arguments = {"prior": Homing(2, 2), "num_steps": 40, "observers": [recorder]}
    _, rows = run(
        task, None, dataclasses.replace(CONFIG, pretraining_steps=0), ANCHORED, **arguments
    )
    (line,) = [line for line in recorder.notices if "after an end at the goal" in line]
    assert line.endswith("(2 of 2 episodes).")
    assert rows[0]["eval/time_at_goal"] == pytest.approx(12 / 20, abs=0.1)
    assert rows[0]["eval/return"] == 1


@pytest.mark.parametrize("given", [True, False])
def test_networks_see_observations_in_units_of_the_first_data(task, demonstrations, given):
    config = dataclasses.replace(CONFIG, num_env_steps=10, pretraining_steps=0)
    agent, _ = run(task, demonstrations if given else None, config)
    layer = agent.deployed_actor.standardization
    if given:
        data = demonstrations.observations
    else:
        environments = VectorEnvironment(task, 2, CONFIG.seed)
        fresh = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3)
        data = Collector(fresh, environments, CONFIG).collect(10, 0)[0].observations
        environments.close()
    np.testing.assert_allclose(layer.shift, data.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.scale, data.std(axis=0), rtol=1e-4)
    # What was learned stays in these units.
    other = dataclasses.replace(demonstrations, observations=9 + demonstrations.observations)
    loop.train(agent, task, other, config=config, num_steps=0)
    np.testing.assert_allclose(layer.shift, data.mean(axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("warmup", [0, 20])
def test_a_policy_that_has_not_changed_is_not_evaluated_again(
    task, demonstrations, monkeypatch, warmup
):
    evaluate, calls = evaluator.rollouts.evaluate, []

    def count(*args, **kwargs):
        calls.append(args)
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(evaluator.rollouts, "evaluate", count)
    agent_config = dataclasses.replace(TINY, actor="anchored")
    config = dataclasses.replace(CONFIG, num_env_steps=40, critic_warmup_steps=warmup)
    config = dataclasses.replace(config, eval_interval=10)
    _, rows = run(task, demonstrations, config, agent_config)
    assert [row["env_steps"] for row in rows] == [0, 10, 20, 30, 40]
    assert len(calls) == (3 if warmup else 5)
    returns = [row["eval/return"] for row in rows]
    assert returns[0] == returns[1] == returns[2] or not warmup


def test_the_best_policy_is_kept(task, demonstrations, tmp_path):
    kept = []

    def keep(agent):
        kept.append(int(agent.train_step_counter))

    _, rows = run(task, demonstrations, keep_best=keep, checkpoint=saving_in(tmp_path))
    scores = [evaluator.main_metric(row) for row in rows]
    best = [max(scores[:index], default=-np.inf) for index in range(len(rows))]
    expected = [row["updates"] for row, s, b in zip(rows, scores, best, strict=True) if s > b]
    assert kept == expected
    assert kept[0] == 0
    run(task, demonstrations, keep_best=keep, checkpoint=saving_in(tmp_path))
    assert kept == expected  # A finished run evaluates no more.
