import json
import pathlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import write_run

from nppac_tf.comparison import archive, methods
from nppac_tf.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]


def read_one(folder):
    (run,) = archive.read_runs([folder]).runs
    return run


def test_runs_are_found_once_and_those_without_an_evaluation_are_named(tmp_path):
    for name in ("a/seed1", "a/seed0", "b"):
        write_run(tmp_path / name, [0.5])
    write_run(tmp_path / "b" / "policy", [0.1])  # Folders inside a run are not searched.
    write_run(tmp_path / "c", [])
    table = write_run(tmp_path / "d", [0.5]) / "metrics.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")
    (tmp_path / "no_run").mkdir()
    (tmp_path / "no_run" / "config.json").write_text("{}")
    found = archive.read_runs([tmp_path / "b", tmp_path, tmp_path / "a" / "seed0"])
    assert [run.name for run in found.runs] == ["b", "a/seed0", "a/seed1"]
    assert found.not_evaluated == ("c", "d")


def test_a_run_is_read(tmp_path):
    changes = {
        "config.demonstrations": "/home/someone/pen.npy",
        "config.agent.temperature": 1.0,
        "config.prior.prior_seed": 7,
        "config.an_option_of_another_version": "x",
        "demonstrations.fingerprint": "0123456789abcdef",
    }
    run = read_one(write_run(tmp_path, [0.5, np.inf], seed=3, planned=9000, changes=changes))
    assert (run.task, run.seeds, run.planned_steps, run.env_steps) == (
        "pen-binary",
        ("3", "7"),
        9000,
        1000,
    )
    wanted = {
        "demonstrations": "pen.npy",
        "demonstrations.fingerprint": "0123456789ab",
        "agent.temperature": "1",
        "agent.actor_layers": "256,256",
        "agent.target_kl": "null",
        "an_option_of_another_version": "x",
    }
    assert wanted.items() <= run.settings.items()
    assert not {"task", "training.seed", "prior.prior_seed", "training.num_env_steps"} & set(
        run.settings
    )
    np.testing.assert_array_equal(run.table["eval/time_at_goal"], [0.5, np.nan])
    assert run.versions == {"numpy": "1.26.4"}


def test_archived_results_are_one_method():
    found = archive.read_runs([ROOT / "results/runs/pen-binary/nppac"])
    assert [run.env_steps for run in found.runs] == [100_000] * 3
    (method,) = methods.group(found.runs)
    assert [run.seeds for run in method.runs] == [(seed, seed) for seed in "234"]


def test_folders_without_runs_of_one_task_are_refused(tmp_path):
    write_run(tmp_path / "seed0", [0.5])
    write_run(tmp_path / "door", [0.5], task="door\n-binary")
    write_run(tmp_path / "started", [])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, message in {
        "sed0": r"no run at .*sed0; did you mean .*seed0\?",
        "empty": "or hold such folders; it has none",
        "file": "must be a folder of runs; it is a file",
        "started": "started/metrics.csv must hold an evaluation",
        ".": r"must be of one task; got runs of door\?-binary and pen",
    }.items():
        with pytest.raises(UserError, match=message):
            archive.read_runs([tmp_path / name])


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"config": 1}', '{"config": {"task": 3}}', "\xff", "[" * 100_000],
    ids=lambda content: content[:20],
)
def test_a_damaged_configuration_is_refused(tmp_path, content):
    write_run(tmp_path, [0.5])
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="is not the configuration of a run"):
        archive.read_runs([tmp_path])


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["prior", "agent", "training", "demonstrations"]), JSON))
def test_any_configuration_is_read(tmp_path_factory, config):
    folder = tmp_path_factory.getbasetemp() / "any"
    write_run(folder, [0.5])
    content = {"config": {"task": "pen-binary", **config}, "versions": config}
    (folder / "config.json").write_text(json.dumps(content))
    assert all(isinstance(value, str) for value in read_one(folder).settings.values())


@pytest.mark.parametrize("steps", [[0, 0], [1000, 0], [-5, 0]])
def test_steps_that_do_not_increase_are_refused(tmp_path, steps):
    write_run(tmp_path, [0.5, 0.5], steps=steps)
    with pytest.raises(UserError, match="env_steps must increase"):
        archive.read_runs([tmp_path])


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("data/of/someone/pen.npy", "pen.npy"),
        ("C:\\data\\pen.npy", "pen.npy"),
        ("embedded:pen", "embedded:pen"),
        ("minari:D4RL/pen/human-v2", "minari:D4RL/pen/human-v2"),
        ("minari:/home/someone/set-v0", "set-v0"),
        ("minari:../set-v0", "set-v0"),
        ("/home/one/a.npz,minari:D4RL/pen/human-v2", "a.npz,minari:D4RL/pen/human-v2"),
    ],
)
def test_an_archive_holds_no_folders_of_the_machine(tmp_path, source, kept):
    changes = {
        "config.demonstrations": source,
        "demonstrations.name": "/home/someone/pen",
        "prior.cache": ["~/cache", "C:\\cache\\x", "kept"],
    }
    run = read_one(write_run(tmp_path / "runs" / "x", [0.5, 0.6], changes=changes))
    target = archive.archive(run, tmp_path / "results", "mine", "seed0")
    assert target == tmp_path / "results" / "pen-binary" / "mine" / "seed0"
    content = json.loads((target / "config.json").read_text())
    assert content["config"]["demonstrations"] == run.settings["demonstrations"] == kept
    assert content["demonstrations"]["name"] == "pen"
    assert content["prior"]["cache"] == ["cache", "x", "kept"]
    assert (target / "metrics.csv").read_bytes() == (run.path / "metrics.csv").read_bytes()
    copy = read_one(tmp_path / "results")
    assert (copy.settings, copy.seeds) == (run.settings, run.seeds)


def test_an_archive_takes_a_longer_copy_and_no_other_run(tmp_path):
    def put(name, *arguments, **options):
        run = read_one(write_run(tmp_path / name, *arguments, **options))
        return archive.archive(run, tmp_path / "results", "mine", "seed0")

    put("a", [0.5])
    target = put("a", [0.5, 0.7])
    with pytest.raises(UserError, match=r"it has 1,000, not 0: delete it first"):
        put("a", [0.5])
    for changes in ({"config.training.seed": 1}, {"config.prior.prior": "x"}):
        with pytest.raises(UserError, match="holds another run: pass another --method"):
            put("b", [0.5], changes=changes)
    assert len((target / "metrics.csv").read_text().splitlines()) == 3


def test_an_archive_stays_in_its_folder(tmp_path):
    run = read_one(write_run(tmp_path / "a", [0.5], task="../../up/x"))
    target = archive.archive(run, tmp_path / "results", "mine", "seed0")
    assert target.parents[2] == tmp_path / "results"
    for name in ("../up", "", ".", "a/b", "a b"):
        with pytest.raises(UserError, match="a method's name must consist of letters"):
            archive.archive(run, tmp_path / "results", name, "seed0")


def test_printable_text_is_one_short_line():
    assert archive.printable("a\x1b[31m\nb\udc80") == "a?[31m?b?"
    assert len(archive.printable("x" * 1000)) == 120
