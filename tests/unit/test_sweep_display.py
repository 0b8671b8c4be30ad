import io
import pathlib
import types

import pytest
from rich.console import Console

from nppac_tf.config import RunConfig, TrainingConfig
from nppac_tf.runs.sweep import display as displays
from nppac_tf.runs.sweep.messages import DONE, FAILED, STARTING, Ending, Report
from nppac_tf.runs.sweep.plan import PlannedRun

NAN = float("nan")


def row(steps, a=0.5, seconds=4.2):
    return {
        "env_steps": steps,
        "wall_seconds": seconds,
        "eval/any_success": a,
        "eval/time_at_goal": a / 2,
        "eval/return": 25.0,
    }


def runs(count):
    config = RunConfig(training=TrainingConfig(num_env_steps=10_000))
    return [PlannedRun("awac", config, pathlib.Path(f"out/awac/seed{i}")) for i in range(count)]


def make(count, terminal, height=40):
    output = Console(
        file=io.StringIO(), force_terminal=terminal, width=120, height=height, color_system=None
    )
    return displays.SweepDisplay(runs(count), output), output


def table(display, output):
    """What the live table shows now."""
    copy = Console(file=io.StringIO(), width=120, height=output.height, color_system=None)
    copy.print(display._table())
    lines = (" ".join(line.split()) for line in copy.file.getvalue().splitlines())
    return [line for line in lines if line]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets."""

    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(displays, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_pipe_gets_a_line_per_evaluation_and_change_of_state():
    display, output = make(10, terminal=False)
    with display:
        display.on_report(0, Report(STARTING))
        display.on_report(0, Report("Fitting the prior"))
        display.on_report(0, Report("pretraining", 500, 1000))
        display.on_report(0, Report("pretraining", 1000, 1000, row(0)))
        display.on_report(0, Report("training", 1000, 10_000))
        display.on_report(0, Report("training", 2000, 10_000, row(2000, 0.75, 65.0)))
        display.on_retry(0, "its worker died: retry 1")
        display.on_report(0, Report(STARTING))
        display.on_report(0, Report(STARTING, evaluation=row(0)))  # Reported again.
        display.on_report(0, Report(STARTING, evaluation=row(2000, 0.75)))
        display.on_report(0, Report("training", 4000, 10_000, notice="the KL term ..."))
        display.on_report(0, Report("training", 4000, 10_000, row(4000, 1.0, 125.0)))
        display.on_end(0, Ending(DONE))
        display.on_end(9, Ending(FAILED, "the loss stopped being finite"))
    assert output.file.getvalue().splitlines() == [
        "awac/seed0  running",
        "awac/seed0          0 steps  A 0.50  B 0.25  return 25.0  0:00:04",
        "awac/seed0      2,000 steps  A 0.75  B 0.38  return 25.0  0:01:05",
        "awac/seed0  its worker died: retry 1",
        "awac/seed0  running",
        "awac/seed0  the KL term ...",
        "awac/seed0      4,000 steps  A 1.00  B 0.50  return 25.0  0:02:05",
        "awac/seed0  done",
        "awac/seed9  failed: the loss stopped being finite",
    ]


def test_a_terminal_gets_a_table_of_all_runs(clock):
    display, output = make(5, terminal=True)
    display.on_report(0, Report("training", 1000, 10_000, row(0)))
    display.on_report(1, Report("pretraining", 350, 1000))
    display.on_report(2, Report("Fitting the prior"))
    display.on_end(3, Ending(FAILED, "no"))
    clock.now += 100
    display.on_report(0, Report("training", 3000, 10_000))
    header, _, *lines, total = table(display, output)
    assert header.split() == ["steps", "A", "B", "state", "left"]
    # 2,000 steps in 100 seconds, and 7,000 to go.
    assert [line.split()[0] for line in lines] == [f"awac/seed{index}" for index in range(5)]
    assert lines[0].endswith("3,000 / 10,000 0.50 0.25 training 0:05:50")
    assert lines[1].endswith("0 / 10,000 pre-training")
    assert lines[2].endswith("0 / 10,000 fitting the prior")
    assert lines[3].endswith("failed")
    assert lines[4].endswith("waiting")
    # 10,000 steps of three runs are to come, beside those 7,000, all at the one speed.
    assert total == "1 failed, 3 underway, 1 waiting; 0:01:40 so far, about 0:30:50 left"


def test_a_task_without_a_goal_shows_its_return():
    display, output = make(1, terminal=True)
    report = Report("training", 1000, 10_000, {**row(1000, NAN), "eval/return": -1234.5})
    display.on_report(0, report)
    header, _, line, _ = table(display, output)
    assert header.split() == ["steps", "return", "state", "left"]
    assert "-1,234.5" in line


def test_a_low_terminal_shows_what_is_underway_before_what_is_not():
    display, output = make(30, terminal=True, height=14)
    for index in range(10):
        display.on_report(index, Report("training", 10, 10_000))
        display.on_end(index, Ending(DONE))
    display.on_end(11, Ending(FAILED, "no"))
    for index in (20, 25):
        display.on_report(index, Report("training", 10, 10_000))
    names = [line.split()[0] for line in table(display, output)[2:-1]]
    assert names == [f"awac/seed{index}" for index in (10, 11, 12, 13, 20, 25)]


def test_only_a_run_that_has_trained_has_something_to_save():
    display, _ = make(1, terminal=False)
    found = []
    for stage in (STARTING, "Fitting the prior", "pretraining", "training", "Exporting the policy"):
        found.append(display.has_something_to_save(0))
        display.on_report(0, Report(stage))
    assert found == [False, False, False, True, True]
    assert display.has_something_to_save(0)
