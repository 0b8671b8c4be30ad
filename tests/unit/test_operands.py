import pytest
from absl import flags

from launch import operands

NAMES = ("op_text", "op_switch")


@pytest.fixture(autouse=True)
def _flags():
    flags.DEFINE_string("op_text", "", "")
    flags.DEFINE_boolean("op_switch", False, "")
    yield
    for name in NAMES:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "--op_text=x", "b"], ["a", "b"]),
        (["--op_text", "x", "b"], ["b"]),
        (["--op_switch", "b"], ["b"]),
        (["--op_switch", "true"], []),
        (["--unheard_of", "b"], ["b"]),
        (["--flagfile", "f", "b"], ["b"]),
        (["--op_switch", "--", "--odd", "b"], ["--odd", "b"]),
        (["--op_text=a", "=b=c"], []),
        (["--op_text", "=", "3"], []),
        (["--op_text=", "3"], []),
        (["op_text=3"], []),
        (["\u2013\u2013op_text=3"], []),
        (["x=3"], ["x=3"]),
        ([""], [""]),
    ],
)
def test_what_is_no_flag_is_taken(arguments, taken):
    kept, found = operands.take(["program", *arguments])
    assert found == taken
    assert kept == ["program", *(item for item in arguments if item not in [*taken, "--"])]
