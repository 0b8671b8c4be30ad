"""Learning, not only running: from near the demonstrators to clearly beyond them."""

import fakes

from nppac_tf import priors
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, PriorConfig, TrainingConfig
from nppac_tf.priors import SparseGPPrior
from nppac_tf.training import loop

HORIZON = 40


def test_the_agent_starts_near_the_demonstrators_and_beats_them():
    with fakes.point_task(HORIZON) as task:
        # At a third of the possible speed: about two thirds of an episode are spent on the way.
        demonstrations, demonstrated_return = fakes.point_demonstrations(
            task, num_episodes=12, speed=0.35, noise=0.2
        )
        prior = priors.fit_prior(
            demonstrations,
            PriorConfig(prior="sparse_gp", num_inducing_points=60, max_fit_iterations=20),
        )
        assert isinstance(prior, SparseGPPrior)
        agent = NppacAgent.for_task(
            task,
            prior,
            AgentConfig(
                actor_layers=(64, 64),
                critic_layers=(64, 64),
                temperature=0.05,
            ),
            seed=0,
        )
        rows = loop.train(
            agent,
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
                eval_interval=400,
                eval_episodes=20,
            ),
        )
    first, last = rows[0]["eval/return"], rows[-1]["eval/return"]
    assert abs(first - demonstrated_return) < 0.25 * demonstrated_return
    assert last > 1.5 * demonstrated_return
    assert rows[-1]["eval/any_success"] == 1
