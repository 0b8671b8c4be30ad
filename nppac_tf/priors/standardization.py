"""The units in which priors are fitted: zero mean and unit deviation per dimension."""

import dataclasses
from typing import Self

import numpy as np


@dataclasses.dataclass(frozen=True)
class Standardization:
    """Shift and scale per dimension that give data zero mean and unit deviation.

    A dimension that does not vary keeps its scale: a constant says nothing about units.

    Attributes:
        shift: [D] float64.
        scale: [D] float64, positive.
    """

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, data: np.ndarray) -> Self:
        """The units of data [N, D]."""
        data = np.asarray(data, np.float64)
        deviation = data.std(axis=0)
        return cls(data.mean(axis=0), np.where(deviation > 1e-8, deviation, 1.0))

    def __call__(self, data: np.ndarray) -> np.ndarray:
        """Data [N, D] in these units, float64."""
        return (data - self.shift) / self.scale
