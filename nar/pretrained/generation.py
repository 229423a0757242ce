"""What `generate` of transformers adds to the model: special tokens, and rules for what it writes.

Rules that look at single tokens become part of the model. Others depend on what was written before,
so they would have to be part of every decoder: a warning names them.
"""

import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from nar.files import read_json

FILE = "generation_config.json"
SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
NEUTRAL = {
    "begin_suppress_tokens": [],
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "guidance_scale": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1,
    "sequence_bias": None,
}
"""Rules that look at what was written, and the values with which they do nothing."""


def with_generation(
    directory: pathlib.Path, config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The special tokens, and the rules, as `generate` finds them.

    Args:
        directory: of the model; where it holds no `generation_config.json`, `config.json` rules.
        config: the fields of `config.json`.

    Returns:
        The config without its nulls, with one `eos_token_id` or none, and without special tokens
        that its table has not; and the fields `also_eos` and `banned` of a `TransformerConfig`.
    """
    path = directory / FILE
    rules = read_json(path) if path.is_file() else config
    size = config.get("decoder_vocab_size") or config["vocab_size"]
    special = {name: rules[name] for name in SPECIAL if rules.get(name) is not None}
    found = {name: x for name, x in {**config, **special}.items() if x is not None}
    for name in ("pad_token_id", "bos_token_id"):
        if not 0 <= found.get(name, 0) < size:
            del found[name]  # -1: there is none
    found.pop("eos_token_id", None)
    ends = special.get("eos_token_id", ())
    ends = ends if isinstance(ends, list | tuple) else (ends,)
    ends = tuple(end for end in dict.fromkeys(ends) if 0 <= end < size)
    if ends:
        found["eos_token_id"] = ends[0]
    words = [tuple(word) for word in rules.get("bad_words_ids") or ()]
    banned = [word[0] for word in words if len(word) == 1 and word[0] not in ends]
    banned += [token for token in rules.get("suppress_tokens") or () if 0 <= token < size]
    active = {name: rules[name] for name in NEUTRAL if rules.get(name) not in (None, NEUTRAL[name])}
    if phrases := [word for word in words if len(word) > 1]:
        active["bad_words_ids"] = phrases
    if active:
        named = ", ".join(f"{name}={value}" for name, value in active.items())
        warnings.warn(
            f"{path.parent} asks for {named}: decoders do without, so generate() may write "
            "something else",
            stacklevel=4,
        )
    return found, {"also_eos": ends[1:], "banned": tuple(dict.fromkeys(banned))}
