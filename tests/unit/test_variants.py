import pytest

from launch import variants
from nppac_tf.errors import UserError


def test_a_method_is_named_after_its_last_flagfile():
    items = [
        "configs/pen.flags",
        "configs/pen.flags+configs/sac.flags",
        "mine=a=b/pen.flags+c",
        "as_is=",
    ]
    assert variants.parse(items, "flagfiles") == {
        "pen": ["configs/pen.flags"],
        "sac": ["configs/pen.flags", "configs/sac.flags"],
        "mine": ["a=b/pen.flags", "c"],
        "as_is": [],
    }


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], r"--them must name one or more flagfiles, comma-separated; got none"),
        ([""], r"--them must be of FILE, FILE\+FILE, NAME=FILE or NAME=; got ''"),
        (["a.flags+"], r"got 'a\.flags\+'"),
        (["=a.flags"], r"got '=a\.flags'"),
        (["="], r"got '='"),
        (["a=b++c"], r"got 'a=b\+\+c'"),
        (["x/pen.flags", "y/pen.flags"], r"'pen' for x/pen\.flags and y/pen\.flags: write NAME="),
        (["a.flags", "a.flags"], r"'a' for a\.flags and a\.flags"),
    ],
)
def test_what_names_no_methods_is_refused(items, message):
    with pytest.raises(UserError, match=message):
        variants.parse(items, "them")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--a=1", "--them=x,y", "--b"], ["--a=1", "NEW", "ELSE", "--b"]),
        (["--them", "x,y", "--b"], ["NEW", "ELSE", "--b"]),
        (["--them=x", "--a=1", "-them=y", "--b"], ["--a=1", "NEW", "ELSE", "--b"]),
        (["--a=--them=x", "--them=\n"], ["--a=--them=x", "NEW", "ELSE"]),
        (["--themselves=x", "--them=y"], ["--themselves=x", "NEW", "ELSE"]),
        (["--a", "--them=x", "--", "--them=y"], ["--a", "NEW", "ELSE", "--", "--them=y"]),
    ],
)
def test_other_arguments_take_the_place_of_a_flag(arguments, expected):
    assert variants.substitute(arguments, "them", ["NEW", "ELSE"]) == expected
