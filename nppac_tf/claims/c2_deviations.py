"""C2 and C5: what becomes of a prior's predictive deviation away from the demonstrations.

Glossary: N states, D observation components, A action components.

A state's deviation is the geometric mean over action components, in units of the action. That of
a Gaussian process is given twice: of the posterior mean, sqrt(Sigma0), which the paper speaks of,
and of an action, sqrt(Sigma0 + noise). A network knows only the latter.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from nppac_tf.claims.writing import Table
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task
from nppac_tf.errors import UserError
from nppac_tf.evaluation import rollouts
from nppac_tf.priors import scores
from nppac_tf.priors.base import BehavioralPrior
from nppac_tf.priors.gaussian_process import GaussianProcessPrior
from nppac_tf.priors.standardization import Standardization

LEVELS = (0.5, 0.9, 0.99)
QUANTILES = (0.1, 0.5, 0.9)
COLLAPSE_FACTOR = 2.0
RISE_FACTOR = 10.0
FAR = 10.0
_DISTANCES = np.array([0.0, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, FAR])
_POSITIONS = np.linspace(0.0, 1.0, 21)
_BATCH = 512


class Prediction(NamedTuple):
    """What a prior says of N states, [N, A] float64 each.

    Attributes:
        location: Of the action.
        mean_deviation: sqrt(Sigma0) for a Gaussian process; else the same as `action_deviation`.
        action_deviation: Of an action, noise included.
    """

    location: np.ndarray
    mean_deviation: np.ndarray
    action_deviation: np.ndarray


Predict = Callable[[np.ndarray], Prediction]


class Bands(NamedTuple):
    """The 10, 50 and 90 % quantiles over states of the deviation, [3] or [3, K].

    Attributes:
        mean: Of `Prediction.mean_deviation`.
        action: Of `Prediction.action_deviation`.
    """

    mean: np.ndarray
    action: np.ndarray


class Accuracy(NamedTuple):
    """How well a prior predicts held-out actions.

    Attributes:
        coverage: [L] shares of action components within the central intervals of `LEVELS`.
        mean_coverage: The same without a Gaussian process's noise.
        log_likelihood: Nats per action, noise included.
        mean_log_likelihood: Without.
        error: Root mean squared, in units of the action.
    """

    coverage: np.ndarray
    mean_coverage: np.ndarray
    log_likelihood: float
    mean_log_likelihood: float
    error: float


class Map(NamedTuple):
    """The plane of the first two principal components of the standardized states.

    A point of the plane is taken through the data: the demonstration state nearest to it in the
    plane gives all other components.

    Attributes:
        x: [G] first component, in standard deviations of the states' dimensions.
        y: [G] second component.
        deviations: By class, [G, G], rows by y; of `Prediction.mean_deviation`.
        trajectories: Of each fitted episode, [T, 2].
        explained: [2] shares of the variance.
    """

    x: np.ndarray
    y: np.ndarray
    deviations: dict[str, np.ndarray]
    trajectories: tuple[np.ndarray, ...]
    explained: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Deviations:
    """Predictive deviations of several classes of priors, on and off the demonstrations.

    Attributes:
        places: By class, kind of states -> bands [3]. "fitted", "held_out", "midpoints" (between
            states of two episodes), "far" (10 deviations away in every dimension) and, with a task,
            "own" (states that a sample of the prior itself visits) and "random" (those that uniform
            actions visit).
        positions: [K] from one demonstration state to another, 0 to 1.
        lines: By class, along those lines, bands [3, K].
        distances: [J] from demonstration states, in standard deviations of each dimension.
        away: By class, bands [3, J].
        plane: Heat maps.
        accuracy: By class, on held-out episodes.
    """

    places: dict[str, dict[str, Bands]]
    positions: np.ndarray
    lines: dict[str, Bands]
    distances: np.ndarray
    away: dict[str, Bands]
    plane: Map
    accuracy: dict[str, Accuracy]

    def ratios(self, name: str) -> dict[str, float]:
        """Median of `mean_deviation` off the data over that on it, by kind of states."""
        medians = {place: float(bands.mean[1]) for place, bands in self.places[name].items()}
        return {place: value / medians["fitted"] for place, value in medians.items()}

    def numbers(self) -> dict[str, Any]:
        """For c2.json and c5.json."""
        aims: dict[str, Any] = {}
        classes = {}
        for name in self.places:
            ratios = self.ratios(name)
            off = {place: ratios[place] for place in ("far", "own", "random") if place in ratios}
            accuracy = self.accuracy[name]
            classes[name] = {
                "median_deviation": {p: b.mean[1] for p, b in self.places[name].items()},
                "median_deviation_with_noise": {
                    p: b.action[1] for p, b in self.places[name].items()
                },
                "ratio_to_fitted": ratios,
                "held_out": {
                    "levels": LEVELS,
                    "coverage": accuracy.coverage,
                    "coverage_without_noise": accuracy.mean_coverage,
                    "log_likelihood_nats": accuracy.log_likelihood,
                    "log_likelihood_without_noise_nats": accuracy.mean_log_likelihood,
                    "root_mean_squared_error": accuracy.error,
                },
            }
            if name == "gaussian_network":
                aims["network_stays_within_twice_its_value_on_data"] = {
                    place: ratio <= COLLAPSE_FACTOR for place, ratio in off.items()
                }
            if name.endswith("_gp"):
                aims[f"{name}_rises_tenfold"] = {
                    place: ratio >= RISE_FACTOR for place, ratio in off.items()
                }
                aims[f"{name}_90_percent_interval_covers_85_to_95"] = bool(
                    0.85 <= accuracy.coverage[1] <= 0.95
                )
        return {"aims": aims, "classes": classes}

    def table(self) -> Table:
        """For c2.csv: a row per class and kind, position or distance of states."""
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

    def accuracy_table(self) -> Table:
        """For c5.csv: a row per class."""
        columns = ("prior", *(f"coverage_{level:g}" for level in LEVELS))
        without = (f"without_noise_coverage_{level:g}" for level in LEVELS)
        rows = [
            (name, *a.coverage, *a.mean_coverage, a.log_likelihood, a.mean_log_likelihood, a.error)
            for name, a in self.accuracy.items()
        ]
        ends = ("log_likelihood", "without_noise_log_likelihood", "root_mean_squared_error")
        return (*columns, *without, *ends), rows


def predictor(prior: BehavioralPrior) -> Predict:
    """A fitted, unscaled prior's predictions, compiled and in batches.

    Raises:
        UserError: for a Gaussian process without its noise: both deviations are to be had.
    """
    action_scale = None
    if isinstance(prior, GaussianProcessPrior):
        settings, arrays = prior.state()
        if not settings["observation_noise"]:
            raise UserError("observation_noise must be true: both deviations are told; got false")
        action_scale = arrays["action_scale"]
    compiled = tf.function(
        prior.predict if action_scale is not None else prior.statistics, reduce_retracing=True
    )

    def predict(observations: np.ndarray) -> Prediction:
        parts = []
        for start in range(0, len(observations), _BATCH):
            outcome = compiled(tf.constant(observations[start : start + _BATCH], tf.float32))
            if action_scale is None:
                location, scale = (x.numpy().astype(np.float64) for x in outcome)
                parts.append((location, scale, scale))
            else:
                (location, scale), uncertainty = outcome
                deviation = np.exp(uncertainty.numpy().astype(np.float64))
                parts.append(
                    (location.numpy(), deviation[:, np.newaxis] * action_scale, scale.numpy())
                )
        return Prediction(*(np.concatenate(p).astype(np.float64) for p in zip(*parts, strict=True)))

    return predict


def measure_deviations(
    priors: Mapping[str, BehavioralPrior],
    fitted: Demonstrations,
    held_out: Demonstrations,
    task: Task | None = None,
    num_states: int = 500,
    num_episodes: int = 5,
    grid_size: int = 48,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Deviations:
    """Predictive deviations of priors on and off the demonstrations.

    Args:
        priors: By class, fitted to `fitted`, unscaled, Gaussian processes with noise.
        fitted: Demonstrations that the priors know.
        held_out: Others of the same task.
        task: Where states are visited; none are where None.
        num_states: Of each kind at most; a fifth of them begin a line.
        num_episodes: That each prior acts, and as many of random actions.
        grid_size: G, of the heat maps.
        seed: Of all choices.
        on_progress: Is told which prior is being measured.
    """
    rng = np.random.default_rng(seed)
    states = {
        "fitted": _some(fitted.observations, num_states, rng),
        "held_out": _some(held_out.observations, num_states, rng),
    }
    pairs = _pairs(fitted, max(num_states // 5, 2), rng)
    states["midpoints"] = pairs.mean(axis=0).astype(np.float32)
    along = np.concatenate([(1 - t) * pairs[0] + t * pairs[1] for t in _POSITIONS])
    starts = _some(fitted.observations, len(pairs[0]), rng)
    units = Standardization.of(fitted.observations)
    steps = np.where(
        fitted.observations.std(axis=0, dtype=np.float64) > 1e-8, units.scale, 0.0
    ) * rng.choice((-1.0, 1.0), size=starts.shape)
    away = np.concatenate([starts + distance * steps for distance in _DISTANCES])
    states["far"] = away[-len(starts) :]
    plane, grid = _plane(fitted, units, grid_size)
    if task is not None:
        visited = _visit(task, None, num_episodes, seed)
        states["random"] = _some(visited, num_states, rng)

    places: dict[str, dict[str, Bands]] = {}
    lines, distances, accuracy = {}, {}, {}
    for name, prior in priors.items():
        on_progress(name)
        predict = predictor(prior)
        own = {}
        if task is not None:
            own["own"] = _some(_visit(task, predict, num_episodes, seed), num_states, rng)
        kinds = {kind: predict(chosen) for kind, chosen in {**states, **own}.items()}
        places[name] = {kind: _bands(prediction) for kind, prediction in kinds.items()}
        lines[name] = _bands(predict(along), len(_POSITIONS))
        distances[name] = _bands(predict(away), len(_DISTANCES))
        deviation = _of_state(predict(grid).mean_deviation)
        plane.deviations[name] = deviation.reshape(grid_size, grid_size)
        accuracy[name] = _accuracy(predict(held_out.observations), held_out.actions)
    return Deviations(places, _POSITIONS, lines, _DISTANCES, distances, plane, accuracy)


def principal_components(states: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The directions of largest variance of states [N, D].

    Returns:
        Directions [count, D], orthonormal, the component largest in magnitude positive, and the
        shares of the variance that they explain, [count].
    """
    variances, directions = np.linalg.eigh(np.cov(states, rowvar=False))
    order = np.argsort(variances)[::-1][:count]
    chosen = directions[:, order].T
    largest = np.take_along_axis(chosen, np.abs(chosen).argmax(axis=1)[:, np.newaxis], axis=1)
    return chosen * np.sign(largest), variances[order] / variances.sum()


def _plane(
    fitted: Demonstrations, units: Standardization, grid_size: int
) -> tuple[Map, np.ndarray]:
    """The map, its deviations still to come, and the states of its points [G * G, D]."""
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
    return Map(x, y, {}, trajectories, explained), grid * units.scale + units.shift


def _pairs(fitted: Demonstrations, count: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs of states [2, count, D] of different episodes, where there are several."""
    lengths = np.diff(fitted.episode_ends, prepend=0)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    first = rng.integers(fitted.num_steps, size=count)
    second = [
        rng.choice(others if len(others) else fitted.num_steps)
        for others in (np.flatnonzero(episode != episode[index]) for index in first)
    ]
    return fitted.observations[np.stack([first, second])]


def _visit(task: Task, predict: Predict | None, num_episodes: int, seed: int) -> np.ndarray:
    """States [N, D] that samples of a prior visit, or for None uniform actions."""
    rng = np.random.default_rng(seed)

    def act(observations: np.ndarray) -> np.ndarray:
        if predict is None:
            shape = (len(observations), task.action_size)
            return rng.uniform(task.action_low, task.action_high, shape)
        prediction = predict(observations)
        return rng.normal(prediction.location, prediction.action_deviation)

    episodes = rollouts.evaluate(act, task, num_episodes, seed, record=True)
    return np.concatenate(episodes.observations)


def _some(states: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    if len(states) <= count:
        return states
    return states[np.sort(rng.choice(len(states), count, replace=False))]


def _of_state(deviation: np.ndarray) -> np.ndarray:
    """Geometric mean over action components, [N] of [N, A]."""
    return np.exp(np.log(deviation).mean(axis=1))


def _bands(prediction: Prediction, groups: int | None = None) -> Bands:
    """Over all states, or within each of several groups of equal size, one after the other."""
    both = (
        _of_state(prediction.mean_deviation),
        _of_state(prediction.action_deviation),
    )
    if groups is None:
        return Bands(*(np.quantile(values, QUANTILES) for values in both))
    return Bands(*(np.quantile(v.reshape(groups, -1), QUANTILES, axis=1) for v in both))


def _accuracy(prediction: Prediction, actions: np.ndarray) -> Accuracy:
    location, mean_deviation, action_deviation = prediction
    return Accuracy(
        scores.coverage(actions, location, action_deviation, LEVELS),
        scores.coverage(actions, location, mean_deviation, LEVELS),
        float(scores.log_likelihood(actions, location, action_deviation).mean()),
        float(scores.log_likelihood(actions, location, mean_deviation).mean()),
        scores.root_mean_squared_error(actions, location),
    )
