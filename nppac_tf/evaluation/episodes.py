"""Results of evaluation episodes: success metrics, confidence intervals, a table.

Glossary: E episodes, T steps of an episode, D observation components, A action components.
"""

import dataclasses
import math

import numpy as np

from nppac_tf.errors import UserError

LABELS = {
    "eval/any_success": "A, any-time success",
    "eval/time_at_goal": "B, time at goal",
    "eval/final_success": "final",
    "eval/return": "return",
}
_PROPORTIONS = ("eval/any_success", "eval/final_success")


@dataclasses.dataclass(frozen=True, eq=False)
class Episodes:
    """Results of E episodes; `print` shows them as a table.

    Attributes:
        any_success: [E] float32, 1 if the goal was reached at least once, else 0. All three success
            metrics are nan for a task without a success signal.
        time_at_goal: [E] float32 in [0, 1], steps at the goal divided by the task's horizon. The
            steps that are missing after a termination at the goal count as steps at the goal, after
            any other end as steps away from it. Without a horizon, steps at the goal divided by the
            episode's length.
        final_success: [E] float32, 1 if the last step was at the goal, else 0.
        returns: [E] float32, undiscounted sums of rewards.
        lengths: [E] int64, in steps.
        terminated: [E] bool, True if the episode ended in a terminal state, False if truncated.
        horizon: The task's horizon in steps, if it has one.
        observations: For each episode [T, D] float32, the observations that the actions were
            computed from. This and the following attributes are empty unless recorded.
        actions: For each episode [T, A] float32, as executed.
        rewards: For each episode [T] float32.
        successes: For each episode [T] float32, 1 if the step ended at the goal, else 0; nan where
            the task does not say.
        final_observations: [E, D] float32, after the last action.
    """

    any_success: np.ndarray
    time_at_goal: np.ndarray
    final_success: np.ndarray
    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    horizon: int | None
    observations: tuple[np.ndarray, ...] = ()
    actions: tuple[np.ndarray, ...] = ()
    rewards: tuple[np.ndarray, ...] = ()
    successes: tuple[np.ndarray, ...] = ()
    final_observations: np.ndarray = dataclasses.field(
        default_factory=lambda: np.empty((0, 0), np.float32)
    )

    def summary(self) -> dict[str, float]:
        """Means over the episodes; nan for success metrics of a task without a success signal."""
        return {name: float(np.mean(values)) for name, values in self._metrics().items()}

    @property
    def main_values(self) -> np.ndarray:
        """Time at the goal, or return where the task has no goal, [E] float64."""
        has_goal = np.isfinite(self.time_at_goal).all()
        return np.asarray(self.time_at_goal if has_goal else self.returns, np.float64)

    def intervals(self, confidence: float = 0.95) -> dict[str, tuple[float, float]]:
        """Confidence intervals of the means in `summary`.

        Shares of episodes have Wilson intervals. Time at goal and return have BCa bootstrap
        intervals with fixed resamples, of zero width if all values are equal. Intervals are nan for
        success metrics of a task without a success signal, and for a bootstrap of one episode.

        Args:
            confidence: In (0, 1).

        Raises:
            UserError: if confidence is out of range.
        """
        if not 0 < confidence < 1:
            raise UserError(f"confidence must be in (0, 1); got {confidence}")
        return {
            name: (_wilson if name in _PROPORTIONS else _bootstrap)(values, confidence)
            for name, values in self._metrics().items()
        }

    def __str__(self) -> str:
        """A table of means with 95 % intervals, without metrics that the task does not have."""
        intervals = self.intervals()
        rows = [(f"{len(self.returns)} episodes", "mean", "95 % interval")]
        for name, mean in self.summary().items():
            low, high = intervals[name]
            shown = readable if name == "eval/return" else "{:.3f}".format
            interval = "-" if math.isnan(low) else f"[{shown(low)}, {shown(high)}]"
            if not math.isnan(mean):
                rows.append((LABELS[name], shown(mean), interval))
        label, mean_, interval_ = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [f"{a:<{label}}  {b:>{mean_}}  {c:>{interval_}}" for a, b, c in rows]
        return "\n".join([*lines, self.note] if self.note else lines)

    @property
    def note(self) -> str:
        """Says that B counts steps after the end of some episodes; empty if it does not."""
        early = self.terminated & (self.final_success > 0) & (self.lengths < (self.horizon or 0))
        if not early.any():
            return ""
        return (
            "B counts the steps after an end at the goal, up to the horizon, as at the goal "
            f"({early.sum()} of {len(early)} episodes)."
        )

    def _metrics(self) -> dict[str, np.ndarray]:
        columns = (self.any_success, self.time_at_goal, self.final_success, self.returns)
        return {
            name: values.astype(np.float64) for name, values in zip(LABELS, columns, strict=True)
        }


def readable(value: float) -> str:
    """A number of any scale with three digits or more, such as "0.123", "11,059"."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _wilson(values: np.ndarray, confidence: float) -> tuple[float, float]:
    from scipy import stats

    if np.isnan(values).any():
        return np.nan, np.nan
    interval = stats.binomtest(round(values.sum()), len(values)).proportion_ci(
        confidence, method="wilson"
    )
    return float(interval.low), float(interval.high)


def _bootstrap(values: np.ndarray, confidence: float) -> tuple[float, float]:
    from scipy import stats

    if np.isnan(values).any() or len(values) < 2:
        return np.nan, np.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, method="BCa", rng=np.random.default_rng(0)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
