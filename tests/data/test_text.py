import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nar.data.text import Pairs, fingerprint, overlap, texts
from nar.errors import NarError


@pytest.fixture
def write(tmp_path):
    def files(**contents):
        for name, content in contents.items():
            path = tmp_path / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return files


def test_pairs_are_read_at_random_and_in_order(write):
    folder = write(train__en="one\ntwo\n\nfour\n", train__de="eins\nzwei\n\nvier\n")
    pairs = Pairs(folder, "train", "en", "de")
    assert len(pairs) == 4
    assert list(pairs) == [("one", "eins"), ("two", "zwei"), ("", ""), ("four", "vier")]
    assert list(texts(pairs))[:4] == ["one", "eins", "two", "zwei"]
    assert pairs[3] == pairs[-1] == ("four", "vier")
    assert Pairs(folder, "train", "de", "en")[1] == ("zwei", "two")
    for outside in (4, -5):
        with pytest.raises(IndexError):
            pairs[outside]


def test_only_newlines_end_lines(write):
    odd = "a\u2028b\x85c\x0bd"
    folder = write(t__a=f"{odd}\r\nlast, without a newline", t__b="x\ny")
    assert list(Pairs(folder, "t", "a", "b")) == [(odd, "x"), ("last, without a newline", "y")]


def test_a_byte_order_mark_is_no_text(write):
    folder = write(t__a="\ufeffone\n\ufefftwo\n", t__b="\ufeff\nzwei\n")
    assert list(Pairs(folder, "t", "a", "b")) == [("one", ""), ("\ufefftwo", "zwei")]


def test_languages_may_have_dots(write):
    folder = write(wmt08__en="a\n", wmt08__ref__de="b\n", wmt08__kd__de="c\n")
    assert Pairs(folder, "wmt08", "en", "kd.de")[0] == ("a", "c")


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8")), min_size=1))
def test_any_utf8_comes_back(tmp_path_factory, lines):
    as_file = lambda lines: ("\ufeff" + "".join(f"{line}\n" for line in lines)).encode()  # noqa: E731
    folder = tmp_path_factory.mktemp("any")
    (folder / "s.a").write_bytes(as_file(lines))
    (folder / "s.b").write_bytes(as_file(reversed(lines)))
    assert list(Pairs(folder, "s", "a", "b")) == list(zip(lines, reversed(lines), strict=True))


def test_missing_files_name_what_there_is_nearest_first(write):
    folder = write(train__en="a\n", train__de="a\n", val__en="a\n", test_2016__en="a\n")
    with pytest.raises(NarError, match=r"trian\.en is missing.*: train, .*val"):
        Pairs(folder, "trian", "en", "de")
    with pytest.raises(NarError, match=r"train\.dee is missing.*'train' has: de, en"):
        Pairs(folder, "train", "en", "dee")
    with pytest.raises(NarError, match="not a folder"):
        Pairs(folder / "nowhere", "train", "en", "de")


def test_bad_files_are_named(write):
    folder = write(
        a__en="1\n2\n3\n",
        a__de="1\n2\n",
        b__en="",
        b__de="",
        c__en=b"fine\nfine\ncaf\xe9\n",
        c__de="x",
    )
    with pytest.raises(NarError, match=r"a\.en has 3 lines and .*a\.de has 2"):
        Pairs(folder, "a", "en", "de")
    with pytest.raises(NarError, match=r"b\.en is empty"):
        Pairs(folder, "b", "en", "de")
    with pytest.raises(NarError, match=r"c\.en, line 3: not UTF-8"):
        Pairs(folder, "c", "en", "de")


def test_line_of_bad_text_far_into_a_file(write):
    folder = write(t__a=b"0123456789\n" * 300_000 + b"\xff\n", t__b="x\n")
    with pytest.raises(NarError, match=r"line 300001:"):
        Pairs(folder, "t", "a", "b")


def test_overlap_is_counted_and_warned_of():
    train = [("A house.", "Ein Haus."), ("Two", "Zwei"), ("Three", "Drei")]
    test = [("a  house.", "ein haus. "), ("Two", "Zwo"), ("three", "DREI"), ("three", "drei")]
    with pytest.warns(UserWarning, match="3 of 4 test pairs are also in training"):
        assert overlap(train, test) == 3
    assert overlap(train, [("Two", "Drei")]) == 0


def test_fingerprint_follows_the_content(write):
    folder = write(t__a="1\n", t__b="2\n")
    first = fingerprint(Pairs(folder, "t", "a", "b"))
    assert first == fingerprint(Pairs(folder, "t", "a", "b"))
    assert first != fingerprint(Pairs(folder, "t", "b", "a"))
    write(t__a="1\n", t__b="3\n")
    assert first != fingerprint(Pairs(folder, "t", "a", "b"))
    assert fingerprint([("1", "2")]) == fingerprint([("1", "2")]) != fingerprint([("12", "")])


def test_memory_does_not_grow_with_the_files(write):
    def peak(lines):
        folder = write(t__a=b"some text\n" * lines, t__b=b"mehr Text\n" * lines)
        tracemalloc.start()
        pairs = Pairs(folder, "t", "a", "b")
        assert sum(len(pairs[i][0]) for i in range(0, lines, 97)) == 9 * len(range(0, lines, 97))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    small, large = peak(100_000), peak(500_000)  # 1 MB and 5 MB a file
    assert large < 1.1 * small + 100_000
