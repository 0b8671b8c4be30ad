"""A comparison as one self-contained HTML page without scripts."""

import base64
import html
import string
from collections.abc import Mapping, Sequence

from nppac_tf.comparison.archive import printable
from nppac_tf.comparison.intervals import REPETITIONS
from nppac_tf.comparison.methods import Difference, styles
from nppac_tf.comparison.scores import TIME, Comparison, letter_of
from nppac_tf.comparison.tables import cells
from nppac_tf.runs.metrics import LABELS

_PAGE = string.Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #dfe3e8; --paper: #fff;
  --ground: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #a3adba; --line: #363d47;
  --paper: #1b2027; --ground: #12161b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 12px; }
p { margin: 0 0 10px; max-width: 75ch; }
.lead, figcaption, small { color: var(--soft); }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  padding: 20px; margin-top: 18px; }
.legend { position: sticky; top: 0; background: var(--ground); z-index: 1; padding: 8px 0;
  display: flex; flex-wrap: wrap; gap: 6px 22px; list-style: none; margin: 6px 0 0; }
.legend li { overflow-wrap: anywhere; }
.method { display: inline-flex; align-items: baseline; text-align: left; }
.swatch { width: 12px; height: 12px; border-radius: 3px; margin-right: 7px; flex: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th:first-child { text-align: left; padding-left: 0; position: sticky;
  left: 0; background: var(--paper); }
tbody th { font-weight: 500; min-width: 9.5em; }
thead th { font-size: .88rem; vertical-align: bottom; min-width: 7em; max-width: 18em;
  overflow-wrap: break-word; }
tbody tr:last-child > * { border-bottom: 0; }
td small { display: block; white-space: nowrap; }
.figures { display: grid; gap: 18px; grid-template-columns: repeat(2, minmax(0, 1fr)); }
figure { margin: 0; }
figure.wide { max-width: 620px; }
img { display: block; width: 100%; height: auto; background: #fff; border-radius: 6px; }
summary { cursor: pointer; font-weight: 600; }
details .scroll { margin-top: 12px; }
dl { margin: 0; display: grid; grid-template-columns: minmax(9em, max-content) 1fr; gap: 8px 20px; }
dt { font-weight: 600; }
dd { margin: 0; max-width: 75ch; }
ul.notes { margin: 0; padding-left: 1.2em; }
ul.notes li { margin-bottom: 6px; overflow-wrap: anywhere; max-width: 90ch; }
@media (max-width: 720px) {
  main { padding: 18px 10px 32px; }
  section { padding: 14px 12px; }
  h1 { font-size: 1.35rem; }
  .figures, dl { grid-template-columns: minmax(0, 1fr); }
  dl { gap: 2px; }
  dd { margin-bottom: 10px; }
  table { font-size: .86rem; }
  th, td { padding: 6px 8px; }
  tbody th { min-width: 7.5em; max-width: 10em; }
}
@media print { body { background: #fff; } section { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<header>
<h1>$title</h1>
<p class="lead">$lead</p>
</header>
<ul class="legend">$legend</ul>
$sections
</main>
</body>
</html>
"""
)


def page(
    comparison: Comparison,
    title: str,
    figures: Mapping[str, bytes],
    differing: Sequence[Difference],
    notes: Sequence[str],
) -> str:
    """Returns the page. All text from files and the command line is escaped.

    Args:
        comparison: Comparison to show.
        title: Title of the page.
        figures: PNG files: the curve of each metric by its name, and "scores".
        differing: Settings in which methods differ.
        notes: Sentences on what differs between runs or is missing.
    """
    methods = comparison.methods
    count = sum(len(method.runs) for method in methods)
    end = int(comparison.env_steps[-1])
    lead = (
        f"{comparison.task}: {_counted(len(methods), 'method')}, {_counted(count, 'run')}, "
        f"compared at {end:,} environment steps."
    )
    sections = [
        _section(
            "Scores",
            f"<p>Interquartile mean over runs, and its 95&nbsp;% bootstrap interval, at {end:,} "
            f"environment steps.</p>{_scores(comparison)}",
        ),
        _section("Learning curves", _curves(comparison, figures)),
        _section(
            "Scores and intervals",
            _figure(
                figures["scores"],
                "Scores of each method with intervals",
                "Dots are interquartile means, bars their intervals, dashes single runs.",
                "wide",
            ),
        ),
    ]
    if notes:
        items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
        sections.append(_section("Notes", f'<ul class="notes">{items}</ul>'))
    if differing:
        rows = [(each.setting, [(value, "") for value in each.values]) for each in differing]
        sections.append(_section("Settings that differ", _table(comparison, rows)))
    sections += [
        f"<section>\n<details>\n<summary>Runs</summary>\n{_runs(comparison)}\n</details>\n</section>",
        _section("How to read this", _definitions(comparison)),
    ]
    return _PAGE.substitute(
        title=html.escape(title),
        lead=html.escape(lead),
        legend="".join(f"<li>{named}</li>" for named in _named(comparison)),
        sections="\n".join(sections),
    )


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n{content}\n</section>"


def _scores(comparison: Comparison) -> str:
    return _table(comparison, [(score.label, cells(score)) for score in comparison.scores])


def _table(comparison: Comparison, rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    head = "".join(f'<th scope="col">{named}</th>' for named in _named(comparison))
    body = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th>'
        + "".join(
            f"<td>{html.escape(main)}"
            + (f"<small>{html.escape(beside)}</small>" if beside else "")
            + "</td>"
            for main, beside in line
        )
        + "</tr>\n"
        for label, line in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def _curves(comparison: Comparison, figures: Mapping[str, bytes]) -> str:
    drawn = "".join(
        _figure(figures[metric], f"Learning curves: {LABELS[metric]}")
        for metric in comparison.drawn
    )
    return (
        f'<div class="figures">{drawn}</div>'
        "<p><small>Lines are interquartile means over runs, bands their 95&nbsp;% intervals at "
        "each step. Thin lines are single runs, for methods with two to four. A line is faint "
        "where not all runs of its method were evaluated.</small></p>"
    )


def _figure(png: bytes, alternative: str, caption: str = "", kind: str = "") -> str:
    data = base64.b64encode(png).decode()
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    marked = f' class="{kind}"' if kind else ""
    return (
        f'<figure{marked}><img src="data:image/png;base64,{data}" '
        f'alt="{html.escape(alternative)}">{below}</figure>'
    )


def _runs(comparison: Comparison) -> str:
    rows = "".join(
        f'<tr><th scope="row">{named}</th>'
        f"<td>{html.escape(run.name)}</td><td>{html.escape(printable(run.seeds[0]))}</td>"
        f"<td>{html.escape(printable(run.seeds[1]))}</td><td>{run.env_steps:,}</td></tr>\n"
        for named, method in zip(_named(comparison), comparison.methods, strict=True)
        for run in method.runs
    )
    names = ("folder", "seed", "prior_seed", "steps")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<div class="scroll"><table><thead><tr><th scope="col">method</th>'
        f"{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _definitions(comparison: Comparison) -> str:
    letter, time = letter_of(comparison.main), comparison.main == TIME
    terms: dict[str, str] = {}
    if time:
        terms |= {
            "A, any-time success": "Share of episodes at the goal at least once.",
            "B, time at goal": "Share of the horizon spent at the goal.",
            "Final": "Share of episodes at the goal in their last step.",
        }
    terms |= {
        "Interquartile mean": "Mean of the middle half of the runs; of up to three runs, their "
        "mean.",
        "Interval": "95 % percentile interval of the bootstrap over runs "
        f"({REPETITIONS:,} resamples, fixed seed), as in Agarwal et al. 2021.",
        "First, last": "The first evaluation, and the evaluation at the step of the comparison.",
        "Area": f"Area under the curve of {letter} by the trapezoidal rule, divided by the steps.",
    }
    if comparison.threshold is not None:
        terms["Steps to threshold"] = (
            f"Environment steps at the first of two successive evaluations with {letter} of at "
            f"least {comparison.threshold:g}. A run that does not reach it counts with the steps "
            "of the comparison, so the mean is a lower bound (≥). If no run reaches it, only the "
            "steps of the comparison are shown (>)."
        )
    terms["Dip: depth"] = (
        f"The first evaluation of {letter} minus the lowest. The lowest of many noisy evaluations "
        "is below the first even if nothing is unlearned."
    )
    if time:
        terms["Dip: longest"] = (
            "Longest period in steps in which B stays below 90 % of its first evaluation."
        )
    items = "".join(f"<dt>{term}</dt><dd>{html.escape(text)}</dd>" for term, text in terms.items())
    return f"<dl>{items}</dl>"


def _named(comparison: Comparison) -> list[str]:
    """The name of each method, with its color."""
    return [
        f'<span class="method"><span class="swatch" style="background:{color}"></span>'
        f"<span>{html.escape(method.name)}</span></span>"
        for method, (color, _) in zip(comparison.methods, styles(comparison.methods), strict=True)
    ]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
