"""How `nar translate` reads and writes: plain lines, n-best lists as Moses has them, JSON lines."""

import json
from collections.abc import Callable
from typing import Any

from nar.errors import NarError
from nar.lines import one_line
from nar.results import Result

FIELDS = ("text", "prompt")
"""What a JSON object may call its text."""


def from_json(line: str, render: Callable[[Any], str] | None = None) -> str:
    """The text in a line of JSON: a string, or an object that has one as `text` or `prompt`.

    Args:
        line: JSON.
        render: makes a text of what was said; it is also given the `messages` of an object.

    Raises:
        NarError: it is no JSON, or something else.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise NarError(f"this is no JSON: {error}") from error
    if isinstance(found, dict):
        names = (*FIELDS, "messages") if render else FIELDS
        given = [name for name in names if name in found]
        if len(given) != 1:
            raise NarError(f"an object must have one of the fields {', '.join(names)}")
        if given == ["messages"] and render:
            return render(found["messages"])
        found = found[given[0]]
    if not isinstance(found, str):
        raise NarError(f"{json.dumps(found)[:40]} is no text: it must be a string")
    return render(found) if render else found


def as_line(number: int, result: Result) -> str:
    """The text as one line."""
    return f"{one_line(result.text)}\n"


def as_list(number: int, result: Result) -> str:
    """The n-best list, or the text with its score: `number ||| text ||| score`, from 0.

    A blank text has no output that could have a score, and so no line.
    """
    best = [] if result.score is None else [(result.text, result.score)]
    lines = [
        f"{number} ||| {one_line(text)} ||| {score:.6f}\n" for text, score in result.nbest or best
    ]
    return "".join(lines)


def as_json(number: int, result: Result, *, nbest: bool) -> str:
    """An object with the fields of the result."""
    found = {
        "text": result.text,
        "score": result.score,
        "finish_reason": result.finish_reason,
    }
    if nbest:
        found["nbest"] = [{"text": text, "score": score} for text, score in result.nbest]
    return f"{json.dumps(found, ensure_ascii=False)}\n"
