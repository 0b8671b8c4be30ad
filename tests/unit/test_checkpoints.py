import json

import fakes
import numpy as np
import pytest
import tensorflow as tf

from nppac_tf.agent import NppacAgent
from nppac_tf.checkpoints import RunCheckpoint
from nppac_tf.config import AgentConfig
from nppac_tf.errors import UserError
from nppac_tf.priors import PriorStatistics
from nppac_tf.replay import Batch, Replay

D, A, B = 3, 2, 8


class Counter(tf.Module):
    def __init__(self, value, size=2):
        super().__init__()
        self.values = tf.Variable(tf.fill([size], float(value)))


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {
        "env_steps": 12,
        "rows": [{"eval/return": 0.1, "train/return": float("nan")}, {}],
        "environments": {"counts": np.array([3, 4], np.int64), "x": np.array([0.1], np.float32)},
        "share": np.float32(0.5),
        "none": None,
    }
    RunCheckpoint(tmp_path, {"counter": Counter(7)}).save(state)
    counter = Counter(0)
    restored = RunCheckpoint(tmp_path, {"counter": counter}).restore()
    np.testing.assert_array_equal(counter.values, [7, 7])
    assert restored["env_steps"] == 12
    assert restored["rows"][0]["eval/return"] == 0.1
    assert np.isnan(restored["rows"][0]["train/return"])
    assert restored["rows"][1] == {}
    for name, array in state["environments"].items():
        assert restored["environments"][name].dtype == array.dtype
        np.testing.assert_array_equal(restored["environments"][name], array)
    assert restored["share"] == 0.5
    assert restored["none"] is None


def test_nothing_is_restored_from_an_empty_folder(tmp_path):
    counter = Counter(5)
    assert RunCheckpoint(tmp_path / "new" / "folder", {"counter": counter}).restore() is None
    np.testing.assert_array_equal(counter.values, [5, 5])


def test_the_latest_is_restored_and_two_are_kept(tmp_path):
    counter = Counter(0)
    checkpoint = RunCheckpoint(tmp_path, {"counter": counter})
    for value in range(1, 5):
        counter.values.assign([value, value])
        checkpoint.save({"value": value})
    assert len(list(tmp_path.glob("*.index"))) == 2
    assert RunCheckpoint(tmp_path, {"counter": counter}).restore() == {"value": 4}
    # A run that goes on keeps counting, and keeps no more than two either.
    again = RunCheckpoint(tmp_path, {"counter": counter})
    again.restore()
    again.save({"value": 5})
    assert len(list(tmp_path.glob("*.index"))) == 2
    assert RunCheckpoint(tmp_path, {"counter": counter}).restore() == {"value": 5}


def test_what_a_killed_save_left_behind_is_removed(tmp_path):
    counter = Counter(1)
    RunCheckpoint(tmp_path, {"counter": counter}).save({"value": 1})
    orphan = tmp_path / "ckpt-2_temp"
    orphan.mkdir()
    (orphan / "part-00000-of-00001.data").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    checkpoint = RunCheckpoint(tmp_path, {"counter": counter})
    assert not orphan.exists()
    assert (tmp_path / "notes.txt").exists()
    assert checkpoint.restore() == {"value": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"counter": Counter(0, size=3)},
        {"counter": Counter(0), "more": Counter(0)},
        {"renamed": Counter(0)},
    ],
    ids=["shape", "more", "name"],
)
def test_a_checkpoint_of_something_else_is_a_users_error(tmp_path, other):
    RunCheckpoint(tmp_path, {"counter": Counter(1)}).save({})
    with pytest.raises(UserError, match="does not fit this run") as error:
        RunCheckpoint(tmp_path, other).restore()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pattern", ["*.index", "*.data*"])
def test_a_damaged_checkpoint_is_a_users_error(tmp_path, pattern):
    RunCheckpoint(tmp_path, {"counter": Counter(1)}).save({})
    (path,) = tmp_path.glob(pattern)
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(UserError, match="does not fit this run"):
        RunCheckpoint(tmp_path, {"counter": Counter(0)}).restore()


def test_a_state_that_json_cannot_hold_is_refused(tmp_path):
    checkpoint = RunCheckpoint(tmp_path, {"counter": Counter(1)})
    with pytest.raises(TypeError, match="cannot save a object"):
        checkpoint.save({"value": object()})
    assert checkpoint.restore() is None


def batch(seed):
    rng = np.random.default_rng(seed)
    observations, next_observations = rng.normal(size=(2, B, D)).astype(np.float32)
    actions, location, next_location = rng.normal(size=(3, B, A)).astype(np.float32)
    scale = np.ones([B, A], np.float32)
    return Batch(
        *map(tf.constant, (observations, actions, observations[:, 0], np.ones(B, np.float32))),
        tf.constant(next_observations),
        PriorStatistics(tf.constant(location), tf.constant(scale)),
        PriorStatistics(tf.constant(next_location), tf.constant(scale)),
    )


def learner():
    config = AgentConfig(actor_layers=(4,), critic_layers=(4,), target_kl=1.0)
    agent = NppacAgent.for_task(fakes.FakeTask.of(D), fakes.LinearPrior(D, A), config)
    replay = Replay(D, A, 4 * B)
    return agent, replay, {**agent.learned, "replay": replay}


def test_an_agent_goes_on_as_if_nothing_had_happened(tmp_path):
    agent, replay, trackables = learner()
    for seed in range(3):
        replay.add(batch(seed))
        agent.update(replay.sample(B, tf.constant([seed, 0])))
    RunCheckpoint(tmp_path, trackables).save({"env_steps": 3})

    other, other_replay, other_trackables = learner()
    assert RunCheckpoint(tmp_path, other_trackables).restore() == {"env_steps": 3}
    assert len(other_replay) == len(replay) == 3 * B
    assert int(other.train_step_counter) == 3
    for a, r in ((agent, replay), (other, other_replay)):
        for seed in range(3, 6):  # The optimizers' moments count, too.
            r.add(batch(seed))
            a.update(r.sample(B, tf.constant([seed, 0])))
    for name, part in trackables.items():
        assert contents(part) == contents(other_trackables[name]), name


def contents(part):
    """The bytes of all variables of a part, in no order: an optimizer restores its own by need."""
    variables = getattr(part, "variables", part)
    variables = tf.nest.flatten(variables() if callable(variables) else variables)
    assert variables
    return sorted(variable.numpy().tobytes() for variable in variables)


def test_the_state_is_json(tmp_path):
    checkpoint = RunCheckpoint(tmp_path, {"counter": Counter(1)})
    checkpoint.save({"value": 3})
    (index,) = tmp_path.glob("*.index")
    reader = tf.train.load_checkpoint(str(index).removesuffix(".index"))
    (key,) = (key for key in reader.get_variable_to_shape_map() if key.startswith("loop/"))
    assert json.loads(reader.get_tensor(key)) == {"value": 3}
