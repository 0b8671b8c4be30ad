"""Flags made of the configuration, and what the launchers make of bad ones."""

import dataclasses
import errno
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from absl import flags
from absl.testing import flagsaver

from launch import config_flags, policy_flags, program, signals
from nppac_tf.config import AgentConfig, RunConfig
from nppac_tf.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
ONE_FLAG_OF = {
    "train": "resume",
    "fit_prior": "held_out_fraction",
    "evaluate": "prior_file",
    "collect_demonstrations": "min_time_at_goal",
    "inspect_demonstrations": "demonstrations",
    "export": "output",
    "diagnose": "claim",
    "report": "threshold",
    "sweep": "flagfiles",
    "benchmark": "prior_sizes",
}


@pytest.fixture(scope="module")
def defined():
    """Defines the flags of a run, for this module alone."""
    before = set(flags.FLAGS)
    config_flags.define(RunConfig)
    yield
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.fixture
def parse(defined):
    """Parses arguments; what they set is forgotten afterwards."""
    with flagsaver.flagsaver():
        yield lambda *arguments: flags.FLAGS(["launcher", *arguments])


def launch(name, *arguments):
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, f"launch/{name}.py", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    return result, time.monotonic() - started


def leaves(config_class):
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(field.type):
            yield from leaves(field.type)
        else:
            yield field


def test_the_defaults_are_those_of_the_configuration(parse):
    parse()
    assert config_flags.configuration(RunConfig) == RunConfig()


def test_each_field_has_a_flag_with_its_help(parse):
    for field in leaves(RunConfig):
        assert field.metadata["help"] in flags.FLAGS[field.name].help


def test_values_of_each_type(parse):
    parse(
        "--actor_layers=8,4",
        "--nosquash",
        "--divergence=closed_form",
        "--target_kl=12.5",
        "--learning_rate=1e-3",
        "--num_env_steps=7000",
        "--task=Pendulum-v1",
    )
    config = config_flags.configuration(RunConfig)
    assert config.agent == AgentConfig(
        actor_layers=(8, 4),
        squash=False,
        divergence="closed_form",
        target_kl=12.5,
        learning_rate=1e-3,
    )
    assert config.training.num_env_steps == 7000
    assert config.task == "Pendulum-v1"


def test_a_later_flag_takes_a_number_back(parse):
    parse("--target_kl=3", "--target_kl=none")
    assert config_flags.configuration(RunConfig).agent.target_kl is None


def test_a_whole_number_may_be_none(parse):
    parse("--num_greedy_environments=3")
    assert config_flags.configuration(RunConfig).training.num_greedy_environments == 3
    parse("--num_greedy_environments=none", "--num_environments=4")
    assert config_flags.configuration(RunConfig).training.greedy_environments == 2
    with pytest.raises(flags.IllegalFlagValueError, match=r"whole number or none; got '2\.5'"):
        parse("--num_greedy_environments=2.5")


def test_flags_on_the_command_line_change_a_base(parse):
    base = RunConfig(task="Hopper-v5", agent=AgentConfig(actor_layers=(5,), temperature=0.1))
    asked = AgentConfig().temperature
    parse(f"--temperature={asked}")  # The default, but asked for.
    expected = dataclasses.replace(base, agent=dataclasses.replace(base.agent, temperature=asked))
    assert config_flags.configuration(RunConfig, base) == expected


def test_flags_survive_a_flagfile(parse, tmp_path):
    parse("--actor_layers=3,2,1", "--target_kl=4.5", "--nosquash", "--seed=9")
    config = config_flags.configuration(RunConfig)
    path = tmp_path / "run.flags"
    path.write_text("\n".join(flags.FLAGS[f.name].serialize() for f in leaves(RunConfig)) + "\n")
    flags.FLAGS.unparse_flags()
    parse(f"--flagfile={path}")
    assert config_flags.configuration(RunConfig) == config


SHIPPED = sorted((ROOT / "configs").glob("**/*.flags"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_a_configuration_that_ships_is_valid(parse, path, monkeypatch):
    monkeypatch.chdir(ROOT)  # From where they name each other.
    base = ROOT / "configs" / "pen_human.flags"
    parse(f"--flagfile={base}", "--demonstrations=mine.npz")
    before = config_flags.configuration(RunConfig)
    flags.FLAGS.unparse_flags()
    arguments = [f"--flagfile={base}", f"--flagfile={path}", "--demonstrations=mine.npz"]
    assert parse(*arguments) == ["launcher"]
    after = config_flags.configuration(RunConfig)
    assert (after == before) == (path == base)


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
def test_a_baseline_is_a_difference_from_a_base(parse, name, expected, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse("--flagfile=configs/pen.flags", f"--flagfile=configs/baselines/{name}.flags")
    config = config_flags.configuration(RunConfig)
    parts = (config, config.prior, config.agent, config.training)
    for field, value in expected.items():
        assert value in [getattr(part, field) for part in parts if hasattr(part, field)]


@pytest.mark.parametrize("name", ["baselines/sac", "baselines/awac", "paper/pen", "claims/c8"])
def test_what_is_no_recipe_has_none_of_it(parse, name, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse("--flagfile=configs/door.flags", f"--flagfile=configs/{name}.flags")
    config = config_flags.configuration(RunConfig)
    assert not config.agent.anneals
    assert config.training.exploration_spread == 1
    assert config.agent.num_critics == 2
    assert config.agent.policy_averaging == 0
    assert config.training.n_step == 1
    assert config.training.num_greedy_environments == 0
    assert not (config.training.warmup_imitation and config.training.critic_warmup_steps)


OF_DATA = (
    "--demonstrations=",
    "--action_lookahead=",
    "--final_temperature=",
    "--num_env_steps=",
)


@pytest.mark.parametrize("task", ["pen", "door"])
def test_the_configurations_of_a_task_differ_in_their_demonstrations_alone(parse, task):
    def settings(name):
        lines = (ROOT / "configs" / name).read_text().splitlines()
        return [line for line in lines if line.startswith("--") and not line.startswith(OF_DATA)]

    assert settings(f"{task}.flags") == settings(f"{task}_human.flags")
    parse(f"--flagfile={ROOT / 'configs' / f'{task}_human.flags'}")
    with pytest.raises(UserError, match="demonstrations must be named, by a file, embedded:NAME"):
        config_flags.configuration(RunConfig)


@pytest.mark.parametrize("name", ONE_FLAG_OF)
def test_help_is_quick_and_of_this_launcher(name):
    result, seconds = launch(name, "--help")
    assert result.returncode == 0
    assert seconds < 2
    assert result.stderr == ""
    assert f"python launch/{name}.py" in result.stdout
    assert f"\nlaunch/{name}.py:\n" in result.stdout
    assert re.search(rf"^  --(\[no\])?{ONE_FLAG_OF[name]}:", result.stdout, re.MULTILINE)
    assert "log_dir" not in result.stdout


def test_a_first_signal_is_noted_and_a_second_interrupts():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with signals.stop_on_signals() as stop:
        assert stop.requested is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.fixture
def default_interrupt():
    """As in a terminal: a job in the background of a shell inherits that SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_interrupt")
def test_one_interrupt_leaves_the_program_running():
    with signals.stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested == "SIGINT"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stopped_launcher_has_the_shells_exit_code(name, code):
    assert signals.Stopped(name, "go on with --resume").exit_code == code


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("seed must be\nat least 0"), "seed must be at least 0"),
        (FloatingPointError("the loss is nan"), "the loss is nan"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/pen/metrics.csv"),
            "runs/pen/metrics.csv: No space left on device: make room on the disk, or write "
            "elsewhere",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a", None, "b"),
            "a -> b: Permission denied: ask for access to it, or name another place",
        ),
        (OSError("wrapped"), "unexpected OSError: wrapped; run again with --debug"),
        (
            TypeError("x" * 999),
            "unexpected TypeError: " + "x" * 300 + "...; run again with --debug",
        ),
        (MemoryError(), "out of memory"),
    ],
)
def test_an_exception_is_explained(error, line):
    assert program.explain(error).startswith(line)
    assert "\n" not in program.explain(error)


@pytest.mark.parametrize(
    ("sizes", "name"),
    [((45, 24), "pen-binary"), ((39, 30), "relocate-binary"), ((11, 3), "hopper")],
)
def test_a_task_is_told_by_its_sizes(defined, sizes, name):
    with flagsaver.flagsaver(task=None, reward=None):
        task = policy_flags.make_task(sizes=sizes)
    assert task.name == name
    assert (task.observation_size, task.action_size) == sizes


@pytest.mark.parametrize("sizes", [(17, 6), (3, 3), None])  # Two have the first, none the second.
def test_a_task_that_sizes_do_not_tell_must_be_named(defined, sizes):
    with (
        flagsaver.flagsaver(task=None, reward=None),
        pytest.raises(UserError, match="--task must be given"),
    ):
        policy_flags.make_task(sizes=sizes)
