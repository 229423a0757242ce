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


@pytest.mark.parametrize(
    ("name", "layout"), [("lookahead", "mistral_window"), ("self-speculative", "qwen3_window")]
)
def test_drafts_that_are_longer_than_a_window(name, layout, imported):
    """Of drafts that are no chains: positions, and not places, tell what a window holds."""
    model = imported(layout)
    assert min(filter(None, model.config.windows)) < CASES[name].max_length
    check(name, model, points=(1,))


def test_outputs_that_nothing_ends(imported):
    check("jacobi", imported("llama_endless"), points=(5,))
