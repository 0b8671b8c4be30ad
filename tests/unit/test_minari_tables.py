"""Minari data sets whose episodes are Arrow or Parquet files."""

import json
import re
import shutil
import warnings

import gymnasium
import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import dataset, parquet
from toy_recordings import assert_error_or_numbers, damage

from examples import examples
from nppac_tf.demonstrations import load_recording
from nppac_tf.errors import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import minari
    from minari.data_collector import EpisodeBuffer

ID = "toy/walk-v0"
LENGTHS = (5, 3)
SPACE = gymnasium.spaces.Dict(
    {
        "goal": gymnasium.spaces.Box(-9.0, 9.0, (2, 1), np.float32),
        "state": gymnasium.spaces.Tuple(
            [gymnasium.spaces.Box(-9.0, 9.0, (2,), np.float64), gymnasium.spaces.Discrete(3)]
        ),
    }
)


def write(kind):
    """Writes two episodes, and returns their rows of goal, state and a count in one-hot form."""
    generator = np.random.default_rng(0)
    buffers, rows = [], []
    for length in LENGTHS:
        goal = generator.normal(size=(length + 1, 2, 1)).astype(np.float32)
        state = generator.normal(size=(length + 1, 2))
        count = np.arange(length + 1) % 3
        rows.append(np.hstack([goal[..., 0], state, np.eye(3)[count]]))
        buffers.append(
            EpisodeBuffer(
                observations={"goal": goal, "state": (state, count)},
                actions=np.full((length, 2), length, np.float32),
                rewards=np.arange(length, dtype=np.float64),
                terminations=np.zeros(length, np.bool_),
                truncations=np.arange(length) == length - 1,
                infos={"is_success": [step > 2 for step in range(length + 1)]},
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = minari.create_dataset_from_buffers(
            ID,
            buffers,
            observation_space=SPACE,
            action_space=gymnasium.spaces.Box(-9, 9, (2,), np.float32),
            data_format=kind,
        )
    return made.storage.data_path, rows


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


each_kind = pytest.mark.parametrize("kind", ["arrow", "parquet"])


@each_kind
def test_reads_what_minari_writes(kind):
    data, rows = write(kind)
    for source in (f"minari:{ID}", data.parent):
        recording = load_recording(source)
        assert recording.problems == ()
        assert recording.metadata["observation_keys"] == ["goal", "state/0", "state/1"]
        for episode, expected in zip(recording.episodes, rows, strict=True):
            length = len(expected) - 1
            np.testing.assert_array_equal(episode.states(), expected)
            np.testing.assert_array_equal(episode.actions, np.full((length, 2), length))
            np.testing.assert_array_equal(episode.rewards, np.arange(length))
            np.testing.assert_array_equal(episode.successes, np.arange(1, length + 1) > 2)
            np.testing.assert_array_equal(episode.truncations, np.arange(length) == length - 1)
            assert not episode.terminals.any()


def rewrite(folder, change):
    table = change(dataset.dataset(folder, format="parquet", ignore_prefixes=["m"]).to_table())
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "metadata.json").write_text('{"id": 1, "total_steps": 3}')
    parquet.write_table(table, folder / "part-0.parquet")


def long(table):
    return pyarrow.concat_tables([table] * 40_000)


def huge(table):
    return pyarrow.table({"observations": pyarrow.array(np.zeros(10**7))})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (long, r"episode 1: must be one batch of rows \(131,071 steps at most\).*; got 2"),
        (huge, r"episode 1: the arrays .* no more than its file can hold"),
        (lambda table: table.drop(["actions"]), "episode 1 must be whole"),
        (lambda table: table[:0], "episode 1"),
    ],
)
def test_refuses_tables_that_it_cannot_use(change, message):
    data, _ = write("parquet")
    rewrite(data / "1", change)
    recording = load_recording(data.parent)
    assert recording.indices == (0,)
    (problem,) = recording.problems
    assert re.search(message, problem), problem
    assert "\n" not in problem


@each_kind
def test_missing_episodes_are_told(kind):
    data, _ = write(kind)
    shutil.rmtree(data / "1")
    with pytest.raises(UserError, match=r"data must hold 2 episodes, .*; got 1"):
        load_recording(data.parent)
    metadata = json.loads((data / "metadata.json").read_text())
    (data / "metadata.json").write_text(json.dumps(metadata | {"total_episodes": 1}))
    assert load_recording(data.parent).indices == (0,)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folders = []
    for kind in ("arrow", "parquet"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp(kind)))
            folders.append(write(kind)[0].parent)
    return folders


@examples(100)
@given(data=st.data())
def test_damaged_data_give_a_user_error_or_numbers(pristine, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(data.draw(st.sampled_from(pristine)), folder)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    damage(folder / data.draw(st.sampled_from(names)), data)
    assert_error_or_numbers(folder)
