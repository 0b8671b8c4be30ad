"""Units in which priors are fitted: zero mean and unit standard deviation per component."""

import dataclasses
from typing import Self

import numpy as np


@dataclasses.dataclass(frozen=True)
class Standardization:
    """Shift and scale per component that give data zero mean and unit standard deviation.

    A component that does not vary has scale 1.

    Attributes:
        shift: [D] float64.
        scale: [D] float64, positive.
    """

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, data: np.ndarray) -> Self:
        """Computes shift and scale from data [N, D]."""
        data = np.asarray(data, np.float64)
        scale = data.std(axis=0)
        return cls(data.mean(axis=0), np.where(scale > 1e-8, scale, 1.0))

    def __call__(self, data: np.ndarray) -> np.ndarray:
        """Standardizes data [N, D]; float64."""
        return (data - self.shift) / self.scale

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Returns `{name}_shift` and `{name}_scale`."""
        return {f"{name}_shift": self.shift, f"{name}_scale": self.scale}
