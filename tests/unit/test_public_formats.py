"""Files of other libraries: robomimic, D4RL, Stable-Baselines, imitation, flat arrays."""

import itertools
import json

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_recordings import assert_error_or_numbers, damage

from examples import examples
from nppac_tf.demonstrations import load_demonstrations, load_recording
from nppac_tf.errors import UserError

RNG = np.random.default_rng(0)
N, D, A = 12, 3, 2
FLAT = {
    "observations": RNG.normal(size=(N, D)).astype(np.float32),
    "actions": RNG.uniform(-1, 1, (N, A)).astype(np.float32),
    "rewards": np.arange(N, dtype=np.float32),
}


def flags(*steps):
    return np.isin(np.arange(N), steps)


def write_hdf5(path, tree):
    """Writes nested dicts of arrays; the key "attrs" holds attributes."""

    def fill(group, content):
        for key, value in content.items():
            if key == "attrs":
                group.attrs.update(value)
            elif isinstance(value, dict):
                fill(group.create_group(key), value)
            else:
                group[key] = value

    with h5py.File(path, "w") as file:
        fill(file, tree)
    return path


def write_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def write(tmp_path, suffix, arrays):
    path = tmp_path / f"data{suffix}"
    return (write_npz if suffix == ".npz" else write_hdf5)(path, arrays)


def lengths(recording):
    return [episode.length for episode in recording.episodes]


# Flat arrays.


@pytest.mark.parametrize("suffix", [".npz", ".hdf5", ".h5"])
@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ({"terminals": flags(3, 4, 11)}, [4, 1, 7]),
        ({"terminals": flags(3), "timeouts": flags(7)}, [4, 4, 4]),
        ({"terminations": flags(5), "truncations": flags(11)}, [6, 6]),
        ({"dones": flags(5).astype(np.float32)[:, np.newaxis]}, [6, 6]),
        ({"episode_starts": flags(0, 5)}, [5, 7]),
        ({"terminals": flags()}, [12]),
    ],
)
def test_flat_arrays_are_cut_where_flags_say(tmp_path, suffix, marks, expected):
    recording = load_recording(write(tmp_path, suffix, FLAT | marks))
    assert lengths(recording) == expected
    demonstrations = recording.demonstrations()
    for name in ("observations", "actions"):
        np.testing.assert_array_equal(getattr(demonstrations, name), FLAT[name])
    rewards = np.concatenate([episode.rewards for episode in recording.episodes])
    np.testing.assert_array_equal(rewards, FLAT["rewards"])


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_flags_and_successors_are_kept_apart(tmp_path, suffix):
    arrays = FLAT | {"terminals": flags(3), "timeouts": flags(11)}
    arrays["next_observations"] = FLAT["observations"] + 1
    first, second = load_recording(write(tmp_path, suffix, arrays)).episodes
    assert first.terminals[-1]
    assert not first.truncations[-1]
    assert second.truncations[-1]
    assert not second.terminals.any()
    np.testing.assert_array_equal(first.states()[-1], FLAT["observations"][3] + 1)


def test_stable_baselines_names_are_read(tmp_path):
    arrays = {"obs": FLAT["observations"], "actions": FLAT["actions"], "rewards": FLAT["rewards"]}
    arrays |= {"episode_starts": flags(0, 6), "episode_returns": np.zeros(2)}
    assert lengths(load_recording(write_npz(tmp_path / "a.npz", arrays))) == [6, 6]


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_stacked_episodes_are_read(tmp_path, suffix):
    stacked = {k: FLAT[k].reshape(3, 4, -1) for k in ("observations", "actions")}
    demonstrations = load_demonstrations(write(tmp_path, suffix, stacked))
    assert demonstrations.episode_ends.tolist() == [4, 8, 12]
    np.testing.assert_array_equal(demonstrations.actions, FLAT["actions"])


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "must say where episodes end, in terminals, timeouts or episode_starts"),
        ({"terminals": flags(3)[:5]}, "terminals must have as many steps as observations, 12"),
        ({"actions": FLAT["actions"][:5], "dones": flags(3)}, "actions must have as many steps"),
        ({"observations": np.zeros(N), "dones": flags(3)}, r"observations must be \[N, D\]"),
    ],
)
def test_flat_arrays_that_do_not_fit_are_refused(tmp_path, suffix, change, message):
    with pytest.raises(UserError, match=message):
        load_recording(write(tmp_path, suffix, FLAT | change))


# imitation.


def imitation_arrays():
    cuts = [0, 5, 6, N]
    rows = [np.arange(a, b + 1) + 100 * k for k, (a, b) in enumerate(itertools.pairwise(cuts))]
    return {
        "obs": np.concatenate(rows)[:, np.newaxis] * np.ones(D),
        "acts": FLAT["actions"],
        "rews": FLAT["rewards"],
        "infos": np.array([{}] * N, object),
        "terminal": np.ones(3, np.bool_),
        "indices": np.array(cuts[1:-1]),
    }


def test_imitations_trajectories_are_read_without_their_pickled_infos(tmp_path):
    recording = load_recording(write_npz(tmp_path / "final.npz", imitation_arrays()))
    assert lengths(recording) == [5, 1, 6]
    first, second, third = (episode.states()[:, 0] for episode in recording.episodes)
    np.testing.assert_array_equal(first, np.arange(6))
    np.testing.assert_array_equal(second, [105, 106])
    np.testing.assert_array_equal(third, 206 + np.arange(7))


def test_imitations_trajectories_must_have_one_observation_more(tmp_path):
    arrays = imitation_arrays() | {"obs": np.zeros((N, D))}
    with pytest.raises(UserError, match="one row more than acts in each of the 3 episodes"):
        load_recording(write_npz(tmp_path / "final.npz", arrays))


# robomimic.


def demo(length, start=0.0, **more):
    return {
        "actions": np.full((length, A), start),
        "obs": {
            "object": start + np.arange(2.0 * length).reshape(length, 2),
            "eef": np.full((length, 3), -start),
            "gripper": np.arange(float(length)),
            "actions": np.full((length, A), 9.0),
            "image": np.zeros((length, 4, 4, 3), np.uint8),
        },
        **more,
    }


def robomimic_file(tmp_path, **demos):
    names = demos or {"demo_0": demo(3), "demo_10": demo(5, 10.0), "demo_2": demo(4, 2.0)}
    settings = {"control_freq": 20, "robots": ["Panda"]}
    arguments = {"env_name": "Lift", "env_version": "1.4.1", "type": 1, "env_kwargs": settings}
    tree = {"data": {"attrs": {"total": 999, "env_args": json.dumps(arguments)}, **names}}
    return write_hdf5(tmp_path / "low_dim.hdf5", tree)


def test_robomimic_demonstrations_are_joined_in_the_order_of_their_numbers(tmp_path):
    recording = load_recording(robomimic_file(tmp_path))
    assert (lengths(recording), recording.indices) == ([3, 4, 5], (0, 2, 10))
    assert recording.metadata["observation_keys"] == ["eef", "gripper", "object"]
    assert recording.environment_id == "Lift"
    episode = recording.episodes[1]
    np.testing.assert_array_equal(episode.actions, np.full((4, A), 2.0))
    np.testing.assert_array_equal(episode.observations[1], [-2.0, -2.0, -2.0, 1.0, 4.0, 5.0])


def test_what_robomimics_file_says_of_itself_is_kept(tmp_path):
    assert load_demonstrations(robomimic_file(tmp_path)).metadata == {
        "format": "robomimic HDF5",
        "source": "low_dim.hdf5",
        "observation_keys": ["eef", "gripper", "object"],
        "observation_names": ["eef[0]", "eef[1]", "eef[2]", "gripper", "object[0]", "object[1]"],
        "environment": "Lift",
        "environment_version": "1.4.1",
        "fps": 20,
    }


def test_keys_select_and_order_robomimics_parts(tmp_path):
    recording = load_recording(robomimic_file(tmp_path), ["object", "eef"])
    np.testing.assert_array_equal(recording.episodes[0].observations[1], [2, 3, 0, 0, 0])
    with pytest.raises(UserError, match=r"obs of demo_0 must hold velocity; got actions, eef"):
        load_recording(robomimic_file(tmp_path), ["velocity"])


def test_robomimics_successors_rewards_and_ends_are_read(tmp_path):
    parts = demo(3)["obs"]
    more = {"next_obs": parts, "rewards": np.arange(3.0), "dones": np.array([0, 0, 1])}
    (episode,) = load_recording(robomimic_file(tmp_path, demo_0=demo(3, **more))).episodes
    assert episode.states().shape == (4, 6)
    np.testing.assert_array_equal(episode.rewards, np.arange(3.0))
    np.testing.assert_array_equal(episode.terminals, [0, 0, 1])


def filtered_file(tmp_path):
    demos = {f"demo_{k}": demo(3 + k) for k in range(3)}
    path = robomimic_file(tmp_path, **demos)
    with h5py.File(path, "a") as file:
        file["mask/train"] = np.array([b"demo_2", b"demo_0", b"demo_9"])
        file["mask/none"] = np.array([b"demo_9"])
        for name, succeeded in (("demo_0", True), ("demo_1", np.bool_(False))):
            file["data"][name].attrs["success"] = succeeded
    return path


@pytest.mark.parametrize(
    ("part", "expected"), [("", (0, 1, 2)), (":train", (0, 2)), (":success", (0,))]
)
def test_a_filter_key_selects_robomimics_demonstrations(tmp_path, part, expected):
    recording = load_recording(f"{filtered_file(tmp_path)}{part}")
    assert recording.indices == expected
    joined = load_recording(f"{tmp_path}/low_dim.hdf5{part},{tmp_path}/low_dim.hdf5")
    assert len(joined.episodes) == len(expected) + 3


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("valid", "must be one of none, train, success; got 'valid'"),
        ("none", "'none' must select a demonstration; got none"),
    ],
)
def test_a_filter_key_that_selects_nothing_is_refused(tmp_path, part, message):
    with pytest.raises(UserError, match=message):
        load_recording(f"{filtered_file(tmp_path)}:{part}")


def test_other_files_have_no_filter_keys(tmp_path):
    arrays = FLAT | {"terminals": flags(3)}
    with pytest.raises(UserError, match="must be of a robomimic file; got 'train'"):
        load_recording(f"{write(tmp_path, '.hdf5', arrays)}:train")
    with pytest.raises(UserError, match="a filter key of robomimic or a split of RLDS; got 'x'"):
        load_recording(f"{write(tmp_path, '.npz', arrays)}:x")


def test_demonstrations_that_are_marked_as_failed_are_told(tmp_path):
    path = filtered_file(tmp_path)
    (notice,) = load_demonstrations(path).notices
    assert notice == "1 of 3 episodes are marked as failed"
    assert not load_demonstrations(f"{path}:success").notices


@pytest.mark.parametrize(
    ("demos", "message"),
    [
        ({"demo_0": {"actions": np.zeros((3, 2)), "states": np.zeros((3, 9))}}, "raw robosuite"),
        ({"demo_0": demo(3) | {"actions": np.zeros((4, 2))}}, "obs of demo_0 must have 4 steps"),
        ({"demo_0": {"obs": demo(3)["obs"]}}, "demo_0 must hold actions; got obs"),
        ({"demo_0": demo(3) | {"actions": np.zeros(3)}}, r"must be \[T, A\]; got \[3\]"),
        ({"other": {"x": np.zeros(3)}}, "data must hold demo_0 and so on; got other"),
    ],
)
def test_robomimic_files_that_do_not_fit_are_refused(tmp_path, demos, message):
    with pytest.raises(UserError, match=message):
        load_recording(robomimic_file(tmp_path, **demos))


def test_a_damaged_demonstration_is_a_problem_of_the_others(tmp_path):
    path = robomimic_file(tmp_path, demo_0=demo(3), demo_1=demo(3) | {"actions": np.zeros((9, A))})
    recording = load_recording(path)
    assert recording.indices == (0,)
    assert recording.problems == ("obs of demo_1 must have 9 steps, as actions have",)


# Files from strangers.


def test_links_to_other_files_are_refused(tmp_path):
    write_hdf5(tmp_path / "secret.hdf5", FLAT)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["observations"] = h5py.ExternalLink("secret.hdf5", "/observations")
    with pytest.raises(UserError, match="must hold all data itself; got a link to another file"):
        load_recording(tmp_path / "a.hdf5")


@examples(40)
@given(data=st.data(), suffix=st.sampled_from([".npz", ".hdf5", "robomimic"]))
def test_a_damaged_file_is_a_users_error(tmp_path, data, suffix):
    if suffix == "robomimic":
        path = robomimic_file(tmp_path)
    else:
        path = write(tmp_path, suffix, FLAT | {"terminals": flags(3)})
    damage(path, data)
    assert_error_or_numbers(path)
