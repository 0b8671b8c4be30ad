"""Puts runs of one configuration (seeds) together: a table, and a figure of learning curves.

python launch/report.py --runs=runs/pen/seed0,runs/pen/seed1,runs/pen/seed2 --output=curves.png
"""

import pathlib

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
    tasks = sorted({task for run in _RUNS.value if (task := _task_of(run))})
    if len(tasks) > 1:
        raise UserError(f"--runs must be of one task; got runs of {' and '.join(tasks)}")
    lengths = [int(table["env_steps"][-1]) for table in tables]
    tables = reports.in_common(tables)
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
    end = summaries[0].env_steps
    title = f"{len(tables)} runs, {end:,} environment steps"
    dips = [run.longest_dip for run in summaries if run.longest_dip is not None]
    if dips:
        longest = f"{max(dips):,} (longest)"
        rows.append(("longest dip (steps)", *(f"{dip:,}" for dip in dips), longest))
    names = [str(index + 1) for index in range(len(tables))]
    progress.print_table(title, ("", *names, "interquartile mean"), rows)
    longer = [name for name, length in zip(names, lengths, strict=True) if length > end]
    if longer:
        print(f"Runs {', '.join(longer)} are longer: what came after is left out.")
    if dips:
        print(
            "A dip is the time that eval/time_at_goal stays under "
            f"{reports.KEPT_SHARE:.0%} of its start."
        )
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        curves = [(name, *reports.together(tables, name)) for name in metrics[:3]]
        plotting.runs_together(curves, _TITLE.value).savefig(output, dpi=150)
        print(output)


def _task_of(run: str) -> str | None:
    """What a run was of, where its folder still says so."""
    path = pathlib.Path(run)
    path = (path if path.is_dir() else path.parent) / "config.json"
    return common.run_configuration(path.parent).task if path.is_file() else None


if __name__ == "__main__":
    common.run(main)
