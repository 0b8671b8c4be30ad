import dataclasses
import json

import pytest

from nppac_tf.config import AgentConfig, PriorConfig, RunConfig, TrainingConfig
from nppac_tf.errors import UserError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PriorConfig(prior="neural"),
            "prior must be one of gp, sparse_gp, exact_gp, gaussian_network, ensemble, "
            "bayesian_network, dropout, uniform; got 'neural'",
        ),
        (lambda: PriorConfig(kernel="cosine"), "kernel must be one of rbf, .*; got 'cosine'"),
        (lambda: PriorConfig(action_lookahead=-1), "action_lookahead must be at least 0; got -1"),
        (lambda: PriorConfig(num_inducing_points=0), "num_inducing_points must be at least 1"),
        (
            lambda: PriorConfig(scale_factor=0.0),
            "scale_factor must be positive and finite; got 0.0",
        ),
        (
            lambda: PriorConfig(scale_floor=-1.0),
            "scale_floor must be finite and at least 0; got -1.0",
        ),
        (lambda: PriorConfig(fixed_scale=0.0), "fixed_scale must be positive and finite; got 0.0"),
        (
            lambda: PriorConfig(fixed_scale=0.1, scale_factor=0.5),
            "fixed_scale must be none with a scale_factor or scale_floor, .*; got 0.1",
        ),
        (lambda: PriorConfig(fixed_scale=0.1, scale_floor=0.2), "fixed_scale must be none with"),
        (lambda: PriorConfig(network_layers=()), "network_layers must be one or more positive"),
        (lambda: PriorConfig(network_epochs=0), "network_epochs must be at least 1; got 0"),
        (lambda: PriorConfig(weight_decay=-1.0), "weight_decay must be finite and at least 0"),
        (lambda: PriorConfig(entropy_bonus=1.0), r"entropy_bonus must be in \[0, 1\); got 1.0"),
        (lambda: PriorConfig(early_stopping_patience=-1), "patience must be at least 0; got -1"),
        (lambda: PriorConfig(validation_fraction=0.0), r"must be in \(0, 1\); got 0.0"),
        (lambda: PriorConfig(ensemble_size=0), "ensemble_size must be at least 1; got 0"),
        (lambda: PriorConfig(num_network_samples=0), "num_network_samples must be at least 1"),
        (lambda: PriorConfig(dropout_rate=1.0), r"dropout_rate must be in \(0, 1\); got 1.0"),
        (lambda: PriorConfig(prior_seed=-1), "prior_seed must be at least 0; got -1"),
        (lambda: AgentConfig(actor_layers=()), "actor_layers must be one or more positive"),
        (lambda: AgentConfig(critic_layers=(8, 0)), r"critic_layers must be .*; got \(8, 0\)"),
        (lambda: AgentConfig(divergence="closed_form", squash=True), "needs --nosquash"),
        (lambda: AgentConfig(temperature=0.0), "temperature must be positive and finite; got 0.0"),
        (lambda: AgentConfig(target_kl=-1.0), "target_kl must be positive and finite; got -1.0"),
        (lambda: AgentConfig(discount=1.0), r"discount must be in \[0, 1\); got 1.0"),
        (lambda: AgentConfig(num_critics=1), "num_critics must be at least 2; got 1"),
        (
            lambda: AgentConfig(num_critics=5, num_target_critics=6),
            r"num_target_critics must be none, or from 1 to num_critics \(5\); got 6",
        ),
        (lambda: AgentConfig(num_target_critics=0), "num_target_critics must be none, or from 1"),
        (lambda: AgentConfig(final_temperature=0.0), "final_temperature must be positive"),
        (lambda: AgentConfig(annealing_updates=0), "annealing_updates must be at least 1; got 0"),
        (
            lambda: AgentConfig(algorithm="awac", target_kl=1.0, final_temperature=None),
            "target_kl must be none with algorithm awac; got 1.0",
        ),
        (lambda: AgentConfig(precision="half"), "precision must be one of float32, bfloat16, auto"),
        (lambda: TrainingConfig(policy_interval=0), "policy_interval must be at least 1; got 0"),
        (
            lambda: TrainingConfig(num_environments=3, num_greedy_environments=3),
            r"num_greedy_environments must be none, or .* below num_environments \(3\), .*; got 3",
        ),
        (
            lambda: TrainingConfig(num_greedy_environments=-1),
            "num_greedy.* must be .* at least 0 .*; got -1",
        ),
        (
            lambda: TrainingConfig(exploration_spread=0.5),
            "exploration_spread must be finite and at least 1; got 0.5",
        ),
        (lambda: TrainingConfig(n_step=0), "n_step must be at least 1; got 0"),
        (
            lambda: TrainingConfig(demonstration_share=0.001),
            "demonstration_share must be 0, or between 1 and 255 of the 256 transitions; got 0.001",
        ),
        (
            lambda: TrainingConfig(demonstration_share=0.95, batch_size=8),
            "demonstration_share must be 0, or between 1 and 7",
        ),
        (
            lambda: TrainingConfig(demonstrations_teach="all"),
            "demonstrations_teach must be 'critics' without a demonstration_share",
        ),
        (
            lambda: TrainingConfig(offline_updates=10),
            "offline_updates must be 0 without prefill_replay, .*; got 10",
        ),
        (
            lambda: TrainingConfig(
                offline_updates=10, prefill_replay=True, num_env_steps=0, critic_warmup_steps=1000
            ),
            "critic_warmup_steps must be 0 with offline_updates alone",
        ),
        (
            lambda: RunConfig(agent=AgentConfig(algorithm="cloning", final_temperature=None)),
            "pretraining_steps must be 0 with algorithm cloning",
        ),
        (
            lambda: RunConfig(
                prior=PriorConfig(prior="uniform"),
                agent=AgentConfig(algorithm="cloning", final_temperature=None),
                training=TrainingConfig(pretraining_steps=0),
            ),
            "prior must be one that is fitted with algorithm cloning, .*; got 'uniform'",
        ),
        (lambda: AgentConfig(target_update_rate=0.0), r"must be in \(0, 1\]; got 0.0"),
        (lambda: TrainingConfig(batch_size=0), "batch_size must be at least 1; got 0"),
        (lambda: TrainingConfig(seed=-1), "seed must be at least 0; got -1"),
        (
            lambda: TrainingConfig(updates_per_step=float("nan")),
            "updates_per_step must be positive",
        ),
        (lambda: TrainingConfig(num_environments=7), r"multiple of num_environments \(7\)"),
        (lambda: TrainingConfig(eval_interval=1500), r"multiple of steps_per_epoch \(1000\)"),
        (lambda: TrainingConfig(checkpoint_interval=1500), r"multiple of steps_per_epoch \(1000\)"),
        (
            lambda: TrainingConfig(replay_capacity=999),
            r"at least steps_per_epoch \(1000\); got 999",
        ),
        (lambda: TrainingConfig(xla="maybe"), "xla must be one of auto, on, off; got 'maybe'"),
        (lambda: RunConfig(reward="dense"), "reward must be one of binary, negative; got 'dense'"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_run_survives_json():
    config = RunConfig(
        task="door-binary",
        prior=PriorConfig(kernel="rbf", scale_floor=0.1, network_layers=(64, 32)),
        agent=AgentConfig(actor_layers=(32, 16), squash=False, divergence="closed_form"),
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


@pytest.mark.parametrize("config", [PriorConfig, AgentConfig, TrainingConfig, RunConfig])
def test_every_value_has_a_help_and_cannot_be_changed(config):
    instance = config()
    for field in dataclasses.fields(config):
        if not dataclasses.is_dataclass(getattr(instance, field.name)):
            assert field.metadata["help"].endswith(".")
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(instance, name, None)


@pytest.mark.parametrize("part", [None, "prior", "agent", "training"])
def test_a_configuration_that_lacks_a_field_is_refused(part):
    values = RunConfig().to_dict()
    (values[part] if part else values).popitem()
    with pytest.raises(UserError, match="not the configuration of a run"):
        RunConfig.from_dict(values)


def test_a_warm_up_must_end():
    with pytest.raises(UserError, match=r"below num_env_steps \(2000\).*; got 4000"):
        TrainingConfig(num_env_steps=2000, critic_warmup_steps=4000)
    with pytest.raises(UserError, match="a multiple of steps_per_epoch"):
        TrainingConfig(critic_warmup_steps=1500)
    assert TrainingConfig(num_env_steps=0, critic_warmup_steps=4000).num_env_steps == 0


def test_an_unscaled_configuration_differs_in_the_rescaling_alone():
    assert PriorConfig(kernel="rbf", fixed_scale=0.1).unscaled() == PriorConfig(kernel="rbf")
    rescaled = PriorConfig(kernel="rbf", scale_factor=0.3, scale_floor=0.1)
    assert rescaled.unscaled() == PriorConfig(kernel="rbf")


def test_half_of_the_environments_are_greedy():
    assert TrainingConfig(num_environments=5).greedy_environments == 2
    assert dataclasses.replace(TrainingConfig(), num_environments=4).greedy_environments == 2
    assert TrainingConfig(num_greedy_environments=0).greedy_environments == 0
