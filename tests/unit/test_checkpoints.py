import hashlib
import json
import pathlib
import resource

import fakes
import numpy as np
import pytest
import tensorflow as tf

from nppac_tf.agents.batch import Batch
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig
from nppac_tf.errors import UserError
from nppac_tf.priors import PriorStatistics
from nppac_tf.training import checkpoints
from nppac_tf.training.checkpoints import RunCheckpoint
from nppac_tf.training.replay import Replay

D, A, B = 3, 2, 8


class Counter(tf.Module):
    def __init__(self, value, size=2):
        super().__init__()
        self.values = tf.Variable(tf.fill([size], float(value)))


def saved_in(folder, counter, replay=None):
    replay = Replay(D, A, 4) if replay is None else replay
    return RunCheckpoint(folder, {"counter": counter}, replay)


def save_and_wait(checkpoint, state):
    checkpoint.save(state)
    checkpoint.wait()


def save(folder, value):
    save_and_wait(saved_in(folder, Counter(value)), {"value": value})


def never(line):
    raise AssertionError(line)


def checkpoints_in(folder):
    return sorted(path for path in folder.iterdir() if path.name.startswith("checkpoint-"))


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {
        "env_steps": 12,
        "rows": [{"eval/return": 0.1, "train/return": float("nan")}, {}],
        "environments": {
            "counts": np.array([3, 4], np.int64),
            "x": np.array([[0.1, 1 / 3]], np.float32),
            "none": np.empty((0, 3), np.float32),
        },
        "share": np.float32(0.5),
        "none": None,
    }
    save_and_wait(saved_in(tmp_path, Counter(7)), state)
    counter = Counter(0)
    restored = saved_in(tmp_path, counter).restore(never)
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
    assert saved_in(tmp_path / "new" / "folder", counter).restore(never) is None
    np.testing.assert_array_equal(counter.values, [5, 5])


@pytest.mark.parametrize("name", ["run", "lr[0.1] *?"])
def test_the_latest_is_restored_and_two_are_kept(tmp_path, name):
    tmp_path = tmp_path / name
    counter = Counter(0)
    checkpoint = saved_in(tmp_path, counter)
    for value in range(1, 12):
        counter.values.assign([value, value])
        checkpoint.save({"value": value})
    checkpoint.wait()
    assert len(checkpoints_in(tmp_path)) == 2
    # A resumed run continues the numbers, and keeps no more than two either.
    again = saved_in(tmp_path, counter)
    assert again.restore(never) == {"value": 11}
    save_and_wait(again, {"value": 12})
    assert [path.name for path in checkpoints_in(tmp_path)] == [
        "checkpoint-000011",
        "checkpoint-000012",
    ]
    assert saved_in(tmp_path, counter).restore(never) == {"value": 12}


def test_a_save_is_of_the_moment_it_was_asked_for(tmp_path):
    counter, replay = Counter(1), Replay(D, A, 2 * B)
    replay.add(batch(0))
    checkpoint = saved_in(tmp_path, counter, replay)
    state = {"rows": [1]}
    checkpoint.save(state)
    counter.values.assign([2, 2])
    replay.add(batch(1))
    state["rows"].append(2)
    checkpoint.wait()
    other = Replay(D, A, 2 * B)
    assert saved_in(tmp_path, counter, other).restore(never) == {"rows": [1]}
    np.testing.assert_array_equal(counter.values, [1, 1])
    assert len(other) == B


def test_what_a_killed_save_left_behind_is_removed(tmp_path):
    save(tmp_path, 1)
    orphan = tmp_path / ".writing-2"
    orphan.mkdir()
    (orphan / "replay.npy").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    checkpoint = saved_in(tmp_path, Counter(0))
    assert not orphan.exists()
    assert (tmp_path / "notes.txt").exists()
    assert checkpoint.restore(never) == {"value": 1}


@pytest.mark.parametrize(
    ("learned", "width"),
    [
        ({"counter": Counter(0, size=3)}, D),
        ({"counter": Counter(0), "more": Counter(0)}, D),
        ({"renamed": Counter(0)}, D),
        ({"counter": Counter(0)}, D + 1),
    ],
    ids=["shape", "more", "name", "replay"],
)
def test_a_checkpoint_of_something_else_is_a_users_error(tmp_path, learned, width):
    save(tmp_path, 1)
    with pytest.raises(UserError, match="does not fit this run") as error:
        RunCheckpoint(tmp_path, learned, Replay(width, A, 4)).restore(never)
    assert "\n" not in str(error.value)


def rewrite(path, **content):
    """Replaces state.json's values, or replay.npy, with the manifest that fits."""
    for name, value in content.items():
        if name == "replay":
            np.save(path / "replay.npy", value, allow_pickle=True)
        else:
            state = json.loads((path / "state.json").read_text())
            (path / "state.json").write_text(json.dumps({**state, name: value}))
    manifest = json.loads((path / "manifest.json").read_text())
    for name in ("state.json", "replay.npy"):
        content = (path / name).read_bytes()
        manifest[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def fill(path):
    path.write_bytes(b"null")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("manifest.json", damage) for damage in (truncate, flip, fill, pathlib.Path.unlink)),
        ("state.json", flip),
        ("replay.npy", truncate),
        ("variables.index", pathlib.Path.unlink),
        ("variables.data*", flip),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, name, damage):
    save(tmp_path, 1)
    save(tmp_path, 2)
    before, newest = checkpoints_in(tmp_path)
    (path,) = newest.glob(name)
    damage(path)
    notices = []
    counter = Counter(0)
    assert saved_in(tmp_path, counter).restore(notices.append) == {"value": 1}
    np.testing.assert_array_equal(counter.values, [1, 1])
    (notice,) = notices
    assert notice.startswith(f"{newest} is damaged and passed over: ")
    assert "\n" not in notice
    assert checkpoints.latest(tmp_path) == before
    # The next one is not mistaken for it.
    save(tmp_path, 3)
    assert saved_in(tmp_path, counter).restore(never) == {"value": 3}


def test_a_damaged_checkpoint_makes_room_for_whole_ones(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    before, newest = checkpoints_in(tmp_path)
    truncate(newest / "replay.npy")
    resumed = saved_in(tmp_path, Counter(0))
    resumed.restore(lambda line: None)
    save_and_wait(resumed, {"value": 3})
    kept = checkpoints_in(tmp_path)
    assert kept[0] == before
    assert [checkpoints.read_state(path)["loop"] for path in kept] == [{"value": 1}, {"value": 3}]


@pytest.mark.parametrize("name", ["/dev/zero", "../notes.txt", "absent"])
def test_a_manifest_names_files_of_its_checkpoint_alone(tmp_path, name):
    save(tmp_path, 1)
    (tmp_path / "notes.txt").write_text("")
    (path,) = checkpoints_in(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({name: {}, **manifest}))
    with pytest.raises(ValueError, match="is missing or no file of a checkpoint"):
        checkpoints.read_state(path)


def test_a_checkpoint_of_another_version_is_passed_over(tmp_path):
    save(tmp_path, 1)
    (path,) = checkpoints_in(tmp_path)
    rewrite(path, version=99)
    with pytest.raises(ValueError, match="it is of version 99, and this program of 1"):
        checkpoints.read_state(path)


def test_damaged_checkpoints_alone_are_a_users_error(tmp_path):
    save(tmp_path, 1)
    (path,) = checkpoints_in(tmp_path)
    truncate(path / "replay.npy")
    with pytest.raises(UserError, match=r"no whole checkpoint \(1 damaged\)"):
        saved_in(tmp_path, Counter(0)).restore(lambda line: None)
    assert checkpoints.latest(tmp_path) is None


def test_a_pickle_in_place_of_the_replay_is_not_loaded(tmp_path):
    save(tmp_path, 1)
    (path,) = checkpoints_in(tmp_path)
    rewrite(path, replay=np.array([Counter], object))
    with pytest.raises(UserError, match="does not fit this run: Object arrays cannot be loaded"):
        saved_in(tmp_path, Counter(0)).restore(never)


def test_a_state_that_json_cannot_hold_is_refused(tmp_path):
    checkpoint = saved_in(tmp_path, Counter(1))
    with pytest.raises(TypeError, match="cannot save a object"):
        checkpoint.save({"value": object()})
    assert checkpoint.restore(never) is None


@pytest.mark.parametrize("limit", [100, 3000], ids=["variables", "replay"])
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, limit):
    """No file of the process may outgrow `limit`, and writing on fails as on a full disk."""
    save(tmp_path, 1)
    replay = Replay(D, A, 10 * B)
    for seed in range(10):
        replay.add(batch(seed))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoint = saved_in(tmp_path, Counter(2), replay)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(UserError) as error:
            save_and_wait(checkpoint, {"value": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (kept,) = checkpoints_in(tmp_path)
    message = str(error.value)
    assert "could not be written" in message
    assert f"the last good one is {kept}: make room and pass --resume" in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
    counter = Counter(0)
    assert saved_in(tmp_path, counter).restore(never) == {"value": 1}


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


def learner(actor, seed=0):
    config = AgentConfig(
        actor=actor, actor_layers=(4,), critic_layers=(4,), num_critics=3, target_kl=1.0
    )
    agent = NppacAgent.for_task(fakes.FakeTask.of(D), fakes.LinearPrior(D, A), config, seed)
    return agent, Replay(D, A, 4 * B)


@pytest.mark.parametrize("actor", ["anchored", "network"])
def test_an_agent_goes_on_as_if_nothing_had_happened(tmp_path, actor):
    agent, replay = learner(actor)
    agent.standardize(batch(9).observations.numpy())
    agent.calibrate_rewards(np.array([3.0]))
    for seed in range(3):
        replay.add(batch(seed))
        agent.update(replay.sample(B, tf.constant([seed, 0])), averaging=4)
    save_and_wait(RunCheckpoint(tmp_path, agent.learned, replay), {"env_steps": 3})

    other, other_replay = learner(actor)
    restored = RunCheckpoint(tmp_path, other.learned, other_replay).restore(never)
    assert restored == {"env_steps": 3}
    assert len(other_replay) == len(replay) == 3 * B
    assert int(other.train_step_counter) == 3
    assert other.reward_scale == 3.0
    states = batch(10).observations
    shift = other.deployed_actor.standardization.shift
    np.testing.assert_allclose(shift, tf.reduce_mean(batch(9).observations, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(
        agent.deployed_actor(states)[0].mean(), other.deployed_actor(states)[0].mean()
    )
    for a, r in ((agent, replay), (other, other_replay)):
        for seed in range(3, 6):  # The optimizers' moments count, too.
            r.add(batch(seed))
            a.update(r.sample(B, tf.constant([seed, 0])), averaging=4)
    for name, part in agent.learned.items():
        assert contents(part) == contents(other.learned[name]), name
    np.testing.assert_array_equal(replay.content()[0], other_replay.content()[0])
    latest = checkpoints.latest(tmp_path)
    assert checkpoints.read_variable(latest, "updates") == 3


def contents(part):
    """The bytes of all variables of a part, in no order: an optimizer restores its own by need."""
    variables = getattr(part, "variables", part)
    variables = tf.nest.flatten(variables() if callable(variables) else variables)
    assert variables
    return sorted(variable.numpy().tobytes() for variable in variables)
