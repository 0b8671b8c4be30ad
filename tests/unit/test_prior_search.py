import dataclasses

import fakes
import gymnasium
import numpy as np
import pytest

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import make_task
from nppac_tf.errors import UserError
from nppac_tf.evaluation import prior_search

LATE = 4  # Steps by which the recorded actions are late.
NUM_STEPS = 40
FEW, ALL = 2, 10


class FollowTheWave(gymnasium.Env):
    """Is at its goal where the action is that of the phase; the phase advances by itself."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.phase = self.np_random.uniform(0, 2 * np.pi)
        return observe(self.phase), {}

    def step(self, action):
        success = bool(abs(action[0] - wanted(self.phase)) < 0.2)
        self.phase += 0.1
        return observe(self.phase), float(success), False, False, {"success": success}


def observe(phase):
    return np.array([np.cos(phase), np.sin(phase)], np.float32).T


def wanted(phase):
    return np.sin(2 * phase)


@pytest.fixture(scope="module")
def task():
    return make_task(lambda: gymnasium.wrappers.TimeLimit(FollowTheWave(), NUM_STEPS))


@pytest.fixture(scope="module")
def demonstrations(task):
    phases = np.arange(2 * NUM_STEPS) * 0.1
    late = wanted(phases - LATE * 0.1)[:, None]
    return Demonstrations.from_episodes([(observe(phases), late)], name="late").conform(task)


@pytest.fixture(scope="module")
def found(task, demonstrations):
    seen = []
    arguments = {"seed": 3, "on_candidate": seen.append}
    return prior_search.search(demonstrations, task, PriorConfig(), ALL, **arguments), seen


def test_finds_that_actions_were_recorded_late(found):
    best = found[0][0]
    assert best.config.action_lookahead == LATE
    assert best.changes.endswith(f"--action_lookahead={LATE}")
    assert best.mean > 0.95


def test_the_best_and_the_base_act_in_all_episodes_and_come_first(found):
    tried, seen = found
    finalists = tried[: len(seen) - len(tried)]
    assert len(tried) == 9
    assert [len(c.values) for c in tried] == [ALL] * len(finalists) + [FEW] * (9 - len(finalists))
    assert "" in [c.changes for c in finalists]
    for part in (finalists, tried[len(finalists) :]):
        assert [c.mean for c in part] == sorted((c.mean for c in part), reverse=True)
    assert sum(c.num_steps for c in tried) == sum(len(c.values) for c in seen) * NUM_STEPS


def test_a_better_prior_is_told_from_noise(found):
    best, base = found[0][0], next(c for c in found[0] if not c.changes)
    assert best.is_better_than(base)
    assert not base.is_better_than(best)
    assert not best.is_better_than(best)
    noisy = dataclasses.replace(base, values=base.values + [0.5, -0.49] * (ALL // 2))
    assert not noisy.is_better_than(base)


def test_a_candidate_that_fails_is_left_out(monkeypatch, task, demonstrations):
    def fit(data, config, cache):
        if config.lengthscale_factor == 3.0:
            raise UserError("not finite")
        return fakes.LinearPrior(2, 1)

    monkeypatch.setattr(prior_search, "fit_prior", fit)
    with pytest.warns(UserWarning, match=r"without --noard --lengthscale_factor=3: not finite"):
        tried = prior_search.search(demonstrations, task, PriorConfig(), ALL)
    assert len(tried) == 7
    base = PriorConfig(lengthscale_factor=3.0)
    with pytest.raises(UserError, match="not finite"):
        prior_search.search(demonstrations, task, base, ALL)


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [({"num_episodes": 9}, "at least 10; got 9"), ({"base": "ensemble"}, "'ensemble'")],
)
def test_wrong_arguments_are_refused(task, demonstrations, arguments, culprit):
    base = PriorConfig(prior=arguments.pop("base", "gp"))
    with pytest.raises(UserError, match=culprit):
        prior_search.search(demonstrations, task, base, **arguments)


def test_a_printed_factor_is_the_one_that_was_tried(monkeypatch, task, demonstrations):
    monkeypatch.setattr(prior_search, "fit_prior", lambda *_: fakes.LinearPrior(2, 1))
    tried = prior_search.search(demonstrations, task, PriorConfig(lengthscale_factor=0.7), ALL)
    assert {c.config.lengthscale_factor for c in tried} == {0.7, 1.4, 2.1}


def test_tries_the_settings_as_given_first(found):
    assert found[1][0].config == PriorConfig()
    assert found[1][0].changes == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"ard": False}, "--noard"),
        (
            {"lengthscale_factor": 1.5, "action_lookahead": 2},
            "--lengthscale_factor=1.5 --action_lookahead=2",
        ),
    ],
)
def test_flags_that_differ(changes, expected):
    assert prior_search.differing_flags(PriorConfig(**changes), PriorConfig()) == expected
