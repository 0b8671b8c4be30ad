import base64
import csv
import html.parser
import io
import re
from unittest import mock

import numpy as np
import pytest
from run_folders import write_run

from nppac_tf.comparison import archive, figures, intervals, methods, page, scores, tables

HOSTILE = '<script>alert("$x^")</script>|_`*'


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for prior in (HOSTILE, "_$\\frac"):
        for seed in range(2):
            place = folder / f"{len(prior)}-{seed}"
            write_run(place, [0.5, 0.7, 0.8], seed=seed, changes={"config.prior.prior": prior})
    return compared_in(folder)


def compared_in(folder):
    with mock.patch.object(intervals, "REPETITIONS", 100):
        return scores.compare(methods.group(archive.read_runs([folder]).runs))


def drawn(compared):
    result = {}
    for name, figure in (
        *((metric, figures.curve(compared, metric)) for metric in compared.metrics),
        ("scores", figures.scores(compared)),
    ):
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=40)
        result[name] = file.getvalue()
    return result


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def test_a_page_needs_nothing_and_runs_nothing(compared):
    images = drawn(compared)
    notes = [f"A note on {HOSTILE}."]
    text = page.page(compared, HOSTILE, images, methods.differences(compared.methods), notes)
    reader = Reader()
    reader.feed(text)
    assert not {"script", "link", "iframe", "object", "base", "a"} & set(reader.tags)
    sources = [value for name, value in reader.attributes if name == "src"]
    shown = [base64.b64decode(each.removeprefix("data:image/png;base64,")) for each in sources]
    assert shown == [images[name] for name in (*compared.metrics, "scores")]
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", text)
    # In the legend, at the head of two tables, and beside both runs.
    assert reader.text.count(f"prior={HOSTILE}") == 5
    assert notes[0] in reader.text
    assert reader.text.count(HOSTILE) == 3  # The title twice, and a value of the prior's setting.
    assert ("name", "viewport") in reader.attributes


def test_plain_lines_are_aligned(compared):
    head, *lines = tables.plain(compared).splitlines()
    assert len(lines) == len(compared.scores) + 1
    assert {len(line) for line in lines} == {len(head)}
    (line,) = (line for line in lines if line.startswith("B, time at goal: last "))
    assert line.split()[-6:] == ["0.800", "[0.800,", "0.800]"] * 2


def test_markdown_has_whole_tables(compared):
    text = tables.markdown(compared, HOSTILE, methods.differences(compared.methods), ["a <b>."])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3 + len(compared.scores) + 3
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert "\n- a \\<b\\>." in text
    assert "| B, time at goal: last | 0.800 \\[0.800, 0.800\\] |" in text


def test_all_numbers_are_in_the_csv(compared):
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(compared))))
    found = {
        (row["method"], row["metric"], row["quantity"], int(row["env_steps"])): row for row in rows
    }
    curves = sum(len(curve.env_steps) for each in compared.curves.values() for curve in each)
    assert len(found) == len(rows) == 2 * len(compared.scores) + curves
    method = compared.methods[0].name
    last = found[method, scores.TIME, "last", 2000]
    assert [last[name] for name in ("value", "low", "high", "runs", "reached")] == [
        "0.8",
        "0.8",
        "0.8",
        "2",
        "",
    ]
    assert found[method, scores.TIME, "curve", 1000]["value"] == "0.7"
    reached = found[method, scores.TIME, "steps_to_threshold", 2000]
    assert (reached["value"], reached["reached"]) == ("1000", "2")


@pytest.mark.parametrize(
    ("reached", "cell"),
    [(2, ("1,500", "[1,000, 2,000] 2 of 2")), (1, ("≥ 1,500", "[1,000, 2,000] 1 of 2"))],
)
def test_a_threshold_says_how_many_came_there(reached, cell):
    estimate = tuple(np.array([value]) for value in (1500.0, 1000.0, 2000.0))
    score = scores.Score("", "", "", "steps", (np.zeros(2),), (estimate,), (reached,))
    assert tables.cells(score) == [cell]


def test_a_threshold_that_none_reaches_and_a_score_that_is_not_there():
    estimate = tuple(np.array([2000.0]) for _ in range(3))
    score = scores.Score("", "", "", "steps", (np.zeros(2),), (estimate,), (0,))
    assert tables.cells(score) == [("> 2,000", "0 of 2")]
    nothing = tuple(np.array([np.nan]) for _ in range(3))
    assert tables.cells(score._replace(estimates=(nothing,))) == [("–", "")]


def test_curves_show_means_and_intervals(tmp_path):
    write_run(tmp_path / "a", [0.2, 0.4, 0.9], seed=0)
    write_run(tmp_path / "b", [0.4, 0.8], seed=1)
    (axis,) = figures.curve(compared_in(tmp_path), scores.TIME).axes
    thin_a, thin_b, mean, complete = (line.get_ydata() for line in axis.lines[:4])
    np.testing.assert_array_equal(thin_a, [0.2, 0.4, 0.9])
    np.testing.assert_array_equal(thin_b, [0.4, 0.8])
    np.testing.assert_allclose(mean, [0.3, 0.6, 0.9])
    np.testing.assert_allclose(complete, [0.3, 0.6, np.nan])
    assert axis.lines[4].get_ydata()[0] == 0.6  # The threshold.
    (band,) = axis.collections
    limits = band.get_datalim(axis.transData)
    assert (limits.y0, limits.y1) == (0.2, 0.8)


def test_every_method_is_in_the_legend(compared):
    (legend,) = figures.curves(compared, HOSTILE).legends
    assert [text.get_text().replace(" ", "") for text in legend.get_texts()] == [
        method.name.replace(" ", "") for method in compared.methods
    ]
