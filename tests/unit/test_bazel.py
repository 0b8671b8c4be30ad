"""The BUILD files say what the imports say, and MODULE.bazel what the package says."""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import bazel
import pytest
from sources import ROOT, Import

from nppac_tf import __version__

MEND = "run `python tests/bazel.py`"

# A repository in small: a module, a package whose __init__ and module need each other, one of its
# modules that stands alone, a launcher, and tests.
SMALL = {
    "requirements_lock.txt": "tf-agents==0\nnumpy==1.26 \\\n    --hash=sha256:0\npytest[x]==9.2\n",
    "nppac_tf/__init__.py": """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from nppac_tf.agent import Agent
        __version__ = "1"
        """,
    "nppac_tf/agent.py": """
        from typing import TYPE_CHECKING
        from nppac_tf import priors
        if TYPE_CHECKING:
            from nppac_tf.config import Config
        def f():
            import numpy.linalg
        """,
    "nppac_tf/config.py": "import nppac_tf.errors",
    "nppac_tf/errors.py": "from nppac_tf import __version__",
    "nppac_tf/priors/__init__.py": "from nppac_tf.priors.base import Prior",
    "nppac_tf/priors/base.py": "from .. import config",
    "nppac_tf/priors/novelty.py": "from nppac_tf.priors.base import Prior",
    "nppac_tf/priors/data/one.npz": "",
    "launch/common.py": "from nppac_tf.errors import UserError",
    "launch/train.py": """
        import common
        if __name__ == "__main__":
            from nppac_tf import Agent
        """,
    "tests/fakes.py": "from tf_agents.specs import array_spec",
    "tests/pytest_main.py": "import pytest",
    "tests/launching.py": """
        import pathlib
        LAUNCH = pathlib.Path(".") / "launch"
        """,
    "tests/unit/test_agent.py": """
        import fakes
        import nppac_tf
        from nppac_tf.priors import novelty
        def test_it(): pass
        """,
    "tests/unit/test_launch.py": """
        from launch import common
        def test_it(): f"launch/{name}.py"
        """,
}


def write(root: pathlib.Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(textwrap.dedent(text), encoding="utf-8")


@pytest.fixture
def small(tmp_path):
    """The folder of the small repository."""
    for path, text in SMALL.items():
        write(tmp_path, path, text)
    return tmp_path


def right(root):
    """The BUILD files that a repository should have."""
    return bazel.wanted(bazel.Sources(root), bazel.read_all(root))


@pytest.fixture(scope="module")
def ours():
    return right(ROOT)


def write_build_files(root):
    for folder, targets in right(root).items():
        write(root, bazel.path_of(folder), bazel.render(folder, targets))


def test_build_files_follow_the_imports(ours):
    changes = bazel.differences(bazel.read_all(), ours)
    assert changes == [], MEND


def test_build_files_are_formatted(ours):
    texts = {bazel.path_of(folder): bazel.render(folder, each) for folder, each in ours.items()}
    badly = [path for path, text in texts.items() if (ROOT / path).read_text("utf-8") != text]
    assert badly == [], MEND


def test_what_build_files_name_is_there():
    assert bazel.dangling(bazel.read_all()) == []


def test_tests_have_sizes_of_bazel():
    sizes = {
        f"{folder}:{target.name}": target.attributes["size"]
        for folder, targets in bazel.read_all().items()
        for target in targets
        if target.rule == "pytest_test"
    }
    assert set(sizes.values()) <= {"small", "medium", "large", "enormous"}, sizes


def test_the_module_is_of_the_packages_version():
    (module, *_) = bazel.read((ROOT / "MODULE.bazel").read_text(encoding="utf-8"))
    assert (module.rule, module.name) == ("module", "nppac_tf")
    assert module.attributes["version"] == __version__


def test_buildifier_accepts_the_files():
    program = os.environ.get("BUILDIFIER") or shutil.which("buildifier")
    if not program:
        pytest.skip("needs buildifier on the path, or its path in BUILDIFIER")
    files = [ROOT / "MODULE.bazel", ROOT / "tests" / "pytest.bzl"]
    files += [ROOT / bazel.path_of(folder) for folder in bazel.read_all()]
    result = subprocess.run(
        [program, "-mode=check", "-lint=warn", *map(str, files)], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


# The small repository.


def test_a_library_for_each_module_and_one_for_modules_in_a_circle(small):
    targets = {
        f"{folder}:{target.name}": {"rule": target.rule, **target.attributes}
        for folder, targets in right(small).items()
        for target in targets
        if target.rule != "filegroup"
    }
    library = {"rule": "py_library"}
    test = {"rule": "pytest_test", "size": "medium"}
    assert targets == {
        "nppac_tf:init": {
            **library,
            "srcs": ("__init__.py",),
            "data": ("py.typed",),
            "imports": ("..",),
        },
        "nppac_tf:nppac_tf": {**library, "deps": (":agent", ":init")},
        "nppac_tf:agent": {
            **library,
            "srcs": ("agent.py",),
            "deps": (":init", "//nppac_tf/priors", "@pypi//numpy"),
            "pyi_deps": (":config",),
        },
        "nppac_tf:config": {**library, "srcs": ("config.py",), "deps": (":errors", ":init")},
        "nppac_tf:errors": {**library, "srcs": ("errors.py",), "deps": (":init",)},
        "nppac_tf/priors:priors": {
            **library,
            "srcs": ("__init__.py", "base.py"),
            "data": ("data/one.npz",),
            "deps": ("//nppac_tf:config", "//nppac_tf:init"),
        },
        "nppac_tf/priors:novelty": {
            **library,
            "srcs": ("novelty.py",),
            "deps": (":priors", "//nppac_tf:init"),
        },
        "launch:common": {
            **library,
            "srcs": ("common.py",),
            "imports": (".",),
            "deps": ("//nppac_tf:errors",),
        },
        "launch:train": {
            "rule": "py_binary",
            "srcs": ("train.py",),
            "deps": (":common", "//nppac_tf:agent"),
        },
        "tests:fakes": {
            **library,
            "srcs": ("fakes.py",),
            "testonly": True,
            "imports": (".",),
            "deps": ("@pypi//tensorflow", "@pypi//tf_agents"),
        },
        "tests:launching": {
            **library,
            "srcs": ("launching.py",),
            "testonly": True,
            "imports": (".",),
            "deps": ("//launch:train",),
        },
        "tests:pytest_main": {
            **library,
            "srcs": ("pytest_main.py",),
            "testonly": True,
            "imports": (".",),
            "data": ("//:pyproject.toml",),
            "deps": ("@pypi//pytest",),
        },
        "tests/unit:test_agent": {
            **test,
            "srcs": ("test_agent.py",),
            "deps": ("//nppac_tf", "//nppac_tf/priors:novelty", "//tests:fakes"),
        },
        "tests/unit:test_launch": {
            **test,
            "srcs": ("test_launch.py",),
            "deps": ("//launch:common", "//launch:train"),
        },
    }


def test_what_is_written_is_right(small):
    write_build_files(small)
    assert bazel.differences(bazel.read_all(small), right(small)) == []
    before = {path: path.read_text() for path in small.rglob("BUILD")}
    assert len(before) == 7
    write_build_files(small)
    assert {path: path.read_text() for path in small.rglob("BUILD")} == before


@pytest.mark.parametrize(
    ("path", "text", "changes"),
    [
        (
            "nppac_tf/replay.py",
            "import numpy",
            {
                "nppac_tf/BUILD: add py_library replay",
                "nppac_tf/BUILD: all_files: add replay.py to srcs",
            },
        ),
        (
            "nppac_tf/errors.py",
            "def f():\n    import numpy",
            {"nppac_tf/BUILD: errors: add @pypi//numpy to deps"},
        ),
        (
            "launch/common.py",
            "",
            {"launch/BUILD: common: remove //nppac_tf:errors from deps"},
        ),
        (
            "launch/common.py",
            'from nppac_tf.errors import UserError\nif __name__ == "__main__": pass',
            {
                "launch/BUILD: make common a py_binary",
                "tests/BUILD: launching: add //launch:common to deps",
            },
        ),
        (
            "nppac_tf/priors/novelty.py",
            "from nppac_tf.config import Config",
            {
                "nppac_tf/priors/BUILD: novelty: add //nppac_tf:config to deps",
            },
        ),
        (
            "nppac_tf/priors/__init__.py",
            "",
            {
                "nppac_tf/priors/BUILD: add py_library base",
                "nppac_tf/priors/BUILD: priors: remove base.py from srcs",
                "nppac_tf/priors/BUILD: priors: remove //nppac_tf:config from deps",
                "nppac_tf/priors/BUILD: novelty: add :base to deps",
            },
        ),
        (
            "tests/fakes.py",
            "from tf_agents.specs import array_spec\nREADME = array_spec / 'README.md'",
            {"tests/BUILD: fakes: add //nppac_tf to deps"},
        ),
        (
            "tests/unit/test_config.py",
            "def test_it(): pass",
            {
                "tests/unit/BUILD: add pytest_test test_config",
                "tests/unit/BUILD: all_files: add test_config.py to srcs",
            },
        ),
        (
            "tests/unit/test_agent.py",
            "import pytest\n@pytest.mark.slow\ndef test_it(): pass",
            {
                "tests/unit/BUILD: add pytest_test test_agent_slow",
                "tests/unit/BUILD: remove pytest_test test_agent",
            },
        ),
    ],
)
def test_a_change_is_found(small, path, text, changes):
    write_build_files(small)
    write(small, path, text)
    assert set(bazel.differences(bazel.read_all(small), right(small))) == changes


def test_what_is_set_by_hand_is_kept(small):
    write_build_files(small)
    path = small / "tests" / "unit" / "BUILD"
    text = path.read_text().replace(
        'size = "medium",\n    srcs = ["test_agent.py"],',
        'size = "large",\n    srcs = ["test_agent.py"],\n    data = ["//configs"],\n'
        '    tags = ["exclusive"],',
    )
    path.write_text(text)
    assert bazel.differences(bazel.read_all(small), right(small)) == []
    write_build_files(small)
    assert path.read_text() == text


def test_a_name_of_nothing_is_found(small):
    write_build_files(small)
    assert not [line for line in bazel.dangling(bazel.read_all(small), small) if "one.npz" in line]
    (small / "nppac_tf" / "priors" / "data" / "one.npz").unlink()
    found = bazel.dangling(bazel.read_all(small), small)
    assert "nppac_tf/priors/BUILD: priors: data names data/one.npz, which is nowhere" in found


def test_modules_in_a_circle_across_folders_are_refused(small):
    write(small, "nppac_tf/config.py", "import nppac_tf.priors")
    with pytest.raises(bazel.BazelError, match="import each other across folders"):
        bazel.Sources(small)


def test_an_import_from_nowhere_is_refused(small):
    write(small, "nppac_tf/config.py", "\nimport no_such_package.part")
    with pytest.raises(bazel.BazelError, match=r"^nppac_tf/config.py:2: .* no no-such-package for"):
        right(small)


def test_a_build_file_that_computes_is_refused():
    with pytest.raises(bazel.BazelError, match="line 2: attributes of py_library must be plain"):
        bazel.read('\npy_library(name = "x", srcs = glob(["*.py"]))')


@pytest.mark.parametrize(
    ("target", "distribution"),
    [
        ("os.path", None),
        ("absl.flags", "absl-py"),
        ("gym_notices.notices", "gym-notices"),
        ("mujoco", "mujoco"),
        ("tf_agents.agents.sac", "tf-agents"),
    ],
)
def test_an_import_has_a_distribution(target, distribution):
    assert bazel.distribution_of(target, bazel.pinned()) == distribution


@pytest.mark.parametrize(
    ("source", "slow_and_others"),
    [
        ("def test_a(): 'pytest.mark.slow'", (False, True)),
        ("@pytest.mark.slow\ndef test_a(): pass", (True, False)),
        ("@pytest.mark.slow\ndef test_a(): pass\ndef test_b(): pass", (True, True)),
        ("pytestmark = pytest.mark.slow\ndef test_a(): pass", (True, False)),
        (
            "XS = [pytest.param(1, marks=pytest.mark.slow), 2]\n"
            "@pytest.mark.parametrize('x', XS)\ndef test_a(x): pass",
            (True, True),
        ),
    ],
)
def test_slow_tests_are_told_from_others(source, slow_and_others):
    assert bazel.slow_and_other_tests(source) == slow_and_others


def test_a_public_name_is_of_its_home():
    sources = bazel.Sources()

    def home(target):
        return sources.within_project(Import(target, 1, True), "tests.unit.test_bazel")

    assert home("nppac_tf.make_task") == "nppac_tf.environments"
    assert home("nppac_tf.__version__") == home("nppac_tf") == "nppac_tf"
    assert home("bazel") == "tests.bazel"
    assert home("pytest") is None


# Pytest as a Bazel test.


@pytest.mark.parametrize(
    ("only", "code", "result"),
    [(None, 1, 'tests="2"'), ("test_good", 0, 'tests="1"'), ("test_bad", 1, 'tests="1"')],
)
def test_pytest_runs_as_a_bazel_test(tmp_path, only, code, result):
    write(tmp_path, "pyproject.toml", "[tool.pytest.ini_options]")
    write(
        tmp_path,
        "test_it.py",
        """
        import pathlib
        def test_good(tmp_path): assert tmp_path.is_relative_to(pathlib.Path("tmp").absolute())
        def test_bad(): assert False
        """,
    )
    (tmp_path / "tmp").mkdir()
    environment = {
        **os.environ,
        "TEST_TMPDIR": str(tmp_path / "tmp"),
        "XML_OUTPUT_FILE": str(tmp_path / "report.xml"),
    }
    if only:
        environment["TESTBRIDGE_TEST_ONLY"] = only
    run = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "pytest_main.py"), "test_it.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == code, run.stdout + run.stderr
    assert result in (tmp_path / "report.xml").read_text()
    assert not (tmp_path / ".pytest_cache").exists()
