import dataclasses

import pytest

from nppac_tf.config import AgentConfig, PriorConfig, RunConfig, TrainingConfig
from nppac_tf.runs.unused_settings import unused_settings


def configuration(prior=None, agent=None, training=None):
    return RunConfig(
        prior=PriorConfig(**(prior or {})),
        agent=AgentConfig(**(agent or {})),
        training=TrainingConfig(**(training or {})),
    )


@pytest.mark.parametrize(
    ("prior", "told"),
    [
        ({"prior": "uniform", "scale_factor": 0.7, "kernel": "rbf"}, ["kernel", "scale_factor"]),
        ({"prior": "exact_gp", "scale_factor": 0.7, "kernel": "rbf"}, []),
        ({"prior": "exact_gp", "num_inducing_points": 9}, ["num_inducing_points"]),
        ({"prior": "gp", "num_inducing_points": 9, "ensemble_size": 2}, ["ensemble_size"]),
        ({"prior": "ensemble", "ensemble_size": 2, "weight_decay": 0.1}, []),
        ({"prior": "bayesian_network", "weight_decay": 0.1}, ["weight_decay"]),
        ({"prior": "dropout", "kernel": "rbf", "dropout_rate": 0.2}, ["kernel"]),
        ({"prior": "ensemble", "validation_fraction": 0.3}, ["validation_fraction"]),
        (
            {"prior": "ensemble", "validation_fraction": 0.3, "early_stopping_patience": 5},
            [],
        ),
    ],
)
def test_what_a_prior_does_not_use(prior, told):
    found = unused_settings(configuration(prior))
    assert [flag.split("=")[0] for flag in found] == [f"--{name}" for name in told]


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        ({"temperature": 1.0, "final_temperature": 0.1}, []),
        (
            {"target_kl": 5.0, "final_temperature": 0.1, "annealing_updates": 9},
            ["--final_temperature=0.1", "--annealing_updates=9"],
        ),
        ({"final_temperature": None}, []),
        ({"algorithm": "awac", "kl_in_target": False}, ["--kl_in_target=False"]),
        ({"algorithm": "awac", "temperature": 1.0, "num_critics": 2}, []),
    ],
)
def test_what_an_agent_does_not_use(agent, told):
    assert unused_settings(configuration(agent=agent)) == told


def test_cloning_uses_the_prior_and_the_evaluation_alone():
    config = configuration(
        {"scale_floor": 0.1},
        {"algorithm": "cloning", "actor_layers": (8, 8)},
        {"pretraining_steps": 0, "n_step": 1, "eval_episodes": 7, "seed": 3},
    )
    assert unused_settings(config) == [
        "--actor_layers=8,8",
        "--n_step=1",
        "--pretraining_steps=0",
    ]


def test_what_the_loop_does_not_use():
    told = unused_settings(
        configuration(training={"num_greedy_environments": 9, "exploration_spread": 2.0})
    )
    assert told == ["--exploration_spread=2.0"]
    uniform = configuration({"prior": "uniform"}, training={"pretraining_noise": 0.2})
    assert unused_settings(uniform) == ["--pretraining_noise=0.2"]


def test_the_defaults_are_all_of_effect():
    assert unused_settings(RunConfig()) == []
    for prior in ("exact_gp", "ensemble"):
        config = RunConfig(prior=dataclasses.replace(PriorConfig(), prior=prior))
        assert unused_settings(config) == []
