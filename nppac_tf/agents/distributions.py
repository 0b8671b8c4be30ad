"""Policies as actors give them: one distribution of TFP, or a nest of independent ones.

The prior sees observations and actions as vectors: the parts of a nest, flattened and concatenated
in the order of `tf.nest`.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

_tfd = tfp.distributions


def as_vectors(nest: Any, spec: Any) -> tf.Tensor:
    """A nest of the spec's structure as one float32 tensor [..., N].

    Args:
        nest: Tensors [..., *shape], with the same leading dimensions in all.
        spec: The nest's spec, which gives the shapes.
    """
    tf.nest.assert_same_structure(nest, spec)
    parts = [
        _as_vector(tf.convert_to_tensor(part), part_spec.shape)
        for part, part_spec in zip(tf.nest.flatten(nest), tf.nest.flatten(spec), strict=True)
    ]
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=-1)


def vector_size(spec: Any) -> int | None:
    """N of `as_vectors`; None where a dimension of the spec is not known."""
    sizes = [part.shape.num_elements() for part in tf.nest.flatten(spec)]
    return None if None in sizes else sum(sizes)


def sample_with_log_prob(policy: Any, spec: Any, seed: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """Actions of the spec's structure and their log density [...].

    Args:
        policy: Distribution, or nest of them. A part may also be an object that has no more than
            `sample()` and `log_prob(action)`.
        spec: Spec of one action.
        seed: [2] int, stateless.
    """
    parts = tf.nest.flatten(policy)
    seeds = [seed]
    if len(parts) > 1:
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, len(parts)))
    drawn = [_draw(*each) for each in zip(parts, seeds, strict=True)]
    actions = [action for action, _ in drawn]
    densities = [density for _, density in drawn]
    return tf.nest.pack_sequence_as(spec, actions), _total(densities, actions, spec)


def log_prob(policy: Any, actions: Any, spec: Any) -> tf.Tensor:
    """Log density [...] of actions of the spec's structure."""
    actions = tf.nest.flatten(actions)
    densities = [
        part.log_prob(action) for part, action in zip(tf.nest.flatten(policy), actions, strict=True)
    ]
    return _total(densities, actions, spec)


def mode(policy: Any) -> Any:
    """The most probable actions, in the policy's structure."""
    return tf.nest.map_structure(lambda part: part.mode(), policy)


def gaussian_parameters(policy: Any, spec: Any) -> tuple[tf.Tensor, tf.Tensor] | None:
    """Mean and standard deviation [..., A] of a diagonal Gaussian; None for other policies."""
    parts = tf.nest.flatten(policy)
    if not all(_is_gaussian(part) for part in parts):
        return None
    means, deviations = ([part.mean() for part in parts], [part.stddev() for part in parts])
    return (
        as_vectors(tf.nest.pack_sequence_as(spec, means), spec),
        as_vectors(tf.nest.pack_sequence_as(spec, deviations), spec),
    )


def _as_vector(tensor: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    tensor = tf.cast(tensor, tf.float32)
    if shape.rank == 1:
        return tensor
    leading = tf.shape(tensor)[: tensor.shape.rank - shape.rank]
    return tf.reshape(tensor, tf.concat([leading, [shape.num_elements()]], axis=0))


def _draw(distribution: Any, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    if not isinstance(distribution, _tfd.Distribution):
        action = distribution.sample()
        return action, distribution.log_prob(action)
    try:
        return distribution.experimental_sample_and_log_prob(seed=seed)
    except NotImplementedError:  # TF-Agents' SquashToSpecNormal has no joint sampling.
        # The density must be of this very tensor: of a copy, tanh is inverted, which is wrong near
        # the bounds.
        action = distribution.sample(seed=seed)
        return action, distribution.log_prob(action)


def _total(densities: Sequence[tf.Tensor], actions: Sequence[tf.Tensor], spec: Any) -> tf.Tensor:
    """Sum over parts, and over the components that a part has one density each of."""
    leading = actions[0].shape.rank - tf.nest.flatten(spec)[0].shape.rank
    summed = [
        tf.reduce_sum(density, axis=list(range(leading, density.shape.rank)))
        if density.shape.rank > leading
        else density
        for density in densities
    ]
    return tf.add_n(summed)


def _is_gaussian(distribution: Any) -> bool:
    while isinstance(distribution, _tfd.Independent):
        distribution = distribution.distribution
    return isinstance(distribution, _tfd.MultivariateNormalDiag | _tfd.Normal)
