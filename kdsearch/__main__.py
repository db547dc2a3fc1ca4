"""`python -m kdsearch`."""

from kdsearch.cli import main

main()
