"""Out-of-demonstration score: how far a state is from the demonstrations, calibrated to [0, 1].

A prior's `uncertainty` orders states, but its size depends on kernel, units and number of
demonstrations. It is therefore compared with that of demonstrations that the prior has not seen:
whole episodes are held out in turn, and the score of a state is the share of held-out states that
are less uncertain. A new demonstration of the same kind exceeds a threshold t in about 1 - t of its
steps.
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

    The i-th smallest of N held-out uncertainties scores i / (N + 1), with linear interpolation
    between them. Above the largest the score approaches 1 with one over the distance, and below the
    smallest 0, so that it increases everywhere.

    Args:
        uncertainties: Uncertainties of held-out demonstration states [N], in any order.
        num_folds: Number of folds that held them out.

    Raises:
        ValueError: There are no uncertainties, or one is not finite.
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
        """Calibrates the score of a prior by cross-validation with its present hyper-parameters.

        Episodes are assigned to folds at random. A single episode is cut into segments instead.
        Their states are near the rest of the episode, so the scores of new states are too high. So
        are those of priors that do not hold data out (`BehavioralPrior.held_out_uncertainty`), such
        as networks.

        Args:
            prior: Prior that was fitted to the demonstrations.
            demonstrations: Demonstrations of E episodes.
            num_folds: Number of folds, at least 2; at most E are used.
            seed: Seed of the assignment.

        Raises:
            UserError: The prior is uniform, or an argument is out of range.
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
        """Maps uncertainties (float32, any shape) to scores in [0, 1] (float32), increasing."""
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
    def curve(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Distinct uncertainties [K], their scores [K], and the unit of distances beyond them."""
        return self._knots.numpy(), self._levels.numpy(), float(self._unit)

    @property
    def summary(self) -> dict[str, float]:
        """Number of held-out steps and folds, and the uncertainties at scores 0.5, 0.95, 0.99."""
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
        """Returns what `save_novelty` writes: JSON-serializable settings, and arrays."""
        return {"num_folds": self.num_folds}, {"uncertainties": self._uncertainties}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        """Rebuilds a score from what `state` returned."""
        return cls(arrays["uncertainties"], settings["num_folds"])


def save_novelty(novelty: Novelty, path: str | os.PathLike[str]) -> None:
    """Writes a calibrated score to `path` (.npz), atomically."""
    settings, arrays = novelty.state()
    header = np.array(json.dumps({"version": _VERSION, "settings": settings}))
    replace_file(path, lambda file: np.savez(file, header=header, **arrays))


def load_novelty(path: str | os.PathLike[str]) -> Novelty:
    """Reads what `save_novelty` wrote.

    Raises:
        UserError: The file is missing, damaged, or of another version.
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
        f"{path} has format version {header['version']}, but this program reads {_VERSION}; "
        "calibrate again"
    )


def _folds(demonstrations: Demonstrations, num_folds: int, seed: int) -> np.ndarray:
    """Fold of each step [N]."""
    num_episodes, num_steps = demonstrations.num_episodes, demonstrations.num_steps
    if num_episodes == 1:
        return np.arange(num_steps) * min(num_folds, num_steps) // num_steps
    fold_of_episode = np.arange(num_episodes) % min(num_folds, num_episodes)
    lengths = np.diff(demonstrations.episode_ends, prepend=0)
    return np.repeat(np.random.default_rng(seed).permutation(fold_of_episode), lengths)
