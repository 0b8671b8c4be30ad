"""requirements_lock.txt pins all that requirements.txt asks for, directly or not."""

import dataclasses
import re
from importlib import metadata

import bazel
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sources import ROOT

MEND = "run the command at the head of requirements_lock.txt (pip-compile comes with pip-tools)"


@dataclasses.dataclass(frozen=True)
class Pin:
    version: str
    extras: frozenset[str]
    hashes: int


def read_lock(text: str) -> dict[str, Pin]:
    """Pins by canonical name."""
    pins = {}
    for entry in re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n?", "", text, flags=re.MULTILINE)):
        if not entry.strip():
            continue
        requirement = Requirement(entry.split("\\")[0].strip())
        (pin,) = requirement.specifier
        assert pin.operator == "==", entry
        hashes = re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)
        pins[canonicalize_name(requirement.name)] = Pin(
            pin.version, frozenset(requirement.extras), len(hashes)
        )
    return pins


def read_requirements() -> list[Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    """Whether a distribution installed with `extras` requires this on this machine."""
    environment = dict(default_environment())
    return requirement.marker is None or any(
        requirement.marker.evaluate({**environment, "extra": extra}) for extra in {"", *extras}
    )


def closure(
    roots: list[Requirement], pins: dict[str, Pin]
) -> tuple[dict[str, list[Requirement]], list[str]]:
    """What is required, directly or not, and the names of whom that could not be asked.

    A distribution is asked for its requirements where it is installed in the pinned version.
    """
    required: dict[str, list[Requirement]] = {}
    asked: set[tuple[str, frozenset[str]]] = set()
    mute = []
    queue = list(roots)
    while queue:
        requirement = queue.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        required.setdefault(name, []).append(requirement)
        if (name, extras) in asked or name not in pins:
            continue
        asked.add((name, extras))
        if installed_version(name) == pins[name].version:
            queue += [
                each
                for each in map(Requirement, metadata.requires(name) or [])
                if applies(each, extras)
            ]
        else:
            mute.append(name)
    return required, mute


LOCK = read_lock((ROOT / "requirements_lock.txt").read_text(encoding="utf-8"))


def test_direct_requirements_are_pinned_alike():
    direct = read_requirements()
    pins = {f"{each.name}{each.specifier}": each for each in direct}
    wrong = [
        text
        for text, each in pins.items()
        if (pin := LOCK.get(canonicalize_name(each.name))) is None
        or not each.specifier.contains(pin.version)
        or not pin.extras >= each.extras
    ]
    assert wrong == [], MEND


def test_all_that_is_required_is_pinned():
    required, _ = closure(read_requirements(), LOCK)
    wrong = [
        str(requirement)
        for name, requirements in required.items()
        for requirement in requirements
        if name not in LOCK or not requirement.specifier.contains(LOCK[name].version, True)
    ]
    assert wrong == [], MEND


def test_nothing_else_is_pinned():
    required, mute = closure(read_requirements(), LOCK)
    if mute:
        pytest.skip(f"the environment has other versions of {', '.join(sorted(set(mute)))}")
    assert sorted(LOCK.keys() - required.keys()) == [], MEND


def test_every_pin_has_hashes():
    assert [name for name, pin in LOCK.items() if not pin.hashes] == [], MEND


def test_what_bazel_names_is_pinned():
    labels = {
        label
        for targets in bazel.read_all().values()
        for target in targets
        for key in ("deps", "pyi_deps")
        for label in target.attributes.get(key, ())
        if label.startswith("@pypi//")
    }
    assert len(labels) > 10
    assert sorted(labels - {bazel.pypi(name) for name in LOCK}) == [], MEND


def test_a_lock_is_read():
    text = (
        "#\n# a comment\n#\n"
        "minari[hdf5,hf]==0.5.3 \\\n"
        f"    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n"
        "    # via -r requirements.txt\n"
        f"Typing_Extensions==4.5.0 ; python_version < '4' \\\n    --hash=sha256:{'c' * 64}\n"
        "six==1.0\n    # via\n    #   gast\n"
    )
    assert read_lock(text) == {
        "minari": Pin("0.5.3", frozenset({"hdf5", "hf"}), 2),
        "typing-extensions": Pin("4.5.0", frozenset(), 1),
        "six": Pin("1.0", frozenset(), 0),
    }


def test_requirements_of_requirements_are_found():
    """pytest requires pluggy; iniconfig is required by nothing else here."""
    pins = {name: LOCK[name] for name in ("pytest", "pluggy", "iniconfig")}
    required, mute = closure([Requirement("pytest")], pins)
    if "pytest" in mute:
        pytest.skip("the environment has another version of pytest")
    assert required.keys() >= {"pytest", "pluggy", "iniconfig", "packaging"}
    assert not required.keys() & {"hypothesis", "colorama"}  # An extra's, and that of Windows.
