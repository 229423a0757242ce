"""Every decoder that promises greedy's output, or a sample, keeps it on imported models."""

import pytest

from tests.cases import CASES, check, each

PROMISING = [name for name, case in CASES.items() if case.lossless != "no"]


@pytest.mark.parametrize("layout", ["marian", "t5", "llama"])
@pytest.mark.parametrize("name", each(PROMISING))
def test_imported_models(name, layout, imported, warp):
    case = CASES[name]
    exact = {"warp": warp(case.temperature, case.top_k, case.top_p)} if name == "sample" else {}
    check(name, imported(layout), points=(1,), **exact)
