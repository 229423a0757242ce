import io
import json
import re
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nar.lines
from nar import Greedy
from nar.errors import NarError
from nar.lines import Journal, Lines, digest, translations
from nar.results import EMPTY, Result

SETTINGS = {"weights": "abc", "decoder": "Greedy(max_length=9)", "seed": 0}
GREEDY = Greedy(max_length=9)
TEXTS = [" ".join("abcdefgh"[: 1 + i * 5 % 8]) if i % 7 else "  " for i in range(40)]


class Shouting:
    """Translates by shouting, with the line's number; every line of ten is cut at the limit."""

    def __init__(self, room=None, broken=()):
        self.limit, self.batches, self.broken = room, [], broken

    def room(self, decoder):
        return self.limit

    def encode(self, texts):
        return [[ord(c) for c in text.split()] + [3] for text in texts]

    def cut(self, source, room):
        return source[:room]

    def outputs(self, sources, decoder, *, batch_size, key, numbers, stop, nbest):
        order = np.argsort([-len(source) for source in sources], kind="stable").tolist()
        for i in range(0, len(order), batch_size):
            places = order[i : i + batch_size]
            self.batches.append([numbers[place] for place in places])
            rows = ("".join(map(chr, sources[place])).strip("\3") for place in places)
            found = zip(places, rows, strict=True)
            yield places, [shouted(numbers[place], row, self.broken) for place, row in found]


def shouted(number, text, broken=()):
    """Of the fifth line of ten a list, of the first one a score, and it is cut."""
    told = {
        5: {"nbest": (("A", -0.5), ("B\n", -1.25))},
        0: {"finish_reason": "length", "score": -2.5},
    }
    told = {"finish_reason": "nan"} if number in broken else told.get(number % 10, {})
    return Result(text=f"{number} {text.upper()}", **told)


def run(path=None, lines=TEXTS, settings=SETTINGS, batch_size=4, room=None):
    """All translations, and the batches that were decoded for them."""
    translator = Shouting(room)
    if path is None:
        windows = translations(translator, lines, GREEDY, batch_size=batch_size)
        return [*chain(*windows)], translator.batches
    with Journal(path, settings) as journal:
        windows = translations(translator, lines, GREEDY, batch_size=batch_size, journal=journal)
        return [*chain(*windows)], translator.batches


pytestmark = pytest.mark.filterwarnings("ignore:.* outputs are cut")


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(nar.lines, "WINDOW", 3)


WANTED = [shouted(i, text.replace(" ", "")) if text.strip() else EMPTY
          for i, text in enumerate(TEXTS)]  # fmt: skip


# ----------------------------------------------------------------------------------------- lines
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"))), st.booleans())
def test_lines_of_a_stream(texts, crlf):
    texts = [text.removesuffix("\r") for text in texts]
    mark = "\ufeff" if texts else ""  # so that any text may follow
    stream = (mark + "".join(text + ("\r\n" if crlf else "\n") for text in texts)).encode()
    lines = Lines(io.BytesIO(stream))
    assert [lines[i] for i in range(len(lines))] == texts


@pytest.mark.parametrize(
    ("stream", "texts"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\n\nb", ["a", "", "b"]),
        (b"a\rb\xe2\x80\xa8c\r\n\r\nd\r", ["a\rb\u2028c", "", "d"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", ["a", "\ufeffb"]),
        (b"\xef\xbb\xbf\r\n", [""]),
    ],
)
def test_ends_of_lines(stream, texts):
    lines = Lines(io.BytesIO(stream))
    assert [lines[i] for i in range(len(lines))] == texts


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80"])
def test_a_line_that_is_not_utf8_is_named_before_anything_is_translated(bad):
    lines = Lines(io.BytesIO(b"a\nb\n" + bad + b"\nc\n"))
    with pytest.raises(NarError, match="^line 3 is not UTF-8"):
        translations(Shouting(), lines, GREEDY)


# ----------------------------------------------------------------------------------- translation
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_order_is_kept_and_blank_lines_stay_empty(batch_size):
    found, batches = run(batch_size=batch_size)
    assert found == WANTED
    assert sorted(chain(*batches)) == [i for i, text in enumerate(TEXTS) if text.strip()]


def test_lines_come_out_before_the_last_one_is_translated():
    translator, done = Shouting(), []
    windows = translations(translator, TEXTS, GREEDY, batch_size=4, progress=done.append)
    assert not translator.batches
    assert next(windows) == WANTED[:12]
    assert len(translator.batches) == 3
    lengths = [len(TEXTS[i]) for batch in translator.batches for i in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert list(chain(*windows)) == WANTED[12:]
    assert done == sorted(done)
    assert done[-1] == len(TEXTS)


def test_outputs_that_are_cut_are_counted_in_one_warning(tmp_path):
    path = tmp_path / "journal"
    told = (
        "^3 of 40 outputs are cut at max_length=9 tokens: lines 11, 21, 31$"  # the first is blank
    )
    for _ in range(2):  # decoded, and from the journal
        with pytest.warns(UserWarning, match=told) as found:
            run(path)
        assert len(found) == 1


def test_wrong_batch_size():
    with pytest.raises(NarError, match="batch_size=0"):
        run(batch_size=0)


# --------------------------------------------------------------------------------------- journal
def numbers_of(journal):
    """The lines that a journal holds, as often as it does."""
    records = map(json.loads, journal.decode().splitlines()[1:])
    return sorted(int(number) for record in records for number in record)


def test_killed_at_any_moment(tmp_path):
    """What a kill leaves of a file that is only appended to is its beginning, up to any byte."""
    path = tmp_path / "journal"
    found, batches = run(path)
    assert found == WANTED
    whole = path.read_bytes()
    assert numbers_of(whole) == sorted(chain(*batches))
    ends = np.cumsum([len(line) for line in whole.splitlines(keepends=True)])
    for size in sorted({*range(0, len(whole), 11), *ends, *(ends - 1)}):
        path.write_bytes(whole[:size])
        kept = max(whole[:size].count(b"\n") - 1, 0)
        assert run(path) == (WANTED, batches[kept:])
        assert path.read_bytes() == whole


def test_texts_alone_are_a_journal_too(tmp_path):
    """As they were written before results were more than texts."""
    path = tmp_path / "journal"
    run(path)
    header, *records = path.read_bytes().splitlines(keepends=True)
    texts = {number: str(number) for record in records for number in json.loads(record)}
    path.write_bytes(header + json.dumps(texts).encode() + b"\n")
    found, batches = run(path)
    assert found == [Result(text=str(i)) if text.strip() else EMPTY for i, text in enumerate(TEXTS)]
    assert not batches


def test_line_breaks_within_texts_are_told_from_those_between():
    assert digest(["a\nb", "c"]) != digest(["a", "b\nc"])


def test_another_batch_size_goes_on_too(tmp_path):
    path = tmp_path / "journal"
    run(path)
    beginning = b"".join(path.read_bytes().splitlines(keepends=True)[:5])
    for batch_size in (1, 3, 50):
        path.write_bytes(beginning)
        found, batches = run(path, batch_size=batch_size)
        assert found == WANTED
        assert not set(chain(*batches)) & set(numbers_of(beginning))
        numbers = numbers_of(path.read_bytes())
        assert numbers == [i for i, text in enumerate(TEXTS) if text.strip()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {**SETTINGS, "seed": 1}}, "seed is 0 there and 1 here$"),
        (
            {"settings": {**SETTINGS, "weights": "x", "decoder": "Beam()"}},
            r"weights is 'abc' there and 'x' here; decoder is 'Greedy\(max_length=9\)' there and",
        ),
        ({"settings": {"weights": "abc"}}, "seed is 0 there and None here"),
        ({"lines": [*TEXTS, ""]}, "lines is 40 there and 41 here; text is '"),
        ({"lines": [*TEXTS[:-1], "z"]}, "run: text is '.*' there and '.*' here$"),
    ],
)
def test_the_journal_of_another_run_is_refused(tmp_path, change, message):
    path = tmp_path / "journal"
    run(path)
    before = path.read_bytes()
    with pytest.raises(NarError, match=message):
        run(path, **change)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"a precious text", b"[1]\n", b'{"a": 1}\n', b"\xff\n", b"\n"])
def test_other_files_are_left_alone(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(NarError, match="is no journal of translations"):
        run(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "record",
    [
        b"\0\0\0\n",
        b"[1]\n",
        b'{"1000": "a"}\n',
        b'{"a": "b"}\n',
        b'{"1": {"txt": "a"}}\n',
        b'{"1": 2}\n',
    ],
)
def test_damage_is_named(tmp_path, record):
    path = tmp_path / "journal"
    run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:2], record, *lines[3:]])
    path.write_bytes(damaged)
    with pytest.raises(NarError, match=re.escape(f"{path}, line 3: damaged")):
        run(path)
    assert path.read_bytes() == damaged


def test_a_journal_on_a_full_disk_is_named_and_goes_on(tmp_path, small_files):
    path = tmp_path / "journal"
    with small_files(700), pytest.raises(OSError, match=f"too large: '{path}'"):
        run(path)
    assert 2 < path.read_bytes().count(b"\n") < 11
    found, batches = run(path)
    assert found == WANTED
    assert 0 < len(batches) < 11


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "journal"
    with Journal(path, SETTINGS), pytest.raises(NarError, match=f"another process .* {path}"):
        Journal(path, SETTINGS)
    assert run(path)[0] == WANTED


def test_files_that_cannot_be_a_journal(tmp_path):
    with pytest.raises(NarError, match="cannot be a journal: Is a directory"):
        Journal(tmp_path, SETTINGS)
    with pytest.raises(NarError, match="cannot be a journal: No such file"):
        Journal(tmp_path / "no" / "journal", SETTINGS)


def test_a_run_that_cannot_begin_leaves_no_header(tmp_path):
    path = tmp_path / "journal"
    with pytest.raises(NarError, match="^lines 2, .*: longer than the 4 tokens that fit"):
        run(path, room=4)
    assert not path.read_bytes()


def test_lines_that_broke_off_are_named_once_at_the_end():
    broken = range(1, 40, 3)
    decoder = nar.Greedy(max_length=9)
    windows = translations(Shouting(broken=broken), TEXTS, decoder, batch_size=4)
    found = [next(windows)]  # says nothing yet
    lost = [i for i in broken if TEXTS[i].strip()]
    first = ", ".join(str(i + 1) for i in lost[:10])
    said = f"^{len(lost)} of {len(TEXTS)} outputs broke off .*: lines {first} and .* more"
    with (
        pytest.warns(UserWarning, match=said),
        pytest.warns(UserWarning, match="cut at max_length=9"),
    ):
        found += windows
    results = list(chain.from_iterable(found))
    assert [i for i, result in enumerate(results) if result.finish_reason == "nan"] == lost
