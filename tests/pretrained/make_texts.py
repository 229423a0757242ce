"""Writes `golden/texts.json` with transformers: what its tokenizers make of texts and of messages.

pip install transformers sentencepiece jinja2
python -m tests.pretrained.make_texts
"""

import base64
import io
import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import sentencepiece
import tokenizers
import transformers

from tests.pretrained.tiny import GOLDEN, write_files

LEARNED = [
    "a cute dog walks in the green park", "the dog sleeps", "Hello world", "ein Hund schläft",
    "<extra_id_0> 1 2 3 4 5 6 7 8 9 | x y z B f r u", "user system assistant [INST] SYS",
]  # fmt: skip
T5_TEXTS = [
    "a cute <extra_id_0> walks in <extra_id_1> park", "a<extra_id_0>dog", "the dog</s> walks",
    "<extra_id_99>the", "</s>", "  the  dog  <extra_id_3>  walks  ", "a <extra_id_100> dog",
    "the <unk> dog", "<pad> a", "",
]  # fmt: skip
LLAMA_TEXTS = [
    "Hello </s> world", "Hello</s>world", "<s>Hello", "<s> Hello", "the <unk> dog",
    "a<|x|>b <|x|> c", "the dog\n\nsleeps <|y|> the", "</s>", "", "dog<|x|><|y|>dog x<|x|",
    "a cat, cats concat cat",
]  # fmt: skip
MARIAN_TEXTS = [
    "the dog", ">>fra<< the dog", ">>fra<<the dog", ">>fra<<  the", ">>xyz<< the dog",
    " >>fra<< the", "the >>fra<< dog", ">>fra<<", "the </s> dog", "the</s>>>deu<<dog",
    "<pad> the <unk>", ">>fra", "",
]  # fmt: skip
FLAGS = {"lstrip": True, "rstrip": True, "special": True}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = """\
{%- for message in messages %}
    {%- if message.role not in ('user', 'assistant') %}
        {{- raise_exception('only user and assistant speak, not ' ~ message.role) }}
    {%- elif message.role == 'user' %}
        {{- bos_token + '[INST] ' + message.content.strip() + ' [/INST]' }}
    {%- else %}
        {%- generation %}{{ ' ' + message.content + eos_token }}{% endgeneration %}
        {%- continue %}
    {%- endif %}
{%- endfor %}
"""
CHATS = [
    [{"role": "user", "content": "Hello\nworld"}],
    [
        {"role": "user", "content": " the dog "},
        {"role": "assistant", "content": "sleeps"},
        {"role": "user", "content": "a <|im_end|> </s> walks"},
    ],
]


def learn(**options: Any) -> bytes:
    """A SentencePiece model."""
    model = io.BytesIO()
    common = {"normalization_rule_name": "identity", "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LEARNED), model_writer=model, **common, **options
    )
    return model.getvalue()


def byte_level() -> str:
    """A `tokenizer.json` as Qwen's: pieces of bytes, and special tokens for chats."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LEARNED, trainer)
    return tokenizer.to_str()


MODELS = {
    "t5": learn(vocab_size=70, pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
    "marian": learn(vocab_size=70),
    "llama": learn(
        vocab_size=330, model_type="bpe", byte_fallback=True, remove_extra_whitespaces=False
    ),
}


def pieces(name: str) -> list[str]:
    """Of one of the SentencePiece models."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=MODELS[name])
    return processor.id_to_piece(list(range(processor.vocab_size())))


def cases() -> dict[str, dict[str, Any]]:
    """By name: the kind of model, its files, texts to encode and messages."""
    names = ["</s>", "<unk>", ">>fra<<", ">>deu<<", *pieces("marian")[3:], "<pad>"]
    numbers = {name: i for i, name in enumerate(names)}
    marian = {"source.spm": "marian", "target.spm": "marian", "vocab.json": numbers}
    x, y = {"content": "<|x|>", "special": True}, {"content": "<|y|>", **FLAGS, "special": False}
    count = len(pieces("llama"))
    cat = {"content": "cat", "single_word": True}
    decoder = {str(count + i): token for i, token in enumerate((x, y, cat))}
    last = len(pieces("t5"))
    gaps = {str(last + i): {"content": f"<extra_id_{1 - i}>", **FLAGS} for i in (0, 1)}
    saved = {"extra_ids": 2, "added_tokens_decoder": gaps}
    saved["additional_special_tokens"] = ["<extra_id_0>", "<extra_id_1>"]
    named = {"additional_special_tokens": ["<|x|>"], "pad_token": "[PAD]"}
    class_ = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    ends = {"bos_token": "<s>", "eos_token": "</s>"}

    def of_llama(config: Mapping[str, Any], **files: Any) -> dict[str, Any]:
        files = {"tokenizer.model": "llama", "tokenizer_config.json": config, **files}
        return {"kind": "llama", "files": files, "texts": LLAMA_TEXTS}

    listed = {"added_tokens.json": {"<|x|>": count, "<|y|>": count + 1}}
    few, french = {"extra_ids": 4}, {"additional_special_tokens": [">>fra<<"]}
    fast = transformers.T5Tokenizer.from_pretrained
    found = {
        "t5": {"kind": "t5", "files": {"spiece.model": "t5"}, "texts": T5_TEXTS},
        "t5_few": {
            "kind": "t5", "files": {"spiece.model": "t5", "tokenizer_config.json": few},
            "texts": T5_TEXTS,
        },
        "t5_saved": {
            "kind": "t5", "files": {"spiece.model": "t5", "tokenizer_config.json": saved},
            "texts": T5_TEXTS,
        },
        "llama": of_llama(class_),
        "llama_decoder": of_llama({**class_, "added_tokens_decoder": decoder}),
        "llama_named": of_llama({**class_, **named}),
        "llama_listed": of_llama({"add_bos_token": True}, **listed),
        "llama_no_bos": of_llama({**class_, "add_bos_token": False}),
        "llama_chat": {
            **of_llama({**class_, **ends}, **{"chat_template.jinja": INST}), "chats": CHATS
        },
        "marian": {"kind": "marian", "files": marian, "texts": MARIAN_TEXTS},
        "marian_named": {
            "kind": "marian", "texts": MARIAN_TEXTS,
            "files": {**marian, "tokenizer_config.json": french},
        },
        "qwen_chat": {
            "kind": "qwen2", "texts": ["a\n\nb <|im_end|>", "<|im_start|>a"], "chats": CHATS,
            "files": {
                "tokenizer.json": byte_level(),
                "tokenizer_config.json": {
                    "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>",
                    "pad_token": "<|endoftext|>", "chat_template": CHATML,
                },
            },
        },
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_files(pathlib.Path(folder), found["t5"]["files"], MODELS)
        tokenizer = fast(folder).backend_tokenizer.to_str()
    found["t5_fast"] = {"kind": "t5", "files": {"tokenizer.json": tokenizer}, "texts": T5_TEXTS}
    return found


def main() -> None:
    """Writes the file."""
    found = cases()
    for name, case in found.items():
        with tempfile.TemporaryDirectory() as folder:
            directory = pathlib.Path(folder)
            write_files(directory, case["files"], MODELS)
            config = {"model_type": case["kind"], "vocab_size": 400}
            (directory / "config.json").write_text(json.dumps(config))
            tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
            case["embeddings"] = len(tokenizer)
            case["ids"] = tokenizer(case["texts"])["input_ids"]
            case["outputs"] = tokenizer(text_target=case["texts"])["input_ids"]
            rows, skip = case["ids"], case["kind"] != "t5"
            if not skip:  # sentinels are seen, the other special tokens are not
                ends = {tokenizer.pad_token_id, tokenizer.eos_token_id}
                rows = [[token for token in row if token not in ends] for row in rows]
            case["decoded"] = [tokenizer.decode(row, skip_special_tokens=skip) for row in rows]
            case["rendered"], case["chat_ids"] = [], []
            for chat in case.get("chats", ()):
                options = {"add_generation_prompt": True}
                case["rendered"].append(
                    tokenizer.apply_chat_template(chat, tokenize=False, **options)
                )
                case["chat_ids"].append(
                    tokenizer.apply_chat_template(chat, return_dict=False, **options)
                )
        print(name, type(tokenizer).__name__, len(tokenizer), case["ids"][:2], case["decoded"][:2])
    models = {name: base64.b64encode(model).decode() for name, model in MODELS.items()}
    golden = json.dumps({"models": models, "cases": found}, ensure_ascii=False)
    (GOLDEN / "texts.json").write_text(f"{golden}\n")


if __name__ == "__main__":
    main()
