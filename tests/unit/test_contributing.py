"""CONTRIBUTING.md: its programs do what their sections say once they are registered so."""

import pathlib
import re
import sys
import tomllib
import types

import agent_batches
import fakes
import numpy as np
import pytest
import tensorflow as tf
import yaml

from nppac_tf import claims, config
from nppac_tf.agents import factory
from nppac_tf.config import AgentConfig, PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.demonstrations.formats import loading
from nppac_tf.priors import fit_prior, fitting, load_prior, save_prior

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = re.compile(r"<!-- run: (\w+) -->\n```python\n(.*?)\n```\n", re.DOTALL)


@pytest.fixture(autouse=True)
def any_name(monkeypatch):
    """Choices are checked by `check_fields`; new names would be added to `config.py`."""
    monkeypatch.setattr(config, "check_fields", lambda _: None)


def made_by(name, monkeypatch):
    """The names that a program of the page defines."""
    source = dict(PROGRAM.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))[name]
    module = types.ModuleType(f"contributed_{name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, f"CONTRIBUTING.md: {name}", "exec"), vars(module))
    return module


def test_a_prior(monkeypatch, tmp_path):
    prior_class = made_by("prior", monkeypatch).ConstantPrior
    monkeypatch.setitem(fitting._CLASSES, "constant", prior_class)
    monkeypatch.setitem(fitting._NAMES, prior_class, "constant")
    rng = np.random.default_rng(0)
    actions = rng.normal([0.5, -0.5], [0.1, 0.3], (400, 2)).astype(np.float32)
    data = Demonstrations.from_episodes([(rng.normal(size=(400, 3)).astype(np.float32), actions)])
    prior = fit_prior(data, PriorConfig(prior="constant", scale_factor=1.0))
    save_prior(prior, tmp_path / "prior.npz")
    for each in (prior, load_prior(tmp_path / "prior.npz")):
        location, scale = each.statistics(tf.zeros([5, 3]))
        np.testing.assert_allclose(location, np.tile(actions.mean(axis=0), (5, 1)), rtol=1e-5)
        np.testing.assert_allclose(scale, np.tile(actions.std(axis=0), (5, 1)), rtol=1e-5)


def test_a_reader(monkeypatch, tmp_path):
    read = made_by("reader", monkeypatch).read_csv
    monkeypatch.setattr(loading, "_READERS", {**loading._READERS, ".csv": read})
    (tmp_path / "mine.csv").write_text("o0,o1,a0\n0,1,0.5\n2,3,-0.5\n")
    ((observations, actions),) = loading.load_demonstrations(tmp_path / "mine.csv").episodes()
    np.testing.assert_array_equal(observations, [[0, 1], [2, 3]])
    np.testing.assert_array_equal(actions, [[0.5], [-0.5]])


def test_a_baseline(monkeypatch):
    agent_class = made_by("baseline", monkeypatch).UnanchoredAgent
    monkeypatch.setitem(factory._AGENTS, "unanchored", agent_class)
    prior = fakes.LinearPrior(agent_batches.D, agent_batches.A)
    settings = AgentConfig(**agent_batches.TINY, algorithm="unanchored")
    agent = factory.make_agent(fakes.FakeTask.of(), prior, settings)
    batch = agent_batches.batch_of(agent_batches.transitions(), prior)
    losses = agent.update(batch).extra
    assert float(losses.actor_loss) == pytest.approx(-float(losses.q_value), rel=1e-5)


def test_a_claim(monkeypatch, tmp_path):
    result = made_by("claim", monkeypatch).Narrowing(np.array([0.1, 0.5, 1.0]))
    figures = {"c0": result.figure()}
    written = claims.write_claim(tmp_path, "c0", result.numbers(), result.table(), figures)
    assert [path.suffix for path in written] == [".json", ".csv", ".png"]
    assert written[1].read_text().splitlines()[0] == "scale,kl"
    assert written[2].stat().st_size > 1000
    np.testing.assert_allclose(result.numbers()["kl"][-1], 0.0)


def test_every_program_of_the_page_is_run_here():
    names = [name for name, _ in PROGRAM.findall((ROOT / "CONTRIBUTING.md").read_text())]
    assert names == ["prior", "reader", "baseline", "claim"]


def test_what_citations_and_templates_hold():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = citation["preferred-citation"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["title"] in readme.replace("{", "").replace("}", "")
    assert paper["url"] in readme
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["license"] == project["license"]
    for template in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(template.read_text())
        assert content["name"]
        assert any(field.get("validations", {}).get("required") for field in content["body"])


def test_the_types_are_packaged():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["nppac_tf"]
    assert (ROOT / "nppac_tf/py.typed").exists()
