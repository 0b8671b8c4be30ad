"""Compares methods from the folders of their runs: scores with intervals, figures, a web page.

python launch/report.py runs/pen --output_dir=report
python launch/report.py runs/mine/seed* --archive=results/runs --method=mine

A folder is that of a run, or holds such folders. Runs that differ in seeds alone are one method.
"""

import io
import sys

import operands
import path_flags
import program
import usage
from absl import flags

from nppac_tf.errors import UserError

_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Where to write report.html, report.md, report.csv and the figures."
)
_TITLE = flags.DEFINE_string("title", "", "Of the page and the figure.")
_THRESHOLD = flags.DEFINE_float(
    "threshold",
    None,
    "Whose steps are told: of time at goal, 0.6 by default; of return for a task without a goal.",
)
_ARCHIVE = flags.DEFINE_string(
    "archive", None, "Folder to copy each run's tables to, as TASK/METHOD/seedN."
)
_METHOD = flags.DEFINE_string(
    "method", None, "METHOD in the archive; by default the folder that holds the seedN folders."
)
_FOLDERS: list[str] = []


def main() -> None:
    if not _FOLDERS or not all(_FOLDERS):
        raise UserError(
            "one or more folders of runs must be given: python launch/report.py FOLDER ...; got "
            + ("an empty name" if _FOLDERS else "none")
        )
    output = path_flags.require_output_folder("output_dir") if _OUTPUT_DIR.value else None
    target = path_flags.require_output_folder("archive") if _ARCHIVE.value else None
    if target is None:
        usage.reject("method", "without --archive")
    from nppac_tf.comparison import archive as reading
    from nppac_tf.comparison import methods as grouping

    found = reading.read_runs(_FOLDERS)
    methods = grouping.group(found.runs)
    copies = [] if target is None else _copies(methods)
    from nppac_tf.comparison import notes as noting
    from nppac_tf.comparison import scores as comparing
    from nppac_tf.comparison import tables

    comparison = comparing.compare(methods, _THRESHOLD.value)
    notes = noting.notes(comparison, found.not_evaluated)
    title = _TITLE.value or comparison.task
    end = f"{int(comparison.env_steps[-1]):,}"
    print(f"{title}: interquartile means [95 % intervals] at {end} environment steps")
    print(tables.plain(comparison))
    for note in notes:
        print(f"Note: {note}")
    if output is not None:
        _write(output, comparison, title, grouping.differences(methods), notes)
    if target is not None:
        for run, method, seed in copies:
            print(reading.archive(run, target, method, seed))


def _copies(methods):
    """Each run with the names of its folders in the archive."""
    from nppac_tf.comparison import methods as grouping

    if _METHOD.value and len(methods) > 1:
        raise UserError(
            f"--method must name a single method; got runs of {len(methods)}, among them "
            f"{methods[0].name} and {methods[1].name}: archive them one by one"
        )
    copies = []
    for method in methods:
        name = _METHOD.value or grouping.folder_of(method)
        if name is None:
            raise UserError(
                f"--method must name {method.name}, since its runs are in no folders METHOD/seedN"
            )
        seeds = grouping.seed_folders(method)
        copies += [(run, name, seed) for run, seed in zip(method.runs, seeds, strict=True)]
    if len({(method, seed) for _, method, seed in copies}) < len(copies):
        raise UserError(
            "runs of different methods are in folders of one name: archive them one by one, with "
            "--method"
        )
    return copies


def _write(output, comparison, title, differing, notes) -> None:
    from nppac_tf import files
    from nppac_tf.comparison import figures, page, tables

    drawn = {metric: figures.curve(comparison, metric) for metric in comparison.metrics}
    drawn |= {"learning_curves": figures.curves(comparison, _TITLE.value)}
    drawn |= {"scores": figures.scores(comparison), "area": figures.area(comparison)}
    images = {}
    for name, figure in drawn.items():
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=150, metadata={"Software": None})
        images[name] = image.getvalue()
        _write_image(output / f"{name.rpartition('/')[2]}.png", images[name])
    for name, text in (
        ("report.csv", tables.comma_separated(comparison)),
        ("report.md", tables.markdown(comparison, title, differing, notes)),
        ("report.html", page.page(comparison, title, images, differing, notes)),
    ):
        files.write_text(output / name, text)
    print(output / "report.html")


def _write_image(path, content) -> None:
    from nppac_tf import files

    files.replace_file(path, lambda file: file.write(content))


if __name__ == "__main__":
    sys.argv, _FOLDERS[:] = operands.take(sys.argv)
    program.run(main)
