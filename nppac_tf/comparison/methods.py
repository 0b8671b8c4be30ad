"""Runs that differ in seeds alone are one method; what tells methods apart names them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from nppac_tf.comparison.archive import Run, printable
from nppac_tf.errors import UserError
from nppac_tf.files import folder_name

_SEED_FOLDER = re.compile(r"seed\d+(_prior\d+)?")
# First among what names a method.
_FOREMOST = "prior.prior"


class Method(NamedTuple):
    """Runs of one configuration.

    Attributes:
        name: Tells it from the other methods; one printable line.
        runs: At least one, of different seeds.
    """

    name: str
    runs: tuple[Run, ...]


class Difference(NamedTuple):
    """A setting in which methods differ.

    Attributes:
        setting: Its dotted name.
        values: One per method, as text; empty where the method has no such setting.
    """

    setting: str
    values: tuple[str, ...]


def group(runs: Sequence[Run]) -> tuple[Method, ...]:
    """Puts runs together that differ in seeds, or in length, alone.

    A run in a folder .../TASK/METHOD/seedN has its method's name from there, and is apart from runs
    of other names. Other methods are named by the folders that hold their seedN folders, if each of
    several has its own; else by the settings that tell them apart, or by the one prior that there
    is.

    Raises:
        UserError: if two runs of a method have the same seeds.
    """
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[Run]] = {}
    for run in runs:
        groups.setdefault((_layout_name(run), tuple(sorted(run.settings.items()))), []).append(run)
    for alike in groups.values():
        _require_different_seeds(alike)
    members = [tuple(alike) for alike in groups.values()]
    layouts = [layout for layout, _ in groups]
    labels = _folders(members) or _labels([alike[0].settings for alike in members])
    names = [
        _told_apart(layout, label, layouts.count(layout) > 1)
        for layout, label in zip(layouts, labels, strict=True)
    ]
    return tuple(Method(printable(name), alike) for name, alike in zip(names, members, strict=True))


def differences(methods: Sequence[Method]) -> tuple[Difference, ...]:
    """The settings in which methods differ, in the order of the configuration."""
    settings = [method.runs[0].settings for method in methods]
    return tuple(
        Difference(printable(name), tuple(printable(each.get(name, "")) for each in settings))
        for name in _differing(settings)
    )


def seed_folders(method: Method) -> tuple[str, ...]:
    """A folder's name for each run of a method: seedN, or seedN_priorM where N alone is not one."""
    repeated = len({run.seeds[0] for run in method.runs}) < len(method.runs)
    return tuple(
        folder_name(f"seed{run.seeds[0]}" + (f"_prior{run.seeds[1]}" if repeated else ""))
        for run in method.runs
    )


def folder_of(method: Method) -> str | None:
    """The name of the folder that holds a method's seedN folders; None where there is none."""
    return _folder(method.runs)


def _folder(runs: Sequence[Run]) -> str | None:
    names = {
        path.parent.name if _SEED_FOLDER.fullmatch(path.name) else ""
        for path in (run.path.resolve() for run in runs)
    }
    return names.pop() or None if len(names) == 1 else None


def _folders(members: Sequence[Sequence[Run]]) -> list[str]:
    """The folder of each of several methods, if all are different; else none."""
    names = [_folder(runs) for runs in members]
    found = [name for name in names if name is not None]
    return found if 1 < len(set(found)) == len(names) else []


def _layout_name(run: Run) -> str:
    path = run.path.resolve()
    fits = _SEED_FOLDER.fullmatch(path.name) and path.parents[1].name == folder_name(run.task)
    return path.parent.name if fits else ""


def _require_different_seeds(runs: Sequence[Run]) -> None:
    found: dict[tuple[str, str], Run] = {}
    for run in runs:
        if run.seeds in found:
            seed, prior_seed = map(printable, run.seeds)
            raise UserError(
                f"runs of one configuration must differ in seed; got {found[run.seeds].path} and "
                f"{run.path}, both with seed {seed} and prior_seed {prior_seed}: leave one out"
            )
        found[run.seeds] = run


def _differing(settings: Sequence[dict[str, str]]) -> list[str]:
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if len({each.get(name) for each in settings}) > 1]


def _labels(settings: Sequence[dict[str, str]]) -> list[str]:
    """The fewest settings, taken in order, that tell all apart."""
    chosen: list[str] = []

    def parts(names: list[str]) -> int:
        return len({tuple(each.get(name) for name in names) for each in settings})

    for name in sorted(_differing(settings), key=lambda name: name != _FOREMOST):
        if parts([*chosen, name]) > parts(chosen):
            chosen.append(name)
    shown = chosen or [_FOREMOST]
    return [
        ", ".join(f"{name.rpartition('.')[2]}={each.get(name, 'none')}" for name in shown)
        for each in settings
    ]


def _told_apart(layout: str, label: str, ambiguous: bool) -> str:
    if not layout:
        return label
    return f"{layout} ({label})" if ambiguous else layout
