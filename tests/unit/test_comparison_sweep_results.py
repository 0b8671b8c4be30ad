import dataclasses
import pathlib

import pytest
from run_folders import write_run

from nppac_tf.comparison import sweep_results as results
from nppac_tf.config import RunConfig
from nppac_tf.runs.sweep.plan import PlannedRun


def planned(folder, task="pen-binary"):
    config = dataclasses.replace(RunConfig(), task=task)
    return PlannedRun(folder.parent.name, config, folder)


def test_last_evaluations_are_averaged_over_seeds(tmp_path):
    lasts = {"awac": (0.25, 0.5), "sac": (0.125,)}
    runs = [
        planned(write_run(tmp_path / method / f"seed{seed}", [0.9, last], seed))
        for method, values in lasts.items()
        for seed, last in enumerate(values)
    ]
    ((task, (header, rows)),) = results.tables(runs).items()
    assert task == "pen-binary"
    assert header == ("", "runs", "A, any-time success", "B, time at goal")
    # The interquartile mean of two is their mean, and their interval goes from one to the other.
    assert rows == [
        ("awac", "2", "0.900 [0.900, 0.900]", "0.375 [0.250, 0.500]"),
        ("sac", "1", "0.900", "0.125"),
    ]


def test_a_task_without_a_goal_is_told_by_its_return(tmp_path):
    folder = write_run(tmp_path / "sac/seed0", [0.5])
    (folder / "metrics.csv").write_text(
        "env_steps,eval/any_success,eval/time_at_goal,eval/return\r\n0,nan,nan,-1234.56\r\n"
    )
    runs = [planned(folder, "Pendulum-v1"), planned(write_run(tmp_path / "sac/seed1", [0.5]))]
    tables = results.tables(runs)
    assert tables["Pendulum-v1"] == (("", "runs", "return"), [("sac", "1", "-1,234.6")])
    assert tables["pen-binary"][1] == [("sac", "1", "0.900", "0.500")]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (
            {"out/a/seed0": "T", "out/a/seed1": "T", "out/b/seed0": "T"},
            ["python launch/report.py out --output_dir=out/report"],
        ),
        (
            {"my runs/a/seed0": "T"},
            ["python launch/report.py 'my runs' --output_dir='my runs/report'"],
        ),
        (
            {"out/a/seed0": "T", "out/b/seed0": "U", "out/c/seed0": "U"},
            [
                "python launch/report.py out/a --output_dir=out/report-a",
                "python launch/report.py out/b out/c --output_dir=out/report-b",
            ],
        ),
    ],
)
def test_the_commands_that_draw_the_comparison(folders, expected):
    runs = [planned(pathlib.Path(folder), task) for folder, task in folders.items()]
    assert results.commands(runs) == expected
