"""`python -m anomri`, and what torchrun starts."""

import sys

from anomri.cli import main

if __name__ == "__main__":
    sys.exit(main())
