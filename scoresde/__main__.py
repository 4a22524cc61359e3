"""`python -m scoresde` is the command `scoresde`."""

import sys

from scoresde.cli import main

if __name__ == "__main__":
    sys.exit(main())
