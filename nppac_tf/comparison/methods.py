"""Groups runs into methods: runs that differ only in seeds or length are one method."""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from nppac_tf.comparison.archive import Run, printable
from nppac_tf.errors import UserError
from nppac_tf.files import folder_name

# Display name and color of methods by the name of their folder, the same in all tables and figures.
# The colors are Okabe and Ito's, which are safe for color-blind readers, and some of Paul Tol's.
METHODS = {
    "nppac": ("N-PPAC", "#0072B2"),
    "nppac_paper": ("N-PPAC (paper)", "#56B4E9"),
    "cloning_gp": ("BC (GP mean)", "#009E73"),
    "cloning_network": ("BC (network)", "#8C510A"),
    "awac": ("AWAC", "#E69F00"),
    "brac": ("BRAC", "#D55E00"),
    "rlpd": ("RLPD", "#CC79A7"),
    "rlpd_own": ("RLPD (20 updates)", "#882255"),
    "sacfd": ("SACfD", "#666666"),
    "sac": ("SAC", "#999933"),
}
# For all others; Paul Tol's.
_COLORS = (
    *("#332288", "#44AA99", "#CC6677", "#117733", "#AA4499", "#DDCC77"),
    *("#661100", "#6699CC", "#AA4466", "#4477AA"),
)
_STYLES = ("-", "--", ":")
_ACRONYMS = re.compile(r"\b(gp|kl|rbf)\b")
# Folders of runs that change one thing are called so; readers see what is changed.
_PREFIX = re.compile(r"(ablation|trial)_(?=.)")
_SEED_FOLDER = re.compile(r"seed\d+(_prior\d+)?")
_FIRST_SETTING = "prior.prior"  # Comes first in names made of settings.


class Method(NamedTuple):
    """Runs of one configuration.

    Attributes:
        name: Unique printable name.
        runs: One or more runs with different seeds.
    """

    name: str
    runs: tuple[Run, ...]


class Difference(NamedTuple):
    """A setting in which methods differ.

    Attributes:
        setting: Dotted name.
        values: Value for each method, as text.
    """

    setting: str
    values: tuple[str, ...]


def group(runs: Sequence[Run]) -> tuple[Method, ...]:
    """Groups runs that differ only in seeds or length.

    Only the settings that every run records are compared, so runs of different versions can be one
    method; `unshared_settings` gives the others. Runs in folders .../TASK/METHOD/seedN are named
    after their folder and are separate from runs of other names. Other methods are named after the
    folders that hold their seedN folders, if these are unique, and otherwise after the settings
    that distinguish them.

    Raises:
        UserError: if two runs of a method have the same seeds.
    """
    names = _shared(runs)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        key = (_layout_name(run), *(run.settings[name] for name in names))
        groups.setdefault(key, []).append(run)
    for members in groups.values():
        _require_different_seeds(members)
    layouts = [layout for layout, *_ in groups]
    shown = _shown(layouts)
    labels = _folder_labels(list(groups.values())) or _setting_labels(
        [{name: members[0].settings[name] for name in names} for members in groups.values()]
    )
    methods = []
    for layout, label, members in zip(layouts, labels, groups.values(), strict=True):
        name = shown.get(layout) or METHODS.get(label, (label,))[0]
        if layout and layouts.count(layout) > 1:
            name = f"{name} ({label})"
        methods.append(Method(printable(name), tuple(members)))
    return tuple(methods)


def styles(methods: Sequence[Method]) -> list[tuple[str, str]]:
    """Color and line style of each method: its own if it has one, else the next that is no one's.

    With more methods than colors the colors repeat with dashed and dotted lines.
    """
    own = {name: (color, "-") for name, color in METHODS.values()}
    left = itertools.cycle([(color, style) for style in _STYLES for color in _COLORS])
    return [own[method.name] if method.name in own else next(left) for method in methods]


def differences(methods: Sequence[Method]) -> tuple[Difference, ...]:
    """Returns the settings in which methods differ, in the order of the configuration."""
    settings = [method.runs[0].settings for method in methods]
    names = _shared([run for method in methods for run in method.runs])
    return tuple(
        Difference(printable(name), tuple(printable(each[name]) for each in settings))
        for name in names
        if len({each[name] for each in settings}) > 1
    )


def unshared_settings(runs: Sequence[Run]) -> tuple[str, ...]:
    """Returns the settings that only some of the runs record, which are not compared."""
    shared = set(_shared(runs))
    return tuple(dict.fromkeys(name for run in runs for name in run.settings if name not in shared))


def seed_folders(method: Method) -> tuple[str, ...]:
    """Returns a folder name for each run: seedN, or seedN_priorM where seeds N repeat."""
    repeated = len({run.seeds[0] for run in method.runs}) < len(method.runs)
    return tuple(
        folder_name(f"seed{run.seeds[0]}" + (f"_prior{run.seeds[1]}" if repeated else ""))
        for run in method.runs
    )


def folder_of(method: Method) -> str | None:
    """Returns the name of the folder that holds a method's seedN folders; None without one."""
    return _folder(method.runs)


def _shared(runs: Sequence[Run]) -> list[str]:
    return [name for name in runs[0].settings if all(name in run.settings for run in runs)]


def _folder(runs: Sequence[Run]) -> str | None:
    paths = [run.path.resolve() for run in runs]
    names = {path.parent.name if _SEED_FOLDER.fullmatch(path.name) else "" for path in paths}
    return names.pop() or None if len(names) == 1 else None


def _shown(layouts: Sequence[str]) -> dict[str, str]:
    """Names of folders for readers, where they stay different."""
    names = {
        layout: METHODS[layout][0]
        if layout in METHODS
        else _ACRONYMS.sub(
            lambda found: found[0].upper(), _PREFIX.sub("", layout).replace("_", " ")
        )
        if _PREFIX.match(layout)
        else layout
        for layout in layouts
    }
    return names if len(set(names.values())) == len(names) else {each: each for each in layouts}


def _layout_name(run: Run) -> str:
    """Returns METHOD of a run in .../TASK/METHOD/seedN, otherwise an empty string."""
    path = run.path.resolve()
    fits = _SEED_FOLDER.fullmatch(path.name) and path.parents[1].name == folder_name(run.task)
    return path.parent.name if fits else ""


def _folder_labels(members: Sequence[Sequence[Run]]) -> list[str]:
    """Returns the folder of each method if there are several and all differ."""
    names = [name for name in map(_folder, members) if name is not None]
    return names if 1 < len(set(names)) == len(members) else []


def _setting_labels(settings: Sequence[dict[str, str]]) -> list[str]:
    """Labels methods by the first settings that distinguish all of them."""
    chosen: list[str] = []

    def parts(names: list[str]) -> int:
        return len({tuple(each.get(name) for name in names) for each in settings})

    for name in sorted(settings[0], key=lambda name: name != _FIRST_SETTING):
        if parts([*chosen, name]) > parts(chosen):
            chosen.append(name)
    shown = chosen or [_FIRST_SETTING]
    return [
        ", ".join(f"{name.rpartition('.')[2]}={each.get(name, 'none')}" for name in shown)
        for each in settings
    ]


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
