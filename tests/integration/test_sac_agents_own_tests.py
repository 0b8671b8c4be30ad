"""TF-Agents' own tests of `SacAgent`, as installed, with `NppacAgent` in its place."""

import sys
import types
import unittest
import unittest.mock

import pytest

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.priors import UniformPrior

sys.modules.setdefault("mock", unittest.mock)  # Its former name, which the tests import.
from tf_agents.agents.sac import sac_agent_test  # noqa: E402

# Replaces a private method that `NppacAgent` does not have.
MOCKS_A_PRIVATE_METHOD = "testLoss"
NAMES = [name for name in vars(sac_agent_test.SacAgentTest) if name.startswith("test")]


def with_a_uniform_prior(*args, **kwargs):
    return NppacAgent(*args, prior=UniformPrior(2, 1), **kwargs)  # The sizes in these tests.


def test_they_are_found():
    assert len(NAMES) > 10
    assert MOCKS_A_PRIVATE_METHOD in NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if name != MOCKS_A_PRIVATE_METHOD])
def test_nppac_agent_passes(name, monkeypatch):
    substitute = types.SimpleNamespace(SacAgent=with_a_uniform_prior)
    monkeypatch.setattr(sac_agent_test, "sac_agent", substitute)
    result = unittest.TestResult()
    sac_agent_test.SacAgentTest(name).run(result)
    assert result.testsRun == 1
    problems = [*result.errors, *result.failures, *result.skipped]
    assert not problems, problems[0][1]
