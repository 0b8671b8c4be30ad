import dataclasses
import json

import pytest

from nppac_tf.config import AgentConfig, PriorConfig, RunConfig, TrainingConfig
from nppac_tf.errors import UserError

PARTS = [PriorConfig, AgentConfig, TrainingConfig, RunConfig]
OPTIONS = [(part, field) for part in PARTS for field in dataclasses.fields(part) if field.metadata]


@pytest.mark.parametrize(("part", "field"), OPTIONS, ids=[field.name for _, field in OPTIONS])
def test_each_value_alone_is_checked(part, field):
    """A value beside what the field allows is refused, with name, requirement and value."""
    wrong = {}
    if field.metadata["choices"]:
        wrong["other"] = "one of "
    if field.metadata["minimum"] is not None:
        wrong |= dict.fromkeys((field.metadata["minimum"] - 1, float("inf")), "finite and at least")
    if field.metadata["positive"]:
        wrong |= dict.fromkeys((0.0, -1.0, float("inf"), float("nan")), "positive and finite")
    if field.type == tuple[int, ...]:
        wrong |= {(): "one or more positive layer sizes", (8, 0): "one or more positive"}
    for value, requirement in wrong.items():
        with pytest.raises(UserError) as error:
            part(**{field.name: value})
        assert str(error.value).startswith(f"{field.name} must be {requirement}")
        assert str(error.value).endswith(f"got {value!r}")
    assert field.metadata["help"].endswith(".")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (PriorConfig, {"fixed_scale": 0.1, "scale_floor": 0.2}, "fixed_scale must be none with"),
        (PriorConfig, {"dropout_rate": 1.0}, r"dropout_rate must be in \(0, 1\); got 1.0"),
        (
            AgentConfig,
            {"divergence": "closed_form", "squash": True, "actor": "network"},
            "divergence must be 'auto' or 'sampled' with a squashed actor; got 'closed_form'",
        ),
        (AgentConfig, {"squash": True}, "squash must be false with actor anchored, .*; got True"),
        (AgentConfig, {"discount": 1.0}, r"discount must be in \[0, 1\); got 1.0"),
        (
            AgentConfig,
            {"num_critics": 5, "num_target_critics": 6},
            r"num_target_critics must be none, or from 1 to num_critics \(5\); got 6",
        ),
        (AgentConfig, {"num_target_critics": 0}, "num_target_critics must be none, or from 1"),
        (
            AgentConfig,
            {"algorithm": "awac", "target_kl": 1.0},
            "target_kl must be none with algorithm awac; got 1.0",
        ),
        (AgentConfig, {"target_update_rate": 0.0}, r"must be in \(0, 1\]; got 0.0"),
        (
            TrainingConfig,
            {"num_environments": 3, "num_greedy_environments": 3},
            r"num_greedy_environments must be none, or .* below num_environments \(3\), .*; got 3",
        ),
        (TrainingConfig, {"num_greedy_environments": -1}, "num_greedy.* at least 0 .*; got -1"),
        (
            TrainingConfig,
            {"demonstration_share": 0.001},
            "demonstration_share must be 0, or between 1 and 255 of the 256 transitions; got 0.001",
        ),
        (
            TrainingConfig,
            {"demonstration_share": 0.95, "batch_size": 8},
            "demonstration_share must be 0, or between 1 and 7",
        ),
        (TrainingConfig, {"demonstrations_teach": "all"}, "must be 'critics' without a demonstrat"),
        (TrainingConfig, {"offline_updates": 10}, "offline_updates must be 0 without prefill_rep"),
        (
            TrainingConfig,
            {
                "offline_updates": 10,
                "prefill_replay": True,
                "num_env_steps": 0,
                "critic_warmup_steps": 1000,
            },
            "critic_warmup_steps must be 0 with offline_updates alone",
        ),
        (
            TrainingConfig,
            {"num_env_steps": 2000, "critic_warmup_steps": 4000},
            r"critic_warmup_steps must be below num_env_steps \(2000\).*; got 4000",
        ),
        (TrainingConfig, {"num_environments": 7}, r"multiple of num_environments \(7\)"),
        *(
            (TrainingConfig, {name: 1500}, rf"{name} must be a multiple of steps_per_epoch \(1000")
            for name in ("eval_interval", "checkpoint_interval", "critic_warmup_steps")
        ),
        (TrainingConfig, {"replay_capacity": 999}, r"at least steps_per_epoch \(1000\); got 999"),
        (
            RunConfig,
            {"agent": AgentConfig(algorithm="cloning")},
            "pretraining_steps must be 0 with algorithm cloning",
        ),
        (
            RunConfig,
            {"agent": AgentConfig(algorithm="cloning"), "prior": PriorConfig(prior="uniform")},
            "prior must be one that is fitted with algorithm cloning, .*; got 'uniform'",
        ),
        (RunConfig, {"demonstrations": ""}, "demonstrations must be named"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(part, values, message):
    with pytest.raises(UserError, match=message):
        part(**values)


def test_a_run_survives_json():
    config = RunConfig(
        task="door-binary",
        prior=PriorConfig(kernel="rbf", scale_floor=0.1, network_layers=(64, 32)),
        agent=AgentConfig(actor_layers=(32, 16), divergence="closed_form"),
        training=TrainingConfig(seed=4),
    )
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"prior": {}, "agent": {}},
        {"prior": {"colour": "red"}, "agent": {}, "training": {}},
        {"prior": {}, "agent": {}, "training": {}, "more": 1},
        {"prior": None, "agent": None, "training": None},
        {"prior": {}, "agent": [], "training": {}},
    ],
)
def test_the_configuration_of_something_else_is_refused(values):
    with pytest.raises(UserError, match="not the configuration of a run"):
        RunConfig.from_dict(values)


@pytest.mark.parametrize("part", [None, "prior", "agent", "training"])
def test_a_configuration_that_lacks_a_field_is_refused(part):
    values = RunConfig().to_dict()
    (values[part] if part else values).popitem()
    with pytest.raises(UserError, match="not the configuration of a run"):
        RunConfig.from_dict(values)


def test_an_unscaled_configuration_differs_in_the_scale_alone():
    plain = PriorConfig(kernel="rbf").unscaled()
    for change in ({"fixed_scale": 0.1}, {"scale_factor": 0.3, "scale_floor": 0.1}):
        assert PriorConfig(kernel="rbf", **change).unscaled() == plain


def test_half_of_the_environments_are_greedy():
    assert TrainingConfig(num_environments=5).greedy_environments == 2
    assert TrainingConfig(num_greedy_environments=0).greedy_environments == 0


@pytest.mark.parametrize(
    ("num_env_steps", "warmup", "averaging"),
    [
        (0, 0, 1),
        (1000, 0, 40),
        (5000, 2000, 200),
        (20_000, 4000, 800),
        (100_000, 4000, 4000),
    ],
)
def test_schedules_are_shares_of_the_run(num_env_steps, warmup, averaging):
    config = TrainingConfig(num_env_steps=num_env_steps)
    assert (config.warmup_steps, config.averaged_updates) == (warmup, averaging)


def test_schedules_that_are_given_are_kept():
    config = TrainingConfig(critic_warmup_steps=0, policy_averaging=9)
    assert (config.warmup_steps, config.averaged_updates) == (0, 9)
    assert TrainingConfig(policy_averaging=0).averaged_updates == 1
