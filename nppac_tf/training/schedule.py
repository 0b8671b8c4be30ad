"""What changes over a run: warm-up, temperature or target KL, averaging."""

import dataclasses
import math
from typing import Self

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import TrainingConfig

_FIRST_TARGET_KL = 0.05
_TARGET_KL_GROWTH = 1.3


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What changes over a run, fixed when it starts: a longer resumed run keeps it.

    Attributes:
        warmup: Environment steps before the actor learns.
        annealing: Environment steps from there until alpha is at its final value, or None where
            alpha follows the episodes (`guard`).
        averaging: Updates over which the evaluated policy averages the actor's weights.
        first_temperature: Alpha until the actor learns.
        final_temperature: Alpha at the end, never above the first.
    """

    warmup: int
    annealing: int | None
    averaging: int
    first_temperature: float
    final_temperature: float

    @classmethod
    def of(cls, config: TrainingConfig, temperature: float) -> Self:
        """The schedule of a run that starts with an agent's alpha."""
        return cls(
            config.warmup_steps,
            config.annealing_steps,
            config.averaged_updates,
            temperature,
            min(config.final_temperature or temperature, temperature),
        )

    def anchor(
        self, agent: NppacAgent, guarded: float, env_steps: int, steps_of_episodes: int
    ) -> None:
        """Sets the agent's alpha, or the mean KL that it tunes alpha to.

        Args:
            agent: The actor learns.
            guarded: Alpha where there is no schedule for it.
            env_steps: Environment steps so far.
            steps_of_episodes: Environment steps of one episode in all environments.
        """
        if not agent.kl_regularized:
            return
        if agent.target_kl is not None:
            agent.allow_kl(self.target_kl(agent.target_kl, env_steps, steps_of_episodes))
        elif not agent.tunes_temperature:
            scheduled = self.annealing is not None
            agent.temperature = self.temperature(env_steps) if scheduled else guarded

    def temperature(self, env_steps: int) -> float:
        """Alpha after a number of environment steps: geometric from first to final."""
        assert self.annealing is not None
        share = min(max(env_steps - self.warmup, 0) / max(1, self.annealing), 1.0)
        return self.first_temperature ** (1.0 - share) * self.final_temperature**share

    def target_kl(self, largest: float, env_steps: int, steps_of_episodes: int) -> float:
        """Mean KL in nats that the policy may have: little at first, more with each episode.

        What a task tolerates is learned in episodes, not in steps: 1,000 steps are ten episodes of
        the pen and one of HalfCheetah.

        Args:
            largest: The end of its growth.
            env_steps: Environment steps so far.
            steps_of_episodes: Environment steps of one episode in all environments.
        """
        episodes = max(env_steps - self.warmup, 0) / steps_of_episodes
        growth = min(episodes * math.log(_TARGET_KL_GROWTH), math.log(largest / _FIRST_TARGET_KL))
        return min(largest, _FIRST_TARGET_KL * math.exp(growth))
