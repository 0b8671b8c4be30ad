"""Tests that pytest runs."""

load("@rules_python//python:py_test.bzl", "py_test")

def pytest_test(name, srcs, args = [], deps = [], **kwargs):
    """A py_test that gives its sources to pytest, with the fixtures of tests/conftest.py.

    Args:
        name: Name of the test.
        srcs: Files with the tests, of the calling package.
        args: Options of pytest besides those in pyproject.toml.
        deps: What the tests import.
        **kwargs: Attributes of py_test.
    """
    py_test(
        name = name,
        srcs = srcs + ["//tests:pytest_main.py"],
        args = args + ["$(rootpath %s)" % src for src in srcs],
        main = "//tests:pytest_main.py",
        deps = deps + [
            "//tests:conftest",
            "//tests:pytest_main",
        ],
        **kwargs
    )
