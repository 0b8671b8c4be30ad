"""The baselines learn: a known answer, from demonstrations at a third of the possible speed."""

import fakes
import pytest

from nppac_tf import priors
from nppac_tf.agents.factory import make_agent
from nppac_tf.config import AgentConfig, PriorConfig, TrainingConfig
from nppac_tf.priors import UniformPrior
from nppac_tf.training import loop as training

HORIZON = 40
SMALL = {
    "actor_layers": (64, 64),
    "critic_layers": (64, 64),
    "actor": "network",
    "squash": True,
    "critic_layer_norm": False,
    "num_critics": 2,
    "discount": 0.95,
    "target_update_rate": 0.005,
}
LOOP = {
    "num_env_steps": 3200,
    "num_environments": 10,
    "steps_per_epoch": 400,
    "batch_size": 64,
    "pretraining_steps": 0,
    "critic_warmup_steps": 0,
    "n_step": 1,
    "num_greedy_environments": 0,
    "exploration_spread": 1.0,
    "final_temperature": None,
    "policy_averaging": 0,
    "eval_interval": 3200,
    "eval_episodes": 20,
}


@pytest.fixture(scope="module")
def expert():
    """The task, demonstrations, and what they returned."""
    with fakes.point_task(HORIZON) as task:
        yield task, *fakes.point_demonstrations(task, num_episodes=12, speed=0.35, noise=0.2)


def returns(task, demonstrations, prior, agent, loop):
    learner = make_agent(task, prior, AgentConfig(**(SMALL | agent)), seed=0)
    rows = training.train(learner, task, demonstrations, config=TrainingConfig(**(LOOP | loop)))
    return [row["eval/return"] for row in rows]


@pytest.mark.parametrize(
    ("agent", "loop"),
    [
        pytest.param({"target_kl": 1.0, "temperature": 0.2}, {"prefill_replay": True}, id="SACfD"),
        pytest.param(
            {
                "critic_layer_norm": True,
                "num_critics": 5,
                "num_target_critics": 2,
                "actor_value": "mean",
                "kl_in_target": False,
                "target_kl": 1.0,
                "temperature": 0.2,
            },
            {
                "demonstration_share": 0.5,
                "demonstrations_teach": "all",
                "updates_per_step": 2,
                "policy_interval": 2,
                "num_env_steps": 2000,
                "eval_interval": 2000,
            },
            id="RLPD",
        ),
        pytest.param(
            {"algorithm": "awac", "squash": False, "temperature": 0.3},
            {"prefill_replay": True, "offline_updates": 1500},
            id="AWAC",
        ),
    ],
)
def test_it_comes_to_beat_the_demonstrators(expert, agent, loop):
    task, demonstrations, demonstrated = expert
    first, last = returns(task, demonstrations, UniformPrior(2, 2), agent, loop)
    assert last > 1.3 * demonstrated
    assert last > first


@pytest.mark.parametrize("name", ["gaussian_network", "gp"])
def test_a_clone_is_about_as_good_as_the_demonstrators(expert, name):
    task, demonstrations, demonstrated = expert
    prior = priors.fit_prior(demonstrations, PriorConfig(prior=name, network_epochs=200))
    (result,) = returns(task, demonstrations, prior, {"algorithm": "cloning"}, {"num_env_steps": 0})
    assert abs(result - demonstrated) < 0.3 * demonstrated
