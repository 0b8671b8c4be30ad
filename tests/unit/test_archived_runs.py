"""The archive of runs: readable, complete, and without the paths of a machine."""

import json
import pathlib

from nppac_tf.comparison import archive

ARCHIVE = pathlib.Path(__file__).parents[2] / "results/runs"


def test_all_archived_runs_are_readable_and_name_their_seed():
    runs = [run for task in ARCHIVE.iterdir() for run in archive.read_runs([task]).runs]
    assert len(runs) == len(list(ARCHIVE.rglob("config.json"))) > 100
    for run in runs:
        assert run.seeds[0].isdigit(), run


def test_archived_runs_name_no_folder_of_a_machine():
    for path in ARCHIVE.rglob("config.json"):
        source = json.loads(path.read_text(encoding="utf-8"))["config"]["demonstrations"]
        assert "/" not in source or source.startswith("minari:"), path
