import dataclasses
import json
import pathlib

import numpy as np
import pytest

from nppac_tf.config import AgentConfig, RunConfig, TrainingConfig
from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.errors import UserError
from nppac_tf.runs.sweep import plan

HEADER = "env_steps,updates,eval/return\r\n"


@pytest.fixture
def config(tmp_path):
    episodes = [(np.zeros((5, 3)), np.zeros((5, 1)))] * 2
    save_demonstrations(Demonstrations.from_episodes(episodes), tmp_path / "expert.npz")
    training = TrainingConfig(num_env_steps=2000, critic_warmup_steps=0, seed=7)
    demonstrations = str(tmp_path / "expert.npz")
    return RunConfig(task="Pendulum-v1", demonstrations=demonstrations, training=training)


@pytest.fixture
def run(config, tmp_path):
    return plan.PlannedRun("sac", config, tmp_path / "runs/sac/seed7")


def begin(run, fingerprint=None, **changes):
    """Writes a config.json as of a run that has begun."""
    if fingerprint is None:
        fingerprint = plan.inputs.load(run.config).demonstrations.fingerprint()
    content = {
        "config": {**run.config.to_dict(), **changes},
        "demonstrations": {"fingerprint": fingerprint},
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.json").write_text(json.dumps(content))


def advance(run, env_steps, exported_updates=None):
    run.folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{step},{step // 10},1.5\r\n" for step in range(0, env_steps + 1, 1000))
    (run.folder / "metrics.csv").write_text(HEADER + rows)
    if exported_updates is not None:
        file = run.folder / "policy/assets.extra/metadata.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"updates": exported_updates}))


def test_a_grid_has_each_method_with_each_seed_and_the_first_seed_first(config):
    warm = dataclasses.replace(config, agent=AgentConfig(temperature=0.5))
    runs = plan.grid({"cold": config, "warm": warm}, [3, 0], pathlib.Path("out"))
    assert [run.name for run in runs] == ["cold/seed3", "warm/seed3", "cold/seed0", "warm/seed0"]
    assert [str(run.folder) for run in runs] == [f"out/{run.name}" for run in runs]
    assert [run.config.training.seed for run in runs] == [3, 3, 0, 0]
    loop = dataclasses.replace(warm.training, seed=0)
    assert runs[3].config == dataclasses.replace(warm, training=loop)


def test_runs_go_below_their_task_by_default(config):
    other = dataclasses.replace(config, task="my_robot:Reach-v0")
    runs = plan.grid({"a": config, "b": other}, [0])
    assert [str(run.folder) for run in runs] == [
        "runs/Pendulum-v1/a/seed0",
        "runs/my_robot_Reach-v0/b/seed0",
    ]


@pytest.mark.parametrize("name", ["../up", "a b", ".hidden", ""])
def test_a_name_must_be_that_of_a_folder(config, name):
    with pytest.raises(UserError, match=r"method's name must consist of letters.*write NAME=FILE"):
        plan.grid({name: config}, [0])


def test_what_is_in_order_passes(run):
    plan.check([run])
    begin(run)
    plan.check([run])
    longer = dataclasses.replace(run.config.training, num_env_steps=4000)
    plan.check([run._replace(config=dataclasses.replace(run.config, training=longer))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "Pendulm-v1"}, "sac: .*Pendulum-v1"),
        ({"demonstrations": "nowhere.npz"}, "sac: .*nowhere.npz"),
        ({"training": TrainingConfig(prefill_replay=True)}, "sac: .*reward"),
    ],
)
def test_a_method_that_cannot_begin_is_found(run, change, message):
    with pytest.raises(UserError, match=message):
        plan.check([run._replace(config=dataclasses.replace(run.config, **change))])


def test_a_run_of_another_configuration_or_other_demonstrations_is_found(run):
    begin(run)
    other = dataclasses.replace(run.config, agent=AgentConfig(temperature=0.7))
    with pytest.raises(UserError, match=r"temperature must be 0\.2 to resume .*seed7; got 0\.7"):
        plan.check([run._replace(config=other)])
    begin(run, fingerprint="another")
    with pytest.raises(UserError, match=r"must be those that .*seed7 was started with"):
        plan.check([run])


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"config": {}}', '{"config": 3}'])
def test_a_damaged_run_is_found(run, content):
    run.folder.mkdir(parents=True)
    (run.folder / "config.json").write_text(content)
    with pytest.raises(UserError, match="seed7"):
        plan.check([run])


@pytest.mark.parametrize(
    ("env_steps", "exported_updates", "complete"),
    [
        (1000, 100, False),  # Not yet at its end.
        (2000, None, False),  # At its end, but without a policy.
        (2000, 100, False),  # The policy is of a shorter run.
        (2000, 200, True),
        (3000, 300, True),  # Longer than was asked.
    ],
)
def test_a_run_is_complete_with_its_last_evaluation_and_the_policy_of_then(
    run, env_steps, exported_updates, complete
):
    assert not plan.is_complete(run)
    advance(run, env_steps, exported_updates)
    assert plan.is_complete(run) == complete
