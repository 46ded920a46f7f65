"""`python -m viralbert`: the same as the command."""

import sys

from viralbert.cli import main

if __name__ == "__main__":
    sys.exit(main())
