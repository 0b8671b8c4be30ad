"""Densities, entropy and KL divergence of diagonal Gaussians.

Notation: pi = N(location, diag(scale^2)) and pi0 = N(prior_location, diag(prior_scale^2)) over
actions [..., A]. Scales are standard deviations, never variances.
"""

import math

import tensorflow as tf
from check_shapes import check_shapes

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@check_shapes(
    "actions: [batch..., A]",
    "location: [batch..., A]",
    "scale: [batch..., A]",
    "return: [batch...]",
)
def gaussian_log_prob(actions: tf.Tensor, location: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Log density of a diagonal Gaussian.

    Args:
        actions: [..., A].
        location: [..., A].
        scale: [..., A] standard deviations, positive.

    Returns:
        [...] nats, summed over the action's dimensions.
    """
    standardized = (actions - location) / scale
    return -tf.reduce_sum(
        0.5 * tf.square(standardized) + tf.math.log(scale) + _HALF_LOG_2PI, axis=-1
    )


@check_shapes("scale: [batch..., A]", "return: [batch...]")
def gaussian_entropy(scale: tf.Tensor) -> tf.Tensor:
    """Entropy [...] in nats of a diagonal Gaussian with standard deviations `scale` [..., A]."""
    return tf.reduce_sum(tf.math.log(scale) + 0.5 + _HALF_LOG_2PI, axis=-1)


@check_shapes(
    "location: [batch..., A]",
    "scale: [batch..., A]",
    "prior_location: [batch..., A]",
    "prior_scale: [batch..., A]",
    "return: [batch...]",
)
def gaussian_kl(
    location: tf.Tensor, scale: tf.Tensor, prior_location: tf.Tensor, prior_scale: tf.Tensor
) -> tf.Tensor:
    """KL(pi || pi0) of two diagonal Gaussians, in closed form.

    Args:
        location: [..., A] of pi.
        scale: [..., A] standard deviations of pi, positive.
        prior_location: [..., A] of pi0.
        prior_scale: [..., A] standard deviations of pi0, positive.

    Returns:
        [...] nats, at least 0, summed over the action's dimensions.
    """
    ratio = tf.square(scale / prior_scale)
    distance = tf.square((location - prior_location) / prior_scale)
    return 0.5 * tf.reduce_sum(ratio + distance - 1.0 - tf.math.log(ratio), axis=-1)
