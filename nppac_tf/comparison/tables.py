"""Tables of a comparison: plain text, Markdown and CSV."""

import csv
import io
import re
from collections.abc import Sequence

import numpy as np

from nppac_tf.comparison.methods import Difference
from nppac_tf.comparison.scores import ANY, Comparison, Score

_MANY = 4
_COLUMNS = ("method", "metric", "quantity", "env_steps", "value", "low", "high", "runs", "reached")


def cells(score: Score) -> list[tuple[str, str]]:
    """Formats a score: for each method its interquartile mean, and its interval.

    For a threshold the interval is followed by the number of runs that reached it.
    """
    result = []
    for index, (values, estimate) in enumerate(zip(score.values, score.estimates, strict=True)):
        value, low, high = (float(each[0]) for each in estimate)
        reached = None if score.reached is None else score.reached[index]
        if np.isnan(value):
            result.append(("–", ""))
            continue
        beside = ""
        if not np.isnan(low) and reached != 0:
            beside = f"[{_number(low, score.unit)}, {_number(high, score.unit)}]"
        main = _number(value, score.unit)
        if reached is not None:
            beside = f"{beside} {reached} of {len(values)}".strip()
            if reached < len(values):
                main = f"≥ {main}" if reached else f"> {main}"
        result.append((main, beside))
    return result


def plain(comparison: Comparison) -> str:
    """Formats scores as aligned text; with many methods only the main scores."""
    lines = [("", *(method.name for method in comparison.methods)), *_rows(comparison)]
    if _many(comparison):
        kept = {score.label for score in comparison.scores if _is_main(score, comparison)}
        lines = list(
            zip(
                *(line for line in lines if line[0] in ("", "runs") or line[0] in kept), strict=True
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        )
        for line in lines
    )


def _many(comparison: Comparison) -> bool:
    """Returns whether methods are shown as rows, not as columns."""
    return len(comparison.methods) > _MANY


def _is_main(score: Score, comparison: Comparison) -> bool:
    return score.name == "area" or (
        score.metric in (ANY, comparison.main) and score.name in ("first", "last")
    )


def _rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Returns rows of a label and a cell for each method."""
    counts = ("runs", *(str(len(method.runs)) for method in comparison.methods))
    return [
        counts,
        *(
            (score.label, *(" ".join(filter(None, cell)) for cell in cells(score)))
            for score in comparison.scores
        ),
    ]


def markdown(
    comparison: Comparison, title: str, differing: Sequence[Difference], notes: Sequence[str]
) -> str:
    """Formats a page of Markdown: scores, differing settings, notes."""
    names = [method.name for method in comparison.methods]
    end = int(comparison.env_steps[-1])
    parts = [
        f"# {_escape(title)}",
        f"At {end:,} environment steps: interquartile mean over runs [95 % bootstrap interval].",
        _markdown_table(*_turned(comparison, [["", *names], *_rows(comparison)])),
    ]
    if differing:
        rows = [(each.setting, *each.values) for each in differing]
        parts += ["## Settings that differ", _markdown_table(["", *names], rows)]
    if notes:
        parts += ["## Notes", "\n".join(f"- {_escape(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def _turned(
    comparison: Comparison, lines: Sequence[Sequence[str]]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Returns header and rows, transposed if there are many methods."""
    if _many(comparison):
        lines = list(zip(*lines, strict=True))
    return lines[0], lines[1:]


def comma_separated(comparison: Comparison) -> str:
    """Formats all numbers as CSV, one per row: scores, then curves (quantity "curve")."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    end = int(comparison.env_steps[-1])
    for score in comparison.scores:
        step = int(comparison.env_steps[0]) if score.name == "first" else end
        for index, method in enumerate(comparison.methods):
            numbers = [_exact(float(each[0])) for each in score.estimates[index]]
            reached = "" if score.reached is None else score.reached[index]
            counts = len(method.runs), reached
            table.writerow((method.name, score.metric, score.name, step, *numbers, *counts))
    for metric, curves in comparison.curves.items():
        for method, curve in zip(comparison.methods, curves, strict=True):
            for index, step in enumerate(curve.env_steps):
                numbers = [_exact(float(each[index])) for each in curve.estimate]
                count = int(curve.counts[index])
                table.writerow((method.name, metric, "curve", int(step), *numbers, count, ""))
    return text.getvalue()


def _number(value: float, unit: str) -> str:
    if unit == "steps":
        return f"{value:,.0f}"
    if unit == "return":
        return f"{value:,.1f}"
    return f"{value:.3f}"


def _exact(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, rule, *rows]
    return "\n".join(
        f"| {' | '.join(map(_escape, line)) if line is not rule else ' | '.join(rule)} |"
        for line in lines
    )


def _escape(text: str) -> str:
    """Escapes text for Markdown."""
    return re.sub(r"([\\|`*<>\[\]#]|(?<!\w)_|_(?!\w))", r"\\\1", text)
