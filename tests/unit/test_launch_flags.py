"""Flags made of the configuration, shipped flagfiles, --help, signals."""

import dataclasses
import errno
import pathlib
import re
import resource
import signal
import subprocess
import sys

import pytest
from common import config_flags, flagfiles, parsing, program
from absl import flags
from absl.testing import flagsaver

from nppac_tf.config import AgentConfig, RunConfig
from nppac_tf.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
LAUNCHERS = sorted(path.stem for path in (ROOT / "launch").glob("*.py"))


@pytest.fixture(scope="module")
def defined():
    """Defines the flags of a run, for this module alone."""
    before = set(flags.FLAGS)
    config_flags.define(RunConfig)
    yield
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.fixture
def configure(defined):
    """Returns the configuration of a command line; its flags are reset afterwards."""

    def apply(*arguments, base=None):
        assert parsing.apply(flagfiles.expand(arguments)) == []
        return config_flags.configuration(RunConfig, base)

    with flagsaver.flagsaver():
        yield apply


def leaves(config_class):
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(field.type):
            yield from leaves(field.type)
        else:
            yield field


def settings_of(config):
    return {**vars(config), **vars(config.prior), **vars(config.agent), **vars(config.training)}


def test_the_defaults_are_those_of_the_configuration(configure):
    assert configure() == RunConfig()
    for field in leaves(RunConfig):
        assert field.metadata["help"] in flags.FLAGS[field.name].help


def test_values_of_each_type(configure):
    config = configure(
        "--actor_layers=8,4",
        "--nocritic_layer_norm",
        "--actor_value=mean",
        "--target_kl=12.5",
        "--learning_rate=1e-3",
        "--num_env_steps=7000",
        "--num_greedy_environments=3",
        "--task=Pendulum-v1",
    )
    assert config.agent == AgentConfig(
        actor_layers=(8, 4),
        critic_layer_norm=False,
        actor_value="mean",
        target_kl=12.5,
        learning_rate=1e-3,
    )
    assert config.training.num_env_steps == 7000
    assert config.training.num_greedy_environments == 3
    assert config.task == "Pendulum-v1"


def test_a_later_none_resets_a_number(configure):
    assert configure("--target_kl=3", "--target_kl=none").agent.target_kl is None


def test_given_flags_override_a_base(configure):
    base = RunConfig(task="Hopper-v5", agent=AgentConfig(actor_layers=(5,), temperature=0.1))
    default = AgentConfig().temperature
    expected = dataclasses.replace(base.agent, temperature=default)
    config = configure(f"--temperature={default}", base=base)
    assert config == dataclasses.replace(base, agent=expected)


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("**/*.flags")), ids=lambda p: str(p.relative_to(CONFIGS))
)
def test_a_shipped_flagfile_is_valid_and_changes_something(configure, path):
    base = (f"--flagfile={CONFIGS / 'pen_human.flags'}", "--demonstrations=mine.npz")
    before = configure(*base)
    after = configure(base[0], f"--flagfile={path}", base[1])
    assert (after == before) == (path.name == "pen_human.flags")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sac", {"prior": "uniform", "target_kl": 12.0, "prefill_replay": False}),
        ("sacfd", {"prior": "uniform", "target_kl": 12.0, "prefill_replay": True}),
        ("rlpd", {"num_critics": 10, "updates_per_step": 20.0, "reward": "negative"}),
        ("awac", {"algorithm": "awac", "prior": "uniform", "temperature": 0.5}),
        ("cloning", {"algorithm": "cloning", "prior": "gaussian_network", "num_env_steps": 0}),
        ("brac", {"algorithm": "nppac", "prior": "gaussian_network", "scale_floor": 0.0}),
    ],
)
def test_a_baseline_is_a_difference_from_a_task(configure, name, expected):
    config = configure("--flagfile=configs/pen.flags", f"--flagfile=configs/baselines/{name}.flags")
    assert {field: settings_of(config)[field] for field in expected} == expected


@pytest.mark.parametrize("name", ["baselines/sac", "baselines/awac", "paper/pen", "claims/c8"])
def test_a_baseline_has_nothing_of_the_recipe(configure, name):
    config = configure("--flagfile=configs/door.flags", f"--flagfile=configs/{name}.flags")
    settings = settings_of(config)
    tuned = settings["target_kl"] is not None or settings["algorithm"] != "nppac"
    assert tuned or settings["final_temperature"] is None
    off = {"exploration_spread": 1, "num_critics": 2, "policy_averaging": 0, "n_step": 1}
    assert {field: settings[field] for field in off} == off
    assert settings["num_greedy_environments"] == 0


@pytest.mark.parametrize("task", ["pen", "door"])
def test_the_configurations_of_a_task_differ_in_their_demonstrations_only(configure, task):
    of_data = ("--demonstrations=", "--action_lookahead=", "--final_temp", "--num_env_steps=")

    def settings(name):
        lines = (CONFIGS / name).read_text().splitlines()
        return [line for line in lines if line.startswith("--") and not line.startswith(of_data)]

    assert settings(f"{task}.flags") == settings(f"{task}_human.flags")
    with pytest.raises(UserError, match="demonstrations must be named"):
        configure(f"--flagfile=configs/{task}_human.flags")


@pytest.mark.parametrize("name", LAUNCHERS)
def test_help_is_quick(name):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, f"launch/{name}.py", "--help"]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert (result.returncode, result.stderr) == (0, "")
    assert f"python launch/{name}.py" in result.stdout
    shown = re.findall(r"^  --(?:\[no\])?(\w+): \S", result.stdout, re.MULTILINE)
    assert len(shown) == len(set(shown))
    assert {"flagfile", "debug"} < set(shown)
    assert not {"log_dir", "verbosity"} & set(shown)  # absl's own.
    if name in ("train", "sweep"):
        sections = [line for line in result.stdout.splitlines() if line.endswith(" options:")]
        groups = ("Main", "Prior", "Agent", "Training", "Run")
        assert sections == [f"{group} options:" for group in groups]
        main = result.stdout.partition("Main options:")[2].partition("Prior options:")[0]
        assert len(re.findall(r"^  --", main, re.MULTILINE)) == (11 if name == "train" else 10)
        assert {field.name for field in leaves(RunConfig)} < set(shown)


@pytest.fixture
def default_interrupt():
    """As in a terminal: a background job of a shell ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_first_signal_is_recorded_and_an_interrupt_after_it_raises(capsys, name, code):
    with program.stop_on_signals() as stop:
        assert stop.requested is None
        signal.raise_signal(signal.Signals[name])
        assert stop.requested == name
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested == name
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit, match=str(code)):
            stop.exit("resume")
    assert capsys.readouterr().err == f"stopped by {name}; resume\n"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("seed must be\nat least 0"), "seed must be at least 0"),
        (FloatingPointError("the loss is nan"), "the loss is nan"),
        (KeyboardInterrupt(), "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/pen/metrics.csv"),
            "[Errno 28] No space left on device: 'runs/pen/metrics.csv'",
        ),
        (TypeError("x" * 999), "unexpected TypeError: " + "x" * 300 + "; run again with"),
    ],
)
def test_an_exception_is_explained_in_one_line(error, line):
    assert program.explain(error).startswith(line)
    assert "\n" not in program.explain(error)


def test_a_missing_installation_is_one_line(tmp_path):
    program = [sys.executable, "-S", ROOT / "launch/train.py"]  # Without site-packages.
    result = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: nppac_tf is not installed for this Python: run `make setup`")
    assert result.returncode == 1
