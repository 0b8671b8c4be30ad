"""README.md and docs/: programs run on small budgets; commands, files and links exist.

A comment above a block says what it is: `<!-- run: NAME -->` a program, `<!-- file: NAME -->` a
file that it needs. The tests make what a program reads beyond that.
"""

import dataclasses
import functools
import importlib
import pathlib
import re
import runpy
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from nppac_tf import NppacAgent, UniformPrior, evaluate, export_policy, make_task
from nppac_tf.config import AgentConfig, TrainingConfig
from nppac_tf.demonstrations import load_demonstrations
from nppac_tf.demonstrations.formats.saving import save_recording
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.serving.metadata import load_metadata

ROOT = pathlib.Path(__file__).parents[2]
LAUNCHERS = sorted((ROOT / "launch").glob("*.py"))
EXAMPLES = sorted((ROOT / "examples/tf_agents").glob("*.py"))
ARCHITECTURE = ROOT / "docs/architecture.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"<!-- (run|file): (\S+) -->\n```python\n(.*?)\n```\n", re.DOTALL)
BUDGETS = (
    (re.compile(r"num_episodes=\d+"), "num_episodes=2"),
    (re.compile(r"num_steps=\d+_000"), "num_steps=60"),
    (re.compile(r"range\([\d_]+\)"), "range(20)"),
    (re.compile(r"(load_demonstrations\(.*?task\))"), r"\1.select(range(2))"),
)
SMALL = {
    AgentConfig: {"actor_layers": (16,), "critic_layers": (16,), "num_critics": 2},
    TrainingConfig: {
        "num_environments": 2,
        "steps_per_epoch": 20,
        "batch_size": 16,
        "pretraining_steps": 60,
        "critic_warmup_steps": 20,
        "eval_interval": 40,
        "eval_episodes": 2,
        "checkpoint_interval": 40,
    },
}


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
COMMAND = re.compile(r"python (?:CLONE/)?((?:launch|examples/tf_agents)/\w+\.py)([^\n`]*)")
PATH = re.compile(
    r"(?<![\w/.])(?:configs|results|docs|examples|launch|tests)/(?:[\w./*-]|\{[^}]*\}|\[\w+\])+"
)
IN_LINKS = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


def text_of_pages():
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


@functools.cache
def flags_of(program):
    if program in EXAMPLES:  # Their --help imports TensorFlow.
        return set(re.findall(r'add_argument\(\s*"--(\w+)"', program.read_text(encoding="utf-8")))
    command = [sys.executable, program, "--help"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    names = re.findall(r"^  -{1,2}(\[no\])?([a-z]\w*)", listed, re.MULTILINE)
    return {prefix + name for no, name in names for prefix in ("", "no" if no else "")}


@each_page
def test_flags_exist(page):
    text = re.sub(r"^    \$ .*\n.*", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = text.replace("\\\n", " ")
    for program, arguments in COMMAND.findall(text):
        given = set(re.findall(r"(?<=\s)--(\w+)", arguments))
        assert given <= flags_of(ROOT / program), f"{program} {arguments}"
    known = set().union(*map(flags_of, LAUNCHERS + EXAMPLES))
    spans = re.findall(r"`(--[^`]+)`", text)
    given = {flag for span in spans for flag in re.findall(r"--(\w+)", span)}
    assert given - {"help"} <= known


def test_the_error_that_is_shown():
    ((command, shown),) = re.findall(
        r"^    \$ python (.*)\n    (.*)", text_of_pages(), re.MULTILINE
    )
    outcome = subprocess.run(
        [sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (outcome.returncode, outcome.stderr.strip()) == (1, shown)


@each_page
def test_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`(trial_\w+)`", text):
        assert list(ROOT.glob(f"results/runs/*/{name}")), name
    for path in PATH.findall(text):
        if "NAME" not in path:
            for pattern in expanded(path):
                assert list(ROOT.glob(pattern.rstrip("."))), path


def expanded(path):
    """Braces as the shell expands them."""
    before, brace, rest = path.partition("{")
    if not brace:
        return [path]
    choices, _, after = rest.partition("}")
    return [each for choice in choices.split(",") for each in expanded(before + choice + after)]


def test_the_map_is_the_tree():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    tree = text.partition("\nnppac_tf/\n")[2].partition("\nbenchmarks/")[0]
    folders = re.findall(r"^  (\w+)/(.*(?:\n {4,}.*)*)$", tree, re.MULTILINE)
    assert len(folders) > 5
    for folder, names in folders:
        children = list((ROOT / "nppac_tf" / folder).iterdir())
        modules = {each.stem for each in children if each.suffix == ".py"} - {"__init__"}
        packages = {f"{each.name}/" for each in children if each.is_dir()} - {"__pycache__/"}
        assert set(names.split()) == packages | modules, folder


@each_page
def test_links_lead_somewhere(page):
    for link in IN_LINKS.findall(page.read_text(encoding="utf-8")):
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(kind):
    found = BLOCK.findall(text_of_pages())
    return {name: text for block_kind, name, text in found if block_kind == kind}


@pytest.fixture
def small_defaults(monkeypatch):
    for config_class, values in SMALL.items():
        defaults = [values.get(f.name, f.default) for f in dataclasses.fields(config_class)]
        monkeypatch.setattr(config_class.__init__, "__defaults__", tuple(defaults))
        for name, value in values.items():
            assert getattr(config_class(), name) == value


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to run in, with the pages' files; removes what they register afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in blocks("file").items():
        (tmp_path / name).write_text(text + "\n")
    yield tmp_path
    for name in blocks("file"):
        sys.modules.pop(name.removesuffix(".py"), None)
    gymnasium.registry.pop("Reach-v0", None)


def run(name):
    """Runs a program with small budgets; returns its variables."""
    program = blocks("run")[name].replace("pen2_sparse.npy", "embedded:pen")
    for pattern, replacement in BUDGETS:
        program = pattern.sub(replacement, program)
    pathlib.Path("program.py").write_text(program)
    return runpy.run_path("program.py", run_name="__main__")


def table_in(output):
    """The means by metric in the table that `print(evaluate(...))` gives."""
    rows = re.findall(r"^(\D+?) {2,}([-\d.,e]+) ", output, re.MULTILINE)
    return {name: float(mean.replace(",", "")) for name, mean in rows}


def test_every_program_is_run_here():
    here = {"program", "own_environment", "tf_agents", "far_goals", "no_simulator"}
    # Those of the tutorial and of CONTRIBUTING.md have tests of their own.
    elsewhere = {"served_cart", "prior", "reader", "baseline", "claim"}
    assert blocks("run").keys() == here | elsewhere
    unmarked = BLOCK.sub("", text_of_pages())
    assert not re.search(r"^import nppac_tf", unmarked, re.MULTILINE)


@pytest.mark.usefixtures("small_defaults")
def test_the_program(place, capsys):
    variables = run("program")
    assert 0 <= table_in(capsys.readouterr().out)["A, any-time success"] <= 1
    assert load_metadata(place / "exported" / "pen")["updates"] == 60
    assert variables["task"].name == "pen-binary"


@pytest.mark.usefixtures("small_defaults")
def test_ones_own_environment_and_demonstrations(place, capsys):
    rng = np.random.default_rng(0)
    (place / "episodes").mkdir()
    recorded = []
    for index in range(4):
        position = np.linspace(rng.uniform(-1, 1, 2), 0, 11, dtype=np.float32)
        actions = 10 * np.diff(position, axis=0)
        recorded.append((position[:-1], actions))
        np.savez(place / f"episodes/{index}.npz", observations=position[:-1], actions=actions)
    run("own_environment")
    table = table_in(capsys.readouterr().out)
    assert table["return"] == pytest.approx(40 * table["B, time at goal"], rel=1e-3)
    assert load_metadata(place / "exported" / "reach")["task"] == "my_robot:Reach-v0"
    saved = load_demonstrations(place / "reach.npz")
    for (observations, actions), kept in zip(recorded, saved.episodes(), strict=True):
        np.testing.assert_array_equal(observations, kept[0])
        np.testing.assert_array_equal(actions, kept[1])


@pytest.mark.usefixtures("small_defaults", "place")
def test_a_tf_agents_program(capsys):
    variables = run("tf_agents")
    assert int(variables["agent"].train_step_counter) == 20
    assert np.isfinite(variables["loss"].loss)
    # Each of two finished episodes of 100 steps adds the step from its end to the next one's start.
    assert variables["buffer"].num_frames() == 220 + 2
    assert 0 <= table_in(capsys.readouterr().out)["A, any-time success"] <= 1
    pairs = next(variables["batches"])[0]
    assert not pairs.is_boundary()[:, 0].numpy().any()


def test_how_far_goals_fail(place, capsys):
    task = make_task("pen-binary")
    prior = UniformPrior(task.observation_size, len(task.action_low))
    agent = NppacAgent.for_task(
        task, prior, AgentConfig(actor_layers=(16,), critic_layers=(16,), divergence="sampled")
    )
    export_policy(agent, place / "runs/trial/policy", task)
    variables = run("far_goals")
    failed, far = variables["failed"], variables["far"]
    assert failed.shape == far.shape == (2,)
    printed = f"failed: {(failed & far).sum()} of {far.sum()} far goals, {(failed & ~far).sum()}"
    assert printed in capsys.readouterr().out


@pytest.mark.parametrize(
    ("function", "task"),
    [
        ("reach", "fetch-reach"),
        ("umaze", "pointmaze-umaze"),
        ("pick_and_place", "fetch-pick-and-place"),
    ],
)
@pytest.mark.usefixtures("place")
def test_scripts_reach_their_goals(function, task):
    policy = getattr(importlib.import_module("scripts"), function)
    assert evaluate(policy, make_task(task), num_episodes=3).final_success.all()


@pytest.mark.usefixtures("small_defaults")
def test_a_prior_is_exported_without_a_simulator(place):
    rng = np.random.default_rng(0)
    pairs = [(state, -0.5 * state) for state in rng.normal(size=(3, 8, 26)).cumsum(axis=1)]
    episodes = tuple(RecordedEpisode(*pair) for pair in pairs)
    save_recording(Recording("arms", "npz", episodes, (0, 1, 2)), "lerobot:my_arm", fps=20)
    run("no_simulator")
    metadata = load_metadata(place / "exported/arm")
    assert (metadata["updates"], metadata["observation_size"]) == (0, 26)
    assert "action_or_prior" in metadata["signatures"]
