import concurrent.futures
import pathlib
import types

import pytest

import nppac_tf
from nppac_tf.runs.sweep import cluster
from nppac_tf.runs.sweep.messages import Report


class Board:
    """As Ray would have it: a call is sent at once, and answered when the test says so."""

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


@pytest.mark.parametrize(("cores", "split"), [(1, "1"), (2, "1"), (8, "2")])
def test_a_worker_has_the_threads_of_its_cores(cores, split):
    variables = cluster.environment(cores)
    assert variables["TF_NUM_INTRAOP_THREADS"] == split
    assert variables["TF_NUM_INTEROP_THREADS"] == variables["OMP_NUM_THREADS"] == str(cores)


def test_a_worker_looks_for_the_package_before_what_the_user_named(monkeypatch):
    package = str(pathlib.Path(nppac_tf.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", "/of/the/user:/and/more")
    assert cluster.environment(1)["PYTHONPATH"] == f"{package}:/of/the/user:/and/more"
    monkeypatch.delenv("PYTHONPATH")
    assert cluster.environment(1)["PYTHONPATH"] == package


def test_progress_is_told_now_and_then_and_news_at_once(link, board, clock):
    told = [
        Report("training", 10, 100),  # A new stage.
        Report("training", 20, 100),
        Report("training", 20, 100, evaluation={"env_steps": 20}),
        Report("training", 30, 100),
        Report("training", 30, 100, notice="look"),
        Report("Exporting the policy"),
    ]
    for report in told:
        clock.now += 0.1
        link.tell(report)
    assert board.calls == [(3, told[index]) for index in (0, 2, 4, 5)]
    clock.now += 1
    late = Report("Exporting the policy", 1, 2)
    link.tell(late)
    assert board.calls[4:] == [(3, late)]


def test_the_answer_to_a_report_says_whether_to_stop(link, board):
    link.tell(Report("training"))
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
    assert link.should_stop()  # What was said once stands.


def test_a_worker_does_not_wait_for_a_board_that_is_gone(link, board, clock):
    link.flush()
    link.tell(Report("training"))
    before = clock.now
    link.flush()
    assert 10 <= clock.now - before < 11


def test_the_board_hands_each_report_over_once():
    board = cluster._Board()
    report = Report("training", 1, 2)
    assert board.report(0, report) is False
    assert board.take(False) == [(0, report)]
    assert board.take(True) == []
    assert board.stop() is True
    assert board.report(1, report) is True
