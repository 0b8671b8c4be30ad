"""What a person reads after a mistake: one line that names it, and never a traceback."""

import json
import pathlib
import re
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from launching import LAUNCH, Launchers
from run_folders import write_run

from launch import flagfiles
from nppac_tf.config import RunConfig
from nppac_tf.demonstrations import Demonstrations, save_demonstrations
from nppac_tf.errors import UserError

LAUNCHERS = sorted(
    path.stem for path in LAUNCH.glob("*.py") if "program.run(main)" in path.read_text()
)
PENDULUM = "--task=Pendulum-v1"
FLAGFILES = {
    "comment.flags": "--task=Pendulum-v1\n--seed=1 # the first\n",
    "slashes.flags": "--task=Pendulum-v1 // easy\n",
    "indented.flags": "--seed=1\n  # a comment\n",
    "spaced.flags": "# a comment\n\n--seed = 3\n",
    "two_words.flags": "--seed 3\n",
    "after.flags": "--task= Pendulum-v1\n",
    "naked.flags": "seed=3\n",
    "dash.flags": "\u2013\u2013seed=3\n",
    "quoted.flags": '--demonstrations="expert.npz"\n',
    "twice.flags": "--seed=1\n--task=Pendulum-v1\n--seed=2\n",
    "unknown.flags": "--task=Pendulum-v1\n--sede=3\n",
    "illegal.flags": "\n--seed=three\n",
    "empty_include.flags": "--flagfile=\n",
    "itself.flags": "--flagfile=itself.flags\n",
    "circle_a.flags": "--flagfile=circle_b.flags\n",
    "circle_b.flags": "--seed=3\n--flagfile=circle_a.flags\n",
    "sub/outer.flags": "--flagfile=inner.flags\n",
    "sub/inner.flags": "--seed=3\n",
    "lost.flags": "--flagfile=nowhere.flags\n",
    "marked.flags": "\ufeff--seed=3\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of things that people have, and of things gone wrong."""
    place = tmp_path_factory.mktemp("mistakes")
    for name, content in FLAGFILES.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(content, encoding="utf-8")
    (place / "binary.flags").write_bytes(b"\x89PNG\xff\x00")
    episodes = [(np.zeros((5, 3)), np.zeros((5, 1)))] * 2
    save_demonstrations(Demonstrations.from_episodes(episodes), place / "expert.npz")
    (place / "damaged.npz").write_bytes((place / "expert.npz").read_bytes()[:300])
    (place / "notes.txt").write_text("not demonstrations")
    with zipfile.ZipFile(place / "garbled.npz", "w") as archive:
        archive.writestr("header.npy", b"garbled")
    with zipfile.ZipFile(place / "other.npz", "w") as archive:
        archive.writestr("other.npy", b"")

    def write(name, content):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content if isinstance(content, str) else json.dumps(content))

    config = RunConfig(task="Pendulum-v1").to_dict()
    write("runs/begun/config.json", {"config": config})
    write("runs/torn/config.json", '{"config": {"ta')
    write("runs/older/config.json", {"config": {**config, "prior": {}}})
    write("runs/begun/metrics.csv", "env_steps\n")
    write("model/saved_model.pb", "garbled")
    write("model/assets.extra/metadata.json", {"version": 999})
    write("foreign/saved_model.pb", "garbled")
    (place / "empty").mkdir()
    return place


@pytest.fixture(scope="module")
def launchers(folder):
    return Launchers(folder)


def check(outcome, *culprits):
    """Asserts one line of error that holds each of the culprits."""
    assert outcome.code == 1, outcome
    assert outcome.output == ""
    (line,) = outcome.errors.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in line
    assert "unexpected " not in line or "unexpected argument" in line
    assert len(line) < 500
    for culprit in culprits:
        assert culprit in line


@pytest.mark.parametrize("name", LAUNCHERS)
def test_each_launcher_refuses_an_unknown_flag(launchers, name):
    check(launchers.run(name, "--unheard_of=1", quick=True), f"{name}.py has no flag --unheard_of")


@pytest.mark.parametrize(
    ("arguments", "culprits"),
    [
        (["--sede=1"], ["no flag --sede", "did you mean --seed?"]),
        (["--max-fit-iterations=3"], ["did you mean --max_fit_iterations?"]),
        (["--seed=x"], ["--seed must be", "integer; got 'x'"]),
        (["--seed=1.5"], ["--seed must be", "integer; got '1.5'"]),
        (["--seed"], ["--seed must have a value"]),
        (["--noseed"], ["--seed is not a switch", "--seed=..."]),
        (["--seed", "=", "3"], ["--seed must be", "without spaces"]),
        (["--task", "=", "Pendulum-v1"], ["'Pendulum-v1'", "without spaces"]),
        (["--task=", "Pendulum-v1"], ["'Pendulum-v1'", "without spaces"]),
        (["--prior=sparse_pg"], ["--prior must be one of", "did you mean 'sparse_gp'?"]),
        (["--observation_noise=perhaps"], ["--observation_noise", "true or false; got 'perhaps'"]),
        (["--observation_noise", "no"], ["'no'", "--noobservation_noise"]),
        (["--noobservation_noise=1"], ["--noobservation_noise=1", "does not take an argument"]),
        (["--scale_factor=much"], ["--scale_factor must be a number", "'much'"]),
        (["--scale_factor=-1"], ["scale_factor must be positive", "-1"]),
        (["--scale_factor=nan"], ["scale_factor must be positive", "nan"]),
        (["pen-binary"], ["unexpected argument 'pen-binary'"]),
        (["seed=3"], ["did you mean --seed=3?"]),
        (["\u2013seed=3"], ["two hyphens"]),
        (["--flagfile"], ["--flagfile must name a file"]),
        (["--flagfile=nowhere.flags"], ["flagfile nowhere.flags does not exist"]),
        (["--flagfile=coment.flags"], ["coment.flags", "did you mean comment.flags?"]),
        (["--flagfile", "empty"], ["flagfile empty cannot be read", "directory"]),
        (["--flagfile=binary.flags"], ["binary.flags", "UTF-8"]),
        (["--flagfile=marked.flags"], ["marked.flags", "byte-order mark"]),
        (["--flagfile=comment.flags"], ["comment.flags:2", "line of its own"]),
        (["--flagfile=slashes.flags"], ["slashes.flags:1", "line of its own"]),
        (["--flagfile=indented.flags"], ["indented.flags:2", "first column"]),
        (["--flagfile=spaced.flags"], ["spaced.flags:3", "write --seed=3, without spaces"]),
        (["--flagfile=two_words.flags"], ["two_words.flags:1", "write --seed=3"]),
        (["--flagfile=after.flags"], ["after.flags:1", "write --task=Pendulum-v1"]),
        (["--flagfile=naked.flags"], ["naked.flags:1", "'seed=3'"]),
        (["--flagfile=dash.flags"], ["dash.flags:1", "two hyphens"]),
        (["--flagfile=quoted.flags"], ["quoted.flags:1", "write --demonstrations=expert.npz"]),
        (["--flagfile=twice.flags"], ["twice.flags:3", "twice.flags:1", "contradicts"]),
        (["--flagfile=unknown.flags"], ["unknown.flags:2", "--sede", "did you mean --seed?"]),
        (["--flagfile=illegal.flags"], ["illegal.flags:2", "'three'"]),
        (["--flagfile=empty_include.flags"], ["empty_include.flags:1", "--flagfile=NAME"]),
        (["--flagfile=itself.flags"], ["itself.flags includes itself"]),
        (["--flagfile=circle_a.flags"], ["circle_a.flags -> circle_b.flags -> circle_a.flags"]),
        (["--flagfile=sub/outer.flags"], ["inner.flags", "write --flagfile=sub/inner.flags"]),
        (["--flagfile=lost.flags"], ["nowhere.flags", "which lost.flags includes"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0][0] in "-s" else "",
)
def test_a_wrong_flag_or_flagfile(launchers, arguments, culprits):
    check(launchers.run("fit_prior", *arguments, quick=True), *culprits)


@pytest.mark.parametrize(
    ("name", "arguments", "culprits"),
    [
        ("fit_prior", ["--prior=uniform"], ["--prior", "'uniform'"]),
        ("fit_prior", ["--output=prior.pkl"], ["--output must end in .npz", "'prior.pkl'"]),
        ("fit_prior", ["--output=notes.txt/a.npz"], ["--output", "notes.txt is not a folder"]),
        ("fit_prior", ["--task=Pendulm-v1"], ["Pendulum-v1", "got 'Pendulm-v1'"]),
        ("fit_prior", ["--task=nothing:There-v0"], ["nothing:There-v0"]),
        ("fit_prior", [PENDULUM, "--demonstrations=exprt.npz"], ["exprt.npz"]),
        ("fit_prior", [PENDULUM, "--demonstrations=notes.txt"], ["notes.txt"]),
        ("fit_prior", [PENDULUM, "--demonstrations=damaged.npz"], ["damaged.npz"]),
        ("fit_prior", [PENDULUM, "--demonstrations=embedded:pan"], ["embedded:pan", "pen"]),
        ("fit_prior", ["--demonstrations=expert.npz"], ["pen-binary"]),
        (
            "fit_prior",
            [PENDULUM, "--demonstrations=expert.npz", "--held_out_fraction=2"],
            ["held_out_fraction must be in (0, 1); got 2.0"],
        ),
        ("evaluate", [], ["--run or --saved_model", "got none"]),
        ("evaluate", ["--run=a", "--prior_file=b"], ["got --run and --prior_file"]),
        ("evaluate", ["--num_episodes=0"], ["--num_episodes must be", "got '0'"]),
        ("evaluate", ["--run=runs/begn"], ["runs/begn does not exist", "mean runs/begun?"]),
        ("evaluate", ["--run=runs"], ["runs holds no config.json", "runs/begun"]),
        ("evaluate", ["--run=empty"], ["empty holds no config.json"]),
        ("evaluate", ["--run=runs/torn"], ["runs/torn/config.json"]),
        ("evaluate", ["--run=runs/older"], ["runs/older/config.json", "kernel"]),
        ("evaluate", ["--run=foreign"], ["foreign is an exported policy", "--saved_model"]),
        ("evaluate", ["--saved_model=modl"], ["modl does not exist", "mean model?"]),
        ("evaluate", ["--saved_model=runs/begun"], ["runs/begun", "use --run"]),
        ("evaluate", ["--saved_model=foreign"], ["foreign holds no assets.extra"]),
        ("evaluate", ["--saved_model=empty"], ["empty holds no saved_model.pb"]),
        ("evaluate", ["--prior_file=none.npz"], ["none.npz does not exist"]),
        ("evaluate", ["--prior_file=notes.txt"], ["--prior_file must end in .npz", "notes.txt"]),
        ("evaluate", ["--prior_file=expert.npz"], ["expert.npz holds demonstrations"]),
        ("evaluate", ["--prior_file=damaged.npz"], ["damaged.npz is damaged"]),
        ("evaluate", ["--prior_file=other.npz"], ["other.npz is none"]),
        ("evaluate", ["--run=runs/begun", "--task=nowhere"], ["got 'nowhere'"]),
        ("evaluate", ["--run=runs/begun", "--reward=negative"], ["reward must be 'binary'"]),
        ("evaluate", ["--demonstrations=exprt.npz"], ["exprt.npz"]),
        ("evaluate", ["--demonstrations=expert.npz"], ["--task must be given", "size 3"]),
        (
            "evaluate",
            ["--demonstrations=expert.npz", "--task=pen-binary"],
            ["observation size 45", "got 3 and 1"],
        ),
        ("evaluate", ["--demonstrations=expert.npz", "--seed=1"], ["--seed has no effect"]),
        ("evaluate", ["--run=a", "--video=a.avi"], ["--video must end in .mp4 or .gif", "a.avi"]),
        ("evaluate", ["--run=a", "--video_episodes=2"], ["--video_episodes", "--video"]),
        ("evaluate", ["--run=a", "--video=notes.txt/a.gif"], ["notes.txt is not a folder"]),
        ("report", ["runs/begun"], ["runs/begun/metrics.csv", "none yet"]),
        ("train", ["--resume"], ["--output_dir"]),
        ("train", ["--resume", "--output_dir=empty"], ["empty"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) if value else "",
)
def test_a_mistake_is_found_before_anything_slow(launchers, name, arguments, culprits):
    check(launchers.run(name, *arguments, quick=True), *culprits)


@pytest.mark.parametrize(
    ("name", "arguments", "culprits"),
    [
        ("train", ["--task=Pendulm-v1"], ["close to it: Pendulum-v1"]),
        ("train", [PENDULUM, "--demonstrations=exprt.npz"], ["exprt.npz"]),
        ("train", ["--steps_per_epoch=25"], ["steps_per_epoch must be a multiple", "got 25"]),
        ("evaluate", ["--saved_model=model"], ["model", "999"]),
        ("evaluate", ["--prior_file=garbled.npz", PENDULUM], ["garbled.npz"]),
        ("evaluate", ["--run=runs/begun"], ["runs/begun has neither"]),
        ("collect_demonstrations", ["--run=runs/begn", "--output=a.npz"], ["mean runs/begun?"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_mistake_found_later_is_one_line_too(launchers, name, arguments, culprits):
    check(launchers.run(name, *arguments), *culprits)


def test_debug_shows_where_an_error_arose(launchers):
    outcome = launchers.run("report", "nowhere", "--debug", quick=True)
    assert outcome.code == 1
    assert "Traceback" in outcome.errors
    assert re.search(r'reports\.py", line \d+, in read_metrics', outcome.errors)


def test_what_is_no_mistake_is_accepted(launchers, folder):
    (folder / "windows.flags").write_bytes(
        b"// a comment\r\n--title=first\r\n\r\n--title=first\r\n"
    )
    write_run(folder / "run", [0.1, 0.2])
    arguments = ("--flagfile=windows.flags", "--title=run #3", "run")
    outcome = launchers.run("report", *arguments, quick=True)
    assert (outcome.code, outcome.errors) == (0, "")
    assert "run #3: interquartile means" in outcome.output


def test_the_projects_flagfiles_are_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--flagfile=configs/comparison/pen.flags", "--seed=3", "--", "--flagfile=none"]
    expanded = flagfiles.expand(given)
    assert expanded[-3:] == given[1:]
    flag = "--scale_factor=0.7"  # Of configs/pen_human.flags, which that one includes.
    (place,) = (line.place for line in flagfiles.read(given) if line.text == flag)
    assert place.startswith(f"{LAUNCH.parent}/configs/pen_human.flags:")
    assert expanded.index(flag) < expanded.index("--num_env_steps=32000")

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/pen_human.flags").write_text("--seed=5\n")
    assert "--seed=5" in flagfiles.expand(given)
    assert flag not in flagfiles.expand(given)


NAMES = st.sampled_from(["archive", "title", "flagfile", "sede", "notitle", "", "no", "-"])
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
ARGUMENTS = (
    st.builds("--{}={}".format, NAMES, VALUES) | st.builds("--{}".format, NAMES) | VALUES
).filter(
    lambda argument: (
        "?" not in argument and "h" not in argument and (argument.strip("./") or not argument)
    )
)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.lists(ARGUMENTS, min_size=1, max_size=3))
@example(["\n"])
@example(["--flagfile=~"])
@example(["--output_dir=.png", 300 * "x"])
def test_garbage_is_one_line(launchers, arguments):
    check(launchers.run("report", *arguments, quick=True))


@given(st.text(max_size=30) | st.text("-=#/ \n\t\"'seed1", max_size=30))
def test_any_flagfile_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.flags"
    pathlib.Path(path).write_text(content, encoding="utf-8", newline="")
    try:
        lines = flagfiles.read([f"--flagfile={path}"])
    except UserError as error:
        message = str(error)
    else:
        assert all(line.text.startswith(("--", "-")) and line.name in line.text for line in lines)
        return
    assert "any.flags" in message
