"""The doctor: a sound data set passes, and each defect put into one is found by name."""

import dataclasses
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_recordings import (
    LENGTH,
    SIZES,
    check,
    find,
    make_episode,
    make_recording,
    make_task,
    with_episode,
)

from nppac_tf import environments
from nppac_tf.demonstrations import load_recording
from nppac_tf.doctor import diagnosis
from nppac_tf.environments.known import KNOWN_TASKS


@pytest.mark.parametrize("lengths", [[LENGTH] * 8, range(LENGTH - 7, LENGTH + 1)])
def test_a_sound_data_set_has_no_findings(lengths):
    episodes = [make_episode(seed, length) for seed, length in enumerate(lengths)]
    assert diagnosis.diagnose(make_recording(episodes), make_task()) == []


SOUND = make_episode(3)


def edited(array, rows, value):
    result = np.array(array, np.float64)
    result[rows] = value
    return result


def first_steps(episode, steps, **changes):
    """The first steps of an episode, with no more than observations and actions."""
    return {
        "observations": episode.observations[:steps],
        "actions": episode.actions[:steps],
        "final_observation": None,
        "rewards": None,
        "terminals": None,
        "truncations": None,
        "next_observations": None,
    } | changes


FROZEN = edited(SOUND.observations, slice(20, 40), SOUND.observations[20])


LAST = SOUND.final_observation[None]


HALF = LENGTH // 2


JOINED = np.concatenate([SOUND.observations[:HALF], make_episode(5).observations[:HALF]])


LOOSE = {"final_observation": None, "next_observations": None}


SCALED = ("observations", "final_observation", "next_observations")


SLOW = edited(SOUND.actions, slice(20, 40), SOUND.actions[20])


FLAT = {"observations": FROZEN, "next_observations": None}


# The finding (severity, topic and message), and the changes of one episode that cause it.
DEFECTS = {
    "error: not finite: 1 values of observations in 1 of 8 .* step 7, dimension 2": {
        "observations": edited(SOUND.observations, (7, 2), np.nan)
    },
    "error: not finite: 3 values of actions in 1 of 8 episodes .* at step 5": {
        "actions": edited(SOUND.actions, 5, np.inf)
    },
    "error: not finite: 1 values": {"observations": edited(SOUND.observations, (0, 0), 1e300)},
    "error: sizes: 1 of 8": {"observations": np.zeros([LENGTH, 7]), "final_observation": None},
    "note: off by one: .* one observation more": LOOSE
    | {"observations": np.concatenate([SOUND.observations, LAST])},
    "error: lengths differ: .* with 60 and 55": {"actions": SOUND.actions[:-5]},
    "error: empty episode: 1 of 8": {"observations": np.zeros([0, 6]), "actions": np.zeros([0, 3])},
    "warning: off by one: .* 61 for 60": {"rewards": np.append(SOUND.rewards, 0.0)},
    "warning: rewards: .* nan or infinite": {"rewards": edited(SOUND.rewards, 3, np.nan)},
    r"warning: clipped actions: 2 of 1,440 action values, .* by up to 0\.25": {
        "actions": edited(SOUND.actions, (slice(0, 2), 1), 1.25)
    },
    "warning: scales: .* of 1 of 8": {key: 57.3 * getattr(SOUND, key) for key in SCALED},
    "warning: repeated episodes: 1 of 8 .*: 3 of 1": dataclasses.asdict(make_episode(1)),
    "warning: repeated episodes: .* of a part: 3 of 1": first_steps(make_episode(1), 50),
    "warning: frozen state: .* while the actions change, up to 19 times": FLAT,
    "warning: repeated steps: .* up to 19 times": FLAT | {"actions": SLOW},
    "warning: terminal inside: 1 of 8": {"terminals": np.arange(LENGTH) == 30},
    "warning: joined episodes: .* step 30 of episode 3": {
        "observations": JOINED,
        "next_observations": None,
    },
    "warning: successors: .* 1 of 8": {
        "next_observations": np.roll(SOUND.next_observations, 3, axis=0)
    },
    "warning: fails early: 1 of 8 .* after 25 steps": first_steps(
        SOUND, 25, terminals=np.arange(25) == 24
    ),
    "warning: short episodes: 1 of 8 .* the median of 60": first_steps(SOUND, 25),
    "warning: low return: .* 1 of 8": {"rewards": SOUND.rewards - 20},
}


@pytest.mark.parametrize("expected", DEFECTS)
def test_finds_a_defect_of_one_episode(expected):
    changes = DEFECTS[expected]
    with np.errstate(over="raise"):
        finding = find(with_episode(3, **changes), expected.split(": ")[1])
    check(finding, expected)
    assert finding.episodes in ((3,), ())


def changed(**changes):
    """Changes every episode by functions of it."""
    return make_recording(
        [
            dataclasses.replace(e, **{key: make(e) for key, make in changes.items()})
            for e in map(make_episode, range(8))
        ]
    )


def lengths(*values):
    return make_recording([make_episode(seed, length) for seed, length in enumerate(values)])


@pytest.mark.parametrize(
    ("expected", "recording"),
    [
        (r"warning: clipped actions: .* over \[-", changed(actions=lambda e: 30 * e.actions)),
        ("warning: tiny actions: ", changed(actions=lambda e: e.actions / 100)),
        (r"note: saturated actions: 100\.0%", changed(actions=lambda e: np.sign(e.actions))),
        ("error: constant actions: ", changed(actions=lambda e: np.zeros_like(e.actions))),
        (
            "note: constant observations: dimension 2 of the",
            changed(observations=lambda e: e.observations * [1, 1, 0, 1, 1, 1]),
        ),
        (
            "warning: scales: dimension 4 of the observations var",
            changed(
                observations=lambda e: e.observations * [1, 1, 1, 1, 5000, 1],
                next_observations=lambda e: None,
                final_observation=lambda e: None,
            ),
        ),
        ("note: same start: ", changed(observations=lambda e: edited(e.observations, 0, 0.5))),
        ("note: rewards: every reward is -1", changed(rewards=lambda e: np.full(LENGTH, -1.0))),
        ("error: empty: there is no episode", make_recording([])),
        ("warning: few episodes: there are 2 episodes with 120 steps", lengths(60, 60)),
        ("note: horizon: .* the horizon of toy, 60 steps", lengths(61, 62, 63, 64, 65)),
        ("warning: long episodes: 1 of 8 .*: 200", lengths(200, *[60] * 7)),
        ("error: unreadable: episode 8 must be", make_recording(problems=("episode 8 must be",))),
        (
            "warning: incomplete: 2 episodes are there",
            make_recording(notices=("2 episodes are there where 8 were announced",)),
        ),
        ("note: pickle: .* without running code", make_recording(is_pickle=True)),
        ("error: refused: metadata must", make_recording(metadata={"not": object()})),
    ],
)
def test_finds_a_defect_of_the_whole(expected, recording):
    check(find(recording, expected.split(": ")[1]), expected)


def test_finds_actions_in_two_modes():
    side = np.random.default_rng(0).choice([-0.7, 0.7], [20, LENGTH, 1])
    episodes = [make_episode(seed) for seed in range(20)]
    actions = [side[i] + 0.05 * episode.actions for i, episode in enumerate(episodes)]
    both = [dataclasses.replace(e, actions=a) for e, a in zip(episodes, actions, strict=True)]
    check(find(make_recording(both), "two modes"), "warning: two modes: in .*% of the states")


def test_episodes_whose_lengths_vary_are_neither_short_nor_long():
    varied = lengths(20, 35, 50, 65, 80, 95, 110, 125)
    topics = {finding.topic for finding in diagnosis.diagnose(varied, make_task(horizon=None))}
    assert not {"short episodes", "long episodes"} & topics


def test_many_low_returns_are_no_outliers():
    episodes = [make_episode(seed) for seed in range(8)]
    few, many = (
        make_recording(
            [
                dataclasses.replace(e, rewards=np.full(LENGTH, -20.0 if k < low else k / 100))
                for k, e in enumerate(episodes)
            ]
        )
        for low in (1, 3)
    )
    check(find(few, "low return"), "warning: low return: the returns of 1 of 8")
    assert "low return" not in {finding.topic for finding in diagnosis.diagnose(many)}


def test_names_episodes_by_their_place_in_the_file():
    recording = with_episode(3, actions=edited(SOUND.actions, 5, np.inf))
    moved = dataclasses.replace(recording, indices=tuple(range(10, 18)))
    assert find(moved, "not finite").episodes == (13,)


def test_says_everything_that_is_wrong_with_a_file_that_loading_refuses(tmp_path):
    records = [
        {"observations": e.observations, "actions": 2 * e.actions}
        for e in (make_episode(seed) for seed in range(8))
    ]
    records[2] = {"states": 1}
    records[4]["observations"] = edited(records[4]["observations"], 3, np.nan)
    records[6]["actions"] = records[6]["actions"][:-7]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(records))
    recording = load_recording(tmp_path / "x.pkl")
    findings = diagnosis.diagnose(recording, make_task())
    errors = {f.topic: f.episodes for f in findings if f.severity == "error"}
    assert errors == {"unreadable": (), "not finite": (4,), "lengths differ": (6,)}
    assert {f.topic for f in findings} >= {"pickle", "clipped actions"}
    assert [f.severity for f in findings] == sorted(
        (f.severity for f in findings), key=diagnosis.SEVERITIES.index
    )


@pytest.mark.parametrize(
    ("sizes", "advice"),
    [
        ((39, 28), "Pass --task=door-binary: these are the sizes of door-binary"),
        ((17, 6), "Pass --task=halfcheetah: .* of halfcheetah and walker2d"),
        ((3, 6), "Swap observations and actions"),
        ((5, 5), "pass the --task that they were recorded in"),
    ],
)
def test_names_the_task_that_the_sizes_fit(sizes, advice):
    recording = make_recording([make_episode(seed, sizes=sizes) for seed in range(6)])
    finding = find(recording, "sizes")
    assert finding.severity == "error"
    assert re.search(advice, finding.advice)


def test_knows_the_sizes_of_the_tasks():
    for name, known in KNOWN_TASKS.items():
        task = environments.make_task(name)
        assert (task.observation_size, task.action_size, task.horizon) == (
            *known.sizes,
            known.horizon,
        )


@pytest.mark.parametrize(
    ("environment_id", "sizes", "names"),
    [
        ("AdroitHandPen-v1", SIZES, ["pen-binary"]),
        ("AdroitHandDoorSparse-v1", SIZES, ["door-binary"]),
        ("nppac_tf/RelocateBinary-v0", SIZES, ["relocate-binary"]),
        ("HalfCheetah-v4", SIZES, ["halfcheetah"]),
        ("pen-binary", SIZES, ["pen-binary"]),
        ("Reacher-v5", SIZES, ["Reacher-v5"]),
        ("evil:Pen-v0", (45, 24), []),
        (None, SIZES, []),
        (None, (45, 24), ["pen-binary"]),
        (None, (17, 6), ["halfcheetah", "walker2d"]),
    ],
)
def test_the_file_or_its_sizes_name_the_task(environment_id, sizes, names):
    recording = make_recording([make_episode(0, sizes=sizes)], environment_id=environment_id)
    assert diagnosis.candidate_tasks(recording) == names


def test_without_a_task_little_is_known_and_nothing_fails():
    assert diagnosis.diagnose(make_recording()) == []
    for changes in DEFECTS.values():
        diagnosis.diagnose(with_episode(3, **changes))


def test_a_fast_start_from_rest_is_no_join():
    generator = np.random.default_rng(0)
    way = 1 - 0.4 ** np.arange(LENGTH + 1)[:, None]
    episodes = []
    for seed in range(8):
        positions = generator.normal(size=3) * way
        states = np.hstack([positions, np.diff(positions, axis=0, prepend=0)])
        episodes.append(
            dataclasses.replace(
                make_episode(seed),
                observations=states[:-1],
                final_observation=states[-1],
                next_observations=states[1:],
            )
        )
    topics = [f.topic for f in diagnosis.diagnose(make_recording(episodes), make_task())]
    assert "joined episodes" not in topics


@settings(max_examples=150)
@given(
    defects=st.lists(st.lists(st.sampled_from(list(DEFECTS)), max_size=3), max_size=5),
    sizes=st.sampled_from([SIZES, (7, 3), (39, 28)]),
)
def test_no_combination_of_defects_stops_the_doctor(defects, sizes):
    episodes = []
    for seed, names in enumerate(defects):
        changes = {k: v for name in names for k, v in DEFECTS[name].items()}
        episodes.append(dataclasses.replace(make_episode(seed), **changes))
    task = make_task("door-binary" if sizes == (39, 28) else "toy", sizes, horizon=3)
    for finding in diagnosis.diagnose(make_recording(episodes), task):
        assert finding.message
        assert "\n" not in finding.message


@pytest.mark.parametrize(
    ("name", "task_name", "topics"),
    [
        (
            "pen2_sparse.npy",
            "pen-binary",
            {"off by one", "rewards", "pickle", "saturated actions", "horizon"},
        ),
        (
            "door-v0_demos.pickle",
            "door-binary",
            {"clipped actions", "no success", "late success", "pickle", "horizon"},
        ),
        ("minari/walker2d/tqc-noisy-v0", "walker2d", {"fails early"}),
    ],
)
def test_real_data_sets(demos_path, name, task_name, topics):
    recording = load_recording(demos_path / name)
    task = environments.make_task(task_name)
    findings = {f.topic: f for f in diagnosis.diagnose(recording, task)}
    assert findings.keys() == topics
    if task_name == "pen-binary":
        totals = [np.nansum(flags) for flags in diagnosis.goal_flags(recording, task)]
        assert (min(totals), max(totals)) == (79, 188)
        assert findings["off by one"].message.endswith("200 for 199")
        assert len(findings["rewards"].episodes) == 8
    elif task_name == "door-binary":
        assert (
            "by up to 0.366: they range over [-1.28, 1.37]" in findings["clipped actions"].message
        )
        assert len(findings["no success"].episodes) == 18
    else:
        assert findings["fails early"].episodes == (0, 5, 12)
