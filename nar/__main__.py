"""python -m nar: the command line."""

from nar.cli import main

main()
