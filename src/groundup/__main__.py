"""`python -m groundup`, the same as `groundup`."""

import sys

from groundup.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
