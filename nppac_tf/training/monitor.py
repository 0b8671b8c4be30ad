"""Watches a run for the pathology that the paper describes, and reports when it is under way.

A prior whose scale collapses away from the demonstrations makes the KL term, and its gradient,
explode there (Proposition 1: as one over the squared scale). The signs are the prior's scale where
the agent goes, against that on the demonstrations; the KL in each action component; and the part of
the actor's gradient that comes from the prior.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from nppac_tf import divergences
from nppac_tf.agents.batch import States
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.seeding import derive_seed
from nppac_tf.training.replay import Replay

MONITOR_COLUMNS = (
    "monitor/prior_scale_demonstrations",
    "monitor/prior_scale_visited",
    "monitor/narrow_share",
    "monitor/prior_gradient_norm",
    "monitor/value_gradient_norm",
)
_NUM_STATES = 1024
_NARROW = 0.01
_MANY_NATS = 10.0
_DOMINANCE = 10.0
_PATIENCE = 3
_TINY = float(np.finfo(np.float32).tiny)


class Monitor:
    """Measures a run's health on a sample of the replay, once per epoch.

    Args:
        agent: With an informative prior.
        replay: Where the visited states are drawn from.
        demonstrations: States [N, D] of demonstrations; None if there are none to compare with.
        notice: Called once, if the KL term takes over.
        seed: Seed of the samples; they depend on it and on the agent's step counter alone.

    Attributes:
        dominated_epochs: Successive epochs, up to now, in which the KL term had taken over; what a
            monitor needs to continue after an interruption.
    """

    def __init__(
        self,
        agent: NppacAgent,
        replay: Replay,
        demonstrations: np.ndarray | None,
        notice: Callable[[str], None],
        seed: int,
    ) -> None:
        self._agent = agent
        self._replay = replay
        self._notice = notice
        self._seed = derive_seed(seed, "monitor")
        spec = agent.action_spec
        self._half_range = np.broadcast_to((spec.maximum - spec.minimum) / 2, spec.shape)
        self._demonstration_scale = float("nan")
        if demonstrations is not None:
            chosen = np.linspace(0, len(demonstrations) - 1, _NUM_STATES).astype(int)
            scale = agent.prior.statistics(tf.constant(demonstrations[np.unique(chosen)])).scale
            self._demonstration_scale = float(np.median(scale))
        self.dominated_epochs = 0
        self._measure = tf.function(self._measurements, autograph=False)

    def measure(self) -> dict[str, float]:
        """Figures of this moment.

        Returns:
            `MONITOR_COLUMNS` and "monitor/kl_I" for each action component I:

            - prior_scale_demonstrations, prior_scale_visited: median scale of pi0, in the
              action's units, on demonstrations and on states in the replay;
            - narrow_share: of action components of visited states, those in which pi0's scale is
              below 1 % of half the action's range;
            - prior_gradient_norm, value_gradient_norm: norms of the parts of the actor's gradient,
              of alpha KL and of minus Q;
            - kl_I: mean KL from the prior in that component, in nats.
        """
        seed = tf.stack([self._seed, tf.cast(self._agent.train_step_counter, tf.int32)])
        scale, divergence, prior_norm, value_norm = self._measure(seed)
        figures = {
            "monitor/prior_scale_demonstrations": self._demonstration_scale,
            "monitor/prior_scale_visited": float(np.median(scale)),
            "monitor/narrow_share": float(np.mean(scale / self._half_range < _NARROW)),
            "monitor/prior_gradient_norm": float(prior_norm),
            "monitor/value_gradient_norm": float(value_norm),
            **{f"monitor/kl_{i}": float(nats) for i, nats in enumerate(divergence)},
        }
        self._judge(figures, float(np.mean(divergence)))
        return figures

    def _measurements(self, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        batch = self._replay.sample(_NUM_STATES, seed)
        prior_gradient, value_gradient = self._agent.gradient_parts(batch.states, seed)
        divergence = kl_by_component(self._agent, batch.states, seed)
        return (
            batch.prior.scale,
            tf.reduce_mean(divergence, axis=0),
            tf.linalg.global_norm(prior_gradient),
            tf.linalg.global_norm(value_gradient),
        )

    def _judge(self, figures: dict[str, float], nats: float) -> None:
        """Collapse: many nats per component, and a gradient that is the prior's alone, for long."""
        prior_norm = figures["monitor/prior_gradient_norm"]
        dominated = prior_norm > _DOMINANCE * figures["monitor/value_gradient_norm"]
        self.dominated_epochs = self.dominated_epochs + 1 if dominated and nats > _MANY_NATS else 0
        if self.dominated_epochs == _PATIENCE:
            visited = figures["monitor/prior_scale_visited"]
            ratio = prior_norm / max(figures["monitor/value_gradient_norm"], _TINY)
            self._notice(
                f"the KL term has taken over: {nats:,.0f} nats per action component, and "
                f"{ratio:,.3g} times the gradient of the Q values. The prior's scale is "
                f"{visited:.2g} where the agent goes, {self._demonstration_scale:.2g} on "
                "demonstrations. Try a "
                "larger --scale_floor, a smaller --temperature, or a Gaussian-process prior"
            )


def kl_by_component(agent: NppacAgent, states: States, seed: tf.Tensor) -> tf.Tensor:
    """KL from the prior in each action component [B, A], in nats; the sum is the KL.

    In closed form where the policy is Gaussian, else an estimate from one sample.

    Args:
        agent: With an informative prior.
        states: B states with pi0's statistics.
        seed: [2] int, stateless.
    """
    policy = agent.policy_distribution(states)
    if isinstance(policy, tfp.distributions.MultivariateNormalDiag):
        parts = (policy.mean(), policy.stddev(), *states.prior)
        return divergences.gaussian_kl(*(part[..., tf.newaxis] for part in parts))
    actions = policy.sample(seed=seed)
    location, scale = (part[..., tf.newaxis] for part in states.prior)
    prior_log_prob = divergences.gaussian_log_prob(actions[..., tf.newaxis], location, scale)
    return policy.log_prob_by_component(actions) - prior_log_prob
