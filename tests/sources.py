"""The Python files of the repository, and what they import."""

import ast
import dataclasses
import pathlib
from collections.abc import Container, Iterator

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = "nppac_tf"


@dataclasses.dataclass(frozen=True)
class Import:
    """One name that an import statement asks for."""

    target: str  # "absl.flags" of `from absl import flags`; it may name a module or a thing in one
    line: int
    runs_at_import: bool  # False within a function, and under `if TYPE_CHECKING:`
    for_types: bool = False  # True under `if TYPE_CHECKING:`


@dataclasses.dataclass(frozen=True)
class Module:
    """A parsed source file."""

    name: str  # "nppac_tf.priors.base", "launch.train"
    path: str  # from the root of the repository
    imports: tuple[Import, ...]


def within(name: str, prefix: str) -> bool:
    """Whether a dotted name is `prefix` or something inside it."""
    return name == prefix or name.startswith(f"{prefix}.")


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def read_imports(source: str, package: str) -> Iterator[Import]:
    """Yields every import in `source`, which relative imports see as a module of `package`."""

    def visit(node: ast.AST, runs: bool, for_types: bool) -> Iterator[Import]:
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(alias.name, node.lineno, runs, for_types)
            case ast.ImportFrom():
                base = node.module or ""
                if node.level:
                    parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*parents, base] if base else parents)
                for alias in node.names:
                    target = base if alias.name == "*" else f"{base}.{alias.name}"
                    yield Import(target, node.lineno, runs, for_types)
            case ast.If() if is_type_checking(node.test):
                for child in node.body:
                    yield from visit(child, False, True)
                for child in node.orelse:
                    yield from visit(child, runs, for_types)
            case _:
                inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                for child in ast.iter_child_nodes(node):
                    yield from visit(child, runs and not inside, for_types)

    yield from visit(ast.parse(source), True, False)


def parse(name: str, source: str, is_package: bool = False, path: str = "") -> Module:
    package = name if is_package else name.rpartition(".")[0]
    return Module(name, path or name, tuple(read_imports(source, package)))


def read_modules(folder: str, root: pathlib.Path = ROOT) -> list[Module]:
    """Parses all Python files below a folder of the repository."""
    modules = []
    for path in sorted((root / folder).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        source = path.read_text(encoding="utf-8")
        modules.append(parse(name, source, is_package, path.relative_to(root).as_posix()))
    return modules


def home_of(target: str, modules: Container[str]) -> str:
    """The longest prefix of an import's target that is a module; the target itself if none is."""
    name = target
    while name not in modules:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return target
    return name
