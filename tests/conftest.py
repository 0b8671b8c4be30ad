"""Fixtures shared by all tests."""

import os
import pathlib

import hypothesis
import pytest

import nppac_tf  # noqa: F401  # Selects Keras 2, before a test imports TF-Agents.

# Examples are not timed: a machine that does something else as well would fail them.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def demos_path() -> pathlib.Path:
    """The folder that NPPAC_DEMOS names; without that variable, the test is skipped.

    The recordings in it have licenses of their own, and are not part of this repository.
    """
    folder = os.environ.get("NPPAC_DEMOS")
    if not folder:
        pytest.skip("needs recordings that are not in this repository: set NPPAC_DEMOS")
    assert pathlib.Path(folder).is_dir(), f"NPPAC_DEMOS must name a folder; got {folder}"
    return pathlib.Path(folder)
