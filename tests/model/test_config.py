"""The config: values that make no model are refused by name, with what would be valid."""

import dataclasses
import json

import pytest

from nar import NarError, TransformerConfig


def test_a_config_is_data():
    settings = {"banned": (4, 5), "windows": (2, None, 3)}
    config = TransformerConfig(vocab_size=50, kv_heads=2, dtype="bfloat16", **settings)
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    assert TransformerConfig(**stored) == config
    assert hash(TransformerConfig(**stored)) == hash(config)
    assert dataclasses.replace(config, d_ff=7) != config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.d_ff = 7


def test_widths_groups_and_the_last_norm_follow_from_the_others():
    config = TransformerConfig(vocab_size=50, d_model=48, heads=6)
    assert (config.dim, config.groups, config.norm_at_end) == (8, 6, True)
    config = dataclasses.replace(config, head_dim=5, kv_heads=3, norm_position="post")
    assert (config.dim, config.groups, config.norm_at_end) == (5, 3, False)
    for final in (True, False):
        for position in ("pre", "post"):
            forced = dataclasses.replace(config, norm_position=position, final_norm=final)
            assert forced.norm_at_end is final


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"vocab_size": 0}, ["vocab_size=0", "at least 1"]),
        ({"d_model": -4}, ["d_model=-4", "at least 1"]),
        ({"d_ff": 1.5}, ["d_ff=1.5", "whole number", "at least 1"]),
        ({"heads": True}, ["heads=True", "whole number"]),
        ({"heads": "8"}, ["heads='8'", "whole number"]),
        ({"encoder_layers": -1}, ["encoder_layers=-1", "at least 0"]),
        ({"decoder_layers": 0}, ["decoder_layers=0", "at least 1"]),
        ({"max_positions": 0}, ["max_positions=0", "at least 1"]),
        ({"kv_heads": 0}, ["kv_heads=0", "at least 1"]),
        ({"head_dim": 0}, ["head_dim=0", "at least 1"]),
        ({"kv_heads": 3}, ["kv_heads=3", "heads=8", "multiple"]),
        ({"d_model": 20}, ["d_model=20", "heads=8", "multiple", "head_dim"]),
        ({"positions": "rotary", "head_dim": 3}, ["rotary", "even", "3"]),
        ({"positions": "absolute"}, ["positions='absolute'", "sinusoidal", "learned", "none"]),
        ({"norm": "batch"}, ["norm='batch'", "layer", "rms"]),
        ({"norm_position": "both"}, ["norm_position='both'", "pre", "post"]),
        ({"activation": "tanh"}, ["activation='tanh'", "relu", "gelu_tanh", "swish"]),
        ({"embeddings": "none"}, ["embeddings='none'", "shared", "tied", "separate"]),
        ({"dtype": "float16"}, ["dtype='float16'", "float32", "bfloat16"]),
        ({"norm_eps": 0.0}, ["norm_eps=0.0", "above 0"]),
        ({"rope_theta": -1.0}, ["rope_theta=-1.0", "above 0"]),
        ({"relative_buckets": 3}, ["relative_buckets=3", "at least 4"]),
        ({"relative_max_distance": 16}, ["relative_max_distance=16", "at least 17"]),
        ({"dropout": 1.0}, ["dropout=1.0", "[0, 1)"]),
        ({"dropout": -0.1}, ["dropout=-0.1", "[0, 1)"]),
        ({"dropout": float("nan")}, ["dropout=nan", "[0, 1)"]),
        ({"source_vocab_size": 9}, ["source_vocab_size", "tied", "separate", "shared"]),
        ({"source_vocab_size": 9, "embeddings": "inputs"}, ["source_vocab_size", "inputs"]),
        ({"source_vocab_size": 0, "embeddings": "tied"}, ["source_vocab_size=0", "at least 1"]),
        ({"eos": 50}, ["eos=50", "0..49"]),
        ({"pad": -1}, ["pad=-1", "0..49"]),
        ({"bos": 99}, ["bos=99", "0..49"]),
        ({"mask": 50}, ["mask=50", "0..49"]),
        ({"blank": -1}, ["blank=-1", "0..49"]),
        ({"mask": 4, "blank": 4}, ["blank=4 is mask too"]),
        ({"pad": 0, "blank": 0}, ["blank=0 is pad too"]),
        ({"eos": 3, "also_eos": (3, 7)}, ["also_eos=(3, 7) holds eos=3"]),
        ({"upsample": -1}, ["upsample=-1", "at least 0"]),
        ({"length_classes": 2.5}, ["length_classes=2.5", "whole number"]),
        ({"upsample": 2}, ["upsample=2", "bidirectional=True"]),
        ({"length_classes": 9, "mask": 4}, ["length_classes=9", "bidirectional=True"]),
        ({"bidirectional": True}, ["bidirectional=True", "mask token", "mask=None"]),
        ({"bidirectional": True, "mask": 4, "encoder_layers": 0}, ["encoder", "encoder_layers=0"]),
        ({"bidirectional": True, "mask": 4, "eos": -1}, ["end of outputs", "eos=-1"]),
        ({"eos": -2}, ["eos=-2", "0..49"]),
        ({"windows": (4,)}, ["windows=(4,)", "decoder_layers=3"]),
        ({"windows": (4, None, 0)}, ["windows=0", "at least 1"]),
        ({"windows": (4, None, 4), "bidirectional": True, "mask": 4}, ["windows", "causal"]),
        ({"rope_magnitude": 0.0}, ["rope_magnitude=0.0", "above 0"]),
        ({"also_eos": (7, 50)}, ["also_eos=50", "0..49"]),
        ({"banned": [-1]}, ["banned=-1", "0..49"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_value_is_named_with_the_valid_ones(settings, words):
    with pytest.raises(NarError) as error:
        TransformerConfig(**{"vocab_size": 50, **settings})
    for word in words:
        assert word in str(error.value)
    assert isinstance(error.value, ValueError)
