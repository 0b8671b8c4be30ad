"""The archived runs that the documentation reports have the settings of the flagfiles."""

import dataclasses
import json
import pathlib

import pytest
from common import config_flags, flagfiles
from absl import flags
from absl.testing import flagsaver
from run_folders import write_run

from nppac_tf.comparison import archive
from nppac_tf.config import RunConfig

ROOT = pathlib.Path(__file__).parents[2]
ARCHIVE = ROOT / "results/runs"
DEMONSTRATIONS = {"pen": "pen2_sparse.npy", "door": "door-v0_demos.pickle"}
RECIPE = ["--flagfile=configs/{task}_human.flags", "--precision=bfloat16", "--eval_interval=4000"]
BASE = ["--flagfile=configs/comparison/{task}.flags"]
BASELINES = "--flagfile=configs/baselines/"
# Arguments of each method, as on the page of results.
METHODS = {
    "nppac": RECIPE,
    "nppac_paper": [*BASE, "--flagfile=configs/paper/{task}.flags"],
    "awac": [*BASE, f"{BASELINES}awac.flags"],
    "brac": [*BASE, f"{BASELINES}brac.flags"],
    "rlpd": [*BASE, "--flagfile=configs/comparison/rlpd.flags"],
    "sac": [*BASE, f"{BASELINES}sac.flags", "--discount=0.95"],
    "sacfd": [*BASE, f"{BASELINES}sacfd.flags", "--discount=0.95"],
    "cloning_network": [*BASE, f"{BASELINES}cloning.flags"],
    "cloning_gp": [*BASE, f"{BASELINES}cloning.flags", "--prior=exact_gp"],
    "ablation_nothing": RECIPE,
} | {
    f"ablation_{name}": [*RECIPE, f"--flagfile=configs/ablations/{name}.flags"]
    for name in (
        *("temperature_fixed", "target_kl", "one_step", "no_layer_norm", "no_floor"),
        *("demonstrations_for_critics", "value_pretraining", "discount_99", "sampled_kl"),
        *("posterior_deviation", "squashed", "sparse_gp", "kernel_rbf"),
        *("two_critics", "two_updates"),
    )
}
NOT_RUN = {
    *(("door", "sac"), ("door", "sacfd"), ("door", "ablation_two_critics")),
    ("pen", "ablation_two_updates"),
}
CASES = [
    (task, method) for task in DEMONSTRATIONS for method in METHODS if (task, method) not in NOT_RUN
]


@pytest.fixture
def parse(monkeypatch):
    """Parses the flags of a run."""
    monkeypatch.chdir(ROOT)
    before = set(flags.FLAGS)
    config_flags.define(RunConfig)

    def parse(arguments):
        with flagsaver.flagsaver():
            flags.FLAGS(["train", *(each.text for each in flagfiles.expand(arguments))])
            return config_flags.configuration(RunConfig)

    yield parse
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


def _is_fixed(run):
    return run.settings["agent.final_temperature"] == "null"


@pytest.mark.parametrize(("task", "method"), CASES, ids=map("-".join, CASES))
def test_archived_settings_are_those_of_the_flagfiles(parse, tmp_path, task, method):
    arguments = [argument.format(task=task) for argument in METHODS[method]]
    config = parse([*arguments, f"--demonstrations={DEMONSTRATIONS[task]}"])
    write_run(tmp_path, [0.5], changes={"config": dataclasses.asdict(config)})
    (shipped,) = archive.read_runs([tmp_path]).runs
    runs = archive.read_runs([ARCHIVE / f"{task}-binary" / method]).runs
    differing = {
        name
        for run in runs
        for name in shipped.settings.keys() & run.settings.keys()
        if shipped.settings[name] != run.settings[name]
        # Behavioral cloning ignores the settings of the agent and the training.
        and not (run.constant and name.startswith(("agent.", "training.")))
        # Without a final temperature there is nothing to anneal.
        and not (name == "agent.annealing_updates" and _is_fixed(run))
    }
    assert differing == set()
    seeds = "23" if method.startswith("ablation_") else "234"
    assert {run.seeds for run in runs} == {(seed, seed) for seed in seeds}


def test_archived_runs_name_no_folder_of_a_machine():
    configurations = list(ARCHIVE.rglob("config.json"))
    assert configurations
    for path in configurations:
        source = json.loads(path.read_text(encoding="utf-8"))["config"]["demonstrations"]
        assert "/" not in source or source.startswith("minari:"), path
