"""Runs pytest with the given arguments, for Bazel: `python tests tests/unit`."""

import sys

import pytest

sys.exit(pytest.main(sys.argv[1:]))
