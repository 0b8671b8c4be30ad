import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import write_run
from sources import ROOT

from nppac_tf.comparison import archive, methods
from nppac_tf.errors import UserError


def names(found):
    return [run.name for run in found.runs]


def test_runs_are_found_below_folders_once(tmp_path):
    for name in ("a/seed1", "a/seed0", "b"):
        write_run(tmp_path / name, [0.5])
    write_run(tmp_path / "b" / "policy", [0.1])  # What a run holds is no run of its own.
    found = archive.read_runs([tmp_path / "b", tmp_path, tmp_path / "a" / "seed0"])
    assert names(found) == ["b", "a/seed0", "a/seed1"]
    assert found.not_evaluated == ()


def test_a_run_is_read(tmp_path):
    write_run(
        tmp_path,
        [0.5, np.inf],
        seed=3,
        planned=9000,
        changes={
            "config.demonstrations": "/home/someone/pen.npy",
            "config.agent.temperature": 1,
            "config.prior.prior_seed": 7,
            "demonstrations.fingerprint": "0123456789abcdef",
        },
    )
    (run,) = archive.read_runs([tmp_path]).runs
    assert (run.task, run.seeds, run.planned_steps, run.env_steps) == (
        "pen-binary",
        ("3", "7"),
        9000,
        1000,
    )
    assert run.settings["demonstrations"] == "pen.npy"
    assert run.settings["demonstrations.fingerprint"] == "0123456789ab"
    assert run.settings["agent.temperature"] == "1"
    assert run.settings["agent.actor_layers"] == "256,256"
    assert run.settings["agent.target_kl"] == "null"
    assert not {"task", "training.seed", "prior.prior_seed", "training.num_env_steps"} & set(
        run.settings
    )
    np.testing.assert_array_equal(run.table["eval/time_at_goal"], [0.5, np.nan])
    assert run.versions == {"numpy": "1.26.4"}
    assert run.assumed == ()


def test_numbers_are_alike_whatever_their_type(tmp_path):
    for value in (1, 1.0):
        write_run(tmp_path / str(value), [0.5], changes={"config.agent.temperature": value})
    one, another = archive.read_runs([tmp_path]).runs
    assert one.settings == another.settings


def test_what_an_older_version_wrote_is_read(tmp_path):
    write_run(tmp_path, [0.5], changes={"config.prior.network_layers": None, "config.new": "x"})
    (run,) = archive.read_runs([tmp_path]).runs
    assert run.assumed == ("prior.network_layers",)
    assert run.settings["prior.network_layers"] == "256,256"
    assert run.settings["new"] == "x"


def test_archived_results_are_one_method():
    found = archive.read_runs([ROOT / "results" / "pen_human"])
    assert [run.env_steps for run in found.runs] == [50_000] * 3
    (method,) = methods.group(found.runs)
    assert [run.seeds for run in method.runs] == [("0", "0"), ("1", "0"), ("2", "0")]


def test_runs_without_an_evaluation_are_named(tmp_path):
    write_run(tmp_path / "begun", [])
    (tmp_path / "no_run").mkdir()
    (tmp_path / "no_run" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"begun/metrics.csv must hold an evaluation"):
        archive.read_runs([tmp_path])
    write_run(tmp_path / "empty", [0.5], seed=1)
    table = tmp_path / "empty" / "metrics.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")
    write_run(tmp_path / "whole", [0.5], seed=2)
    found = archive.read_runs([tmp_path])
    assert (names(found), found.not_evaluated) == (["whole"], ("begun", "empty"))


def test_refuses_runs_of_two_tasks(tmp_path):
    write_run(tmp_path / "a", [0.5])
    write_run(tmp_path / "b", [0.5], task="door\n-binary")
    with pytest.raises(UserError, match=r"must be of one task; got runs of door\?-binary and pen"):
        archive.read_runs([tmp_path])


def test_refuses_folders_without_runs(tmp_path):
    write_run(tmp_path / "seed0", [0.5])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"no run at .*sed0; did you mean .*seed0\?"):
        archive.read_runs([tmp_path / "sed0"])
    with pytest.raises(UserError, match="or hold such folders; it has none"):
        archive.read_runs([tmp_path / "empty"])
    with pytest.raises(UserError, match="must be a folder of runs; it is a file"):
        archive.read_runs([tmp_path / "file"])


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"config": 1}', '{"config": {"task": 3}}', "\xff", "[" * 100_000],
    ids=lambda content: content[:20],
)
def test_refuses_what_is_no_configuration(tmp_path, content):
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
    (run,) = archive.read_runs([folder]).runs
    assert all(isinstance(value, str) for value in run.settings.values())


@pytest.mark.parametrize("steps", [[0, 0], [1000, 0], [-5, 0]])
def test_refuses_steps_that_do_not_rise(tmp_path, steps):
    write_run(tmp_path, [0.5, 0.5], steps=steps)
    with pytest.raises(UserError, match="env_steps must rise"):
        archive.read_runs([tmp_path])


def test_an_archive_holds_no_folders_of_the_machine(tmp_path):
    changes = {
        "config.demonstrations": "data/of/someone/pen.npy",
        "demonstrations.name": "/home/someone/pen",
        "prior.cache": ["~/cache", "C:\\cache\\x", "kept"],
    }
    write_run(tmp_path / "runs" / "x", [0.5, 0.6], changes=changes)
    (run,) = archive.read_runs([tmp_path / "runs"]).runs
    target = archive.archive(run, tmp_path / "results", "mine", "seed0")
    assert target == tmp_path / "results" / "pen-binary" / "mine" / "seed0"
    content = json.loads((target / "config.json").read_text())
    assert content["config"]["demonstrations"] == "pen.npy"
    assert content["demonstrations"]["name"] == "pen"
    assert content["prior"]["cache"] == ["cache", "x", "kept"]
    assert (target / "metrics.csv").read_bytes() == (run.path / "metrics.csv").read_bytes()
    (copy,) = archive.read_runs([tmp_path / "results"]).runs
    assert (copy.settings, copy.seeds) == (run.settings, run.seeds)


def test_an_archive_takes_a_longer_copy_and_no_other_run(tmp_path):
    write_run(tmp_path / "a", [0.5])
    (run,) = archive.read_runs([tmp_path / "a"]).runs
    target = archive.archive(run, tmp_path / "results", "mine", "seed0")
    write_run(tmp_path / "a", [0.5, 0.7])
    archive.archive(run, tmp_path / "results", "mine", "seed0")
    assert len((target / "metrics.csv").read_text().splitlines()) == 3
    write_run(tmp_path / "a", [0.5])
    with pytest.raises(UserError, match=r"it has 1,000 steps, not 0: delete it first"):
        archive.archive(
            archive.read_runs([tmp_path / "a"]).runs[0], tmp_path / "results", "mine", "seed0"
        )
    assert len((target / "metrics.csv").read_text().splitlines()) == 3
    for number, changes in enumerate(({"config.training.seed": 1}, {"config.prior.prior": "x"})):
        write_run(tmp_path / f"b{number}", [0.5], changes=changes)
        (other,) = archive.read_runs([tmp_path / f"b{number}"]).runs
        with pytest.raises(UserError, match="holds another run: give the method another name"):
            archive.archive(other, tmp_path / "results", "mine", "seed0")


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("minari:D4RL/pen/human-v2", "minari:D4RL/pen/human-v2"),
        ("minari:/home/someone/set-v0", "set-v0"),
        ("minari:../set-v0", "set-v0"),
        ("embedded:pen", "embedded:pen"),
        ("C:\\data\\pen.npy", "pen.npy"),
        ("data/", "data"),
    ],
)
def test_sources_of_demonstrations_lose_their_folder(tmp_path, source, kept):
    write_run(tmp_path / "a", [0.5], changes={"config.demonstrations": source})
    (run,) = archive.read_runs([tmp_path / "a"]).runs
    target = archive.archive(run, tmp_path, "mine", "seed0")
    assert json.loads((target / "config.json").read_text())["config"]["demonstrations"] == kept
    assert run.settings["demonstrations"] == kept


def test_an_archive_stays_in_its_folder(tmp_path):
    write_run(tmp_path / "a", [0.5], task="../../up/x")
    (run,) = archive.read_runs([tmp_path / "a"]).runs
    target = archive.archive(run, tmp_path / "results", "mine", "seed0")
    assert target.parents[2] == tmp_path / "results"
    for name in ("../up", "", ".", "a/b", "a b"):
        with pytest.raises(UserError, match="a method's name must be of letters"):
            archive.archive(run, tmp_path / "results", name, "seed0")


def test_printable_text_is_one_short_line():
    assert archive.printable("a\x1b[31m\nb\udc80") == "a?[31m?b?"
    assert len(archive.printable("x" * 1000)) == 120
