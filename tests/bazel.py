"""The BUILD files, worked out from the imports: `python tests/bazel.py` writes them.

One library for each module, and one for modules that only work together: a package's __init__ and
what it imports of its own package. Its `deps` are the imports, within functions too; imports under
TYPE_CHECKING are `pyi_deps`. A launcher is a binary, a file of tests a test, or two where some of
them are marked as slow.

What imports cannot tell is set by hand in the BUILD files and kept: `size`, `tags` and `data` of
tests, and `data` of binaries.
"""

import ast
import dataclasses
import functools
import pathlib
import re
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from packaging.utils import canonicalize_name
from sources import PACKAGE, ROOT, Import, Module, home_of, read_modules

# By rule, what is kept of an attribute that is set by hand, and what a new target begins with.
BY_HAND: Mapping[str, Mapping[str, str | tuple[str, ...]]] = {
    "py_binary": {"data": ()},
    "pytest_test": {"size": "medium", "data": (), "tags": ()},
}

# Names of distributions that differ from those of the packages in them.
DISTRIBUTIONS: Mapping[str, str] = {"absl": "absl-py"}

# What distributions import and do not require, since it comes in several builds.
UNDECLARED: Mapping[str, tuple[str, ...]] = {
    "tensorflow-probability": ("tensorflow",),
    "tf-agents": ("tensorflow",),
}

LOADS = {  # In buildifier's order.
    "py_binary": "@rules_python//python:py_binary.bzl",
    "py_library": "@rules_python//python:py_library.bzl",
    "pytest_test": "//tests:pytest.bzl",
}

# Files beside the packages that a test may read.
ROOT_FILES = (
    "CHANGELOG.md",
    "LICENSE",
    "MODULE.bazel",
    "Makefile",
    "README.md",
    "docs/recipe.md",
    "docs/results.md",
    "pyproject.toml",
    "requirements.txt",
    "requirements_lock.txt",
)
FOLDERS = ("", "configs", "launch", PACKAGE, "tests")

# The order in which buildifier wants the attributes; the others follow by name, then `deps`.
FIRST = ("name", "size", "testonly", "srcs")

Value = str | bool | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Target:
    """A call in a BUILD file."""

    rule: str
    name: str
    attributes: Mapping[str, Value]  # "deps", "data", ...; empty ones are left out


BuildFiles = dict[str, list[Target]]  # targets by folder; "" is the root


class BazelError(Exception):
    """Sources for which there are no right BUILD files."""


def path_of(folder: str) -> str:
    """The BUILD file of a folder, from the root."""
    return f"{folder}/BUILD" if folder else "BUILD"


# Labels.


def label(folder: str, name: str) -> str:
    return f"//{folder}" if folder.rpartition("/")[2] == name else f"//{folder}:{name}"


def seen_from(folder: str, name: str) -> str:
    """A label as a BUILD file in `folder` writes it."""
    package, item = package_and_name(name, folder)
    return f":{item}" if name.startswith("//") and package == folder else name


def package_and_name(label: str, folder: str) -> tuple[str, str]:
    """The two parts of a label in a BUILD file of `folder`."""
    if not label.startswith("//"):
        return folder, label.removeprefix(":")
    package, colon, name = label.removeprefix("//").partition(":")
    return package, name if colon else package.rpartition("/")[2]


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels as buildifier sorts them."""

    def key(name: str) -> tuple[int, list[str]]:
        kinds = (":", "//", "@")
        kind = next((i for i, start in enumerate(kinds, 1) if name.startswith(start)), 0)
        return kind, name.replace(":", ".").split(".")

    return tuple(sorted(set(labels), key=key))


def pypi(distribution: str) -> str:
    return f"@pypi//{canonicalize_name(distribution).replace('-', '_')}"


# From imports to labels.


def pinned(root: pathlib.Path = ROOT) -> frozenset[str]:
    """Canonical names of the distributions in requirements_lock.txt."""
    text = (root / "requirements_lock.txt").read_text(encoding="utf-8")
    return frozenset(map(canonicalize_name, re.findall(r"^([\w.-]+).*==", text, re.MULTILINE)))


def distribution_of(target: str, names: Container[str]) -> str | None:
    """Which of the pinned distributions an import needs, None if the standard library will do."""
    top = target.split(".")[0]
    if top in sys.stdlib_module_names:
        return None
    name = DISTRIBUTIONS.get(top, canonicalize_name(top))
    if name not in names:
        raise BazelError(
            f"requirements_lock.txt pins no {name} for {target}; pin it, or name the distribution "
            "that holds it in DISTRIBUTIONS of tests/bazel.py"
        )
    return name


class Sources:
    """The Python files of a repository and the libraries that they make.

    Args:
        root: Folder of the repository.
    """

    def __init__(self, root: pathlib.Path = ROOT) -> None:
        self.root = root
        self.pinned = pinned(root)
        self.modules: dict[str, Module] = {
            module.name: module
            for folder in (PACKAGE, "launch", "tests")
            for module in read_modules(folder, root)
        }
        self.facade = {
            item.target.rpartition(".")[2]: home_of(item.target, self.modules)
            for item in self.modules[PACKAGE].imports
            if item.for_types
        }
        self.libraries = self._libraries()
        self.label_of = {
            name: label(folder, library)
            for (folder, library), members in self.libraries.items()
            for name in members
        }

    def folder_of(self, name: str) -> str:
        return pathlib.PurePosixPath(self.modules[name].path).parent.as_posix()

    def file_of(self, name: str) -> str:
        return pathlib.PurePosixPath(self.modules[name].path).name

    def is_package(self, name: str) -> bool:
        return self.file_of(name) == "__init__.py"

    def is_test(self, name: str) -> bool:
        return self.file_of(name).startswith("test_")

    def launchers(self) -> list[str]:
        """Names of the modules in launch/ that are programs."""
        return [
            name
            for name in self.modules
            if name.startswith("launch.")
            and '__name__ == "__main__"' in (self.root / self.modules[name].path).read_text()
        ]

    def within_project(self, item: Import, importer: str) -> str | None:
        """The module of the project that an import asks for; None if it is of no such module."""
        folder = importer.split(".")[0]
        beside = folder if folder in ("launch", "tests") else None  # Both lie on the path.
        top = item.target.split(".")[0]
        name = f"{beside}.{item.target}" if f"{beside}.{top}" in self.modules else item.target
        home = home_of(name, self.modules)
        if home not in self.modules:
            return None
        if home == PACKAGE and item.target != PACKAGE:  # A public name, or a private one.
            return self.facade.get(item.target.removeprefix(f"{PACKAGE}."), home)
        return home

    def packages_above(self, name: str) -> list[str]:
        """The packages, outermost first, whose __init__ runs before a module is imported."""
        parts = name.split(".")
        above = [".".join(parts[:length]) for length in range(1, len(parts))]
        return [package for package in above if package in self.modules]

    def _libraries(self) -> dict[tuple[str, str], list[str]]:
        """Modules by folder and name of the library that they make."""
        names = [name for name in self.modules if name.split(".")[0] == PACKAGE]
        arrows = {
            name: {
                *self.packages_above(name),
                *(
                    home
                    for item in self.modules[name].imports
                    if not item.for_types and (home := self.within_project(item, name))
                ),
            }
            for name in names
        }

        @functools.cache
        def reach(name: str) -> frozenset[str]:
            found, queue = set[str](), [name]
            while queue:
                for other in arrows[queue.pop()] - found:
                    found.add(other)
                    queue.append(other)
            return frozenset(found)

        libraries: dict[tuple[str, str], list[str]] = {}
        for name in names:
            circle = sorted({name} | {other for other in reach(name) if name in reach(other)})
            folders = {self.folder_of(member) for member in circle}
            if len(folders) > 1:
                raise BazelError(f"{', '.join(circle)} import each other across folders")
            first = circle[0]  # A package sorts before its modules.
            libraries[folders.pop(), "init" if first == PACKAGE else first.split(".")[-1]] = circle
        for name in self.modules:
            if name.split(".")[0] != PACKAGE and not self.is_test(name):
                libraries[self.folder_of(name), name.split(".")[-1]] = [name]
        return libraries

    def dependencies(self, members: Sequence[str], for_types: bool = False) -> set[str]:
        """Labels of what modules import, besides each other, and of what tests run."""
        needed: set[str] = set()
        for name in members:
            if name.split(".")[0] == PACKAGE and not for_types:
                needed |= {self.label_of[package] for package in self.packages_above(name)}
            if name.split(".")[0] == "tests" and not for_types:
                needed |= self.programs_run(name)
            for item in self.modules[name].imports:
                if item.for_types != for_types:
                    continue
                home = self.within_project(item, name)
                if home is None:
                    try:
                        distribution = distribution_of(item.target, self.pinned)
                    except BazelError as error:
                        path = self.modules[name].path
                        raise BazelError(f"{path}:{item.line}: {error}") from None
                    if distribution:
                        needed |= set(map(pypi, (distribution, *UNDECLARED.get(distribution, ()))))
                elif home == PACKAGE and item.target == PACKAGE:
                    needed.add(label(PACKAGE, PACKAGE))
                else:
                    needed.add(self.label_of[home])
        return needed - {self.label_of.get(name) for name in members}

    def programs_run(self, name: str) -> set[str]:
        """Labels that a module needs for what it runs rather than imports.

        One that makes paths into launch/ runs launchers, and one that reads README.md its programs.
        """
        source = (self.root / self.modules[name].path).read_text(encoding="utf-8")
        launchers = {self.label_of[each] for each in self.launchers()}
        found = set()
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.BinOp(_, ast.Div(), ast.Constant("launch")):
                    found |= launchers
                case ast.JoinedStr(parts) if any(map(is_launch_path, parts)):
                    found |= launchers
                case ast.BinOp(_, ast.Div(), ast.Constant("README.md")):
                    found.add(label(PACKAGE, PACKAGE))
        return found


def is_launch_path(part: ast.expr) -> bool:
    """Whether a part of an f-string goes into launch/, as in f"launch/{name}.py"."""
    match part:
        case ast.Constant(str(text)):
            return re.search(r"(^|/)launch/", text) is not None
    return False


def slow_and_other_tests(source: str) -> tuple[bool, bool]:
    """Whether a file has tests marked as slow, and whether it has others."""
    slow = "pytest.mark.slow"
    tree = ast.parse(source)
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    if slow not in map(ast.unparse, nodes):
        return False, True
    tests = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    marks = [list(map(ast.unparse, test.decorator_list)) for test in tests]
    whole = f"pytestmark = {slow}" in map(ast.unparse, tree.body)
    return True, not (whole or all(slow in each for each in marks))


# The files.


def target(rule: str, name: str, folder: str, **attributes: Value | Iterable[str]) -> Target:
    """A target without its empty attributes, its lists in order and its labels short."""
    kept: dict[str, Value] = {}
    for key, value in attributes.items():
        if isinstance(value, str | bool):
            kept[key] = value
        elif key in ("args", "tags", "imports"):
            kept[key] = tuple(value)
        else:
            kept[key] = in_order(seen_from(folder, each) for each in value)
    return Target(rule, name, {key: value for key, value in kept.items() if value})


def wanted(sources: Sources, present: Mapping[str, Sequence[Target]]) -> BuildFiles:
    """The BUILD files as they should be.

    Args:
        sources: The Python files.
        present: The BUILD files as they are, for what is set by hand in them.
    """
    hand = {(folder, each.name): each for folder in present for each in present[folder]}

    def by_hand(rule: str, folder: str, name: str) -> dict[str, Value]:
        there = hand.get((folder, name))
        if there is None or there.rule != rule:
            return dict(BY_HAND[rule])
        return {key: there.attributes.get(key, new) for key, new in BY_HAND[rule].items()}

    files: BuildFiles = {}
    launchers = sources.launchers()
    for (folder, name), members in sorted(sources.libraries.items()):
        attributes: dict[str, Value | Iterable[str]] = {
            "srcs": [sources.file_of(member) for member in members],
            "deps": sources.dependencies(members),
        }
        types = sources.dependencies(members, for_types=True) if name != "init" else set()
        attributes["pyi_deps"] = types - set(attributes["deps"])
        rule = "py_binary" if members[0] in launchers else "py_library"
        if rule == "py_binary":
            attributes |= by_hand(rule, folder, name)
        elif folder == "launch":
            attributes["imports"] = ["."]
        elif folder == "tests":
            attributes |= {"imports": ["."], "testonly": True}
            if name == "pytest_main":
                attributes["data"] = ["//:pyproject.toml"]
        elif name == "init":
            attributes |= {"imports": [".."], "data": ["py.typed"]}
        elif (data := sources.root / folder / "data").is_dir() and sources.is_package(members[0]):
            attributes["data"] = [f"data/{path.name}" for path in data.glob("*.npz")]
        files.setdefault(folder, []).append(target(rule, name, folder, **attributes))

    public = {sources.label_of[home] for home in [PACKAGE, *sources.facade.values()]}
    files[PACKAGE].append(target("py_library", PACKAGE, PACKAGE, deps=public))

    for name in filter(sources.is_test, sources.modules):
        folder, file = sources.folder_of(name), sources.file_of(name)
        deps = sources.dependencies([name])
        source = (sources.root / folder / file).read_text(encoding="utf-8")
        slow, other = slow_and_other_tests(source)
        stem = file.removesuffix(".py")
        names = {stem: [], f"{stem}_slow": ["-m", "slow"]}
        for each, arguments in names.items():
            if slow if arguments else other:
                kept = by_hand("pytest_test", folder, each)
                if arguments:
                    kept["tags"] = tuple(sorted({*kept["tags"], "slow"}))
                made = target(
                    "pytest_test", each, folder, srcs=[file], args=arguments, deps=deps, **kept
                )
                files.setdefault(folder, []).append(made)

    files["configs"] = []
    files[""] = []
    for folder, targets in files.items():
        targets.sort(key=lambda each: (each.rule != "py_library", each.name))
        name = "configs" if folder == "configs" else "all_files"
        targets.append(
            target("filegroup", name, folder, srcs=files_of(sources.root, folder, files))
        )
    return files


def files_of(root: pathlib.Path, folder: str, folders: Iterable[str]) -> Iterator[str]:
    """The files in a folder, and the groups of files below it, for tests that read them."""
    yield "BUILD"
    if folder == "":
        yield from ROOT_FILES
    else:
        for pattern in ("*.bzl", "**/*.flags", "*.py", "data/*.npz", "py.typed"):
            paths = (root / folder).glob(pattern)
            yield from (path.relative_to(root / folder).as_posix() for path in paths)
    for other in folders:
        if other and other.rpartition("/")[0] == folder:
            yield label(other, "configs" if other == "configs" else "all_files")


def render_value(value: Value) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"'
    if len(value) == 1:
        return f'["{value[0]}"]'
    return "[\n" + "".join(f'        "{each}",\n' for each in value) + "    ]"


def render(folder: str, targets: Sequence[Target]) -> str:
    """The text of a BUILD file, as buildifier formats it."""
    rules = {each.rule for each in targets}
    lines = [f'load("{file}", "{rule}")\n' for rule, file in LOADS.items() if rule in rules]
    text = (
        "# Written by `python tests/bazel.py`; size, tags and data of tests and binaries by hand.\n"
    )
    text += "\n" + "".join(lines) + ("\n" if lines else "")
    visibility = "//:__subpackages__" if folder.startswith("tests") else "//visibility:public"
    text += f'package(default_visibility = ["{visibility}"])\n'
    if folder == "":
        text += "\nexports_files([\n" + "".join(f'    "{file}",\n' for file in ROOT_FILES) + "])\n"
    elif folder == "tests":
        text += '\nexports_files(["pytest_main.py"])\n'
    for each in targets:
        attributes = {"name": each.name, **each.attributes}

        def place(key: str) -> tuple[int, str]:
            return (FIRST.index(key) if key in FIRST else 98 + (key == "deps"), key)

        text += f"\n{each.rule}(\n"
        for key in sorted(attributes, key=place):
            text += f"    {key} = {render_value(attributes[key])},\n"
        text += ")\n"
    return text


def read(text: str) -> list[Target]:
    """The targets in the text of a BUILD file, which may hold calls with plain values alone."""
    targets = []
    for statement in ast.parse(text).body:
        match statement:
            case ast.Expr(ast.Call(ast.Name(rule), [], keywords)) if rule != "package":
                try:
                    values = {each.arg: ast.literal_eval(each.value) for each in keywords}
                except ValueError:
                    raise BazelError(
                        f"line {statement.lineno}: attributes of {rule} must be plain values"
                    ) from None
                name = values.pop("name")
                attributes = {
                    key: tuple(value) if isinstance(value, list) else value
                    for key, value in values.items()
                }
                targets.append(Target(rule, name, attributes))
    return targets


def read_all(root: pathlib.Path = ROOT) -> BuildFiles:
    """All BUILD files of the repository."""
    paths = [
        path
        for folder in FOLDERS
        for path in ([root / "BUILD"] if folder == "" else (root / folder).rglob("BUILD"))
    ]
    files = {}
    for path in sorted(path for path in paths if path.is_file()):
        folder = path.parent.relative_to(root).as_posix()
        files["" if folder == "." else folder] = read(path.read_text(encoding="utf-8"))
    return files


def dangling(files: Mapping[str, Sequence[Target]], root: pathlib.Path = ROOT) -> list[str]:
    """Labels and files that BUILD files name and that are not there."""
    found = []
    for folder, targets in files.items():
        for each in targets:
            for key in ("srcs", "data", "deps", "pyi_deps"):
                for name in each.attributes.get(key, ()):
                    if name.startswith("@"):
                        continue
                    package, item = package_and_name(name, folder)
                    there = {other.name for other in files.get(package, ())}
                    if item not in there and not (root / package / item).is_file():
                        path = path_of(folder)
                        found.append(f"{path}: {each.name}: {key} names {name}, which is nowhere")
    return found


def differences(present: Mapping[str, Sequence[Target]], right: BuildFiles) -> list[str]:
    """What to change in the BUILD files, a line for each label."""
    found = []
    for folder in sorted({*present, *right}):
        path = path_of(folder)
        there = {each.name: each for each in present.get(folder, ())}
        should = {each.name: each for each in right.get(folder, ())}
        found += [f"{path}: add {should[name].rule} {name}" for name in should.keys() - there]
        found += [f"{path}: remove {there[name].rule} {name}" for name in there.keys() - should]
        for name in should.keys() & there:
            if there[name].rule != should[name].rule:
                found.append(f"{path}: make {name} a {should[name].rule}")
                continue
            old, new = there[name].attributes, should[name].attributes
            for key in {*old, *new}:
                was, be = old.get(key, ()), new.get(key, ())
                if isinstance(was, tuple) and isinstance(be, tuple):
                    found += [f"{path}: {name}: add {x} to {key}" for x in be if x not in was]
                    found += [f"{path}: {name}: remove {x} from {key}" for x in was if x not in be]
                elif was != be:
                    found.append(f"{path}: {name}: {key} should be {be!r}; it is {was!r}")
    return sorted(found)


def main() -> None:
    present = read_all()
    files = wanted(Sources(), present)
    for folder, targets in files.items():
        (ROOT / path_of(folder)).write_text(render(folder, targets), encoding="utf-8")
    for folder in present.keys() - files.keys():
        (ROOT / path_of(folder)).unlink()


if __name__ == "__main__":
    main()
