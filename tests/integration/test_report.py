"""The command that compares methods, on runs that are in the repository."""

import shutil

import pytest
from launching import Launchers
from run_folders import write_run
from sources import ROOT

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
    for seed in range(3):
        shutil.copytree(ROOT / f"results/pen_human/seed{seed}", folder / f"runs/human/seed{seed}")
    outcome = launchers.run(
        "report", "runs", "--output_dir=first", "--title=Pen", "--archive=results", quick=True
    )
    assert (outcome.code, outcome.errors) == (0, "")
    assert "0.660 [0.649, 0.670]" in outcome.output  # B at the end: mean, least and greatest.
    assert sorted(path.name for path in (folder / "first").iterdir()) == FILES
    archived = sorted(str(path.parent) for path in folder.glob("results/**/metrics.csv"))
    assert archived == [str(folder / f"results/pen-binary/human/seed{seed}") for seed in range(3)]
    shutil.rmtree(folder / "runs")
    outcome = launchers.run("report", "results", "--output_dir=again", "--title=Pen", quick=True)
    assert (outcome.code, outcome.errors) == (0, "")
    first, again = (
        (folder / name / "report.csv").read_text().replace("prior=exact_gp", "human")
        for name in ("first", "again")
    )
    assert first == again
    outcome = launchers.run("report", "results", "--output_dir=third", "--title=Pen", quick=True)
    for name in FILES:
        assert (folder / "third" / name).read_bytes() == (folder / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ([], "one or more folders of runs must be given"),
        ([""], "got an empty name"),
        (["runs/seed"], "did you mean runs/seed0?"),
        (["runs", "--output_dir=notes.txt"], "notes.txt is not a folder"),
        (["runs", "--method=mine"], "--method has no effect without --archive"),
        (["runs", "--archive=a", "--method=../b"], "a method's name must be of letters"),
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
