"""Every decoder, by name, for the command line, the benchmark and the contract."""

import dataclasses
from typing import Any

from nar.core import Decoder
from nar.decoders.beam import Beam
from nar.decoders.canvas import Canvas
from nar.decoders.corpus_lookup import CorpusLookup
from nar.decoders.ctc import CTC
from nar.decoders.ctc_beam import CTCBeam
from nar.decoders.draft_verify import DraftVerify
from nar.decoders.gauss_seidel_jacobi import GaussSeidelJacobi
from nar.decoders.greedy import Greedy
from nar.decoders.hybrid_jacobi import HybridJacobi
from nar.decoders.jacobi import Jacobi
from nar.decoders.lookahead import Lookahead
from nar.decoders.mask_predict import MaskPredict
from nar.decoders.noisy_parallel import NoisyParallel
from nar.decoders.parallel_draft import ParallelDraft
from nar.decoders.prompt_lookup import PromptLookup
from nar.decoders.quota_unmasking import QuotaUnmasking
from nar.decoders.sample import Sample
from nar.decoders.self_speculative import SelfSpeculative
from nar.decoders.speculative_decoding import SpeculativeDecoding
from nar.decoders.threshold_unmasking import ThresholdUnmasking
from nar.decoders.unmasking import Unmasking
from nar.errors import NarError, nearest

__all__ = [
    "CTC",
    "DECODERS",
    "Beam",
    "CTCBeam",
    "Canvas",
    "CorpusLookup",
    "DraftVerify",
    "GaussSeidelJacobi",
    "Greedy",
    "HybridJacobi",
    "Jacobi",
    "Lookahead",
    "MaskPredict",
    "NoisyParallel",
    "ParallelDraft",
    "PromptLookup",
    "QuotaUnmasking",
    "Sample",
    "SelfSpeculative",
    "SpeculativeDecoding",
    "ThresholdUnmasking",
    "Unmasking",
    "make",
    "register",
]

DECODERS: dict[str, type[Decoder]] = {}
"""Registered decoders by name."""


def register(name: str, decoder: type[Decoder]) -> type[Decoder]:
    """Makes a decoder known under `name`; yours too.

    Raises:
        NarError: the name is taken by another class.
    """
    if DECODERS.setdefault(name, decoder) is not decoder:
        raise NarError(f"the decoder {name!r} is already {DECODERS[name].__qualname__}")
    return decoder


register("greedy", Greedy)
register("beam", Beam)
register("sample", Sample)
register("jacobi", Jacobi)
register("gauss-seidel-jacobi", GaussSeidelJacobi)
register("hybrid-jacobi", HybridJacobi)
register("lookahead", Lookahead)
register("prompt-lookup", PromptLookup)
register("corpus-lookup", CorpusLookup)
register("speculative", SpeculativeDecoding)
register("self-speculative", SelfSpeculative)
register("ctc", CTC)
register("ctc-beam", CTCBeam)
register("mask-predict", MaskPredict)
register("threshold-unmasking", ThresholdUnmasking)
register("quota-unmasking", QuotaUnmasking)
register("noisy-parallel", NoisyParallel)
register("parallel-draft", ParallelDraft)


def make(description: str, **defaults: Any) -> Decoder:
    """A decoder from text: `"jacobi"`, or with options `"jacobi:block=5,guess=source"`.

    An option that is a decoder stands in brackets: `"parallel-draft:base=(mask-predict:calls=4)"`.

    Args:
        description: a registered name, and options as `name=value` with commas between.
        **defaults: options used where the description does not set them.

    Raises:
        NarError: an unknown decoder or option (the valid ones are named, nearest first), or a
            value that the option does not take.
    """
    name, _, options = description.partition(":")
    name = name.strip()
    if name not in DECODERS:
        raise NarError(f"there is no decoder {name!r}; there are {nearest(name, DECODERS)}")
    cls, values = DECODERS[name], dict(defaults)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for option in split_options(options):
        key, equals, value = (part.strip() for part in option.partition("="))
        if not equals or key not in fields:
            raise NarError(
                f"{name} has no option {key!r}; it has {nearest(key, fields)}"
                if equals
                else f"{option!r} is no option: write name=value; {name} has {', '.join(fields)}"
            )
        values[key] = parse(value)
    return cls(**values)


def split_options(text: str) -> list[str]:
    """What stands between the commas that are in no brackets."""
    found, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [option for option in found if option.strip()]


def parse(value: str) -> bool | int | float | str | Decoder | None:
    """The value that a word on the command line stands for."""
    words = {"true": True, "false": False, "none": None}
    if value.startswith("(") and value.endswith(")"):
        return make(value[1:-1])
    if value.lower() in words:
        return words[value.lower()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
