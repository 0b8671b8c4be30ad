"""Alpha follows the training episodes: it falls while they go as well as before."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_WINDOW = 20  # Episodes that say how the policy does now.
_LARGEST = 1.0  # Up to which alpha may rise, or up to its start if that is larger.
_ROUNDING = 1e-9


class TemperatureGuard:
    """Lowers alpha with the greedy training episodes, and raises it when the skill is lost.

    The skill is lost when the latest episodes score less than all episodes so far do in the mean,
    by more than the standard error of the latest. That mean begins with the prior's own episodes
    and follows the policy slowly, so that what was learned is guarded too. Alpha rises twice as
    fast as it falls. What a task tolerates is thus learned in episodes, and from the training
    episodes alone: 1,000 steps are ten episodes of the pen and one of HalfCheetah.

    Args:
        first: First alpha. It may rise up to 1, or to `first` if that is larger.
        smallest: Smallest alpha, positive; None: alpha stays.
        decay: Fall of log alpha per episode of full length.
    """

    def __init__(self, first: float, smallest: float | None, decay: float) -> None:
        self._decay = decay
        self._log_alpha = math.log(first)
        self._bounds = (self._log_alpha, self._log_alpha)
        if smallest is not None:
            self._bounds = math.log(min(smallest, first)), math.log(max(_LARGEST, first))
        self._scores: list[float] = []

    @property
    def temperature(self) -> float:
        """Alpha."""
        return math.exp(self._log_alpha)

    @property
    def lost(self) -> bool:
        """Whether the latest episodes are worse than those so far."""
        if len(self._scores) < 2:
            return False
        latest = np.array(self._scores[-_WINDOW:])
        error = latest.std(ddof=1) / math.sqrt(len(latest)) + _ROUNDING * np.abs(latest).max()
        return bool(latest.mean() < np.mean(self._scores) - error)

    def watch(self, scores: Sequence[float], episodes: float) -> None:
        """Takes in the scores of greedy episodes that ended; alpha follows.

        Args:
            scores: In any unit.
            episodes: Greedy steps since the last call, in episodes of full length; 0 keeps alpha.
        """
        self._scores.extend(scores)
        step = self._decay * episodes * (2.0 if self.lost else -1.0)
        self._log_alpha = float(np.clip(self._log_alpha + step, *self._bounds))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs."""
        return {
            "log_alpha": self._log_alpha,
            "bounds": list(self._bounds),
            "scores": list(self._scores),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a saved state."""
        self._log_alpha, self._scores = state["log_alpha"], list(state["scores"])
        low, high = state["bounds"]
        self._bounds = low, high
