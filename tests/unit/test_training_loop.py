import contextlib
import dataclasses
import math

import fakes
import numpy as np
import pytest
import tensorflow as tf

from nppac_tf.agents.factory import make_agent
from nppac_tf.agents.nppac import NppacAgent, NppacLossInfo
from nppac_tf.config import AgentConfig, TrainingConfig
from nppac_tf.environments import VectorEnvironment
from nppac_tf.errors import UserError
from nppac_tf.priors import PriorStatistics, UniformPrior
from nppac_tf.training import checkpoints, loop, transitions
from nppac_tf.training.checkpoints import RunCheckpoint
from nppac_tf.training.collector import Collector
from nppac_tf.training.learner import Learner, use_xla
from nppac_tf.training.monitor import MONITOR_COLUMNS
from nppac_tf.training.replay import Replay

HORIZON = 5
# Two environments, five steps each per epoch: every epoch ends with an episode.
CONFIG = TrainingConfig(
    num_env_steps=60,
    num_environments=2,
    steps_per_epoch=10,
    updates_per_step=0.5,
    batch_size=8,
    pretraining_steps=20,
    pretraining_batch_size=8,
    eval_interval=20,
    eval_episodes=2,
    checkpoint_interval=20,
    seed=3,
    n_step=1,
    num_greedy_environments=0,
    critic_warmup_steps=0,
)
TINY = AgentConfig(
    actor="network", actor_layers=(4,), critic_layers=(4,), num_critics=2, target_kl=1.0
)
ANCHORED = dataclasses.replace(TINY, actor="anchored", target_kl=None)
# Without an update.
COLLECTING = dataclasses.replace(CONFIG, updates_per_step=1e-9, pretraining_steps=0)
CLOCKS = ("wall_seconds", "train/updates_per_second")


@pytest.fixture(scope="module")
def task():
    with fakes.point_task(HORIZON) as made:
        yield made


@pytest.fixture(scope="module")
def demonstrations(task):
    return fakes.point_demonstrations(task, num_episodes=3, speed=0.5, noise=0.1)[0]


class Recorder:
    """Keeps what is reported; raises after a number of evaluations."""

    def __init__(self, raise_at=None):
        self.progress, self.rows, self.epochs, self._raise_at = [], [], [], raise_at
        self.notices = []

    def on_notice(self, line):
        self.notices.append(line)

    def on_epoch(self, row):
        self.epochs.append(row)

    def on_progress(self, stage, done, total, metrics):
        self.progress.append((stage, done, total, dict(metrics)))

    def on_evaluation(self, row):
        self.rows.append(row)
        if len(self.rows) == self._raise_at:
            raise KeyboardInterrupt


def run(task, demonstrations, config=CONFIG, agent_config=TINY, prior=None, **kwargs):
    agent = NppacAgent.for_task(task, prior or fakes.LinearPrior(2, 2), agent_config, seed=3)
    rows = loop.train(agent, task, demonstrations, config=config, **kwargs)
    return agent, rows


class Homing(fakes.LinearPrior):
    """Heads for the origin."""

    def statistics(self, observations):
        location = -observations / tf.norm(observations, axis=-1, keepdims=True)
        return PriorStatistics(location, tf.fill(tf.shape(location), 0.1))


def saving_in(folder):
    return lambda agent, replay: RunCheckpoint(folder, agent.learned, replay)


def weights_of(agent):
    networks = [agent.actor_network, agent.deployed_actor]
    networks += [*agent._critics, *agent._target_critics]
    values = [v.numpy() for network in networks for v in network.variables]
    return [*values, agent._log_alpha.numpy(), agent._reward_scale.numpy()]


def assert_same_run(one, other):
    for a, b in zip(weights_of(one[0]), weights_of(other[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(one[1], other[1], strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() - set(CLOCKS):
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture(scope="module")
def recorder():
    return Recorder()


@pytest.fixture(scope="module")
def uninterrupted(task, demonstrations, recorder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return run(task, demonstrations, observers=[recorder], checkpoint=saving_in(folder))


def test_rows_are_evaluations(uninterrupted, recorder):
    _, rows = uninterrupted
    assert [row["env_steps"] for row in rows] == [0, 20, 40, 60]
    of_the_prior = {name.replace("eval/", "prior/") for name in loop.EVALUATION_COLUMNS[3:]}
    assert set(rows[0]) == {*loop.EVALUATION_COLUMNS, *of_the_prior}
    for row in rows[1:]:
        assert set(row) == {
            *loop.EVALUATION_COLUMNS,
            *loop.TRAINING_COLUMNS,
            *MONITOR_COLUMNS,
            "monitor/kl_0",
            "monitor/kl_1",
        }
        assert all(math.isfinite(value) for value in row.values())
    assert rows == recorder.rows
    seconds = [row["wall_seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert [row["updates"] for row in rows] == [0, 10, 20, 30]


def test_progress_is_reported(uninterrupted, recorder):
    pretraining = [(done, total) for stage, done, total, _ in recorder.progress if stage[0] == "p"]
    assert pretraining == [(20, 20)]
    online = [(done, total) for stage, done, total, _ in recorder.progress if stage == "training"]
    assert online == [(steps, 60) for steps in (10, 20, 30, 40, 50, 60)]
    assert all(math.isfinite(metrics["train/kl"]) for *_, metrics in recorder.progress)


def test_an_interrupted_run_that_goes_on_is_the_uninterrupted_one(
    uninterrupted, task, demonstrations, tmp_path
):
    # The third evaluation, at 40 steps, comes before its checkpoint: the run goes on from step 20.
    with pytest.raises(KeyboardInterrupt):
        run(
            task,
            demonstrations,
            observers=[Recorder(raise_at=3)],
            checkpoint=saving_in(tmp_path),
        )
    recorder = Recorder()
    resumed = run(task, demonstrations, observers=[recorder], checkpoint=saving_in(tmp_path))
    assert_same_run(uninterrupted, resumed)
    assert recorder.rows == resumed[1]  # those from before the interruption, too
    assert recorder.notices == ["Resuming at step 20 of 60"]
    assert all(stage == "training" for stage, *_ in recorder.progress)
    assert recorder.progress[0][1] == 30
    assert [row["env_steps"] for row in recorder.epochs] == [10, 20, 30, 40, 50, 60]
    # A finished run is not trained further.
    recorder = Recorder()
    again = run(task, demonstrations, observers=[recorder], checkpoint=saving_in(tmp_path))
    assert_same_run(uninterrupted, again)
    assert recorder.notices == ["All 60 steps are done; a larger num_env_steps adds more"]


class Countdown:
    """Says no a number of times, and then yes."""

    def __init__(self, number):
        self.left = number

    def __call__(self):
        self.left -= 1
        return self.left < 0


# Episodes of 5 steps and epochs of 4 per environment; 50 updates fill one compiled call.
MID_EPISODE = dataclasses.replace(
    CONFIG,
    steps_per_epoch=8,
    updates_per_step=15.0,
    eval_interval=16,
    checkpoint_interval=24,
    num_env_steps=40,
)


@pytest.fixture(scope="module")
def uninterrupted_mid_episode(task, demonstrations):
    recorder, never = Recorder(), Countdown(1000)
    finished = run(task, demonstrations, MID_EPISODE, observers=[recorder], should_stop=never)
    return finished, recorder, 1000 - never.left


# Asked once in pre-training, at each of 5 steps of an evaluation (the first is of the policy and of
# the prior), and after each of an epoch's three compiled calls: 1 to 10 stop the first evaluation,
# 11 to 13 the first epoch.
EVERY_MOMENT = [pytest.param(stops, marks=pytest.mark.slow) for stops in range(1, 41)]


@pytest.mark.parametrize("stops", [8, 13, 38, *EVERY_MOMENT])
def test_a_run_stopped_anywhere_goes_on_as_if_it_had_not(
    task, demonstrations, uninterrupted_mid_episode, stops, tmp_path
):
    expected, recorder, moments = uninterrupted_mid_episode
    assert moments == 41
    with pytest.raises(loop.Stopped):
        run(
            task,
            demonstrations,
            MID_EPISODE,
            checkpoint=saving_in(tmp_path),
            should_stop=Countdown(stops),
        )
    again = Recorder()
    resumed = run(
        task, demonstrations, MID_EPISODE, observers=[again], checkpoint=saving_in(tmp_path)
    )
    assert_same_run(expected, resumed)
    assert again.rows == resumed[1]
    assert without_clocks(again.epochs) == without_clocks(recorder.epochs)
    latest = checkpoints.latest(tmp_path)  # Written once more at the end.
    assert checkpoints.read_variable(latest, "updates") == int(resumed[0].train_step_counter)
    assert len(checkpoints.read_state(latest)["loop"]["rows"]) == len(resumed[1])


def test_a_resumed_run_goes_on_counting_dominated_epochs(task, demonstrations, tmp_path):
    prior = fakes.LinearPrior(2, 2, scale=1e-3)
    saving, before, after = saving_in(tmp_path), Recorder(), Recorder()
    config = dataclasses.replace(MID_EPISODE, updates_per_step=0.25, pretraining_steps=0)
    for observer, should_stop in ((before, Countdown(13)), (after, lambda: False)):
        with contextlib.suppress(loop.Stopped):
            run(
                task,
                demonstrations,
                config,
                prior=prior,
                observers=[observer],
                checkpoint=saving,
                should_stop=should_stop,
            )
    assert 0 < len(before.epochs) < len(after.epochs)
    notices = [*before.notices, *after.notices]
    assert sum("KL term has taken over" in line for line in notices) == 1
    assert checkpoints.read_state(checkpoints.latest(tmp_path))["loop"]["dominated_epochs"] == 5


def test_an_environment_that_does_not_repeat_itself_restarts(
    task, demonstrations, monkeypatch, tmp_path
):
    with pytest.raises(loop.Stopped):
        run(
            task,
            demonstrations,
            MID_EPISODE,
            checkpoint=saving_in(tmp_path),
            should_stop=Countdown(20),
        )
    monkeypatch.setattr(VectorEnvironment, "load_state_dict", lambda self, state: [1])
    recorder = Recorder()
    with pytest.raises(loop.Stopped):
        run(
            task,
            demonstrations,
            MID_EPISODE,
            observers=[recorder],
            checkpoint=saving_in(tmp_path),
            should_stop=lambda: True,
        )
    assert "1 of 2 environments start a new episode" in recorder.notices[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [(13, 0), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((13, 1), (40, 0)))],
)
def test_a_run_stopped_twice_with_no_update_between_goes_on_exactly(
    task, demonstrations, uninterrupted_mid_episode, first, second, tmp_path
):
    """What the optimizers keep must be in a checkpoint that was made before their next step."""
    saving = saving_in(tmp_path)
    for asked in (first, second):
        with pytest.raises(loop.Stopped):
            run(task, demonstrations, MID_EPISODE, checkpoint=saving, should_stop=Countdown(asked))
    resumed = run(task, demonstrations, MID_EPISODE, checkpoint=saving)
    assert_same_run(uninterrupted_mid_episode[0], resumed)


# Everything that has a state of its own, or is rebuilt on resuming. A run asks before and in
# pre-training, for each chunk of 40 offline updates, and so on; all those moments must do.
EVERYTHING = dataclasses.replace(
    MID_EPISODE,
    policy_interval=3,
    n_step=2,
    demonstration_share=0.25,
    prefill_replay=True,
    offline_updates=120,
    pretraining_steps=10,
    critic_warmup_steps=8,
    annealing_steps=20,
    policy_averaging=50,
    final_temperature=0.01,
)
EVERY_PART = AgentConfig(
    actor_layers=(4,),
    critic_layers=(4,),
    num_critics=2,
    num_target_critics=1,
    actor_value="mean",
)


@pytest.mark.parametrize(
    ("kind", "stops"),
    [
        ({"actor": "anchored"}, 14),
        ({"algorithm": "awac", "actor": "network"}, 6),
        pytest.param({"actor": "anchored"}, 2, marks=pytest.mark.slow),
        pytest.param({"actor": "network"}, 3, marks=pytest.mark.slow),
    ],
)
def test_with_all_options_a_run_stopped_anywhere_goes_on_as_if_it_had_not(
    task, demonstrations, rewarded, tmp_path, kind, stops
):
    agent_config = dataclasses.replace(EVERY_PART, **kind)

    def go(should_stop, checkpoint=None):
        agent = make_agent(task, fakes.LinearPrior(2, 2), agent_config, seed=3)
        arguments = {"config": EVERYTHING, "should_stop": should_stop, "checkpoint": checkpoint}
        return agent, loop.train(agent, task, demonstrations, **arguments)

    saving = saving_in(tmp_path)
    with pytest.raises(loop.Stopped):
        go(Countdown(stops), saving)
    assert_same_run(go(lambda: False), go(lambda: False, saving))


def without_clocks(rows):
    return [{name: str(value) for name, value in row.items() if name not in CLOCKS} for row in rows]


def test_a_run_stopped_in_pretraining_restarts(task, demonstrations, tmp_path, uninterrupted):
    with pytest.raises(loop.Stopped):
        run(task, demonstrations, checkpoint=saving_in(tmp_path), should_stop=lambda: True)
    assert list(tmp_path.iterdir()) == []
    assert_same_run(uninterrupted, run(task, demonstrations, checkpoint=saving_in(tmp_path)))


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


# Schedules.


def test_annealing_counts_environment_steps_from_the_end_of_the_warm_up():
    schedule = loop.Schedule.of(
        TrainingConfig(num_env_steps=20_000, annealing_steps=8000, final_temperature=0.002), 0.2
    )
    assert schedule.warmup == 4000
    for steps in (0, 4000):
        assert schedule.temperature(steps) == pytest.approx(0.2)
    logs = np.log([schedule.temperature(steps) for steps in range(4000, 12_001, 1000)])
    np.testing.assert_allclose(np.diff(logs), np.log(0.01) / 8)
    for steps in (12_000, 20_000):
        assert schedule.temperature(steps) == pytest.approx(0.002)
    kept = loop.Schedule.of(TrainingConfig(final_temperature=None), 0.2)
    assert kept.temperature(50_000) == pytest.approx(0.2)


def test_by_default_a_short_run_ends_at_the_final_temperature():
    config = TrainingConfig(num_env_steps=20_000)
    schedule = loop.Schedule.of(config, AgentConfig.temperature)
    assert schedule.temperature(20_000) == pytest.approx(config.final_temperature)


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
    assert [row["train/alpha"] for row in warm] == pytest.approx([0.2] * len(warm))


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


def test_the_reward_scale_is_that_of_single_steps(task, demonstrations, rewarded):
    config = dataclasses.replace(CONFIG, prefill_replay=True, num_env_steps=0, n_step=3)
    agent, _ = run(task, at_the_origin(demonstrations), config, ANCHORED)
    assert agent.reward_scale == 1.0


def at_the_origin(demonstrations):
    return dataclasses.replace(demonstrations, observations=0.01 * demonstrations.observations)


# Demonstrations in the replay.


@pytest.fixture
def rewarded(monkeypatch):
    """Lets demonstrations of the point task be replayed: paid within 0.15 of the origin."""
    monkeypatch.setattr(
        transitions,
        "require_replayable",
        lambda task: lambda states: np.linalg.norm(states, axis=-1) < 0.15,
    )


def test_the_replay_may_begin_with_the_demonstrations(task, demonstrations, rewarded):
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
def test_a_share_of_each_batch_is_drawn_from_the_demonstrations(
    task, demonstrations, rewarded, teach
):
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
def test_the_loop_of_an_ensemble_with_demonstrations_compiles_with_xla(
    task, demonstrations, rewarded
):
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


def test_the_best_policy_is_kept(task, demonstrations, tmp_path):
    kept = []

    def keep(agent):
        kept.append(int(agent.train_step_counter))

    _, rows = run(task, demonstrations, keep_best=keep, checkpoint=saving_in(tmp_path))
    scores = [loop.main_metric(row) for row in rows]
    best = [max(scores[:index], default=-np.inf) for index in range(len(rows))]
    expected = [row["updates"] for row, s, b in zip(rows, scores, best, strict=True) if s > b]
    assert kept == expected
    assert kept[0] == 0
    run(task, demonstrations, keep_best=keep, checkpoint=saving_in(tmp_path))
    assert kept == expected  # A finished run evaluates no more.


def test_an_agent_that_is_trained_again_goes_on_from_what_it_has_learned(task, demonstrations):
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
