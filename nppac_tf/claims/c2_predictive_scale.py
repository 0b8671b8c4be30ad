"""C2: what happens to a prior's predictive scale away from the demonstrations.

Glossary: N states, D observation components, A action components.

The scale at a state is the geometric mean of the standard deviations of the action components, in
units of the action. For a Gaussian process it is given twice: for the posterior mean, sqrt(Sigma0),
which the paper discusses, and for an action, sqrt(Sigma0 + noise). Networks have only the latter.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nppac_tf.claims import drawing
from nppac_tf.claims.common import Table
from nppac_tf.claims.drawing import CLASSES
from nppac_tf.claims.predictions import Predict, Prediction, predictor
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task
from nppac_tf.evaluation import rollouts
from nppac_tf.priors.base import BehavioralPrior
from nppac_tf.priors.standardization import Standardization

QUANTILES = (0.1, 0.5, 0.9)
COLLAPSE_FACTOR = 2.0
RISE_FACTOR = 10.0
FAR = 10.0
_DISTANCES = np.array([0.0, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, FAR])
_POSITIONS = np.linspace(0.0, 1.0, 21)
_PLACES = {
    "fitted": "on fitted\nstates",
    "held_out": "on held-out\nepisodes",
    "midpoints": "between two\nepisodes",
    "own": "own\nrollouts",
    "random": "random\nactions",
    "far": "10 sd\naway",
}
_LABEL = "predictive scale\n(units of the action)"


class Bands(NamedTuple):
    """The 10, 50 and 90 % quantiles over states of the scale, [3] or [3, K].

    Attributes:
        mean: Quantiles of `Prediction.mean_scale`.
        action: Quantiles of `Prediction.action_scale`.
    """

    mean: np.ndarray
    action: np.ndarray


class Plane(NamedTuple):
    """The plane of the first two principal components of the standardized states.

    Each point of the plane takes its remaining components from the demonstration state that is
    nearest in the plane, so that the plane passes through the data.

    Attributes:
        x: [G] first component, in standard deviations of the states' dimensions.
        y: [G] second component.
        scales: `Prediction.mean_scale` by class, [G, G], rows by y.
        trajectories: The fitted episodes, [T, 2] each.
        explained: [2] shares of the variance.
    """

    x: np.ndarray
    y: np.ndarray
    scales: dict[str, np.ndarray]
    trajectories: tuple[np.ndarray, ...]
    explained: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class PredictiveScales:
    """Predictive scales of several prior classes, on and off the demonstrations.

    Attributes:
        places: By class, kind of states -> bands [3]. The kinds are "fitted", "held_out",
            "midpoints" (between states of two episodes), "far" (10 standard deviations away in
            every dimension) and, with a task, "own" (visited by samples of the prior itself) and
            "random" (visited by uniform actions).
        positions: [K] positions from one demonstration state to another, 0 to 1.
        lines: By class, bands [3, K] along those lines.
        distances: [J] distances from demonstration states, in standard deviations per dimension.
        away: By class, bands [3, J].
        plane: Heat maps.
    """

    places: dict[str, dict[str, Bands]]
    positions: np.ndarray
    lines: dict[str, Bands]
    distances: np.ndarray
    away: dict[str, Bands]
    plane: Plane

    def ratios(self, name: str) -> dict[str, float]:
        """Median scale of a class by kind of states, divided by that on fitted states."""
        medians = {place: float(bands.mean[1]) for place, bands in self.places[name].items()}
        return {place: value / medians["fitted"] for place, value in medians.items()}

    def numbers(self) -> dict[str, Any]:
        """Content of c2.json."""
        aims: dict[str, Any] = {}
        classes = {}
        for name, kinds in self.places.items():
            ratios = self.ratios(name)
            off = {place: ratios[place] for place in ("far", "own", "random") if place in ratios}
            classes[name] = {
                "median_scale": {place: bands.mean[1] for place, bands in kinds.items()},
                "median_scale_with_noise": {p: bands.action[1] for p, bands in kinds.items()},
                "ratio_to_fitted": ratios,
            }
            if name == "gaussian_network":
                aims["network_stays_within_twice_its_value_on_data"] = {
                    place: ratio <= COLLAPSE_FACTOR for place, ratio in off.items()
                }
            if name.endswith("gp"):
                aims[f"{name}_rises_tenfold"] = {
                    place: ratio >= RISE_FACTOR for place, ratio in off.items()
                }
        return {
            "scale": "geometric mean over action components, units of the action; a Gaussian "
            "process's without observation noise unless stated",
            "aims": aims,
            "classes": classes,
        }

    def table(self) -> Table:
        """Content of c2.csv: one row per class and kind, position or distance of states."""
        rows = []
        for name in self.places:
            for place, bands in self.places[name].items():
                rows.append((name, place, "", *bands.mean, *bands.action))
            for kind, at, curve in (
                ("line", self.positions, self.lines[name]),
                ("away", self.distances, self.away[name]),
            ):
                for value, mean, action in zip(at, curve.mean.T, curve.action.T, strict=True):
                    rows.append((name, kind, value, *mean, *action))
        quantiles = ("p10", "median", "p90")
        columns = [f"{of}{q}" for of in ("", "with_noise_") for q in quantiles]
        return ("prior", "states", "position_or_distance", *columns), rows

    def finding(self) -> str:
        """One line: how the scale of each kind of prior changes 10 standard deviations away."""
        changes = []
        gp = "gp" if "gp" in self.places else "sparse_gp"
        for name, short in (("gaussian_network", "network"), (gp, "GP")):
            if name in self.places:
                ratio = self.ratios(name)["far"]
                factor = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"
                changes.append(f"the {short}'s scale × {factor}")
        return f"10 sd off the data, {' and '.join(changes) or 'scales of all classes'}"

    def figure(self, title: str) -> Figure:
        """Medians and 10 to 90 % bands of each class, on and off the data."""
        result = drawing.new_figure((8.0, 6.2), title)
        grid = result.add_gridspec(2, 2, height_ratios=(1.0, 1.1))
        left = result.add_subplot(grid[0, 0])
        right = result.add_subplot(grid[0, 1], sharey=left)
        _draw_curves(left, self.positions, self.lines)
        left.set(xlabel="position on the line", ylabel=_LABEL)
        left.set_title("Along lines from one demonstration state to another", fontsize="small")
        _draw_curves(right, self.distances, self.away)
        right.set_xlabel("distance (sd of each dimension)")
        right.set_title("Moving away from the demonstrations", fontsize="small")
        self._draw_places(result.add_subplot(grid[1, :], sharey=left))
        return drawing.finish(result, left)

    def _draw_places(self, axis: Axes) -> None:
        places = [p for p in _PLACES if any(p in kinds for kinds in self.places.values())]
        offsets = np.linspace(-0.3, 0.3, len(self.places))
        for offset, (name, kinds) in zip(offsets, self.places.items(), strict=True):
            color = CLASSES[name][1]
            for index, place in enumerate(places):
                low, middle, high = kinds[place].mean
                axis.plot([index + offset] * 2, [low, high], color=color, alpha=0.4, linewidth=3)
                axis.plot(index + offset, middle, "o", color=color, markersize=6)
                noisy = kinds[place].action[1]
                if not np.isclose(noisy, middle):
                    axis.plot(
                        index + offset, noisy, "o", color=color, markersize=6, fillstyle="none"
                    )
        axis.set_xticks(range(len(places)), [_PLACES[place] for place in places])
        axis.set(xlim=(-0.5, len(places) - 0.5), ylabel=_LABEL)
        for edge in np.arange(len(places) - 1) + 0.5:
            axis.axvline(edge, color="#DDDDDD", linewidth=0.8)
        gps = any(name.endswith("gp") for name in self.places)
        axis.set_title(
            "Medians and 10 to 90 % bands over states"
            + ("; GP without observation noise, with it: dotted, open circles" if gps else ""),
            fontsize="small",
        )

    def maps(self, title: str) -> Figure:
        """Heat maps over the first two principal components, with one color scale."""
        plane = self.plane
        columns = min(2, len(plane.scales))
        rows = -(-len(plane.scales) // columns)
        result = drawing.new_figure((3.4 * columns + 0.7, 2.5 * rows + 0.7), title)
        panels = result.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        values = np.concatenate([grid.ravel() for grid in plane.scales.values()])
        norm = colors.LogNorm(*np.quantile(values, (0.005, 0.995)))
        picture: Any = None
        for panel, (name, scales) in zip(panels.flat, plane.scales.items(), strict=False):
            picture = panel.pcolormesh(
                plane.x, plane.y, scales, norm=norm, cmap="viridis", rasterized=True
            )
            for trajectory in plane.trajectories:
                panel.plot(*trajectory.T, color="white", linewidth=0.5, alpha=0.7)
            label, color = CLASSES[name]
            panel.set_title(label, fontsize="medium", color=color, fontweight="bold")
        for panel in panels.flat[len(plane.scales) :]:
            panel.set_visible(False)
        for row in panels:
            row[0].set_ylabel(f"component 2 ({plane.explained[1]:.0%})")
        for panel in panels[-1]:
            panel.set_xlabel(f"component 1 ({plane.explained[0]:.0%})")
        result.colorbar(picture, ax=panels, label=_LABEL.replace("\n", " "), extend="both")
        return result


def _draw_curves(axis: Axes, at: np.ndarray, curves: Mapping[str, Bands]) -> None:
    for name, bands in curves.items():
        label, color = CLASSES[name]
        low, middle, high = bands.mean
        axis.fill_between(at, low, high, color=color, alpha=0.13, linewidth=0)
        axis.plot(at, middle, color=color, linewidth=1.8, label=label)
        if not np.allclose(bands.mean, bands.action):
            axis.plot(at, bands.action[1], color=color, linewidth=1.0, linestyle=":")
    axis.set_yscale("log")


def measure_predictive_scales(
    priors: Mapping[str, BehavioralPrior],
    fitted: Demonstrations,
    held_out: Demonstrations,
    task: Task | None = None,
    num_states: int = 500,
    num_episodes: int = 5,
    grid_size: int = 48,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> PredictiveScales:
    """Measures the predictive scales of priors on and off the demonstrations.

    Args:
        priors: Unscaled priors by class, fitted to `fitted`.
        fitted: Demonstrations that the priors were fitted to.
        held_out: Other demonstrations of the same task.
        task: Task in which priors and random actions visit states; None skips these states.
        num_states: Maximum number of states of each kind; a fifth of them start a line.
        num_episodes: Number of episodes for each prior, and for random actions.
        grid_size: Points G per side of the heat maps.
        seed: Random seed.
        on_progress: Called with the class of each prior before it is measured.
    """
    rng = np.random.default_rng(seed)
    states = {
        "fitted": _some(fitted.observations, num_states, rng),
        "held_out": _some(held_out.observations, num_states, rng),
    }
    pairs = episode_pairs(fitted, max(num_states // 5, 2), rng)
    states["midpoints"] = pairs.mean(axis=0).astype(np.float32)
    along = np.concatenate([(1 - t) * pairs[0] + t * pairs[1] for t in _POSITIONS])
    starts = _some(fitted.observations, len(pairs[0]), rng)
    units = Standardization.of(fitted.observations)
    steps = np.where(
        fitted.observations.std(axis=0, dtype=np.float64) > 1e-8, units.scale, 0.0
    ) * rng.choice((-1.0, 1.0), size=starts.shape)
    away = np.concatenate([starts + distance * steps for distance in _DISTANCES])
    states["far"] = away[-len(starts) :]
    plane, grid = principal_plane(fitted, units, grid_size)
    if task is not None:
        visited = visited_states(task, None, num_episodes, seed)
        states["random"] = _some(visited, num_states, rng)

    places: dict[str, dict[str, Bands]] = {}
    lines, distances = {}, {}
    for name, prior in priors.items():
        on_progress(name)
        predict = predictor(prior)
        own = {}
        if task is not None:
            own["own"] = _some(visited_states(task, predict, num_episodes, seed), num_states, rng)
        kinds = {kind: predict(chosen) for kind, chosen in {**states, **own}.items()}
        places[name] = {kind: quantile_bands(prediction) for kind, prediction in kinds.items()}
        lines[name] = quantile_bands(predict(along), len(_POSITIONS))
        distances[name] = quantile_bands(predict(away), len(_DISTANCES))
        plane.scales[name] = _of_state(predict(grid).mean_scale).reshape(grid_size, grid_size)
    return PredictiveScales(places, _POSITIONS, lines, _DISTANCES, distances, plane)


def principal_components(states: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the directions of largest variance of states [N, D].

    Returns:
        Orthonormal directions [count, D], signed so that the component of largest magnitude is
        positive, and the shares of the variance that they explain, [count].
    """
    variances, directions = np.linalg.eigh(np.cov(states, rowvar=False))
    order = np.argsort(variances)[::-1][:count]
    chosen = directions[:, order].T
    largest = np.take_along_axis(chosen, np.abs(chosen).argmax(axis=1)[:, np.newaxis], axis=1)
    return chosen * np.sign(largest), variances[order] / variances.sum()


def principal_plane(
    fitted: Demonstrations, units: Standardization, grid_size: int
) -> tuple[Plane, np.ndarray]:
    """The plane, without scales yet, and the states of its points [G * G, D]."""
    states = units(fitted.observations)
    directions, explained = principal_components(states, 2)
    projected = states @ directions.T
    low, high = projected.min(axis=0), projected.max(axis=0)
    margin = 0.5 * (high - low)
    x, y = (np.linspace(a, b, grid_size) for a, b in zip(low - margin, high + margin, strict=True))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    nearest = np.array([np.argmin(np.square(projected - point).sum(axis=1)) for point in points])
    grid = states[nearest] + (points - projected[nearest]) @ directions
    trajectories = tuple(units(episode) @ directions.T for episode, _ in fitted.episodes())
    return Plane(x, y, {}, trajectories, explained), grid * units.scale + units.shift


def episode_pairs(fitted: Demonstrations, count: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs of states [2, count, D] of different episodes, if there are several."""
    lengths = np.diff(fitted.episode_ends, prepend=0)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    first = rng.integers(fitted.num_steps, size=count)
    second = [
        rng.choice(others if len(others) else fitted.num_steps)
        for others in (np.flatnonzero(episode != episode[index]) for index in first)
    ]
    return fitted.observations[np.stack([first, second])]


def visited_states(task: Task, predict: Predict | None, num_episodes: int, seed: int) -> np.ndarray:
    """States [N, D] visited by samples of a prior, or by uniform actions if None."""
    rng = np.random.default_rng(seed)

    def act(observations: np.ndarray) -> np.ndarray:
        if predict is None:
            shape = (len(observations), task.action_size)
            return rng.uniform(task.action_low, task.action_high, shape)
        prediction = predict(observations)
        return rng.normal(prediction.location, prediction.action_scale)

    episodes = rollouts.evaluate(act, task, num_episodes, seed, record=True)
    return np.concatenate(episodes.observations)


def _some(states: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    if len(states) <= count:
        return states
    return states[np.sort(rng.choice(len(states), count, replace=False))]


def _of_state(scale: np.ndarray) -> np.ndarray:
    """Geometric mean over action components: [N, A] -> [N]."""
    return np.exp(np.log(scale).mean(axis=1))


def quantile_bands(prediction: Prediction, groups: int = 0) -> Bands:
    """Quantiles over all states, or within each of several consecutive groups of equal size."""
    shape = (groups, -1) if groups else (-1,)
    return Bands(
        *(
            np.quantile(_of_state(scale).reshape(shape), QUANTILES, axis=-1)
            for scale in (prediction.mean_scale, prediction.action_scale)
        )
    )
