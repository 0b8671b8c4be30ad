"""The site of the documentation: its pages, and what docs/hooks.py makes from the code."""

import dataclasses
import importlib.util
import pathlib
import re

import pytest
import yaml

import nppac_tf
from nppac_tf.config import AgentConfig, PriorConfig, RunConfig, TrainingConfig
from nppac_tf.training.loop import EVALUATION_COLUMNS, TRAINING_COLUMNS
from nppac_tf.training.monitor import MONITOR_COLUMNS

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = [
    field
    for config in (RunConfig, PriorConfig, AgentConfig, TrainingConfig)
    for field in dataclasses.fields(config)
    if not dataclasses.is_dataclass(field.type)
]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names_in(navigation):
    for entry in navigation:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else names_in(value)


def test_the_navigation_has_every_page_once(hooks):
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    written = {page.name for page in (ROOT / "docs").glob("*.md")}
    made = {*hooks.OUTSIDE.values(), "flags.md", "api.md"}
    assert sorted(names_in(navigation)) == sorted(written | made)


def test_every_setting_has_a_row_with_its_default(hooks):
    page = hooks.flags_page().partition("## Run")[2]
    rows = dict(re.findall(r"^\| (?:\*\*)?`--(\w+)`(?:\*\*)? \| (.*?) \|", page, re.MULTILINE))
    assert rows.keys() == {field.name for field in SETTINGS}
    assert rows["temperature"] == f"`{AgentConfig.temperature}`"
    assert rows["ard"] == "`true`"
    assert rows["scale_floor"] == "`none`"
    assert rows["actor_layers"] == "`256,256`"


def test_the_main_settings_are_marked(hooks):
    main, _, all_rows = hooks.flags_page().partition("## Run")
    assert len(hooks.MAIN_FLAGS) == 10
    for text in (main, all_rows):
        assert set(re.findall(r"^\| \*\*`--(\w+)`", text, re.MULTILINE)) == set(hooks.MAIN_FLAGS)


def test_the_python_page_has_every_public_name(hooks):
    paths = hooks.public_names()
    assert paths.keys() == set(nppac_tf.__all__)
    page = hooks.api_page()
    for name, path in paths.items():
        assert getattr(nppac_tf, name).__name__ == name
        assert page.count(f"::: {path}\n") == 1
    assert page.count("show_signature: false") == 3  # The settings: their fields are the flags.


def test_links_of_the_repository_become_links_of_the_site(hooks):
    text = "[a](docs/speed.md#x) [b](CHANGELOG.md) ![c](results/benchmark.png) [d](https://e.f/g)"
    made = "[a](speed.md#x) [b](changelog.md) ![c](results/benchmark.png) [d](https://e.f/g)"
    assert hooks.rewritten(text, "") == made
    assert hooks.linked_files(text, "") == {"results/benchmark.png"}
    assert hooks.rewritten("[a](../README.md#b) [c](#d)", "docs") == "[a](index.md#b) [c](#d)"


def test_the_page_of_metrics_has_every_column():
    table = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`([\w/]+)`", row)}
    evaluated = [name for name in EVALUATION_COLUMNS if name.startswith("eval/")]
    assert described == {
        *EVALUATION_COLUMNS,
        *TRAINING_COLUMNS,
        *MONITOR_COLUMNS,
        *(name.replace("eval/", "prior/") for name in evaluated),
        "demonstrations/return",
        "monitor/kl_0",
        "monitor/kl_1",
    }


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings", reason="`make docs` installs mkdocs")
    from mkdocs.commands import build
    from mkdocs.config import load_config

    build.build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    assert (tmp_path / "flags/index.html").exists()
