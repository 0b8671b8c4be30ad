"""The command that compares methods, on runs that are in the repository."""

import pathlib
import shutil

import pytest
from launching import Launchers
from run_folders import write_run

ARCHIVE = pathlib.Path(__file__).parents[2] / "results/runs/pen-binary/nppac"
FILES = [
    "any_success.png",
    "area.png",
    "final_success.png",
    "learning_curves.png",
    "report.csv",
    "report.html",
    "report.md",
    "return.png",
    "scores.png",
    "time_at_goal.png",
]


@pytest.fixture
def launchers(tmp_path):
    return Launchers(tmp_path)


def test_a_report_is_redrawn_from_an_archive_of_its_runs(launchers):
    folder = launchers.folder
    shutil.copytree(ARCHIVE, folder / "runs/pen-binary/mine")
    for arguments in (
        ("runs", "--output_dir=first", "--archive=results"),
        ("results", "--output_dir=again"),
    ):
        outcome = launchers.run("report", *arguments, quick=True)
        assert (outcome.code, outcome.errors) == (0, "")
        assert "0.754 [0.737, 0.764]" in outcome.output  # B at the end: mean, minimum and maximum.
    assert len(list(folder.glob("results/pen-binary/mine/seed[234]/metrics.csv"))) == 3
    assert sorted(path.name for path in (folder / "first").iterdir()) == FILES
    for name in FILES:
        assert (folder / "first" / name).read_bytes() == (folder / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ([], "one or more folders of runs must be given"),
        ([""], "got an empty name"),
        (["runs/seed"], "did you mean runs/seed0?"),
        (["runs", "--output_dir=notes.txt"], "notes.txt is not a folder"),
        (["runs", "--method=mine"], "--method has no effect without --archive"),
        (["runs", "--archive=a", "--method=../b"], "a method's name must consist of letters"),
        (["other", "--archive=a"], "--method must name prior=gp"),
        (["runs", "pendulum"], "runs must be of one task"),
        (["runs", "--threshold=60"], "threshold must be in (0, 1]"),
        (["runs", "--title", "x", "nowhere"], "no run at nowhere"),
    ],
)
def test_a_mistake_is_one_line(launchers, arguments, culprit):
    folder = launchers.folder
    write_run(folder / "runs" / "seed0", [0.5, 0.6])
    write_run(folder / "other", [0.5], seed=1)
    write_run(folder / "pendulum", [0.5], task="Pendulum-v1")
    (folder / "notes.txt").write_text("")
    outcome = launchers.run("report", *arguments, quick=True)
    assert outcome.code == 1
    assert outcome.errors.startswith("error: ")
    assert outcome.errors.count("\n") == 1
    assert culprit in outcome.errors
    assert not (folder / "a").exists()
