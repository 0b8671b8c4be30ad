import concurrent.futures
import pathlib
import types

import pytest

import nppac_tf
from nppac_tf.runs.sweep import cluster
from nppac_tf.runs.sweep.messages import Report


class Board:
    """A board whose answers the test gives."""

    def __init__(self):
        self.calls = []
        self.answers = []
        self.report = types.SimpleNamespace(remote=self._call)
        self.stop = types.SimpleNamespace(remote=self._call)

    def _call(self, *arguments):
        self.calls.append(arguments)
        self.answers.append(concurrent.futures.Future())
        return types.SimpleNamespace(future=lambda answer=self.answers[-1]: answer)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets, and that sleeping lets pass."""
    clock = types.SimpleNamespace(now=100.0)

    def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(
        cluster, "time", types.SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    )
    return clock


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def link(board, clock):
    return cluster._Link(board, 3)


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_the_environment_of_a_worker(cores, monkeypatch):
    package = str(pathlib.Path(nppac_tf.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", "/of/the/user:/and/more")
    variables = cluster.environment(cores)
    assert variables["OMP_NUM_THREADS"] == str(cores)
    assert variables["PYTHONPATH"] == f"{package}:/of/the/user:/and/more"


def test_news_is_sent_at_once_and_progress_from_time_to_time(link, board, clock):
    reports = [
        Report("training", 10, 100),  # A new stage.
        Report("training", 20, 100),
        Report("training", 20, 100, evaluation={"env_steps": 20}),
        Report("training", 30, 100),
        Report("training", 30, 100, notice="look"),
        Report("Exporting the policy"),
    ]
    for report in reports:
        clock.now += 0.1
        link.send(report)
    assert board.calls == [(3, reports[index]) for index in (0, 2, 4, 5)]
    clock.now += 1
    late = Report("Exporting the policy", 1, 2)
    link.send(late)
    assert board.calls[4:] == [(3, late)]


def test_the_answer_to_a_report_says_whether_to_stop(link, board):
    link.send(Report("training"))
    assert not link.should_stop()  # Not answered yet.
    board.answers[0].set_result(True)
    assert link.should_stop()
    assert len(board.calls) == 1


def test_without_reports_the_board_is_asked(link, board, clock):
    for _ in range(5):
        clock.now += 0.2
        assert not link.should_stop()
    assert board.calls == [(), ()]
    board.answers[1].set_result(False)
    clock.now += 1
    assert not link.should_stop()
    board.answers[2].set_result(True)
    assert link.should_stop()
    clock.now += 1
    assert link.should_stop()
    board.answers[3].set_exception(ConnectionError("no board"))
    assert link.should_stop()  # The answer to stop is final.


def test_a_worker_does_not_wait_for_a_board_that_is_gone(link, board, clock):
    link.flush()
    link.send(Report("training"))
    before = clock.now
    link.flush()
    assert 10 <= clock.now - before < 11
