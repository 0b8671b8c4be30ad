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
    folder = write_run(tmp_path / "other/seed0", [0.5])
    (folder / "metrics.csv").write_text("env_steps,eval/time_at_goal,eval/return\n0,nan,-1234.56\n")
    assert results.tables([*runs, planned(folder, "Pendulum-v1")]) == {
        "pen-binary": (
            ("", "runs", "A, any-time success", "B, time at goal"),
            # The interval of two runs extends from one to the other.
            [
                ("awac", "2", "0.900 [0.900, 0.900]", "0.375 [0.250, 0.500]"),
                ("sac", "1", "0.900", "0.125"),
            ],
        ),
        "Pendulum-v1": (("", "runs", "return"), [("other", "1", "-1,234.6")]),
    }


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (
            {"my out/a/seed0": "T", "my out/a/seed1": "T", "my out/b/seed0": "T"},
            ["python launch/report.py 'my out' --output_dir='my out/report'"],
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
