"""Learning, not only running: from near the demonstrators to clearly beyond them."""

import fakes
import pytest

from nppac_tf import priors
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, PriorConfig, TrainingConfig
from nppac_tf.training import loop

HORIZON = 40


@pytest.mark.parametrize(
    ("prior", "actor"),
    [("gp", "anchored"), pytest.param("sparse_gp", "network", marks=pytest.mark.slow)],
)
def test_the_agent_starts_near_the_demonstrators_and_beats_them(prior, actor):
    with fakes.point_task(HORIZON) as task:
        # At a third of the possible speed: about two thirds of an episode are spent on the way.
        demonstrations, demonstrated_return = fakes.point_demonstrations(
            task, num_episodes=12, speed=0.35, noise=0.2
        )
        fitted = priors.fit_prior(demonstrations, PriorConfig(prior=prior, num_inducing_points=60))
        config = AgentConfig(
            actor=actor, actor_layers=(32, 32), critic_layers=(32, 32), num_critics=2
        )
        rows = loop.train(
            NppacAgent.for_task(task, fitted, config, seed=0),
            task,
            demonstrations,
            config=TrainingConfig(
                num_env_steps=3200,
                num_environments=10,
                steps_per_epoch=400,
                batch_size=64,
                pretraining_steps=1000,
                pretraining_batch_size=64,
                critic_warmup_steps=400,
                annealing_steps=1200,
                final_temperature=0.01,
                eval_interval=3200,
                eval_episodes=20,
            ),
        )
    first, last = rows[0]["eval/return"], rows[-1]["eval/return"]
    assert abs(first - demonstrated_return) < 0.25 * demonstrated_return
    assert first > 0.8 * rows[0]["prior/return"]
    assert last > 1.4 * demonstrated_return
    assert rows[-1]["eval/any_success"] == 1
