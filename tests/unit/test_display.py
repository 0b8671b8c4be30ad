import io
import re
import time

import pytest
from rich.console import Console

from nppac_tf.runs import display as progress

NAN = float("nan")
FIRST = {
    "env_steps": 0,
    "wall_seconds": 4.2,
    "eval/any_success": 0.5,
    "eval/time_at_goal": 0.25,
    "eval/final_success": 0.4,
    "eval/return": 25.0,
}
LATER = {**FIRST, "env_steps": 12_000, "wall_seconds": 3725.0, "train/kl": 12.34}


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def shown(output):
    return output.file.getvalue()


def run(output):
    with progress.ProgressDisplay(output) as display:
        with display.busy("Fitting the prior"):
            pass
        for done in (500, 1000):
            display.on_progress("pretraining", done, 1000, {"train/kl": 3.0})
        display.on_evaluation(FIRST)
        for done in range(100, 12_001, 100):
            display.on_progress("training", done, 50_000, {"train/prior_scale": 0.0625})
        display.on_evaluation(LATER)


def test_a_pipe_gets_plain_lines():
    output = console(terminal=False)
    run(output)
    announced, fit, *lines = shown(output).splitlines()
    assert announced == "Fitting the prior ..."
    assert fit.startswith("Fitting the prior: ")
    assert lines == [
        "Pre-training the actor: 1,000 updates",
        "        0 steps  A 0.50  B 0.25  final 0.40  return 25.0  0:00:04",
        "Training: 50,000 environment steps",
        "   12,000 steps  A 0.50  B 0.25  final 0.40  return 25.0  KL 12.3  1:02:05",
    ]


@pytest.mark.parametrize("stage", ["busy", "pretraining", "training"])
def test_a_pipe_is_never_silent_for_long(stage):
    output = console(terminal=False)
    with progress.ProgressDisplay(output, longest_silence=0.05) as display:
        if stage == "busy":
            with display.busy("Fitting the prior"):
                time.sleep(0.3)
            expected = r"Fitting the prior \.\.\. 0 s"
        else:
            display.on_progress(stage, 400, 1000, {})
            time.sleep(0.3)
            expected = r".*raining.*: 400 of 1,000 \.\.\. 0 s"
    lines = shown(output).splitlines()
    assert 2 <= sum(bool(re.fullmatch(expected, line)) for line in lines) <= 6
    before = shown(output)
    time.sleep(0.1)
    assert shown(output) == before


def test_other_lines_postpone_the_next_sign_of_life():
    output = console(terminal=False)
    with progress.ProgressDisplay(output, longest_silence=0.5) as display:
        display.on_progress("training", 400, 1000, {})
        for _ in range(8):
            time.sleep(0.1)
            display.say("a line")
    assert " of " not in shown(output)


def test_a_line_is_neither_broken_nor_markup():
    output = Console(file=io.StringIO(), force_terminal=False, width=20)
    line = "clipped [bold] into [-1, 1] :smile: " + "word " * 30
    progress.ProgressDisplay(output).say(line)
    assert shown(output) == f"{line}\n"


def test_a_terminal_gets_a_bar_below_the_evaluations():
    output = console(terminal=True)
    with progress.ProgressDisplay(output) as display:
        display.on_evaluation(FIRST)
        display.on_progress("training", 30_000, 50_000, {"train/prior_scale": 0.0625})
        display._bar.refresh()
    text = shown(output)
    assert "30,000 / 50,000" in text
    line, bar, metrics = (
        text.rindex(part) for part in ("0 steps  A 0.50", "Training", "prior scale 0.0625")
    )
    assert line < bar < metrics


def test_an_error_stops_the_bar():
    display = progress.ProgressDisplay(console(terminal=True))
    with pytest.raises(ValueError, match="broken"), display, display.busy("Fitting"):
        raise ValueError("broken")
    assert not display._bar.live.is_started


def test_metrics_that_are_absent_or_nan_are_left_out():
    assert progress.describe({"eval/any_success": NAN, "eval/return": -1234.5}) == "return -1,234.5"
    assert progress.describe({}) == ""


def test_a_table():
    output = console(terminal=False)
    progress.print_table("of [two]", ("", "mean"), [("return", "1.5"), ("[A]", "10")], output)
    lines = [line.strip() for line in shown(output).splitlines()]
    assert lines[0] == "of [two]"
    assert [line.split() for line in lines if line.startswith(("return", "[A]"))] == [
        ["return", "1.5"],
        ["[A]", "10"],
    ]
