"""How far a state is from the demonstrations, as a score in [0, 1] calibrated on them.

A prior's `uncertainty` orders states but has no scale of its own: what is much depends on kernel,
units and number of demonstrations. The scale taken here is what demonstrations look like that the
prior has not seen. Whole episodes are left out in turn, and the score of a state is the share of
the held-out states less uncertain than it. A demonstration that went through the same kind of
states, and is not in the data, then exceeds a threshold t in about 1 - t of its steps.
"""

import json
import os
from typing import Any, Self

import numpy as np
import tensorflow as tf

from nppac_tf.demonstrations import Demonstrations
from nppac_tf.errors import UserError
from nppac_tf.files import read_arrays, replace_file
from nppac_tf.priors.base import BehavioralPrior

_VERSION = 1


class Novelty(tf.Module):
    """Maps a prior's uncertainty to the out-of-demonstration score.

    With N held-out uncertainties, the i-th smallest scores i / (N + 1), those between two are
    interpolated, and beyond the largest (or the smallest) the score approaches 1 (or 0) as one over
    the distance and goes on telling states apart.

    Args:
        uncertainties: [N], of held-out demonstration states, in any order.
        num_folds: Into which the demonstrations were divided to get them.

    Raises:
        ValueError: if there are none or one is not finite.
    """

    def __init__(self, uncertainties: np.ndarray, num_folds: int) -> None:
        super().__init__(name="novelty")
        ordered = np.sort(np.asarray(uncertainties, np.float32))
        if ordered.ndim != 1 or not ordered.size or not np.isfinite(ordered).all():
            raise ValueError(f"uncertainties must be finite numbers [N]; got {list(ordered.shape)}")
        self.num_folds = num_folds
        self._uncertainties = ordered
        knots, counts = np.unique(ordered.astype(np.float64), return_counts=True)
        self._knots = tf.Variable(knots, trainable=False, name="knots")
        self._levels = tf.Variable(
            np.cumsum(counts) / (len(ordered) + 1), trainable=False, name="levels"
        )
        self._unit = tf.Variable(float(np.std(ordered)) or 1.0, dtype=tf.float64, trainable=False)

    @classmethod
    def calibrate(
        cls,
        prior: BehavioralPrior,
        demonstrations: Demonstrations,
        num_folds: int = 5,
        seed: int = 0,
    ) -> Self:
        """The score for a prior, with its hyper-parameters kept while folds are left out.

        Episodes are dealt to the folds at random. A single episode is cut into stretches, whose
        neighbors stay in: held-out states are then nearer to the rest than another episode's would
        be, and the score is on the high side. A prior that cannot leave data out
        (`BehavioralPrior.held_out_uncertainty`) is taken at its word on states that it has seen,
        which raises the score of new ones further.

        Args:
            prior: Fitted to the demonstrations.
            demonstrations: Of E episodes.
            num_folds: At least 2; no more than E are used.
            seed: Of the folds.

        Raises:
            UserError: for a uniform prior, which is as unsure everywhere, or an argument out of
                range.
        """
        if not prior.informative:
            raise UserError("prior must be fitted to demonstrations to score novelty; got uniform")
        if num_folds < 2:
            raise UserError(f"num_folds must be at least 2; got {num_folds}")
        folds = _folds(demonstrations, num_folds, seed)
        return cls(
            prior.held_out_uncertainty(demonstrations, folds), num_folds=int(folds.max()) + 1
        )

    def __call__(self, uncertainty: tf.Tensor) -> tf.Tensor:
        """Score in [0, 1] (float32) of uncertainties (float32, any shape), and increasing in it."""
        uncertainty = tf.cast(uncertainty, tf.float64)
        knots, levels = tf.convert_to_tensor(self._knots), tf.convert_to_tensor(self._levels)
        last = tf.shape(knots)[0] - 1
        above = tf.reshape(
            tf.searchsorted(knots, tf.reshape(uncertainty, [-1]), side="right"),
            tf.shape(uncertainty),
        )
        left, right = tf.maximum(above - 1, 0), tf.minimum(above, last)
        start, level = tf.gather(knots, left), tf.gather(levels, left)
        fraction = tf.math.divide_no_nan(uncertainty - start, tf.gather(knots, right) - start)
        score = level + fraction * (tf.gather(levels, right) - level)
        shortfall = tf.maximum(knots[0] - uncertainty, 0.0) / self._unit
        excess = tf.maximum(uncertainty - knots[-1], 0.0) / self._unit
        score = score / (1.0 + shortfall)
        return tf.cast(1.0 - (1.0 - score) / (1.0 + excess), tf.float32)

    @property
    def summary(self) -> dict[str, float]:
        """The calibration in a few numbers: held-out steps, folds, and uncertainty at scores."""
        quantiles = np.quantile(self._uncertainties, (0.5, 0.95, 0.99))
        return {
            "held_out_steps": len(self._uncertainties),
            "folds": self.num_folds,
            **{
                f"uncertainty_at_{score}": round(float(quantile), 6)
                for score, quantile in zip((0.5, 0.95, 0.99), quantiles, strict=True)
            },
        }

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `save_novelty` writes: JSON-able settings, and arrays."""
        return {"num_folds": self.num_folds}, {"uncertainties": self._uncertainties}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """The inverse of `state`."""
        return cls(arrays["uncertainties"], settings["num_folds"])


def save_novelty(novelty: Novelty, path: str | os.PathLike[str]) -> None:
    """Writes a calibrated score to `path` (.npz), whole or not at all."""
    settings, arrays = novelty.state()
    header = np.array(json.dumps({"version": _VERSION, "settings": settings}))
    replace_file(path, lambda file: np.savez(file, header=header, **arrays))


def load_novelty(path: str | os.PathLike[str]) -> Novelty:
    """Reads what `save_novelty` wrote.

    Raises:
        UserError: if the file is missing, damaged, or of another version.
    """
    try:
        with open(path, "rb") as file:
            arrays = read_arrays(file)
        header = json.loads(str(arrays.pop("header")))
        if header["version"] == _VERSION:
            return Novelty.from_state(header["settings"], arrays)
    except FileNotFoundError:
        raise UserError(f"no calibrated novelty at {path}") from None
    except Exception as error:  # A damaged file can make zipfile and NumPy raise anything.
        raise UserError(f"{path} is not a file written by save_novelty: {error}") from None
    raise UserError(
        f"{path} was written by version {header['version']} of the format; "
        f"this program reads version {_VERSION}: calibrate again"
    )


def _folds(demonstrations: Demonstrations, num_folds: int, seed: int) -> np.ndarray:
    """[N] the fold of each step."""
    num_episodes, num_steps = demonstrations.num_episodes, demonstrations.num_steps
    if num_episodes == 1:
        return np.arange(num_steps) * min(num_folds, num_steps) // num_steps
    fold_of_episode = np.arange(num_episodes) % min(num_folds, num_episodes)
    lengths = np.diff(demonstrations.episode_ends, prepend=0)
    return np.repeat(np.random.default_rng(seed).permutation(fold_of_episode), lengths)
