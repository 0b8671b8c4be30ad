"""Searches settings of the prior by what its mean does in the simulator.

How well a prior predicts held-out actions says little about what its mean does in closed loop. So
candidates act: first the lengthscales are varied, then how far ahead the actions are taken.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task
from nppac_tf.evaluation import rollouts
from nppac_tf.priors import BehavioralPrior, fit_prior

_LENGTHSCALE_FACTORS = (1.0, 2.0, 3.0)  # Times that of the base.
_LOOKAHEADS = (2, 4, 6)  # Steps more than the base.
_NUM_FINALISTS = 3
_FIRST_SHARE = 0.2  # Share of the episodes that chooses the finalists.


@dataclasses.dataclass(frozen=True)
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

    Every candidate acts in a fifth of the episodes, the three best in all of them. All start from
    the same states.

    Args:
        demonstrations: What each candidate is fitted to.
        task: Where its mean acts.
        base: Settings that the candidates vary, of the prior `gp` or `sparse_gp`.
        num_episodes: Episodes of a finalist, at least 5.
        seed: Seed of the initial states.
        on_candidate: Called with each candidate when its episodes have ended; with a finalist
            twice.
        cache: Folder of fitted priors; None for none.

    Returns:
        All candidates, the finalists first, each part from best to worst.
    """
    few = max(round(_FIRST_SHARE * num_episodes), 2)
    fitted: dict[str, BehavioralPrior] = {}

    def act(config: PriorConfig, number: int, num_steps: int = 0) -> Candidate:
        changes = differing_flags(config, base)
        if changes not in fitted:
            fitted[changes] = fit_prior(demonstrations, config, cache)
        episodes = rollouts.evaluate(mean_policy(fitted[changes]), task, number, seed)
        taken = num_steps + int(episodes.lengths.sum())
        candidate = Candidate(config, changes, episodes.main_values, taken)
        on_candidate(candidate)
        return candidate

    smoother = [
        dataclasses.replace(base, ard=ard, lengthscale_factor=factor * base.lengthscale_factor)
        for ard in (base.ard, not base.ard)
        for factor in _LENGTHSCALE_FACTORS
    ]
    tried = [act(config, few) for config in smoother]
    best = max(tried, key=lambda candidate: candidate.mean).config
    for steps in _LOOKAHEADS:
        faster = dataclasses.replace(best, action_lookahead=base.action_lookahead + steps)
        tried.append(act(faster, few))
    tried.sort(key=lambda candidate: -candidate.mean)
    finalists = [act(c.config, num_episodes, c.num_steps) for c in tried[:_NUM_FINALISTS]]
    finalists.sort(key=lambda candidate: -candidate.mean)
    return finalists + tried[_NUM_FINALISTS:]


def mean_policy(prior: BehavioralPrior) -> rollouts.PolicyFunction:
    """The policy that takes the prior's mean."""
    mean = tf.function(lambda states: prior.statistics(states).location, autograph=False)
    return lambda observations: mean(tf.constant(observations, tf.float32)).numpy()


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
