import fakes
import pytest

from nppac_tf.config import AgentConfig, PriorConfig, RunConfig, TrainingConfig
from nppac_tf.demonstrations import save_demonstrations
from nppac_tf.runs.directory import RunDirectory
from nppac_tf.runs.sweep import plan, worker
from nppac_tf.runs.sweep.messages import DONE, FAILED, STARTING, STOPPED, Ending, Report
from nppac_tf.training import collector


class Link:
    """Keeps reports; asks for a stop at a step of the training."""

    def __init__(self, stop_at=None):
        self.reports = []
        self._stop_at = stop_at

    def send(self, report):
        self.reports.append(report)

    def should_stop(self):
        return any(r.stage == "training" and r.done == self._stop_at for r in self.reports)


@pytest.fixture(scope="module")
def task():
    with fakes.point_task(20) as task:
        yield task


@pytest.fixture
def run(task, tmp_path):
    demonstrations, _ = fakes.point_demonstrations(task, 2, speed=0.5, noise=0.1)
    save_demonstrations(demonstrations, tmp_path / "point.npz")
    config = RunConfig(
        task=task.name,
        demonstrations=str(tmp_path / "point.npz"),
        prior=PriorConfig(prior="uniform"),
        agent=AgentConfig(actor_layers=(8,), critic_layers=(8,)),
        training=TrainingConfig(
            num_env_steps=80,
            num_environments=2,
            steps_per_epoch=40,
            batch_size=8,
            critic_warmup_steps=0,
            eval_interval=40,
            eval_episodes=2,
            checkpoint_interval=40,
        ),
    )
    return plan.PlannedRun("near", config, tmp_path / "near/seed0")


def test_a_run_is_stopped_and_resumed(run, capsys):
    link = Link(stop_at=40)
    assert worker.work(run, "none", link) == Ending(STOPPED)
    stages = list(dict.fromkeys(report.stage for report in link.reports))
    assert stages == ["Fitting the prior", "training"]
    assert [r.evaluation["env_steps"] for r in link.reports if r.evaluation] == [0]
    assert capsys.readouterr().out.splitlines()[-1] == "Stopped; the same command resumes"
    assert not plan.is_complete(run)

    link = Link()
    assert worker.work(run, "none", link) == Ending(DONE)
    stages = list(dict.fromkeys(report.stage for report in link.reports))
    assert stages == [STARTING, "training", "Exporting the policy"]
    evaluations = [report.evaluation for report in link.reports if report.evaluation]
    assert [row["env_steps"] for row in evaluations] == [0, 40, 80]
    assert evaluations[-1]["eval/return"] == RunDirectory(run.folder).rows()[-1]["eval/return"]
    assert Report("training", 80, 80) in link.reports
    assert plan.is_complete(run)


def test_a_run_that_cannot_start_is_a_failure_in_one_line(run, tmp_path, capsys):
    with RunDirectory(run.folder).locked():
        ending = worker.work(run, "none", Link())
    assert ending.state == FAILED
    assert "is being written by another process" in ending.message
    assert not RunDirectory(run.folder).exists
    (tmp_path / "point.npz").unlink()
    ending = worker.work(run, "none", Link())
    assert ending.state == FAILED
    assert "point.npz" in ending.message
    assert "\n" not in ending.message
    assert capsys.readouterr().out.splitlines()[-1] == f"error: {ending.message}"


def test_an_unexpected_error_is_in_the_log(run, monkeypatch, capsys):
    def collect(self, num_steps, first_step):
        raise ZeroDivisionError("the robot\nfell " + 99 * "over and ")

    monkeypatch.setattr(collector.Collector, "collect", collect)
    ending = worker.work(run, "none", Link())
    assert ending.state == FAILED
    assert ending.message.startswith("unexpected ZeroDivisionError: the robot fell over and over")
    assert ending.message.endswith("; see its log.txt")
    assert len(ending.message) < 400
    log = capsys.readouterr().out
    assert 'in collect\n    raise ZeroDivisionError("the robot' in log
