import gymnasium
import numpy as np
import pytest

from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import make_task
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
def found():
    task = make_task(lambda: gymnasium.wrappers.TimeLimit(FollowTheWave(), NUM_STEPS))
    phases = np.arange(2 * NUM_STEPS) * 0.1
    late = wanted(phases - LATE * 0.1)[:, None]
    demonstrations = Demonstrations.from_episodes([(observe(phases), late)], name="late").conform(
        task
    )
    seen = []
    tried = prior_search.search(
        demonstrations, task, PriorConfig(), ALL, seed=3, on_candidate=seen.append
    )
    return tried, seen


def test_finds_that_actions_were_recorded_late(found):
    best = found[0][0]
    assert best.config.action_lookahead == LATE
    assert best.changes.endswith(f"--action_lookahead={LATE}")
    assert best.mean > 0.95


def test_the_best_act_in_all_episodes_and_come_first(found):
    tried, seen = found
    assert [len(c.values) for c in tried] == [ALL] * 3 + [FEW] * 6
    for part in (tried[:3], tried[3:]):
        assert [c.mean for c in part] == sorted((c.mean for c in part), reverse=True)
    assert sum(c.num_steps for c in tried) == sum(len(c.values) for c in seen) * NUM_STEPS
    assert min(c.mean for c in seen[:9] if c.changes in {t.changes for t in tried[:3]}) >= max(
        c.mean for c in tried[3:]
    )


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
