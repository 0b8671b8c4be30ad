"""Runs pytest on its arguments as a Bazel test, with the settings of pyproject.toml."""

import os
import sys

import pytest


def arguments_from(environment: dict[str, str]) -> list[str]:
    """What the variables that Bazel sets for a test ask of pytest."""
    arguments = ["--config-file=pyproject.toml", "--rootdir=.", "-p", "no:cacheprovider"]
    if folder := environment.get("TEST_TMPDIR"):
        arguments.append(f"--basetemp={os.path.join(folder, 'pytest')}")
    if report := environment.get("XML_OUTPUT_FILE"):
        arguments.append(f"--junit-xml={report}")
    if names := environment.get("TESTBRIDGE_TEST_ONLY"):
        arguments += ["-k", names]
    return arguments


if __name__ == "__main__":
    if "TEST_TMPDIR" in os.environ:  # The files of a test are read-only.
        os.environ.setdefault(
            "HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(os.environ["TEST_TMPDIR"], "hypothesis")
        )
    sys.exit(pytest.main([*arguments_from(dict(os.environ)), *sys.argv[1:]]))
