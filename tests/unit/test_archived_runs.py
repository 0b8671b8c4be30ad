"""The runs archived under results/runs are those of the settings that ship."""

import dataclasses
import json
import pathlib

import pytest
from common import config_flags
from absl import flags
from absl.testing import flagsaver

from nppac_tf.comparison import archive
from nppac_tf.config import RunConfig

ROOT = pathlib.Path(__file__).parents[2]
ARCHIVE = ROOT / "results" / "runs"
DEMONSTRATIONS = {"pen": "pen2_sparse.npy", "door": "door-v0_demos.pickle"}
AFTER_THE_BASE = {  # In the README: each method with its flagfile, after that of the comparison.
    "nppac_paper": ["--flagfile=configs/paper/{task}.flags"],
    "awac": ["--flagfile=configs/baselines/awac.flags"],
    "brac": ["--flagfile=configs/baselines/brac.flags"],
    "rlpd": ["--flagfile=configs/comparison/rlpd.flags"],
    "sac": ["--flagfile=configs/baselines/sac.flags", "--discount=0.95"],
    "sacfd": ["--flagfile=configs/baselines/sacfd.flags", "--discount=0.95"],
    "cloning_network": ["--flagfile=configs/baselines/cloning.flags"],
    "cloning_gp": ["--flagfile=configs/baselines/cloning.flags", "--prior=exact_gp"],
}
NOT_ON_THE_DOOR = ("sac", "sacfd")
COMPARED = [
    (task, method)
    for task in DEMONSTRATIONS
    for method in AFTER_THE_BASE
    if task == "pen" or method not in NOT_ON_THE_DOOR
]
ABLATIONS = [
    (task, name)
    for task in DEMONSTRATIONS
    for name in (
        *("nothing", "temperature_fixed", "target_kl", "one_step", "no_layer_norm", "no_floor"),
        *("demonstrations_for_critics", "value_pretraining", "discount_99", "sampled_kl"),
        *("posterior_deviation", "squashed", "sparse_gp", "kernel_rbf"),
        "two_critics" if task == "pen" else "two_updates",
    )
]
RECIPE = ["--flagfile=configs/{task}_human.flags", "--precision=bfloat16", "--eval_interval=4000"]

pytestmark = pytest.mark.skipif(
    not ARCHIVE.parent.exists(),
    reason="needs the archived runs, results/runs, which only a checkout has",
)


@pytest.fixture
def changed(tmp_path, monkeypatch):
    """Gives the settings that differ between archived runs and a command line, with its seeds."""
    monkeypatch.chdir(ROOT)
    before = set(flags.FLAGS)
    config_flags.define(RunConfig)

    def compare(folder, task, arguments):
        demonstrations = f"--demonstrations={DEMONSTRATIONS[task]}"
        with flagsaver.flagsaver():
            flags.FLAGS(["train", *(each.format(task=task) for each in arguments), demonstrations])
            config = dataclasses.asdict(config_flags.configuration(RunConfig))
        (tmp_path / "config.json").write_text(json.dumps({"config": config}))
        (tmp_path / "metrics.csv").write_text("env_steps,eval/time_at_goal\n0,0.5\n")
        shipped = archive.read_runs([tmp_path]).runs[0].settings
        archived = archive.read_runs([ARCHIVE / f"{task}-binary" / folder]).runs
        names = {
            name
            for run in archived
            for name in shipped
            if shipped[name] != run.settings[name]
            # What learns online has no effect where nothing does.
            and not (run.constant and name.startswith(("agent.", "training.")))
        }
        return names, {run.seeds for run in archived}

    yield compare
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize("task", DEMONSTRATIONS)
def test_the_recipe_is_what_ships(changed, task):
    assert changed("nppac", task, RECIPE) == (set(), {(seed, seed) for seed in "234"})


@pytest.mark.parametrize(("task", "method"), COMPARED, ids=map("-".join, COMPARED))
def test_what_it_is_compared_with_is_what_ships(changed, task, method):
    arguments = ["--flagfile=configs/comparison/{task}.flags", *AFTER_THE_BASE[method]]
    assert changed(method, task, arguments) == (set(), {(seed, seed) for seed in "234"})


@pytest.mark.parametrize(("task", "name"), ABLATIONS, ids=map("-".join, ABLATIONS))
def test_an_ablation_is_the_recipe_and_its_flagfile(changed, task, name):
    flagfile = [] if name == "nothing" else [f"--flagfile=configs/ablations/{name}.flags"]
    names, seeds = changed(f"ablation_{name}", task, [*RECIPE, *flagfile])
    assert names == set()
    assert seeds == {("2", "2"), ("3", "3")}


def test_they_name_no_folder_of_a_machine():
    configurations = list(ARCHIVE.rglob("config.json"))
    assert configurations
    for path in configurations:
        source = json.loads(path.read_text(encoding="utf-8"))["config"]["demonstrations"]
        assert "/" not in source or source.startswith("minari:"), path
