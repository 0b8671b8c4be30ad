"""A run, and the same run interrupted and resumed."""

import contextlib
import dataclasses
import math

import fakes
import pytest
from training_runs import (
    CLOCKS,
    EVERY_PART,
    EVERYTHING,
    HORIZON,
    MID_EPISODE,
    Recorder,
    assert_same_run,
    run,
    saving_in,
)

from nppac_tf.agents.factory import make_agent
from nppac_tf.environments import VectorEnvironment
from nppac_tf.training import checkpoints, loop
from nppac_tf.training.monitor import MONITOR_COLUMNS


@pytest.fixture(scope="module")
def task():
    with fakes.point_task(HORIZON) as made:
        yield made


@pytest.fixture(scope="module")
def demonstrations(task):
    return fakes.point_demonstrations(task, num_episodes=3, speed=0.5, noise=0.1)[0]


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


def test_an_interrupted_and_resumed_run_is_the_uninterrupted_one(
    uninterrupted, task, demonstrations, tmp_path
):
    # The third evaluation, at 40 steps, comes before its checkpoint: the run resumes at step 20.
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
def test_a_run_stopped_anywhere_resumes_as_if_it_had_not(
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


def test_a_resumed_run_continues_to_count_dominated_epochs(task, demonstrations, tmp_path):
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
    [(13, 0), (13, 1), pytest.param(40, 0, marks=pytest.mark.slow)],
)
def test_a_run_stopped_twice_with_no_update_between_resumes_exactly(
    task, demonstrations, uninterrupted_mid_episode, first, second, tmp_path
):
    """What the optimizers keep must be in a checkpoint that was made before their next step."""
    saving = saving_in(tmp_path)
    for asked in (first, second):
        with pytest.raises(loop.Stopped):
            run(task, demonstrations, MID_EPISODE, checkpoint=saving, should_stop=Countdown(asked))
    resumed = run(task, demonstrations, MID_EPISODE, checkpoint=saving)
    assert_same_run(uninterrupted_mid_episode[0], resumed)


@pytest.mark.parametrize(
    ("kind", "stops"),
    [
        ({"actor": "anchored"}, 14),
        ({"algorithm": "awac", "actor": "network"}, 6),
        pytest.param({"actor": "anchored"}, 2, marks=pytest.mark.slow),
        pytest.param({"actor": "network"}, 3, marks=pytest.mark.slow),
    ],
)
def test_with_all_options_a_run_stopped_anywhere_resumes_as_if_it_had_not(
    task, demonstrations, tmp_path, kind, stops
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
