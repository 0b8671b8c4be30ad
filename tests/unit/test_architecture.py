"""The laws of the code base, read from its import statements.

1. Imports point one way: LAYERS.
2. One dependency, one door: DOORS.
3. Importing the package imports nothing slow, and a launcher answers --help at once.
4. What is imported is declared in pyproject.toml, and what is declared is pinned.
"""

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sources import PACKAGE, ROOT, Module, home_of, parse, read_modules, within

# From the bottom up. A module imports from the layers below its own, and from its own layer as long
# as no cycle comes of it. A package (demonstrations, priors, baselines) stands for all its modules.
# The launchers in launch/ lie above all: they may import any of these, and none imports a launcher.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {"archives", "errors", "config", "divergences", "files", "precision", "seeding", "threads"}
        | {"ineffective"}
    ),
    frozenset({"demonstrations", "priors", "networks"}),
    frozenset({"replay", "environments", "evaluation", "reenactment", "agent", "transitions"})
    | frozenset({"agent_arguments", "batch_sac", "inputs"}),
    frozenset(
        {
            "baselines",
            "benchmark_figures",
            "benchmarks",
            "checkpoints",
            "claim_figures",
            "diagnostics",
            "export",
            "plotting",
            "progress",
        }
    )
    | frozenset(
        {"collection", "foresight", "learning", "metrics", "monitor", "reports", "rundir"}
        | {"training", "video"}
    )
    | frozenset({"reporting"}),
    frozenset({"runs", "sweeps"}),
)

# The only modules that may import a dependency, at any depth of the code.
DOORS: Mapping[str, tuple[str, ...]] = {
    "gpflow": ("nppac_tf.priors.gaussian_process",),
    "gymnasium": (
        "nppac_tf.environments.tasks",
        "nppac_tf.environments.hand",
        "nppac_tf.environments.simulators",
    ),
    "gymnasium_robotics": ("nppac_tf.environments.simulators",),
    "mujoco": ("nppac_tf.environments.simulators",),
    "matplotlib": (
        "nppac_tf.plotting",
        "nppac_tf.claim_figures",
        "nppac_tf.benchmark_figures",
        "nppac_tf.reporting.figures",
    ),
    "minari": ("nppac_tf.demonstrations.minari_data",),
    "h5py": ("nppac_tf.demonstrations.minari_data",),
    "imageio_ffmpeg": ("nppac_tf.video",),
    "rliable": ("nppac_tf.reporting.intervals",),
    "ray": ("nppac_tf.sweeps.cluster",),
    "rich": ("nppac_tf.progress", "nppac_tf.sweeps.display"),
    "absl.app": ("launch.program",),
    "absl.flags": ("launch",),
}

# What a launcher may import of the package before main() runs: nothing beyond the standard library
# comes with these.
LIGHT = (
    "nppac_tf.config",
    "nppac_tf.errors",
    "nppac_tf.threads",
    "nppac_tf.UserError",
    "nppac_tf.__version__",
)

# They come with gym and Gymnasium, and are imported only to silence their notices.
UNDECLARED = ("farama_notifications", "gym_notices")

# Parts of the package that never load TensorFlow, so that data can be handled, and sweeps planned,
# watched and summed up, without it.
WITHOUT_TENSORFLOW = (
    "nppac_tf.config",
    "nppac_tf.demonstrations",
    "nppac_tf.errors",
    "nppac_tf.inputs",
    "nppac_tf.sweeps.cluster",
    "nppac_tf.sweeps.plan",
    "nppac_tf.sweeps.results",
)
TENSORFLOW = ("gpflow", "keras", "tensorflow", "tensorflow_probability", "tf_agents")


def layer_of(name: str) -> int | None:
    """The layer of a name inside the package, or None where the table has no place for it."""
    unit = name.split(".")[1]
    return next((i for i, layer in enumerate(LAYERS) if unit in layer), None)


def layer_violations(modules: list[Module]) -> list[str]:
    """Arrows that point upwards, into launch/, or through the package's facade."""
    found = []
    for module in modules:
        if module.name == PACKAGE:  # The facade names modules of every layer, for type checkers.
            continue
        own = layer_of(module.name)
        if own is None:
            found.append(f"{module.path}: give {module.name} a place in LAYERS")
            continue
        for item in module.imports:
            where = f"{module.path}:{item.line}: {module.name} imports {item.target}"
            if within(item.target, "launch"):
                found.append(f"{where}, a launcher")
            elif within(item.target, PACKAGE):
                other = layer_of(item.target) if item.target != PACKAGE else None
                if other is None:
                    found.append(f"{where}, which is in no layer: name the module that defines it")
                elif other > own:
                    found.append(f"{where}, which lies {other - own} layers above it")
    return found


def import_cycle(modules: list[Module]) -> list[str]:
    """A cycle of imports within the package, as the names along it; empty if there is none."""
    by_name = {module.name: module for module in modules}
    arrows = {
        module.name: sorted(
            {home_of(item.target, by_name) for item in module.imports}
            & by_name.keys() - {module.name}
        )
        for module in modules
        if module.name != PACKAGE
    }
    finished: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name not in finished:
            for successor in arrows.get(name, ()):
                if cycle := walk(successor, [*trail, name]):
                    return cycle
            finished.add(name)
        return []

    return next((cycle for name in arrows if (cycle := walk(name, []))), [])


def door_violations(modules: list[Module]) -> list[str]:
    """Imports of a guarded dependency anywhere but at its door."""
    return [
        f"{module.path}:{item.line}: only {' and '.join(doors)} may import {dependency}"
        for module in modules
        for item in module.imports
        for dependency, doors in DOORS.items()
        if within(item.target, dependency) and not any(within(module.name, door) for door in doors)
    ]


def launcher_violations(launchers: list[Module]) -> list[str]:
    """Imports that a launcher makes before main() runs, other than absl, stdlib and LIGHT."""
    siblings = {launcher.name.rpartition(".")[2] for launcher in launchers}
    return [
        f"{launcher.path}:{item.line}: import {item.target} inside main, so that --help is quick"
        for launcher in launchers
        for item in launcher.imports
        if item.runs_at_import
        and item.target.split(".")[0] not in sys.stdlib_module_names | siblings | {"absl"}
        and item.target != PACKAGE
        and not any(within(item.target, light) for light in LIGHT)
    ]


def tensorflow_violations(modules: list[Module]) -> list[str]:
    """Imports, at import time, that would bring TensorFlow into a part that does without."""
    by_name = {module.name: module for module in modules}
    found = []
    for start in modules:
        if not any(within(start.name, part) for part in WITHOUT_TENSORFLOW):
            continue
        queue, seen = [start], {start.name}
        while queue:
            module = queue.pop()
            for item in module.imports:
                if not item.runs_at_import:
                    continue
                if item.target.split(".")[0] in TENSORFLOW:
                    found.append(
                        f"{module.path}:{item.line}: {start.name} would load {item.target}"
                    )
                home = home_of(item.target, by_name)
                if home in by_name and home not in seen and home != PACKAGE:
                    seen.add(home)
                    queue.append(by_name[home])
    return found


PACKAGE_MODULES = read_modules(PACKAGE)
LAUNCHERS = read_modules("launch")


def test_imports_point_one_way() -> None:
    assert layer_violations(PACKAGE_MODULES) == []


def test_imports_have_no_cycle() -> None:
    assert " -> ".join(import_cycle(PACKAGE_MODULES)) == ""


def test_each_dependency_has_one_door() -> None:
    assert door_violations(PACKAGE_MODULES + LAUNCHERS) == []


def test_launchers_import_lightly() -> None:
    assert launcher_violations(LAUNCHERS) == []


def test_data_is_handled_without_tensorflow() -> None:
    assert tensorflow_violations(PACKAGE_MODULES) == []


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("nppac_tf.priors.base", "from nppac_tf.agent import NppacAgent", "1 layers above"),
        ("nppac_tf.config", "from nppac_tf import training", "3 layers above"),
        ("nppac_tf.config", "def f():\n    import nppac_tf.agent", "2 layers above"),
        ("nppac_tf.priors.base", "from ..agent import NppacAgent", "1 layers above"),
        ("nppac_tf.agent", "from nppac_tf import make_task", "in no layer"),
        ("nppac_tf.agent", "import nppac_tf", "in no layer"),
        ("nppac_tf.agent", "import launch.train", "a launcher"),
        ("nppac_tf.unheard_of", "", "give nppac_tf.unheard_of a place"),
    ],
)
def test_an_arrow_upwards_is_found(name: str, source: str, complaint: str) -> None:
    (violation,) = layer_violations([parse(name, source)])
    assert complaint in violation


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("nppac_tf.training", "from nppac_tf import config\nfrom nppac_tf.priors import base"),
        ("nppac_tf.evaluation", "from nppac_tf.environments import Task"),
        ("nppac_tf.priors.base", "from . import gaussian_process\nfrom .. import divergences"),
        ("nppac_tf", "from nppac_tf.training import train"),
    ],
)
def test_an_arrow_downwards_is_allowed(name: str, source: str) -> None:
    assert layer_violations([parse(name, source)]) == []


def test_a_cycle_is_found() -> None:
    modules = [
        parse("nppac_tf.replay", "from nppac_tf.agent import NppacAgent"),
        parse("nppac_tf.agent", "def f():\n    from nppac_tf import environments"),
        parse("nppac_tf.environments", "import nppac_tf.replay"),
    ]
    assert len(import_cycle(modules)) == 4
    assert import_cycle(modules[:2]) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("nppac_tf.agent", "import gpflow.kernels"),
        ("nppac_tf.priors", "def f():\n    from gpflow import kernels"),
        ("nppac_tf.evaluation", "if TYPE_CHECKING:\n    import gymnasium"),
        ("nppac_tf.training", "from absl import flags"),
        ("launch.train", "from rich import progress"),
        ("launch.train", "from absl import app"),
    ],
)
def test_a_side_door_is_found(name: str, source: str) -> None:
    assert len(door_violations([parse(name, source)])) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("nppac_tf.priors.gaussian_process", "import gpflow"),
        ("nppac_tf.training", "from absl import logging"),
        ("launch.train", "from absl import flags"),
        ("launch.program", "from absl import app"),
        ("nppac_tf.agent", "import gymnasium_like"),
    ],
)
def test_a_door_is_open(name: str, source: str) -> None:
    assert door_violations([parse(name, source)]) == []


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np",
        "from nppac_tf import training",
        "from nppac_tf.agent import NppacAgent",
        "try:\n    import tensorflow\nexcept ImportError:\n    pass",
    ],
)
def test_a_heavy_launcher_is_found(source: str) -> None:
    assert len(launcher_violations([parse("launch.train", source)])) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import json\nfrom absl import app, flags\nimport nppac_tf",
        "from nppac_tf import UserError, config\nfrom nppac_tf.errors import UserError",
        "def main(argv):\n    import tensorflow",
    ],
)
def test_a_light_launcher_is_allowed(source: str) -> None:
    assert launcher_violations([parse("launch.train", source)]) == []


def test_tensorflow_behind_a_helper_is_found() -> None:
    helper = parse("nppac_tf.divergences", "import tensorflow as tf")
    data = parse("nppac_tf.demonstrations", "from nppac_tf import divergences", is_package=True)
    later = parse("nppac_tf.demonstrations", "def f():\n    from nppac_tf import divergences")
    assert len(tensorflow_violations([helper, data])) == 1
    assert tensorflow_violations([helper, later]) == []


@pytest.mark.parametrize("module", [PACKAGE, "nppac_tf.config", "nppac_tf.errors"])
def test_a_light_module_imports_nothing_slow(module: str) -> None:
    program = (
        f"import sys; before = set(sys.modules); import {module}; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert PACKAGE in loaded
    # gym_notices is a dictionary, which the package empties so that gym prints nothing.
    assert loaded - sys.stdlib_module_names - {"gym_notices"} == {PACKAGE}
    assert result.stderr == ""


def test_public_names_agree() -> None:
    """The names for type checkers, for `from nppac_tf import *` and for loading are the same."""
    import nppac_tf

    facade = next(module for module in PACKAGE_MODULES if module.name == PACKAGE)
    for_type_checkers = {
        item.target.rpartition(".")[2]: item.target.rpartition(".")[0]
        for item in facade.imports
        if not item.runs_at_import
    }
    assert for_type_checkers == nppac_tf._HOME_OF
    assert set(nppac_tf.__all__) == for_type_checkers.keys() | {"__version__"}
    assert set(nppac_tf.__all__) <= set(dir(nppac_tf))


def test_a_public_name_is_loaded_from_its_home() -> None:
    import nppac_tf
    from nppac_tf import errors

    assert nppac_tf.UserError is errors.UserError


def test_a_wrong_public_name_is_an_attribute_error() -> None:
    import nppac_tf

    with pytest.raises(AttributeError, match="no attribute 'make_tasks'"):
        _ = nppac_tf.make_tasks


def declared(section: str | None = None) -> dict[str, Requirement]:
    """Requirements of pyproject.toml by canonical name: the package's, or those of an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["optional-dependencies"][section] if section else project["dependencies"]
    return {canonicalize_name(item.name): item for item in map(Requirement, lines)}


def test_what_is_imported_is_declared() -> None:
    distributions = metadata.packages_distributions()
    undeclared = {
        f"{module.path}:{item.line}: {item.target}"
        for module in PACKAGE_MODULES + LAUNCHERS
        for item in module.imports
        if (top := item.target.split(".")[0]) in distributions
        and top not in (PACKAGE, *UNDECLARED)
        and not {canonicalize_name(name) for name in distributions[top]} & declared().keys()
    }
    assert undeclared == set()


def test_what_is_declared_is_pinned() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if "==" in line]
    pins = {canonicalize_name(item.name): str(item.specifier).removeprefix("==") for item in pinned}
    ranges = declared() | declared("dev")
    assert pins.keys() == ranges.keys()
    assert [name for name in pins if not ranges[name].specifier.contains(pins[name])] == []
