import itertools

import numpy as np
import pytest
from run_folders import write_run
from scipy import stats

from nppac_tf.comparison import archive, intervals, methods, notes, tables
from nppac_tf.comparison import scores as comparison
from nppac_tf.errors import UserError

A, B, FINAL, RETURN = comparison.ANY, comparison.TIME, comparison.FINAL, comparison.RETURN


def compared(folder, threshold=None):
    return comparison.compare(methods.group(archive.read_runs([folder]).runs), threshold)


def notes_of(folder):
    not_evaluated = archive.read_runs([folder]).not_evaluated
    return "\n".join(notes.notes(compared(folder), not_evaluated))


def scores(result):
    return {(score.name, score.metric): score for score in result.scores}


def test_an_interval_is_that_of_all_resamples():
    values = np.array([[0.1], [0.2], [0.5], [0.9], [0.95]])
    resamples = np.array(list(itertools.product(values[:, 0], repeat=5)))
    each = stats.trim_mean(resamples, 0.25, axis=1)
    result = intervals.estimate(values)
    np.testing.assert_allclose(result.value, [(0.2 + 0.5 + 0.9) / 3])
    np.testing.assert_allclose(
        [result.low[0], result.high[0]], np.percentile(each, [2.5, 97.5]), atol=0.03
    )


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 7, 12])
def test_a_value_is_the_mean_without_a_quarter_at_each_end(runs):
    values = np.random.default_rng(0).normal(size=(runs, 3))
    result = intervals.estimate(values)
    np.testing.assert_allclose(result.value, stats.trim_mean(values, 0.25, axis=0))
    np.testing.assert_array_equal(result, intervals.estimate(values))  # Reproducible.
    if runs == 1:
        assert np.isnan([result.low, result.high]).all()
    elif runs < 4:
        np.testing.assert_allclose(result.low, values.min(axis=0))
        np.testing.assert_allclose(result.high, values.max(axis=0))
    values[-1, 1] = np.nan
    np.testing.assert_array_equal(np.isnan(intervals.estimate(values).value), [False, True, False])


def test_area():
    values = np.array([[0.0, 1.0, 1.0], [0.3, 0.3, 0.3]])
    np.testing.assert_allclose(comparison.area(np.array([0, 10, 30]), values), [25 / 30, 0.3])
    assert np.isnan(comparison.area(np.array([0]), values[:, :1])).all()


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ([0.7, 0.6, 0.1, 0.1], 0),
        ([0.1, 0.7, 0.5, 0.9], np.inf),
        ([0.1, 0.7, 0.5, 0.6], np.inf),
        ([0.1, 0.5, 0.6, 0.6], 3000),
        ([0.1, 0.5, np.float32(0.6) - 3e-8, 0.6], 3000),
        ([0.9], np.inf),
        ([0.9, np.nan, 0.9, 0.9], np.nan),
    ],
)
def test_steps_to_threshold(values, steps):
    grid = np.array([0, 1000, 3000, 4000])[: len(values)]
    np.testing.assert_array_equal(
        comparison.steps_to_threshold(grid, np.array([values]), 0.6), [steps]
    )


def test_scores_of_one_method(tmp_path):
    write_run(tmp_path / "a", [0.5, 0.4, 0.7, 0.7], seed=0)
    write_run(tmp_path / "b", [0.6, 0.5, 0.5, 0.9], seed=1)
    result = compared(tmp_path)
    found = scores(result)
    np.testing.assert_array_equal(result.env_steps, [0, 1000, 2000, 3000])
    wanted = {
        ("first", B): [0.5, 0.6],
        ("last", B): [0.7, 0.9],
        ("last", RETURN): [70, 90],
        ("last", A): [0.9, 0.9],
        ("area", B): [1.7 / 3, 1.75 / 3],
        ("steps_to_threshold", B): [2000, 3000],
        ("dip_depth", B): [0.1, 0.1],
        ("dip_steps", B): [1000, 2000],
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name].values[0], values, err_msg=str(name))
        np.testing.assert_allclose(found[name].estimates[0].value, [np.mean(values)])
    assert found["steps_to_threshold", B].reached == (1,)
    assert result.threshold == 0.6


def test_runs_of_unequal_length_are_compared_where_all_are(tmp_path):
    write_run(tmp_path / "a", [0.1, 0.2, 0.3], seed=0)
    write_run(tmp_path / "b", [0.5, 0.6], seed=1, planned=2000)
    result = compared(tmp_path)
    np.testing.assert_array_equal(scores(result)["last", B].values[0], [0.2, 0.6])
    (curve,) = result.curves[B]
    np.testing.assert_array_equal(curve.env_steps, [0, 1000, 2000])
    np.testing.assert_array_equal(curve.counts, [2, 2, 1])
    np.testing.assert_allclose(curve.estimate.value, [0.3, 0.4, 0.3])
    np.testing.assert_allclose(curve.estimate.low, [0.1, 0.2, np.nan])
    np.testing.assert_array_equal(curve.runs, [[0.1, 0.2, 0.3], [0.5, 0.6, np.nan]])
    text = notes_of(tmp_path)
    assert "b is unfinished: 1,000 of 2,000 steps." in text
    assert "compared at 1,000 steps, the last that all runs have evaluated, where b ends" in text


def test_a_task_without_a_goal_is_compared_by_return(tmp_path):
    for seed, end in enumerate((50, 70)):
        folder = write_run(tmp_path / str(seed), [0.5], seed=seed)
        (folder / "metrics.csv").write_text(f"env_steps,eval/return\n0,40\n1000,{end}\n2000,30\n")
    result = compared(tmp_path, threshold=40)
    found = scores(result)
    assert set(found) == {
        (name, RETURN) for name in ("first", "last", "area", "steps_to_threshold", "dip_depth")
    }
    np.testing.assert_array_equal(found["area", RETURN].values[0], [42.5, 52.5])
    np.testing.assert_array_equal(found["dip_depth", RETURN].values[0], [10, 10])
    assert found["steps_to_threshold", RETURN].reached == (2,)
    assert ("steps_to_threshold", RETURN) not in scores(compared(tmp_path))


def test_a_missing_value_leaves_its_scores_out(tmp_path):
    write_run(tmp_path / "a", [0.5, 0.6], seed=0)
    write_run(tmp_path / "b", [np.nan, 0.8], seed=1)
    result = compared(tmp_path)
    found = scores(result)
    assert np.isnan(found["first", B].estimates[0].value)
    assert np.isnan(found["area", B].estimates[0].value)
    assert np.isnan(found["dip_steps", B].estimates[0].value)
    np.testing.assert_allclose(found["last", B].estimates[0].value, [0.7])
    np.testing.assert_allclose(result.curves[B][0].estimate.value, [0.5, 0.7])
    assert "B, time at goal is missing in evaluations of b" in notes_of(tmp_path)


def test_refuses_what_cannot_be_compared(tmp_path):
    write_run(tmp_path / "a", [0.5], steps=[1000], seed=0)
    write_run(tmp_path / "b", [0.5], steps=[2000], seed=1)
    with pytest.raises(UserError, match="evaluations at the same steps"):
        compared(tmp_path)
    with pytest.raises(UserError, match=r"threshold must be in \(0, 1\]"):
        compared(tmp_path / "a", threshold=50)
    (tmp_path / "a" / "metrics.csv").write_text("env_steps\n0\n")
    with pytest.raises(UserError, match="runs must have evaluations of"):
        compared(tmp_path / "a")


def test_differences_between_runs_are_noted(tmp_path):
    prior_seed = {"config.prior.prior_seed": 0}
    many = {"config.prior.prior": "uniform", "versions.numpy": "2.0", **prior_seed}
    for seed in (0, 2):
        write_run(tmp_path / f"a{seed}", [0.5, 0.6], seed=seed, changes=many)
    few = {"config.training.eval_episodes": 20, "config.prior.kernel": None, **prior_seed}
    write_run(tmp_path / "b", [0.5, 0.6, 0.7], steps=[0, 500, 1000], changes=few)
    write_run(tmp_path / "c", [], seed=1)
    lines = notes_of(tmp_path).splitlines()
    for wanted in (
        "Left out because not evaluated yet: c.",
        "prior=gp has 1 run and lacks seed 2, which other methods have.",
        "A method with a single run has no interval.",
        "Bootstrap intervals of few seeds are too narrow.",
        "Runs were evaluated at different steps; scores use the 2 steps that all runs share.",
        "Methods differ in training.eval_episodes, a setting of the measurement: 50; 20.",
        "Runs were made with different versions: numpy 1.26.4 and 2.0.",
        "Settings that only some runs record are not compared: prior.kernel.",
    ):
        assert sum(line.startswith(wanted) for line in lines) == 1, (wanted, lines)


def test_what_learns_nothing_online_is_the_same_at_all_steps(tmp_path):
    write_run(tmp_path / "cloned" / "seed0", [0.5], planned=0)
    write_run(tmp_path / "a" / "seed0", [0.2, 0.4, 0.9], changes={"config.prior.prior": "dropout"})
    result = compared(tmp_path)
    learned, cloned = result.curves[B]
    np.testing.assert_array_equal(cloned.env_steps, [0, 1000, 2000])
    np.testing.assert_array_equal(cloned.estimate.value, [0.5, 0.5, 0.5])
    np.testing.assert_array_equal(learned.estimate.value, [0.2, 0.4, 0.9])
    assert [float(each[0]) for each in scores(result)["area", B].values] == [
        pytest.approx(0.475),
        pytest.approx(0.5),
    ]
    lines = notes_of(tmp_path).splitlines()
    assert lines[0].startswith("cloned/seed0 learned nothing online")
    assert not any("Scores are compared at" in line for line in lines)
    assert compared(tmp_path / "cloned").env_steps.tolist() == [0]


def test_many_methods_are_rows_with_the_main_scores(tmp_path):
    for number in range(5):
        changes = {"config.agent.temperature": 0.1 + number}
        write_run(tmp_path / f"method{number}" / "seed0", [0.5, 0.6], changes=changes)
    result = compared(tmp_path)
    header, *lines = tables.plain(result).splitlines()
    assert header.split("  ")[-1] == "B: mean over steps (area)"
    assert [line.split()[0] for line in lines] == [f"method{number}" for number in range(5)]
    assert lines[0].split()[1:] == ["1", "0.900", "0.900", "0.500", "0.600", "0.550"]
    page = tables.markdown(result, "title", (), ())
    assert "| method0 | 1 | 0.900 |" in page
    assert page.splitlines()[4].count("|") == len(["", "runs"]) + len(result.scores) + 1


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (
            [0.5, 0.55],
            "N-PPAC has the highest B @: 0.72; no other interval reaches its",
        ),
        ([0.5, 0.71], "N-PPAC has the highest B @: 0.72; one other interval overlaps"),
        ([0.8], "AWAC has the highest B @: 0.80; not all methods have several runs"),
    ],
)
def test_a_finding_in_words(tmp_path, last, said):
    for name, values in (("nppac", [0.7, 0.75]), ("awac", last)):
        for seed, value in enumerate(values):
            place = tmp_path / "pen-binary" / name / f"seed{seed}"
            write_run(place, [0.5, value], seed, changes={"config.agent.algorithm": name})
    assert comparison.finding(compared(tmp_path), B) == said.replace("@", "at 1,000 steps")


def test_returns_of_different_rewards_are_not_drawn_together(tmp_path):
    write_run(tmp_path / "a", [0.5], changes={"config.reward": "binary"})
    assert RETURN in compared(tmp_path).drawn
    write_run(tmp_path / "b", [0.5], changes={"config.reward": "negative"})
    result = compared(tmp_path)
    assert RETURN in result.metrics
    assert RETURN not in result.drawn


def test_a_default_threshold_belongs_to_a_task(tmp_path):
    write_run(tmp_path / "pen", [0.5])
    write_run(tmp_path / "arm", [0.5], task="arm")
    assert compared(tmp_path / "pen").threshold == 0.6
    assert compared(tmp_path / "arm").threshold is None
    assert compared(tmp_path / "arm", 0.9).threshold == 0.9
