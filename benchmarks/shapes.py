"""The two problem sizes that updates are timed on, and the operations of one update."""

import dataclasses
import itertools
from collections.abc import Sequence

CHUNK = 50  # Updates between two looks at the clock.
NUM_TRANSITIONS = 100_000  # In the replay.
TEMPERATURE = 0.1


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a soft actor-critic with two critics and a target for each."""

    observation_size: int
    action_size: int
    batch_size: int
    actor_layers: tuple[int, ...]
    critic_layers: tuple[int, ...]
    squash: bool

    @property
    def update_flops(self) -> int:
        """Floating-point operations of the matrix products of one update at a fixed temperature.

        A product [B, n] x [n, m] takes 2 B n m; biases, activations, densities, Adam and target
        updates are not counted. With F the sum of n m over a network's layers and F1 that of its
        first layer, a row of the batch costs, in multiply-adds:

            critics   actor at s' (F), two targets and two critics forward (4 F'), gradients for
                      their weights (2 F') and for all inputs but the first layer's (2 (F' - F1'));
            actor     actor and two critics forward (F + 2 F'), back to the action
                      (2 (F' - F1' + A h)), gradients for the actor's weights and inputs
                      (F + F - F1),

        which sums to 4 F - F1 + 12 F' - 4 F1' + 2 A h, with F of the actor, F' of a critic, and h
        the units of a critic's first layer.
        """
        actor = (self.observation_size, *self.actor_layers, 2 * self.action_size)
        critic = (self.observation_size + self.action_size, *self.critic_layers, 1)
        per_row = (
            4 * _multiply_adds(actor)
            - _multiply_adds(actor[:2])
            + 12 * _multiply_adds(critic)
            - 4 * _multiply_adds(critic[:2])
            + 2 * self.action_size * self.critic_layers[0]
        )
        return 2 * self.batch_size * per_row


def _multiply_adds(sizes: Sequence[int]) -> int:
    return sum(before * after for before, after in itertools.pairwise(sizes))


SHAPES = {
    "A": Shape(17, 6, 256, (256, 256), (256, 256), squash=True),
    "B": Shape(45, 24, 1024, (256, 256, 256, 256), (256, 256), squash=False),
}
