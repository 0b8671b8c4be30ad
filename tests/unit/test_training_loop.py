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
from nppac_tf.training import checkpoints, loop, monitor, transitions
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
    pretraining_noise=0.0,
    critic_warmup_steps=0,
)
TINY = AgentConfig(
    actor_layers=(4,), critic_layers=(4,), num_critics=2, target_kl=1.0, policy_averaging=0
)
CLOCKS = ("wall_seconds", "train/updates_per_second")


@pytest.fixture(scope="module")
def task():
    with fakes.point_task(HORIZON) as made:
        yield made


@pytest.fixture(scope="module")
def demonstrations(task):
    return fakes.point_demonstrations(task, num_episodes=3, speed=0.5, noise=0.1)[0]


class Recorder:
    """Keeps what it is told; raises after a number of evaluations."""

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


def saving_in(folder):
    return lambda agent, replay: RunCheckpoint(folder, agent.learned, replay)


def weights_of(agent):
    networks = [
        agent._actor_network,
        agent._critic_network_1,
        agent._critic_network_2,
        agent._target_critic_network_1,
        agent._target_critic_network_2,
    ]
    return [v.numpy() for n in networks for v in n.variables] + [agent._log_alpha.numpy()]


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
    assert tuple(rows[0]) == loop.EVALUATION_COLUMNS
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


def test_updates_follow_updates_per_step(uninterrupted):
    agent, rows = uninterrupted
    assert [row["updates"] for row in rows] == [0, 10, 20, 30]
    assert int(agent.train_step_counter) == 30


def test_progress_is_told(uninterrupted, recorder):
    pretraining = [(done, total) for stage, done, total, _ in recorder.progress if stage[0] == "p"]
    assert pretraining == [(20, 20)]
    online = [(done, total) for stage, done, total, _ in recorder.progress if stage == "training"]
    assert online == [(steps, 60) for steps in (10, 20, 30, 40, 50, 60)]
    assert all(math.isfinite(metrics["train/kl"]) for *_, metrics in recorder.progress)


def test_the_same_seed_is_the_same_run(uninterrupted, task, demonstrations):
    assert_same_run(uninterrupted, run(task, demonstrations))


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
    assert recorder.notices == ["Going on from step 20 of 60"]
    assert all(stage == "training" for stage, *_ in recorder.progress)
    assert recorder.progress[0][1] == 30
    assert [row["env_steps"] for row in recorder.epochs] == [10, 20, 30, 40, 50, 60]
    # A finished run is trained further only if more steps are asked for.
    recorder = Recorder()
    again = run(task, demonstrations, observers=[recorder], checkpoint=saving_in(tmp_path))
    assert_same_run(uninterrupted, again)
    assert recorder.notices == ["All 60 steps are done: a larger num_env_steps adds to them"]
    _, rows = run(task, demonstrations, num_steps=80, checkpoint=saving_in(tmp_path))
    assert [row["env_steps"] for row in rows] == [0, 20, 40, 60, 80]


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


# Asked once in pre-training, at each of 5 steps of an evaluation, and after each of an epoch's
# three compiled calls: 1 to 5 stop the first evaluation, 6 to 8 the first epoch.
EVERY_MOMENT = [pytest.param(stops, marks=pytest.mark.slow) for stops in range(1, 36)]


@pytest.mark.parametrize("stops", [3, 7, 8, 13, 30, *EVERY_MOMENT])
def test_a_run_stopped_anywhere_goes_on_as_if_it_had_not(
    task, demonstrations, uninterrupted_mid_episode, stops, tmp_path
):
    expected, recorder, moments = uninterrupted_mid_episode
    assert moments == 36
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


def test_a_resumed_run_goes_on_counting_dominated_epochs(
    task, demonstrations, monkeypatch, tmp_path
):
    monkeypatch.setattr(monitor, "_DOMINANCE", 0.0)
    monkeypatch.setattr(monitor, "_MANY_NATS", -np.inf)
    saving, before, after = saving_in(tmp_path), Recorder(), Recorder()
    with pytest.raises(loop.Stopped):
        run(
            task,
            demonstrations,
            MID_EPISODE,
            observers=[before],
            checkpoint=saving,
            should_stop=Countdown(30),
        )
    run(task, demonstrations, MID_EPISODE, observers=[after], checkpoint=saving)
    assert sum("KL term has taken over" in line for line in before.notices + after.notices) == 1
    assert checkpoints.read_state(checkpoints.latest(tmp_path))["loop"]["dominated_epochs"] == 5


def test_an_environment_that_does_not_repeat_itself_begins_anew(
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
    restore, returns = Collector.load_state_dict, []

    def restoring(self, state, *arguments):
        restore(self, {**state, "returns": [6.0, 4.0]}, *arguments)
        returns.extend(self.state_dict()["returns"])

    monkeypatch.setattr(Collector, "load_state_dict", restoring)
    monkeypatch.setattr(VectorEnvironment, "load_state_dict", lambda self, state: [1])
    recorder = Recorder()
    run(task, demonstrations, MID_EPISODE, observers=[recorder], checkpoint=saving_in(tmp_path))
    assert "1 of 2 environments begin a new episode" in recorder.notices[0]
    assert returns == [6.0, 0.0]


@pytest.mark.parametrize(
    ("first", "second"), [(13, 1), (13, 0), (3, 1), pytest.param(35, 0, marks=pytest.mark.slow)]
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


@pytest.mark.parametrize("stops", [28, 33])  # Among the last updates, and in the last evaluation.
def test_a_run_stopped_near_its_end_leaves_its_last_checkpoint(
    task, demonstrations, stops, tmp_path
):
    saving = saving_in(tmp_path)
    with pytest.raises(loop.Stopped):
        run(task, demonstrations, MID_EPISODE, checkpoint=saving, should_stop=Countdown(stops))
    agent, rows = run(task, demonstrations, MID_EPISODE, checkpoint=saving)
    latest = checkpoints.latest(tmp_path)
    assert checkpoints.read_variable(latest, "updates") == int(agent.train_step_counter)
    assert len(checkpoints.read_state(latest)["loop"]["rows"]) == len(rows)


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
)
EVERY_PART = dataclasses.replace(
    TINY,
    target_kl=None,
    annealing_updates=300,
    num_critics=3,
    actor_value="mean",
    critic_layer_norm=True,
)


@pytest.mark.parametrize(("algorithm", "moments"), [("nppac", (3, 6, 14)), ("awac", (6,))])
def test_with_all_options_a_run_stopped_anywhere_goes_on_as_if_it_had_not(
    task, demonstrations, rewarded, tmp_path, algorithm, moments
):
    final = 0.01 if algorithm == "nppac" else None
    agent_config = dataclasses.replace(
        EVERY_PART, algorithm=algorithm, squash=False, final_temperature=final
    )

    def go(should_stop, checkpoint=None):
        agent = make_agent(task, fakes.LinearPrior(2, 2), agent_config, seed=3)
        arguments = {"config": EVERYTHING, "should_stop": should_stop, "checkpoint": checkpoint}
        return agent, loop.train(agent, task, demonstrations, **arguments)

    expected = go(lambda: False)
    for stops in moments:
        saving = saving_in(tmp_path / str(stops))
        with pytest.raises(loop.Stopped):
            go(Countdown(stops), saving)
        assert_same_run(expected, go(lambda: False, saving))


def without_clocks(rows):
    return [{name: str(value) for name, value in row.items() if name not in CLOCKS} for row in rows]


def test_a_run_stopped_in_pretraining_begins_anew(task, demonstrations, tmp_path, uninterrupted):
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


def test_a_parameter_that_is_not_finite_is_never_saved(
    task, demonstrations, uninterrupted, tmp_path
):
    agent = PoisonedAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3)
    saving = saving_in(tmp_path)
    with pytest.raises(UserError, match=r"^a parameter stopped being finite before update 20"):
        loop.train(agent, task, demonstrations, config=CONFIG, checkpoint=saving)
    assert_same_run(uninterrupted, run(task, demonstrations, checkpoint=saving))


def test_the_actor_waits_until_the_critics_are_warm(task, demonstrations):
    config = dataclasses.replace(
        CONFIG, critic_warmup_steps=20, warmup_imitation=False, num_env_steps=40
    )
    agent = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3)
    recorder, seen = Recorder(), []

    def look(row):
        networks = (agent._actor_network, agent._critic_network_1)
        weights = [network.variables[0].numpy() for network in networks]
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


def test_warming_up_it_may_imitate_the_prior_where_it_is(task, demonstrations):
    """The actor follows the prior in the states of the replay, whatever the critics say."""
    config = dataclasses.replace(
        CONFIG,
        critic_warmup_steps=200,
        num_env_steps=210,
        updates_per_step=2,
        pretraining_steps=0,
        eval_interval=10,
    )
    prior, kls = fakes.LinearPrior(2, 2), {}
    for imitation in (False, True):
        agent = NppacAgent.for_task(task, prior, dataclasses.replace(TINY, learning_rate=1e-2))
        one = dataclasses.replace(config, warmup_imitation=imitation)
        rows = loop.train(agent, task, demonstrations, config=one)
        kls[imitation] = [row["train/kl"] for row in rows if 0 < row["env_steps"] <= 200]
        assert int(agent._actor_optimizer.iterations) == (420 if imitation else 20)
        alphas = [row["train/alpha"] for row in rows if 0 < row["env_steps"] <= 200]
        assert alphas == pytest.approx([alphas[0]] * len(alphas))
    assert np.mean(kls[True][-5:]) < 0.5 * np.mean(kls[False][-5:])


def test_the_actor_may_learn_less_often_than_the_critics(task, demonstrations):
    config = dataclasses.replace(
        CONFIG, policy_interval=3, num_env_steps=20, updates_per_step=1, pretraining_steps=0
    )
    agent = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3)
    update, update_critics = agent.update, agent.update_critics
    calls = []
    agent.update = lambda *a, **k: calls.append("all") or update(*a, **k)
    agent.update_critics = lambda *a, **k: calls.append("critics") or update_critics(*a, **k)
    recorder = Recorder()
    rows = loop.train(agent, task, demonstrations, config=config, observers=[recorder])
    assert {"all", "critics"} <= set(calls)
    assert int(agent._critic_optimizer.iterations) == 20
    assert int(agent._actor_optimizer.iterations) == 20 // 3
    assert rows[-1]["updates"] == 20
    for name in ("train/kl", "train/actor_loss", "train/critic_loss"):
        assert np.isfinite(rows[-1][name])
    assert rows[-1]["train/alpha"] == pytest.approx(float(tf.exp(agent._log_alpha)), rel=0.1)


@pytest.fixture
def rewarded(monkeypatch):
    """Lets demonstrations of the point task be replayed: paid within 0.15 of the origin."""
    monkeypatch.setattr(
        transitions,
        "require_replayable",
        lambda task: lambda states: np.linalg.norm(states, axis=-1) < 0.15,
    )


def test_the_replay_may_begin_with_the_demonstrations(task, demonstrations, rewarded):
    config = dataclasses.replace(CONFIG, prefill_replay=True, num_env_steps=20)
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
def test_a_share_of_each_batch_may_be_demonstrations(task, demonstrations, rewarded, teach):
    config = dataclasses.replace(
        CONFIG, demonstration_share=0.25, demonstrations_teach=teach, num_env_steps=20
    )
    agent = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3)
    batches = []
    update = agent.update

    def record(batch, policy_batch=None, **kwargs):
        batches.append((batch, policy_batch))
        return update(batch, policy_batch=policy_batch, **kwargs)

    agent.update = record
    loop.train(agent, task, demonstrations, config=config)
    batch, policy_batch = batches[-1]
    assert batch.observations.shape == (8, 2)
    if teach == "critics":
        assert policy_batch.observations.shape == (6, 2)
    else:
        assert policy_batch is None


def test_the_share_is_drawn_from_the_demonstrations(task, demonstrations, rewarded):
    config = dataclasses.replace(CONFIG, demonstration_share=0.25)
    agent = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3)
    expert = transitions.of_demonstrations(demonstrations, task)
    replays = [Replay(2, 2, size) for size in (20, len(expert.rewards))]
    learner = Learner(agent, replays[0], config, replays[1])
    online = expert._replace(observations=expert.observations[:20] + 100.0)
    online = transitions.Transitions(*(column[:20] for column in online))
    replays[0].add(learner.with_statistics(online, stride=1))
    replays[1].add(learner.with_statistics(expert, stride=1))
    batch, policy_batch = learner._sample(tf.constant(5))
    assert (batch.observations[:6] > 50).numpy().all()
    assert (policy_batch.observations > 50).numpy().all()
    states = {tuple(state) for state in expert.observations}
    assert {tuple(state) for state in batch.observations[6:].numpy()} <= states
    again, _ = learner._sample(tf.constant(5))
    np.testing.assert_array_equal(batch.observations, again.observations)
    later, _ = learner._sample(tf.constant(6))
    assert (batch.observations[6:] != later.observations[6:]).numpy().any()


def test_the_loop_of_an_ensemble_with_demonstrations_compiles_with_xla(
    task, demonstrations, rewarded
):
    config = dataclasses.replace(
        CONFIG,
        xla="on",
        policy_interval=2,
        demonstration_share=0.25,
        prefill_replay=True,
        num_env_steps=20,
        updates_per_step=1.0,
    )
    agent_config = dataclasses.replace(TINY, num_critics=4, actor_value="mean", temperature=0.5)
    compiled, rows = run(task, demonstrations, config, agent_config)
    plain, _ = run(task, demonstrations, dataclasses.replace(config, xla="off"), agent_config)
    fresh = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), agent_config, seed=3)
    assert all(np.isfinite(rows[-1][f"train/{name}"]) for name in NppacLossInfo._fields)
    ends, starts = (
        np.concatenate([w.ravel() for w in weights_of(agent)]) for agent in (compiled, fresh)
    )
    other = np.concatenate([w.ravel() for w in weights_of(plain)])
    # The backends round differently, and what they round to is learned from.
    assert np.linalg.norm(ends - other) < 0.3 * np.linalg.norm(ends - starts)


def test_demonstrations_that_are_to_be_replayed_must_be_there(task):
    config = dataclasses.replace(CONFIG, demonstration_share=0.5)
    with pytest.raises(UserError, match="need demonstrations; got none"):
        run(task, None, config)


def test_returns_over_several_steps_are_stored(task):
    config = dataclasses.replace(CONFIG, n_step=3, num_env_steps=10)
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


def test_pretraining_noise_flattens_the_policy(task, demonstrations):
    def slope(noise):
        config = dataclasses.replace(
            CONFIG, num_env_steps=0, pretraining_steps=500, pretraining_noise=noise
        )
        agent_config = AgentConfig(actor_layers=(16,), critic_layers=(4,))
        prior = fakes.LinearPrior(2, 2)
        agent, _ = run(task, demonstrations, config, agent_config, prior)
        states = tf.constant(demonstrations.observations)
        with tf.GradientTape() as tape:
            tape.watch(states)
            actions = agent.actor_network(states)[0].mode()
        return float(tf.norm(tape.gradient(actions, states)))

    assert slope(2.0) < 0.8 * slope(0.0)


def test_the_loops_compile_with_xla(task, demonstrations, uninterrupted):
    config = dataclasses.replace(CONFIG, num_env_steps=20, critic_warmup_steps=10, xla="on")
    _, rows = run(task, demonstrations, config=config)
    assert [row["updates"] for row in rows] == [0, 10]
    assert all(math.isfinite(value) for value in rows[-1].values())
    # XLA draws other numbers, but pre-training leads to much the same policy.
    assert rows[0]["eval/return"] == pytest.approx(uninterrupted[1][0]["eval/return"], abs=1.0)


def test_without_demonstrations_there_is_no_pretraining(task):
    recorder = Recorder()
    agent = NppacAgent.for_task(task, fakes.LinearPrior(2, 2), TINY, seed=3)
    before = weights_of(agent)
    rows = loop.train(agent, task, num_steps=0, config=CONFIG, observers=[recorder])
    assert recorder.progress == []
    assert [row["env_steps"] for row in rows] == [0]
    for a, b in zip(weights_of(agent), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_uninformative_prior_is_not_pretrained_to(task, demonstrations):
    agent = NppacAgent.for_task(task, UniformPrior(2, 2), TINY, seed=3)
    before = weights_of(agent)
    recorder = Recorder()
    loop.train(agent, task, demonstrations, num_steps=0, config=CONFIG, observers=[recorder])
    assert recorder.progress == []
    np.testing.assert_array_equal(weights_of(agent)[0], before[0])


def test_an_agent_can_be_trained_again(task, demonstrations):
    agent, first = run(task, demonstrations, num_steps=20)
    recorder = Recorder()
    again = loop.train(
        agent, task, demonstrations, num_steps=20, config=CONFIG, observers=[recorder]
    )
    assert [row["updates"] for row in first] == [0, 10]
    assert [row["updates"] for row in again] == [10, 20]
    assert {stage for stage, *_ in recorder.progress} == {"training"}


def test_an_agent_that_has_learned_is_not_led_back_to_the_prior(task, demonstrations):
    warmup = dataclasses.replace(
        CONFIG, num_env_steps=20, critic_warmup_steps=10, warmup_imitation=True
    )
    agent, _ = run(task, demonstrations, config=warmup)
    steps_before = int(agent.learned["actor_optimizer"].iterations)
    loop.train(agent, task, demonstrations, config=warmup)
    assert steps_before == 10
    # Half of the ten updates are of the warm-up, in which the first call alone imitates.
    assert int(agent.learned["actor_optimizer"].iterations) - steps_before == 5


def test_fewer_steps_than_an_epoch_make_one_epoch(task):
    agent = NppacAgent.for_task(task, UniformPrior(2, 2), TINY)
    rows = loop.train(agent, task, num_steps=4, config=CONFIG)
    assert [row["env_steps"] for row in rows] == [0, 10]


class BrokenPrior(fakes.LinearPrior):
    def statistics(self, observations):
        location, scale = super().statistics(observations)
        return PriorStatistics(location + np.nan, scale)


def test_a_pretraining_that_is_not_finite_is_a_users_error(task, demonstrations):
    with pytest.raises(UserError, match="train/kl stopped being finite before update 20"):
        run(task, demonstrations, prior=BrokenPrior(2, 2))


def test_a_loss_that_is_not_finite_is_a_users_error(task):
    config = AgentConfig(actor_layers=(4,), critic_layers=(4,))
    with pytest.raises(UserError, match=r"train/critic_loss.* stopped being finite") as error:
        run(task, None, agent_config=config, prior=BrokenPrior(2, 2))
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
    transitions, _ = Collector(agent, environments, seed=0).collect(14, 0)
    batch = learner.with_statistics(transitions, stride=2)
    # 14 states, and the successors of the last two, and of the two that end an episode.
    assert evaluated == [18]
    ends = ((batch.prior, transitions[0]), (batch.next_prior, transitions[4]))
    for statistics, states in ends:
        expected = fakes.LinearPrior(2, 2).statistics(tf.constant(states))
        for a, b in zip(statistics, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    for column, array in zip(batch[:5], transitions[:5], strict=True):
        np.testing.assert_array_equal(column, array)
    environments.close()
