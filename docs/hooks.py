"""Makes the pages of the site that are not in docs/: home, flags, the Python interface.

mkdocs calls `on_files` and `on_page_markdown`; the tests call the rest, without mkdocs.
"""

import ast
import dataclasses
import pathlib
import posixpath
import re
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from nppac_tf.config import RunConfig  # noqa: E402

# The settings to look at first, in this order.
MAIN_FLAGS = (
    *("task", "demonstrations", "num_env_steps", "seed", "temperature", "final_temperature"),
    *("scale_factor", "scale_floor", "critic_warmup_steps", "num_critics"),
)
# Pages that live outside docs/, by their place in the repository.
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
_LINK = re.compile(r"(\]\()([^)\s#]*)((?:#[^)\s]*)?\))")
_LAUNCHER_FLAGS = (
    "`launch/train.py` makes one flag of each setting of a run; in Python they are the fields of "
    "`PriorConfig`, `AgentConfig` and `TrainingConfig`. Switches are turned off with `no`, as in "
    "`--noard`. There are also `--output_dir`, `--resume`, `--from_run`, `--prior_cache` and "
    "`--flagfile`."
)

_SETTINGS = tuple(f"nppac_tf.config.{name}Config" for name in ("Prior", "Agent", "Training"))
_WITHOUT_SIGNATURE = "\n    options:\n      separate_signature: false\n      show_signature: false"


def flags_page() -> str:
    """Every setting of a run with its default and help; the main ones first."""
    groups: dict[str, list[Any]] = {"Run": []}
    for field in dataclasses.fields(RunConfig):
        if dataclasses.is_dataclass(field.type):
            groups[field.name.capitalize()] = list(dataclasses.fields(field.type))
        else:
            groups["Run"].append(field)
    fields = {field.name: field for group in groups.values() for field in group}
    parts = [
        f"# Flags\n\n{_LAUNCHER_FLAGS}\n\n## The ten that matter\n\n"
        "These ten decide most; they are **bold** below. Leave the others until a run tells you "
        "otherwise.\n\n" + _table([fields[name] for name in MAIN_FLAGS])
    ]
    parts += [f"## {name}\n\n{_table(group)}" for name, group in groups.items()]
    return "\n\n".join(parts) + "\n"


def _table(fields: list[Any]) -> str:
    rows = [_row(field) for field in fields]
    return "\n".join(["| flag | default | meaning |", "| --- | --- | --- |", *rows])


def _row(field: Any) -> str:
    name = f"`--{field.name}`"
    if field.name in MAIN_FLAGS:
        name = f"**{name}**"
    default = field.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    elif isinstance(default, bool):
        default = str(default).lower()
    choices = field.metadata["choices"]
    text = field.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
    shown = "" if default == "" else f"`{'none' if default is None else default}`"
    return f"| {name} | {shown} | {text} |"


def public_names() -> dict[str, str]:
    """The full names of what `nppac_tf` exports, by public name, as `__init__.pyi` lists them."""
    stub = ast.parse((ROOT / "nppac_tf/__init__.pyi").read_text(encoding="utf-8"))
    return {
        alias.name: f"nppac_tf.{node.module}.{alias.name}"
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def api_page() -> str:
    """The public names, grouped by package, described by their docstrings."""
    groups: dict[str, list[str]] = {}
    for path in public_names().values():
        # Their fields are the flags; as a signature they would be a page of `option(...)`.
        options = _WITHOUT_SIGNATURE if path in _SETTINGS else ""
        groups.setdefault(path.split(".")[1], []).append(f"::: {path}{options}")
    body = "\n\n".join(
        f"## {package.capitalize()}\n\n" + "\n\n".join(names) for package, names in groups.items()
    )
    return (
        "# Python\n\nEverything here is a name of `nppac_tf`, as in `nppac_tf.train`. The defaults "
        "of settings and their meaning are in [flags](flags.md).\n\n" + body + "\n"
    )


def linked_files(text: str, folder: str) -> set[str]:
    """Files of the repository outside docs/ that a page links to; `folder` is that of the page."""
    targets = (_target(link, folder) for _, link, _ in _LINK.findall(text))
    return {path for path in targets if path and not path.startswith("docs/")} - OUTSIDE.keys()


def rewritten(text: str, folder: str) -> str:
    """A page with the links of the repository as links of the site."""

    def replace(match: re.Match[str]) -> str:
        path = _target(match[2], folder)
        if path is None:
            return match[0]
        return f"{match[1]}{OUTSIDE.get(path, path.removeprefix('docs/'))}{match[3]}"

    return _LINK.sub(replace, text)


def _target(link: str, folder: str) -> str | None:
    """A link's file, by its place in the repository; None for addresses and anchors."""
    path = posixpath.normpath(posixpath.join(folder, link))
    return path if link and (ROOT / path).is_file() else None


def _pages() -> dict[str, str]:
    return {
        name: rewritten((ROOT / source).read_text(encoding="utf-8"), "")
        for source, name in OUTSIDE.items()
        if (ROOT / source).exists()
    } | {"flags.md": flags_page(), "api.md": api_page()}


def on_files(files: Any, config: Any) -> Any:
    """Adds generated pages, and the figures and tables that pages link to."""
    from mkdocs.structure.files import File

    for name, text in _pages().items():
        files.append(File.generated(config, name, content=text))
    linked: set[str] = set()
    for source in OUTSIDE:
        linked |= linked_files((ROOT / source).read_text(encoding="utf-8"), "")
    for page in (ROOT / "docs").glob("*.md"):
        linked |= linked_files(page.read_text(encoding="utf-8"), "docs")
    for path in sorted(linked):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites the links of pages in docs/."""
    generated = page.file.generated_by is not None
    return markdown if generated else rewritten(markdown, "docs")
