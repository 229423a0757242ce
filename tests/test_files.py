import pytest

from nar.files import replacing, write


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
