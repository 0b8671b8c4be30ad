"""The behavioral prior pi0(a | s): what the agent is anchored to.

Away from the agent a prior is a conditional Gaussian, `statistics(observations)`. Since pi0 never
changes while the agent learns, its statistics are data: they are computed in bulk when a transition
is stored, and the agent's losses take them as tensors (`PriorStatistics`).
"""

import abc
import copy
import math
from typing import Any, NamedTuple, Self

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from nppac_tf import divergences
from nppac_tf.demonstrations import Demonstrations


class PriorStatistics(NamedTuple):
    """Location and standard deviation of pi0(. | s) for a batch, each [B, A] float32."""

    location: tf.Tensor
    scale: tf.Tensor


class BehavioralPrior(tf.Module, abc.ABC):
    """A fixed Gaussian pi0(a | s) = N(location(s), diag(scale(s)^2)) in the environment's units.

    Subclasses give `statistics`; everything that the agent needs follows from it.
    """

    def __init__(self, observation_size: int, action_size: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.observation_size = observation_size
        self.action_size = action_size

    @property
    def informative(self) -> bool:
        """Whether pi0 prefers some actions, so that pre-training to it means something."""
        return True

    @property
    def scale_floor(self) -> Any:
        """Smallest scale that the data justify, [A] or a number, in units of actions; 0 for none.

        `priors.rescale` applies it where the configuration gives no floor.
        """
        return 0.0

    @abc.abstractmethod
    def statistics(self, observations: tf.Tensor) -> PriorStatistics:
        """Location and scale [B, A] for observations [B, D] (float32), inside compiled code."""

    @abc.abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `priors.save_prior` writes: JSON-able settings, and arrays."""

    def uncertainty(self, observations: tf.Tensor) -> tf.Tensor:
        """How little the demonstrations say at observations [B, D]: [B] float32, larger for less.

        Its unit is the prior's own; `Novelty` maps it to [0, 1]. By default the mean log scale.
        """
        return tf.reduce_mean(tf.math.log(self.statistics(observations).scale), axis=-1)

    def predict(self, observations: tf.Tensor) -> tuple[PriorStatistics, tf.Tensor]:
        """`statistics` and `uncertainty`, for priors where they share work."""
        return self.statistics(observations), self.uncertainty(observations)

    def precise(self) -> Self:
        """The same prior with the least rounding, for serving; itself if it has it already."""
        return self

    def held_out_uncertainty(self, demonstrations: Demonstrations, folds: np.ndarray) -> np.ndarray:
        """`uncertainty` at each demonstration state for a prior that its fold was no part of.

        By default that of this prior itself, which has seen the states and is too sure there.

        Args:
            demonstrations: Those that the prior was fitted to, N steps.
            folds: [N] int, the fold of each step.

        Returns:
            [N] float32.
        """
        observations = demonstrations.observations
        return np.concatenate(
            [
                self.uncertainty(tf.constant(observations[start : start + 1024])).numpy()
                for start in range(0, len(observations), 1024)
            ]
        )

    def distribution(self, observations: tf.Tensor) -> tfp.distributions.Distribution:
        """pi0(. | s) for observations [B, D], with batch shape [B] and event shape [A]."""
        location, scale = self.statistics(observations)
        return tfp.distributions.MultivariateNormalDiag(location, scale)

    def log_prob(self, statistics: PriorStatistics, actions: tf.Tensor) -> tf.Tensor:
        """Log density log pi0(a | s), [B] nats, for actions [B, A]."""
        return divergences.gaussian_log_prob(actions, *statistics)

    def kl_divergence(
        self, statistics: PriorStatistics, location: tf.Tensor, scale: tf.Tensor
    ) -> tf.Tensor:
        """KL(N(location, diag(scale^2)) || pi0), [B] nats, in closed form."""
        return divergences.gaussian_kl(location, scale, *statistics)


class UniformPrior(BehavioralPrior):
    """The prior that knows nothing: log pi0 is the same for every action.

    Its density is taken with respect to itself, so log pi0 = 0 and KL(pi || pi0) is minus the
    entropy of pi: with this prior N-PPAC is soft actor-critic, exactly. `statistics` gives
    location 0 and scale 1, which no loss reads.
    """

    @property
    def informative(self) -> bool:  # noqa: D102
        return False

    def statistics(self, observations: tf.Tensor) -> PriorStatistics:  # noqa: D102
        zeros = tf.zeros([tf.shape(observations)[0], self.action_size], tf.float32)
        return PriorStatistics(zeros, tf.ones_like(zeros))

    def distribution(self, observations: tf.Tensor) -> tfp.distributions.Distribution:
        """Not normalizable: raises NotImplementedError."""
        raise NotImplementedError("a uniform prior over unbounded actions has no distribution")

    def log_prob(self, statistics: PriorStatistics, actions: tf.Tensor) -> tf.Tensor:  # noqa: D102
        return tf.zeros(tf.shape(actions)[:-1], actions.dtype)

    def kl_divergence(  # noqa: D102
        self, statistics: PriorStatistics, location: tf.Tensor, scale: tf.Tensor
    ) -> tf.Tensor:
        return -divergences.gaussian_entropy(scale)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:  # noqa: D102
        return {"observation_size": self.observation_size, "action_size": self.action_size}, {}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> "UniformPrior":
        """The inverse of `state`."""
        return cls(settings["observation_size"], settings["action_size"])


class WrappedPrior(BehavioralPrior):
    """A prior whose location and scale are changed; its uncertainty is kept.

    Args:
        prior: The prior behind it.

    Raises:
        ValueError: for a uniform prior, which has neither location nor scale.
    """

    def __init__(self, prior: BehavioralPrior) -> None:
        super().__init__(prior.observation_size, prior.action_size)
        if not prior.informative:
            raise ValueError(f"prior must have a scale to change; got {type(prior).__name__}")
        self.prior = prior

    @abc.abstractmethod
    def _change(self, location: tf.Tensor, scale: tf.Tensor) -> PriorStatistics:
        """The statistics of this prior, from those of the prior behind it."""

    def statistics(self, observations: tf.Tensor) -> PriorStatistics:  # noqa: D102
        return self._change(*self.prior.statistics(observations))

    def uncertainty(self, observations: tf.Tensor) -> tf.Tensor:  # noqa: D102
        return self.prior.uncertainty(observations)

    def predict(self, observations: tf.Tensor) -> tuple[PriorStatistics, tf.Tensor]:  # noqa: D102
        statistics, uncertainty = self.prior.predict(observations)
        return self._change(*statistics), uncertainty

    def precise(self) -> Self:  # noqa: D102
        twin = copy.copy(self)
        twin.prior = self.prior.precise()
        return twin

    def held_out_uncertainty(  # noqa: D102
        self, demonstrations: Demonstrations, folds: np.ndarray
    ) -> np.ndarray:
        return self.prior.held_out_uncertainty(demonstrations, folds)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Not for files: save the prior behind it, and wrap again after loading."""
        raise NotImplementedError("save the wrapped prior: what is changed is configuration")


class RescaledPrior(WrappedPrior):
    """A prior whose scale is multiplied by `factor` and then kept at `floor` or above.

    The scale sets how hard the KL term pulls: its gradient grows as 1 / scale^2 (Proposition 1 of
    the paper). The floor bounds that.

    Args:
        prior: The prior whose location is kept.
        factor: Positive multiplier of the scale.
        floor: Smallest scale, [A] or a number, in units of the action, at least 0.

    Raises:
        ValueError: for a factor or floor out of range, or a uniform prior.
    """

    def __init__(self, prior: BehavioralPrior, factor: float = 1.0, floor: Any = 0.0) -> None:
        super().__init__(prior)
        if factor <= 0 or np.any(np.asarray(floor) < 0):
            raise ValueError(
                f"factor must be positive and floor at least 0; got {factor} and {floor}"
            )
        self.factor = factor
        self.floor = np.asarray(floor, np.float32)

    def _change(self, location: tf.Tensor, scale: tf.Tensor) -> PriorStatistics:
        return PriorStatistics(location, tf.maximum(self.factor * scale, self.floor))


class FixedScalePrior(WrappedPrior):
    """A prior whose scale is one constant in every state; its location is kept.

    With a falling sequence of constants it shows what a vanishing scale of pi0 does to the agent
    (Proposition 1 of the paper), all else equal.

    Args:
        prior: The prior whose location is kept.
        scale: Positive, in units of the action.

    Raises:
        ValueError: for a scale out of range, or a uniform prior.
    """

    def __init__(self, prior: BehavioralPrior, scale: float) -> None:
        super().__init__(prior)
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite; got {scale}")
        self.scale = scale

    def _change(self, location: tf.Tensor, scale: tf.Tensor) -> PriorStatistics:
        return PriorStatistics(location, tf.fill(tf.shape(location), self.scale))


class BoundedPrior(WrappedPrior):
    """A prior whose location is kept inside the bounds of actions.

    Args:
        prior: The prior whose scale is kept.
        low: Smallest location, [A] or a number.
        high: Largest location, [A] or a number.
    """

    def __init__(self, prior: BehavioralPrior, low: Any, high: Any) -> None:
        super().__init__(prior)
        self._low, self._high = np.asarray(low, np.float32), np.asarray(high, np.float32)

    def _change(self, location: tf.Tensor, scale: tf.Tensor) -> PriorStatistics:
        return PriorStatistics(tf.clip_by_value(location, self._low, self._high), scale)
