"""Claims that compare runs (C3, C8), and the files of a claim."""

import csv
import json
import math
import types

import numpy as np
import pytest
from claim_runs import write_run

from nppac_tf import claims
from nppac_tf.claims import (
    c3_fixed_scales,
    c8_prior_classes,
)
from nppac_tf.errors import UserError


def write_fixed_scale_run(folder, scale, seed, returns, **training):
    rows = [f"{r / 100},{r},{'' if i == 0 else 5 + seed}" for i, r in enumerate(returns)]
    header = "env_steps,eval/time_at_goal,eval/return,train/kl"
    return write_run(folder, header, rows, {"fixed_scale": scale}, seed=seed, **training)


def test_runs_are_grouped_by_their_scale(tmp_path):
    result = claims.read_fixed_scale_runs(
        [
            write_fixed_scale_run(tmp_path / "a", 0.1, 0, [10, 20, 30, 40]),
            write_fixed_scale_run(tmp_path / "b", 0.1, 1, [20, 40, 60, 80]),
            write_fixed_scale_run(tmp_path / "c", 0.01, 0, [10, 8, 4, 0]),
        ]
    )
    np.testing.assert_array_equal(result.scales, [0.01, 0.1])
    narrow, wide = result.numbers()["by_sigma0"]
    assert (narrow["runs"], wide["runs"]) == (1, 2)
    assert narrow["eval/return, final"] == pytest.approx(4.0)
    assert wide["eval/return, final"] == pytest.approx(45.0)
    assert wide["eval/return, first"] == pytest.approx(15.0)
    assert wide["train/kl, first"] == pytest.approx(5.5)
    assert result.numbers()["final_return_rises_with_sigma0"]
    _, rows = result.table()
    assert (0.1, 1, "eval/return", 3000, 80.0) in rows
    assert not [row for row in rows if row[2] == "train/kl" and row[3] == 0]
    assert len(rows) == 3 * (4 + 4 + 3)
    assert result.finding().endswith("3,000 steps, σ₀ = 0.01, 0.1: B 0.00, 0.60; KL 5, 6")


@pytest.mark.parametrize(
    ("scale", "training", "complaint"),
    [
        (None, {"seed": 1}, "be made with --fixed_scale"),
        (0.1, {"seed": 0}, r"differ in fixed_scale or seed; got .*a and .*b, both 0\.1"),
        (0.2, {"seed": 0, "batch_size": 64}, r"fixed_scale and seeds; got training\.batch_size"),
    ],
)
def test_runs_of_fixed_scales_that_cannot_be_compared(tmp_path, scale, training, complaint):
    runs = [
        write_fixed_scale_run(tmp_path / "a", 0.1, 0, [1, 2]),
        write_fixed_scale_run(tmp_path / "b", scale, returns=[1, 2], **training),
    ]
    with pytest.raises(UserError, match=f"^--runs must .*{complaint}"):
        c3_fixed_scales.read_fixed_scale_runs(runs)


# C8

TIMES = {
    "gaussian_network": [[0.5, 0.1, 0.3], [0.7, 0.3, 0.1]],
    "gp": [[0.6, 0.7, 0.8], [0.6, 0.5, 0.7]],
}


def write_class_run(folder, name, seed, times, reached=0.9, prior=None, **training):
    rows = []
    for index, time in enumerate(times):
        monitored = ",,," if index == 0 else f"{10 + index + seed},0.25,{6 * index},{2 + seed}"
        rows.append(f"{reached},{time},{monitored}")
    header = (
        "env_steps,eval/any_success,eval/time_at_goal,train/kl,monitor/narrow_share,"
        "monitor/prior_gradient_norm,monitor/value_gradient_norm"
    )
    settings = {"prior": name, "prior_seed": 10 + seed, **(prior or {})}
    return write_run(
        folder, header, rows, settings, **{"seed": seed, "num_env_steps": 2000, **training}
    )


def write_class_runs(folder, times=TIMES):
    return [
        write_class_run(folder / f"{name}-{seed}", name, seed, values)
        for name, seeds in times.items()
        for seed, values in enumerate(seeds)
    ]


def test_runs_are_grouped_by_their_class(tmp_path):
    result = claims.read_prior_class_runs(write_class_runs(tmp_path)[::-1])
    assert list(result.classes) == ["gp", "gaussian_network"]
    numbers = result.numbers()
    assert (numbers["unfinished"], result.notices()) == ([], [])
    np.testing.assert_array_equal(numbers["env_steps"], [0, 1000, 2000])
    entry = numbers["by_prior"]["gaussian_network"]
    assert (entry["seeds"], entry["prior_seeds"]) == ([0, 1], [10, 11])
    at_goal = entry["eval/time_at_goal"]
    np.testing.assert_allclose(at_goal["mean"], [0.6, 0.2, 0.2])
    assert (at_goal["minimum"], at_goal["minimum_env_steps"]) == (pytest.approx(0.2), 1000)
    # Last rows: KL 12 and 13; norms 12 / 2 and 12 / 3.
    assert entry["train/kl"] == pytest.approx(12.5)
    assert entry["monitor/narrow_share"] == 0.25
    assert entry["monitor/prior_gradient_norm / monitor/value_gradient_norm"] == pytest.approx(5.0)
    assert "monitor/prior_scale_visited" not in entry
    _, rows = result.table()
    assert len(rows) == 12
    assert ("gaussian_network", 1, 11, 2000, 0.9, 0.1) in rows
    assert numbers["finding"] == (
        "B at 2,000 steps is highest with GP: 0.75, from 0.60 at the start; lowest with "
        "maximum-likelihood net: 0.20, from 0.60; 95% intervals overlap"
    )


def test_the_interval_is_students():
    values = np.array([0.50, 0.54, 0.61, 0.47])
    half = 3.182446 * values.std(ddof=1) / 2  # The table's t for three degrees of freedom.
    assert c8_prior_classes.interval(values) == pytest.approx((0.53 - half, 0.53 + half), abs=1e-6)
    assert c8_prior_classes.interval(np.array([0.1, 0.9])) == (0.0, 1.0)
    assert c8_prior_classes.interval(np.array([0.5])) is None


def test_unfinished_runs_shorten_the_comparison_and_empty_ones_are_left_out(tmp_path):
    runs = write_class_runs(tmp_path, {"gp": [[0.6, 0.7, 0.8]], "ensemble": [[0.5, 0.4]]})
    runs.append(write_class_run(tmp_path / "dropout", "dropout", 0, []))
    (runs[-1] / "metrics.csv").unlink()  # Stopped before its first evaluation.
    result = claims.read_prior_class_runs(runs)
    np.testing.assert_array_equal(result.env_steps, [0, 1000])
    assert result.notices() == [
        f"{runs[2]} is left out: it has no evaluation yet",
        f"{runs[1]} is unfinished (1,000 of 2,000 steps): runs are compared up to step 1,000; "
        "leave it out to compare longer",
    ]
    assert result.numbers()["left_out"] == ["dropout"]
    assert result.numbers()["by_prior"]["gp"]["eval/time_at_goal"]["last"] == 0.7
    with pytest.raises(UserError, match="got gp alone: add runs"):
        claims.read_prior_class_runs([runs[0], runs[2]])
    with pytest.raises(UserError, match="got none with an evaluation: add runs"):
        claims.read_prior_class_runs(runs[-1:])


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (
            {"name": "gp", "seed": 1, "batch_size": 64},
            r"only in prior, scale_floor and seeds; got training\.batch_size 256 .* and 64 in",
        ),
        (
            {"name": "ensemble", "seed": 0, "prior": {"scale_factor": 0.1}},
            r"got prior\.scale_factor 0\.3 .* and 0\.1 in",
        ),
        ({"name": "gaussian_network", "seed": 0}, "both gaussian_network with seed 0: leave one"),
        ({"name": "gaussian_network", "seed": 1}, "got gaussian_network alone: add runs"),
        ({"name": "uniform", "seed": 0}, "be made with a fitted prior"),
        ({"name": "gp", "seed": 0, "reached": ""}, "be of a task with a goal"),
    ],
)
def test_runs_of_classes_that_cannot_be_compared(tmp_path, other, complaint):
    runs = [
        write_class_run(tmp_path / "a", "gaussian_network", 0, [0.5, 0.4, 0.3]),
        write_class_run(tmp_path / "b", times=[0.5, 0.4, 0.3], **other),
    ]
    with pytest.raises(UserError, match=f"^--runs must .*{complaint}"):
        claims.read_prior_class_runs(runs)


def test_a_lower_bound_makes_a_class_of_its_own(tmp_path):
    runs = write_class_runs(tmp_path, {"gaussian_network": [[0.5, 0.4, 0.3]]})
    floor = {"scale_floor": 0.05}
    runs.append(
        write_class_run(tmp_path / "floor", "gaussian_network", 0, [0.5, 0.5, 0.6], prior=floor)
    )
    result = claims.read_prior_class_runs(runs)
    assert list(result.classes) == ["gaussian_network", "gaussian_network, floor 0.05"]
    assert "highest with maximum-likelihood net, floor 0.05: 0.60" in result.finding()


@pytest.mark.parametrize(
    ("worse", "certainty"),
    [
        ([0.10, 0.11, 0.12], "95% intervals do not overlap"),
        ([0.10, 0.11, 0.90], "95% intervals overlap"),
        ([0.10], "too few seeds for intervals"),
    ],
)
def test_the_finding_says_whether_the_seeds_are_conclusive(tmp_path, worse, certainty):
    ends = {"gp": [0.80, 0.81, 0.82], "dropout": worse}
    times = {name: [[0.5, 0.5, end] for end in values] for name, values in ends.items()}
    result = claims.read_prior_class_runs(write_class_runs(tmp_path, times))
    assert result.finding().endswith(certainty)


# Files


def test_the_files_of_a_claim(tmp_path):
    figure = types.SimpleNamespace(savefig=lambda file, **_: file.write(b"image"))
    numbers = {"a": np.float32(0.5), "b": np.array([1.0, np.inf]), "c": True, "d": (0.1, math.nan)}
    table = (("x", "y"), [(1, 0.123456789), ("z", np.float64(2.0))])
    paths = claims.write_claim(tmp_path / "new", "c9", numbers, table, {"f": figure})
    assert [path.name for path in paths] == ["c9.json", "c9.csv", "f.png"]
    content = json.loads(paths[0].read_text())
    assert content == {"a": 0.5, "b": [1.0, "inf"], "c": True, "d": [0.1, "nan"]}
    with open(paths[1], newline="") as file:
        assert list(csv.reader(file)) == [["x", "y"], ["1", "0.123457"], ["z", "2"]]
    assert paths[2].read_bytes() == b"image"
