"""Searches settings of the prior by what its mean does in the simulator.

How well a prior predicts held-out actions says little about what its mean does in closed loop. So
candidates act: first the lengthscales are varied, then how far ahead the actions are taken.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Callable

import numpy as np

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task
from nppac_tf.errors import UserError
from nppac_tf.evaluation import rollouts
from nppac_tf.priors import BehavioralPrior, fit_prior

FEWEST_EPISODES = 10
PRIORS = ("gp", "sparse_gp")
_LENGTHSCALE_FACTORS = (1.0, 2.0, 3.0)  # Times that of the base.
_LOOKAHEADS = (2, 4, 6)  # Steps more than the base.
_NUM_FINALISTS = 3
_FIRST_SHARE = 0.2  # Share of the episodes that chooses the finalists.


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """Settings of a prior, and how its mean did.

    Attributes:
        config: The settings.
        changes: Flags in which they differ from the base.
        values: Time at the goal, or return, of each episode, [E] float64.
        num_steps: Environment steps of all its episodes.
    """

    config: PriorConfig
    changes: str
    values: np.ndarray
    num_steps: int

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return float(self.values.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; nan for one episode."""
        return float(self.values.std(ddof=1) / np.sqrt(len(self.values)))

    def is_better_than(self, other: "Candidate") -> bool:
        """Whether the mean is higher by more than the standard error of the difference.

        Both acted in the same episodes.
        """
        differences = self.values - other.values
        return bool(differences.mean() > differences.std(ddof=1) / np.sqrt(len(differences)))


def search(
    demonstrations: Demonstrations,
    task: Task,
    base: PriorConfig,
    num_episodes: int = 50,
    seed: int = 2000,
    on_candidate: Callable[[Candidate], None] = lambda candidate: None,
    cache: pathlib.Path | None = None,
) -> list[Candidate]:
    """Tries lengthscales and lookaheads of a Gaussian process.

    Every candidate acts in a fifth of the episodes; the three best, and the base, in all of them.
    All start from the same states. A candidate that fails is left out with a warning.

    Args:
        demonstrations: What each candidate is fitted to.
        task: Where its mean acts.
        base: Settings that the candidates vary, of the prior `gp` or `sparse_gp`.
        num_episodes: Episodes of a finalist, at least 10.
        seed: Seed of the initial states.
        on_candidate: Called with each candidate when its episodes have ended; with a finalist
            twice.
        cache: Folder of fitted priors; None for none.

    Returns:
        All candidates, the finalists first, each part from best to worst. The base has no changes.

    Raises:
        UserError: if an argument is out of range, or the base cannot be fitted.
        FloatingPointError: if the base's actions are not finite.
    """
    if num_episodes < FEWEST_EPISODES:
        raise UserError(f"num_episodes must be at least {FEWEST_EPISODES}; got {num_episodes}")
    if base.prior not in PRIORS:
        raise UserError(f"prior must be one of {', '.join(PRIORS)}; got {base.prior!r}")
    fitted: dict[str, BehavioralPrior] = {}

    def act(config: PriorConfig, number: int, num_steps: int = 0) -> Candidate:
        changes = differing_flags(config, base)
        if changes not in fitted:
            fitted[changes] = fit_prior(demonstrations, config, cache)
        episodes = rollouts.evaluate(rollouts.mean_policy(fitted[changes]), task, number, seed)
        taken = num_steps + int(episodes.lengths.sum())
        candidate = Candidate(config, changes, episodes.main_values, taken)
        on_candidate(candidate)
        return candidate

    def attempt(config: PriorConfig) -> list[Candidate]:
        try:
            return [act(config, round(_FIRST_SHARE * num_episodes))]
        except (UserError, FloatingPointError) as error:
            if config == base:
                raise
            warnings.warn(f"without {differing_flags(config, base)}: {error}", stacklevel=3)
            return []

    tried = []
    for ard in (base.ard, not base.ard):
        for factor in _LENGTHSCALE_FACTORS:
            # As the flag is printed.
            scaled = float(f"{factor * base.lengthscale_factor:g}")
            tried += attempt(dataclasses.replace(base, ard=ard, lengthscale_factor=scaled))
    best = max(tried, key=lambda candidate: candidate.mean).config
    for steps in _LOOKAHEADS:
        ahead = base.action_lookahead + steps
        tried += attempt(dataclasses.replace(best, action_lookahead=ahead))
    tried.sort(key=lambda candidate: -candidate.mean)
    chosen = [c for n, c in enumerate(tried) if n < _NUM_FINALISTS or not c.changes]
    finalists = [act(c.config, num_episodes, c.num_steps) for c in chosen]
    finalists.sort(key=lambda candidate: -candidate.mean)
    return finalists + [c for c in tried if c not in chosen]


def differing_flags(config: PriorConfig, base: PriorConfig) -> str:
    """The flags that turn one configuration into another, such as "--noard"."""
    changed = []
    for name, value in dataclasses.asdict(config).items():
        if value == getattr(base, name):
            continue
        if isinstance(value, bool):
            changed.append(f"--{name}" if value else f"--no{name}")
        else:
            changed.append(f"--{name}={value:g}")
    return " ".join(changed)
