import json

import pytest

from nar.errors import NarError
from nar.formats import as_json, as_line, as_list, from_json
from nar.lines import Lines
from nar.results import EMPTY, Result

BEST = (("a\nb", -0.5), ("c", -1.25))
RESULT = Result(text="a\nb", score=-0.5, nbest=BEST, finish_reason="length")


def shout(messages):
    return messages.upper() if isinstance(messages, str) else repr(messages)


# ---------------------------------------------------------------------------------------- reading
@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('"a\\nb"', "a\nb"),
        ('{"text": "a", "id": 3}', "a"),
        (' {"prompt": "\\u2028"} ', "\u2028"),
        ('""', ""),
    ],
)
def test_a_text_in_json(line, text):
    assert from_json(line) == text
    assert from_json(line, shout) == text.upper()


def test_messages_are_for_chats():
    line = '{"messages": [{"role": "user"}]}'
    assert from_json(line, shout) == "[{'role': 'user'}]"
    with pytest.raises(NarError, match="must have one of the fields text, prompt$"):
        from_json(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a", "line 2: this is no JSON"),
        ("[" * 100_000, "line 2: this is no JSON"),
        ("{}", "line 2: an object must have one of the fields text, prompt$"),
        ('{"text": "a", "prompt": "b"}', "line 2: an object must have one of the fields"),
        ("3", "line 2: 3 is no text: it must be a string"),
        ('{"text": ["a"]}', r'line 2: \["a"\] is no text: it must be a string'),
        ('"\\ud800"', "line 2 holds half of a character"),
    ],
)
def test_lines_that_hold_no_text_are_named(line, message):
    lines = Lines([b" \n", f"{line}\n".encode()], from_json)
    assert (len(lines), lines[0]) == (2, "")
    with pytest.raises(NarError, match=f"^{message}") as error:
        lines[1]
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------- writing
def test_a_result_as_lines():
    assert as_line(3, RESULT) == "a b\n"
    assert as_list(3, RESULT) == "3 ||| a b ||| -0.500000\n3 ||| c ||| -1.250000\n"
    assert as_list(0, Result(text="a", score=-2.0)) == "0 ||| a ||| -2.000000\n"
    assert as_list(0, EMPTY) == ""
    assert json.loads(as_json(0, EMPTY, nbest=False)) == {
        "text": "",
        "score": None,
        "finish_reason": "stop",
    }
    assert json.loads(as_json(3, RESULT, nbest=True)) == {
        "text": "a\nb",
        "score": -0.5,
        "finish_reason": "length",
        "nbest": [{"text": "a\nb", "score": -0.5}, {"text": "c", "score": -1.25}],
    }
    assert as_json(0, Result(text="ä\u2028"), nbest=False).count("\n") == 1


@pytest.mark.parametrize("result", [RESULT, EMPTY, Result(text="ä", score=-1.0)])
def test_a_record_is_the_result(result):
    assert Result.of_record(json.loads(json.dumps(result.record()))) == result
    assert Result(text="a").record() == "a"
