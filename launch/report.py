"""Puts runs of one configuration (seeds) together: a table, and a figure of learning curves.

python launch/report.py --runs=runs/pen/seed0,runs/pen/seed1,runs/pen/seed2 --output=curves.png
"""

import common
from absl import flags

from nppac_tf.errors import UserError

_FIGURES = (".png", ".pdf", ".svg")

_RUNS = flags.DEFINE_list(
    "runs", None, "Folders of runs, or their metrics.csv, with commas between."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, f"Where to draw the learning curves ({', '.join(_FIGURES)})."
)
_TITLE = flags.DEFINE_string("title", "", "Above the figure.")


def main() -> None:
    if not _RUNS.value:
        raise UserError("--runs must name one or more runs, with commas between; got none")
    output = None if _OUTPUT.value is None else common.require_output("output", _FIGURES)
    from nppac_tf import reports

    tables = [reports.read_metrics(run) for run in _RUNS.value]
    from nppac_tf import plotting, progress

    summaries = [reports.summarize(table) for table in tables]
    metrics = [
        name
        for name in reports.METRICS
        if all(run.first[name] == run.first[name] for run in summaries)
    ]
    rows = []
    for name in metrics:
        for moment in ("first", "last"):
            values = [getattr(run, moment)[name] for run in summaries]
            each = [f"{value:.3g}" for value in values]
            rows.append((f"{name}, {moment}", *each, f"{reports.interquartile_mean(values):.3g}"))
    dips = [run.longest_dip for run in summaries]
    title = f"{len(tables)} runs of {min(run.env_steps for run in summaries):,} environment steps"
    rows.append(("longest dip (steps)", *(f"{dip:,}" for dip in dips), f"{max(dips):,} (longest)"))
    names = [str(index + 1) for index in range(len(tables))]
    progress.print_table(title, ("", *names, "interquartile mean"), rows)
    print(
        "A dip is the time that eval/time_at_goal stays under "
        f"{reports.KEPT_SHARE:.0%} of its start."
    )
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        curves = [(name, *reports.together(tables, name)) for name in metrics[:3]]
        plotting.runs_together(curves, _TITLE.value).savefig(output, dpi=150)
        print(output)


if __name__ == "__main__":
    common.run(main)
