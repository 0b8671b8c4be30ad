"""Compares methods from the folders of their runs: scores with intervals, figures, a web page.

python launch/report.py runs/pen --output_dir=report
python launch/report.py runs/mine/seed* --archive=results/runs --method=mine

A folder is a run, or contains runs at any depth. Runs that differ only in their seeds are one
method.
"""

import functools
import io
import pathlib
from collections.abc import Sequence
from typing import Any, BinaryIO

from common import checks, program
from absl import flags

from nppac_tf.errors import UserError

_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Folder for report.html, report.md, report.csv and the figures."
)
_TITLE = flags.DEFINE_string("title", "", "Title of the page and the figure.")
_THRESHOLD = flags.DEFINE_float(
    "threshold",
    None,
    "Score to report the first environment step for: time at goal (default: 0.6 on tasks of the "
    "hand, else none), or the return for a task without a goal.",
)
_ARCHIVE = flags.DEFINE_string(
    "archive", None, "Folder to copy the tables of each run to, as TASK/METHOD/seedN."
)
_METHOD = flags.DEFINE_string(
    "method", None, "METHOD in the archive (default: the folder that contains the seedN folders)."
)


def main(folders: list[str]) -> None:
    if not folders or not all(folders):
        raise UserError(
            "one or more folders of runs must be given: python launch/report.py FOLDER ...; got "
            + ("an empty name" if folders else "none")
        )
    output = checks.output_folder("output_dir") if _OUTPUT_DIR.value else None
    target = checks.output_folder("archive") if _ARCHIVE.value else None
    if target is None:
        checks.reject("method", "without --archive")
    from nppac_tf.comparison import archive, notes, scores, tables
    from nppac_tf.comparison import methods as grouping

    found = archive.read_runs(folders)
    methods = grouping.group(found.runs)
    copies = [] if target is None else _copies(methods)
    comparison = scores.compare(methods, _THRESHOLD.value)
    lines = notes.notes(comparison, found.not_evaluated)
    title = _TITLE.value or comparison.task
    end = f"{int(comparison.env_steps[-1]):,}"
    print(f"{title}: interquartile means [95 % intervals] at {end} environment steps")
    print(tables.plain(comparison))
    for line in lines:
        print(f"Note: {line}")
    if output is not None:
        _write(output, comparison, title, grouping.differences(methods), lines)
    if target is not None:
        for run, method, seed in copies:
            print(archive.archive(run, target, method, seed))


def _copies(methods: Sequence[Any]) -> list[tuple[Any, str, str]]:
    """Returns each run with the names of its folders in the archive: method and seed."""
    from nppac_tf.comparison import methods as grouping

    if _METHOD.value and len(methods) > 1:
        raise UserError(
            f"--method must name a single method; got runs of {len(methods)}, such as "
            f"{methods[0].name} and {methods[1].name}: archive them one at a time"
        )
    copies = []
    for method in methods:
        name = _METHOD.value or grouping.folder_of(method)
        if name is None:
            raise UserError(
                f"--method must name {method.name}, since its runs are not in METHOD/seedN folders"
            )
        seeds = grouping.seed_folders(method)
        copies += [(run, name, seed) for run, seed in zip(method.runs, seeds, strict=True)]
    if len({(method, seed) for _, method, seed in copies}) < len(copies):
        raise UserError(
            "runs of different methods have the same folder name: archive them one at a time, "
            "with --method"
        )
    return copies


def _write(
    output: pathlib.Path, comparison: Any, title: str, differing: Any, notes: Sequence[str]
) -> None:
    from nppac_tf import files
    from nppac_tf.comparison import figures, page, tables

    drawn = {metric: figures.curve(comparison, metric) for metric in comparison.drawn}
    drawn |= {"learning_curves": figures.curves(comparison, _TITLE.value)}
    drawn |= {"scores": figures.scores(comparison), "area": figures.area(comparison)}
    images = {name: _png(figure) for name, figure in drawn.items()}
    for name, image in images.items():
        path = output / f"{name.rpartition('/')[2]}.png"
        files.replace_file(path, functools.partial(_write_bytes, image))
    # The page has one legend for all figures.
    bare = {name: figures.curve(comparison, name, legend=False) for name in comparison.drawn}
    shown = images | {name: _png(figure) for name, figure in bare.items()}
    for name, text in (
        ("report.csv", tables.comma_separated(comparison)),
        ("report.md", tables.markdown(comparison, title, differing, notes)),
        ("report.html", page.page(comparison, title, shown, differing, notes)),
    ):
        files.write_text(output / name, text)
    print(output / "report.html")


def _png(figure: Any) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150, metadata={"Software": None})
    return image.getvalue()


def _write_bytes(content: bytes, file: BinaryIO) -> None:
    file.write(content)


if __name__ == "__main__":
    program.run(main, takes_arguments=True)
