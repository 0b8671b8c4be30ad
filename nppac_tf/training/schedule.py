"""What changes over a run: warm-up, temperature, averaging."""

import dataclasses
from typing import Self

from nppac_tf.config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What changes over a run, fixed when it starts: a longer resumed run keeps it.

    Attributes:
        warmup: Environment steps before the actor learns.
        annealing: Environment steps from there until alpha is at its final value.
        averaging: Updates over which the evaluated policy averages the actor's weights.
        first_temperature: Alpha until the actor learns.
        final_temperature: Alpha at the end.
    """

    warmup: int
    annealing: int
    averaging: int
    first_temperature: float
    final_temperature: float

    @classmethod
    def of(cls, config: TrainingConfig, temperature: float) -> Self:
        """The schedule of a run that starts with an agent's alpha."""
        return cls(
            config.warmup_steps,
            config.annealed_steps,
            config.averaged_updates,
            temperature,
            config.final_temperature or temperature,
        )

    def temperature(self, env_steps: int) -> float:
        """Alpha after a number of environment steps: geometric from first to final."""
        share = min(max(env_steps - self.warmup, 0) / self.annealing, 1.0)
        return self.first_temperature ** (1.0 - share) * self.final_temperature**share
