"""python -m nar, and the command nar."""

import gc

gc.set_threshold(100_000)  # imports and tracing make many objects, and hardly any garbage

from nar.cli import main  # noqa: E402


def run() -> None:
    """Runs a command; what is left goes with the process, without a last look at every object."""
    try:
        main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    run()
