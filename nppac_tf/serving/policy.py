"""What a served policy computes, safe on any input, in plain tensors.

An observation is usable if every value is finite and within the bounds that the task declares. An
unusable one gives nan for everything but novelty 1, and where a fallback is asked for the declared
fallback action: never an action that looks like the policy's. It does not affect the rest of its
batch. The same holds where a result is not finite.

Glossary: B observations, D components of an observation, A components of an action.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from nppac_tf.errors import UserError

if TYPE_CHECKING:
    from nppac_tf.agents.nppac import NppacAgent
    from nppac_tf.environments import Task
    from nppac_tf.priors import Novelty, PriorStatistics

Tensors = dict[str, tf.Tensor]
_Numbers = float | Sequence[float]
_LARGEST = np.finfo(np.float32).max


@dataclasses.dataclass(frozen=True)
class ServingOptions:
    """Limits of what a served policy does. Each is one number, or one per action component.

    Attributes:
        fallback_action: Action for an unusable observation, clipped to the limits; nan for nan.
        clip_low: Lower limit of actions, used where it is above the task's bound.
        clip_high: Upper limit of actions, used where it is below the task's bound.
        max_action_change: Largest change of an action from one step to the next, positive, in units
            of the action; None for any. `next_action` applies it.
    """

    fallback_action: _Numbers = 0.0
    clip_low: _Numbers = -np.inf
    clip_high: _Numbers = np.inf
    max_action_change: _Numbers | None = None


class ServedPolicy:
    """The deployed policy of an agent, its prior and its novelty as functions of plain tensors.

    Args:
        agent: Agent with the policy and the prior.
        novelty: Score calibrated for the agent's prior, if there is one.
        options: Limits.
        task: Task that declares the bounds of observations; without one they are unbounded.
        predict: In place of `agent.prior.predict`.
        score: In place of `novelty`.

    Raises:
        UserError: if an option is out of range, or a novelty or a rate limit has no prior to use.
    """

    def __init__(
        self,
        agent: NppacAgent,
        novelty: Novelty | None = None,
        options: ServingOptions | None = None,
        task: Task | None = None,
        predict: Callable[[tf.Tensor], tuple[PriorStatistics, tf.Tensor]] | None = None,
        score: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> None:
        from nppac_tf.agents.actors import AnchoredActorNetwork, in_float32

        options = options or ServingOptions()
        prior, spec = agent.prior.precise(), agent.action_spec
        if novelty is not None and not prior.informative:
            raise UserError("novelty must be None with a uniform prior; got one")
        if options.max_action_change is not None and novelty is None:
            raise UserError("max_action_change must be None without a calibrated novelty")
        self.actor, self.prior = in_float32(agent.deployed_actor), prior
        self.anchored = isinstance(self.actor, AnchoredActorNetwork)
        self._predict, self._score = predict or prior.predict, score or novelty
        size = self.action_size = prior.action_size
        self.action_low = np.maximum(
            np.broadcast_to(spec.minimum, [size]), _vector("clip_low", options.clip_low, size)
        )
        self.action_high = np.minimum(
            np.broadcast_to(spec.maximum, [size]), _vector("clip_high", options.clip_high, size)
        )
        if not (self.action_low <= self.action_high).all():
            raise UserError("clip_low must be at most clip_high, within the bounds of the task")
        fallback = _vector("fallback_action", options.fallback_action, size)
        self.fallback_action = np.clip(fallback, self.action_low, self.action_high)
        self.max_action_change: np.ndarray | None = None
        if options.max_action_change is not None:
            self.max_action_change = _vector("max_action_change", options.max_action_change, size)
            if not (self.max_action_change > 0).all():
                raise UserError("max_action_change must be positive")
        infinite = np.full(prior.observation_size, np.inf, np.float32)
        bounds = getattr(task, "observation_bounds", None)
        self.observation_low: np.ndarray
        self.observation_high: np.ndarray
        self.observation_low, self.observation_high = bounds or (-infinite, infinite)

    @property
    def scored(self) -> bool:
        """Whether there is a novelty."""
        return self._score is not None

    def mean_action(self, observation: tf.Tensor) -> tf.Tensor:
        """The greedy action [B, A] at observations [B, D]."""
        usable, observation = self._split(observation)
        return self._limited(usable, _action(self._policy(observation)))

    def sample_action(self, observation: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """A sampled action [B, A], for a stateless seed [2] int32."""
        usable, observation = self._split(observation)
        # The sampler divides by zero for an empty batch, so it gets a row.
        missing = tf.maximum(1 - tf.shape(observation)[0], 0)
        padded = tf.pad(observation, [[0, missing], [0, 0]])
        actions = self._policy(padded).sample(seed=seed)[: tf.shape(observation)[0]]
        return self._limited(usable, actions)

    def distribution_params(self, observation: tf.Tensor) -> Tensors:
        """Location and scale [B, A] of the policy's Gaussian, before any squashing."""
        usable, observation = self._split(observation)
        location, scale = _gaussian(self._policy(observation))
        outputs = {"location": location, "scale": scale}
        return {name: _where_usable(usable, value) for name, value in outputs.items()}

    def action_with_prior(self, observation: tf.Tensor) -> Tensors:
        """The greedy action, the prior's location and scale [B, A], and the novelty [B]."""
        return self._outputs(observation)

    def action_or_prior(self, observation: tf.Tensor, threshold: tf.Tensor) -> Tensors:
        """The greedy action, or the prior's mean where the novelty exceeds the threshold.

        Returns:
            `action` [B, A], the fallback action where the observation is unusable, `novelty` [B],
            and `fell_back` [B] bool. A threshold that is nan falls back.
        """
        return self._or_prior(self._outputs(observation), threshold)

    def next_action(
        self, observation: tf.Tensor, previous_action: tf.Tensor, threshold: tf.Tensor
    ) -> Tensors:
        """`action_or_prior` within `max_action_change` of the previous action [B, A]; nan: none."""
        return self._limit(self.action_or_prior(observation, threshold), previous_action)

    def everything(
        self,
        observation: tf.Tensor,
        noise: tf.Tensor,
        threshold: tf.Tensor | None = None,
        previous_action: tf.Tensor | None = None,
    ) -> Tensors:
        """All outputs at once, where a model has one function and no random numbers.

        Args:
            observation: [B, D].
            noise: Standard normal numbers [B, A], for the sampled action.
            threshold: [], if there is a novelty.
            previous_action: [B, A], if there is a rate limit.

        Returns:
            `action` as of `next_action`, `action_or_prior` or `mean_action`, whichever there is;
            `mean_action`, `sampled_action`, and the outputs of the others.
        """
        outputs = self._outputs(observation, noise)
        outputs["mean_action"] = outputs["action"]
        if threshold is not None:
            outputs |= self._or_prior(outputs, threshold)
        if previous_action is not None:
            outputs = self._limit(outputs, previous_action)
        return outputs

    def _policy(self, observation: tf.Tensor, statistics: Any = None) -> Any:
        """The distribution of actions, of an anchored actor given the prior's statistics."""
        if not self.anchored:
            return self.actor(observation)[0]
        if statistics is None:
            statistics = self._predict(observation)[0]
        return self.actor(observation, statistics=statistics)[0]

    def _outputs(self, observation: tf.Tensor, noise: tf.Tensor | None = None) -> Tensors:
        usable, observation = self._split(observation)
        outputs: Tensors = {}
        statistics, uncertainty = None, None
        if self.prior.informative:
            statistics, uncertainty = self._predict(observation)
            outputs = {"prior_location": statistics.location, "prior_scale": statistics.scale}
        policy = self._policy(observation, statistics)
        outputs = {name: _where_usable(usable, value) for name, value in outputs.items()}
        outputs["action"] = self._limited(usable, _action(policy))
        if noise is not None:
            outputs["sampled_action"] = self._limited(usable, _action(policy, noise))
        if self._score is not None:
            score = self._score(uncertainty)
            known = _finite_rows(outputs["action"])[:, 0] & (score <= 1.0)
            outputs["novelty"] = tf.where(known, score, 1.0)
        return outputs

    def _or_prior(self, outputs: Tensors, threshold: tf.Tensor) -> Tensors:
        known = tf.ensure_shape(outputs["novelty"] <= threshold, [None])[:, tf.newaxis]
        known = known & _finite_rows(outputs["action"])
        prior = outputs["prior_location"]
        fallback = tf.where(_finite_rows(prior), self._clip(prior), self.fallback_action)
        action = tf.where(known, outputs["action"], fallback)
        fell_back = tf.logical_not(known[:, 0])
        return {"action": action, "novelty": outputs["novelty"], "fell_back": fell_back}

    def _limit(self, outputs: Tensors, previous_action: tf.Tensor) -> Tensors:
        action, change = outputs["action"], self.max_action_change
        low, high = self._clip(previous_action - change), self._clip(previous_action + change)
        limited = tf.maximum(tf.minimum(action, high), low)
        both = _finite_rows(action) & _finite_rows(previous_action)
        return outputs | {"action": tf.where(both, limited, action)}

    def _split(self, observation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Which rows [B, 1] are usable, and the observations with zeros in the others."""
        low = np.maximum(self.observation_low, -_LARGEST)
        high = np.minimum(self.observation_high, _LARGEST)
        # False for nan.
        inside = (observation >= low) & (observation <= high)
        usable = tf.reduce_all(inside, axis=1, keepdims=True)
        return usable, tf.where(usable, observation, 0.0)

    def _limited(self, usable: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
        """Actions [B, A] within the limits, nan where not usable [B, 1] or not finite."""
        return tf.where(usable & _finite_rows(actions), self._clip(actions), np.float32("nan"))

    def _clip(self, actions: tf.Tensor) -> tf.Tensor:
        """Clipped to the limits; TFLite makes a limit of a nan."""
        return tf.minimum(tf.maximum(actions, self.action_low), self.action_high)


def _gaussian(policy: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Location and scale [B, A] of a policy's Gaussian, before any squashing.

    As parameters: the distribution's methods use operations that other runtimes lack.
    """
    gaussian = policy.distribution if _squashed(policy) else policy
    return gaussian.parameters["loc"], gaussian.parameters["scale_diag"]


def _action(policy: Any, noise: tf.Tensor | None = None) -> tf.Tensor:
    """The action [B, A] that is `noise` standard deviations from the mean one."""
    location, scale = _gaussian(policy)
    gaussian = location if noise is None else location + scale * noise
    return policy.bijector.forward(gaussian) if _squashed(policy) else gaussian


def _squashed(policy: Any) -> bool:
    from nppac_tf.agents.actors import SquashedGaussian

    return isinstance(policy, SquashedGaussian)


def _where_usable(usable: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Values [B, A], and rows of nan where they are not usable [B, 1] or one is not finite."""
    return tf.where(usable & _finite_rows(values), values, np.float32("nan"))


def _finite_rows(values: tf.Tensor) -> tf.Tensor:
    """Whether all values [B, A] of a row are finite, [B, 1], in operations of every format."""
    return tf.reduce_all(tf.abs(values) <= _LARGEST, axis=1, keepdims=True)


def _vector(name: str, value: _Numbers, size: int) -> np.ndarray:
    """One number per action component, [A] float32."""
    try:
        return np.broadcast_to(np.asarray(value, np.float32), [size])
    except ValueError:
        raise UserError(
            f"{name} must be one number or {size}, one per component of the action; got {value}"
        ) from None
