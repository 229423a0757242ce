"""Chat templates, as `apply_chat_template` of transformers fills them (`make_texts.py`)."""

import json

import pytest

import nar
from nar.errors import NarError
from nar.pretrained.chat import read_chat_template
from tests.pretrained import tiny
from tests.pretrained.test_vocabulary import CASES, vocabulary_of

CHATS = [name for name, case in CASES.items() if case["rendered"]]
SPECIAL = {"bos_token": "<s>", "eos_token": "<e>"}


@pytest.mark.parametrize("name", CHATS)
def test_prompts_are_those_of_transformers(tmp_path, name):
    case, vocabulary = CASES[name], vocabulary_of(tmp_path, name)
    template = read_chat_template(tmp_path, {})
    assert [template.render(chat) for chat in case["chats"]] == case["rendered"]
    assert vocabulary.encode_whole(case["rendered"]) == case["chat_ids"]
    (message,), rendered = case["chats"][0], case["rendered"][0]
    assert template.render(message["content"]) == rendered


def written(directory, template, **config):
    config = {"chat_template": template, **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return read_chat_template(directory, SPECIAL)


def test_where_templates_are(tmp_path):
    named = [
        {"name": "tool_use", "template": "x"},
        {"name": "default", "template": "{{ bos_token }}y"},
    ]
    assert read_chat_template(tmp_path, SPECIAL) is None
    assert written(tmp_path, None) is None
    assert written(tmp_path, named[:1]) is None
    assert written(tmp_path, named).render("a") == "<s>y"
    assert written(tmp_path, "{{ bos_token }}", bos_token=None).render("a") == ""
    tokens = {"bos_token": {"content": "<b>"}}
    assert written(tmp_path, "{{ bos_token + eos_token }}", **tokens).render("a") == "<b><e>"
    (tmp_path / "chat_template.jinja").write_text("\ufeff{{ messages | tojson }}")
    assert written(tmp_path, "x").render("ä<") == '[{"role": "user", "content": "ä<"}]'


@pytest.mark.parametrize(
    ("template", "messages", "message"),
    [
        ("{% if %}", "a", "tokenizer_config.json: its chat template is damaged: Expected an"),
        ("{{ raise_exception('no\n' + 'way') }}", "a", "takes no such messages: no way$"),
        ("{{ messages[0].content + 1 }}", "a", "takes no such messages: can only concatenate"),
        ("{{ ''.__class__ }}{{ messages.append(1) }}", "a", "takes no such messages"),
        ("x", [], r"messages=\[\]: they must be a list of at least one"),
        ("x", {"role": "user"}, "they must be a list of at least one"),
        ("x", [{"role": "user"}], "message 1 is .* it must have a role and a content"),
        ("x", [{"role": "user", "content": "a"}, "b"], "message 2 is 'b': it must have"),
    ],
)
def test_what_a_template_cannot_take_is_one_line(tmp_path, template, messages, message):
    with pytest.raises(NarError, match=message) as error:
        written(tmp_path, template).render(messages)
    assert "\n" not in str(error.value)


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(NarError, match="its chat template is damaged: KeyError"):
        written(tmp_path, [{"name": "default"}])
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(NarError, match=r"chat_template.jinja: its chat template is damaged"):
        read_chat_template(tmp_path, {})


def test_a_model_that_talks(tmp_path):
    for name in ("llama", "marian"):
        tiny.write(tmp_path, name)
        translator = nar.load(tmp_path)
        refusal = "has no chat template" if name == "llama" else "a model with an encoder"
        with pytest.raises(NarError, match=refusal):
            _ = translator.chat
    tiny.write(tmp_path, "llama")
    words = ["<pad>", "<s>", "</s>", "the", "dog"]
    tiny.fast_vocabulary(tmp_path, words)
    config = {"chat_template": "{{ bos_token + messages[0].content }} dog"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    translator = nar.load(tmp_path)
    prompt = translator.chat.render("the\nthe")
    assert prompt == "<s>the\nthe dog"
    assert translator.verbatim.encode([prompt]) == [[1, 3, 3, 4]]
    assert translator.encode([prompt]) == [[1, 1, 3, 3, 4]]
