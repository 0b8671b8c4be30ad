"""What a person reads after a mistake: one line that names it, and never a traceback."""

import json
import re
import zipfile

import numpy as np
import pytest
from common import flagfiles
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from launching import LAUNCH, Launchers
from run_folders import write_run

from nppac_tf.config import RunConfig
from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.errors import UserError

PENDULUM = "--task=Pendulum-v1"
FLAGFILES = {
    "comment.flags": "--task=Pendulum-v1\n--seed=1 # the first\n",
    "slashes.flags": "--task=Pendulum-v1 // easy\n",
    "spaced.flags": "# a comment\n\n--seed = 3\n",
    "two_words.flags": "--seed 3\n",
    "after.flags": "--task= Pendulum-v1\n",
    "naked.flags": "seed=3\n",
    "dash.flags": "\u2013\u2013seed=3\n",
    "quoted.flags": '--demonstrations="expert.npz"\n',
    "unknown.flags": "--task=Pendulum-v1\n--sede=3\n",
    "illegal.flags": "\n--seed=three\n",
    "empty_include.flags": "--flagfile=\n",
    "itself.flags": "--flagfile=itself.flags\n",
    "circle_a.flags": "--flagfile=circle_b.flags\n",
    "circle_b.flags": "--seed=3\n--flagfile=circle_a.flags\n",
    "lost.flags": "--flagfile=nowhere.flags\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of things that people have, and of damaged ones."""
    place = tmp_path_factory.mktemp("mistakes")

    def write(name, content):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (place / name).write_text(text, encoding="utf-8")

    for name, content in FLAGFILES.items():
        write(name, content)
    (place / "binary.flags").write_bytes(b"\x89PNG\xff\x00")
    episodes = [(np.zeros((5, 3)), np.zeros((5, 1)))] * 2
    save_demonstrations(Demonstrations.from_episodes(episodes), place / "expert.npz")
    (place / "damaged.npz").write_bytes((place / "expert.npz").read_bytes()[:300])
    with zipfile.ZipFile(place / "garbled.npz", "w") as archive:
        archive.writestr("header.npy", b"garbled")
    config = RunConfig(task="Pendulum-v1").to_dict()
    write("notes.txt", "not demonstrations")
    write("runs/begun/config.json", {"config": config})
    write("runs/begun/metrics.csv", "env_steps\n")
    write("runs/torn/config.json", '{"config": {"ta')
    write("runs/older/config.json", {"config": {**config, "prior": {}}})
    write("model/saved_model.pb", "garbled")
    write("model/assets.extra/metadata.json", {"version": 999})
    (place / "empty").mkdir()
    return place


@pytest.fixture(scope="module")
def launchers(folder):
    return Launchers(folder)


def check(outcome, *culprits, output=""):
    """Asserts one line of error that holds each of the culprits."""
    assert outcome.code == 1, outcome
    assert outcome.output == output
    (line,) = outcome.errors.splitlines()
    assert line.startswith("error: ")
    assert "unexpected " not in line or "unexpected argument" in line
    assert len(line) < 500
    for culprit in culprits:
        assert culprit in line


@pytest.mark.parametrize("name", sorted(path.stem for path in LAUNCH.glob("*.py")))
def test_each_launcher_refuses_an_unknown_flag(launchers, name):
    check(launchers.run(name, "--unheard_of=1", quick=True), "unknown flag --unheard_of")


@pytest.mark.parametrize(
    ("arguments", "culprits"),
    [
        (["--sede=1"], ["unknown flag --sede", "did you mean --seed?"]),
        (["--num-inducing-points=3"], ["did you mean --num_inducing_points?"]),
        (["--seed=x"], ["--seed must be", "integer; got 'x'"]),
        (["--seed=1.5"], ["--seed must be", "integer; got '1.5'"]),
        (["--seed"], ["Missing value", "--seed"]),
        (["--noseed"], ["--noseed", "did you mean --seed"]),
        (["--seed", "=", "3"], ["--seed must be", "got '='"]),
        (["--task", "=", "Pendulum-v1"], ["'Pendulum-v1'", "without spaces"]),
        (["--prior=sparse_pg"], ["--prior must be one of", "sparse_gp", "got 'sparse_pg'"]),
        (["--debug=perhaps"], ["--debug", "true or false; got 'perhaps'"]),
        (["--nodebug=1"], ["--nodebug=1", "does not take an argument"]),
        (["--network_layers=x"], ["--network_layers must be integers", "got 'x'"]),
        (["--dropout_rate=much"], ["--dropout_rate must be a number", "'much'"]),
        (["--dropout_rate=nan"], ["dropout_rate must be in (0, 1)", "nan"]),
        (["pen-binary"], ["unexpected argument 'pen-binary'"]),
        (["seed=3"], ["unexpected argument 'seed=3'", "--name=value"]),
        (["--flagfile"], ["--flagfile=", "does not exist"]),
        (["--flagfile=coment.flags"], ["coment.flags", "did you mean comment.flags?"]),
        (["--flagfile", "empty"], ["flagfile empty cannot be read", "directory"]),
        (["--flagfile=binary.flags"], ["binary.flags", "UTF-8"]),
        (["--flagfile=comment.flags"], ["comment.flags:2", "comment after it"]),
        (["--flagfile=slashes.flags"], ["slashes.flags:1", "comment after it"]),
        (["--flagfile=spaced.flags"], ["spaced.flags:3", "without spaces", "'--seed = 3'"]),
        (["--flagfile=two_words.flags"], ["two_words.flags:1", "'--seed 3'"]),
        (["--flagfile=after.flags"], ["after.flags:1", "without spaces"]),
        (["--flagfile=naked.flags"], ["naked.flags:1", "'seed=3'"]),
        (["--flagfile=dash.flags"], ["dash.flags:1", "--name=value"]),
        (["--flagfile=quoted.flags"], ["quoted.flags:1", "quotes"]),
        (["--flagfile=unknown.flags"], ["unknown.flags:2", "--sede", "did you mean --seed?"]),
        (["--flagfile=illegal.flags"], ["illegal.flags:2", "'three'"]),
        (["--flagfile=empty_include.flags"], ["included by empty_include.flags"]),
        (["--flagfile=itself.flags"], ["itself.flags includes itself"]),
        (["--flagfile=circle_a.flags"], ["circle_a.flags -> circle_b.flags"]),
        (["--flagfile=lost.flags"], ["nowhere.flags", "included by lost.flags"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0][0] in "-s" else "",
)
def test_a_wrong_flag_or_flagfile(launchers, arguments, culprits):
    check(launchers.run("fit_prior", *arguments, quick=True), *culprits)


@pytest.mark.parametrize(
    ("name", "arguments", "culprits"),
    [
        ("fit_prior", ["--prior=uniform"], ["--prior", "'uniform'"]),
        ("fit_prior", ["--search", "--task=none"], ["--search needs a simulator"]),
        ("fit_prior", ["--search", "--num_episodes=9"], ["--num_episodes must be at least 10"]),
        ("fit_prior", ["--search", "--prior=ensemble"], ["--search", "'ensemble'"]),
        ("fit_prior", ["--output=prior.pkl"], ["--output must be a file that ends in .npz"]),
        ("fit_prior", ["--output=empty/x/p.npz", "--demonstrations=a.npz"], ["a.npz"]),
        ("fit_prior", [PENDULUM, "--demonstrations=damaged.npz"], ["damaged.npz"]),
        ("evaluate", [], ["--run, --saved_model", "got none"]),
        ("evaluate", ["--run=a", "--prior_file=b"], ["got --run, --prior_file"]),
        ("evaluate", ["--num_episodes=0"], ["--num_episodes must be", "got '0'"]),
        ("evaluate", ["--run=runs/begn"], ["runs/begn", "mean runs/begun?"]),
        ("evaluate", ["--run=runs"], ["runs has no config.json", "runs/begun"]),
        ("evaluate", ["--run=runs/torn"], ["runs/torn/config.json"]),
        ("evaluate", ["--run=runs/older"], ["runs/older", "kernel"]),
        ("evaluate", ["--saved_model=modl"], ["'modl'", "mean model?"]),
        ("evaluate", ["--prior_file=expert.npz"], ["--task must be given"]),
        ("evaluate", ["--run=runs/begun", "--task=nowhere"], ["got 'nowhere'"]),
        ("evaluate", ["--demonstrations=exprt.npz"], ["exprt.npz"]),
        ("evaluate", ["--demonstrations=expert.npz"], ["--task must be given"]),
        (
            "evaluate",
            ["--demonstrations=expert.npz", "--task=pen-binary"],
            ["observation and action size (45, 24)", "got (3, 1)"],
        ),
        ("evaluate", ["--demonstrations=expert.npz", "--seed=1"], ["--seed has no effect"]),
        ("evaluate", ["--run=a", "--video=a.avi"], ["--video must be", ".mp4 or .gif", "a.avi"]),
        ("evaluate", ["--run=a", "--video_episodes=2"], ["--video_episodes", "--video"]),
        ("evaluate", ["--run=a", "--video=notes.txt/a.gif"], ["notes.txt is not a folder"]),
        ("report", ["runs/begun"], ["runs/begun/metrics.csv"]),
        ("train", ["--resume"], ["--output_dir"]),
        ("train", ["--resume", "--output_dir=empty"], ["no run at empty"]),
        ("train", ["--output_dir=runs/begun"], ["runs/begun already holds a run", "--resume"]),
        ("train", ["--output_dir=notes.txt/run"], ["notes.txt is not a folder"]),
        ("train", ["--steps_per_epoch=25"], ["steps_per_epoch must be a multiple", "got 25"]),
        ("export", ["--run=runs/begun"], ["--output must be a folder"]),
        ("collect_demonstrations", ["--run=a", "--output=a.txt"], ["'a.txt'", "minari:ID"]),
        ("collect_demonstrations", ["--run=runs/begn", "--output=a.npz"], ["mean runs/begun?"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) if value else "",
)
def test_a_mistake_is_found_before_anything_slow(launchers, name, arguments, culprits):
    check(launchers.run(name, *arguments, quick=True), *culprits)


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["--task=Pendulm-v1"], "Pendulum-v1"),
        ([PENDULUM, "--demonstrations=exprt.npz"], "exprt.npz"),
    ],
)
def test_a_task_or_data_that_cannot_be_loaded_end_a_run_at_once(launchers, arguments, culprit):
    check(launchers.run("train", *arguments), culprit, output="Loading TensorFlow\n")


@pytest.mark.parametrize(
    ("arguments", "culprits"),
    [
        (["--saved_model=model"], ["model", "999"]),
        (["--saved_model=runs/begun"], ["no exported policy at runs/begun"]),
        (["--prior_file=garbled.npz", PENDULUM], ["garbled.npz"]),
        (["--prior_file=expert.npz", PENDULUM], ["expert.npz is not a prior"]),
        (["--run=runs/begun"], ["runs/begun"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_damaged_policy_is_one_line(launchers, arguments, culprits):
    check(launchers.run("evaluate", *arguments), *culprits)


def test_debug_shows_where_an_error_arose(launchers):
    outcome = launchers.run("report", "nowhere", "--debug", quick=True)
    assert outcome.code == 1
    assert "Traceback" in outcome.errors
    assert re.search(r'archive\.py", line \d+, in ', outcome.errors)


def test_arguments_and_flags_mix(launchers, folder):
    (folder / "windows.flags").write_bytes(b"\xef\xbb\xbf// a comment\r\n--title=first\r\n\r\n")
    write_run(folder / "run", [0.1, 0.2])
    write_run(folder / "--odd", [0.1, 0.2], seed=1)
    arguments = ("run", "--flagfile=windows.flags", "--title=run #3", "--", "--odd")
    outcome = launchers.run("report", *arguments, quick=True)
    assert (outcome.code, outcome.errors) == (0, "")
    assert "run #3: interquartile means" in outcome.output
    assert re.search(r"^runs +2$", outcome.output, re.MULTILINE)


def test_flagfiles_are_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--flagfile=configs/comparison/pen.flags", "--seed=3", "--", "--flagfile=none"]
    expanded = flagfiles.expand(given)
    assert [argument.text for argument in expanded[-3:]] == given[1:]
    flag = "--actor_layers=256,256,256,256"  # In configs/pen_human.flags, which that one includes.
    (place,) = (argument.place for argument in expanded if argument.text == flag)
    assert place.startswith(f"{LAUNCH.parent}/configs/pen_human.flags:")

    # The working directory comes first, then the folder of the flagfile that includes another.
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/pen_human.flags").write_text("--seed=5\n--flagfile=beside.flags\n")
    (tmp_path / "configs/beside.flags").write_text("--seed=6\n")
    texts = [argument.text for argument in flagfiles.expand(given)]
    assert texts.index("--seed=5") + 1 == texts.index("--seed=6")
    assert flag not in texts


NAMES = st.sampled_from(["archive", "title", "flagfile", "sede", "notitle", "", "no", "-"])
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
ARGUMENTS = (
    st.builds("--{}={}".format, NAMES, VALUES) | st.builds("--{}".format, NAMES) | VALUES
).filter(lambda argument: "h" not in argument and (argument.strip("./") or not argument))


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(st.lists(ARGUMENTS, min_size=1, max_size=3))
@example(["\n"])
@example(["--flagfile=~"])
@example(["--output_dir=.png", 300 * "x"])
def test_garbage_is_one_line(launchers, arguments):
    check(launchers.run("report", *arguments, quick=True))


@given(st.text(max_size=30) | st.text("-=#/ \n\t\"'seed1", max_size=30))
def test_any_flagfile_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.flags"
    path.write_text(content, encoding="utf-8", newline="")
    try:
        arguments = flagfiles.expand([f"--flagfile={path}"])
    except UserError as error:
        message = str(error)
    else:
        assert all(argument.text.startswith("-") and argument.place for argument in arguments)
        return
    assert "any.flags" in message
    assert "\n" not in message
