"""Checks of units: actions and their bounds, dimensions and episodes on other scales.

Glossary: E episodes, T steps of an episode, K size of an observation or action.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from nppac_tf.doctor.findings import (
    FIELDS,
    UNIT_FACTORS,
    Examination,
    Finding,
    Severity,
    concatenate,
    format_count,
    format_list,
    format_number,
)

_SCALE_RATIO = 1e3
_EPISODE_SCALE_RATIO = 20.0
_SATURATED_FRACTION = 0.2
_FEW_STEPS = 10
_SCALES_AND_MEANINGS = [
    (scale, meaning) for factor, meaning in UNIT_FACTORS.items() for scale in (factor, 1 / factor)
]
_SCALES = np.array([scale for scale, _ in _SCALES_AND_MEANINGS])
_SPREAD = 0.9  # Of the logarithms of three measures of size.
_TOLERANCE = 0.45
_UNITS = (("deg", "degree", "degrees"), ("rad", "radian", "radians"), ("mm",), ("cm",), ("m",))


def check_action_bounds(examination: Examination) -> Iterator[Finding]:
    """Finds actions beyond their bounds, often at them, or far from them."""
    task = examination.task
    if task is None or not examination.is_uniform:
        return
    actions = concatenate(examination.episodes, "actions")
    low, high = (np.asarray(bound, np.float64) for bound in (task.action_low, task.action_high))
    actions = actions[np.isfinite(actions).all(axis=1)]
    if actions.shape[1] != len(low) or not len(actions):
        return
    outside = (actions < low) | (actions > high)
    excess = np.maximum(low - actions, actions - high).max()
    often_outside = outside.mean() > _SATURATED_FRACTION
    if outside.any():
        yield Finding(
            "warning",
            "clipped actions",
            f"{outside.sum():,} of {outside.size:,} action values, in "
            f"{outside.any(axis=1).mean():.1%} of the steps, are outside the bounds of {task.name} "
            f"by up to {format_number(excess)}: they range over [{format_number(actions.min())}, "
            f"{format_number(actions.max())}]",
            "Scale them into the bounds: they seem to be in other units."
            if often_outside
            else "Nothing: loading clips them as the simulator does. In new recordings, "
            "store the executed actions.",
        )
    span = np.where(high > low, high - low, 1.0)
    at_bound = ((actions - low) / span < 1e-3) | ((high - actions) / span < 1e-3)
    if not often_outside and at_bound.mean() > _SATURATED_FRACTION:
        yield Finding(
            "note",
            "saturated actions",
            f"{at_bound.mean():.1%} of the action values are at their bounds or beyond",
            "Nothing: the actions were probably clipped when recorded, so the prior learns "
            "the bounds.",
        )
    used = np.abs(actions).max(axis=0) / np.maximum(np.abs(low), np.abs(high))
    if used.max() < 0.02:
        yield Finding(
            "warning",
            "tiny actions",
            f"all actions are within {used.max():.2%} of their bounds",
            "Scale them to the bounds of the task: they seem to be in other units.",
        )


def check_dimensions(examination: Examination) -> Iterator[Finding]:
    """Finds dimensions that are constant, or vary a thousand times more or less than others."""
    if not examination.is_uniform:
        return
    for field in FIELDS:
        values = concatenate(examination.episodes, field)
        values = values[np.isfinite(values).all(axis=1)]
        if len(values) < 2:
            continue
        scales = values.std(axis=0)
        constant = scales <= 1e-9 * np.maximum(1.0, np.abs(values).max(axis=0))
        moves = ~constant
        if constant.all():
            yield Finding(
                "error",
                f"constant {field}",
                f"all {field} are the same in every step",
                "Check how they were recorded.",
            )
            continue
        simulation = examination.simulation
        if field == "observations" and simulation is not None and simulation.idle is not None:
            constant &= ~simulation.idle
        if constant.any():
            which = examination.describe_dimensions(field, np.flatnonzero(constant))
            yield Finding(
                "note",
                f"constant {field}",
                f"{which} of the {field} never change{'' if constant.sum() > 1 else 's'}",
                "Nothing, if these are contacts that do not occur or parts that do not move; else "
                "check that the sensor was connected. Priors ignore such a dimension."
                if field == "observations"
                else "Check that this is intended: the prior will keep it constant too.",
            )
        ratio = scales / np.median(scales[moves])
        kinds: tuple[tuple[Severity, np.ndarray, str], ...] = (
            (
                "warning",
                moves & (ratio > _SCALE_RATIO),
                "Compare the units (degrees, millimeters, counts?) with those of the simulator.",
            ),
            (
                "note",
                moves & (ratio < 1 / _SCALE_RATIO),
                "Nothing, if these parts hardly move; priors take their noise for movement, so "
                "leave them out if it means nothing.",
            ),
        )
        for severity, extreme, advice in kinds:
            if extreme.any():
                which = examination.describe_dimensions(field, np.flatnonzero(extreme))
                least, most = (format_number(end(ratio[extreme])) for end in (np.min, np.max))
                many = f"vary {least} to {most}" if extreme.sum() > 1 else f"varies {least}"
                yield Finding(
                    severity,
                    "scales",
                    f"{which} of the {field} {many} times as much as the median dimension",
                    advice,
                )


def check_episode_scales(examination: Examination) -> Iterator[Finding]:
    """Finds episodes whose scale differs from the rest, probably in other units."""
    episodes = [e for e in examination.episodes if e.length >= _FEW_STEPS]
    if not examination.is_uniform or len(episodes) < 3:
        return
    indices = [k for k, e in enumerate(examination.episodes) if e.length >= _FEW_STEPS]
    for field in FIELDS:
        reach = np.stack([_reach(getattr(e, field)) for e in episodes])
        median = np.median(reach, axis=0)
        moving = median > 1e-6
        if not moving.any():
            continue
        ratio = reach[:, moving] / median[moving]
        needed = min(2, int(moving.sum()))
        odd = np.zeros(len(ratio), np.bool_)
        for flags, share in (
            (ratio > _EPISODE_SCALE_RATIO, 0.25),
            (ratio < 1 / _EPISODE_SCALE_RATIO, 0.5),
        ):
            odd |= flags.sum(axis=1) >= max(needed, share * flags.shape[1])
        wrong = [indices[position] for position in np.flatnonzero(odd)]
        if wrong:
            factor = float(np.median(ratio[odd][0]))
            yield Finding(
                "warning",
                "scales",
                f"the {field} of {format_count(wrong, examination.episodes)} differ in scale from "
                f"the rest, the first of them by a factor of about {format_number(factor)}",
                "Check the units of these episodes; a factor of 57.3 means degrees for radians.",
                examination.file_indices(wrong),
            )


def check_units_of_episodes(examination: Examination) -> Iterator[Finding]:
    """Finds episodes some of whose dimensions are larger or smaller by a factor between units.

    The median, the deviation and the greatest value must all differ from those of the median
    episode by about the factor, in at least two dimensions.
    """
    episodes = examination.episodes
    if not examination.is_finite or len(episodes) < 3:
        return
    for field in FIELDS:
        values = [np.abs(getattr(e, field)) for e in episodes]
        sizes = np.stack([[np.median(v, axis=0), v.std(axis=0), v.max(axis=0)] for v in values])
        usual = np.median(sizes, axis=0)
        moves = np.flatnonzero((usual > 1e-9).all(axis=0))
        logs = np.log(np.maximum(sizes[:, :, moves] / usual[:, moves], 1e-12))
        is_scaled = np.ptp(logs, axis=1) < _SPREAD
        distances = np.abs(np.median(logs, axis=1)[:, :, np.newaxis] - np.log(_SCALES))
        nearest = np.where(is_scaled, distances.argmin(axis=2), -1)
        nearest[distances.min(axis=2) > _TOLERANCE] = -1
        for index, (scale, meaning) in enumerate(_SCALES_AND_MEANINGS):
            fits = nearest == index
            # Parts that hardly move in an episode are small without being in other units.
            needed = min(2, len(moves)) if scale > 1 else max(2, 0.25 * len(moves))
            odd = np.flatnonzero(fits.sum(axis=1) >= needed).tolist() if len(moves) else []
            if odd and len(odd) <= len(episodes) / 2:
                which = examination.describe_dimensions(field, moves[fits[odd[0]]])
                yield Finding(
                    "warning",
                    "mixed units",
                    f"{which} of the {field} of {format_count(odd, episodes)} differ from the rest "
                    f"by a factor of about {format_number(scale)}, as {meaning} would be",
                    "Convert these episodes, or remove them.",
                    examination.file_indices(odd),
                )


def check_stated_units(examination: Examination) -> Iterator[Finding]:
    """Finds dimensions whose names state different units of one quantity."""
    for field in FIELDS:
        names = examination.recording.names(field)
        if names is None:
            continue
        stated = [_stated_unit(name) for name in names]
        for one, other in ((0, 1), (2, 3), (2, 4), (3, 4)):
            if one in stated and other in stated:
                pair = [names[stated.index(unit)] for unit in (one, other)]
                yield Finding(
                    "note",
                    "mixed units",
                    f"the names of the {field} state {_UNITS[one][0]} and {_UNITS[other][0]}: "
                    f"{format_list(pair)}, for example",
                    "Nothing, if the task has the same units.",
                )


def _stated_unit(name: str) -> int | None:
    """The unit, as a position in `_UNITS`, that ends a name such as "yaw_deg" or "x [mm]"."""
    words = re.findall(r"[a-z]+", name.lower())
    last = words[-1] if len(words) > 1 else ""
    return next((k for k, unit in enumerate(_UNITS) if last in unit), None)


def _reach(values: np.ndarray) -> np.ndarray:
    """The 99 % quantile of the magnitude of each column, [K]."""
    return np.quantile(np.abs(np.nan_to_num(values)), 0.99, axis=0)
