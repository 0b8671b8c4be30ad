import pytest

from nppac_tf.config import PRIORS, AgentConfig, PriorConfig, RunConfig, TrainingConfig
from nppac_tf.runs.unused_settings import unused_settings

NETWORK = {"actor": "network"}


def unused(prior=None, agent=None, training=None):
    return unused_settings(
        RunConfig(
            prior=PriorConfig(**(prior or {})),
            agent=AgentConfig(**(agent or {})),
            training=TrainingConfig(**(training or {})),
        )
    )


@pytest.mark.parametrize(
    ("prior", "names"),
    [
        ({"prior": "uniform", "scale_factor": 0.7, "kernel": "rbf"}, ["kernel", "scale_factor"]),
        ({"prior": "gp", "scale_factor": 0.7, "kernel": "rbf", "num_neighbors": 9}, []),
        ({"prior": "gp", "num_inducing_points": 9}, ["num_inducing_points"]),
        ({"prior": "sparse_gp", "num_inducing_points": 9, "ensemble_size": 2}, ["ensemble_size"]),
        ({"prior": "ensemble", "ensemble_size": 2, "network_epochs": 3}, []),
        ({"prior": "dropout", "kernel": "rbf", "dropout_rate": 0.2}, ["kernel"]),
    ],
)
def test_settings_that_a_prior_ignores(prior, names):
    assert [flag.split("=")[0] for flag in unused(prior)] == [f"--{name}" for name in names]


@pytest.mark.parametrize(
    ("agent", "training", "flags"),
    [
        ({"temperature": 1.0}, {"final_temperature": 0.1}, []),
        (
            {"target_kl": 5.0},
            {"final_temperature": 0.3, "annealing_steps": 9},
            ["--final_temperature=0.3", "--annealing_steps=9"],
        ),
        (
            {},
            {"final_temperature": None, "annealing_steps": 9},
            ["--annealing_steps=9"],
        ),
        ({}, {"final_temperature": 0.3, "annealing_steps": 9}, []),
        ({}, {"temperature_decay": 0.1}, []),
        ({}, {"temperature_decay": 0.1, "annealing_steps": 9}, ["--temperature_decay=0.1"]),
        ({"algorithm": "awac", "kl_in_target": False}, {}, ["--kl_in_target=False"]),
        ({"algorithm": "awac", "num_critics": 2}, {"pretraining_steps": 9}, []),
        ({}, {"pretraining_steps": 9}, ["--pretraining_steps=9"]),
        (NETWORK, {"pretraining_steps": 9}, []),
        (
            {},
            {"num_greedy_environments": 9, "exploration_spread": 2.0},
            ["--exploration_spread=2.0"],
        ),
    ],
)
def test_settings_that_agent_and_loop_ignore(agent, training, flags):
    assert unused(agent=agent, training=training) == flags


def test_a_network_actor_is_not_pretrained_to_a_uniform_prior():
    flags = unused({"prior": "uniform"}, NETWORK, {"pretraining_steps": 9})
    assert flags == ["--pretraining_steps=9"]


def test_cloning_uses_the_prior_and_the_evaluation_alone():
    assert unused(
        {"scale_floor": 0.1},
        {"algorithm": "cloning", "actor_layers": (8, 8)},
        {"pretraining_steps": 0, "n_step": 1, "eval_episodes": 7, "seed": 3},
    ) == ["--actor_layers=8,8", "--n_step=1", "--pretraining_steps=0"]


@pytest.mark.parametrize("prior", PRIORS)
def test_no_default_is_reported(prior):
    assert unused({"prior": prior}) == []
