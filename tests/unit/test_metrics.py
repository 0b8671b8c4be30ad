import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nppac_tf.errors import UserError
from nppac_tf.runs import metrics

HEADER = "env_steps,updates," + ",".join(metrics.METRICS)


def write(path, times, steps=None):
    lines = [
        f"{step},{step},0.9,{time},0.8,{100 * time}"
        for step, time in zip(steps or range(0, 1000 * len(times), 1000), times, strict=True)
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("times", "dip"),
    [
        ([0.5, 0.5, 0.6], 0),
        ([0.5, 0.44, 0.6], 1000),
        ([0.5, 0.44, 0.43, 0.42, 0.5, 0.44, 0.6], 3000),
        ([0.5, 0.6, 0.4, 0.4, 0.4], 2000),
        ([0.5, 0.45, 0.6], 0),
    ],
)
def test_summary(tmp_path, times, dip):
    write(tmp_path / "metrics.csv", times)
    summary = metrics.summarize(metrics.read_metrics(tmp_path))
    assert summary.longest_dip == dip
    assert summary.first["eval/time_at_goal"] == times[0]
    assert summary.last["eval/return"] == pytest.approx(100 * times[-1])
    assert summary.env_steps == 1000 * (len(times) - 1)


@pytest.mark.parametrize(
    ("first", "value", "kept"),
    [
        (0.5, 0.46, True),
        (0.5, 0.44, False),
        (-10.0, -10.9, True),
        (-10.0, -11.1, False),
        (0.0, 0.0, True),
        (float("nan"), 0.5, True),
    ],
)
def test_a_tenth_may_be_lost(first, value, kept):
    assert metrics.is_kept(first, value) == kept


def test_a_table_without_success_has_a_summary(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("env_steps,eval/return\n0,-9\n1000,-3\n")
    summary = metrics.summarize(metrics.read_metrics(path))
    assert (summary.first["eval/return"], summary.last["eval/return"]) == (-9, -3)
    assert np.isnan(summary.first["eval/time_at_goal"])
    assert summary.longest_dip is None


def test_empty_cells(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("env_steps,train/kl\r\n0,\r\n1000,2.5\r\n")
    assert metrics.read_rows(path) == [{"env_steps": 0.0}, {"env_steps": 1000.0, "train/kl": 2.5}]
    np.testing.assert_array_equal(metrics.read_metrics(path)["train/kl"], [np.nan, 2.5])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60) | st.text('env_steps,\n\r"0.1x', max_size=40).map(str.encode))
def test_any_content_is_a_table_or_a_users_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        table = metrics.read_metrics(path)
    except UserError:
        return
    assert len({len(column) for column in table.values()}) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"env_steps\n", "must hold an evaluation; it has none yet"),
        (b"a,b\n1,2\n", "not a run's table"),
        (b"env_steps\nx\n", "not a run's table"),
        (b"env_steps,a\n1,2,3\n", "not a run's table"),
        (b"env_steps,a\n,1\n", "not a run's table"),
        (b"\xff\xfe\x00", "not a run's table"),
    ],
)
def test_a_damaged_or_empty_table_is_refused(tmp_path, content, message):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        metrics.read_metrics(tmp_path)


def test_a_missing_run_is_refused_with_a_suggestion(tmp_path):
    (tmp_path / "seed0").mkdir()
    write(tmp_path / "seed0" / "metrics.csv", [0.5])
    for name, message in {
        "sed0": r"no run at .*sed0; did you mean .*/seed0\?",
        "another": r"runs near it: .*/seed0$",
        ".": r"with a metrics.csv; it has none; runs near it: .*seed0",
    }.items():
        with pytest.raises(UserError, match=message):
            metrics.read_metrics(tmp_path / name)


def test_runs_are_compared_at_common_steps(tmp_path):
    long = metrics.read_metrics(write(tmp_path / "a.csv", [0.1, 0.2, 0.3]))
    short = metrics.read_metrics(write(tmp_path / "b.csv", [0.4, 0.6], steps=[0, 2000]))
    steps, values = metrics.together([long, short], "eval/time_at_goal")
    np.testing.assert_array_equal(steps, [0, 2000])
    np.testing.assert_allclose(values, [[0.1, 0.3], [0.4, 0.6]])
    with pytest.raises(UserError, match="evaluations at the same steps"):
        metrics.in_common([long, {**short, "env_steps": short["env_steps"] + 1}])
