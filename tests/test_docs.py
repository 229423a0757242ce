"""What the documents say can be run, and does."""

import importlib.util
import pathlib
import re
import shutil
import sys

import pytest

import nar
from nar.bench.quote import quote
from nar.bench.report import Report
from nar.testing import check_decoder, random_model

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def skeleton():
    spec = importlib.util.spec_from_file_location("skeleton", ROOT / "docs" / "skeleton.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["skeleton"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.rest
@pytest.mark.parametrize("encoder", [True, False])
def test_the_skeleton_keeps_the_contract(skeleton, encoder):
    check_decoder(skeleton.BigramDecoder(max_length=12), random_model(encoder=encoder))


def test_the_skeleton_is_lossless(skeleton):
    check_decoder(skeleton.BigramDecoder(max_length=12), random_model(), points=(1, 5))


def test_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_readme_names_every_decoder():
    text = (ROOT / "README.md").read_text()
    assert [name for name in nar.DECODERS if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    "path", ["README.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(path):
    file = ROOT / path if (ROOT / path).exists() else ROOT / "docs" / path
    for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
        assert target.startswith("http") or (file.parent / target).exists(), f"{path}: {target}"


@pytest.mark.parametrize(
    "path", ["README.md", "docs/results.md", "docs/ctc.md", "docs/mask_predict.md"]
)
def test_quoted_tables_are_those_of_the_reports(path, tmp_path):
    results = pathlib.Path("experiments", "results")
    shutil.copytree(ROOT / results, tmp_path / results)
    copy = tmp_path / path
    copy.parent.mkdir(exist_ok=True)
    text = (ROOT / path).read_text()
    copy.write_text(text)
    reports = [Report.load(directory) for directory in sorted((tmp_path / results).iterdir())]
    quote(copy, {report.title: report for report in reports})
    assert copy.read_text() == text, "python -m experiments table ... --write writes them"
