"""Fixtures shared by all tests."""

import os
import pathlib

import hypothesis
import pytest

# Examples are not timed: a machine that does something else as well would fail them.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def demos_path() -> pathlib.Path:
    """The folder of human demonstrations; skips where NPPAC_DEMOS does not name one."""
    folder = os.environ.get("NPPAC_DEMOS")
    if not folder or not pathlib.Path(folder).is_dir():
        pytest.skip("needs human demonstrations: set NPPAC_DEMOS to their folder")
    return pathlib.Path(folder)
