import base64
import csv
import html.parser
import io
import re

import numpy as np
import pytest
from run_folders import write_run

from nppac_tf.comparison import archive, figures, methods, page, scores, tables

HOSTILE = '<script>alert("$x^")</script>|_`*'


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for prior in (HOSTILE, "_$\\frac"):
        for seed in range(2):
            place = folder / f"{len(prior)}-{seed}"
            write_run(place, [0.5, 0.7, 0.8], seed=seed, changes={"config.prior.prior": prior})
    return scores.compare(methods.group(archive.read_runs([folder]).runs))


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def test_a_page_is_self_contained_and_runs_nothing(compared):
    images = {}
    drawn = {metric: figures.curve(compared, metric) for metric in compared.metrics}
    for name, figure in {**drawn, "scores": figures.scores(compared)}.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=40)
        images[name] = file.getvalue()
    notes = [f"A note on {HOSTILE}."]
    text = page.page(compared, HOSTILE, images, methods.differences(compared.methods), notes)
    reader = Reader()
    reader.feed(text)
    assert not {"script", "link", "iframe", "object", "base", "a"} & set(reader.tags)
    sources = [value for name, value in reader.attributes if name == "src"]
    shown = [base64.b64decode(each.removeprefix("data:image/png;base64,")) for each in sources]
    assert shown == list(images.values())
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", text)
    # In the legend, in the head of two tables, and beside both runs.
    assert reader.text.count(f"prior={HOSTILE}") == 5
    assert notes[0] in reader.text


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
    name = compared.methods[0].name
    last = found[name, scores.TIME, "last", 2000]
    assert list(last.values())[4:] == ["0.8", "0.8", "0.8", "2", ""]
    assert found[name, scores.TIME, "curve", 1000]["value"] == "0.7"
    reached = found[name, scores.TIME, "steps_to_threshold", 2000]
    assert (reached["value"], reached["reached"]) == ("1000", "2")


@pytest.mark.parametrize(
    ("value", "reached", "cell"),
    [
        (1500.0, 2, ("1,500", "[1,000, 2,000] 2 of 2")),
        (1500.0, 1, ("≥ 1,500", "[1,000, 2,000] 1 of 2")),
        (2000.0, 0, ("> 2,000", "0 of 2")),
        (np.nan, 2, ("–", "")),
    ],
)
def test_a_threshold_shows_how_many_runs_reached_it(value, reached, cell):
    estimate = tuple(np.array([each]) for each in (value, 1000.0, 2000.0))
    score = scores.Score("", "", "", "steps", (np.zeros(2),), (estimate,), (reached,))
    assert tables.cells(score) == [cell]
