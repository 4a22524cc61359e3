"""Run the command-line interface by `python -m scoresde`."""

import sys

from scoresde.cli import main

if __name__ == "__main__":
    sys.exit(main())
