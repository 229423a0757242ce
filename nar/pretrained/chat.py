"""A tokenizer's chat template: messages as the text of a prompt, by Jinja as in transformers."""

import dataclasses
import datetime
import functools
import json
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from nar.errors import NarError
from nar.pretrained.special import CONFIG, spelled, tokenizer_config

FILE = "chat_template.jinja"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """How a model was taught to read a conversation.

    Attributes:
        text: the template.
        path: the file that holds it.
        tokens: the special tokens that it may name, such as `bos_token`.
    """

    text: str
    path: pathlib.Path
    tokens: Mapping[str, str]

    def check(self) -> None:
        """Raises a NarError where the template is damaged."""
        _ = self._template

    def render(self, messages: str | Sequence[Mapping[str, Any]]) -> str:
        """The text of a prompt that asks for the next message of the model.

        Args:
            messages: `{"role": "user", "content": "Hello"}` and so on; a text is one of a user.

        Raises:
            NarError: the template is damaged, or takes no such messages.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if not isinstance(messages, Sequence) or not messages:
            raise NarError(f"messages={messages!r}: they must be a list of at least one")
        for number, message in enumerate(messages, 1):
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise NarError(
                    f"message {number} is {message!r}: it must have a role and a content"
                )
        variables = {**self.tokens, "tools": None, "documents": None}
        self.check()
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **variables)
        except Exception as error:  # a template may raise anything
            said = textwrap.shorten(str(error), 200)
            raise NarError(f"the template in {self.path} takes no such messages: {said}") from error

    @functools.cached_property
    def _template(self) -> Any:
        import jinja2

        try:
            return _environment().from_string(self.text)
        except jinja2.TemplateError as error:
            said = textwrap.shorten(str(error), 200)
            raise NarError(f"{self.path}: its chat template is damaged: {said}") from error


def read_chat_template(directory: pathlib.Path, tokens: Mapping[str, str]) -> ChatTemplate | None:
    """The chat template of a model's directory; None where there is none.

    Args:
        directory: of the model.
        tokens: special tokens, where `tokenizer_config.json` says nothing of them.

    Raises:
        NarError: a file is damaged.
    """
    config, path = tokenizer_config(directory), directory / FILE
    try:
        if path.is_file():
            text = path.read_text(encoding="utf-8-sig")
        else:
            path, text = directory / CONFIG, config.get("chat_template")
        if isinstance(text, list):  # of several, one is for talking
            text = {one["name"]: one["template"] for one in text}.get("default")
        named = {name: x for name, x in config.items() if name.endswith("_token")}
        known = {name: spelled(x) for name, x in named.items() if isinstance(x, str | dict)}
    except (TypeError, KeyError, UnicodeDecodeError) as error:
        raise NarError(f"{path}: its chat template is damaged: {error!r}") from error
    if not isinstance(text, str):
        return None
    tokens = {name: token for name, token in tokens.items() if name not in named}
    return ChatTemplate(text=text, path=path, tokens={**tokens, **known})


@functools.cache
def _environment() -> Any:
    """Templates are other people's programs: they run in a sandbox, with what transformers has."""
    import jinja2
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Around what the model said: a mark for training, without an effect here."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def as_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    found.filters["tojson"] = as_json
    found.globals["raise_exception"] = refuse
    found.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return found
