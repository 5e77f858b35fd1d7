"""The notebook for newcomers runs from its first cell to its last, and is stored as it ran."""

import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

from nst_ops import decode

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "walkthrough.ipynb"
MOST_BYTES = 1_500_000


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """What a cell shows: `stdout`, or types such as `image/jpeg`."""
    return {
        kind
        for output in cell.outputs
        for kind in ([output.name] if output.output_type == "stream" else output.data)
    }


def test_it_is_stored_as_it_ran(stored):
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    shown = [kind for cell in cells for kind in kinds(cell)]
    assert shown.count("image/jpeg") >= 6
    assert "stderr" not in shown
    assert NOTEBOOK.stat().st_size < MOST_BYTES


def test_it_runs_and_shows_what_is_stored(stored, tmp_path):
    shutil.copytree(EXAMPLES / "images", tmp_path / "examples/images")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=900,  # a cell that hangs; nothing is measured
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path / "examples")}},
    )
    client.execute()  # raises what a cell raises
    fresh = [kinds(cell) for cell in code_cells(notebook)]
    assert fresh == [kinds(cell) for cell in code_cells(stored)]
    (saved,) = (tmp_path / "out").iterdir()
    pixels = decode(saved.read_bytes()).pixels
    assert pixels.shape == (160, 240, 3) and pixels.std() > 0.1
