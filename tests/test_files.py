import pytest

from nar.errors import NarError
from nar.files import read_json, replacing, write


def test_a_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "Über")
    assert path.read_bytes() == "Über".encode()
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_text() == "Über"
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_goes_wrong_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write(path, "old")

    def fails():
        with replacing(path) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_is_named(tmp_path, small_files):
    path = tmp_path / "a.txt"
    write(path, "old")
    with small_files(2), pytest.raises(OSError, match=f"File too large: '{path}.partial'"):
        write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match=f"Not a directory: '{path / 'b.txt.partial'}'"):
        write(path / "b.txt", "new")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is missing"), ("{", "is damaged"), ("[]", "no JSON object")]
)
def test_json_is_read_or_refused_by_name(tmp_path, content, message):
    path = tmp_path / "a.json"
    write(path, '{"a": 1}')
    assert read_json(path) == {"a": 1}
    write(path, '\ufeff{"a": "ä"}')  # as some editors begin it
    assert read_json(path) == {"a": "ä"}
    path.unlink() if content is None else write(path, content)
    with pytest.raises(NarError, match=rf"a\.json.* {message}"):
        read_json(path)
