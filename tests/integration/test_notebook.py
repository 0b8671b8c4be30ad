"""docs/quickstart.ipynb: runs from top to bottom, and is committed without outputs."""

import json
import pathlib
import shutil

import pytest

NOTEBOOK = pathlib.Path(__file__).parents[2] / "docs/quickstart.ipynb"


def test_the_notebook_is_committed_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    for cell in code:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        compile("".join(cell["source"]), "cell", "exec")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="`make docs` installs it")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    shutil.copy(NOTEBOOK, tmp_path)
    notebook = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "image/gif"} <= shown
    texts = [each.get("text") or each.get("data", {}).get("text/plain", "") for each in outputs]
    text = "".join(texts)
    assert "2,000 steps  A " in text
    assert (tmp_path / "policy.gif").stat().st_size > 10_000
