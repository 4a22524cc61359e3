"""Provide the command-line interface as `python -m scoresde`."""

import sys

from scoresde.cli import main

if __name__ == "__main__":
    sys.exit(main())
