"""A directory to import from."""

import pytest

from tests.pretrained import tiny


@pytest.fixture
def directory(tmp_path):
    """A tiny Marian model."""
    tiny.write(tmp_path / "m", "marian")
    return tmp_path / "m"
