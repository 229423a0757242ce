"""Every notebook runs from top to bottom, and is kept without what it printed."""

import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
FIRST_STEPS = [path for path in NOTEBOOKS if path.stem == "first_steps"]

QUICK = {"STEPS": 20}
"""Values for cells tagged "parameters": enough to run, not enough to learn."""


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def quick(source):
    for name, value in QUICK.items():
        source, found = re.subn(rf"^{name} = \d+", f"{name} = {value}", source, flags=re.MULTILINE)
        assert found == 1, f"{name} is not set in {source!r}"
    return source


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem, scope="module")
def path(request):
    return request.param


@pytest.fixture(scope="module")
def executed(path, tmp_path_factory):
    """The notebook with its outputs, run by a kernel that starts in an empty directory."""
    notebook = nbformat.read(path, as_version=4)
    for cell in code(notebook):
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = quick(cell.source)
    directory = str(tmp_path_factory.mktemp(path.stem))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("TMPDIR", directory)
        where = {"metadata": {"path": directory}}
        return NotebookClient(notebook, timeout=600, resources=where).execute()


def test_there_are_notebooks():
    assert FIRST_STEPS


def test_it_is_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.id for cell in code(notebook) if cell.outputs or cell.execution_count] == []


def test_its_links_lead_somewhere(path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
            assert target.startswith("http") or (path.parent / target).exists(), target


@pytest.mark.rest
def test_it_runs_to_its_end_without_a_warning(executed):
    cells = code(executed)
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    said = [str(output) for cell in cells for output in cell.outputs]
    assert [text for text in said if "Warning: " in text] == []


@pytest.mark.rest
@pytest.mark.parametrize("path", FIRST_STEPS, indirect=True)
def test_the_first_steps_show_and_answer(executed):
    outputs = {cell.id: cell.outputs for cell in code(executed)}
    shown = {
        cell: [kind for output in found for kind in output.get("data", {})]
        for cell, found in outputs.items()
    }
    assert "image/svg+xml" in shown["step-costs"]
    assert "image/svg+xml" in shown["speedups"]
    assert "image/png" in shown["inside"]
    data = [output.get("data", {}) for output in outputs["bench"]]
    (table,) = (found["text/markdown"] for found in data if "text/markdown" in found)
    decoders = re.findall(r"^\| `(.+?)`", table, re.MULTILINE)
    assert decoders == ["greedy", "jacobi:block=5", "jacobi"]
    answers = outputs["answer"][0].text.splitlines()
    assert [answer.split(": ")[0] for answer in answers] == decoders[1:]
    assert all(re.search(r"(paid|not pay|close to call)\.$", answer) for answer in answers)
