"""How commands end: with a status, and one line that says what a user can mend."""

import contextlib
import os
import sys
from collections.abc import Iterator

from nar.errors import NarError, in_a_line
from nar.files import naming

OUTPUT = "standard output"


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the process with status 1 and a line on standard error, where something goes wrong."""
    try:
        yield
        with naming(OUTPUT):
            sys.stdout.flush()
    except BrokenPipeError:  # the reader went away, and knows why
        _give_up_output()
        sys.exit(1)
    except (NarError, OSError) as error:
        _give_up_output()
        sys.exit(f"error: {in_a_line(error)}")


def _give_up_output() -> None:
    """Where it cannot be written, Python would say so once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
